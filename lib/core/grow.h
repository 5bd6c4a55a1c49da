/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * grow.h - opening groups: who opens which one, and from when on others see it.
 *
 * Three steps, in user space (grow.c) and in BPF (bpf/arena.bpf.c) the same. A group is drawn from
 * the heap's cursor by one cmpxchg and is its drawer's alone. The drawer makes its memory usable,
 * by the means of its place. Then it raises nr_open, so that scans reach the group, and last gives
 * the chunk bits, by which alone anybody gets at its memory. Nobody waits for anybody. A group that
 * could not be opened goes back to the cursor, or waits in a bitmap for the next who draws.
 *
 * Scans stop at nr_open, so what lies below it must be accessible: also the metadata of groups
 * whose drawers are still at it. Whoever raises nr_open above them opens that along; until their
 * drawers are done such groups are empty.
 */
#ifndef NL_CORE_GROW_H
#define NL_CORE_GROW_H

#include "core.h"
#include "word.h"

#define NL_NO_GROUP (~0u)

/* Where the tags, the descriptors and the chunks of groups from g on start: offsets. */
NL_INLINE nl_u64 nl_tags_at(nl_heap_t *h, nl_u32 g)
{
	return h->off_tag + (nl_u64)g * NL_GROUP_CHUNKS * sizeof(nl_u32);
}

NL_INLINE nl_u64 nl_groups_at(nl_heap_t *h, nl_u32 g)
{
	return h->off_group + (nl_u64)g * sizeof(struct nl_group);
}

/* The first group of all has metadata in its lower chunks. */
NL_INLINE nl_u64 nl_chunks_at(nl_heap_t *h, nl_u32 g)
{
	nl_u64 first = (nl_u64)h->first_chunk << NL_CHUNK_SHIFT, at = (nl_u64)g * NL_GROUP_SIZE;

	return at > first ? at : first;
}

/* The chunks of a group that the heap may hand out. */
NL_INLINE nl_u64 nl_group_chunks(nl_heap_t *h, nl_u32 g)
{
	nl_u32 first = h->first_chunk, start = g << NL_GROUP_SHIFT;

	if (first <= start)
		return ~0ULL;
	return first - start < NL_GROUP_CHUNKS ? ~0ULL << (first - start) : 0;
}

/* A group that was left behind, or NL_NO_GROUP. */
NL_INLINE nl_u32 nl_groups_pick_up(nl_heap_t *h)
{
	nl_u32 words = (h->nr_groups + 63) / 64;

	nl_for(i, NL_REACH_GROUPS / 64) {
		nl_u64 bit;

		if (i >= words)
			break;
		bit = nl_word_take(nl_group_left_map(h) + i);
		if (bit) {
			nl_add(&h->nr_left, (nl_u32)-1);
			return i * 64 + nl_lowest(bit);
		}
	}
	return NL_NO_GROUP;
}

/* Draw n adjacent groups from the cursor: the first one's number, or NL_NO_GROUP. */
NL_INLINE nl_u32 nl_groups_draw(nl_heap_t *h, nl_u32 n)
{
	nl_u32 limit = nl_load(&h->limit), g;

	if (n == 1 && nl_load(&h->nr_left)) {
		g = nl_groups_pick_up(h);
		if (g != NL_NO_GROUP)
			return g;
	}
	/* Never past the limit, so nothing is skipped; each failed try is somebody else's draw. */
	nl_for(i, NL_REACH_GROUPS) {
		g = nl_load(&h->cursor);
		if (g >= limit || n > limit - g)
			break;
		if (nl_cas(&h->cursor, g, g + n))
			return g;
	}
	return NL_NO_GROUP;
}

/* Undo a draw that could not be opened; where others have drawn since, for one of them later. */
NL_INLINE void nl_groups_undraw(nl_heap_t *h, nl_u32 g, nl_u32 n)
{
	if (nl_cas(&h->cursor, g + n, g))
		return;
	nl_for(i, n) {
		nl_word_give(nl_group_left_map(h) + (g + i) / 64, NL_BIT(g + i));
		nl_add(&h->nr_left, 1);
	}
}

/*
 * Closed groups below the cursor are a repair's to open: their drawers may be dead. While a BPF
 * program opens one, which cannot die of it, nobody else must use its memory; so these two claim a
 * group before. Whether it is the caller's.
 */
NL_INLINE int nl_group_claim(nl_heap_t *h, nl_u32 g, nl_u32 state)
{
	return nl_cas(&nl_group(h, g)->state, NL_GROUP_CLOSED, state);
}

/*
 * The memory of groups [g, g + n) is usable: let scans reach them. Returns 0; or -1 when nr_open
 * moves as it cannot in a heap that nobody overwrites.
 */
NL_INLINE int nl_groups_reach(nl_heap_t *h, nl_u32 g, nl_u32 n)
{
	nl_for(i, n) {
		nl_store(&nl_group(h, g + i)->state, NL_GROUP_OPEN);
	}
	/* The metadata first, then the bound: pairs with the acquire in nl_nr_open(). */
	nl_for(i, NL_REACH_GROUPS + 1) {
		nl_u32 open = nl_load(&h->nr_open);

		if (open >= g + n || nl_cas(&h->nr_open, open, g + n))
			return 0;
	}
	return -1;
}

#endif /* NL_CORE_GROW_H */
