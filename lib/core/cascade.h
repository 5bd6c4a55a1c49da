/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * cascade.h - what an allocation or a free goes through once no R-slot served it.
 *
 * Allocation: A-slot -> slab bitmaps -> fresh chunk; its caller goes on to the next larger bucket
 * and at last to a scan that believes no hint. Free: A-slot -> slab bitmap. Each level is entered
 * once, so the whole is wait-free. Source: kmalloc_nolock() and kfree_nolock() of slub.c.
 */
#ifndef NL_CORE_CASCADE_H
#define NL_CORE_CASCADE_H

#include "refill.h"

/* The other nodes' slabs and chunks, then what is set aside, wherever it is. */
NL_FLAT nl_u64 nl_alloc_far(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
			    nl_u32 flags)
{
	nl_u64 obj = nl_zero();

	nl_for(i, NL_MAX_NODES) {
		nl_u32 there = nl_flags_there(h, flags, i);

		if (!i || !there)
			continue;
		obj = nl_slab_take(h, id, who, NL_NODE_OF(there));
		if (obj)
			return obj;
		obj = nl_slab_new(h, id, there, who, 0);
		if (obj)
			break;
	}
	if (!obj)
		obj = nl_slab_new(h, id, flags, who, 0);
	if (obj)
		nl_slot_count(slot, NL_STAT_ALLOC_SLAB, 1);
	return obj;
}

/* What the A-slot did not serve: first from the node that the flags name. */
NL_FUNC nl_u64 nl_alloc_behind(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
			       nl_u32 flags)
{
	nl_u64 obj = nl_slab_take(h, id, who, NL_NODE_OF(flags));

	if (!obj) {
		obj = nl_slab_new(h, id, nl_flags_near(h, flags), who, 0);
		if (obj)
			nl_slot_count(slot, NL_STAT_ALLOC_SLAB, 1);
	}
	if (!obj && nl_flags_far(h, flags))
		obj = nl_alloc_far(h, slot, id, who, flags);
	if (obj)
		nl_slot_count(slot, NL_STAT_ALLOC_SLOWPATH, 1);
	return obj;
}

NL_FUNC nl_u64 nl_alloc(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 cpu, nl_u32 who, nl_u32 flags)
{
	nl_slot_t *slot = nl_aslot(h, cpu, id);
	nl_u64 obj;

	flags |= NL_NODE(nl_slot_node(h, cpu));
	if (nl_slot_trylock(slot, who)) {
		obj = nl_slot_pop(slot);
		if (!obj && nl_slot_refill(h, slot, id, who, flags))
			obj = nl_slot_pop(slot);
		nl_slot_unlock(slot);
		if (obj)
			return obj;
	} else {
		nl_slot_count(slot, NL_STAT_BUSY, 1);
	}
	return nl_alloc_behind(h, slot, id, who, flags);
}

/* Every word of every slab of the cache, then every chunk once more. */
NL_FUNC nl_u64 nl_alloc_last(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 cpu, nl_u32 who, nl_u32 flags)
{
	nl_u64 obj = nl_slab_scan(h, id);

	if (!obj) {
		obj = nl_slab_new(h, id, flags | NL_SURE | NL_NODE(nl_slot_node(h, cpu)), who, 0);
		if (obj)
			nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_ALLOC_SLAB, 1);
	}
	if (obj)
		nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_ALLOC_SLOWPATH, 1);
	return obj;
}

NL_FUNC int nl_free(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 cpu, nl_u32 who, nl_u64 obj)
{
	nl_slot_t *slot = nl_aslot(h, cpu, id);
	nl_u32 near = nl_slot_node(h, cpu);
	int pushed = 0;

	if (nl_unlikely(nl_slab_index(h, id, obj) == ~0u))
		goto refused;
	if (nl_unlikely(nl_node_of(h, nl_group_at(h, obj)) != near)) {
		/* Sheaves hold objects of their CPU's node: this one goes home. */
	} else if (nl_slot_trylock(slot, who)) {
		pushed = nl_slot_push(slot, obj);
		if (!pushed && nl_slot_room(h, slot, id, who, NL_NODE(near)))
			pushed = nl_slot_push(slot, obj);
		nl_slot_unlock(slot);
	} else {
		nl_slot_count(slot, NL_STAT_BUSY, 1);
	}
	if (pushed)
		return 0;
	if (nl_slab_put(h, id, obj))
		goto refused;
	nl_slot_count(slot, NL_STAT_FREE_SLOWPATH, 1);
	return 0;
refused:
	nl_slot_count(slot, NL_STAT_FREE_REFUSED, 1);
	return -1;
}

#endif /* NL_CORE_CASCADE_H */
