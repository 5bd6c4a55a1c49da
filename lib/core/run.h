/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * run.h - where in a private heap to look for runs of free chunks, so that finding one costs nothing
 * that grows with the heap. CPU alone: a shared heap is small, and searched from its start.
 *
 * No run of n free chunks begins in a group below run_from[n]; those longer than a group count as
 * one length. Who looked for one in vain raises it, the giver lowers it. The raiser reads run_gives
 * before it looks, and once more after it raised; the giver sets bits, counts itself in run_gives,
 * then looks at its neighbours' bits and at run_from. Each has a full barrier between what it writes
 * and what it reads then: if the giver saw the old value, the raiser sees the giver, and takes it
 * back; and of two neighbours that give at once, one sees both.
 *
 * It is a hint: bits that somebody holds for a moment and puts back (word.h), and map hints that
 * somebody clears for a moment (chunk.h), may lie below it. So it is forgotten now and then, and
 * before a request fails, all groups are looked at.
 */
#ifndef NL_CORE_RUN_H
#define NL_CORE_RUN_H

#include "word.h"

NL_INLINE void nl_run_lower(nl_u32 *from, nl_u32 group)
{
	for (nl_u32 i = 0; i < NL_TRIES; i++) {
		nl_u32 old = nl_load(from);

		if (old <= group || nl_cas(from, old, group))
			return;
	}
	/* Always right, and nothing can keep us from it. */
	nl_store(from, 0);
}

/* The longest run that the group's chunks may belong to. */
NL_INLINE nl_u32 nl_run_around(nl_u64 below, nl_u64 word, nl_u64 above)
{
	nl_u32 tail = ~below ? 63u - nl_highest(~below) : NL_GROUP_CHUNKS, longest = 0;
	nl_u32 head = ~above ? nl_lowest(~above) : NL_GROUP_CHUNKS, low, high;

	if (!~word)
		return tail + NL_GROUP_CHUNKS + head;
	low = nl_lowest(~word);
	high = 63u - nl_highest(~word);
	for (; word; word &= word << 1)
		longest++;
	if (low && tail + low > longest)
		longest = tail + low;
	if (high && high + head > longest)
		longest = high + head;
	return longest;
}

NL_INLINE void nl_run_given(nl_heap_t *h, nl_u32 group)
{
	nl_u64 word, below = 0, above = 0;
	nl_u32 at = group, longest;

	nl_add(&h->run_gives, 1);
	nl_mb(); /* pairs with the one in raise_from() (large.c): aarch64's addition is none */
	/*
	 * A new run begins here or in the group below: one that comes from further down was longer
	 * than a group before, and known as such.
	 */
	word = nl_load(&nl_group(h, group)->chunk_free);
	if ((word & 1) && group > h->first_chunk >> NL_GROUP_SHIFT) {
		below = nl_load(&nl_group(h, group - 1)->chunk_free);
		at -= below >> 63;
	}
	if (nl_load(&h->run_top) <= at)
		return;
	if (word >> 63 && group + 1 < nl_nr_open(h))
		above = nl_load(&nl_group(h, group + 1)->chunk_free);
	longest = nl_run_around(below, word, above);
	for (nl_u32 n = 1; n <= NL_RUN_MAX && n <= longest; n++)
		nl_run_lower(&h->run_from[n], at);
}

/* Believe nothing of it any more. */
NL_INLINE void nl_run_forget(nl_heap_t *h)
{
	for (nl_u32 n = 1; n <= NL_RUN_MAX; n++)
		nl_store(&h->run_from[n], 0);
}

#endif /* NL_CORE_RUN_H */
