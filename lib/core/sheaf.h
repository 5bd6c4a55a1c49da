/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * sheaf.h - sheaves: arrays of free objects, all in one table with a bitmap of the free ones.
 *
 * A sheaf belongs to whoever took its bit, then to the holder of the lock of the slot or barn it
 * hangs on. Filling takes whole words of free bits from the slabs, flushing gives the objects of
 * a word back at once; while objects are in neither place the intent word says which.
 */
#ifndef NL_CORE_SHEAF_H
#define NL_CORE_SHEAF_H

#include "core.h"
#include "word.h"
#include "../probes.h"

NL_INLINE nl_u32 nl_sheaf_words(nl_heap_t *h)
{
	nl_u32 words = h->nr_sheaves / 64;

	return words < 4096 ? words : 4096;
}

NL_FUNC nl_u32 nl_sheaf_get(nl_heap_t *h NL_ARG, nl_u32 id)
{
	nl_word_t *map = nl_sheaf_map(h);
	nl_u32 words = nl_sheaf_words(h);
	nl_u32 at = nl_load(&h->sheaf_hint);

	nl_for(i, words) {
		nl_u64 bit;

		if (at >= words)
			at = 0;
		bit = nl_word_take(map + at);
		if (bit) {
			nl_u32 index = at * 64 + nl_lowest(bit);
			nl_sheaf_t *sheaf = nl_sheaf(h, index);

			nl_store(&h->sheaf_hint, at);
			nl_store(&sheaf->owner, 0);
			nl_store(&sheaf->size, 0);
			nl_store(&sheaf->next, 0);
			nl_store(&sheaf->cache, (nl_u16)(id + 1));
			return index + 1;
		}
		at++;
	}
	return 0;
}

/* The sheaf is empty. */
NL_FUNC int nl_sheaf_put(nl_heap_t *h NL_ARG, nl_u32 sheaf)
{
	nl_u32 index = sheaf - 1;

	if (index >= h->nr_sheaves)
		return -1;
	nl_store(&nl_sheaf(h, index)->cache, 0);
	nl_word_give(nl_sheaf_map(h) + index / 64, NL_BIT(index));
	return 0;
}

/*
 * Move free objects of one word into the sheaf, lowest address on top. Returns how many, 0 for a
 * hint that led nowhere, ~0 when no hint is left.
 */
NL_FUNC nl_u32 nl_sheaf_fill_word(nl_heap_t *h NL_ARG, nl_word_t *intent NL_ARG, nl_u32 sheaf,
				  nl_u32 id, nl_u32 want)
{
	nl_u64 at = nl_slab_find(h, id);
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u32 n = s->size, start = n;
	nl_u32 chunk, word, surplus, size;
	nl_u64 mask, base, keep = nl_zero();

	if (!at)
		return ~0u;
	chunk = (nl_u32)((at - 1) >> 6);
	word = (nl_u32)(at - 1) & 63;
	nl_store(intent + 1, 0);
	nl_store(intent, NL_INTENT(NL_INTENT_TAKE, at - 1));
	mask = nl_word_take_all(&nl_slab(h, chunk)->free[word]);
	nl_store(intent + 1, mask);
	if (mask && nl_unlikely(!nl_is_slab_of(h, chunk, id))) {
		nl_store(intent, 0);
		nl_barrier();
		nl_slab_give_stray(h, chunk, word, mask);
		return 0;
	}
	surplus = (nl_u32)__builtin_popcountll(mask);
	if (surplus > want - n) {
		/* Give the highest back at once: others may be waiting for them. */
		surplus -= want - n;
		nl_for(i, surplus) {
			nl_u64 bit = NL_BIT(nl_highest(mask | 1));

			keep |= bit;
			mask &= ~bit;
		}
		/* Out of the intent first: a repair must not give them a second time. */
		nl_store(intent + 1, mask);
		nl_barrier();
		nl_slab_give(h, id, chunk, word, keep);
	} else {
		nl_slab_unhint(h, id, chunk, word);
	}
	size = nl_cache(h, id)->size;
	base = nl_object(h, chunk, word * 64, size);
	nl_for(i, 64) {
		nl_u32 bit;

		if (!mask || n >= NL_SHEAF_MAX)
			break;
		bit = nl_highest(mask);
		mask &= ~NL_BIT(bit);
		nl_store(&s->obj[n], base + (nl_u64)bit * size);
		n++;
	}
	nl_store(&s->size, (nl_u16)n);
	nl_store_release(intent, 0);
	return n - start;
}

NL_FLAT nl_u32 nl_sheaf_fill(nl_heap_t *h NL_ARG, nl_word_t *intent NL_ARG, nl_u32 sheaf, nl_u32 id,
			     nl_u32 want)
{
	nl_u32 got = nl_zero();

	if (want > NL_SHEAF_MAX)
		want = NL_SHEAF_MAX;
	nl_for(i, 16) {
		nl_u32 n;

		if (nl_sheaf(h, sheaf - 1)->size >= want)
			break;
		n = nl_sheaf_fill_word(h, intent, sheaf, id, want);
		if (n == ~0u)
			break;
		got += n;
	}
	return got;
}

/*
 * Give the objects above @keep back to their slabs, those of one word together. What is no object
 * of the cache, or was free already, is dropped and counted: a bad free caught.
 */
NL_FUNC nl_u32 nl_sheaf_flush(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u32 keep)
{
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u32 n = s->size <= NL_SHEAF_MAX ? s->size : NL_SHEAF_MAX;
	nl_u32 chunk = nl_zero(), word = nl_zero(), flushed = nl_zero(), bad = nl_zero();
	nl_u64 mask = nl_zero();

	nl_for(i, NL_SHEAF_MAX) {
		nl_u64 obj;
		nl_u32 c, idx;

		if (n <= keep)
			break;
		obj = nl_load(&s->obj[n - 1]);
		nl_store(&s->size, (nl_u16)--n);
		c = (nl_u32)((obj - h->base) >> NL_CHUNK_SHIFT);
		if (!nl_chunk_ok(h, c) || !nl_is_slab_of(h, c, id)) {
			bad++;
			continue;
		}
		idx = nl_slab_index(h, id, obj);
		if (idx == ~0u) {
			bad++;
			continue;
		}
		if (mask && (c != chunk || idx / 64 != word)) {
			bad += (nl_u32)__builtin_popcountll(nl_slab_give(h, id, chunk, word, mask));
			mask = nl_zero();
		}
		chunk = c;
		word = idx / 64;
		if (mask & NL_BIT(idx))
			bad++;
		mask |= NL_BIT(idx);
		flushed++;
	}
	if (mask)
		bad += (nl_u32)__builtin_popcountll(nl_slab_give(h, id, chunk, word, mask));
	if (bad)
		nl_add(&h->dropped, bad);
	NL_PROBE3(sheaf_flush, h, nl_cache(h, id)->name, flushed);
	return flushed;
}

#endif /* NL_CORE_SHEAF_H */
