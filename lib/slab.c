/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * slab.c - allocating and freeing objects: the fast paths, and the order of the slow ones.
 *
 * The fast path is a table look-up from size to bucket and one restartable sequence; to free, one
 * load of the chunk's tag and one restartable sequence. A debug, hardening or probe test has no
 * place in them: a cache that wants one has sheaves of capacity 0, which fails over to here.
 */
#define _GNU_SOURCE
#define NOLOCK_NO_INLINE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"
#include "debug.h"
#include "fast.h"
#include "harden.h"
#include "probes.h"
#include "rseq.h"
#include "core/core.h"
#include "core/kmalloc.h"
#include "core/slot.h"

/* Passes of growing and giving back before an ordinary allocation gives up. */
#define GROW_PASSES 8

nl_u32 nl_core_flags(gfp_t gfp, bool nolock)
{
	if (nolock)
		return NL_RESERVE;
	return ((gfp & __GFP_RECLAIM) ? NL_SPIN : 0) |
	       ((gfp & GFP_ATOMIC & ~__GFP_RECLAIM) ? NL_RESERVE : 0);
}

/* Through the R-slot, with its lock if it is empty. The object's address or 0. */
static nl_u64 alloc_rslot(struct nolock_heap *heap, nl_u32 id, nl_u32 who, nl_u32 flags)
{
	nl_slot_t *slot;
	nl_u64 obj, res;

	res = NL_RSEQ_RETRY(heap, nl_rseq_pop_once(heap, (nl_u64)id << NL_SLOT_SHIFT));
	if (NL_RSEQ_DONE(res))
		return res;
	if (res != NL_RSEQ_EMPTY)
		return 0;
	res = NL_RSEQ_RETRY(heap,
			    nl_rseq_lock_once(heap, (nl_u64)id << NL_SLOT_SHIFT, NL_HELD(who)));
	if (!NL_RSEQ_DONE(res))
		return 0;
	slot = (nl_slot_t *)res;
	flags |= nl_slot_flags(heap->h, slot);
	obj = nl_slot_refill(heap->h, slot, id, who, flags) ? nl_slot_pop(slot) : 0;
	nl_rslot_unlock(slot);
	return obj;
}

/* From the slabs of one node, or more of its memory: an object's address or 0. */
static nl_u64 alloc_there(struct nolock_heap *heap, nl_u32 id, nl_u32 flags, nl_u32 node, bool grow)
{
	nl_slot_t *count = nl_aslot(heap->h, nl_cpu(heap), id);
	nl_u32 who = nl_who(heap);
	nl_u64 obj;

	for (int pass = 0;; pass++) {
		obj = nl_slab_take(heap->h, id, who, node & (NL_MAX_NODES - 1));
		if (!obj) {
			obj = nl_slab_new(heap->h, id, flags | NL_NODE(node) | NL_THIS, who, 0);
			if (obj)
				nl_slot_count(count, NL_STAT_ALLOC_SLAB, 1);
		}
		if (obj || !grow || pass == GROW_PASSES || !nl_heap_grow_on(heap, 1, node))
			break;
	}
	if (obj) {
		nl_slot_count(count, NL_STAT_ALLOC_SLOWPATH, 1);
		if (node != nl_here(heap))
			nl_slot_count(count, NL_STAT_NODE_MISMATCH, 1);
	}
	return obj;
}

/*
 * A request that this CPU's sheaves need not meet: for another node, or for one alone. *only: there
 * is no other way to meet it.
 */
static nl_u64 alloc_on_node(struct nolock_heap *heap, nl_u32 id, gfp_t gfp, nl_u32 flags, int node,
			    bool *only)
{
	nl_u32 here = nl_here(heap), there = node == NUMA_NO_NODE ? here : (nl_u32)node;

	*only = gfp & __GFP_THISNODE;
	if (there == here && !*only)
		return 0;
	return alloc_there(heap, id, flags, there, gfpflags_allow_blocking(gfp));
}

static nl_u64 alloc_object(struct nolock_heap *heap, nl_u32 id, gfp_t gfp, int node)
{
	nl_u32 who = nl_who(heap), flags = nl_core_flags(gfp, false);
	nl_heap_t *h = heap->h;
	int err = errno;
	nl_u32 near = 0;
	bool only = false;
	nl_u64 obj;

	nl_depth++;
	nl_fork_check();
	if (gfpflags_allow_blocking(gfp))
		nl_fork_inventory();
	if (nl_unlikely(h->nr_nodes > 1)) {
		obj = alloc_on_node(heap, id, gfp, flags, node, &only);
		if (obj || only)
			goto out;
	}
	/* More of this node's memory before another's. */
	if (h->nr_nodes > 1 && gfpflags_allow_blocking(gfp))
		near = NL_THIS;
	for (int pass = 0;; pass++) {
		obj = alloc_rslot(heap, id, who, flags | near);
		if (!obj)
			obj = nl_alloc(h, id, nl_cpu(heap), who, flags | near);
		if (obj || !gfpflags_allow_blocking(gfp) || pass == GROW_PASSES)
			break;
		if (nl_heap_grow(heap, nl_heap_grow_step(heap)))
			continue;
		if (!near && !nl_heap_shrink(heap))
			break;
		near = 0;
	}
	if (!obj)
		obj = nl_alloc_last(h, id, nl_cpu(heap), who, flags);
out:
	/* Who may make system calls leaves something open for those who may not. */
	if (obj && heap->type == NL_HEAP_PRIVATE && gfpflags_allow_blocking(gfp) &&
	    nl_unlikely(!nl_heap_any_chunk(heap)))
		nl_heap_grow(heap, nl_heap_grow_step(heap));
	if (obj && nl_unlikely(nl_load(&h->nr_reserve) < nl_load(&h->reserve_target)) &&
	    gfpflags_allow_blocking(gfp))
		nl_heap_topup(heap);
	if (obj)
		errno = err; /* whatever failed on the way */
	nl_depth--;
	return obj;
}

nl_u64 nl_alloc_object(struct nolock_heap *heap, nl_u32 id, gfp_t gfp, int node)
{
	nl_u64 obj = alloc_object(heap, id, gfp, node), p;

	if (gfpflags_allow_blocking(gfp))
		nl_decay_tick(heap);
	if (nl_likely(!nl_debugged(heap, id)) || !obj)
		return obj;
	if (gfpflags_allow_blocking(gfp))
		nl_track_pid();
	for (nl_u32 tries = 0; !(p = nl_debug_alloc(heap, obj, tries)); tries++) {
		obj = alloc_object(heap, id, gfp, node);
		if (!obj)
			return 0;
	}
	return p;
}

static nl_u64 alloc_nolock(struct nolock_heap *heap, nl_u32 id, int node)
{
	nl_u32 who = nl_who(heap), cpu = nl_cpu(heap), flags = NL_RESERVE;
	nl_heap_t *h = heap->h;
	nl_u32 next = nl_cache(h, id)->next;
	bool only;
	nl_u64 obj;

	nl_fork_check();
	if (nl_unlikely(h->nr_nodes > 1)) {
		obj = alloc_on_node(heap, id, 0, flags, node, &only);
		if (obj)
			return obj;
	}
	obj = alloc_rslot(heap, id, who, flags);
	if (!obj)
		obj = nl_alloc(h, id, cpu, who, flags);
	if (obj)
		return obj;
	if (next != id) {
		obj = nl_alloc(h, next, cpu, who, flags);
		if (obj) {
			nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_NEXT_BUCKET, 1);
			return obj;
		}
	}
	/* The hints say that nothing is left. Believe the bitmaps alone (P1). */
	obj = nl_alloc_last(h, id, cpu, who, flags);
	if (!obj && next != id) {
		obj = nl_alloc_last(h, next, cpu, who, flags);
		if (obj)
			nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_NEXT_BUCKET, 1);
	}
	return obj;
}

nl_u64 nl_alloc_object_nolock(struct nolock_heap *heap, nl_u32 id, int node)
{
	nl_u64 obj, p = 0;

	nl_depth++;
	obj = alloc_nolock(heap, id, node);
	/* It may be of the next bucket, so its own cache decides whether it is debugged. */
	for (nl_u32 tries = 0; nl_unlikely(nl_load(&nl_debug_on)) && obj; tries++) {
		p = nl_debug_alloc(heap, obj, tries);
		if (p)
			break;
		obj = alloc_nolock(heap, id, node);
	}
	nl_depth--;
	return p ? p : obj;
}

static __attribute__((cold)) void *fail(struct nolock_heap *heap, nl_u32 id, size_t size, gfp_t gfp,
					int err)
{
	if (heap->h && id < NL_MAX_CACHES)
		nl_slot_count(nl_aslot(heap->h, nl_cpu(heap), id), NL_STAT_ALLOC_FAIL, 1);
	NL_PROBE3(alloc_fail, heap->h, size, gfp);
	if ((gfp & __GFP_NOFAIL) && !(gfp & ~NOLOCK_GFP_MASK)) {
		nl_say("nolock: out of memory: %zu bytes with __GFP_NOFAIL\n", size);
		abort();
	}
	/* Nolock callers have no such flag: they never make the system call. */
	if (err == ENOMEM && gfpflags_allow_spinning(gfp) && !(gfp & __GFP_NOWARN))
		nl_report_failure(heap->h && id < NL_MAX_CACHES && heap->type == NL_HEAP_PRIVATE ?
					  nl_cache(heap->h, id)->name :
					  NULL,
				  size, gfp);
	errno = err;
	return NULL;
}

void *nl_alloc_failed(struct nolock_heap *heap, nl_u32 id, size_t size, gfp_t gfp, int err)
{
	return fail(heap, id, size, gfp, err);
}

/* What was asked for is less than the bucket has: in a debugged one the rest is red zone. */
static nl_u64 asked(struct nolock_heap *heap, nl_u64 obj, size_t size)
{
	int id = nl_unlikely(nl_load(&nl_debug_on)) ? nl_cache_of(heap->h, obj) : -1;

	if (id >= 0 && nl_debugged(heap, (nl_u32)id))
		nl_debug_resize(heap, (nl_u32)id, obj, size, false);
	return obj;
}

/* Of a cache: with __GFP_ZERO as many bytes as its objects have for their users. */
static void *finish(nl_u64 obj, size_t size, gfp_t gfp)
{
	if (gfp & __GFP_ZERO)
		memset((void *)obj, 0, size);
	return (void *)obj;
}

/* An object that nobody else has yet: zero from there on to its end. */
static void clear_from(struct nolock_heap *heap, void *p, size_t from, gfp_t gfp)
{
	size_t whole = ksize(p), edge = (from + NL_CHUNK_SIZE - 1) & ~(size_t)(NL_CHUNK_SIZE - 1);

	if (whole <= NL_CHUNK_SIZE || edge > whole)
		edge = whole;
	memset((char *)p + from, 0, edge - from);
	if (edge < whole)
		nl_large_clear(heap, (char *)p + edge, whole - edge, gfp);
}

/*
 * Of kmalloc(): the whole bucket, or all chunks, so that krealloc() finds zeros there when it grows
 * the object in place. In a debugged bucket what was asked for, at least.
 */
static void *finish_kmalloc(struct nolock_heap *heap, nl_u64 obj, gfp_t gfp)
{
	void *p = (void *)obj;
	size_t whole = (gfp & __GFP_ZERO) ? ksize(p) : 0;

	if (whole > NL_MAX_SIZE)
		nl_large_clear(heap, p, whole, gfp);
	else if (whole)
		memset(p, 0, whole);
	return p;
}

__attribute__((noinline)) void *nl_kmalloc_slow(struct nolock_heap *heap, size_t size, gfp_t gfp,
						int node)
{
	nl_u64 obj;
	nl_u32 id;

	if (!heap->h) {
		heap = nl_default_get();
		if (!heap)
			return NULL;
	}
	nl_thread_start();
	if ((gfp & ~NOLOCK_GFP_MASK) || heap->snapshot || node < NUMA_NO_NODE ||
	    node >= (int)heap->h->nr_nodes)
		return fail(heap, NL_MAX_CACHES, size, gfp, EINVAL);
	if (!size)
		return ZERO_SIZE_PTR;
	if (size > NL_MAX_SIZE) {
		void *p = nl_large_alloc(heap, size, gfp, node);

		if (!p)
			return fail(heap, NL_MAX_CACHES, size, gfp, ENOMEM);
		return finish_kmalloc(heap, (nl_u64)p, gfp);
	}
	id = nl_kmalloc_cache((nl_u32)size, !!(gfp & __GFP_ACCOUNT));
	obj = nl_alloc_object(heap, id, gfp, node);
	if (!obj)
		return fail(heap, id, size, gfp, ENOMEM);
	return finish_kmalloc(heap, asked(heap, obj, size), gfp);
}

/* An object of a small size, by its R-slot alone. */
NL_INLINE bool pop_small(const struct nolock_heap *heap, size_t size, nl_u64 *obj)
{
	return nl_likely(size - 1 < heap->small) && nl_likely(!nl_self.vforked) &&
	       nl_likely(
		       NL_RSEQ_DONE(*obj = nl_rseq_pop_once(heap, nl_small_slot[(size - 1) / 16])));
}

/* What the fast paths leave to the slow ones: zeroing, which is a call, and other buckets. */
#define FAST_MASK(mask) ((mask) & ~(__GFP_ZERO | __GFP_ACCOUNT))

NL_INLINE void *kmalloc_fast(struct nolock_heap *heap, size_t size, gfp_t gfp)
{
	nl_u64 obj;

	if (nl_likely(!(gfp & ~FAST_MASK(NOLOCK_GFP_MASK))) && pop_small(heap, size, &obj))
		return (void *)obj;
	return nl_kmalloc_slow(heap, size, gfp, NUMA_NO_NODE);
}

NL_HOT void *kmalloc(size_t size, gfp_t gfp)
{
	nl_u64 obj;

	if (nl_likely(!(gfp & ~FAST_MASK(NOLOCK_GFP_MASK))) && pop_default(size, &obj))
		return (void *)obj;
	return nl_kmalloc_slow(nl_default, size, gfp, NUMA_NO_NODE);
}

void *kzalloc(size_t size, gfp_t gfp)
{
	nl_u64 obj;

	if (nl_likely(!(gfp & ~(NOLOCK_GFP_MASK & ~__GFP_ACCOUNT))) && pop_default(size, &obj))
		return memset((void *)obj, 0, nl_kmalloc_room((nl_u32)size));
	return nl_kmalloc_slow(nl_default, size, gfp | __GFP_ZERO, NUMA_NO_NODE);
}

void *kmalloc_node(size_t size, gfp_t gfp, int node)
{
	return nl_kmalloc_slow(nl_default, size, gfp, node);
}

void *nolock_heap_kmalloc_node(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	if (nl_unlikely(!heap)) {
		errno = EINVAL;
		return NULL;
	}
	return nl_kmalloc_slow(heap, size, gfp, node);
}

void *nolock_heap_kmalloc(struct nolock_heap *heap, size_t size, gfp_t gfp)
{
	if (nl_unlikely(!heap)) {
		errno = EINVAL;
		return NULL;
	}
	return kmalloc_fast(heap, size, gfp);
}

static __attribute__((noinline)) void *nolock_slow(struct nolock_heap *heap, size_t size, gfp_t gfp,
						   int node)
{
	nl_u64 obj;
	nl_u32 id;

	if (!heap->h) {
		/* Before this library's constructor: the first call of all makes system calls. */
		heap = nl_default_get();
		if (!heap)
			return NULL;
	}
	nl_thread_start();
	if ((gfp & ~NOLOCK_GFP_NOLOCK_MASK) || heap->snapshot || node < NUMA_NO_NODE ||
	    node >= (int)heap->h->nr_nodes)
		return fail(heap, NL_MAX_CACHES, size, gfp & ~__GFP_NOFAIL, EINVAL);
	if (!size)
		return ZERO_SIZE_PTR;
	if (size > NL_MAX_SIZE) {
		void *p = nl_large_alloc_nolock(heap, size, gfp, node);

		if (!p)
			return fail(heap, NL_MAX_CACHES, size, gfp, ENOMEM);
		return finish_kmalloc(heap, (nl_u64)p, gfp);
	}
	id = nl_kmalloc_cache((nl_u32)size, !!(gfp & __GFP_ACCOUNT));
	obj = nl_alloc_object_nolock(heap, id, node);
	if (!obj)
		return fail(heap, id, size, gfp, ENOMEM);
	return finish_kmalloc(heap, asked(heap, obj, size), gfp);
}

NL_INLINE void *nolock_fast(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	nl_u64 obj;

	if (nl_likely(!(gfp & ~FAST_MASK(NOLOCK_GFP_NOLOCK_MASK)) && (unsigned int)node + 1 <= 1) &&
	    pop_small(heap, size, &obj))
		return (void *)obj;
	return nolock_slow(heap, size, gfp, node);
}

void *nolock_heap_kmalloc_nolock(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	if (nl_unlikely(!heap)) {
		errno = EINVAL;
		return NULL;
	}
	return nolock_fast(heap, size, gfp, node);
}

NL_HOT void *kmalloc_nolock(size_t size, gfp_t gfp, int node)
{
	nl_u64 obj;

	if (nl_likely(!(gfp & ~FAST_MASK(NOLOCK_GFP_NOLOCK_MASK)) && (unsigned int)node + 1 <= 1) &&
	    pop_default(size, &obj))
		return (void *)obj;
	return nolock_slow(nl_default, size, gfp, node);
}

static __attribute__((noinline)) void *bucket_slow(size_t bucket)
{
	nl_thread_start();
	return nl_kmalloc_slow(nl_default, nl_kmalloc_size((nl_u32)(bucket >> NL_SLOT_SHIFT)),
			       GFP_KERNEL, NUMA_NO_NODE);
}

static __attribute__((noinline)) void *bucket_nolock_slow(size_t bucket)
{
	nl_thread_start();
	return nolock_slow(nl_default, nl_kmalloc_size((nl_u32)(bucket >> NL_SLOT_SHIFT)), 0,
			   NUMA_NO_NODE);
}

NL_HOT void *nolock_bucket_alloc(size_t bucket)
{
	nl_u64 obj;

	return nl_likely(pop_bucket(bucket, &obj)) ? (void *)obj : bucket_slow(bucket);
}

NL_HOT void *nolock_bucket_alloc_nolock(size_t bucket)
{
	nl_u64 obj;

	return nl_likely(pop_bucket(bucket, &obj)) ? (void *)obj : bucket_nolock_slow(bucket);
}

void nl_free_refused(const void *p, const char *why)
{
	struct nolock_heap *heap = nolock_heap_of(p);

	if (!heap)
		heap = nl_load_acquire(&nl_default);
	if (heap->h && !heap->snapshot)
		nl_add(&heap->h->refused, 1);
	NL_PROBE3(free_refused, heap->h, p, why);
}

/* One object into its sheaf or slab: 0, -1 if it is none, 1 if it was free already. */
static int free_object(struct nolock_heap *heap, nl_u32 id, const void *p)
{
	nl_u32 who = nl_who(heap), idx;
	nl_slot_t *slot;
	nl_u64 res;
	bool pushed, other;

	if (nl_debugged(heap, id)) {
		nl_u64 obj = nl_debug_free(heap, id, (nl_u64)p);

		if (obj)
			nl_free(heap->h, id, nl_cpu(heap), who, obj);
		return 0;
	}
	idx = nl_slab_index(heap->h, id, (nl_u64)p);
	if (idx == ~0u)
		return -1;
	if (nl_slab_is_free(heap->h, (nl_u32)(((nl_u64)p - heap->h->base) >> NL_CHUNK_SHIFT), idx))
		goto twice;
	res = NL_RSEQ_BUSY;
	if (nl_likely(!nl_is_remote(heap, (nl_u64)p)))
		res = NL_RSEQ_RETRY(heap, nl_rseq_push_once(heap, (nl_u64)id << NL_SLOT_SHIFT,
							    (nl_u64)p));
	if (NL_RSEQ_DONE(res))
		return 0;
	if (res == NL_RSEQ_EMPTY) {
		res = NL_RSEQ_RETRY(heap, nl_rseq_lock_once(heap, (nl_u64)id << NL_SLOT_SHIFT,
							    NL_HELD(who)));
		if (NL_RSEQ_DONE(res)) {
			slot = (nl_slot_t *)res;
			other = nl_harden_slot(heap->h, slot, id, (nl_u64)p);
			pushed = other &&
				 nl_slot_room(heap->h, slot, id, who,
					      nl_slot_flags(heap->h, slot)) &&
				 nl_slot_push(slot, (nl_u64)p);
			nl_rslot_unlock(slot);
			if (pushed)
				return 0;
			if (!other)
				goto twice;
		}
	}
	/* Refused there is counted there. */
	return nl_free(heap->h, id, nl_cpu(heap), who, (nl_u64)p) ? 1 : 0;
twice:
	nl_slot_count(nl_aslot(heap->h, nl_cpu(heap), id), NL_STAT_FREE_REFUSED, 1);
	return 1;
}

/* Refused, and counted as such already. */
static const char free_already[] = "it is free already";

/* The chunk that an address of the heap lies in, and its tag; false: metadata, or not opened. */
static inline bool find_chunk(const struct nolock_heap *heap, const void *p, nl_u32 *chunk,
			      nl_u32 *tag)
{
	nl_u64 at = ((nl_u64)p - (nl_u64)heap->base) >> NL_CHUNK_SHIFT;

	if (!nl_chunk_ok(heap->h, at))
		return false;
	*chunk = (nl_u32)at;
	*tag = nl_load(nl_tag(heap->h, *chunk));
	return true;
}

/* Returns NULL, or why the pointer was refused. */
static const char *free_any(const void *p)
{
	struct nolock_heap *heap;
	nl_u32 chunk, tag;
	int err;

	if (ZERO_OR_NULL_PTR(p))
		return NULL;
	heap = nolock_heap_of(p);
	if (!heap)
		return "no heap's";
	nl_heap_refresh(heap);
	if (!find_chunk(heap, p, &chunk, &tag))
		return "metadata or not opened";
	switch (NL_TAG_KIND(tag)) {
	case NL_KIND_SLAB:
		err = free_object(heap, NL_TAG_CACHE(tag), p);
		if (err > 0)
			NL_PROBE3(free_refused, heap->h, p, free_already);
		return !err ? NULL : err > 0 ? free_already : "inside an object";
	case NL_KIND_LARGE:
		if ((nl_u64)p % NL_CHUNK_SIZE || nl_large_free(heap->h, chunk, nl_who(heap)))
			return "inside a large object";
		return NULL;
	case NL_KIND_BODY:
		return "inside a large object";
	default:
		return "free memory";
	}
}

static const char *free_slow(const void *p)
{
	const char *why;

	nl_depth++;
	nl_fork_check();
	nl_thread_start();
	why = free_any(p);
	nl_depth--;
	return why;
}

__attribute__((noinline)) const char *nl_free_slow(const void *p)
{
	const char *why = free_slow(p);

	if (nl_unlikely(why) && why != free_already) {
		nl_free_refused(p, why);
		nl_debug_refused(p, why);
	}
	return why;
}

static void say_refused(const char *call, const void *p, const char *why)
{
	static nl_u32 said;

	if (!__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
		nl_say("nolock: %s(%p) refused: %s; further ones are only counted\n", call, p, why);
}

static __attribute__((noinline)) void kfree_slow(const void *p)
{
	const char *why = nl_free_slow(p);

	nl_decay_tick(nl_default);
	if (why)
		say_refused("kfree", p, why);
}

NL_HOT void kfree(const void *p)
{
	if (!free_fast(p))
		kfree_slow(p);
}

NL_HOT void kfree_nolock(const void *p)
{
	if (!free_fast(p))
		nl_free_slow(p);
}

static size_t size_by_tag(const struct nolock_heap *heap, const void *p, nl_u32 chunk, nl_u32 tag)
{
	nl_u32 id = NL_TAG_CACHE(tag);

	if (NL_TAG_KIND(tag) == NL_KIND_LARGE)
		return (size_t)nl_slab(heap->h, chunk)->nr_chunks << NL_CHUNK_SHIFT;
	if (NL_TAG_KIND(tag) != NL_KIND_SLAB)
		return 0;
	if (nl_debugged(heap, id))
		return nl_debug_size((struct nolock_heap *)heap, id, (nl_u64)p);
	return id < NL_NR_KMALLOC ? nl_cache(heap->h, id)->size :
				    nl_cache(heap->h, id)->object_size;
}

size_t ksize(const void *p)
{
	struct nolock_heap *heap = ZERO_OR_NULL_PTR(p) ? NULL : nolock_heap_of(p);
	nl_u32 chunk, tag;

	return heap && find_chunk(heap, p, &chunk, &tag) ? size_by_tag(heap, p, chunk, tag) : 0;
}

size_t nl_object_size(const struct nolock_heap *heap, const void *p, const char **why)
{
	nl_u32 chunk, tag, idx;

	*why = "no heap's";
	if (!heap)
		return 0;
	*why = "metadata or not opened";
	if (!find_chunk(heap, p, &chunk, &tag))
		return 0;
	switch (NL_TAG_KIND(tag)) {
	case NL_KIND_SLAB:
		*why = "inside an object";
		idx = nl_slab_index(heap->h, NL_TAG_CACHE(tag),
				    (nl_u64)p - nl_cache(heap->h, NL_TAG_CACHE(tag))->left);
		if (idx == ~0u)
			return 0;
		*why = "it is free already";
		if (nl_slab_is_free(heap->h, chunk, idx))
			return 0;
		break;
	case NL_KIND_LARGE:
		*why = "inside a large object";
		if ((nl_u64)p % NL_CHUNK_SIZE)
			return 0;
		break;
	case NL_KIND_BODY:
		*why = "inside a large object";
		break;
	default:
		*why = "free memory";
		break;
	}
	return size_by_tag(heap, p, chunk, tag);
}

void *krealloc(const void *p, size_t new_size, gfp_t gfp)
{
	struct nolock_heap *heap;
	size_t old, whole;
	const char *why;
	void *new;
	int id;

	if (!new_size) {
		kfree(p);
		return ZERO_SIZE_PTR;
	}
	if (ZERO_OR_NULL_PTR(p))
		return kmalloc(new_size, gfp);
	if (gfp & ~NOLOCK_GFP_MASK) {
		errno = EINVAL;
		return NULL;
	}
	heap = nolock_heap_of(p);
	old = nl_object_size(heap, p, &why);
	if (nl_unlikely(!old)) {
		nl_free_refused(p, why);
		nl_debug_refused(p, why);
		say_refused("krealloc", p, why);
		errno = EINVAL;
		return NULL;
	}
	id = nl_unlikely(nl_load(&nl_debug_on)) ? nl_cache_of(heap->h, (nl_u64)p) : -1;
	if (id >= 0 && !nl_debugged(heap, (nl_u32)id))
		id = -1;
	whole = id < 0 ? old : nl_cache(heap->h, (nl_u32)id)->object_size;
	/* In place while it fits and no more than half of it would be wasted. */
	if (new_size <= whole && (new_size > whole / 2 || whole <= 64) &&
	    (id < 0 || nl_debug_resize(heap, (nl_u32)id, (nl_u64)p, new_size, gfp & __GFP_ZERO))) {
		/* What it grows into later must be zero then. The red zone is debugging's. */
		if ((gfp & __GFP_ZERO) && id < 0)
			memset((char *)p + new_size, 0, old - new_size);
		return (void *)p;
	}
	new = nolock_heap_kmalloc(heap, new_size, gfp & ~__GFP_ZERO);
	if (!new)
		return NULL;
	if (old > new_size)
		old = new_size;
	memcpy(new, p, old);
	if (gfp & __GFP_ZERO)
		clear_from(heap, new, old, gfp);
	kfree(p);
	return new;
}

static __attribute__((noinline)) void *cache_alloc_slow(struct kmem_cache *s, gfp_t gfp, int node,
							bool nolock)
{
	struct nolock_heap *heap = nl_heap_of(s);
	nl_cache_t *c = (nl_cache_t *)s;
	nl_u64 obj;

	if (!heap || nl_load(&c->state) != NL_CACHE_LIVE || heap->snapshot ||
	    (gfp & ~(nolock ? NOLOCK_GFP_NOLOCK_MASK : NOLOCK_GFP_MASK)) || node < NUMA_NO_NODE ||
	    node >= (int)heap->h->nr_nodes) {
		errno = EINVAL;
		return NULL;
	}
	nl_thread_start();
	obj = nolock ? nl_alloc_object_nolock(heap, c->id, node) :
		       nl_alloc_object(heap, c->id, gfp, node);
	if (!obj)
		return fail(heap, c->id, c->object_size, gfp, ENOMEM);
	return finish(obj, c->object_size, gfp);
}

NL_HOT void *kmem_cache_alloc(struct kmem_cache *s, gfp_t gfp)
{
	nl_u64 obj;

	if (nl_likely(!(gfp & ~GFP_KERNEL)) && pop_cache(s, &obj))
		return (void *)obj;
	return cache_alloc_slow(s, gfp, NUMA_NO_NODE, false);
}

void *kmem_cache_zalloc(struct kmem_cache *s, gfp_t gfp)
{
	return cache_alloc_slow(s, gfp | __GFP_ZERO, NUMA_NO_NODE, false);
}

void *kmem_cache_alloc_node(struct kmem_cache *s, gfp_t gfp, int node)
{
	return cache_alloc_slow(s, gfp, node, false);
}

NL_HOT void *kmem_cache_alloc_nolock(struct kmem_cache *s, gfp_t gfp, int node)
{
	nl_u64 obj;

	if (nl_likely(!gfp && (unsigned int)node + 1 <= 1) && pop_cache(s, &obj))
		return (void *)obj;
	return cache_alloc_slow(s, gfp, node, true);
}

/* An object of another cache goes to its own; the mistake is counted. */
static bool right_cache(const struct kmem_cache *s, const void *p)
{
	struct nolock_heap *heap = nolock_heap_of(p);

	if (!s || !heap || ZERO_OR_NULL_PTR(p))
		return true;
	if (nl_cache_of(heap->h, (nl_u64)p) == (int)nl_cache_id(s) && nl_heap_of(s) == heap)
		return true;
	nl_free_refused(p, "object of another cache: freed to its own");
	nl_debug_wrong_cache(s, p);
	return false;
}

NL_HOT void kmem_cache_free(struct kmem_cache *s, void *p)
{
	if (push_cache(s, p))
		return;
	right_cache(s, p);
	kfree(p);
}

NL_HOT void kmem_cache_free_nolock(struct kmem_cache *s, void *p)
{
	if (push_cache(s, p))
		return;
	right_cache(s, p);
	kfree_nolock(p);
}
