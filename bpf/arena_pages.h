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
#define NLA_NO_WORD (~0u)

/*
 * The kernel takes the lower half of an address as the offset; an address of 0 would let it choose.
 */
NL_INLINE int nla_alloc(nl_u64 off, nl_u32 nr)
{
	void NLA *addr = (void NLA *)(1ULL << 32 | off);

	return bpf_arena_alloc_pages(&nolock_heap, addr, nr, NLA_ANY_NODE, 0) != 0;
}

/*
 * Is the page there? What is written to an absent one is lost. The word is nobody's but the
 * caller's until it returns; what else it holds than 0, it keeps.
 */
NL_INLINE int nla_there(nl_u64 at)
{
	nl_tag_t *word = (nl_tag_t *)at;
	int ours = nl_cas(word, 0, 1), there = nl_load(word) != 0;

	/* On an absent page the cmpxchg seems to succeed. */
	if (ours)
		(void)nl_cas(word, 1, 0);
	return there;
}

/*
 * Make one page present. @word: of it, as above.
 * Returns 1 if it was absent; 0 if it is there, perhaps since just now; NLA_ENOMEM. Not a part of
 * the loops below: the verifier of 6.18 trips over itself there.
 */
NL_FUNC int nla_page(nl_u64 word)
{
	if (nla_there(word))
		return 0;
	if (nla_alloc(word / NL_PAGE * NL_PAGE, 1))
		return 1;
	return nla_there(word) ? 0 : NLA_ENOMEM;
}

/*
 * Make pages [from, to), offsets in the arena, present. The kernel refuses a range of which any page
 * is there already, because user space populates by touching: then it goes page by page.
 * @word: offset in each page of a u32 that is the caller's; NLA_NO_WORD: there is none, and pages
 * that the kernel refuses are not looked at.
 * Returns how many were absent before, NLA_ENOMEM or NLA_ETIME.
 */
NL_FUNC int nla_present(nl_u64 from, nl_u64 to, nl_u32 word)
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
			int new = word == NLA_NO_WORD ? nla_alloc(at, 1) : nla_page(at + word);

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
	const nl_u32 pad = __builtin_offsetof(struct nl_group, pad);
	nl_u32 g, low;
	int err;

	g = nl_groups_draw(h, 1);
	if (g == NL_NO_GROUP)
		return NLA_ENOSPC;
	/* The page that the claim is in. Its padding is nobody's at any time. */
	err = nla_page(nl_groups_at(h, g) + pad);
	if (err < 0)
		goto undraw;
	/* Left behind, and found by a repair meanwhile: it is open, or will be. */
	if (!nl_group_claim(h, g, NL_GROUP_BPF))
		return NLA_ENOMEM;
	/*
	 * Of groups below whose drawers are still at it, what can be had. What stays absent is empty to
	 * BPF, comes by a fault to user space, and is made present by its drawer in the end.
	 */
	low = nl_load(&h->nr_open);
	if (low < g) {
		if (g - low > NLA_ALONG)
			low = g - NLA_ALONG;
		nla_present(nl_tags_at(h, low), nl_tags_at(h, g), NLA_NO_WORD);
		nla_present(nl_groups_at(h, low), nl_groups_at(h, g), NLA_NO_WORD);
	}
	/* Its pages come from the node of the CPU that asks for them. */
	nl_store(&nl_group(h, g)->node, nl_slot_node(h, bpf_get_smp_processor_id()));
	/* From the claim to the bits, all else of the group but bits and hints is the caller's. */
	err = nla_present(nl_tags_at(h, g), nl_tags_at(h, g + 1), nl_tags_at(h, g) % NL_PAGE);
	if (err >= 0)
		err = nla_present(nl_groups_at(h, g), nl_groups_at(h, g + 1), pad);
	if (err >= 0)
		err = nla_present(nl_chunks_at(h, g), nl_chunks_at(h, g + 1), 0);
	if (err >= 0 && nl_groups_reach(h, g, 1))
		err = NLA_ETIME;
	if (err < 0) {
		nl_store(&nl_group(h, g)->state, NL_GROUP_CLOSED);
		goto undraw;
	}
	nl_chunk_publish(h, g, nl_group_chunks(h, g));
	return (int)g;
undraw:
	nl_groups_undraw(h, g, 1);
	return err;
}

#endif /* NLA_ARENA_PAGES_H */
