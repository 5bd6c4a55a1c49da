// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * array.c - the opt-in per-CPU array of 2023: a sheaf without a spare and without a barn.
 *
 * A mode of the cache (NL_CACHE_ARRAY): frees and a prefill put objects into a slot's main sheaf,
 * allocations take them out; what finds it empty, full or locked goes to the slabs, one object at a
 * time. Fast paths and trylocks are those of every slot; refill.h leaves such a slot as it is.
 * Source: the RFCs "SLUB percpu array" of 2023, v1 to v3.
 */
#include <errno.h>
#include <sched.h>
#include "internal.h"
#include "core/core.h"
#include "core/slot.h"

/* Slabs that one prefill may add: more than the largest objects need for a whole array. */
#define MAX_NEW_SLABS (2 * NL_SHEAF_MAX)

int kmem_cache_setup_percpu_array(struct kmem_cache *s, unsigned int count)
{
	struct nolock_heap *heap = s ? nolock_heap_of(s) : NULL;
	nl_cache_t *c = (nl_cache_t *)s;

	if (!heap || nl_load(&c->state) != NL_CACHE_LIVE || c->id < NL_NR_KMALLOC || !count ||
	    count > NL_SHEAF_MAX || !(c->flags & SLAB_NO_MERGE) || (c->mode & NL_CACHE_ARRAY))
		return -EINVAL;
	if (!c->capacity)
		return -EOPNOTSUPP;
	/* nolockd has slabs ready for it, maybe. */
	for (int i = 0; nl_load(&c->nr_slabs); i++) {
		nl_cache_shrink(heap, c->id);
		if (!nl_objects_left(heap->h, c))
			break;
		if (i == NL_LEFT_TRIES)
			return -EBUSY;
		sched_yield();
	}
	nl_store(&c->capacity, count);
	nl_store_release(&c->mode, c->mode | NL_CACHE_ARRAY);
	return 0;
}

/*
 * Fill the array of this CPU up to count objects, as far as its node, or with @far any, has free ones.
 * How many it has.
 */
static int fill_array(struct nolock_heap *heap, nl_u32 id, nl_u32 count, bool far)
{
	nl_u32 who = nl_who(heap), n, got = 0;
	nl_slot_t *slot = nl_lock_slot(heap, id, who);

	if (!slot)
		return -EBUSY;
	if (!slot->main && !nl_slot_room(heap->h, slot, id, who, nl_slot_flags(heap->h, slot))) {
		nl_any_slot_unlock(slot);
		return -ENOMEM;
	}
	n = NL_WORD_SIZE(nl_load(&slot->word));
	if (n < count) {
		nl_slot_detach(heap->h, slot);
		for (nl_u32 i = 0; i < (far ? NL_MAX_NODES : 1); i++) {
			nl_u32 there = nl_flags_there(heap->h, nl_slot_flags(heap->h, slot), i);

			if (there)
				got += nl_sheaf_fill(heap->h, slot->main, id, count, who, there);
		}
		nl_slot_count(slot, NL_STAT_SHEAF_REFILL, got);
		n = nl_slot_attach(heap->h, slot, slot->main, id);
	}
	nl_any_slot_unlock(slot);
	return (int)n;
}

/*
 * One more slab, all of it free, of this node, or with @far any; grows the heap where the flags allow,
 * and takes back what others do not use if this is the @last way.
 */
static bool add_slab(struct nolock_heap *heap, nl_u32 id, gfp_t gfp, bool far, bool last)
{
	nl_u32 flags = nl_core_flags(gfp, false) | NL_WHOLE | NL_NODE(nl_here(heap));

	if (!nl_slab_new(heap->h, id, far ? flags : flags | NL_THIS, nl_who(heap), 0))
		return gfpflags_allow_blocking(gfp) &&
		       (nl_heap_grow(heap, nl_heap_grow_step(heap)) ||
			(last && nl_heap_shrink(heap)));
	nl_slot_count(nl_aslot(heap->h, nl_cpu(heap), id), NL_STAT_ALLOC_SLAB, 1);
	return true;
}

int kmem_cache_prefill_percpu_array(struct kmem_cache *s, unsigned int count, gfp_t gfp)
{
	struct nolock_heap *heap = s ? nolock_heap_of(s) : NULL;
	nl_cache_t *c = (nl_cache_t *)s;
	int n = -ENOMEM, saved = errno;
	bool far, last;

	if (!heap || nl_load(&c->state) != NL_CACHE_LIVE || !(c->mode & NL_CACHE_ARRAY) ||
	    count > c->capacity || (gfp & ~(NOLOCK_GFP_MASK & ~__GFP_NOFAIL)))
		return -EINVAL;
	nl_depth++;
	nl_fork_check();
	/* More of this node's memory before another's. */
	far = heap->h->nr_nodes == 1;
	last = far || gfp & __GFP_THISNODE;
	for (nl_u32 i = 0; i <= MAX_NEW_SLABS; i++) {
		n = fill_array(heap, c->id, count, far);
		if (n < 0 || n >= (int)count)
			break;
		n = -ENOMEM;
		if (add_slab(heap, c->id, gfp, far, last))
			continue;
		if (last)
			break;
		far = last = true;
	}
	nl_depth--;
	errno = saved;
	return n < 0 ? n : 0;
}
