/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * word.h - what may be done to a shared bitmap word, each with a wait-free exit.
 *
 * An interrupter that changes the word at every instruction makes a cmpxchg loop fail for ever.
 * So each operation tries a cmpxchg NL_TRIES times, because that one is exact, and then ends in
 * one read-modify-write that cannot fail: xchg to take, or to give.
 *
 * Ordering: a take is an acquire of what the giver wrote before, a give a release; both sides are
 * full barriers on x86-64. nl_word_give() ends with a full barrier everywhere, so that a hint
 * that is looked at after it is looked at after the bits were there: it pairs with the barrier
 * between clearing a hint and looking at the word again (slab.h, chunk.h).
 */
#ifndef NL_CORE_WORD_H
#define NL_CORE_WORD_H

#include "layout.h"

#define NL_BIT(n) (1ULL << ((n)&63))

/* Number of the lowest bit set; mask is not 0. */
NL_INLINE nl_u32 nl_lowest(nl_u64 mask)
{
	return (nl_u32)__builtin_ctzll(mask);
}

NL_INLINE nl_u32 nl_highest(nl_u64 mask)
{
	return 63u - (nl_u32)__builtin_clzll(mask);
}

/* How many bits are set: in line, where gcc calls a function for want of an instruction. */
NL_INLINE nl_u32 nl_weight(nl_u64 mask)
{
	mask -= mask >> 1 & 0x5555555555555555ULL;
	mask = (mask & 0x3333333333333333ULL) + (mask >> 2 & 0x3333333333333333ULL);
	mask = (mask + (mask >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (nl_u32)(mask * 0x0101010101010101ULL >> 56);
}

/*
 * Try to clear the given bit and say whether it was this call that did. On the CPU one
 * instruction that always completes (lock btr; ldclr with LSE); in BPF one cmpxchg on the value
 * seen, because the verifier refuses a fetching and on arena memory. TSan, which does not see what
 * inline assembly orders, gets the portable form.
 */
NL_INLINE int nl_word_claim(nl_word_t *word, nl_u64 seen, nl_u32 bit)
{
#if defined(__bpf__)
	return nl_cas(word, seen, seen & ~NL_BIT(bit));
#elif defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	_Bool was;

	(void)seen;
	__asm__ volatile("lock btrq %2, %0"
			 : "+m"(*word), "=@ccc"(was)
			 : "r"((nl_u64)bit)
			 : "memory");
	return was;
#else
	(void)seen;
	return (__atomic_fetch_and(word, ~NL_BIT(bit), __ATOMIC_SEQ_CST) & NL_BIT(bit)) != 0;
#endif
}

/* Take one bit: a mask of one bit, or 0 if the word was empty. */
NL_INLINE nl_u64 nl_word_take(nl_word_t *word)
{
	nl_u64 all, bit;

	/* From both ends in turn: who lost the lowest bit to its interrupter is not chased by it. */
	NL_UNROLL
	for (nl_u32 i = 0; i < NL_TRIES; i++) {
		all = nl_load(word);
		if (!all)
			return 0;
		bit = (i & 1) ? nl_highest(all) : nl_lowest(all);
		if (nl_word_claim(word, all, (nl_u32)bit))
			return NL_BIT(bit);
	}
	all = nl_xchg(word, 0);
	if (!all)
		return 0;
	bit = all & -all;
	if (all != bit)
		nl_or(word, all & ~bit);
	return bit;
}

/* Take all bits of a word, 0 if there are none. */
NL_INLINE nl_u64 nl_word_take_all(nl_word_t *word)
{
	return nl_load(word) ? nl_xchg(word, 0) : 0;
}

/* Set bits. Returns those that were set already: freed twice. A full barrier. */
NL_INLINE nl_u64 nl_word_give(nl_word_t *word, nl_u64 mask)
{
	nl_u64 old;

	NL_UNROLL
	for (nl_u32 i = 0; i < NL_TRIES; i++) {
		old = nl_load(word);
		if (nl_cas(word, old, old | mask))
			return old & mask;
	}
	old = nl_load(word) & mask;
	nl_or(word, mask);
	nl_mb();
	return old;
}

/* A hint bit: set it unless it is set. */
NL_INLINE void nl_hint_set(nl_word_t *word, nl_u64 bit)
{
	if (!(nl_load(word) & bit)) {
		nl_or(word, bit);
		nl_mb();
	}
}

/* Clear a hint; the barrier orders the clearing before the caller's second look. */
NL_INLINE void nl_hint_clear(nl_word_t *word, nl_u64 bit)
{
	nl_and(word, ~bit);
	nl_mb();
}

#endif /* NL_CORE_WORD_H */
