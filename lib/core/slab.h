/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * slab.h - slabs: a chunk of objects of one size, its free objects as bits outside of it.
 *
 * Three levels of hints lead to a free bit: a bit for each group (off_gpart), for each chunk of
 * the group (nl_group.partial), for each word of the slab (nl_slab.summary). At each level the
 * protocol is that of chunk.h: set after what it hints at, looked at again after clearing.
 *
 * A chunk can change its cache only when all its bits are in one hand (nl_slab_release). So who
 * holds one bit may trust the tag that it reads after taking the bit, and gives the bit back if
 * the tag names another cache than it came for.
 */
#ifndef NL_CORE_SLAB_H
#define NL_CORE_SLAB_H

#include "core.h"
#include "word.h"
#include "../probes.h"
#ifndef __bpf__
#include "../debug.h"
#endif

NL_INLINE int nl_is_slab_of(nl_heap_t *h, nl_u32 chunk, nl_u32 id)
{
	return nl_load(nl_tag(h, chunk)) == NL_TAG(NL_KIND_SLAB, id);
}

/* The bits of a word that stand for objects. */
NL_INLINE nl_u64 nl_slab_mask(nl_u32 per_slab, nl_u32 word)
{
	nl_u32 first = word * 64;

	if (per_slab <= first)
		return 0;
	return per_slab - first >= 64 ? ~0ULL : NL_BIT(per_slab - first) - 1;
}

NL_FLAT int nl_slab_hint(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word)
{
	nl_u32 g = chunk >> NL_GROUP_SHIFT;
	nl_group_t *group = nl_group(h, g);

	nl_hint_set(&nl_slab(h, chunk)->summary, NL_BIT(word));
	nl_hint_set(&group->partial[id & (NL_MAX_CACHES - 1)], NL_BIT(chunk));
	nl_hint_set(nl_group_part_map(h, 0, id) + g / 64, NL_BIT(g));
	return 0;
}

NL_FUNC int nl_slab_unhint(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word)
{
	nl_u32 g = chunk >> NL_GROUP_SHIFT;
	nl_word_t *partial = &nl_group(h, g)->partial[id & (NL_MAX_CACHES - 1)];
	nl_word_t *map = nl_group_part_map(h, 0, id) + g / 64;
	nl_slab_t *slab = nl_slab(h, chunk);

	nl_hint_clear(&slab->summary, NL_BIT(word));
	if (nl_load(&slab->free[word & (NL_SLAB_WORDS - 1)])) {
		/* All levels: another taker may have cleared those above in between. */
		nl_slab_hint(h, id, chunk, word);
		return 0;
	}
	if (nl_load(&slab->summary))
		return 0;
	nl_hint_clear(partial, NL_BIT(chunk));
	if (nl_load(&slab->summary) && nl_is_slab_of(h, chunk, id)) {
		nl_hint_set(partial, NL_BIT(chunk));
		nl_hint_set(map, NL_BIT(g));
		return 0;
	}
	if (nl_load(partial))
		return 0;
	nl_hint_clear(map, NL_BIT(g));
	if (nl_load(partial))
		nl_hint_set(map, NL_BIT(g));
	return 0;
}

NL_FUNC nl_u64 nl_slab_find(nl_heap_t *h NL_ARG, nl_u32 id)
{
	nl_word_t *map = nl_group_part_map(h, 0, id);
	nl_u32 words = nl_group_words(h);
	nl_u32 at = nl_zero();

	nl_for(i, words + 64) {
		nl_group_t *group;
		nl_word_t *partial;
		nl_u64 groups, chunks, summary;
		nl_u32 g, chunk;

		if (at >= words)
			break;
		groups = nl_load(map + at);
		if (!groups) {
			at++;
			continue;
		}
		g = at * 64 + nl_lowest(groups);
		group = nl_group(h, g);
		partial = &group->partial[id & (NL_MAX_CACHES - 1)];
		chunks = nl_load(partial);
		if (!chunks) {
			nl_hint_clear(map + at, NL_BIT(g));
			if (nl_load(partial))
				nl_hint_set(map + at, NL_BIT(g));
			continue;
		}
		chunk = (g << NL_GROUP_SHIFT) + nl_lowest(chunks);
		summary = nl_load(&nl_slab(h, chunk)->summary);
		if (summary && nl_is_slab_of(h, chunk, id))
			return (((nl_u64)chunk << 6) | nl_lowest(summary)) + 1;
		nl_hint_clear(partial, NL_BIT(chunk));
		if (nl_load(&nl_slab(h, chunk)->summary) && nl_is_slab_of(h, chunk, id)) {
			nl_hint_set(partial, NL_BIT(chunk));
			nl_hint_set(map + at, NL_BIT(g));
		}
	}
	return 0;
}

NL_FUNC nl_u64 nl_slab_give(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word, nl_u64 mask)
{
	nl_u64 twice = nl_word_give(&nl_slab(h, chunk)->free[word & (NL_SLAB_WORDS - 1)], mask);

	nl_slab_hint(h, id, chunk, word);
	return twice;
}

/*
 * Bits came out of a chunk that is no slab of the cache (any more): a stale hint. They go back to
 * whose they are, which the tag says for as long as they are held.
 */
NL_INLINE void nl_slab_give_stray(nl_heap_t *h, nl_u32 chunk, nl_u32 word, nl_u64 mask)
{
	nl_slab_give(h, NL_TAG_CACHE(nl_load(nl_tag(h, chunk))), chunk, word, mask);
}

/* Turn a bit taken from a word into its object, or give it back and return 0. */
NL_INLINE nl_u64 nl_slab_object(nl_heap_t *h, nl_u32 id, nl_u32 chunk, nl_u32 word, nl_u64 bit)
{
	if (nl_unlikely(!nl_is_slab_of(h, chunk, id))) {
		nl_slab_give_stray(h, chunk, word, bit);
		return 0;
	}
	return nl_object(h, chunk, word * 64 + nl_lowest(bit), nl_cache(h, id)->size);
}

NL_FUNC nl_u64 nl_slab_take(nl_heap_t *h NL_ARG, nl_u32 id)
{
	nl_for(i, NL_TRIES) {
		nl_u64 at = nl_slab_find(h, id);
		nl_u32 chunk, word;
		nl_word_t *free;
		nl_u64 bit, obj;

		if (!at)
			return 0;
		chunk = (nl_u32)((at - 1) >> 6);
		word = (nl_u32)(at - 1) & 63;
		free = &nl_slab(h, chunk)->free[word];
		bit = nl_word_take(free);
		if (!nl_load(free))
			nl_slab_unhint(h, id, chunk, word);
		if (!bit)
			continue;
		obj = nl_slab_object(h, id, chunk, word, bit);
		if (obj)
			return obj;
	}
	return 0;
}

NL_FUNC nl_u64 nl_slab_new(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 flags)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_u32 per_slab = cache->per_slab;
	nl_u32 g, chunk = nl_chunk_find(h);
	nl_u64 summary = nl_zero();
	nl_slab_t *slab;

	if (!chunk && (flags & (NL_RESERVE | NL_SURE)))
		chunk = nl_chunk_scan(h, flags);
	if (!chunk)
		return 0;
	slab = nl_slab(h, chunk);
	nl_store(&slab->nr_chunks, 0);
#ifndef __bpf__
	if (nl_unlikely(nl_load(&nl_debug_on)) && nl_debug_slab_new(h, id, chunk))
		; /* the constructor ran there */
	else if (cache->ctor)
		for (nl_u32 i = 0; i < per_slab; i++)
			((void (*)(void *))(uintptr_t)cache->ctor)(
				(void *)(uintptr_t)nl_object(h, chunk, i, cache->size));
#endif
	/* The tag before the bits: whoever gets a bit reads this tag after it. */
	nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_SLAB, id));
	nl_mb();
	nl_for(word, NL_SLAB_WORDS) {
		nl_u64 mask = nl_slab_mask(per_slab, word);

		if (!word)
			mask &= ~1ULL; /* object 0 is the caller's, out of any interrupter's reach */
		if (word * 64 >= per_slab)
			break;
		if (mask) {
			nl_store(&slab->free[word & (NL_SLAB_WORDS - 1)], mask);
			summary |= NL_BIT(word);
		}
	}
	nl_add(&cache->nr_slabs, 1);
	NL_PROBE3(alloc_slab, h, cache->name, chunk);
	if (summary) {
		g = chunk >> NL_GROUP_SHIFT;
		/* or, not a store: a giver of a bit above may have set its hint already */
		nl_or(&slab->summary, summary);
		nl_or(&nl_group(h, g)->partial[id & (NL_MAX_CACHES - 1)], NL_BIT(chunk));
		nl_mb();
		nl_hint_set(nl_group_part_map(h, 0, id) + g / 64, NL_BIT(g));
	}
	return nl_object(h, chunk, 0, 0);
}

/* One object out of one chunk, whatever its hints say. */
NL_INLINE nl_u64 nl_slab_scan_chunk(nl_heap_t *h, nl_u32 id, nl_u32 chunk, nl_u32 words)
{
	nl_slab_t *slab = nl_slab(h, chunk);

	nl_for(word, words) {
		nl_u64 bit = nl_word_take(&slab->free[word & (NL_SLAB_WORDS - 1)]);
		nl_u64 obj;

		if (!bit)
			continue;
		obj = nl_slab_object(h, id, chunk, word, bit);
		if (obj)
			return obj;
	}
	return 0;
}

#ifdef __bpf__
NL_FUNC nl_u64 nl_slab_scan_one(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 words)
{
	return nl_slab_scan_chunk(h, id, chunk, words);
}
#else
#define nl_slab_scan_one nl_slab_scan_chunk
#endif

NL_FUNC nl_u64 nl_slab_scan(nl_heap_t *h NL_ARG, nl_u32 id)
{
	nl_u32 first = h->first_chunk;
	nl_u32 end = nl_nr_open(h) << NL_GROUP_SHIFT;
	nl_u32 words = nl_cache(h, id)->words;

	if (words > NL_SLAB_WORDS)
		words = NL_SLAB_WORDS;
	if (first > end)
		return 0;
	nl_for(i, end - first) {
		nl_u32 chunk = first + i;
		nl_u64 obj;

		if (!nl_is_slab_of(h, chunk, id))
			continue;
		obj = nl_slab_scan_one(h, id, chunk, words);
		if (obj)
			return obj;
	}
	return 0;
}

NL_FUNC int nl_slab_put(nl_heap_t *h NL_ARG, nl_u32 id, nl_u64 obj)
{
	nl_u32 chunk = (nl_u32)((obj - h->base) >> NL_CHUNK_SHIFT);
	nl_u32 idx = nl_slab_index(h, id, obj);

	if (idx == ~0u || !nl_is_slab_of(h, chunk, id))
		return -1;
	return nl_slab_give(h, id, chunk, idx / 64, NL_BIT(idx)) ? -1 : 0;
}

NL_FUNC int nl_slab_release(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u32 per_slab = cache->per_slab;
	nl_u32 words = cache->words < NL_SLAB_WORDS ? cache->words : NL_SLAB_WORDS;
	nl_u32 full = nl_zero(), i = nl_zero();
	nl_u64 mask, got = nl_zero();

	/* Words 0 to full - 1 are wholly in our hand; then one that was not, if any. */
	for (; full < words && NL_CAN_LOOP; full++) {
		mask = nl_slab_mask(per_slab, full);
		if (nl_load(&slab->free[full & (NL_SLAB_WORDS - 1)]) != mask)
			break;
		got = nl_xchg(&slab->free[full & (NL_SLAB_WORDS - 1)], 0);
		if (got != mask)
			break;
		got = 0;
	}
	if (full < words || !nl_is_slab_of(h, chunk, id)) {
		if (got)
			nl_slab_give(h, NL_TAG_CACHE(nl_load(nl_tag(h, chunk))), chunk, full, got);
		for (; i < full && NL_CAN_LOOP; i++)
			nl_slab_give(h, NL_TAG_CACHE(nl_load(nl_tag(h, chunk))), chunk, i,
				     nl_slab_mask(per_slab, i));
		return -1;
	}
	/* Nobody else has a bit of it: the chunk is ours, as if it had come from the bitmap. */
#ifndef __bpf__
	if (nl_unlikely(nl_load(&nl_debug_on)))
		nl_debug_slab_gone(h, id, chunk);
#endif
	nl_store(&slab->summary, 0);
	nl_hint_clear(&nl_group(h, chunk >> NL_GROUP_SHIFT)->partial[id & (NL_MAX_CACHES - 1)],
		      NL_BIT(chunk));
	nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_FREE, 0));
	nl_add(&cache->nr_slabs, (nl_u32)-1);
	NL_PROBE3(free_slab, h, cache->name, chunk);
	return 0;
}

#endif /* NL_CORE_SLAB_H */
