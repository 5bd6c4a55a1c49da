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
 *
 * The slab's lock is for takers: who wants bits tries it once, and goes to another slab. Its holder
 * says in nl_slab.intent what it is about to do, so that a repair can tell for each bit whether a
 * dead holder had it: as no other takes bits meanwhile, a bit that is not set is in its hands. The
 * last scan of all must find what a lock hides, and passes it, one bit at a time; it counts itself
 * in scan_begin and scan_end, so that a repair knows when that reasoning does not hold. Then it
 * would rather lose free objects than hand them out twice. Nobody needs the lock to give.
 */
#ifndef NL_CORE_SLAB_H
#define NL_CORE_SLAB_H

#include "slot.h"
#include "../probes.h"
#ifndef __bpf__
#include "../debug.h"
#endif

NL_INLINE int nl_is_slab_of(nl_heap_t *h, nl_u32 chunk, nl_u32 id)
{
	return nl_load(nl_tag(h, chunk)) == NL_TAG(NL_KIND_SLAB, id);
}

NL_FLAT int nl_slab_hint(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word)
{
	nl_u32 g = chunk >> NL_GROUP_SHIFT;
	nl_group_t *group = nl_group(h, g);

	nl_hint_set(&nl_slab(h, chunk)->summary, NL_BIT(word));
	nl_hint_set(&group->partial[id & (NL_MAX_CACHES - 1)], NL_BIT(chunk));
	nl_hint_set(nl_group_part_map(h, nl_node_of(h, g), id) + g / 64, NL_BIT(g));
	return 0;
}

NL_FUNC int nl_slab_unhint(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word)
{
	nl_u32 g = chunk >> NL_GROUP_SHIFT;
	nl_word_t *partial = &nl_group(h, g)->partial[id & (NL_MAX_CACHES - 1)];
	nl_word_t *map = nl_group_part_map(h, nl_node_of(h, g), id) + g / 64;
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

NL_FUNC nl_u64 nl_slab_find(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 node)
{
	nl_word_t *map = nl_group_part_map(h, node, id);
	nl_u32 words = nl_group_words(h);
	nl_u32 at = nl_zero(), g = nl_zero();
	nl_u64 groups = nl_zero(), chunks = nl_zero(), locked = nl_zero();

	/* A word of the map, a group of the word, or a chunk of the group each turn. */
	nl_for(i, words + 512) {
		nl_word_t *partial;
		nl_u64 summary;
		nl_u32 chunk;

		if (chunks) {
			chunk = (g << NL_GROUP_SHIFT) + nl_lowest(chunks);
			chunks &= chunks - 1;
			summary = nl_load(&nl_slab(h, chunk)->summary);
			if (summary && nl_is_slab_of(h, chunk, id)) {
				if (!nl_load(&nl_slab(h, chunk)->lock))
					return (((nl_u64)chunk << 6) | nl_lowest(summary)) + 1;
				locked = NL_ALL_LOCKED;
				continue;
			}
			partial = &nl_group(h, g)->partial[id & (NL_MAX_CACHES - 1)];
			nl_hint_clear(partial, NL_BIT(chunk));
			if (nl_load(&nl_slab(h, chunk)->summary) && nl_is_slab_of(h, chunk, id)) {
				nl_hint_set(partial, NL_BIT(chunk));
				nl_hint_set(map + g / 64, NL_BIT(g));
			}
			continue;
		}
		if (!groups) {
			if (at >= words)
				break;
			groups = nl_load(map + at);
			at++;
			continue;
		}
		g = (at - 1) * 64 + nl_lowest(groups);
		groups &= groups - 1;
		partial = &nl_group(h, g)->partial[id & (NL_MAX_CACHES - 1)];
		chunks = nl_load(partial);
		if (!chunks) {
			nl_hint_clear(map + g / 64, NL_BIT(g));
			if (nl_load(partial))
				nl_hint_set(map + g / 64, NL_BIT(g));
		}
	}
	return locked;
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

NL_FUNC nl_u64 nl_slab_take(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 who, nl_u32 node)
{
	nl_for(i, NL_TRIES) {
		nl_u64 at = nl_slab_find(h, id, node), bit = 0;
		nl_u32 chunk, word;
		nl_slab_t *slab;

		if (!at || at == NL_ALL_LOCKED)
			return 0;
		chunk = (nl_u32)((at - 1) >> 6);
		word = (nl_u32)(at - 1) & 63;
		slab = nl_slab(h, chunk);
		if (!nl_slab_trylock(slab, who))
			continue;
		if (nl_is_slab_of(h, chunk, id)) {
			bit = nl_word_take(&slab->free[word]);
			if (!nl_load(&slab->free[word]))
				nl_slab_unhint(h, id, chunk, word);
		}
		nl_slab_unlock(slab);
		if (bit)
			return nl_object(h, chunk, word * 64 + nl_lowest(bit),
					 nl_cache(h, id)->size);
	}
	return 0;
}

/* Set the words of a fresh slab, from the first on. */
NL_INLINE nl_u64 nl_slab_set_words(nl_slab_t *slab, nl_u32 per_slab, nl_u64 keep)
{
	nl_u64 summary = nl_zero();

	nl_for(word, NL_SLAB_WORDS) {
		nl_u64 mask = nl_slab_mask(per_slab, word);

		if (!word)
			mask &= ~keep;
		if (word * 64 >= per_slab)
			break;
		if (mask) {
			nl_store(&slab->free[word & (NL_SLAB_WORDS - 1)], mask);
			summary |= NL_BIT(word);
		}
	}
	return summary;
}

NL_FUNC nl_u64 nl_slab_new(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 flags, nl_u32 who, nl_u32 sheaf)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_u32 per_slab = cache->per_slab;
	nl_u32 g, chunk = nl_chunk_near(h, flags, who), n = 0;
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u64 summary, obj;
	nl_slab_t *slab;
	int locked;

	if (!chunk && (flags & (NL_RESERVE | NL_SURE)) && !(flags & NL_THIS))
		chunk = nl_chunk_scan(h, flags, who);
	if (!chunk)
		return 0;
	obj = nl_object(h, chunk, 0, 0);
	slab = nl_slab(h, chunk);
	nl_store(&slab->nr_chunks, 0);
#ifndef __bpf__
	if (nl_unlikely(nl_load(&nl_debug_on)) && nl_debug_slab_new(h, id, chunk))
		; /* the constructor ran there */
	else if (cache->ctor && nl_heap_is_private(h))
		for (nl_u32 i = 0; i < per_slab; i++)
			((void (*)(void *))(uintptr_t)cache->ctor)(
				(void *)(uintptr_t)nl_object(h, chunk, i, cache->size));
#endif
	/*
	 * Who comes by a stale hint may have the lock for a moment: then without it, which costs a
	 * repair its knowledge, and nobody else anything.
	 */
	locked = nl_slab_trylock(slab, who);
	if (sheaf)
		n = s->size;
	if (locked)
		nl_slab_intend(slab, NL_INTENT(NL_INTENT_NEW, 0, sheaf, n), 0);
	/* The tag before the bits: whoever gets a bit reads this tag after it. */
	nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_SLAB, id));
	nl_mb();
	/* Object 0 is the caller's, out of any interrupter's reach. */
	summary = nl_slab_set_words(slab, per_slab, flags & NL_WHOLE ? 0 : 1);
	if (sheaf && n < NL_SHEAF_MAX) {
		nl_store(&s->obj[n], obj);
		nl_barrier();
		nl_store(&s->size, (nl_u16)(n + 1));
	}
	if (locked) {
		nl_slab_done(slab);
		nl_slab_unlock(slab);
	}
	nl_add(&cache->nr_slabs, 1);
	NL_PROBE3(alloc_slab, h, cache->name, chunk);
	if (summary) {
		g = chunk >> NL_GROUP_SHIFT;
		/* or, not a store: a giver of a bit above may have set its hint already */
		nl_or(&slab->summary, summary);
		nl_or(&nl_group(h, g)->partial[id & (NL_MAX_CACHES - 1)], NL_BIT(chunk));
		nl_mb();
		nl_hint_set(nl_group_part_map(h, nl_node_of(h, g), id) + g / 64, NL_BIT(g));
	}
	return obj;
}

/* One object out of one chunk, whatever its hints say. */
NL_INLINE nl_u64 nl_slab_scan_chunk(nl_heap_t *h, nl_u32 id, nl_u32 chunk, nl_u32 words)
{
	nl_slab_t *slab = nl_slab(h, chunk);

	nl_for(word, words) {
		nl_word_t *free = &slab->free[word & (NL_SLAB_WORDS - 1)];
		nl_u64 bit;

		if (!nl_load(free))
			continue;
		/* Before the take, and visible before it; see nl_slab_trylock(). */
		nl_add(&slab->scan_begin, 1);
		nl_mb();
		bit = nl_word_take(free);
		nl_add(&slab->scan_end, 1);
		if (!bit)
			continue;
		if (nl_is_slab_of(h, chunk, id))
			return nl_object(h, chunk, word * 64 + nl_lowest(bit),
					 nl_cache(h, id)->size);
		nl_slab_give_stray(h, chunk, word, bit);
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

NL_FUNC int nl_slab_release(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 who)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u32 per_slab = cache->per_slab;
	nl_u32 words = cache->words < NL_SLAB_WORDS ? cache->words : NL_SLAB_WORDS;
	nl_u32 full = nl_zero(), i = nl_zero(), kind;
	nl_word_t *free = &slab->free[0];

	for (; i < words && NL_CAN_LOOP; i++)
		if (nl_load(&free[i & (NL_SLAB_WORDS - 1)]) != nl_slab_mask(per_slab, i))
			return -1;
	if (!nl_slab_trylock(slab, who))
		return -1;
	if (!nl_is_slab_of(h, chunk, id))
		words = 0;
	for (i = nl_zero(); full < words && NL_CAN_LOOP; full++) {
		/* What was taken before the lock was ours is not ours to give, dead or alive. */
		if (nl_load(&free[full & (NL_SLAB_WORDS - 1)]) != nl_slab_mask(per_slab, full))
			break;
		nl_slab_intend(slab, NL_INTENT(NL_INTENT_RELEASE, full, 0, 0), 0);
		if (!nl_cas(&free[full & (NL_SLAB_WORDS - 1)], nl_slab_mask(per_slab, full), 0))
			break;
	}
	if (full < words || !words) {
		for (; full > 0 && NL_CAN_LOOP; full--) {
			nl_u32 w = full - 1;

			nl_slab_intend(slab, NL_INTENT(NL_INTENT_RELEASE, w, 0, 0), 0);
			nl_word_give(&free[w & (NL_SLAB_WORDS - 1)], nl_slab_mask(per_slab, w));
			nl_slab_hint(h, id, chunk, w);
		}
		nl_slab_done(slab);
		nl_slab_unlock(slab);
		return -1;
	}
	/* Nobody else has a bit of it: the chunk is ours, as if it had come from the bitmap. */
#ifndef __bpf__
	if (nl_unlikely(nl_load(&nl_debug_on)))
		nl_debug_slab_gone(h, id, chunk);
#endif
	nl_store_release(nl_tag(h, chunk), NL_TAG_TRANSIT(who));
	nl_slab_done(slab);
	nl_slab_unlock(slab);
	nl_store(&slab->summary, 0);
	nl_hint_clear(&nl_group(h, chunk >> NL_GROUP_SHIFT)->partial[id & (NL_MAX_CACHES - 1)],
		      NL_BIT(chunk));
	NL_PROBE3(free_slab, h, cache->name, chunk);
	/* Without slabs the cache may be destroyed, and another made in its place. */
	kind = cache->mode & NL_CACHE_TYPESAFE ? NL_KIND_WAIT : NL_KIND_FREE;
	nl_add(&cache->nr_slabs, (nl_u32)-1);
	nl_store_release(nl_tag(h, chunk), NL_TAG(kind, 0));
	return 0;
}

#endif /* NL_CORE_SLAB_H */
