/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bias.pml - an A-slot that is kept for its CPU's BPF programs (core/slot.h): its lock is one.
 *
 * CPU 0 has the slot. What runs there, each CALLS times:
 *   plain	a program that nothing preempts: nolock_bpf_trylock() by load and store
 *   nested	the same in an NMI: begins between any two steps on that CPU, and runs to its end
 *   task	a program that may be preempted: by cmpxchg
 *   thief	a thread, which the scheduler moves to CPU 1 and back: nl_slot_trylock(), with the
 *		sequence of nl_slot_steal(), which a move aborts
 * and on CPU 1 remote, a thread. Tasks and threads take their steps in any order; on CPU 0 none while
 * plain or nested runs. Meanwhile a client comes that cannot take slots back: bias goes to 0.
 *
 * Mutations that must be found: -DBUG_MOVED (the sequence commits on the other CPU), -DBUG_PREEMPT (a
 * program that may be preempted goes by load and store), -DBUG_REMOTE (CPU 1 takes a biased slot),
 * -DBUG_RESTORE (what was biased is let go as free).
 */
#ifndef CALLS
#define CALLS 1
#endif
#ifndef FIRST
#define FIRST BIASED /* what the lock is first */
#endif
#define FREE 0
#define BIASED 1
#define HELD 2
#define BOTH 3 /* held, and biased before */

byte lock = FIRST, inside, ended, runs; /* runs: 1 plain, 2 nested, on CPU 0 */
bool bias = 1, there = 1, moved;

#define MINE(p) (runs == (p))
#define ONE(p, x) atomic { MINE(p); x }

inline critical(p)
{
	ONE(p, inside++; assert(inside == 1));
	ONE(p, inside--)
}

inline let_go(p)
{
#ifdef BUG_RESTORE
	ONE(p, lock = (bias -> BIASED : FREE))
#else
	if
	:: held == BOTH -> ONE(p, lock = BIASED)
	:: else ->
		ONE(p, y = bias);
		ONE(p, lock = (y -> BIASED : FREE))
	fi
#endif
}

inline load_and_store(p)
{
	ONE(p, seen = lock; held = 0);
	if
	:: seen == BIASED -> ONE(p, lock = BOTH; held = BOTH)
	:: else -> atomic { MINE(p); if :: lock == FREE -> lock = HELD; held = HELD :: else fi }
	fi;
	if
	:: held -> critical(p); let_go(p)
	:: else
	fi
}

inline compare_and_exchange(p)
{
	held = 0;
	atomic { MINE(p); if :: lock == BIASED -> lock = BOTH; held = BOTH :: else fi };
	if
	:: !held -> atomic { MINE(p); if :: lock == FREE -> lock = HELD; held = HELD :: else fi }
	:: else
	fi;
	if
	:: held -> critical(p); let_go(p)
	:: else
	fi
}

active proctype plain()
{
	byte n, seen, held;
	bit y;

	do
	:: n < CALLS ->
		atomic { runs == 0 -> runs = 1 };
		load_and_store(1);
		atomic { runs == 1 -> runs = 0; n++ }
	:: else -> break
	od;
	ended++
}

active proctype nested()
{
	byte n, seen, held, over;
	bit y;

	do
	:: n < CALLS ->
		atomic { runs != 2 -> over = runs; runs = 2 };
		load_and_store(2);
		atomic { runs = over; n++ }
	:: else -> break
	od;
	ended++
}

active proctype task()
{
	byte n, seen, held;
	bit y;

	do
	:: n < CALLS ->
#ifdef BUG_PREEMPT
		load_and_store(0);
#else
		compare_and_exchange(0);
#endif
		n++
	:: else -> break
	od;
	ended++
}

active proctype thief()
{
	byte n, held;
	bit y;

	do
	:: n < CALLS ->
		held = 0;
		atomic { there == 0 || runs == 0; if :: lock == FREE -> lock = HELD; held = HELD :: else fi };
		if
		:: !held ->
			atomic { there == 0 || runs == 0; moved = 0; y = there };
			if
			:: y ->
				atomic {
					there == 0 || runs == 0;
					if
#ifdef BUG_MOVED
					:: lock == BIASED -> lock = HELD; held = HELD
#else
					:: lock == BIASED && !moved -> lock = HELD; held = HELD
#endif
					:: else
					fi
				}
			:: else
			fi
		:: else
		fi;
		if
		:: held ->
			atomic { there == 0 || runs == 0; inside++; assert(inside == 1) };
			atomic { there == 0 || runs == 0; inside-- };
			atomic { there == 0 || runs == 0; lock = FREE }
		:: else
		fi;
		n++
	:: else -> break
	od;
	ended++
}

active proctype remote()
{
	byte n, held;

	do
	:: n < CALLS ->
		held = 0;
		atomic {
			if
			:: lock == FREE -> lock = HELD; held = HELD
#ifdef BUG_REMOTE
			:: lock == BIASED -> lock = HELD; held = HELD
#endif
			:: else
			fi
		};
		if
		:: held ->
			atomic { inside++; assert(inside == 1) };
			inside--;
			lock = FREE
		:: else
		fi;
		n++
	:: else -> break
	od;
	ended++
}

/* The thread is moved while it does not run: not within a step, and while nothing runs above it. */
active proctype scheduler()
{
	byte n;

	do
	:: n < 2 -> atomic { runs == 0 || !there; there = !there; moved = 1; n++ }
	:: n < 3 -> atomic { bias = 0; n++ }
	:: break
	od;
	ended++
}

active proctype judge()
{
	ended == 6;
	assert(!inside && lock <= BIASED)
}
