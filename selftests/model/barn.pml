/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * barn.pml - sheaves between a slot and a barn, of two clients, the death of one, and the repair.
 *
 * Two sheaves, of which the barn has one and the first client's slot the other as its spare. Each
 * client makes CALLS calls with its slot's lock; what of the library each is:
 *   pop	nl_barn_lock(), nl_barn_pop(), and the sheaf in its slot as nl_slot_attach() does it
 *   push	what nl_slot_room() does with a full spare: nl_barn_push()
 *   get	nl_sheaf_get(): the bit of the table, then the owner by cmpxchg
 *   put	nl_sheaf_put(), after nl_slot_empty() or nl_barn_flush()
 * A sheaf names its new owner before it leaves a list, and is LISTED again after it is in the next.
 * The first client may stop for ever before any step; repairer takes over its locks (repair_barn(),
 * repair_slot()), then every sheaf that has its name: flushed to the table, unless a list names it
 * (free_orphans(), linked()); and sets bits once more (set_lost_bits()).
 *
 * At the end each sheaf is in exactly one of: the table, the barn, a slot.
 *
 * Mutations that must be found: -DBUG_OWNER (a pop names its owner after it took the sheaf),
 * -DBUG_LINKED (the repair does not look at the lists), -DBUG_LATE (the repair does not look at the
 * owner again after the lists).
 */
#ifndef CALLS
#define CALLS 2
#endif
#define FREE 0
#define LISTED 9
#define REPAIRER 5

byte owner[2]; /* FREE, LISTED, REPAIRER, or a client + 1 */
byte first, next[2]; /* the barn's list: sheaf + 1, or 0 */
byte barn_lock, spare[2], slot_lock[2];
bool table[2]; /* hint: the bit of a free sheaf */
bool dead, repaired, done[2];

#define LIVES(me) ((me) == 1 || !dead)
#define ONE(x) atomic { LIVES(me); x }

inline lock(word)
{
	atomic {
		LIVES(me);
		if
		:: word == 0 -> word = me + 1; got = 1
		:: else -> got = 0
		fi
	}
}

inline pop()
{
	lock(barn_lock);
	if
	:: got ->
		ONE(s = first);
		if
		:: s ->
#ifdef BUG_OWNER
			ONE(first = next[s - 1]);
			ONE(owner[s - 1] = me + 1)
#else
			ONE(owner[s - 1] = me + 1);
			ONE(first = next[s - 1])
#endif
		:: else
		fi;
		ONE(barn_lock = 0);
		if
		:: s ->
			ONE(spare[me] = s);
			ONE(owner[s - 1] = LISTED)
		:: else
		fi
	:: else
	fi
}

inline push()
{
	lock(barn_lock);
	if
	:: got ->
		ONE(s = spare[me]);
		ONE(owner[s - 1] = me + 1);
		ONE(spare[me] = 0);
		ONE(next[s - 1] = first);
		ONE(first = s);
		ONE(owner[s - 1] = LISTED);
		ONE(barn_lock = 0)
	:: else
	fi
}

/* By the bit, then by the owner: a bit may be there once too often. */
inline get()
{
	s = 0;
	atomic {
		LIVES(me);
		if
		:: table[0] -> table[0] = 0; s = 1
		:: !table[0] && table[1] -> table[1] = 0; s = 2
		:: else
		fi
	}
	if
	:: s ->
		atomic {
			LIVES(me);
			if
			:: owner[s - 1] == FREE -> owner[s - 1] = me + 1
			:: else -> s = 0
			fi
		}
	:: else
	fi;
	if
	:: s ->
		ONE(spare[me] = s);
		ONE(owner[s - 1] = LISTED)
	:: else
	fi
}

inline put()
{
	ONE(s = spare[me]);
	ONE(owner[s - 1] = me + 1);
	ONE(spare[me] = 0);
	ONE(owner[s - 1] = FREE);
	ONE(table[s - 1] = 1)
}

proctype client(byte me)
{
	byte i, s;
	bit got, held;

	do
	:: i < CALLS ->
		lock(slot_lock[me]);
		held = got;
		if
		:: held ->
			if
			:: LIVES(me) && spare[me] == 0 -> pop()
			:: LIVES(me) && spare[me] == 0 -> get()
			:: LIVES(me) && spare[me] -> push()
			:: LIVES(me) && spare[me] -> put()
			fi;
			ONE(slot_lock[me] = 0)
		:: else
		fi;
		d_step { s = 0; got = 0; held = 0 };
		i++
	:: else -> break
	od;
	ONE(done[me] = true)
}

proctype reaper()
{
	if
	:: atomic { !done[0] -> dead = true }
	:: skip
	fi
}

/* One step for each list that is looked at. */
inline linked(x)
{
	is = (spare[0] == x);
	is = (is || spare[1] == x);
	at = first;
	do
	:: at == 0 || at == x -> break
	:: else -> at = next[at - 1]
	od;
	is = (is || at == x)
}

proctype repairer()
{
	byte i, at;
	bit is, mine;

	if
	:: dead
	:: done[0] -> goto out
	fi;
	if
	:: barn_lock == 1 -> barn_lock = 0
	:: else
	fi;
	if
	:: slot_lock[0] == 1 -> slot_lock[0] = 0
	:: else
	fi;
	do
	:: i < 2 ->
		atomic {
			mine = (owner[i] == 1);
			if
			:: mine -> owner[i] = REPAIRER
			:: else
			fi
		}
		if
		:: mine ->
#ifdef BUG_LINKED
			is = 0;
#else
			linked(i + 1);
#endif
			if
			:: is ->
				atomic {
					if
					:: owner[i] == REPAIRER -> owner[i] = LISTED
					:: else
					fi
				}
#ifdef BUG_LATE
			:: !is ->
#else
			:: !is && owner[i] == REPAIRER ->
#endif
				owner[i] = FREE;
				table[i] = 1
			:: else
			fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	/* A bit may be set again at any time. */
	i = 0;
	do
	:: i < 2 ->
		if
		:: owner[i] == FREE -> table[i] = 1
		:: else
		fi;
		i++
	:: else -> break
	od;
out:
	repaired = true
}

#define IN_BARN(x) (first == (x) || (first && next[first - 1] == (x)))
#define IN_TABLE(x) (owner[(x) - 1] == FREE && table[(x) - 1])
#define PLACES(x) (IN_BARN(x) + IN_TABLE(x) + (spare[0] == (x)) + (spare[1] == (x)))

proctype judge()
{
	atomic {
		done[1] && repaired && (dead || done[0]) ->
		assert(!barn_lock && !slot_lock[0] && !slot_lock[1]);
		assert(PLACES(1) == 1);
		assert(PLACES(2) == 1);
		assert(owner[0] == LISTED || owner[0] == FREE);
		assert(owner[1] == LISTED || owner[1] == FREE)
	}
}

init {
	atomic {
		owner[0] = LISTED;
		first = 1;
		owner[1] = LISTED;
		spare[0] = 2;
		run client(0);
		run client(1);
		run reaper();
		run repairer();
		run judge()
	}
}
