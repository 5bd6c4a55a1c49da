/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * skiplist.h - an ordered list in a shared heap, one source for programs and processes.
 *
 * Changing takes the list's lock by a trylock: a program that interrupted the holder must not wait,
 * so after SKIP_TRIES looks a call gives up with EBUSY_HERE. Steps are bounded, so all calls are
 * wait-free, in any context, NMI included.
 *
 * Reading takes no lock: links are published by a release, lowest level first, and removed highest
 * level first, so a reader always finds a list. A node that was removed keeps its links, for
 * those who stand on it; it waits in limbo for its grace period (epoch.h), and is freed by whoever
 * adds or removes something after that, some at a time.
 *
 * A process that is killed while it holds the lock leaves the list locked, and readable.
 */
#ifndef EXAMPLES_SKIPLIST_H
#define EXAMPLES_SKIPLIST_H

#include "epoch.h"

#define SKIP_LEVELS 10 /* a quarter of the nodes of a level is in the next: good for a million */
#define SKIP_TRIES 64
#define SKIP_STEPS 1024 /* of one search */
#define SKIP_FREES 4	/* out of limbo, of one call */

struct skip_node {
	__u64 key; /* no two the same */
	__u64 value;
	__u64 tag;   /* in limbo: its epoch */
	__u64 limbo; /* the next one there */
	__u32 levels;
	__u32 pad;
	__u64 next[]; /* addresses, 0 at the end: as many as levels */
};

struct skiplist {
	__u64 lock; /* 0 or 1 */
	__u64 busy; /* calls that were given up */
	__u64 nr;   /* the rest with the lock held */
	__u64 rng;
	__u64 limbo_first;
	__u64 limbo_last;
	__u64 before[SKIP_LEVELS]; /* of a search: the last node of each level before the key */
	struct epoch epoch;
	__u64 head[5 + SKIP_LEVELS]; /* a node with a key below all others */
};

typedef struct skiplist __shared skiplist_t;
typedef struct skip_node __shared skip_node_t;

BOTH_INLINE skip_node_t *skip_head(skiplist_t *l)
{
	return (skip_node_t *)l->head;
}

BOTH_INLINE skip_node_t *skip_next(skip_node_t *n, unsigned int level)
{
	return (skip_node_t *)load_acquire(&n->next[level]);
}

BOTH_INLINE int skip_lock(skiplist_t *l)
{
	bounded(i, SKIP_TRIES) {
		if (!load(&l->lock) && cas(&l->lock, 0, 1))
			return 0;
	}
	add(&l->busy, 1);
	return EBUSY_HERE;
}

BOTH_INLINE void skip_unlock(skiplist_t *l)
{
	store_release(&l->lock, 0);
}

/*
 * Fill before[], with the lock held. Returns the first node whose key is not below this one, or
 * NULL; -1ULL as an address when the list is longer than a search may be.
 */
BOTH_FUNC __u64 skip_search(skiplist_t *l BOTH_ARG, __u64 key)
{
	skip_node_t *at = skip_head(l), *next = 0;
	unsigned int level = unknown(SKIP_LEVELS - 1);

	if (!l)
		return -1ULL;
	bounded(i, SKIP_STEPS) {
		next = skip_next(at, level % SKIP_LEVELS);
		if (next && next->key < key) {
			at = next;
			continue;
		}
		l->before[level % SKIP_LEVELS] = (__u64)at;
		if (!level)
			return (__u64)next;
		level--;
	}
	return -1ULL;
}

/* Those in limbo that nobody can be reading, with the lock held. */
BOTH_INLINE void skip_free_some(skiplist_t *l)
{
	bounded(i, SKIP_FREES) {
		skip_node_t *n = (skip_node_t *)l->limbo_first;

		if (!n || !epoch_over(&l->epoch, n->tag))
			break;
		l->limbo_first = n->limbo;
		kfree_nolock(n);
	}
}

/* Out of the list and into limbo, with the lock held and before[] filled. */
BOTH_INLINE void skip_unlink(skiplist_t *l, skip_node_t *n)
{
	unsigned int levels = n->levels < SKIP_LEVELS ? n->levels : SKIP_LEVELS;

	bounded(i, levels) {
		unsigned int level = levels - 1 - i;
		skip_node_t *before = (skip_node_t *)l->before[level];

		if (load(&before->next[level]) == (__u64)n)
			store_release(&before->next[level], load(&n->next[level]));
	}
	n->limbo = 0;
	n->tag = epoch_tag(&l->epoch);
	if (l->limbo_first)
		((skip_node_t *)l->limbo_last)->limbo = (__u64)n;
	else
		l->limbo_first = (__u64)n;
	l->limbo_last = (__u64)n;
	l->nr--;
}

/*
 * Begin a change: the lock is taken, and the first node whose key is not below this one found.
 * Returns 0; EBUSY_HERE or E2BIG_HERE, without the lock.
 */
BOTH_INLINE int skip_begin(skiplist_t *l, __u64 key, __u64 *found)
{
	if (!l || skip_lock(l))
		return EBUSY_HERE;
	skip_free_some(l);
	*found = skip_search(l, key);
	if (*found != -1ULL)
		return 0;
	skip_unlock(l);
	return E2BIG_HERE;
}

/*
 * skip_add - add a key with a value
 * Returns 0, EEXIST_HERE, EBUSY_HERE, ENOMEM_HERE, E2BIG_HERE. Any context.
 */
BOTH_FUNC int skip_add(skiplist_t *l BOTH_ARG, __u64 key, __u64 value)
{
	unsigned int levels = 1;
	skip_node_t *n;
	__u64 found = 0;
	int err = skip_begin(l, key, &found);

	if (err)
		return err;
	if (found && ((skip_node_t *)found)->key == key) {
		err = EEXIST_HERE;
		goto unlock;
	}
	l->rng ^= l->rng << 13;
	l->rng ^= l->rng >> 7;
	l->rng ^= l->rng << 17;
	levels += (unsigned int)__builtin_ctzll(l->rng | 1ULL << 62) / 2;
	if (levels > SKIP_LEVELS)
		levels = SKIP_LEVELS;
	n = (skip_node_t *)kmalloc_here(l, sizeof(*n) + levels * sizeof(__u64));
	if (!n) {
		err = ENOMEM_HERE;
		goto unlock;
	}
	n->key = key;
	n->value = value;
	n->levels = levels;
	bounded(i, levels) {
		n->next[i] = ((skip_node_t *)l->before[i % SKIP_LEVELS])->next[i];
	}
	bounded(k, levels) {
		store_release(&((skip_node_t *)l->before[k % SKIP_LEVELS])->next[k], (__u64)n);
	}
	l->nr++;
unlock:
	skip_unlock(l);
	return err;
}

/* skip_del - remove a key. Returns 0, ENOENT_HERE, EBUSY_HERE, E2BIG_HERE. Any context. */
BOTH_FUNC int skip_del(skiplist_t *l BOTH_ARG, __u64 key)
{
	__u64 found = 0;
	int err = skip_begin(l, key, &found);

	if (err)
		return err;
	if (!found || ((skip_node_t *)found)->key != key)
		err = ENOENT_HERE;
	else
		skip_unlink(l, (skip_node_t *)found);
	skip_unlock(l);
	return err;
}

/*
 * skip_take_first - remove the first key if it is not above @most
 * Returns the key; 0: there is none, or EBUSY_HERE. Any context. (So no key is 0.)
 */
BOTH_FUNC __u64 skip_take_first(skiplist_t *l BOTH_ARG, __u64 most)
{
	skip_node_t *first;
	__u64 key = 0;

	if (!l || skip_lock(l))
		return 0;
	skip_free_some(l);
	first = skip_next(skip_head(l), 0);
	if (first && first->key <= most) {
		key = first->key;
		bounded(i, SKIP_LEVELS) {
			l->before[i % SKIP_LEVELS] = (__u64)l->head;
		}
		skip_unlink(l, first);
	}
	skip_unlock(l);
	return key;
}

/*
 * skip_first_from - the first node whose key is not below, or NULL
 * Between epoch_enter() and epoch_exit(), where it stays readable. Takes no lock.
 */
BOTH_INLINE skip_node_t *skip_first_from(skiplist_t *l, __u64 key)
{
	skip_node_t *at = skip_head(l), *next = 0;
	unsigned int level = unknown(SKIP_LEVELS - 1);

	bounded(i, SKIP_STEPS) {
		next = skip_next(at, level % SKIP_LEVELS);
		if (next && load(&next->key) < key)
			at = next;
		else if (!level)
			break;
		else
			level--;
	}
	return next;
}

#ifndef __bpf__

/* skip_create - an empty list, or NULL (errno) */
static inline skiplist_t *skip_create(struct nolock_heap *heap)
{
	skiplist_t *l = nolock_heap_kmalloc(heap, sizeof(*l), GFP_KERNEL | __GFP_ZERO);

	if (!l)
		return NULL;
	l->rng = 0x9e3779b97f4a7c15ULL;
	l->epoch.now = 1;
	skip_head(l)->levels = SKIP_LEVELS;
	return l;
}

/* skip_destroy - when no program and no process uses it any more. Returns how many it freed. */
static inline __u64 skip_destroy(skiplist_t *l)
{
	skip_node_t *n = skip_next(skip_head(l), 0);
	__u64 freed = 0;

	for (; n; freed++) {
		skip_node_t *next = skip_next(n, 0);

		kfree(n);
		n = next;
	}
	for (n = (skip_node_t *)l->limbo_first; n; freed++) {
		skip_node_t *next = (skip_node_t *)n->limbo;

		kfree(n);
		n = next;
	}
	kfree(l);
	return freed;
}

#endif

#endif /* EXAMPLES_SKIPLIST_H */
