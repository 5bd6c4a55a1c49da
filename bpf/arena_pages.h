/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * arena_pages.h - making pages of a heap's arena present from BPF, and opening groups with them.
 *
 * bpf_arena_alloc_pages() needs a program that may sleep before Linux 7.0, and none of that kind
 * since. It waits for the arena's lock of the kernel, a bounded time; in a program that interrupts
 * the holder of that lock it fails at once.
 *
 * Whoever includes it has the heap's map as nolock_heap, and nl_chunk_publish().
 */
#ifndef NLA_ARENA_PAGES_H
#define NLA_ARENA_PAGES_H

#include "arena_call.h"
#include "core/grow.h"

extern void NLA *bpf_arena_alloc_pages(void *map, void NLA *addr, __u32 page_cnt, int node_id,
				       __u64 flags) __ksym __weak;

#define NLA_BATCH 128u
/* Groups whose drawers may be at it at one time. */
#define NLA_ALONG 64u
/* As an offset within each page: no word of it is this program's alone. */
#define NLA_NO_PROBE (~0u)
#define NLA_ANY_NODE (-1)

/*
 * The kernel takes the lower half of an address as the offset; an address of 0 would let it choose.
 */
NL_INLINE int nla_alloc(nl_u64 off, nl_u32 nr)
{
	void NLA *addr = (void NLA *)(1ULL << 32 | off);

	return bpf_arena_alloc_pages(&nolock_heap, addr, nr, NLA_ANY_NODE, 0) != 0;
}

/*
 * Is the page there? What is written to an absent one is lost. The word is 0 or anything; it is
 * nobody's but the caller's for now.
 */
NL_INLINE int nla_there(nl_u64 at)
{
	nl_tag_t *word = (nl_tag_t *)at;
	int ours = nl_cas(word, 0, 1), there = nl_load(word) != 0;

	/* An absent page lets the cmpxchg seem to succeed. */
	if (ours)
		(void)nl_cas(word, 1, 0);
	return there;
}

/*
 * Make pages [from, to), offsets in the arena, present. The kernel refuses a range of which any page
 * is there already, because user space populates by touching: then it goes page by page.
 * @probe: offset in each page of a u32 that nobody else writes for now; NLA_NO_PROBE: there is
 * none, and pages that the kernel refuses are not looked at.
 * Returns how many were absent before, NLA_ENOMEM or NLA_ETIME.
 */
NL_FUNC int nla_present(nl_u64 from, nl_u64 to, nl_u32 probe)
{
	nl_u32 first = (nl_u32)(from / NL_PAGE), made = nl_zero(), done = nl_zero();
	nl_u32 pages = (nl_u32)((to + NL_PAGE - 1) / NL_PAGE) - first;

	nl_for(i, (pages + NLA_BATCH - 1) / NLA_BATCH) {
		nl_u64 at = (nl_u64)(first + done) * NL_PAGE;
		nl_u32 nr = pages - done < NLA_BATCH ? pages - done : NLA_BATCH;

		if (nla_alloc(at, nr)) {
			made += nr;
			done += nr;
			continue;
		}
		nl_for(k, nr) {
			done++;
			if (probe != NLA_NO_PROBE && nla_there(at + probe))
				goto next;
			if (nla_alloc(at, 1))
				made++;
			else if (probe != NLA_NO_PROBE && !nla_there(at + probe))
				return NLA_ENOMEM;
next:
			at += NL_PAGE;
		}
	}
	return done < pages ? NLA_ETIME : (int)made;
}

/*
 * Open the next group and hand its chunks out: as nl_heap_grow() does, see core/grow.h.
 * Returns its number, NLA_ENOSPC (the heap's limit; no heap), NLA_ENOMEM or NLA_ETIME.
 */
NL_FUNC int nla_grow(nl_heap_t *h NL_ARG)
{
	nl_u32 g, low;
	int err;

	g = nl_groups_draw(h, 1);
	if (g == NL_NO_GROUP)
		return NLA_ENOSPC;
	/*
	 * Of groups below whose drawers are still at it, what can be had. What stays absent is empty to
	 * BPF, comes by a fault to user space, and is made present by its drawer in the end.
	 */
	low = nl_load(&h->nr_open);
	if (low < g) {
		if (g - low > NLA_ALONG)
			low = g - NLA_ALONG;
		nla_present(nl_tags_at(h, low), nl_tags_at(h, g), NLA_NO_PROBE);
		nla_present(nl_groups_at(h, low), nl_groups_at(h, g), NLA_NO_PROBE);
	}
	/*
	 * While the group is not published, a word of its own tags, any word of its descriptors but
	 * its bits and hints, and all of its chunks are written by its drawer alone.
	 */
	err = nla_present(nl_tags_at(h, g), nl_tags_at(h, g + 1), nl_tags_at(h, g) % NL_PAGE);
	if (err >= 0)
		err = nla_present(nl_groups_at(h, g), nl_groups_at(h, g + 1),
				  __builtin_offsetof(struct nl_group, pad));
	if (err >= 0)
		err = nla_present(nl_chunks_at(h, g), nl_chunks_at(h, g + 1), 0);
	if (err >= 0 && nl_groups_reach(h, g, 1))
		err = NLA_ETIME;
	if (err < 0) {
		nl_groups_undraw(h, g, 1);
		return err;
	}
	nl_chunk_publish(h, g, nl_group_chunks(h, g));
	return (int)g;
}

#endif /* NLA_ARENA_PAGES_H */
