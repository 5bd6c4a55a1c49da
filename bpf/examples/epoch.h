/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * epoch.h - grace periods for memory that programs and processes read without a lock.
 *
 * A reader counts itself into the epoch of now and out again. What was unlinked gets the epoch of
 * now for a tag, after the unlinking; it may be freed when two epochs more have begun. The next
 * epoch begins when nobody is left of the one before: so two later, nobody is left who could have
 * found the object. There are three counters, of the epoch before, of now, and of the next.
 *
 *   reader                            unlinker                    epoch_advance()
 *   count[now % 3]++, barrier,        unlink, barrier,            count[(now - 1) % 3] all 0?
 *   still the same now?               tag = now                   then now++
 *   read; barrier, count--
 *
 * A reader that counted itself in too late sees that now has changed, and tries again, EPOCH_TRIES
 * times. Only a process advances, and each of its steps reads all counters, so hardly anybody is
 * too late twice. Everything is wait-free.
 *
 * A reader that stops for good (a process that is killed in its read section) keeps memory from
 * being freed, and harms nobody otherwise; who knows that a slot's process is dead calls
 * epoch_forget().
 */
#ifndef EXAMPLES_EPOCH_H
#define EXAMPLES_EPOCH_H

#include "both.h"

#define EPOCH_TRIES 4
/* Slots: 0 to 63 are the programs of a CPU each, those above whatever processes agree upon. */
#define EPOCH_PROCESS 64
#define EPOCH_SLOTS 128

struct epoch {
	__u64 now; /* from 1 on */
	__u64 pad[7];
	__u64 count[3][EPOCH_SLOTS];
};

typedef struct epoch __shared epoch_t;

/* epoch_enter - begin to read. Returns what epoch_exit() is told, or EBUSY_HERE. Any context. */
BOTH_INLINE int epoch_enter(epoch_t *e, unsigned int slot)
{
	slot &= EPOCH_SLOTS - 1;
	bounded(i, EPOCH_TRIES) {
		__u64 now = load(&e->now);
		int of = (int)(now % 3);

		add(&e->count[of][slot], 1);
		full_barrier(); /* counted, before it is asked and before anything is read */
		if (load(&e->now) == now)
			return of;
		add(&e->count[of][slot], -1ULL);
	}
	return EBUSY_HERE;
}

BOTH_INLINE void epoch_exit(epoch_t *e, unsigned int slot, int of)
{
	if (of < 0 || of > 2)
		return;
	full_barrier(); /* all reading is done */
	add(&e->count[of][slot & (EPOCH_SLOTS - 1)], -1ULL);
}

/* epoch_tag - of something that was just unlinked. Any context. */
BOTH_INLINE __u64 epoch_tag(epoch_t *e)
{
	full_barrier(); /* unlinked, before the epoch is looked at */
	return load(&e->now);
}

/* epoch_over - may it be freed, as nobody can be reading it? Any context. */
BOTH_INLINE int epoch_over(epoch_t *e, __u64 tag)
{
	return load_acquire(&e->now) >= tag + 2;
}

#ifndef __bpf__

/* epoch_advance - begin the next epoch if nobody is left of the last. One process at a time. */
static inline int epoch_advance(epoch_t *e)
{
	__u64 now = load(&e->now);

	for (unsigned int i = 0; i < EPOCH_SLOTS; i++)
		if (load_acquire(&e->count[(now + 2) % 3][i]))
			return 0;
	xchg(&e->now, now + 1);
	return 1;
}

/* epoch_forget - the process of this slot is dead */
static inline void epoch_forget(epoch_t *e, unsigned int slot)
{
	for (int of = 0; of < 3; of++)
		store(&e->count[of][slot & (EPOCH_SLOTS - 1)], 0);
}

#endif

#endif /* EXAMPLES_EPOCH_H */
