/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * slot.pml - the R-slots of two CPUs: restartable sequences, the lock, preemption, migration,
 * signals, death, and who empties the slots from outside.
 *
 * Two threads on two CPUs, moved about at will; the first one is interrupted by a signal handler,
 * and that by another. Each makes one call, of any kind; what of the library each is:
 *   pop, push	NL_RSEQ_POP, NL_RSEQ_PUSH: index, word, object, and the store that commits
 *   lock	NL_RSEQ_LOCK: index, word, the name in the lock field, and the word with its mark;
 *		then what nl_slot_refill() and nl_slot_room() do with the lock held, no sequence
 *		any more: nl_slot_detach(), an object to or from main, nl_slot_attach(),
 *		nl_rslot_unlock()
 * After two aborts a call leaves it at that (NL_RSEQ_TRIES; the A-slot's lock and what is behind it
 * are in slab.pml). The kernel aborts a sequence when its thread is preempted or gets a signal.
 *
 * By default both threads are of one process, whose heap is private: a third one, -DSHRINKERS of
 * them (1), empties a slot, empty_private_rslots(): mark() by cmpxchg, membarrier() thread by
 * thread, marked(). With -DSHARED they are two processes, of which the first may die at any step;
 * the repair is takeover_rslot() and repair_slot().
 *
 * At any time an object is handed out once; at the end each is in one place.
 *
 * Mutations that must be found: -DBUG_PREEMPT, -DBUG_SIGNAL (those do not abort), -DBUG_INDEX (the
 * index is loaded before the sequence begins), -DBUG_LOCK (a sequence does not look at the mark),
 * -DBUG_BARRIER (no membarrier()), -DBUG_SURE (who empties does not look at the mark again),
 * -DBUG_GENERATION (with two: both have the same number), -DBUG_LARGER (the repair goes by the
 * slot's word alone), -DBUG_NAME (who locks names himself after the commit).
 */
#ifndef OBJECTS
#define OBJECTS 1
#endif
#ifndef SWITCHES
#define SWITCHES 1
#endif
#ifndef SHRINKERS
#define SHRINKERS 1
#endif
#define POP 0
#define PUSH 1
#define LOCK 2
#define NONE 9
#define REPAIR 50
#define SHRINKER(me) (60 + (me))
/* A word: objects, the mark, and the number of a shrinker that has not come to stay. */
#define COUNT(w) ((w) & 3)
#define LOCKED 8
#define MARK(me) (LOCKED | (NUMBER(me) << 4))
#ifdef BUG_GENERATION
#define NUMBER(me) 1
#else
#define NUMBER(me) (1 + (me))
#endif

/* a slot of each CPU, with its main sheaf */
byte name[2], word[2], size[2], arr[4];
/* whose objects are: bits. 0 and 1 the threads, 2 the slabs */
byte own[3];
byte hand[4]; /* what a call is freeing */
/* threads and what runs */
byte cpu[2];
bool on[2]; /* a CPU: at first only the first thread */
bool within[4], aborted[4]; /* a sequence, of the threads 0 and 1, the handlers 2 and 3 */
byte level; /* which handler of the first thread runs */
byte left = SWITCHES; /* how often a thread may be taken from its CPU */
bool dead, repaired, done[2];
byte emptied;

#define THREAD(me) ((me) == 1 -> 1 : 0)
#define RUNS(me) (((me) == 1 && on[1]) || ((me) != 1 && !dead && on[0] && level == ((me) == 0 -> 0 : (me) - 1)))
#define ONE(x) atomic { RUNS(me); x }
#define LOWEST(m) ((m) & 1 -> 1 : (m))
#define ABORT(me) if :: within[me] -> aborted[me] = true :: else fi

/* A step of a sequence, unless it was aborted; then with what comes next nothing happens. */
#define SEQ(x) atomic { RUNS(me); \
	if :: ok && aborted[me] -> within[me] = false; ok = false \
	:: ok && !aborted[me] -> x \
	:: else fi }

inline sequence()
{
	ok = true; w = 0; o = 0;
#ifdef BUG_INDEX
	ONE(x = cpu[THREAD(me)]);
#endif
	ONE(within[me] = true; aborted[me] = false);
#ifndef BUG_INDEX
	SEQ(x = cpu[THREAD(me)]);
#endif
	SEQ(w = word[x]);
#ifndef BUG_LOCK
	SEQ(if
	:: w & LOCKED -> op = NONE; within[me] = false
	:: else
	fi);
#endif
	if
	:: op == LOCK ->
#ifndef BUG_NAME
		SEQ(name[x] = me + 1);
#endif
		SEQ(word[x] = w | LOCKED; within[me] = false);
#ifdef BUG_NAME
		if
		:: ok -> ONE(name[x] = me + 1)
		:: else
		fi
#endif
	:: op == POP ->
		SEQ(if
		:: COUNT(w) == 0 -> op = NONE; within[me] = false
		:: else -> o = arr[x * 2 + COUNT(w) - 1]
		fi);
		if
		:: op == POP ->
			SEQ(word[x] = w - 1; within[me] = false;
			    assert(!((own[0] | own[1] | own[2]) & o)); own[c] = own[c] | o)
		:: else
		fi
	:: op == PUSH ->
		SEQ(if
		:: COUNT(w) == 2 || !own[c] -> op = NONE; within[me] = false
		:: else -> o = LOWEST(own[c]); arr[x * 2 + COUNT(w)] = o
		fi);
		if
		:: op == PUSH ->
			SEQ(word[x] = w + 1; within[me] = false;
			    assert(own[c] & o); own[c] = own[c] & ~o)
		:: else
		fi
	:: else
	fi
}

/* The lock is held: the slot x is this one's, wherever the thread runs now. */
inline holder()
{
	ONE(size[x] = COUNT(word[x]));
	ONE(word[x] = word[x] - size[x]);
	if
	:: RUNS(me) && size[x] > 0 ->
		ONE(size[x] = size[x] - 1; assert(!((own[0] | own[1] | own[2]) & arr[x * 2 + size[x]]));
		    own[c] = own[c] | arr[x * 2 + size[x]])
	:: RUNS(me) && size[x] < 2 && own[c] ->
		ONE(hand[me] = LOWEST(own[c]); own[c] = own[c] & ~hand[me]);
		ONE(arr[x * 2 + size[x]] = hand[me]);
		ONE(size[x] = size[x] + 1; hand[me] = 0)
	:: RUNS(me) && size[x] == 0 && !own[c]
	fi;
	ONE(word[x] = word[x] + size[x]);
	ONE(size[x] = 0);
	ONE(assert(name[x] == me + 1 && (word[x] & LOCKED)); word[x] = COUNT(word[x]))
}

inline call()
{
	if
	:: RUNS(me) -> wants = POP
	:: RUNS(me) -> wants = PUSH
	:: RUNS(me) -> wants = LOCK
	fi;
	do
	:: tries < 2 ->
		op = wants;
		sequence();
		if
		:: ok && op == LOCK -> holder(); break
		:: ok && op != LOCK -> break
		:: !ok -> tries++
		fi
	:: else -> break
	od;
	skip;
	d_step { tries = 0; ok = 0; op = 0; wants = 0; w = 0; o = 0; x = 0 }
}

proctype thread(byte me)
{
	byte c = me, op, wants, tries, w, o, x;
	bit ok;

	call();
	ONE(done[me] = true)
}

proctype handler(byte me)
{
	byte c = 0, op, wants, tries, w, o, x;
	bit ok;

	atomic {
		!dead && !done[0] && on[0] && level == me - 2 ->
		level = me - 1;
#ifndef BUG_SIGNAL
		if
		:: me == 2 -> ABORT(0)
		:: me == 3 -> ABORT(2)
		fi
#endif
	}
	call();
	atomic { RUNS(me) -> level = me - 2 };
end:	skip
}

#ifdef BUG_PREEMPT
#define OFF(t) on[t] = false
#else
#define OFF(t) on[t] = false; ABORT(t); if :: t == 0 -> ABORT(2); ABORT(3) :: else fi
#endif

/* Takes a thread from its CPU, and gives it one that is free. */
proctype scheduler()
{
end:	do
	:: atomic { left && on[0] && !done[0] && !dead -> left--; OFF(0) }
	:: atomic { left && on[1] && !done[1] -> left--; OFF(1) }
	:: atomic { on[0] && done[0] -> on[0] = false }
	:: atomic { on[1] && done[1] -> on[1] = false }
	:: atomic { !on[0] && !done[0] && (!on[1] || cpu[1] != 0) -> on[0] = true; cpu[0] = 0 }
	:: atomic { !on[0] && !done[0] && (!on[1] || cpu[1] != 1) -> on[0] = true; cpu[0] = 1 }
	:: atomic { !on[1] && !done[1] && (!on[0] || cpu[0] != 0) -> on[1] = true; cpu[1] = 0 }
	:: atomic { !on[1] && !done[1] && (!on[0] || cpu[0] != 1) -> on[1] = true; cpu[1] = 1 }
	od
}

#ifdef SHARED
proctype reaper()
{
	if
	:: atomic { !done[0] -> dead = true; on[0] = false }
	:: skip
	fi
}

proctype repairer()
{
	byte x;
	bit got;

	if
	:: dead
	:: done[0] -> goto out
	fi;
	do
	:: x < 2 ->
		if
		:: word[x] & LOCKED ->
			atomic {
				got = (name[x] == 1 || name[x] == 3 || name[x] == 4);
				if
				:: got -> name[x] = REPAIR
				:: else
				fi
			}
		:: else -> got = 0
		fi;
		if
		:: got ->
#ifndef BUG_LARGER
			word[x] = (word[x] & LOCKED) | (size[x] > COUNT(word[x]) -> size[x] : COUNT(word[x]));
#endif
			size[x] = 0;
			word[x] = COUNT(word[x])
		:: else
		fi;
		x++
	:: else -> break
	od;
out:
	repaired = true
}
#else
/* One slot of the two. */
proctype shrinker(byte me)
{
	byte x, o, w;
	bit got;

	if
	:: x = 0
	:: x = 1
	fi;
	w = word[x];
	atomic {
		got = (!(w & LOCKED) && word[x] == w);
		if
		:: got -> word[x] = w | MARK(me)
		:: else
		fi
	}
#ifndef BUG_BARRIER
	atomic { ABORT(0); ABORT(2); ABORT(3) };
	atomic { ABORT(1) };
#endif
	if
#ifdef BUG_SURE
	:: got ->
#else
	:: (word[x] & ~3) == MARK(me) ->
#endif
		name[x] = SHRINKER(me);
		word[x] = COUNT(word[x]) | LOCKED;
		size[x] = COUNT(word[x]);
		word[x] = LOCKED;
		do
		:: size[x] ->
			atomic {
				o = arr[x * 2 + size[x] - 1];
				assert(!((own[0] | own[1] | own[2]) & o));
				own[2] = own[2] | o;
				size[x] = size[x] - 1
			}
		:: else -> break
		od;
		atomic {
			assert(name[x] == SHRINKER(me) && (word[x] & LOCKED));
			word[x] = COUNT(word[x])
		}
	:: else
	fi;
	emptied++
}
#endif

#define IN_SLOT(x, b) ((COUNT(word[x]) > 0 && arr[(x) * 2] == (b)) + \
		       (COUNT(word[x]) > 1 && arr[(x) * 2 + 1] == (b)))
#define PLACES(b) (((own[0] & (b)) != 0) + ((own[1] & (b)) != 0) + ((own[2] & (b)) != 0) + \
		   IN_SLOT(0, b) + IN_SLOT(1, b) + \
		   (hand[0] == (b)) + (hand[2] == (b)) + (hand[3] == (b)))

proctype judge()
{
	atomic {
		done[1] && (dead || (done[0] && level == 0)) &&
#ifdef SHARED
		repaired ->
#else
		emptied == SHRINKERS ->
#endif
		assert(!(word[0] & ~3) && !(word[1] & ~3));
		assert(PLACES(1) == 1);
		assert(PLACES(2) == OBJECTS - 1)
	}
}

inline place(b)
{
	if
	:: arr[word[0]] = b; word[0] = word[0] + 1
	:: arr[2 + word[1]] = b; word[1] = word[1] + 1
	:: own[0] = own[0] | b
	:: own[1] = own[1] | b
	fi
}

init {
	atomic {
		on[0] = true;
		place(1);
#if OBJECTS > 1
		place(2);
#endif
		run thread(0);
#ifdef NO_OTHER
		done[1] = true;
#else
		run thread(1);
#endif
#ifndef NO_HANDLER
		run handler(2);
#ifndef NO_NESTED
		run handler(3);
#endif
#endif
		run scheduler();
#ifdef SHARED
		run reaper();
		run repairer();
#else
		run shrinker(0);
#if SHRINKERS > 1
		run shrinker(1);
#endif
#endif
		run judge()
	}
}
