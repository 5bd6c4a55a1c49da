/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * sheaf.h - sheaves: arrays of free objects, all in one table with a bitmap of the free ones.
 *
 * A sheaf belongs to whoever turned its owner from 0 to itself, then to the holder of the lock of
 * the slot or barn it hangs on. Filling takes bits from a slab, flushing gives the objects of one
 * word back together; the slab's intent says which bits are under way, and in which sheaf.
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

NL_FUNC nl_u32 nl_sheaf_get(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 who)
{
	nl_word_t *map = nl_sheaf_map(h);
	nl_u32 words = nl_sheaf_words(h);
	nl_u32 at = nl_load(&h->sheaf_hint);

	nl_for(i, words + 64) {
		nl_u64 bit;

		if (at >= words)
			at = nl_zero();
		bit = nl_word_take(map + at);
		if (bit) {
			nl_u32 index = at * 64 + nl_lowest(bit);
			nl_sheaf_t *sheaf = nl_sheaf(h, index);

			/* A bit that a repair set once more: the sheaf is in use. */
			if (!nl_cas(&sheaf->owner, 0, (nl_u64)who << 32))
				continue;
			nl_store(&h->sheaf_hint, at);
			nl_store(&sheaf->size, 0);
			nl_store(&sheaf->next, 0);
			nl_store(&sheaf->cache, (nl_u16)(id + 1));
			return index + 1;
		}
		at++;
	}
	return 0;
}

/* The sheaf is empty, and in no list. */
NL_FUNC int nl_sheaf_put(nl_heap_t *h NL_ARG, nl_u32 sheaf)
{
	nl_u32 index = sheaf - 1;

	if (index >= h->nr_sheaves)
		return -1;
	nl_store(&nl_sheaf(h, index)->cache, 0);
	nl_store_release(&nl_sheaf(h, index)->owner, 0);
	nl_word_give(nl_sheaf_map(h) + index / 64, NL_BIT(index));
	/* The lowest ones again and again: those that were never used cost no memory. */
	if (index / 64 < nl_load(&h->sheaf_hint))
		nl_store(&h->sheaf_hint, index / 64);
	return 0;
}

/* The lowest bits of a word, so many of them at most. */
NL_INLINE nl_u64 nl_lowest_bits(nl_u64 all, nl_u32 most)
{
	nl_u32 n = nl_weight(all);

	if (n <= most)
		return all;
	if (n - most < most) {
		nl_for(i, n - most) {
			all &= ~NL_BIT(nl_highest(all | 1));
		}
	} else {
		nl_u64 rest = all;

		nl_for(i, most) {
			rest &= rest - 1;
		}
		all &= ~rest;
	}
	return all;
}

/*
 * Take up to room bits of one word of the slab, whose lock is held: a mask, 0 if there are none.
 * The intent names the bits before they are taken. Others may give bits at any time, and so make
 * the cmpxchg fail; after a few tries one bit is enough, which nobody can keep from being taken.
 */
NL_INLINE nl_u64 nl_sheaf_take(nl_slab_t *slab, nl_u32 word, nl_u64 intent, nl_u32 room)
{
	nl_word_t *free = &slab->free[word & (NL_SLAB_WORDS - 1)];
	nl_u64 all, mask;

	NL_UNROLL
	for (nl_u32 i = 0; i < NL_TRIES; i++) {
		all = nl_load(free);
		if (!all)
			return 0;
		mask = nl_lowest_bits(all, room);
		nl_slab_intend(slab, intent, mask);
		if (nl_cas(free, all, all & ~mask))
			return mask;
	}
#ifdef __bpf__
	/* A program does not die: no repair asks for its mask. */
	all = nl_xchg(free, 0);
	mask = nl_lowest_bits(all, room);
	if (all != mask)
		nl_or(free, all & ~mask);
	return mask;
#else
	all = nl_load(free);
	mask = all & -all;
	nl_slab_intend(slab, intent, mask);
	return mask && nl_word_claim(free, all, nl_lowest(mask)) ? mask : 0;
#endif
}

/*
 * Move free objects of one word into the sheaf, lowest address on top; the slab's lock is held.
 * Returns how many.
 */
NL_FUNC nl_u32 nl_sheaf_fill_word(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u64 at,
				  nl_u32 want)
{
	nl_u32 chunk = (nl_u32)(at >> 6), word = (nl_u32)at & 63;
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u32 n = s->size, start = n, size;
	nl_u64 mask, base;

	if (n >= want)
		return 0;
	mask = nl_sheaf_take(slab, word, NL_INTENT(NL_INTENT_TAKE, word, sheaf, n), want - n);
	if (mask) {
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
		nl_barrier();
		nl_store(&s->size, (nl_u16)n);
	}
	nl_slab_done(slab);
	return n - start;
}

/* Nothing was found, but there are slabs that others have locked. */
#define NL_FILL_BUSY (~1u)

/*
 * Out of one slab of the node, {node 16, objects wanted 16}: how many objects; ~0 when no hint is
 * left, or NL_FILL_BUSY.
 */
NL_FUNC nl_u32 nl_sheaf_fill_slab(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u32 wanted,
				  nl_u32 who)
{
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u64 at = nl_slab_find(h, id, wanted >> 16);
	nl_u32 want = wanted & 0xffff;
	nl_u32 got = nl_zero(), chunk;
	nl_slab_t *slab;

	if (!at)
		return ~0u;
	if (at == NL_ALL_LOCKED)
		return NL_FILL_BUSY;
	chunk = (nl_u32)((at - 1) >> 6);
	slab = nl_slab(h, chunk);
	if (!nl_slab_trylock(slab, who))
		return 0;
	nl_for(i, 16) {
		nl_u64 summary = nl_load(&slab->summary);
		nl_u32 word = nl_lowest(summary | NL_BIT(63));

		if (!summary || s->size >= want || !nl_is_slab_of(h, chunk, id))
			break;
		got += nl_sheaf_fill_word(h, sheaf, id, ((nl_u64)chunk << 6) | word, want);
		if (!nl_load(&slab->free[word & (NL_SLAB_WORDS - 1)]))
			nl_slab_unhint(h, id, chunk, word);
	}
	nl_slab_unlock(slab);
	return got;
}

NL_FLAT nl_u32 nl_sheaf_fill(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u32 want, nl_u32 who,
			     nl_u32 flags)
{
	nl_u32 got = nl_zero();

	if (want > NL_SHEAF_MAX)
		want = NL_SHEAF_MAX;
	nl_for(i, 16) {
		nl_u32 n;

		if (nl_sheaf(h, sheaf - 1)->size >= want)
			break;
		n = nl_sheaf_fill_slab(h, sheaf, id, NL_NODE_OF(flags) << 16 | want, who);
		if (n == ~0u)
			break;
		if (n == NL_FILL_BUSY) {
			/* Whoever holds the lock holds it for one sheaf's length, or sleeps. */
			if (got || !(flags & NL_SPIN))
				break;
			nl_pause();
			continue;
		}
		got += n;
	}
	return got;
}

/*
 * Give the topmost objects of the sheaf, which are those of the mask, back to their word; the sheaf
 * has lost them afterwards. Returns how many had been free already.
 *
 * The bits first, then the size: while the sheaf has its old size and the bits are not set, nothing
 * has happened. Without the lock (or in a private heap, where nobody dies alone) the other way
 * round: who dies in between loses them, instead of having them twice.
 */
NL_FUNC nl_u32 nl_sheaf_give(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u64 at, nl_u64 mask, nl_u32 who)
{
	nl_u32 chunk = (nl_u32)(at >> 6), word = (nl_u32)at & 63;
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u32 n = s->size - nl_weight(mask);
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u64 twice = nl_zero();
	int locked = 0;

#ifdef __bpf__
	/* An argument that is not used, clang does not pass, and the verifier misses it. */
	__asm__ volatile("" : : "r"(who));
#else
	locked = h->type != NL_HEAP_PRIVATE && nl_slab_trylock(slab, who);
#endif
	if (locked) {
		twice = nl_load(&slab->free[word]) & mask;
		nl_slab_intend(slab, NL_INTENT(NL_INTENT_GIVE, word, sheaf, n), mask & ~twice);
	} else {
		nl_store(&s->size, (nl_u16)n);
		nl_barrier();
	}
	twice |= nl_word_give(&slab->free[word], mask & ~twice);
	if (locked) {
		nl_store(&s->size, (nl_u16)n);
		nl_slab_done(slab);
	}
	nl_slab_hint(h, s->cache - 1u, chunk, word);
	if (locked)
		nl_slab_unlock(slab);
	return nl_weight(twice);
}

/*
 * Give the objects above @keep back to their slabs, those of one word together. What is no object
 * of the cache, or was free already, is dropped and counted: a bad free caught.
 */
NL_FUNC nl_u32 nl_sheaf_flush(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u32 keep, nl_u32 who)
{
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u32 n = s->size <= NL_SHEAF_MAX ? s->size : NL_SHEAF_MAX;
	nl_u32 flushed = nl_zero(), bad = nl_zero();
	nl_u64 mask = nl_zero(), at = nl_zero();

	/* An object a turn, or the end of a word's. */
	nl_for(i, 2 * NL_SHEAF_MAX + 2) {
		nl_u64 obj, bit = 0, its = 0;

		if (n > keep) {
			obj = nl_load(&s->obj[n - 1]);
			its = (obj - h->base) >> NL_CHUNK_SHIFT;
			if (nl_chunk_ok(h, its) && nl_is_slab_of(h, (nl_u32)its, id)) {
				nl_u32 idx = nl_slab_index(h, id, obj);

				its = (its << 6) | (idx / 64 & 63);
				bit = idx == ~0u ? 0 : NL_BIT(idx);
			}
		}
		if (mask && (!bit || its != at || (mask & bit))) {
			flushed += nl_weight(mask);
			bad += nl_sheaf_give(h, sheaf, at, mask, who);
			mask = nl_zero();
			continue;
		}
		if (n <= keep)
			break;
		n--;
		if (!bit) {
			bad++;
			nl_store(&s->size, (nl_u16)n);
			continue;
		}
		at = its;
		mask |= bit;
	}
	if (bad)
		nl_add(&h->dropped, bad);
	NL_PROBE3(sheaf_flush, h, nl_cache(h, id)->name, flushed);
	return flushed;
}

#endif /* NL_CORE_SHEAF_H */
