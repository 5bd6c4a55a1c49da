/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * refill.h - a slot whose main sheaf is empty, or full: the way to the spare, the barn, the slabs.
 *
 * Follows __pcs_replace_empty_main() and __pcs_replace_full_main() of Linux's slub.c, but for
 * two things that bitmaps make possible: the slabs are reached with the slot's lock held, because
 * that is bounded, and a nolock caller may allocate sheaves and flush them.
 */
#ifndef NL_CORE_REFILL_H
#define NL_CORE_REFILL_H

#include "slot.h"
#include "../probes.h"

/* An empty sheaf from the barn or the table, or 0. */
NL_INLINE nl_u32 nl_slot_empty_sheaf(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who,
				     nl_u32 flags)
{
	nl_barn_t *barn = &nl_cache(h, id)->barn[NL_NODE_OF(flags)];
	nl_u32 sheaf = 0;

	if (nl_load(&barn->empty.nr) && nl_barn_lock(barn, who, flags)) {
		sheaf = nl_barn_pop(h, &barn->empty, who);
		nl_barn_unlock(barn);
	}
	if (!sheaf) {
		sheaf = nl_sheaf_get(h, id, who);
		if (sheaf)
			nl_slot_count(slot, NL_STAT_SHEAF_ALLOC, 1);
	}
	return sheaf;
}

/* Main is empty: a full sheaf of the barn in its place. 0: there is none, or the barn is locked. */
NL_FUNC nl_u32 nl_slot_barn_get(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
				nl_u32 flags)
{
	nl_barn_t *barn = &nl_cache(h, id)->barn[NL_NODE_OF(flags)];
	nl_u32 main = slot->main, spare = slot->spare, full = 0;

	if (nl_load(&barn->full.nr) && nl_barn_lock(barn, who, flags)) {
		full = nl_barn_pop(h, &barn->full, who);
		if (full && main && spare) {
			/* The barn gets an empty one for the full one. */
			nl_slot_detach(h, slot);
			nl_store(&nl_sheaf(h, main - 1)->owner, (nl_u64)who << 32);
			nl_barrier();
			nl_store(&slot->main, 0);
			nl_barn_push(h, &barn->empty, main);
		}
		nl_barn_unlock(barn);
	}
	nl_slot_count(slot, full ? NL_STAT_BARN_GET : NL_STAT_BARN_GET_FAIL, 1);
	if (!full)
		return 0;
	if (main && !spare) {
		nl_slot_detach(h, slot);
		nl_store(&slot->spare, main);
	}
	return nl_slot_attach(h, slot, full, id);
}

/*
 * Main is empty: swap it with the spare, or for a full sheaf of the barn, or fill it from the
 * node's slabs, or from a fresh one of it. In functions of their own what ends there and what is
 * other nodes': the way down from here is the longest on BPF's stack of 512 bytes.
 */
NL_FUNC nl_u32 nl_slot_refill_near(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id,
				   nl_u32 who, nl_u32 flags)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word)), main, got;

	nl_slot_count_locked(slot, NL_STAT_SLOT_LOCK);
	if (n || !cache->capacity || (cache->mode & NL_CACHE_ARRAY))
		return n;
	nl_slot_turn(slot, 0);
	if (slot->spare && nl_sheaf(h, slot->spare - 1)->size)
		return nl_slot_other(h, slot, id, who);
	n = nl_slot_barn_get(h, slot, id, who, flags);
	if (n)
		return n;
	main = slot->main;
	if (!main) {
		main = nl_slot_empty_sheaf(h, slot, id, who, flags);
		if (!main)
			return 0;
		/* Before it is filled: a repair looks for what was taken in the slot's main. */
		nl_slot_attach(h, slot, main, id);
	}
	nl_slot_detach(h, slot);
	got = nl_sheaf_fill(h, main, id, cache->capacity, who, flags);
#ifndef __bpf__
	if (got)
		nl_barn_deepen(h, &cache->barn[NL_NODE_OF(flags)]);
#endif
	if (!got) {
		/* Objects pop from the top: the slab's first stays below its next ones. */
		if (nl_slab_new(h, id, nl_flags_near(h, flags), who, main)) {
			nl_slot_count(slot, NL_STAT_ALLOC_SLAB, 1);
			got = 1 + nl_sheaf_fill(h, main, id, cache->capacity, who, flags);
		}
	}
	if (got) {
		nl_slot_count(slot, NL_STAT_SHEAF_REFILL, got);
		NL_PROBE3(sheaf_refill, h, cache->name, got);
	}
	return nl_slot_attach(h, slot, main, id);
}

#ifndef __bpf__
/* The same from the other nodes, one after the other; at last what is set aside, wherever it is. */
NL_FUNC nl_u32 nl_slot_refill_far(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id,
				  nl_u32 who, nl_u32 flags)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_u32 main = slot->main, got = nl_zero();

	/* Nothing to fill: no sheaves, or none was to be had. */
	if (!main || !cache->capacity || (cache->mode & NL_CACHE_ARRAY))
		return 0;
	nl_slot_detach(h, slot);
	/* An even turn fills from the slabs of a node, the odd one after it from a fresh one. */
	nl_for(i, 2 * NL_MAX_NODES) {
		nl_u32 there = nl_flags_there(h, flags, i / 2);

		if (got || i < 2 || !there)
			continue;
		if (i & 1) {
			if (!nl_slab_new(h, id, there, who, main))
				continue;
			nl_slot_count(slot, NL_STAT_ALLOC_SLAB, 1);
			got = 1;
		}
		got += nl_sheaf_fill(h, main, id, cache->capacity, who, there);
	}
	if (!got && nl_slab_new(h, id, flags, who, main)) {
		nl_slot_count(slot, NL_STAT_ALLOC_SLAB, 1);
		got = 1;
	}
	if (got) {
		nl_slot_count(slot, NL_STAT_SHEAF_REFILL, got);
		NL_PROBE3(sheaf_refill, h, cache->name, got);
	}
	return nl_slot_attach(h, slot, main, id);
}

#endif

NL_FLAT nl_u32 nl_slot_refill(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
			      nl_u32 flags)
{
	nl_u32 n = nl_slot_refill_near(h, slot, id, who, flags);

#ifndef __bpf__
	/* There nl_alloc_far() asks the other nodes, for an object at a time. */
	if (!n && nl_flags_far(h, flags))
		n = nl_slot_refill_far(h, slot, id, who, flags);
#endif
	return n;
}

/*
 * Main is full: swap it with a spare that is not, or give the full spare to the barn for an
 * empty one, or flush the spare.
 */
NL_FUNC nl_u32 nl_slot_room(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
			    nl_u32 flags)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_barn_t *barn = &cache->barn[NL_NODE_OF(flags)];
	nl_u32 cap = cache->capacity;
	nl_u32 main = slot->main, spare = slot->spare, empty = 0, put = 0;

	nl_slot_count_locked(slot, NL_STAT_SLOT_LOCK);
	if (!cap)
		return 0;
	if (!main) {
		empty = nl_slot_empty_sheaf(h, slot, id, who, flags);
		if (!empty)
			return 0;
		nl_slot_attach(h, slot, empty, id);
		return 1;
	}
	if (NL_WORD_SIZE(nl_load(&slot->word)) < cap)
		return 1;
	if (cache->mode & NL_CACHE_ARRAY)
		return 0;
	nl_slot_turn(slot, 1);
	if (spare && nl_sheaf(h, spare - 1)->size < cap) {
		nl_slot_other(h, slot, id, who);
		return 1;
	}
	if (spare && nl_barn_room(barn) && nl_barn_lock(barn, who, flags)) {
		if (nl_barn_room(barn)) {
			nl_store(&nl_sheaf(h, spare - 1)->owner, (nl_u64)who << 32);
			nl_barrier();
			nl_store(&slot->spare, 0);
			nl_barn_push(h, &barn->full, spare);
			empty = nl_barn_pop(h, &barn->empty, who);
			spare = 0;
			put = 1;
		}
		nl_barn_unlock(barn);
	}
	if (put)
		nl_slot_count(slot, NL_STAT_BARN_PUT, 1);
	else if (spare)
		nl_slot_count(slot, NL_STAT_BARN_PUT_FAIL, 1);
	if (!spare && !empty)
		empty = nl_slot_empty_sheaf(h, slot, id, who, flags);
	if (empty) {
		nl_slot_detach(h, slot);
		nl_store(&slot->spare, main);
		nl_slot_attach(h, slot, empty, id);
		return 1;
	}
	if (spare) {
#ifndef __bpf__
		nl_barn_was_full(h, barn);
#endif
		nl_slot_count(slot, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, spare, id, 0, who));
		nl_slot_swap(h, slot, id, who);
		return 1;
	}
	nl_slot_detach(h, slot);
	nl_slot_count(slot, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, main, id, cap / 2, who));
	nl_slot_attach(h, slot, main, id);
	return 1;
}

#endif /* NL_CORE_REFILL_H */
