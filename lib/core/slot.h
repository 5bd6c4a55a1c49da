/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * slot.h - the single steps on a slot and on a barn, with their locks.
 *
 * The slot's lock is free (0) or its holder's. A trylock that fails is not contention but a
 * holder further down the same stack, or one that was preempted: nobody waits for it.
 */
#ifndef NL_CORE_SLOT_H
#define NL_CORE_SLOT_H

#include "core.h"
#include "word.h"

#define NL_WORD_SIZE(word) ((nl_u32)(word)&0xffff)
#define NL_WORD_ALLOCS(word) ((word) >> 16)
/* One object less, one allocation more. */
#define NL_WORD_POP 0xffffULL

/*
 * A-slots alone. The cmpxchg expects 0, which an interrupter that comes and goes restores, so one
 * try decides; it is the acquire that pairs with the release in nl_slot_unlock().
 */
NL_INLINE int nl_slot_trylock(nl_slot_t *slot, nl_u32 who)
{
	if (!nl_cas(&slot->lock, 0, ((nl_u64)who << 32) | (nl_load(&slot->gen) + 1)))
		return 0;
	nl_store(&slot->gen, nl_load(&slot->gen) + 1);
	return 1;
}

NL_INLINE void nl_slot_unlock(nl_slot_t *slot)
{
	nl_store_release(&slot->lock, 0);
}

NL_INLINE nl_u64 nl_slot_pop(nl_slot_t *slot)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 n = NL_WORD_SIZE(word);
	nl_u64 obj;

	if (!n)
		return 0;
	obj = nl_load((nl_word_t *)slot->objs + (n - 1));
	nl_store(&slot->word, word + NL_WORD_POP);
	return obj;
}

NL_INLINE int nl_slot_push(nl_slot_t *slot, nl_u64 obj)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 n = NL_WORD_SIZE(word);

	if (n >= slot->cap || n >= NL_SHEAF_MAX)
		return 0;
	nl_store((nl_word_t *)slot->objs + n, obj);
	nl_barrier(); /* an interrupter's view and a crash: the object before the size */
	nl_store(&slot->word, word + 1);
	return 1;
}

/*
 * The count of objects in main lives in the slot's word, and its sheaf's size is 0. Before main
 * leaves, the sheaf gets the count, then the word loses it; attaching goes the other way. So at
 * every instruction the larger of the two is right, which is what a repair goes by.
 */
NL_INLINE nl_u32 nl_slot_detach(nl_heap_t *h, nl_slot_t *slot)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 n = NL_WORD_SIZE(word);

	if (!slot->main)
		return 0;
	nl_store(&nl_sheaf(h, slot->main - 1)->size, (nl_u16)n);
	nl_barrier();
	nl_store(&slot->stat[NL_STAT_OUT], slot->stat[NL_STAT_OUT] + n);
	nl_store(&slot->word, word - n);
	return n;
}

NL_INLINE nl_u32 nl_slot_attach(nl_heap_t *h, nl_slot_t *slot, nl_u32 sheaf, nl_u32 id)
{
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u32 n = s->size;
	nl_u32 cap = nl_cache(h, id)->capacity;

	nl_store(&slot->main, sheaf);
	nl_store(&slot->objs, nl_sheaf_objs(h, sheaf));
	nl_store(&slot->cap, cap < NL_SHEAF_MAX ? cap : NL_SHEAF_MAX);
	nl_store(&slot->stat[NL_STAT_IN], slot->stat[NL_STAT_IN] + n);
	nl_barrier();
	nl_store(&slot->word, nl_load(&slot->word) + n);
	nl_barrier();
	nl_store(&s->size, 0);
	nl_store(&s->owner, 0);
	return n;
}

/* Main and spare change places. The spare names its owner while the slot does not name it. */
NL_INLINE nl_u32 nl_slot_swap(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who)
{
	nl_u32 main = slot->main, spare = slot->spare;

	nl_slot_detach(h, slot);
	nl_store(&nl_sheaf(h, spare - 1)->owner, (nl_u64)who << 32);
	nl_barrier();
	nl_store(&slot->spare, main);
	return nl_slot_attach(h, slot, spare, id);
}

NL_INLINE void nl_slot_count(nl_slot_t *slot, nl_u32 item, nl_u64 n)
{
	nl_add(&slot->stat[item], n);
}

/* Tries of the barn's lock: one, or a bounded wait for a holder on another CPU. */
#define NL_BARN_TRIES 64

NL_INLINE int nl_barn_lock(nl_barn_t *barn, nl_u32 who, nl_u32 flags)
{
	nl_u32 tries = (flags & NL_SPIN) ? NL_BARN_TRIES : 1;

	nl_for(i, tries) {
		nl_u64 held = nl_load(&barn->lock);

		if (!held) {
			if (nl_cas(&barn->lock, 0,
				   ((nl_u64)who << 32) | (nl_u32)(nl_load(&barn->gen) + 1))) {
				nl_store(&barn->gen, nl_load(&barn->gen) + 1);
				return 1;
			}
		} else if (NL_OWNER_WHO(held) == who) {
			break; /* we hold it, further down the stack */
		}
#if !defined(__bpf__) && defined(__x86_64__)
		__builtin_ia32_pause();
#endif
	}
	return 0;
}

NL_INLINE void nl_barn_unlock(nl_barn_t *barn)
{
	nl_store_release(&barn->lock, 0);
}

/* Does another full sheaf fit? Where barns have no room at all, no sheaf ever comes to one. */
NL_INLINE int nl_barn_room(nl_barn_t *barn)
{
	return nl_load(&barn->nr_full) + 1 <= NL_BARN_MAX;
}

/*
 * The lists, with the barn's lock held. A sheaf index + 1, or 0. The sheaf names its new owner
 * before it leaves the list, and forgets it after it is in the next.
 */
NL_INLINE nl_u32 nl_barn_pop_full(nl_heap_t *h, nl_barn_t *barn, nl_u32 who)
{
	nl_u32 sheaf = barn->full;

	if (sheaf) {
		nl_store(&nl_sheaf(h, sheaf - 1)->owner, (nl_u64)who << 32);
		nl_barrier();
		nl_store(&barn->full, nl_sheaf(h, sheaf - 1)->next);
		nl_store(&barn->nr_full, barn->nr_full - 1);
	}
	return sheaf;
}

NL_INLINE nl_u32 nl_barn_pop_empty(nl_heap_t *h, nl_barn_t *barn, nl_u32 who)
{
	nl_u32 sheaf = barn->empty;

	if (sheaf) {
		nl_store(&nl_sheaf(h, sheaf - 1)->owner, (nl_u64)who << 32);
		nl_barrier();
		nl_store(&barn->empty, nl_sheaf(h, sheaf - 1)->next);
		nl_store(&barn->nr_empty, barn->nr_empty - 1);
	}
	return sheaf;
}

NL_INLINE void nl_barn_push_full(nl_heap_t *h, nl_barn_t *barn, nl_u32 sheaf)
{
	nl_store(&nl_sheaf(h, sheaf - 1)->next, barn->full);
	nl_store(&barn->full, sheaf);
	nl_store(&barn->nr_full, barn->nr_full + 1);
	nl_barrier();
	nl_store(&nl_sheaf(h, sheaf - 1)->owner, 0);
}

NL_INLINE void nl_barn_push_empty(nl_heap_t *h, nl_barn_t *barn, nl_u32 sheaf)
{
	nl_store(&nl_sheaf(h, sheaf - 1)->next, barn->empty);
	nl_store(&barn->empty, sheaf);
	nl_store(&barn->nr_empty, barn->nr_empty + 1);
	nl_barrier();
	nl_store(&nl_sheaf(h, sheaf - 1)->owner, 0);
}

#endif /* NL_CORE_SLOT_H */
