// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * bulk.c - many objects of a cache by one take of a slot's lock: from and to whole sheaves, which
 * the spare, the barn and the slabs' words replace while the lock is held.
 *
 * As __pcs_replace_empty_main() serves alloc_from_pcs_bulk() of Linux's slub.c, but the lock stays
 * held throughout: each step behind it is bounded. What no sheaf serves is allocated and freed one
 * by one: in caches without sheaves, and where both of the slots are locked.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include "internal.h"
#include "harden.h"
#include "rseq.h"
#include "core/core.h"
#include "core/kmalloc.h"
#include "core/slot.h"

nl_slot_t *nl_lock_slot(struct nolock_heap *heap, nl_u32 id, nl_u32 who)
{
	nl_slot_t *slot;
	nl_u64 res;

	res = NL_RSEQ_RETRY(heap,
			    nl_rseq_lock_once(heap, (nl_u64)id << NL_SLOT_SHIFT, NL_HELD(who)));
	if (NL_RSEQ_DONE(res))
		return (nl_slot_t *)res;
	slot = nl_aslot(heap->h, nl_cpu(heap), id);
	return nl_slot_trylock(slot, who) ? slot : NULL;
}

/*
 * Up to n objects from the top of main. One store to the word commits them, and counts them as allocated;
 * or they are counted as gone, to be allocated later.
 */
static size_t pop_some(nl_slot_t *slot, void **p, size_t n, bool allocated)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 size = NL_WORD_SIZE(word), left = n < size ? size - (nl_u32)n : 0;

	n = size - left;
	while (size > left)
		*p++ = (void *)nl_load((nl_word_t *)slot->objs + --size);
	if (!allocated)
		nl_store(&slot->stat[NL_STAT_OUT], slot->stat[NL_STAT_OUT] + n);
	nl_store(&slot->word, word + n * (allocated ? NL_WORD_POP : -1ULL));
	return n;
}

size_t nl_alloc_some(struct nolock_heap *heap, nl_u32 id, nl_u32 flags, void **p, size_t n,
		     nl_sheaf_t *to)
{
	nl_u32 who = nl_who(heap);
	nl_slot_t *slot = nl_lock_slot(heap, id, who);
	size_t got = 0, some;

	if (!slot)
		return 0;
	do {
		some = pop_some(slot, p + got, n - got, !to);
		got += some;
		/* Before more leave the slot: who never comes back has no more than a sheaf's in hand. */
		if (to)
			nl_sheaf_prefilled(to, to->size + (nl_u32)some);
	} while (got < n &&
		 nl_slot_refill(heap->h, slot, id, who, flags | nl_slot_flags(heap->h, slot)));
	nl_any_slot_unlock(slot);
	return got;
}

static int alloc_bulk(struct kmem_cache *s, gfp_t gfp, gfp_t mask, size_t size, void **p)
{
	struct nolock_heap *heap = s ? nolock_heap_of(s) : NULL;
	bool nolock = mask == NOLOCK_GFP_NOLOCK_MASK, singly;
	nl_cache_t *c = (nl_cache_t *)s;
	size_t got = 0;
	nl_u64 obj;

	if (!heap || nl_load(&c->state) != NL_CACHE_LIVE || (gfp & ~mask) || size > INT_MAX) {
		errno = EINVAL;
		return 0;
	}
	nl_depth++;
	nl_fork_check();
	/* What is in sheaves may be another node's, where this one had nothing left. */
	singly = (gfp & __GFP_THISNODE) && heap->h->nr_nodes > 1;
	while (got < size) {
		if (!singly)
			got += nl_alloc_some(heap, c->id, nl_core_flags(gfp, nolock), p + got,
					     size - got, NULL);
		if (got == size)
			break;
		/* This one waits, grows the heap, or scans it, as the flags allow. */
		obj = nolock ? nl_alloc_object_nolock(heap, c->id, NUMA_NO_NODE) :
			       nl_alloc_object(heap, c->id, gfp, NUMA_NO_NODE);
		if (!obj)
			break;
		p[got++] = (void *)obj;
	}
	nl_depth--;
	if (got < size) {
		kmem_cache_free_bulk_nolock(s, got, p);
		nl_alloc_failed(heap, c->id, size * c->object_size, gfp, ENOMEM);
		return 0;
	}
	if (gfp & __GFP_ZERO)
		for (size_t i = 0; i < size; i++)
			memset(p[i], 0, c->object_size);
	return (int)size;
}

int kmem_cache_alloc_bulk(struct kmem_cache *s, gfp_t gfp, size_t size, void **p)
{
	return alloc_bulk(s, gfp, NOLOCK_GFP_MASK, size, p);
}

int kmem_cache_alloc_bulk_nolock(struct kmem_cache *s, gfp_t gfp, size_t size, void **p)
{
	return alloc_bulk(s, gfp, NOLOCK_GFP_NOLOCK_MASK, size, p);
}

/* The start of an object of the cache, as far as its chunk and its address say; of this node. */
static bool is_object(struct nolock_heap *heap, nl_u32 id, const void *p)
{
	return (nl_u64)p - (nl_u64)heap->base < heap->size &&
	       nl_cache_of(heap->h, (nl_u64)p) == (int)id &&
	       nl_slab_index(heap->h, id, (nl_u64)p) != ~0u && !nl_is_remote(heap, (nl_u64)p);
}

/* Objects of the cache up to the first that is none, into main while there is room. */
static size_t push_some(struct nolock_heap *heap, nl_slot_t *slot, nl_u32 id, void **p, size_t n)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 size = NL_WORD_SIZE(word);
	nl_u32 room = slot->cap < NL_SHEAF_MAX ? slot->cap : NL_SHEAF_MAX;
	size_t i = 0;

	for (; i < n && size < room && is_object(heap, id, p[i]); i++)
		nl_store((nl_word_t *)slot->objs + size++, (nl_u64)p[i]);
	nl_barrier(); /* an interrupter's view and a crash: the objects before the size */
	nl_store(&slot->word, word + i);
	return i;
}

static size_t free_some(struct nolock_heap *heap, nl_u32 id, void **p, size_t n)
{
	nl_u32 who = nl_who(heap);
	nl_slot_t *slot = nl_lock_slot(heap, id, who);
	size_t done = 0;

	if (!slot)
		return 0;
	for (;;) {
		done += push_some(heap, slot, id, p + done, n - done);
		if (done == n || !is_object(heap, id, p[done]))
			break;
		if (!nl_harden_slot(heap->h, slot, id, (nl_u64)p[done]) ||
		    !nl_slot_room(heap->h, slot, id, who, nl_slot_flags(heap->h, slot)))
			break;
	}
	nl_any_slot_unlock(slot);
	return done;
}

static void free_bulk(struct kmem_cache *s, size_t size, void **p,
		      void (*one)(struct kmem_cache *s, void *p))
{
	size_t i = 0;

	nl_depth++;
	nl_fork_check();
	while (i < size) {
		struct nolock_heap *heap = nolock_heap_of(p[i]);
		int id = heap ? nl_cache_of(heap->h, (nl_u64)p[i]) : -1;
		size_t n = 0;

		/* An object of another cache than was named is said to be one, and freed to its own. */
		if (id >= 0 && (!s || (nl_cache_t *)s == nl_cache(heap->h, (nl_u32)id)))
			n = free_some(heap, (nl_u32)id, p + i, size - i);
		if (!n && id >= 0 && nl_cache(heap->h, (nl_u32)id)->capacity &&
		    nl_slab_index(heap->h, (nl_u32)id, (nl_u64)p[i]) == ~0u)
			nl_free_refused(p[i++], "inside an object");
		else if (!n)
			one(s, p[i++]);
		i += n;
	}
	nl_depth--;
}

void kmem_cache_free_bulk(struct kmem_cache *s, size_t size, void **p)
{
	free_bulk(s, size, p, kmem_cache_free);
}

void kmem_cache_free_bulk_nolock(struct kmem_cache *s, size_t size, void **p)
{
	free_bulk(s, size, p, kmem_cache_free_nolock);
}
