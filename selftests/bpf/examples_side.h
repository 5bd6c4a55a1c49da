/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * examples_side.h - what a context does to the structures of bpf/examples, one source for all of
 * them; and the books that it keeps, which have to add up in the end.
 */
#ifndef EXAMPLES_SIDE_H
#define EXAMPLES_SIDE_H

#include "examples/hash.h"
#include "examples/queue.h"
#include "examples/skiplist.h"

#define ALL_KEYS 64 /* of the hash table, which has fewer buckets */
#define ALL_BITS 3
#define ALL_NODES 500 /* in the skip list, about */

/* Contexts: each has its books, and is interrupted by others, never by itself. */
enum { SIDE_PROGRAM, SIDE_NMI, SIDE_THREAD, SIDE_OTHER, NR_EX_SIDES };

struct ex_event {
	struct queue_node node;
	__u64 seq;
	__u64 side;
};

struct ex_side {
	__u64 rng;
	__u64 turns;
	__u64 hash_in;
	__u64 hash_out;
	__u64 hash_busy;
	__u64 sent;
	__u64 got;
	__u64 skip_in;
	__u64 skip_out;
	__u64 skip_busy;
	__u64 read;  /* nodes of the skip list, without its lock */
	__u64 wrong; /* torn, out of order, not to be */
	__u64 nomem;
	__u64 pad[3];
};

/* At the heap's root. */
struct ex_all {
	__u64 hash;
	__u64 list;
	struct queue queue;
	__u64 expect[NR_EX_SIDES]; /* the next event's number; with the queue's lock */
	struct ex_side side[NR_EX_SIDES];
};

typedef struct ex_all __shared ex_all_t;
typedef struct ex_side __shared ex_side_t;
typedef struct ex_event __shared ex_event_t;

BOTH_INLINE __u64 ex_random(ex_side_t *s)
{
	__u64 r = s->rng;

	r ^= r >> 12;
	r ^= r << 25;
	r ^= r >> 27;
	s->rng = r;
	return (r * 0x2545f4914f6cdd1dULL) >> 8;
}

BOTH_INLINE ex_side_t *ex_side(ex_all_t *a, __u32 who)
{
	return &a->side[who % NR_EX_SIDES];
}

/* Values go in by ones and come out together. */
BOTH_FUNC int ex_hash(ex_all_t *a BOTH_ARG, __u32 who)
{
	ex_side_t *s = ex_side(a, who);
	__u64 r, value = 0;
	hash_t *t;
	int err;

	if (!a)
		return 0;
	t = (hash_t *)a->hash;
	r = ex_random(s);
	err = hash_add(t, r % ALL_KEYS, 1);
	if (!err)
		s->hash_in++;
	else if (err == EBUSY_HERE)
		s->hash_busy++;
	else
		s->nomem++;
	r >>= 8;
	err = hash_get(t, r % ALL_KEYS, &value);
	if (!err && (!value || value >> 32))
		s->wrong++;
	r >>= 8;
	if (!(r & 3)) {
		err = hash_take(t, (r >> 2) % ALL_KEYS, &value);
		if (!err)
			s->hash_out += value;
		else if (err == EBUSY_HERE)
			s->hash_busy++;
	}
	return 0;
}

/* Each context's events arrive once and in its order. */
BOTH_FUNC int ex_queue(ex_all_t *a BOTH_ARG, __u32 who)
{
	ex_side_t *s = ex_side(a, who);
	ex_event_t *e;

	if (!a)
		return 0;
	e = (ex_event_t *)kmalloc_here(a, sizeof(*e));
	if (e) {
		e->side = who % NR_EX_SIDES;
		e->seq = s->sent++;
		queue_add(&a->queue, &e->node);
	} else {
		s->nomem++;
	}
	if (!queue_trylock(&a->queue))
		return 0;
	bounded(i, 4) {
		__u64 side, seq;

		e = (ex_event_t *)queue_next(&a->queue);
		if (!e)
			break;
		side = e->side % NR_EX_SIDES;
		seq = e->seq;
		if (seq != a->expect[side])
			s->wrong++;
		a->expect[side] = seq + 1;
		queue_took(&a->queue, &e->node);
		s->got++;
	}
	queue_unlock(&a->queue);
	return 0;
}

/* Keys end with the context's number: each adds and removes its own, and takes whatever is first. */
BOTH_FUNC int ex_change(ex_all_t *a BOTH_ARG, __u32 who)
{
	ex_side_t *s = ex_side(a, who);
	skiplist_t *l;
	__u64 r, key;
	int err;

	if (!a)
		return 0;
	l = (skiplist_t *)a->list;
	r = ex_random(s);
	key = (r >> 16 & 0xfff) << 8 | (who % NR_EX_SIDES) | 128;
	if (load(&l->nr) < ALL_NODES && r & 3) {
		err = skip_add(l, key, s->turns);
		if (!err)
			s->skip_in++;
		else if (err == EBUSY_HERE)
			s->skip_busy++;
		else if (err == ENOMEM_HERE)
			s->nomem++;
		else if (err != EEXIST_HERE)
			s->wrong++;
	} else if (r & 4) {
		err = skip_del(l, key);
		if (!err)
			s->skip_out++;
		else if (err == EBUSY_HERE)
			s->skip_busy++;
		else if (err != ENOENT_HERE)
			s->wrong++;
	} else if (skip_take_first(l, -1ULL)) {
		s->skip_out++;
	}
	return 0;
}

/* Read the list from somewhere on, without its lock. */
BOTH_FUNC int ex_read(ex_all_t *a BOTH_ARG, __u32 who, __u32 slot)
{
	ex_side_t *s = ex_side(a, who);
	__u64 before = unknown(0);
	skip_node_t *n;
	skiplist_t *l;
	int of;

	if (!a)
		return 0;
	l = (skiplist_t *)a->list;
	of = epoch_enter(&l->epoch, slot);
	if (of < 0)
		return 0;
	n = skip_first_from(l, ex_random(s) & 0xfffff);
	bounded(i, 32) {
		__u64 key;

		if (!n)
			break;
		key = load(&n->key);
		if (key <= before || !(key & 128))
			s->wrong++;
		before = key;
		s->read++;
		n = skip_next(n, 0);
	}
	epoch_exit(&l->epoch, slot, of);
	return 0;
}

/* One turn of everything. @slot: of the epoch. */
BOTH_INLINE void ex_turn(ex_all_t *a, __u32 who, __u32 slot)
{
	ex_hash(a, who);
	ex_queue(a, who);
	ex_change(a, who);
	ex_read(a, who, slot);
	ex_side(a, who)->turns++;
}

#endif /* EXAMPLES_SIDE_H */
