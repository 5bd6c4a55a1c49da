/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * large.c - objects of more than KMALLOC_MAX_CACHE_SIZE bytes: runs of whole chunks.
 *
 * A run is claimed out of the chunk bitmap word by word, each by one cmpxchg that clears exactly
 * the bits wanted, then chunk by chunk by its tag; when one fails, what was claimed goes back and
 * the search goes on behind it. Its first chunk says TRANSIT until all others say BODY, so that
 * whoever finds a part of a run finds whose it is in front of it. Freeing is nl_large_free() in core/chunk.h, which a BPF program can do as well.
 */
#include <errno.h>
#include "internal.h"
#include "core/core.h"
#include "core/word.h"

/* Restarts of a search that lost a word of its run to somebody else. */
#define RUN_RESTARTS 8

/* Give chunks back that are the caller's by their tags. */
static void unclaim(nl_heap_t *h, nl_u32 chunk, nl_u32 nr)
{
	while (nr--) {
		nl_u32 c = chunk + nr;

		nl_store_release(nl_tag(h, c), NL_TAG(NL_KIND_FREE, 0));
		nl_chunk_give(h, c >> NL_GROUP_SHIFT, NL_BIT(c));
	}
}

/* With the bits in hand, or fresh groups: make the chunks the caller's, all or none. */
static bool claim_tags(nl_heap_t *h, nl_u32 chunk, nl_u32 nr, nl_u32 who)
{
	for (nl_u32 i = 0; i < nr; i++) {
		if (nl_chunk_claim(h, chunk + i, who))
			continue;
		/* That one was not free: a bit too many. Those behind it get theirs back. */
		for (nl_u32 c = chunk + i + 1; c < chunk + nr; c++)
			nl_chunk_give(h, c >> NL_GROUP_SHIFT, NL_BIT(c));
		unclaim(h, chunk, i);
		return false;
	}
	return true;
}

/* Clear bits [chunk, chunk + nr) of the chunk bitmap: all or none. */
static bool claim(nl_heap_t *h, nl_u32 chunk, nl_u32 nr, nl_u32 who)
{
	nl_u32 done = 0;

	while (done < nr) {
		nl_u32 c = chunk + done, bit = c & (NL_GROUP_CHUNKS - 1);
		nl_u32 n = NL_GROUP_CHUNKS - bit < nr - done ? NL_GROUP_CHUNKS - bit : nr - done;
		nl_u64 mask = (n == 64 ? ~0ULL : NL_BIT(n) - 1) << bit;
		nl_word_t *word = &nl_group(h, c >> NL_GROUP_SHIFT)->chunk_free;
		bool got = false;

		for (nl_u32 i = 0; i < NL_TRIES && !got; i++) {
			nl_u64 old = nl_load(word);

			if ((old & mask) != mask)
				break;
			got = nl_cas(word, old, old & ~mask);
		}
		if (!got)
			break;
		done += n;
	}
	if (done == nr)
		return claim_tags(h, chunk, nr, who);
	for (nl_u32 i = 0; i < done; i++)
		nl_chunk_give(h, (chunk + i) >> NL_GROUP_SHIFT, NL_BIT(chunk + i));
	return false;
}

#define ANY_NODE (~0u)

/* First fit over all open groups, or those of a node. A chunk number or 0. */
static nl_u32 find_run(nl_heap_t *h, nl_u32 nr, nl_u32 who, nl_u32 node)
{
	nl_u32 start = h->first_chunk, restarts = 0;

again:
	for (nl_u32 c = start, run = 0, end = nl_nr_open(h) << NL_GROUP_SHIFT; c < end;) {
		nl_u64 word = nl_load(&nl_group(h, c >> NL_GROUP_SHIFT)->chunk_free);
		nl_u32 bit = c & (NL_GROUP_CHUNKS - 1);
		nl_u32 ones, zeros;

		if (node != ANY_NODE && node != nl_node_of(h, c >> NL_GROUP_SHIFT))
			word = 0;
		word >>= bit;
		if (!word) {
			run = 0;
			c += NL_GROUP_CHUNKS - bit;
			continue;
		}
		zeros = nl_lowest(word);
		if (zeros) {
			run = 0;
			c += zeros;
			continue;
		}
		ones = ~word ? nl_lowest(~word) : 64;
		if (ones > NL_GROUP_CHUNKS - bit)
			ones = NL_GROUP_CHUNKS - bit;
		if (run + ones >= nr) {
			nl_u32 first = c - run;

			if (claim(h, first, nr, who))
				return first;
			if (++restarts > RUN_RESTARTS)
				return 0;
			start = c + 1;
			goto again;
		}
		run += ones;
		c += ones;
	}
	return 0;
}

/* Chunks [chunk, chunk + nr) are the caller's by their tags: make them an object. */
static void *make_large(nl_heap_t *h, nl_u32 chunk, nl_u32 nr, size_t size, gfp_t gfp)
{
	nl_slab_t *slab = nl_slab(h, chunk);

	nl_store(&slab->nr_chunks, nr);
	nl_store(&slab->size, size);
	nl_store(&slab->accounted, (gfp & __GFP_ACCOUNT) != 0);
	for (nl_u32 i = 1; i < nr; i++)
		nl_store(nl_tag(h, chunk + i), NL_TAG(NL_KIND_BODY, 0));
	nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_LARGE, 0));
	nl_add(&h->nr_large, 1);
	nl_add(&h->large_allocs, 1);
	return (void *)nl_object(h, chunk, 0, 0);
}

static nl_u32 chunks_of(nl_heap_t *h, size_t size)
{
	if (size > h->size)
		return 0;
	return (nl_u32)((size + NL_CHUNK_SIZE - 1) >> NL_CHUNK_SHIFT);
}

/*
 * The groups that nobody has opened are too few for the run, but the free chunks before them may
 * make up for it: open as many as that takes. Were any opened?
 */
static bool grow_last(struct nolock_heap *heap, nl_u32 nr, nl_u32 node)
{
	nl_heap_t *h = heap->h;
	nl_u32 open = nl_nr_open(h), left = h->limit - nl_load(&h->cursor), tail = 0;

	for (nl_u32 g = open; g-- > h->first_chunk >> NL_GROUP_SHIFT && tail < nr;) {
		nl_u64 free = nl_load(&nl_group(h, g)->chunk_free);

		tail += ~free ? 63u - nl_highest(~free) : 64u;
		if (~free)
			break;
	}
	if (h->limit < nl_load(&h->cursor) || tail >= nr ||
	    (nl_u64)left * NL_GROUP_CHUNKS < nr - tail)
		return false;
	return nl_heap_grow_on(heap, (nr - tail + NL_GROUP_CHUNKS - 1) / NL_GROUP_CHUNKS, node) !=
	       0;
}

void *nl_large_alloc(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	nl_heap_t *h = heap->h;
	nl_u32 nr = chunks_of(h, size), who = nl_who(heap), chunk;
	nl_u32 near = node == NUMA_NO_NODE ? nl_here(heap) : (nl_u32)node;
	nl_u32 rest = gfp & __GFP_THISNODE ? near : ANY_NODE;
	void *p;

	if (!nr)
		return NULL;
	nl_depth++;
	nl_fork_check();
	chunk = find_run(h, nr, who, near);
	if (!chunk && gfpflags_allow_blocking(gfp)) {
		/* A repair may have thought that nobody cared for these groups: others, then. */
		do
			chunk = nl_heap_grow_run(heap, nr, near);
		while (chunk && !claim_tags(h, chunk, nr, who));
		if (!chunk && grow_last(heap, nr, near))
			chunk = find_run(h, nr, who, rest);
		if (!chunk && nl_heap_shrink(heap))
			chunk = find_run(h, nr, who, rest);
	}
	if (!chunk && rest == ANY_NODE && h->nr_nodes > 1)
		chunk = find_run(h, nr, who, ANY_NODE);
	p = chunk ? make_large(h, chunk, nr, size, gfp) : NULL;
	nl_depth--;
	return p;
}

void *nl_large_alloc_nolock(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	nl_heap_t *h = heap->h;
	nl_u32 nr = chunks_of(h, size), who = nl_who(heap), chunk;
	nl_u32 near = node == NUMA_NO_NODE ? nl_here(heap) : (nl_u32)node;
	void *p;

	nl_depth++;
	nl_fork_check();
	chunk = nr ? find_run(h, nr, who, near) : 0;
	if (!chunk && nr && h->nr_nodes > 1)
		chunk = find_run(h, nr, who, ANY_NODE);
	if (!chunk && nr == 1)
		chunk = nl_chunk_scan(h, NL_RESERVE, who);
	p = chunk ? make_large(h, chunk, nr, size, gfp) : NULL;
	nl_depth--;
	return p;
}
