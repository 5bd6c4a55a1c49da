/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hint.pml - the three levels of hints that lead to a slab's free bits: no hint is lost.
 *
 * One slab with a word of two objects; above it the word's bit in summary, the chunk's in partial,
 * the group's in the map. Each client makes CALLS calls; what of the library each is:
 *   give	nl_slab_give(): nl_word_give(), nl_slab_hint()
 *   take	nl_slab_find() with the hints that it clears, nl_word_take(), nl_slab_unhint()
 * A load, an or and an and are a step each; hint_set and hint_clear are nl_hint_set() and
 * nl_hint_clear(), whose barriers make the order of the steps the order that others see. Processes
 * take their steps in any order; the first client is interrupted by a handler, and that by another,
 * each of which runs to its end; and it may stop for ever. repairer is set_lost_bits(). The hint of
 * free chunks (core/chunk.h) is this protocol with one level.
 *
 * At the end, if the word has a bit, all hints are set: who follows them finds it.
 *
 * Mutations that must be found: -DBUG_LOOK (who clears a hint does not look again), -DBUG_FIRST
 * (the hints are set before the bit), -DBUG_LEVELS (the second look sets its own level's hint
 * alone), -DBUG_STOP (a giver that finds the lowest hint set leaves the others), -DBUG_REPAIR (no
 * repair).
 */
#ifndef CALLS
#define CALLS 1
#endif

byte free, own[2];
bit summary, partial, map;
bool dead, repaired, done[2];
byte level; /* of the first client's handlers: which one runs */

/* 0 and 1 are the clients, 2 the handler of 0, 3 the one of 2. */
#define CLIENT(me) ((me) == 1 -> 1 : 0)
#define LIVES(me) ((me) == 1 || (me) == 9 || (!dead && level == ((me) == 0 -> 0 : (me) - 1)))
#define ONE(x) atomic { LIVES(me); x }
#define LOWEST(m) ((m) & 1 -> 1 : (m))

inline hint_set(h)
{
	atomic { LIVES(me); y = h };
	if
	:: !y -> ONE(h = 1)
	:: else
	fi
}

inline slab_hint()
{
#ifdef BUG_STOP
	atomic { LIVES(me); y = summary };
	if
	:: !y ->
		ONE(summary = 1);
		hint_set(partial);
		hint_set(map)
	:: else
	fi
#else
	hint_set(summary);
	hint_set(partial);
	hint_set(map)
#endif
}

#ifdef BUG_LOOK
#define AGAIN(x) false
#else
#define AGAIN(x) x
#endif

inline unhint()
{
	ONE(summary = 0);
	ONE(y = AGAIN((free != 0)));
	if
	:: y ->
#ifdef BUG_LEVELS
		hint_set(summary)
#else
		slab_hint()
#endif
	:: else ->
		ONE(y = summary);
		if
		:: y
		:: else ->
			ONE(partial = 0);
			ONE(y = AGAIN(summary));
			if
			:: y -> hint_set(partial); hint_set(map)
			:: else ->
				ONE(y = partial);
				if
				:: y
				:: else ->
					ONE(map = 0);
					ONE(y = AGAIN(partial));
					if
					:: y -> hint_set(map)
					:: else
					fi
				fi
			fi
		fi
	fi
}

inline take()
{
	ONE(y = map);
	if
	:: y ->
		ONE(y = partial);
		if
		:: y ->
			ONE(y = summary);
			if
			:: y ->
				atomic {
					LIVES(me);
					m = LOWEST(free);
					free = free & ~m;
					own[c] = own[c] | m
				}
				ONE(y = (free == 0));
				if
				:: y -> unhint()
				:: else
				fi
			:: else ->
				ONE(partial = 0);
				ONE(y = AGAIN(summary));
				if
				:: y -> hint_set(partial); hint_set(map)
				:: else
				fi
			fi
		:: else ->
			ONE(map = 0);
			ONE(y = AGAIN(partial));
			if
			:: y -> hint_set(map)
			:: else
			fi
		fi
	:: else
	fi
}

inline give()
{
#ifdef BUG_FIRST
	slab_hint();
#endif
	atomic {
		LIVES(me);
		m = LOWEST(own[c]);
		own[c] = own[c] & ~m;
		free = free | m
	}
#ifndef BUG_FIRST
	if
	:: m -> slab_hint()
	:: else
	fi
#endif
}

inline call()
{
	if
	:: LIVES(me) && own[c] -> give()
	:: LIVES(me) -> take()
	fi;
	d_step { m = 0; y = 0 }
}

proctype client(byte me)
{
	byte c = me, i, m;
	bit y;

	do
	:: i < CALLS -> call(); i++
	:: else -> break
	od;
	ONE(done[c] = true)
}

proctype handler(byte me)
{
	byte c = 0, m;
	bit y;

	atomic { !dead && !done[0] && level == me - 2 -> level = me - 1 };
	call();
	atomic { LIVES(me) -> level = me - 2 };
end:	skip
}

proctype reaper()
{
	if
	:: atomic { !done[0] -> dead = true }
	:: skip
	fi
}

proctype repairer()
{
	byte me = 9;
	bit y;

	if
	:: dead
	:: done[0] -> goto out
	fi;
#ifndef BUG_REPAIR
	if
	:: free -> slab_hint()
	:: else
	fi;
#endif
out:
	repaired = true
}

proctype judge()
{
	atomic {
		done[1] && repaired && (dead || (done[0] && level == 0)) ->
		assert(!free || (summary && partial && map))
	}
}

/* An empty word may have any hints. */
init {
	atomic {
		if
		:: free = 3
		:: free = 2; own[0] = 1
		:: free = 2; own[1] = 1
		:: own[0] = 3
		:: own[1] = 3
		:: own[0] = 1; own[1] = 2
		fi;
		if
		:: free -> summary = 1; partial = 1; map = 1
		:: !free ->
			if
			:: true
			:: summary = 1
			fi;
			if
			:: true
			:: partial = 1
			fi;
			if
			:: true
			:: map = 1
			fi
		fi;
		run client(0);
#ifdef NO_OTHER
		done[1] = true;
#else
		run client(1);
#endif
#ifndef NO_HANDLER
		run handler(2);
#ifndef NO_NESTED
		run handler(3);
#endif
#endif
		run reaper();
		run repairer();
		run judge()
	}
}
