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
#define NLA_ANY_NODE (-1)
#define NLA_PROBE 0x9e3779b97f4a7c15ULL

/*
 * The kernel takes the lower half of an address as the offset; an address of 0 would let it choose.
 */
NL_INLINE int nla_alloc(nl_u64 off, nl_u32 nr)
{
	void NLA *addr = (void NLA *)(1ULL << 32 | off);

	return bpf_arena_alloc_pages(&nolock_heap, addr, nr, NLA_ANY_NODE, 0) != 0;
}

/*
 * Is the page there? A cmpxchg of a value for itself changes nothing, whoever uses the page, and
 * brings what is there. On an absent page it does nothing at all, and so brings the value asked for:
 * any, twice.
 */
NL_INLINE int nla_there(nl_u64 at)
{
	nl_word_t *word = (nl_word_t *)at;

	return !nl_cas(word, NLA_PROBE, NLA_PROBE) || !nl_cas(word, ~NLA_PROBE, ~NLA_PROBE);
}

/*
 * One page: 1 if it was absent, 0 if it is there, or somebody else made it just now; NLA_ENOMEM. In
 * line with the loops below it the verifier of 6.18 trips over itself.
 */
NL_FUNC int nla_page(nl_u64 at)
{
	if (nla_there(at))
		return 0;
	if (nla_alloc(at, 1))
		return 1;
	return nla_there(at) ? 0 : NLA_ENOMEM;
}

/*
 * Make pages [from, to), offsets in the arena, present. The kernel refuses a range of which any page
 * is there already, because user space populates by touching: then it goes page by page.
 * Returns how many were absent before, NLA_ENOMEM or NLA_ETIME.
 */
NL_FUNC int nla_present(nl_u64 from, nl_u64 to)
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
			int new = nla_page(at);

			if (new < 0)
				return new;
			made += (nl_u32) new;
			done++;
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
		nla_present(nl_tags_at(h, low), nl_tags_at(h, g));
		nla_present(nl_groups_at(h, low), nl_groups_at(h, g));
	}
	err = nla_present(nl_tags_at(h, g), nl_tags_at(h, g + 1));
	if (err >= 0)
		err = nla_present(nl_groups_at(h, g), nl_groups_at(h, g + 1));
	if (err >= 0)
		err = nla_present(nl_chunks_at(h, g), nl_chunks_at(h, g + 1));
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
