/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * slot.h - the single steps on a slot, a barn and a slab, with their locks.
 *
 * A slot's lock is free or its holder's. A trylock that fails is not contention but a holder
 * further down the same stack, or one that was preempted: nobody waits for it. An A-slot's is its
 * lock field. An R-slot's is NL_WORD_LOCKED in its word, which makes the word one that the fast
 * paths find neither an object nor room in; its lock field says whose, and is stale otherwise.
 */
#ifndef NL_CORE_SLOT_H
#define NL_CORE_SLOT_H

#include "core.h"
#include "word.h"

#define NL_WORD_SIZE(word) ((nl_u32)(word)&0x7f)
#define NL_WORD_ALLOCS(word) ((word) >> 16)
/* An R-slot that is locked; by a shrinker of another CPU, also its number (shrink.c). */
#define NL_WORD_LOCKED 0x8000ULL
#define NL_WORD_SHRINKER(word) ((nl_u32)((word) >> 8) & 0x7f)
#define NL_WORD_LOCK_MASK 0xff80ULL
/* One object less, one allocation more. */
#define NL_WORD_POP 0xffffULL

/*
 * A-slots alone. The cmpxchg expects 0, which an interrupter that comes and goes restores, so one
 * try decides; it is the acquire that pairs with the release in nl_slot_unlock().
 *
 * Bias. A BPF program that has used its CPU's A-slot leaves it free, but biased: its lock is
 * NL_BIASED(cpu), and from that value only two can take it.
 * - A program on that CPU. One that nothing but nested programs can interrupt (XDP, tc, perf_event;
 *   bpf.h) does so by a load and a store: whoever comes in between is gone again before it goes on,
 *   and has left the value as it was. Others, which may be preempted, by cmpxchg.
 * - A thread of user space on that CPU, by a cmpxchg that is the commit of a restartable sequence
 *   (nl_slot_steal()), or while it is bound to that CPU (shrink.c): while it runs there, no program
 *   that cannot be preempted is half way through there, and one that comes in between ends before the
 *   thread goes on. What it releases is 0.
 * Nobody on another CPU takes it, and what was biased when a program took it is so when it lets go:
 * the store of a program that has just seen it biased overwrites nothing else. All that sees a
 * biased slot's content is on its CPU, so that this release needs no barrier: the kernel has one
 * where the thief moves on. 0 and back is atomic as ever: any CPU.
 */
#ifdef __bpf__
NL_FUNC int nl_slot_trylock(nl_slot_t *slot NL_ARG, nl_u32 who)
{
	return nolock_bpf_trylock((nolock_bpf_slot_t *)slot, (who & 0xffff) - 1) ||
	       nl_cas(&slot->lock, 0, NL_HELD(who));
}

NL_INLINE void nl_slot_unlock(nl_slot_t *slot)
{
	nl_u64 lock = nl_load(&slot->lock);
	nl_heap_t *h = (nl_heap_t *)nolock_bpf_heap();

	/* What is in the slot is stored before: volatile. */
	if (lock & NL_BIAS)
		nl_store(&slot->lock, NL_FREED(lock));
	else
		nl_store_release(&slot->lock, (NL_FREED(lock) | NL_BIAS) & nl_load(&h->bias));
}
#else
/*
 * bias.c: 1 if it was biased to the CPU that this thread runs on, and is ours now. An aborted sequence
 * is tried once more.
 */
NL_FUNC int nl_slot_steal(nl_slot_t *slot, nl_u32 who);

NL_INLINE int nl_slot_trylock(nl_slot_t *slot, nl_u32 who)
{
	if (nl_likely(nl_cas(&slot->lock, 0, NL_HELD(who))))
		return 1;
	return nl_unlikely(!NL_IS_HELD(nl_load(&slot->lock))) && nl_slot_steal(slot, who);
}

NL_INLINE void nl_slot_unlock(nl_slot_t *slot)
{
	nl_store_release(&slot->lock, 0);
}
#endif

/* An R-slot's: what is in the word stays in it. */
NL_INLINE void nl_rslot_unlock(nl_slot_t *slot)
{
	nl_store_release(&slot->word, nl_load(&slot->word) & ~NL_WORD_LOCK_MASK);
}

/* Whichever it is: an A-slot's word is never marked. */
NL_INLINE void nl_any_slot_unlock(nl_slot_t *slot)
{
	if (nl_load(&slot->word) & NL_WORD_LOCKED)
		nl_rslot_unlock(slot);
	else
		nl_slot_unlock(slot);
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
	nl_store(&s->owner, NL_LISTED);
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

/*
 * Frees and allocations in random order run a slot's main full and empty in turn, where the other
 * sheaf is just the other way round: an exchange every few calls. So at the second quick turn in a row
 * the two share what they have, and the next exchange is a quarter of a sheaf away at least, in either
 * direction. In a private heap: objects that are on their way are in neither, and a child of a fork() in
 * another thread, or who leaves this call for good, does not have them any more; a client of a shared
 * heap loses nothing.
 */
#ifdef __bpf__
#define nl_slot_turn(slot, full)
#define nl_slot_other nl_slot_swap
#else
/* Main is full, or empty. A turn is quick if it comes before half a sheaf of allocations. */
NL_INLINE void nl_slot_turn(nl_slot_t *slot, nl_u32 full)
{
	nl_u32 last = slot->turn, allocs = (nl_u32)NL_WORD_ALLOCS(nl_load(&slot->word));
	nl_u32 quick = (last & 1) != full && (allocs << 3) - (last & ~7u) < slot->cap / 2 << 3;

	nl_store(&slot->turn, allocs << 3 | (last & 2) << 1 | quick << 1 | full);
}

/* The younger objects of one to the other. */
NL_INLINE void nl_sheaf_share(nl_sheaf_t *from, nl_sheaf_t *to)
{
	nl_u32 more = (from->size - to->size) / 2, left = from->size - more, at = to->size;

	nl_store(&from->size, (nl_u16)left);
	nl_barrier(); /* never in both */
	for (nl_u32 i = 0; i < more; i++)
		nl_store(&to->obj[at + i], from->obj[left + i]);
	nl_barrier();
	nl_store(&to->size, (nl_u16)(at + more));
}

/* Main is empty and the spare is not, or main is full and the spare is not. */
NL_INLINE nl_u32 nl_slot_other(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who)
{
	nl_u32 main = slot->main, spare = slot->spare, half = slot->cap / 2;
	nl_sheaf_t *m, *s = nl_sheaf(h, spare - 1);

	if (nl_likely((slot->turn & 6) != 6) || !main || !nl_heap_is_private(h) ||
	    (slot->turn & 1 ? s->size >= half : s->size <= half))
		return nl_slot_swap(h, slot, id, who);
	m = nl_sheaf(h, main - 1);
	nl_slot_detach(h, slot);
	if (m->size < s->size) {
		nl_sheaf_share(s, m);
		return nl_slot_attach(h, slot, main, id);
	}
	nl_sheaf_share(m, s);
	nl_store(&s->owner, (nl_u64)who << 32);
	nl_barrier();
	nl_store(&slot->spare, main);
	return nl_slot_attach(h, slot, spare, id);
}
#endif

NL_INLINE void nl_slot_count(nl_slot_t *slot, nl_u32 item, nl_u64 n)
{
	nl_add(&slot->stat[item], n);
}

/* For items that nobody counts without the slot's lock. */
NL_INLINE void nl_slot_count_locked(nl_slot_t *slot, nl_u32 item)
{
	nl_store(&slot->stat[item], slot->stat[item] + 1);
}

/* Tries of the barn's lock: one, or a bounded wait for a holder on another CPU. */
#define NL_BARN_TRIES 64

NL_INLINE int nl_barn_lock(nl_barn_t *barn, nl_u32 who, nl_u32 flags)
{
	nl_u32 tries = (flags & NL_SPIN) ? NL_BARN_TRIES : 1;

	nl_for(i, tries) {
		nl_u64 held = nl_load(&barn->lock);

		if (!held) {
			if (nl_cas(&barn->lock, 0, NL_HELD(who)))
				return 1;
		} else if (NL_OWNER_WHO(held) == who) {
			break; /* we hold it, further down the stack */
		}
		nl_pause();
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
#ifdef __bpf__
	return nl_load(&barn->full.nr) + 1 <= NL_BARN_MAX;
#else
	return nl_load(&barn->full.nr) + 1 <= NL_BARN_MAX + nl_load(&barn->deep);
#endif
}

#ifndef __bpf__
/*
 * A private heap's barns grow deeper where that saves work: for each sheaf that was flushed for
 * want of room and is filled from the slabs again, the barn takes one more. All of them together
 * at most NL_SHEAVES_DEEP. What is not used, decay.c takes back. (A shared heap has nobody to do so.)
 *
 * This one: a full sheaf is to be flushed, for want of room, or since the barn is locked, which does
 * not count.
 */
NL_INLINE void nl_barn_was_full(nl_heap_t *h, nl_barn_t *barn)
{
	if (NL_SHEAVES_DEEP && nl_heap_is_private(h) && !nl_barn_room(barn))
		nl_store(&barn->flushed, nl_load(&barn->flushed) + 1);
}

NL_INLINE void nl_barn_deepen(nl_heap_t *h, nl_barn_t *barn)
{
	nl_u64 flushed = nl_load(&barn->flushed);

	if (!NL_SHEAVES_DEEP || nl_likely(!flushed) || !nl_heap_is_private(h))
		return;
	nl_store(&barn->flushed, flushed - 1);
	if (nl_load(&h->deep) + 1 <= NL_SHEAVES_DEEP && nl_load(&h->deep) < h->nr_sheaves / 2) {
		nl_add(&h->deep, 1);
		nl_add(&barn->deep, 1);
	}
}

/* No deeper than so much beyond NL_BARN_MAX, and it starts to learn again. */
NL_INLINE void nl_barn_level(nl_heap_t *h, nl_barn_t *barn, nl_u64 most)
{
	nl_u64 deep = nl_load(&barn->deep);

	nl_store(&barn->flushed, 0);
	if (deep > most && nl_cas(&barn->deep, deep, most))
		nl_add(&h->deep, most - deep);
}
#endif

/*
 * The lists, with the barn's lock held. A sheaf index + 1, or 0. The sheaf names its new owner
 * before it leaves the list, and forgets it after it is in the next.
 */
NL_INLINE nl_u32 nl_barn_pop(nl_heap_t *h, nl_barn_list_t *list, nl_u32 who)
{
	nl_u32 sheaf = list->first;

	if (sheaf) {
		nl_store(&nl_sheaf(h, sheaf - 1)->owner, (nl_u64)who << 32);
		/* A repair that finds it in no list must find the owner that is written here. */
		nl_store_release(&list->first, nl_sheaf(h, sheaf - 1)->next);
		nl_store(&list->nr, list->nr - 1);
	}
	return sheaf;
}

NL_INLINE void nl_barn_push(nl_heap_t *h, nl_barn_list_t *list, nl_u32 sheaf)
{
	nl_store(&nl_sheaf(h, sheaf - 1)->next, list->first);
	nl_store(&list->first, sheaf);
	nl_store(&list->nr, list->nr + 1);
	nl_store_release(&nl_sheaf(h, sheaf - 1)->owner, NL_LISTED);
}

/*
 * Try the lock of a chunk's slab. With it held the slab keeps its cache, if the tag names it now.
 * scans: the repair's question is whether a scan took a bit after this moment; one that is under
 * way may still do so. scan_end is read first: if it equals what scan_begin is a moment later,
 * there was none.
 */
NL_INLINE int nl_slab_trylock(nl_slab_t *slab, nl_u32 who)
{
	nl_u32 begun, ended;

	if (nl_load(&slab->lock) || !nl_cas(&slab->lock, 0, NL_HELD(who)))
		return 0;
	ended = nl_load_acquire(&slab->scan_end);
	begun = nl_load(&slab->scan_begin);
	nl_store(&slab->scans, begun == ended ? begun : begun - 1);
	return 1;
}

NL_INLINE void nl_slab_unlock(nl_slab_t *slab)
{
	nl_store_release(&slab->lock, 0);
}

/* The mask first: whoever reads the intent goes by it. A dead process's stores are all there. */
NL_INLINE void nl_slab_intend(nl_slab_t *slab, nl_u64 intent, nl_u64 mask)
{
	nl_store(&slab->mask, mask);
	nl_barrier();
	nl_store(&slab->intent, intent);
	nl_barrier();
}

NL_INLINE void nl_slab_done(nl_slab_t *slab)
{
	nl_barrier();
	nl_store(&slab->intent, 0);
	nl_barrier();
}

/* The bits of a word that stand for objects. */
NL_INLINE nl_u64 nl_slab_mask(nl_u32 per_slab, nl_u32 word)
{
	nl_u32 first = word * 64;

	if (per_slab <= first)
		return 0;
	return per_slab - first >= 64 ? ~0ULL : NL_BIT(per_slab - first) - 1;
}

#endif /* NL_CORE_SLOT_H */
