/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * fast.h - the fast paths on the private heap, which slab.c and the drop-in malloc have in common: one
 * restartable sequence each, for a thread that is known to be registered.
 */
#ifndef NL_FAST_H
#define NL_FAST_H

#include "internal.h"
#include "rseq.h"
#include "core/kmalloc.h"

/* A fast path starts on lines of its own: where it falls by chance is worth a tenth. */
#define NL_HOT __attribute__((hot, aligned(128)))

/* An object of the private heap, by its R-slot alone. */
NL_INLINE bool pop_default(size_t size, nl_u64 *obj)
{
	nl_u64 rslots = nl_self.slots, slot;

	if (nl_likely(size - 1 < NL_SMALL_MAX))
		slot = nl_small_slot[(size - 1) / 16];
	else if (nl_likely(size - 1 < NL_MAX_SIZE))
		slot = (nl_u64)nl_kmalloc_index((nl_u32)size) << NL_SLOT_SHIFT;
	else
		return false;
	return nl_likely(rslots) && nl_likely(NL_RSEQ_DONE(*obj = nl_rseq_pop_cid(rslots, slot)));
}

/* The same of a bucket (nolock_bucket()). */
NL_INLINE bool pop_bucket(size_t bucket, nl_u64 *obj)
{
	nl_u64 rslots = nl_self.slots;

	return nl_likely(rslots) && nl_likely(NL_RSEQ_DONE(*obj = nl_rseq_pop_cid(rslots, bucket)));
}

/* The same of a cache of the private heap. */
NL_INLINE bool pop_cache(const struct kmem_cache *s, nl_u64 *obj)
{
	struct nolock_heap *heap = nl_default;

	return nl_likely((nl_u64)s - (nl_u64)heap->base < heap->size) &&
	       pop_bucket((nl_u64)nl_cache_id(s) << NL_SLOT_SHIFT, obj);
}

/*
 * Free an object of a cache of the private heap: no guess, the cache says which slot, and the tag has to
 * say the same. The order of the loads is free_fast()'s.
 */
NL_INLINE bool push_cache(const struct kmem_cache *s, const void *p)
{
	nl_u64 off = (nl_u64)p - nl_free_map.first, rslots = nl_self.slots;
	struct nolock_heap *heap = nl_default;
	nl_u32 tag;

	if (nl_unlikely(off >= nl_load_acquire(&nl_free_map.span)) ||
	    nl_unlikely((nl_u64)s - (nl_u64)heap->base >= heap->size) || nl_unlikely(!rslots))
		return false;
	tag = NL_TAG(NL_KIND_SLAB, nl_cache_id(s));
	if (nl_unlikely(nl_load(nl_free_map.tags + (off >> NL_CHUNK_SHIFT)) != tag))
		return false;
	/* What the compiler knows to be equal, it would take from what was loaded last. */
	__asm__("" : "+r"(tag));
	return nl_likely(nl_rseq_push_cid(rslots, NL_TAG_SLOT(tag), (nl_u64)p));
}

/*
 * Free finds its slot by way of the object's tag, and the next allocation from that slot waits for
 * where free stores to: two loads on the way from one to the other. So free guesses that the tag
 * is that of the thread's last free, and checks: the branch predictor carries on with the guess
 * before the tag is there. The guess is used only where it equals the object's tag, so a handler
 * that changes it in between does no harm.
 *
 * A wrong guess costs more than those loads. After one there is none, which the branch predictor
 * learns just as well, until two frees in a row were of one cache. Both are hints.
 */
NL_INLINE bool free_other(const void *p, nl_u32 tag)
{
	nl_u64 rslots = nl_self.slots;

	if (nl_unlikely(tag >> 16 != NL_KIND_SLAB) || nl_unlikely(!rslots))
		return false;
	/* By arithmetic: what is freed next is what no branch predictor knows. */
	nl_self.last_tag = tag | -(nl_u32)(tag != nl_self.seen_tag);
	nl_self.seen_tag = tag;
	return nl_likely(nl_rseq_push_cid(rslots, NL_TAG_SLOT(tag), (nl_u64)p));
}

#ifdef NL_HAVE_FREE_GUESS
NL_INLINE bool free_fast(const void *p)
{
	int how = nl_rseq_free_guess((nl_u64)p);

	if (nl_likely(how != NL_FREE_OTHER_TAG))
		return how == NL_FREE_DONE;
	return free_other(
		p, nl_load(nl_free_map.tags + (((nl_u64)p - nl_free_map.first) >> NL_CHUNK_SHIFT)));
}
#else
NL_INLINE bool free_fast(const void *p)
{
	nl_u64 off = (nl_u64)p - nl_free_map.first;
	nl_u32 last = nl_self.last_tag, guess = last, tag;

	/* What the compiler knows to be equal to the tag, it would compute from the tag. */
	__asm__("" : "+r"(guess));
	if (nl_unlikely(off >= nl_load_acquire(&nl_free_map.span)))
		return false;
	tag = nl_load(nl_free_map.tags + (off >> NL_CHUNK_SHIFT));
	if (nl_likely(tag == last))
		return nl_likely(nl_rseq_push_cid(nl_self.slots, NL_TAG_SLOT(guess), (nl_u64)p));
	return free_other(p, tag);
}
#endif

#endif /* NL_FAST_H */
