/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chunk.pml - a chunk that becomes a slab of one cache or another and is given back, stale takers,
 * the death of a client, and the repair.
 *
 * One chunk with two words of one object each; two caches, A and B. It is free at first, or a slab
 * whose objects are anywhere. Each client makes CALLS calls, of any kind and for any cache; what of
 * the library each is:
 *   new		nl_chunk_find() or _scan(): bit, then tag by cmpxchg (nl_chunk_claim());
 *		nl_slab_new() with intent NEW if the slab's lock can be had, and without if not
 *   take	nl_slab_take(), by a hint that may be stale: the tag again under the lock
 *   scan	nl_slab_scan_chunk(): past the lock, counted; the tag again after the bit, and
 *		nl_slab_give_stray()
 *   put	nl_slab_put()
 *   release	nl_slab_release() with intent RELEASE and its way back, and nl_chunk_give()
 * repairer is repair() for this chunk: repair_slab(), repair_chunk(), set_lost_bits(). The first
 * client, with the signal handler that may interrupt it anywhere, may stop for ever before any
 * step. Every access to shared memory is a step; memory is sequentially consistent here: where the
 * library needs more than x86-64 gives for nothing, its comments say which barrier makes it so.
 *
 * At any time an object is used once, by who asked for the cache that the tag names. At the end
 * the chunk is free with its bit, or a slab with each object in one place; what scans made unsure
 * is lost at worst (docs/design.md), and counted in excused.
 *
 * Mutations that must be found: -DBUG_CLAIM (the tag is stored instead of claimed), -DBUG_STRAY
 * (scans do not look at the tag again), -DBUG_OPEN (a release looks whether all is free, and does
 * not take it), -DBUG_LOOK (it does not look again with the lock held), -DBUG_SURE (the repair
 * looks at the scans before it looks at the word), -DBUG_BITS (it does not set lost bits),
 * -DBUG_TRANSIT (it does not look at tags).
 */
#ifndef CALLS
#define CALLS 1
#endif
#define FREE 0
#define A 1
#define B 2
#define SLAB(t) ((t) == A || (t) == B)
#define TRANSIT 3 /* and the taker's number; REPAIR's at the end */
#define REPAIR 9
#define NONE 0
#define NEW 1
#define RELEASE 2

byte tag = FREE, chunk_bit = 1;
bit free[2];
byte slab_lock, intent, word_of, scan_begin, scan_end, scans;
byte own[2]; /* user + 1 of each object: 1 and 2, the clients */
byte as[2]; /* for which cache he asked */
byte hand[3]; /* object + 1 that is in a register */
bool blind[3]; /* makes a slab without its lock */
bool dead, repaired, handling, done[2], excused[2];

#define CLIENT(me) ((me) == 2 -> 0 : (me))
#define LIVES(me) ((me) == 1 || (!dead && ((me) == 2 || !handling)))
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
		ONE(scans = (scan_begin == b -> b : scan_begin + 128))
	:: else
	fi
}

/* The object is handed out. */
#define GET(o) assert(own[o] == 0 && !free[o] && tag == id); own[o] = c + 1; as[o] = id; hand[me] = 0

inline new()
{
	atomic {
		LIVES(me);
		b = chunk_bit;
		chunk_bit = 0
	}
	if
	:: b ->
#ifdef BUG_CLAIM
		ONE(tag = TRANSIT + me); got = 1;
#else
		atomic {
			LIVES(me);
			if
			:: tag == FREE -> tag = TRANSIT + me; got = 1
			:: else -> got = 0
			fi
		}
#endif
		if
		:: got ->
			trylock_slab();
			if
			:: got -> ONE(intent = NEW)
			:: else
			fi;
			ONE(tag = id; hand[me] = 1; blind[me] = !got);
			ONE(assert(!free[1] && !own[1]); free[1] = 1; blind[me] = false);
			if
			:: got ->
				ONE(intent = NONE);
				ONE(slab_lock = 0)
			:: else
			fi;
			ONE(GET(0))
		:: else
		fi
	:: else
	fi
}

/* nl_word_take() of one of the two words. */
inline word_take()
{
	atomic {
		LIVES(me);
		w = (free[0] -> 0 : 1);
		got = free[w];
		hand[me] = (got -> w + 1 : 0);
		free[w] = 0
	}
}

inline take()
{
	if
	:: LIVES(me) && tag == id ->
		trylock_slab();
		if
		:: got ->
			if
			:: LIVES(me) && tag == id -> word_take()
			:: LIVES(me) && tag != id -> got = 0
			fi;
			ONE(slab_lock = 0);
			if
			:: got -> ONE(GET(w))
			:: else
			fi
		:: else
		fi
	:: LIVES(me) && tag != id
	fi
}

inline scan()
{
	if
	:: LIVES(me) && tag == id && (free[0] || free[1]) ->
		ONE(scan_begin++);
		word_take();
		ONE(scan_end++);
		if
		:: got ->
#ifdef BUG_STRAY
			ONE(own[w] = c + 1; as[w] = id; hand[me] = 0)
#else
			if
			:: atomic { LIVES(me) && tag == id -> GET(w) }
			:: LIVES(me) && tag != id ->
				ONE(assert(SLAB(tag) && !free[w]); free[w] = 1; hand[me] = 0)
			fi
#endif
		:: else
		fi
	:: LIVES(me) && (tag != id || !(free[0] || free[1]))
	fi
}

inline put()
{
	atomic {
		LIVES(me);
		if
		:: own[0] == c + 1 -> w = 0; got = 1
		:: own[1] == c + 1 -> w = 1; got = 1
		:: else -> got = 0
		fi;
		if
		:: got -> assert(tag == as[w] && !free[w]); own[w] = 0; free[w] = 1
		:: else
		fi
	}
}

inline release()
{
	if
	:: LIVES(me) && free[0] && free[1] ->
		trylock_slab();
		if
		:: got ->
			if
			:: LIVES(me) && tag == id -> w = 0
			:: LIVES(me) && tag != id -> w = 3
			fi;
			do
			:: w < 2 ->
#ifndef BUG_LOOK
				if
				:: LIVES(me) && free[w]
				:: LIVES(me) && !free[w] -> break
				fi;
#endif
				ONE(intent = RELEASE; word_of = w);
#ifdef BUG_OPEN
				if
				:: LIVES(me) && free[w] -> w++
				:: LIVES(me) && !free[w] -> break
				fi
#else
				atomic {
					LIVES(me);
					if
					:: free[w] -> free[w] = 0; got = 1
					:: else -> got = 0
					fi
				}
				if
				:: got -> w++
				:: else -> break
				fi
#endif
			:: else -> break
			od;
			if
			:: w == 2 ->
				ONE(tag = TRANSIT + me);
				ONE(intent = NONE);
				ONE(slab_lock = 0);
#ifdef BUG_OPEN
				ONE(free[0] = 0; free[1] = 0);
#endif
				ONE(tag = FREE);
				ONE(chunk_bit = 1)
			:: else ->
				do
				:: w == 1 ->
					ONE(intent = RELEASE; word_of = 0);
					ONE(free[0] = 1);
					w = 0
				:: else -> break
				od;
				ONE(intent = NONE);
				ONE(slab_lock = 0)
			fi
		:: else
		fi
	:: LIVES(me) && !(free[0] && free[1])
	fi
}

inline call()
{
	if
	:: id = A
	:: id = B
	fi;
	if
	:: LIVES(me) -> new()
	:: LIVES(me) -> take()
	:: LIVES(me) -> scan()
	:: LIVES(me) -> put()
	:: LIVES(me) -> release()
	fi;
	d_step { b = 0; w = 0; got = 0; id = 0 }
}

proctype client(byte me)
{
	byte c = me, i, b, w, id;
	bit got;

	do
	:: i < CALLS -> call(); i++
	:: else -> break
	od;
	ONE(done[c] = true)
}

/* One signal, at any time while the first client works. */
proctype handler()
{
	byte me = 2, c = 0, b, w, id;
	bit got;

	atomic { !dead && !done[0] -> handling = true };
	call();
	atomic { !dead -> handling = false };
end:	skip
}

proctype reaper()
{
	if
	:: atomic { !done[0] -> dead = true }
	:: skip
	fi
}

/* in_its_hands(); may a scan have it? Then it is lost. */
inline in_its_hands(o)
{
	mine = 0;
#ifdef BUG_SURE
	sure = (scans == scan_begin);
	there = free[o];
#else
	there = free[o];
	sure = (scans == scan_begin);
#endif
	atomic {
		mine = (!there && sure);
		if
		:: !there && !sure -> excused[o] = true
		:: else
		fi
	}
}

#define GIVE(o) atomic { assert(own[o] == 0 || own[o] == 1); free[o] = 1 }

proctype repairer()
{
	byte t;
	bit there, sure, mine;

	if
	:: dead
	:: done[0] -> goto out
	fi;
	t = tag;
	atomic {
		if
		:: slab_lock == 1 || slab_lock == 3 -> slab_lock = REPAIR; mine = 1
		:: else
		fi
	}
	if
	:: mine ->
		if
		:: SLAB(tag) && intent == NEW ->
			in_its_hands(1);
			if
			:: mine -> GIVE(1)
			:: else
			fi;
			in_its_hands(0);
			if
			:: mine -> GIVE(0)
			:: else
			fi
		:: SLAB(tag) && intent == RELEASE ->
			in_its_hands(word_of);
			if
			:: mine -> GIVE(word_of)
			:: else
			fi;
			if
			:: word_of == 1 ->
				word_of = 0;
				GIVE(0)
			:: else
			fi
		:: else
		fi;
		intent = NONE;
		slab_lock = 0
	:: else
	fi;
#ifndef BUG_TRANSIT
	atomic {
		mine = (t == tag && (t == TRANSIT || t == TRANSIT + 2));
		if
		:: mine -> tag = TRANSIT + REPAIR
		:: else
		fi
	}
	if
	:: mine ->
		atomic { assert(!own[0] && !own[1]); free[0] = 0; free[1] = 0 };
		tag = FREE;
		chunk_bit = 1
	:: else
	fi;
#endif
#ifndef BUG_BITS
	/* set_lost_bits() */
	if
	:: tag == FREE -> chunk_bit = 1
	:: else
	fi;
#endif
	/* What the dead had in hand was its own, or is lost with a slab that it made unlocked. */
	atomic {
		excused[1] = excused[1] || blind[0] || blind[2];
		if
		:: hand[0] -> excused[hand[0] - 1] = true
		:: else
		fi;
		if
		:: hand[2] -> excused[hand[2] - 1] = true
		:: else
		fi
	}
out:
	repaired = true
}

#define PLACES(o) (free[o] + (own[o] != 0))

proctype judge()
{
	atomic {
		done[1] && repaired && (dead || (done[0] && !handling)) ->
		assert(slab_lock == 0);
		assert(tag == FREE || SLAB(tag));
		if
		:: tag == FREE ->
			assert(chunk_bit && !free[0] && !free[1] && !own[0] && !own[1])
		:: else ->
			assert(PLACES(0) == 1 || (PLACES(0) == 0 && excused[0]));
			assert(PLACES(1) == 1 || (PLACES(1) == 0 && excused[1]));
			assert(!own[0] || as[0] == tag);
			assert(!own[1] || as[1] == tag)
		fi
	}
}

inline place(o)
{
	if
	:: free[o] = 1
	:: own[o] = 1; as[o] = A
	:: own[o] = 2; as[o] = A
	fi
}

init {
	atomic {
		if
		:: true
		:: tag = A; chunk_bit = 0; place(0); place(1)
		/* A repair before has set a bit once too often. */
		:: tag = A; place(0); place(1)
		fi;
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
