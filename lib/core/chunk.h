/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * chunk.h - free chunks of 64 KiB: a bitmap word for each group, and a hint for each word.
 *
 * A chunk is free while its tag says so. To take one, take its bit from chunk_free or reserve, then
 * turn its tag from FREE to TRANSIT by a cmpxchg, which names the taker; who fails in the second
 * step had a bit that a repair had set once more, and drops it. To give one back, set the tag to
 * FREE, then the bit. So a process that dies in between leaves either a chunk with its name on it,
 * or a free one without a bit, whose bit may be set again at any time, by anybody.
 *
 * Protocol of the hint (off_gfree): the giver sets the bit, then looks at the hint; the taker
 * that finds a word empty clears the hint, then looks at the word. With a full barrier between
 * the two steps on both sides one of them sees the other, so no hint is lost but by a process
 * that dies between its two steps; the scan at the end finds its chunks all the same.
 */
#ifndef NL_CORE_CHUNK_H
#define NL_CORE_CHUNK_H

#include "core.h"
#include "word.h"
#ifndef __bpf__
#include "run.h"
#endif

NL_FUNC int nl_chunk_publish(nl_heap_t *h NL_ARG, nl_u32 group, nl_u64 mask)
{
	nl_word_give(&nl_group(h, group)->chunk_free, mask);
	nl_hint_set(nl_group_free_map(h, nl_node_of(h, group)) + group / 64, NL_BIT(group));
#ifndef __bpf__
	if (h->type == NL_HEAP_PRIVATE)
		nl_run_given(h, group);
#endif
	return 0;
}

NL_FUNC int nl_chunk_give(nl_heap_t *h NL_ARG, nl_u32 group, nl_u64 mask)
{
	nl_or(&nl_group(h, group)->dirty, mask);
	return nl_chunk_publish(h, group, mask);
}

/* A chunk of the node by way of the hints, or 0. */
NL_FUNC nl_u32 nl_chunk_find(nl_heap_t *h NL_ARG, nl_u32 who, nl_u32 node)
{
	nl_word_t *map = nl_group_free_map(h, node & (NL_MAX_NODES - 1));
	nl_u32 words = nl_group_words(h);
	nl_u32 at = nl_zero();

	nl_for(i, words + 64) {
		nl_group_t *group;
		nl_u64 hints, bit;
		nl_u32 g;

		if (at >= words)
			break;
		hints = nl_load(map + at);
		if (!hints) {
			at++;
			continue;
		}
		g = at * 64 + nl_lowest(hints);
		group = nl_group(h, g);
		bit = nl_word_take(&group->chunk_free);
		if (bit) {
			nl_u32 chunk = (g << NL_GROUP_SHIFT) + nl_lowest(bit);

			if (nl_chunk_claim(h, chunk, who))
				return chunk;
			continue;
		}
		nl_hint_clear(map + at, NL_BIT(g));
		if (nl_load(&group->chunk_free))
			nl_hint_set(map + at, NL_BIT(g));
	}
	return 0;
}

/* A chunk of the node that the flags name, or, unless they forbid it, of another one. */
NL_FLAT nl_u32 nl_chunk_near(nl_heap_t *h NL_ARG, nl_u32 flags, nl_u32 who)
{
	nl_u32 near = NL_NODE_OF(flags), chunk = nl_chunk_find(h, who, near);

	if (flags & NL_THIS)
		return chunk;
	nl_for(node, NL_MAX_NODES) {
		if (chunk || node >= h->nr_nodes)
			break;
		if (node != near)
			chunk = nl_chunk_find(h, who, node);
	}
	return chunk;
}

/* A chunk by looking at every word, the reserve's too if allowed, or 0: none was free. */
NL_FUNC nl_u32 nl_chunk_scan(nl_heap_t *h NL_ARG, nl_u32 flags, nl_u32 who)
{
	nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT;
	nl_u32 end = nl_nr_open(h);

	if (g > end)
		return 0;
	/* A group a turn, but for those whose bit was one too many. */
	nl_for(i, end - g + NL_GROUP_CHUNKS) {
		nl_group_t *group;
		nl_u64 bit;

		if (g >= end)
			break;
		group = nl_group(h, g);
		bit = nl_word_take(&group->chunk_free);
		if (!bit && (flags & NL_RESERVE)) {
			bit = nl_word_take(&group->reserve);
			if (bit)
				nl_add(&h->nr_reserve, (nl_u32)-1);
		}
		if (!bit)
			g++;
		else if (nl_chunk_claim(h, (g << NL_GROUP_SHIFT) + nl_lowest(bit), who))
			return (g << NL_GROUP_SHIFT) + nl_lowest(bit);
	}
	return 0;
}

/*
 * Free a large object. The tag's cmpxchg decides who of two frees it; everything after it is the
 * winner's alone until the bits are given. From its end, so that whoever finds the rest of it finds
 * it behind its first chunk.
 */
NL_FUNC int nl_large_free(nl_heap_t *h NL_ARG, nl_u32 chunk, nl_u32 who)
{
	nl_u32 nr = nl_slab(h, chunk)->nr_chunks;
	nl_u64 mask = nl_zero();

	if (!nr || !nl_chunk_ok(h, chunk) || !nl_chunk_ok(h, (nl_u64)chunk + nr - 1))
		return -1;
	if (!nl_cas(nl_tag(h, chunk), NL_TAG(NL_KIND_LARGE, 0), NL_TAG_TRANSIT(who)))
		return -1;
	nl_add(&h->nr_large, (nl_u32)-1);
	nl_add(&h->large_frees, 1);
	nl_for(i, nr) {
		nl_u32 c = chunk + (nr - 1 - i);

		nl_store_release(nl_tag(h, c), NL_TAG(NL_KIND_FREE, 0));
		mask |= NL_BIT(c);
		if (!(c & (NL_GROUP_CHUNKS - 1)) || i == nr - 1) {
			nl_chunk_give(h, c >> NL_GROUP_SHIFT, mask);
			mask = nl_zero();
		}
	}
	return 0;
}

#endif /* NL_CORE_CHUNK_H */
