/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* cache.c - the life of a kmem_cache: an entry of the heap's table, the same for all who share it. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"
#include "debug.h"
#include "core/core.h"
#include "core/slot.h"

#define ALL_SLAB_FLAGS                                                                             \
	(SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT | SLAB_NO_MERGE | SLAB_TYPESAFE_BY_RCU |   \
	 NL_DEBUG_FLAGS)

/*
 * An entry's number and state are looked at by anyone at any time, also while the cache is destroyed
 * and another made in its place. Writer and reader work as with a sequence count whose odd values are
 * the states other than live: the writer, which has taken the state from free, counts `made` before it
 * writes anything else (the fence keeps that order), so a reader that saw any of it sees the count.
 */
#define ENTRY_FROM offsetof(struct nl_cache, size)
#define ENTRY_END offsetof(struct nl_cache, barn)
#define ENTRY_TRIES 16

static void copy_words(void *to, const void *from, size_t start, size_t end)
{
	for (size_t at = start; at < end; at += sizeof(nl_u32))
		nl_store((nl_u32 *)((char *)to + at),
			 nl_load((const nl_u32 *)((const char *)from + at)));
}

/*
 * All but the number of slabs: a free entry has none, but nl_heap_prefill() counts one before it looks whose
 * it would be, and takes it back.
 */
static void write_entry(nl_cache_t *c, const struct nl_cache *from)
{
	nl_store(&c->made, from->made);
	nl_mb();
	copy_words(c, from, ENTRY_FROM, offsetof(struct nl_cache, nr_slabs));
	copy_words(c, from, offsetof(struct nl_cache, left), ENTRY_END);
}

bool nl_cache_read(nl_cache_t *c, struct nl_cache *copy)
{
	/* Who keeps an entry of a shared heap changing does not keep its reader. */
	for (int i = 0; i < ENTRY_TRIES; i++) {
		nl_u64 made = nl_load_acquire(&c->made);

		if (nl_load_acquire(&c->state) != NL_CACHE_LIVE)
			return false;
		copy_words(copy, c, ENTRY_FROM, ENTRY_END);
		nl_mb();
		if (nl_load(&c->made) != made)
			continue;
		copy->state = NL_CACHE_LIVE;
		copy->name[NL_NAME - 1] = 0;
		return true;
	}
	return false;
}

static void clear_words(void *p, size_t size)
{
	for (size_t at = 0; at < size; at += sizeof(nl_u64))
		nl_store((nl_u64 *)((char *)p + at), 0);
}

static struct kmem_cache *create(struct nolock_heap *heap, const char *name,
				 unsigned int object_size, const struct kmem_cache_args *args,
				 slab_flags_t flags)
{
	static const struct kmem_cache_args defaults;
	unsigned int align, size;
	struct nl_cache new = { 0 };
	nl_cache_t *c = NULL;
	nl_u32 id;

	if (!args)
		args = &defaults;
	align = args->align ? args->align : sizeof(void *);
	if (!name || !*name || !object_size || object_size > NL_MAX_SIZE || (align & (align - 1)) ||
	    align > NL_CHUNK_SIZE || args->sheaf_capacity > NL_SHEAF_MAX ||
	    (flags & ~ALL_SLAB_FLAGS) ||
	    ((flags & NL_DEBUG_FLAGS) && heap->type != NL_HEAP_PRIVATE) ||
	    (args->ctor && heap->type != NL_HEAP_PRIVATE)) {
		errno = EINVAL;
		return NULL;
	}
	if ((flags & SLAB_TYPESAFE_BY_RCU) && heap->type == NL_HEAP_PRIVATE && !heap->rcu) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (flags & SLAB_HWCACHE_ALIGN) {
		unsigned int line = 64;

		/* As calculate_alignment() of slab_common.c: small objects share a line evenly. */
		while (object_size <= line / 2 && line > 16)
			line /= 2;
		if (align < line)
			align = line;
	}
	size = (object_size + align - 1) / align * align;
	if (size < NL_MIN_SIZE)
		size = NL_MIN_SIZE;
	size = (size + 7) / 8 * 8;
	for (id = NL_NR_KMALLOC; id < NL_MAX_CACHES; id++) {
		c = nl_cache(heap->h, id);
		if (nl_cas(&c->state, NL_CACHE_FREE, NL_CACHE_BUSY_BY(heap->client)))
			break;
	}
	if (id == NL_MAX_CACHES) {
		errno = ENOSPC;
		return NULL;
	}
	nl_cache_shape(&new, id, object_size, size);
	new.align = align;
	new.flags = flags;
	if ((flags & SLAB_TYPESAFE_BY_RCU) && heap->type == NL_HEAP_PRIVATE)
		new.mode = NL_CACHE_TYPESAFE;
	new.ctor = (nl_u64)(uintptr_t)args->ctor;
	if (args->sheaf_capacity)
		new.capacity = args->sheaf_capacity;
	strncpy(new.name, name, NL_NAME - 1);
	if (heap->type == NL_HEAP_PRIVATE) {
		nl_debug_cache(&new, flags | nl_debug_flags(new.name));
		nl_debug_prepare(new.flags);
	}
	new.made = nl_load(&c->made) + 1;
	write_entry(c, &new);
	nl_store_release(&c->state, NL_CACHE_LIVE);
	return (struct kmem_cache *)c;
}

struct kmem_cache *nolock_heap_kmem_cache_create(struct nolock_heap *heap, const char *name,
						 unsigned int object_size,
						 const struct kmem_cache_args *args,
						 slab_flags_t flags)
{
	struct kmem_cache *s = NULL;

	if (!heap || heap->snapshot)
		errno = heap ? EINVAL : ENOMEM;
	else
		s = create(heap, name, object_size, args, flags);
	if (!s && (flags & SLAB_PANIC)) {
		fprintf(stderr, "nolock: cannot create cache '%s': %s\n", name ? name : "",
			strerror(errno));
		abort();
	}
	return s;
}

struct kmem_cache *kmem_cache_create(const char *name, unsigned int object_size,
				     const struct kmem_cache_args *args, slab_flags_t flags)
{
	return nolock_heap_kmem_cache_create(nl_default_get(), name, object_size, args, flags);
}

struct kmem_cache *nolock_heap_kmem_cache_find(struct nolock_heap *heap, const char *name)
{
	for (nl_u32 id = 0; heap && name && id < NL_MAX_CACHES; id++) {
		nl_cache_t *c = nl_cache(heap->h, id);
		struct nl_cache copy;

		if (nl_cache_read(c, &copy) && !strncmp(copy.name, name, NL_NAME - 1))
			return (struct kmem_cache *)c;
	}
	errno = ENOENT;
	return NULL;
}

/*
 * A slab that is just added, or given back, has its lock held, and not all of its bits. Who dies there
 * leaves the lock to a repair, and the cache its slab.
 */
unsigned long nl_objects_left(nl_heap_t *h, nl_cache_t *c)
{
	nl_u32 end = nl_load_acquire(&h->nr_open) << NL_GROUP_SHIFT;
	unsigned long left = 0;

	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_slab_t *slab = nl_slab(h, chunk);
		unsigned long its = c->per_slab;

		if (nl_load(nl_tag(h, chunk)) != NL_TAG(NL_KIND_SLAB, c->id))
			continue;
		for (nl_u32 w = 0; w < c->words; w++)
			its -= (unsigned long)__builtin_popcountll(nl_load(&slab->free[w]));
		/* The bits before the lock and the tag, as they were then. */
		nl_mb();
		if (!nl_load(&slab->lock) &&
		    nl_load(nl_tag(h, chunk)) == NL_TAG(NL_KIND_SLAB, c->id))
			left += its;
	}
	return left;
}

/*
 * The next cache with this number counts from 0. This one's objects are all gone, so what its slot
 * has more frees than allocations are bad frees that the heap has counted as dropped.
 */
static void forget_slot(nl_heap_t *h, nl_slot_t *slot)
{
	const nl_u64 *stat = slot->stat;
	nl_u64 balance = nl_load(&stat[NL_STAT_IN]) - nl_load(&stat[NL_STAT_OUT]) -
			 NL_WORD_SIZE(nl_load(&slot->word)) +
			 nl_load(&stat[NL_STAT_ALLOC_SLOWPATH]) -
			 nl_load(&stat[NL_STAT_FREE_SLOWPATH]);

	nl_add(&h->refused, nl_load(&stat[NL_STAT_FREE_REFUSED]));
	nl_add(&h->lost, balance);
	/* What is biased, held or not, no other CPU takes away: a bad free may have a program at it. */
	if (!(nl_load(&slot->lock) & NL_BIAS))
		nl_store(&slot->lock, 0);
	clear_words(&slot->word, sizeof(*slot) - offsetof(struct nl_slot, word));
}

void nl_cache_forget(struct nolock_heap *heap, nl_u32 id)
{
	nl_cache_t *c = nl_cache(heap->h, id);

	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
		forget_slot(heap->h, nl_rslot(heap->h, cpu, id));
		forget_slot(heap->h, nl_aslot(heap->h, cpu, id));
	}
	/* Empty, or locked by another thread's maintenance, which leaves it empty. */
	for (nl_u32 node = 0; node < NL_MAX_NODES; node++) {
		nl_barn_t *barn = &c->barn[node];

		nl_barn_level(heap->h, barn, 0);
		if (!nl_barn_lock(barn, nl_who(heap), NL_SPIN))
			continue;
		clear_words(&barn->full, sizeof(barn->full));
		clear_words(&barn->empty, sizeof(barn->empty));
		nl_barn_unlock(barn);
	}
	nl_store_release(&c->state, NL_CACHE_FREE);
}

/*
 * A cache without slabs stops being one. nl_heap_prefill() counts a slab before it looks at the state:
 * either it sees that the cache is gone, or its slab is seen here.
 */
static bool close_cache(struct nolock_heap *heap, nl_cache_t *c)
{
	if (nl_load(&c->nr_slabs))
		return false;
	nl_store(&c->state, NL_CACHE_BUSY_BY(heap->client));
	nl_mb();
	if (!nl_load(&c->nr_slabs))
		return true;
	nl_store_release(&c->state, NL_CACHE_LIVE);
	return false;
}

int kmem_cache_destroy(struct kmem_cache *s)
{
	nl_cache_t *c = (nl_cache_t *)s;
	struct nolock_heap *heap;
	unsigned long left = 0;
	bool gone = false;
	slab_flags_t flags;
	int err;

	if (!s)
		return 0;
	heap = nolock_heap_of(s);
	if (!heap || c->id < NL_NR_KMALLOC || nl_load(&c->state) != NL_CACHE_LIVE)
		return -EINVAL;
	err = nl_rcu_drain(heap);
	if (err)
		return err;
	nl_debug_unkeep(heap, c->id);
	flags = c->flags;
	/* Nobody reads its objects any more, in no process. */
	if (heap->type != NL_HEAP_PRIVATE)
		nl_store(&c->flags, flags & ~SLAB_TYPESAFE_BY_RCU);
	for (int i = 0; i < NL_LEFT_TRIES && !gone; i++) {
		if (i)
			sched_yield();
		nl_cache_shrink(heap, c->id);
		nl_rcu_kick(heap);
		left = nl_objects_left(heap->h, c);
		gone = !left && close_cache(heap, c);
	}
	if (!gone) {
		nl_store(&c->flags, flags);
		if (left) {
			fprintf(stderr,
				"nolock: cache '%s' is not destroyed: %lu object%s still in use\n",
				c->name, left, left == 1 ? "" : "s");
			nl_debug_leaks(heap, c->id, left);
		} else {
			fprintf(stderr,
				"nolock: cache '%s' is not destroyed: no object is in use, but its "
				"slabs come and go; try again\n",
				c->name);
		}
		return -EBUSY;
	}
	nl_cache_forget(heap, c->id);
	return 0;
}

unsigned int kmem_cache_size(const struct kmem_cache *s)
{
	return s ? ((const struct nl_cache *)s)->object_size : 0;
}

int kmem_cache_shrink(struct kmem_cache *s)
{
	struct nolock_heap *heap = s ? nolock_heap_of(s) : NULL;
	int slabs;

	if (!heap)
		return 0;
	slabs = (int)nl_cache_shrink(heap, nl_cache_id(s));
	nl_rcu_kick(heap);
	return slabs;
}
