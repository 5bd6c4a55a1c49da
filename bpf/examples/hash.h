/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hash.h - a hash table in a shared heap, one source for programs and processes.
 *
 * A bucket is one word, {changes 32, first node 32}, whose number of changes is odd while somebody
 * changes the bucket. Changing: one cmpxchg makes it odd, one store makes it even again and names
 * the new first node. A bucket that stays odd for HASH_TRIES looks is given up with EBUSY_HERE: in
 * a program that interrupted the one who changes it, that will not end by waiting. So all calls
 * are wait-free, in any context, NMI included.
 *
 * Reading takes no lock: a reader follows the links and then asks whether the word is still the
 * same. A node is freed at once when it is removed, and may be another object by the time that
 * somebody reads it. That is harmless: heap memory stays readable, and before a reader follows a
 * link, or believes what it has read, it asks whether the word is still the same. (The number of
 * changes is the tag; a reader would have to sleep through exactly 2^31 changes to be deceived.)
 *
 * Links are the lower halves of addresses, as a heap in an arena is 4 GiB at most, and aligned so.
 * A process that is killed between the cmpxchg and the store leaves one bucket locked for good.
 */
#ifndef EXAMPLES_HASH_H
#define EXAMPLES_HASH_H

#include "both.h"

#define HASH_TRIES 64
#define HASH_CHAIN 1024 /* nodes that are looked at in one bucket */

struct hash_node {
	__u32 next;
	__u32 pad;
	__u64 key;
	__u64 value;
};

struct hash {
	__u64 base;  /* upper half of all addresses */
	__u64 cache; /* kmem_cache of the nodes */
	__u32 mask;  /* number of buckets - 1 */
	__u32 pad;
	__u64 busy; /* calls that were given up */
	__u64 bucket[];
};

typedef struct hash __shared hash_t;
typedef struct hash_node __shared hash_node_t;
typedef __u64 __shared hash_bucket_t;

/* With a bucket locked, so on both sides by the call that never waits. */
BOTH_INLINE hash_node_t *hash_new(hash_t *t)
{
	return (hash_node_t *)kmem_cache_alloc_nolock((struct kmem_cache __shared *)t->cache, 0,
						      NUMA_NO_NODE);
}

BOTH_INLINE hash_node_t *hash_node(hash_t *t, __u32 link)
{
	return link ? (hash_node_t *)(t->base | link) : (hash_node_t *)0;
}

BOTH_INLINE hash_bucket_t *hash_bucket(hash_t *t, __u64 key)
{
	return &t->bucket[(key * 0x9e3779b97f4a7c15ULL >> 32) & t->mask];
}

/* 0: it is locked, and *was is what it was; or EBUSY_HERE. The cmpxchg is an acquire. */
BOTH_INLINE int hash_lock(hash_t *t, hash_bucket_t *b, __u64 *was)
{
	bounded(i, HASH_TRIES) {
		__u64 word = load(b);

		*was = word;
		if (!(word >> 32 & 1) && cas(b, word, word + (1ULL << 32)))
			return 0;
	}
	add(&t->busy, 1);
	return EBUSY_HERE;
}

/* Even again, with another first node. The changes of the list come before it. */
BOTH_INLINE void hash_unlock(hash_bucket_t *b, __u64 was, __u32 first)
{
	store_release(b, ((was >> 32) + 2) << 32 | first);
}

/*
 * hash_add - add to the value of a key, which is 0 to begin with
 * Returns 0, EBUSY_HERE, E2BIG_HERE (the bucket is longer than HASH_CHAIN), ENOMEM_HERE: then a
 * process calls hash_more() and tries again. Any context.
 */
BOTH_FUNC int hash_add(hash_t *t BOTH_ARG, __u64 key, __u64 by)
{
	hash_bucket_t *b = hash_bucket(t, key);
	hash_node_t *n, *fresh;
	__u64 was;
	int err;

	err = hash_lock(t, b, &was);
	if (err)
		return err;
	n = hash_node(t, (__u32)was);
	bounded(i, HASH_CHAIN) {
		if (!n)
			break;
		if (n->key == key) {
			store(&n->value, n->value + by);
			hash_unlock(b, was, (__u32)was);
			return 0;
		}
		n = hash_node(t, n->next);
	}
	fresh = n ? (hash_node_t *)0 : hash_new(t);
	if (!fresh) {
		hash_unlock(b, was, (__u32)was);
		return n ? E2BIG_HERE : ENOMEM_HERE;
	}
	/* Somebody may still be reading what was here before, and will not believe it. */
	store(&fresh->key, key);
	store(&fresh->value, by);
	store(&fresh->next, (__u32)was);
	hash_unlock(b, was, (__u32)(__u64)fresh);
	return 0;
}

/*
 * hash_take - remove a key, and say what its value was
 * Returns 0, ENOENT_HERE, EBUSY_HERE, E2BIG_HERE as hash_add() does. Any context.
 */
BOTH_INLINE int hash_take(hash_t *t, __u64 key, __u64 *value)
{
	hash_bucket_t *b = hash_bucket(t, key);
	hash_node_t *n, *before = 0;
	__u32 first;
	__u64 was;
	int err;

	err = hash_lock(t, b, &was);
	if (err)
		return err;
	first = (__u32)was;
	n = hash_node(t, first);
	bounded(i, HASH_CHAIN) {
		if (!n || n->key == key)
			break;
		before = n;
		n = hash_node(t, n->next);
	}
	if (!n || n->key != key) {
		hash_unlock(b, was, first);
		return n ? E2BIG_HERE : ENOENT_HERE;
	}
	*value = n->value;
	if (before)
		store(&before->next, n->next);
	else
		first = n->next;
	hash_unlock(b, was, first);
	kfree_nolock(n);
	return 0;
}

/* hash_del - remove a key; the same for those whom its value does not concern */
BOTH_FUNC int hash_del(hash_t *t BOTH_ARG, __u64 key)
{
	__u64 value;

	return hash_take(t, key, &value);
}

/*
 * hash_get - a key's value
 * Returns 0, ENOENT_HERE, EBUSY_HERE. Any context; takes no lock and writes nothing.
 */
BOTH_INLINE int hash_get(hash_t *t, __u64 key, __u64 *value)
{
	hash_bucket_t *b = hash_bucket(t, key);
	hash_node_t *n = 0;
	__u64 word = 1ULL << 32, was;
	__u32 link = 0;

	bounded(i, HASH_TRIES + HASH_CHAIN) {
		if (!n) {
			/* The start, or the start again. */
			word = load_acquire(b);
			if (word >> 32 & 1)
				continue;
			link = (__u32)word;
		} else {
			__u64 found = load(&n->key);

			was = load(&n->value);
			link = load(&n->next);
			read_barrier(); /* what was read, before it is asked whether it was true */
			if (load(b) != word) {
				n = 0;
				continue;
			}
			if (found == key) {
				*value = was;
				return 0;
			}
		}
		n = hash_node(t, link);
		if (!n)
			return ENOENT_HERE;
	}
	return EBUSY_HERE;
}

#ifndef __bpf__

/* hash_create - an empty table of 2^bits buckets, and a cache for its nodes; or NULL (errno) */
static inline hash_t *hash_create(struct nolock_heap *heap, const char *name, unsigned int bits)
{
	hash_t *t = nolock_heap_kmalloc(heap, sizeof(*t) + (sizeof(__u64) << bits),
					GFP_KERNEL | __GFP_ZERO);
	struct kmem_cache *cache;

	if (!t)
		return NULL;
	cache = nolock_heap_kmem_cache_create(heap, name, sizeof(struct hash_node), NULL, 0);
	if (!cache) {
		kfree(t);
		return NULL;
	}
	t->base = (__u64)t >> 32 << 32;
	t->cache = (__u64)cache;
	t->mask = (1u << bits) - 1;
	return t;
}

/* hash_more - let the heap grow, which no nolock call does. Returns 0 or ENOMEM_HERE. */
static inline int hash_more(hash_t *t)
{
	struct kmem_cache *cache = (struct kmem_cache *)t->cache;
	void *p = kmem_cache_alloc(cache, GFP_KERNEL);

	if (!p)
		return ENOMEM_HERE;
	kmem_cache_free(cache, p);
	return 0;
}

/*
 * hash_read - copy one bucket's records out, all of one moment
 * Returns how many, up to max, or EBUSY_HERE.
 */
static inline int hash_read(hash_t *t, __u32 bucket, struct hash_node *to, int max)
{
	for (int i = 0; i < HASH_TRIES; i++) {
		__u64 word = load_acquire(&t->bucket[bucket]);
		hash_node_t *n = hash_node(t, (__u32)word);
		int got = 0;

		if (word >> 32 & 1)
			continue;
		while (n && got < max) {
			to[got].key = load(&n->key);
			to[got].value = load(&n->value);
			n = hash_node(t, load(&n->next));
			got++;
			read_barrier();
			if (load(&t->bucket[bucket]) != word)
				break;
		}
		read_barrier();
		if (load(&t->bucket[bucket]) == word)
			return got;
	}
	return EBUSY_HERE;
}

/* hash_destroy - when no program and no process uses it any more */
static inline void hash_destroy(hash_t *t)
{
	for (__u32 b = 0; b <= t->mask; b++) {
		hash_node_t *n = hash_node(t, (__u32)t->bucket[b]);

		while (n) {
			hash_node_t *next = hash_node(t, n->next);

			kfree(n);
			n = next;
		}
	}
	kmem_cache_destroy((struct kmem_cache *)t->cache);
	kfree(t);
}

#endif

#endif /* EXAMPLES_HASH_H */
