/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * slab.pml - a slab, its lock and intent, and a slot with its main sheaf, among two clients of a
 * shared heap, a signal handler of the first, the first one's death, and the repair.
 *
 * One slab of two objects in one word, one slot a client; the objects are anywhere at first. Each
 * process makes a call, of any kind (-DCALLS=2: the clients two); what of the library each is:
 *   pop, push	the slot's sequences (slot.pml), or nl_slot_pop() and nl_slot_push(): one store
 *		commits, so each is one step
 *   fill	nl_slot_refill(): slot's lock, nl_slot_detach(), nl_slab_trylock(), nl_sheaf_take()
 *		with its tries, nl_sheaf_fill_word(), nl_slab_done(), nl_slot_attach()
 *   flush	nl_slot_room(): nl_sheaf_give() with intent GIVE; or without the slab's lock where
 *		that is held
 *   take	nl_slab_take(): one bit with the slab's lock held, for the caller
 *   scan	nl_slab_scan_chunk(): one bit past the lock
 *   put	nl_slab_put(): one bit back, without the lock
 * repairer is repair_slab() with intents TAKE and GIVE, then repair_slot(); the others are in
 * chunk.pml.
 * Every access to shared memory is a step of its own; processes take their steps in any order
 * (preemption, other CPUs), but while the handler runs, the client that it interrupted does not
 * (a signal). The first client, handler and all, may stop for ever before any of its steps
 * (death); then the repair runs beside the other client. Memory is sequentially consistent here:
 * where the library needs more than x86-64 gives for nothing, its comments say which barrier does
 * it.
 *
 * At the end each object is in exactly one place (P3): free in the word, in a sheaf, or somebody's.
 * What the dead one's call was taking for itself counts as its own; what is lost where
 * docs/design.md says that it is, is counted in excused.
 *
 * Mutations that must be found: -DBUG_FORGET (the repair does not look at TAKE), -DBUG_TWICE (it
 * gives the bits back whatever the sheaf's size says), -DBUG_EARLY (the size is raised before the
 * objects are there), -DBUG_SURE (scans are not looked at), -DBUG_ORDER (they are before the word
 * is).
 */
#ifndef CALLS
#define CALLS 1
#endif
#define NONE 0
#define TAKE 1
#define GIVE 2
#define DEAD 0 /* the client that may die; 1 is the other, 2 the handler of the first */

/* the slab */
byte free = 3;
byte slab_lock, intent, intent_sheaf, intent_n, mask;
byte scan_begin, scan_end, scans;
/* a slot and its sheaf for each client */
byte slot_lock[2], word[2], size[2];
byte arr[4]; /* two objects of each sheaf: 1 and 2, the bits */
/* what is whose, and what may be missing */
byte own[2];
byte excused, hand[3];
bool dead, repaired, handling;
bool done[2];

#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1))
#define LOWEST(m) ((m) & 1 -> 1 : (m))
/* Which client a process is: the handler is the first one's. */
#define CLIENT(me) ((me) == 2 -> 0 : (me))
/* May it take a step now? */
#define LIVES(me) ((me) == 1 || (!dead && ((me) == 2 || !handling)))
#define STEP(x) atomic { LIVES(me) -> x }
#define ONE(x) atomic { LIVES(me); x }

inline trylock_slab()
{
	atomic {
		LIVES(me);
		if
		:: slab_lock == 0 -> slab_lock = me + 1; got = 1
		:: else -> got = 0
		fi
	}
	if
	:: got ->
		ONE(b = scan_end);
		/* Nobody else writes scans, nor reads it while we live. */
		ONE(scans = (scan_begin == b -> b : scan_begin + 128))
	:: else
	fi
}

inline take_bits(n)
{
	/* Tries, the last of which takes one bit that nobody can keep from being taken. */
	k = 0; m = 0;
	do
	:: k < 2 ->
		ONE(all = free);
		if
		:: all == 0 -> break
		:: else
		fi;
		m = (k == 0 && n > 1 -> all : LOWEST(all));
		ONE(mask = m);
		ONE(intent = TAKE; intent_sheaf = c; intent_n = size[c]);
		atomic {
			LIVES(me);
			if
			:: k == 0 && free == all -> free = free & ~m; k = 3
			:: k == 1 && (free & m) -> free = free & ~m; k = 3
			:: else -> k++; m = 0
			fi
		}
	:: else -> break
	od
}

inline fill()
{
	trylock_slab();
	if
	:: got ->
		take_bits(2 - size[c]);
		if
		:: m ->
#ifdef BUG_EARLY
			ONE(size[c] = size[c] + COUNT(m));
			n = size[c] - COUNT(m);
#else
			n = size[c];
#endif
			/* Above the size nobody looks at the objects. */
			atomic {
				LIVES(me);
				do
				:: m ->
					arr[c * 2 + n] = LOWEST(m);
					m = m & ~LOWEST(m);
					n++
				:: else -> break
				od
			}
#ifndef BUG_EARLY
			ONE(size[c] = n)
#endif
		:: else
		fi;
		ONE(intent = NONE);
		ONE(slab_lock = 0)
	:: else
	fi
}

inline flush()
{
	ONE(n = size[c]);
	if
	:: n ->
		n--;
		ONE(m = arr[c * 2 + n]);
		trylock_slab();
		if
		:: got ->
			ONE(mask = m);
			ONE(intent = GIVE; intent_sheaf = c; intent_n = n);
			ONE(assert(!(free & m)); free = free | m);
			ONE(size[c] = n);
			ONE(intent = NONE);
			ONE(slab_lock = 0)
		:: else ->
			/* Who dies in between loses it, instead of having it twice. */
			ONE(size[c] = n; hand[me] = m);
			ONE(assert(!(free & m)); free = free | m; hand[me] = 0)
		fi
	:: else
	fi
}

/* With the slot's lock: the count leaves the word for the sheaf, and comes back. */
inline slow(what)
{
	atomic {
		LIVES(me);
		if
		:: slot_lock[c] == 0 -> slot_lock[c] = me + 1; held = 1
		:: else -> held = 0
		fi
	}
	if
	:: held ->
		ONE(size[c] = word[c]);
		ONE(word[c] = 0);
		if
		:: what == TAKE -> fill()
		:: what == GIVE -> flush()
		fi;
		ONE(word[c] = size[c]);
		ONE(size[c] = 0);
		ONE(slot_lock[c] = 0)
	:: else
	fi
}

inline take()
{
	trylock_slab();
	if
	:: got ->
		atomic {
			LIVES(me);
			m = LOWEST(free);
			free = free & ~m;
			hand[me] = m
		}
		ONE(slab_lock = 0);
		ONE(own[c] = own[c] | m; hand[me] = 0)
	:: else
	fi
}

inline scan()
{
	ONE(scan_begin++);
	atomic {
		LIVES(me);
		m = LOWEST(free);
		free = free & ~m;
		hand[me] = m
	}
	ONE(scan_end++);
	ONE(own[c] = own[c] | m; hand[me] = 0)
}

inline call()
{
	if
	:: STEP(if
		:: slot_lock[c] == 0 && word[c] > 0 ->
			word[c] = word[c] - 1;
			own[c] = own[c] | arr[c * 2 + word[c]]
		:: else
		fi)
	:: STEP(if
		:: slot_lock[c] == 0 && word[c] < 2 && own[c] ->
			m = LOWEST(own[c]);
			arr[c * 2 + word[c]] = m;
			word[c] = word[c] + 1;
			own[c] = own[c] & ~m
		:: else
		fi)
	:: STEP(if
		:: own[c] ->
			m = LOWEST(own[c]);
			assert(!(free & m));
			free = free | m;
			own[c] = own[c] & ~m
		:: else
		fi)
	:: slow(TAKE)
	:: slow(GIVE)
	:: take()
	:: scan()
	fi;
	d_step { k = 0; b = 0; all = 0; m = 0; n = 0; got = 0; held = 0 }
}

proctype client(byte me)
{
	byte c = CLIENT(me), i, k, b, all, m, n;
	bit got, held;

	do
	:: i < CALLS -> call(); i++
	:: else -> break
	od;
	ONE(done[c] = true)
}

/* One signal, at any time while the first client works. */
proctype handler()
{
	byte me = 2, c = 0, k, b, all, m, n;
	bit got, held;

	atomic { !dead && !done[0] -> handling = true };
	call();
	atomic { !dead -> handling = false };
end:	skip
}

proctype reaper()
{
	/* Any time, or never. */
	if
	:: atomic { !done[0] -> dead = true }
	:: skip
	fi
}

/* lib/repair.c: slabs first, then slots. */
proctype repairer()
{
	byte word_was, s, n, i;
	bool sure, there;

	if
	:: dead
	:: done[0] -> goto out
	fi;
	atomic {
		if
		:: slab_lock == 1 || slab_lock == 3 -> slab_lock = 9
		:: else -> goto slots
		fi
	}
#ifdef BUG_ORDER
	sure = (scans == scan_begin);
	there = (free & mask) != 0;
#else
	there = (free & mask) != 0;
	sure = (scans == scan_begin);
#endif
#ifdef BUG_SURE
	sure = true;
#endif
	s = intent_sheaf;
	n = intent_n;
	if
#ifndef BUG_FORGET
	:: intent == TAKE ->
		if
#ifdef BUG_TWICE
		:: !there && sure ->
#else
		:: size[s] == n && !there && sure ->
#endif
			atomic { assert(!(free & mask)); free = free | mask }
		:: size[s] == n && !there && !sure -> excused = excused | mask
		:: else
		fi
#endif
	:: intent == GIVE ->
		if
		:: size[s] > n ->
			if
			:: !there && sure -> atomic { assert(!(free & mask)); free = free | mask }
			:: !there && !sure -> excused = excused | mask
			:: else
			fi;
			size[s] = n
		:: else
		fi
	:: else
	fi;
	intent = NONE;
	slab_lock = 0;
slots:
	if
	:: slot_lock[0] ->
		word[0] = (size[0] > word[0] -> size[0] : word[0]);
		size[0] = 0;
		slot_lock[0] = 0
	:: else
	fi;
	/* What it had in hand was its own, or is lost as a flush without the lock loses it. */
	excused = excused | hand[0] | hand[2];
out:
	repaired = true
}

#define IN_SHEAF(c, o) ((word[c] > 0 && arr[(c) * 2] == (o)) + (word[c] > 1 && arr[(c) * 2 + 1] == (o)))
#define PLACES(o) (((free & (o)) != 0) + ((own[0] & (o)) != 0) + ((own[1] & (o)) != 0) + \
		   IN_SHEAF(0, o) + IN_SHEAF(1, o))

/* All is at rest. */
proctype judge()
{
	atomic {
		done[1] && repaired && (dead || (done[0] && !handling)) ->
		assert(slab_lock == 0 && slot_lock[0] == 0 && slot_lock[1] == 0);
		assert(PLACES(1) <= 1);
		assert(PLACES(2) <= 1);
		assert(PLACES(1) == 1 || (excused & 1));
		assert(PLACES(2) == 1 || (excused & 2))
	}
}

/* Objects are anywhere at first, so that few calls are enough to meet each other everywhere. */
inline place(o)
{
	if
	:: true
	:: free = free & ~(o); arr[word[0]] = o; word[0] = word[0] + 1
	:: free = free & ~(o); arr[2 + word[1]] = o; word[1] = word[1] + 1
	:: free = free & ~(o); own[0] = own[0] | o
	:: free = free & ~(o); own[1] = own[1] | o
	fi
}

init {
	atomic {
		place(1);
		place(2);
		run client(0);
#ifdef NO_OTHER
		done[1] = true;
#else
		run client(1);
#endif
#ifndef NO_HANDLER
		run handler();
#endif
		run reaper();
		run repairer();
		run judge()
	}
}
