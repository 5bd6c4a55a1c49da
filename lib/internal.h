/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * internal.h - the parts of libnolock below the public API, for lib/ itself, nolockd and tests.
 *
 * Not installed. nolockd and the tests link the static library.
 */
#ifndef NL_INTERNAL_H
#define NL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <nolock/slab.h>
#include <nolock/heap.h>
#include <nolock/stat.h>
#include <nolock/page.h>
#include "core/layout.h"
#include "core/core.h"

#define NL_HIDDEN __attribute__((visibility("hidden")))

/* Sizes that the fast path of kmalloc looks up in a table. */
#define NL_SMALL_MAX 1024u

/*
 * A heap as one process sees it. The fast paths of heaps that are not the default one read the first line
 * alone.
 */
struct nolock_heap {
	nl_u64 first;	   /* address of the first chunk */
	nl_slot_t *rslots; /* the R-slots of the first CPU, or mm_cid */
	nl_u64 rseq_off;   /* of struct rseq from the thread pointer */
	nl_u64 slot_off;   /* the same of the slot's index, which lies in struct rseq */
	nl_u32 rseq_slots; /* nr_slots, or 0: no R-slots (no rseq, switched off) */
	nl_u32 client;
	nl_u64 small; /* largest size of the fast path; 0 while there is no heap, or no rseq */

	nl_heap_t *h;
	char *base;
	nl_u64 size;
	nl_u32 nr_slots;
	nl_u32 type;
	int fd;	  /* of the shared memory, or -1 */
	int conn; /* connection to nolockd, or -1 */
	int refs;
	int pid;	     /* who mapped it: a shared heap is not there in a child */
	int state;	     /* NL_HANDLE_*, atomic */
	bool snapshot;	     /* a copy of another process's metadata: figures only */
	bool lazy;	     /* chunks are not reserved, but mapped when their group is opened */
	nl_u64 decay_next;   /* decay.c: time of the next visit, in ms; atomic */
	nl_u32 decay_visits; /* and where it goes on, racy */
	nl_u32 decay_group;
	char name[NL_NAME];
	struct nl_rcu *rcu; /* what waits for a grace period; NULL without an RCU */
};

enum {
	NL_HANDLE_FREE,
	NL_HANDLE_BUSY,
	NL_HANDLE_LIVE,
};

/*
 * The chunks of the private heap that free's fast path serves. Constant but for span, which grows;
 * it is 0 before there is a heap, and without rseq.
 */
struct nl_free_map {
	nl_u64 first; /* address of the first chunk; before it is known, what no pointer is behind */
	nl_u64 span;  /* bytes from there whose tags may be read */
	nl_tag_t *tags;
};
extern struct nl_free_map nl_free_map NL_HIDDEN;

/* Offset of the slot for each size, by 16: the same in every heap. Set with the first of them. */
extern nl_u16 nl_small_slot[NL_SMALL_MAX / 16] NL_HIDDEN;

/* The private heap; before it is made, a handle that sends every fast path to the slow one. */
extern struct nolock_heap *nl_default NL_HIDDEN;

/* The heap of the process, made if need be; NULL with errno. Any context. */
NL_HIDDEN struct nolock_heap *nl_default_get(void);

/* This thread's half of an owner word: {client 16, thread 16}. Any context. */
NL_HIDDEN nl_u32 nl_who(const struct nolock_heap *heap);

/* Which A-slot to try. Any context. */
NL_HIDDEN nl_u32 nl_cpu(const struct nolock_heap *heap);

/* Take a note of groups that somebody else may have opened. */
NL_HIDDEN void nl_heap_refresh(struct nolock_heap *heap);

/*
 * nl_possible_cpus - above the number of any CPU that there can ever be: of "0-3,8", 9
 * No malloc, no stdio: any context.
 */
NL_HIDDEN nl_u32 nl_possible_cpus(void);

/* bias.c: may threads take A-slots back from BPF programs? Not where sequences are switched off. */
NL_HIDDEN void nl_slot_may_steal(bool may);

static inline nl_u32 nl_cache_id(const struct kmem_cache *s)
{
	return ((const struct nl_cache *)s)->id;
}

/* nolock_heap_of() for what is most often of the default heap; one that is not there yet has no size. */
static inline struct nolock_heap *nl_heap_of(const void *p)
{
	struct nolock_heap *heap = nl_load_acquire(&nl_default);

	if (nl_likely((nl_u64)p - (nl_u64)heap->base < heap->size))
		return heap;
	return nolock_heap_of(p);
}

/* heap.c */

/* Bytes of metadata before the group table, and of the whole fixed part, for a heap's shape. */
struct nl_shape {
	nl_u64 base;
	nl_u64 size; /* multiple of NL_GROUP_SIZE */
	nl_u32 type;
	nl_u32 nr_slots;
	nl_u32 nr_nodes;
	nl_u32 slot_by_cpu;
	const char *name;
};

/*
 * nl_heap_format - make a heap in memory that is all zero
 * The first nl_heap_fixed_size() bytes must be present (arena: populated).
 * Returns 0 or -EINVAL (too small or too large for its metadata).
 */
NL_HIDDEN int nl_heap_format(void *mem, const struct nl_shape *shape);
NL_HIDDEN nl_u64 nl_heap_fixed_size(const struct nl_shape *shape);

/* nl_heap_lay_out - fill in every constant of a header from the shape. 0 or -EINVAL, as above. */
NL_HIDDEN int nl_heap_lay_out(struct nl_heap *h, const struct nl_shape *shape);

/* A copy of a live cache's entry, whole though the entry be destroyed and made again meanwhile. */
NL_HIDDEN bool nl_cache_read(nl_cache_t *c, struct nl_cache *copy);
/* What a cache's size means for its slabs; the default objects per sheaf. */
NL_HIDDEN void nl_cache_shape(struct nl_cache *c, nl_u32 id, nl_u32 object_size, nl_u32 size);
NL_HIDDEN nl_u32 nl_default_capacity(nl_u32 size);

/*
 * nl_heap_validate - is this a sane header? Reads a private copy: never the shared memory itself.
 * Returns 0, -EPROTO (another version) or -EUCLEAN; *why says what is wrong.
 */
NL_HIDDEN int nl_heap_validate(const struct nl_heap *copy, nl_u64 base, nl_u64 size,
			       const char **why);

/*
 * nl_heap_sane - does every word of a shared heap have a value that it may have at some time?
 * @head: private copy of the header, validated
 * @part, @parts: of slots, sheaves and groups look at one of so many parts; of the rest at all
 * Others may be at work in the heap. Returns 0; or -EUCLEAN, with the first damage in words.
 */
NL_HIDDEN int nl_heap_sane(struct nolock_heap *heap, const struct nl_heap *head, nl_u32 part,
			   nl_u32 parts, char *why, size_t size);

/*
 * nl_heap_map - map a shared heap and make a handle
 * @fd: arena map or memfd; the handle owns it from here on, on success
 * Returns the handle or NULL with errno as nolock_heap_open().
 */
NL_HIDDEN struct nolock_heap *nl_heap_map(int fd, nl_u32 type, nl_u64 base, nl_u64 size,
					  nl_u32 client);

/*
 * nl_heap_grow - open up to @groups more groups of 4 MiB and hand their chunks out
 * Private: mprotect. Arena and memfd: MADV_POPULATE_WRITE. Any process that has the heap may.
 * Returns how many were opened.
 */
NL_HIDDEN nl_u32 nl_heap_grow(struct nolock_heap *heap, nl_u32 groups);
/* The same, for a node. */
NL_HIDDEN nl_u32 nl_heap_grow_on(struct nolock_heap *heap, nl_u32 groups, nl_u32 node);

/* The same for one group, or, where the system has no room for one, for at least @least chunks. */
NL_HIDDEN nl_u32 nl_heap_grow_part(struct nolock_heap *heap, nl_u32 least, nl_u32 node);

/* nl_heap_reopen - open groups that a dead client had drawn, of a shared heap. */
NL_HIDDEN void nl_heap_reopen(struct nolock_heap *heap);

/* How many groups an allocation that finds none should open: more, the larger the heap is. */
NL_HIDDEN nl_u32 nl_heap_grow_step(const struct nolock_heap *heap);

/* The same for @nr adjacent chunks, which are the caller's: the first one's number, or 0. */
NL_HIDDEN nl_u32 nl_heap_grow_run(struct nolock_heap *heap, nl_u32 nr, nl_u32 node);

/* A word of the hints to groups with free chunks: those of a node, or of all. */
#define NL_ANY_NODE (~0u)
NL_HIDDEN nl_u64 nl_free_hints(nl_heap_t *h, nl_u32 word, nl_u32 node);

/* nl_heap_any_chunk - is there an open free chunk, as far as the hints know? Any context. */
NL_HIDDEN bool nl_heap_any_chunk(const struct nolock_heap *heap);

/* nl_heap_free_chunks - free chunks, the reserve not counted (racy). */
NL_HIDDEN nl_u32 nl_heap_free_chunks(const struct nolock_heap *heap);

/*
 * nl_heap_prefill - give every cache slabs until at least @bytes are free in its bitmaps; accounted
 * ones of kmalloc() once they have any
 * Returns the number of slabs made.
 */
NL_HIDDEN nl_u32 nl_heap_prefill(struct nolock_heap *heap, nl_u64 bytes);

/*
 * nl_heap_repair - take back what a dead client held (P4)
 * @client: its index. Takes over its locks, finishes or undoes what it was about to do, flushes
 * the sheaves it had taken out of all lists. Returns the number of locks taken over.
 */
NL_HIDDEN nl_u32 nl_heap_repair(struct nolock_heap *heap, nl_u32 client);

/*
 * slab.c: an object of a cache, past the fast path; the address or 0. The second is wait-free.
 */
NL_HIDDEN nl_u64 nl_alloc_object(struct nolock_heap *heap, nl_u32 id, gfp_t gfp, int node);
NL_HIDDEN nl_u64 nl_alloc_object_nolock(struct nolock_heap *heap, nl_u32 id, int node);
/* An allocation fails: counted, probed, fatal with __GFP_NOFAIL; sets errno and returns NULL. */
NL_HIDDEN void *nl_alloc_failed(struct nolock_heap *heap, nl_u32 id, size_t size, gfp_t gfp,
				int err);
/* What the flags mean to the core. */
NL_HIDDEN nl_u32 nl_core_flags(gfp_t gfp, bool nolock);
NL_HIDDEN void nl_free_refused(const void *p, const char *why);

/*
 * numa.c: how many nodes a heap is made for: NOLOCK_FAKE_NODES, or those there are in a shared heap
 * and, with NOLOCK_NUMA=1, in private ones, else 1. The node of a CPU. Any context.
 */
NL_HIDDEN nl_u32 nl_nodes(bool shared);
NL_HIDDEN nl_u32 nl_node_of_cpu(nl_u32 cpu);
/* Have the pages of [mem, mem + bytes) come from the node, where nodes are real. */
NL_HIDDEN void nl_node_bind(const struct nolock_heap *heap, void *mem, nl_u64 bytes, nl_u32 node);

/* The node of the slot that this thread would use right now. Any context. */
static inline nl_u32 nl_here(const struct nolock_heap *heap)
{
	return heap->h->nr_nodes > 1 ? nl_slot_node(heap->h, nl_cpu(heap)) : 0;
}

/* The node of a slot, as a flag of the core. */
static inline nl_u32 nl_slot_flags(nl_heap_t *h, const nl_slot_t *slot)
{
	nl_u64 cpu = ((nl_u64)slot - (nl_u64)nl_rslot(h, 0, 0)) >> NL_ROW_SHIFT;

	return NL_NODE(nl_slot_node(h, (nl_u32)(cpu < h->nr_slots ? cpu : cpu - h->nr_slots)));
}

/* Is it an object of another node than that of the slot that this thread would use? */
static inline bool nl_is_remote(const struct nolock_heap *heap, nl_u64 obj)
{
	return heap->h->nr_nodes > 1 &&
	       nl_node_of(heap->h, nl_group_at(heap->h, obj)) != nl_here(heap);
}

/* bulk.c: the R-slot, or else the A-slot, with its lock; NULL if both are locked. Wait-free. */
NL_HIDDEN nl_slot_t *nl_lock_slot(struct nolock_heap *heap, nl_u32 id, nl_u32 who);
/*
 * Up to n objects by one take of that lock, with all the ways behind it but a larger heap. Wait-free.
 * They are allocated, or, if @p is the free end of a prefilled sheaf @to, in that one.
 */
NL_HIDDEN size_t nl_alloc_some(struct nolock_heap *heap, nl_u32 id, nl_u32 flags, void **p,
			       size_t n, nl_sheaf_t *to);

/* A prefilled sheaf has so many now. What had been taken is on the books: next never lags behind. */
static inline void nl_sheaf_prefilled(nl_sheaf_t *s, nl_u32 size)
{
	nl_store(&s->next, size);
	nl_barrier();
	nl_store(&s->size, (nl_u16)size);
}

/* slab.c: kmalloc_node() and kfree() past the fast path; the latter says why it refused, or NULL. */
NL_HIDDEN void *nl_kmalloc_slow(struct nolock_heap *heap, size_t size, gfp_t gfp, int node);
NL_HIDDEN const char *nl_free_slow(const void *p);

/*
 * slab.c: as ksize(), of an object's start alone; 0 and why where none is, or it is free in its slab:
 * one that waits in a sheaf is not known to be free. Any context, wait-free.
 */
NL_HIDDEN size_t nl_object_size(const struct nolock_heap *heap, const void *p, const char **why);

/* large.c: whole chunks. The second looks once, in opened memory. */
NL_HIDDEN void *nl_large_alloc(struct nolock_heap *heap, size_t size, gfp_t gfp, int node);
NL_HIDDEN void *nl_large_alloc_nolock(struct nolock_heap *heap, size_t size, gfp_t gfp, int node);

/*
 * large.c, for objects of nl_large_alloc(): aligned to @align, a power of two above a chunk; set to
 * zero, but for chunks that are so already, and by a system call only if the flags allow one; in a
 * private heap made to hold @size bytes where it lies, or elsewhere.
 */
NL_HIDDEN void *nl_large_alloc_aligned(struct nolock_heap *heap, size_t size, size_t align);
NL_HIDDEN void nl_large_clear(struct nolock_heap *heap, void *p, size_t size, gfp_t gfp);
NL_HIDDEN bool nl_large_resize(struct nolock_heap *heap, void *p, size_t size);
NL_HIDDEN void *nl_large_move(struct nolock_heap *heap, void *p, size_t size);

/*
 * shrink.c: empty all sheaves of the cache into its slabs, and give slabs that are free back.
 * Returns the number of slabs given back.
 */
NL_HIDDEN nl_u32 nl_cache_shrink(struct nolock_heap *heap, nl_u32 id);
NL_HIDDEN nl_u32 nl_heap_shrink(struct nolock_heap *heap);

/*
 * shrink.c: who is emptying R-slots from another CPU, by the number that NL_WORD_SHRINKER() gives.
 * Of a thread that left that in the middle and exits: from here on its marks are locks, to be taken
 * over; where the system refuses what that takes, the slots stay locked. Then the numbers of the threads
 * from one up to another, but for the one that is alive, are nobody's: also in a child after fork().
 */
#define NL_SHRINKERS 64
extern nl_u64 nl_shrinker[NL_SHRINKERS] NL_HIDDEN;
NL_HIDDEN void nl_shrink_settle(nl_u32 thread);
NL_HIDDEN void nl_shrink_forget(nl_u32 from, nl_u32 to, nl_u32 alive);

/*
 * shrink.c: give back the sheaves of a slot whose lock is held; up to @max sheaves of a node's barn;
 * the pages of those free chunks of a group that are in the mask (how many).
 */
NL_HIDDEN void nl_slot_empty(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who);
NL_HIDDEN void nl_barn_flush(struct nolock_heap *heap, nl_u32 id, nl_u32 node, nl_u32 max);
NL_HIDDEN nl_u32 nl_group_purge(struct nolock_heap *heap, nl_u32 g, nl_u64 mask);

/*
 * shrink.c: the bits of a word of a slab whose objects lie, be it in part, in the pages of a mask.
 */
NL_HIDDEN nl_u64 nl_pages_mask(const nl_cache_t *c, nl_u32 pages, nl_u32 word);

/*
 * cache.c: objects that are not free in the cache's slabs, those in sheaves among them. Others may have
 * free ones in their hands (nolockd, another thread's decay): so often is one to be looked at again.
 */
NL_HIDDEN unsigned long nl_objects_left(nl_heap_t *h, nl_cache_t *c);
#define NL_LEFT_TRIES 16

/* cache.c: the last step of destroying a cache, or of not making one: its number is free again. */
NL_HIDDEN void nl_cache_forget(struct nolock_heap *heap, nl_u32 id);

/* grow.c: bring the nolock reserve back to its target. Returns 0 or -ENOMEM. */
NL_HIDDEN int nl_heap_topup(struct nolock_heap *heap);

/* heap.c: a handle on a copy of another process's metadata. */
NL_HIDDEN struct nolock_heap *nl_heap_snapshot(void *mem, nl_u64 size);

/*
 * The same in a child after fork(), for a private heap and the threads with numbers below @older,
 * but for the calling one. Wait-free.
 */
NL_HIDDEN nl_u32 nl_heap_repair_fork(struct nolock_heap *heap, nl_u32 older);

/* The same of one thread of this process, in any heap, its other threads being at work. */
NL_HIDDEN nl_u32 nl_heap_repair_thread(struct nolock_heap *heap, nl_u32 thread);

/*
 * What those threads had in their hands, by an inventory of the whole heap. The caller is the only
 * thread, and not inside of the allocator.
 */
NL_HIDDEN void nl_heap_inventory(struct nolock_heap *heap);

/* check.c: objects in use that the counters do not know of. The heap is quiescent and whole. */
NL_HIDDEN int64_t nl_heap_drift(struct nolock_heap *heap);

/*
 * heap.c: how deep this thread is in slow paths: 1 in its own alone, more in a handler that
 * interrupted one. Whoever leaves one by siglongjmp() leaves it too high for the rest of the thread's
 * life: then a child after fork() takes no inventory, decay.c waits a while before it stops to
 * believe it, and at the thread's exit what it had locked is looked for.
 */
extern __thread int nl_depth NL_HIDDEN;

/*
 * decay.c: give back, little by little, what a private heap has not used for some time. Ticked by
 * the slow paths of the calls that may make system calls, outside of which this thread must be.
 */
NL_HIDDEN void nl_decay(struct nolock_heap *heap);
extern __thread nl_u32 nl_ticks NL_HIDDEN;
#define NL_DECAY_TICKS 16u
static inline void nl_decay_tick(struct nolock_heap *heap)
{
	if (!(++nl_ticks % NL_DECAY_TICKS))
		nl_decay(heap);
}

/*
 * heap.c: is this a child in which the parent's threads may still hold locks? They are taken over.
 * Called by every slow path; wait-free. The second, for callers that may make system calls, adds
 * the inventory, once, where the child has no other thread.
 */
NL_HIDDEN void nl_fork_inventory(void);
NL_HIDDEN void nl_fork_check(void);

/* heap.c: the next heap of the process, from NULL on; NULL after the last. */
NL_HIDDEN struct nolock_heap *nl_heap_next(struct nolock_heap *heap);
#define nl_for_each_heap(heap)                                                                     \
	for ((heap) = nl_heap_next(NULL); (heap); (heap) = nl_heap_next(heap))

/*
 * rcu.c: the bits of a heap that was made, and of groups that are about to be opened: 0 or -ENOMEM.
 * Before it is closed; then what waits in a shared heap is freed first: 0 or as
 * nolock_rcu_barrier(), as nl_rcu_drain(). In a child after fork(), wait-free.
 */
NL_HIDDEN int nl_rcu_attach(struct nolock_heap *heap);
NL_HIDDEN int nl_rcu_open(struct nolock_heap *heap, nl_u32 group, nl_u32 n);
NL_HIDDEN int nl_rcu_detach(struct nolock_heap *heap);
NL_HIDDEN int nl_rcu_drain(struct nolock_heap *heap);
NL_HIDDEN void nl_rcu_fork(struct nolock_heap *heap);
/* Locks that a thread left held in the middle of a call. Wait-free. */
NL_HIDDEN void nl_rcu_forget(struct nolock_heap *heap, nl_u32 thread);
/* Free what is over. Calls the RCU: ordinary context. */
NL_HIDDEN void nl_rcu_kick(struct nolock_heap *heap);

/*
 * rcu.c: may slabs of the cache be given back? A chunk that nl_slab_release() took out of it, at
 * once or after a grace period.
 */
NL_HIDDEN bool nl_rcu_may_release(const struct nolock_heap *heap, const nl_cache_t *c);
NL_HIDDEN void nl_rcu_release(struct nolock_heap *heap, nl_u32 chunk);

/* client.c: one request to nolockd. Returns the connection or -1 with errno. */
struct nl_request;
struct nl_reply;
NL_HIDDEN int nl_client_call(const struct nl_request *req, struct nl_reply *rep, int *fd);

#endif /* NL_INTERNAL_H */
