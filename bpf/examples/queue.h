/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * queue.h - a queue in a shared heap: many producers, one consumer at a time, on either side.
 *
 * Adding is wait-free, in any context: one xchg of the tail, which makes the order, and one store
 * that links the node to the one before it. A producer that was interrupted between the two hides
 * what comes behind it until it goes on; the consumer finds the queue empty so far, and does not
 * wait.
 *
 * Taking: the first node is always one that was taken already (or the stub that the queue begins
 * with). A consumer copies the next one out, moves on to it, and frees the one before. That one
 * nobody else can have: a producer touches only the node that its xchg returned, and that one's
 * successor has been linked. So nodes need no grace period.
 *
 * One consumer at a time: a trylock, as a program may interrupt a consumer; who does not get it
 * takes nothing. A process that is killed between the xchg and the store, or while it consumes,
 * leaves the queue cut or locked: give each process a queue of its own to produce into.
 */
#ifndef EXAMPLES_QUEUE_H
#define EXAMPLES_QUEUE_H

#include "both.h"

struct queue_node {
	__u64 next; /* address, or 0: it is the last, or its successor is just being linked */
};

struct queue {
	__u64 head; /* the node that was taken last; of whoever holds the lock */
	__u64 lock;
	__u64 pad[6];
	__u64 tail; /* the node that was added last; by xchg */
};

typedef struct queue __shared queue_t;
typedef struct queue_node __shared queue_node_t;

/* queue_init - @stub: a node from kmalloc(), which the first one that is taken frees */
BOTH_INLINE void queue_init(queue_t *q, queue_node_t *stub)
{
	stub->next = 0;
	q->lock = 0;
	q->head = (__u64)stub;
	xchg(&q->tail, (__u64)stub);
}

/* queue_add - @n: a node from kmalloc(), filled in; the queue's from now on. Any context. */
BOTH_INLINE void queue_add(queue_t *q, queue_node_t *n)
{
	queue_node_t *before;

	store(&n->next, 0);
	/* A full barrier: the node is filled in before others may come to it. */
	before = (queue_node_t *)xchg(&q->tail, (__u64)n);
	/* Pairs with the acquire in queue_next(). */
	store_release(&before->next, (__u64)n);
}

/* queue_trylock, queue_unlock - be the consumer. The lock is free (0) or held (1): one try. */
BOTH_INLINE int queue_trylock(queue_t *q)
{
	return cas(&q->lock, 0, 1);
}

BOTH_INLINE void queue_unlock(queue_t *q)
{
	store_release(&q->lock, 0);
}

/*
 * queue_next - the node that is to be taken, or NULL
 * With the lock held. It is the caller's to read until queue_took().
 */
BOTH_INLINE queue_node_t *queue_next(queue_t *q)
{
	queue_node_t *head = (queue_node_t *)q->head;

	return (queue_node_t *)load_acquire(&head->next);
}

/* queue_took - @n, which queue_next() returned, was read: it becomes the first, the old one goes */
BOTH_INLINE void queue_took(queue_t *q, queue_node_t *n)
{
	queue_node_t *old = (queue_node_t *)q->head;

	q->head = (__u64)n;
	kfree_nolock(old);
}

#endif /* EXAMPLES_QUEUE_H */
