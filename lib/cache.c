/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* cache.c - the life of a kmem_cache: an entry of the heap's table, the same for all who share it. */
#define _GNU_SOURCE
#include <errno.h>
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

static struct kmem_cache *create(struct nolock_heap *heap, const char *name,
				 unsigned int object_size, const struct kmem_cache_args *args,
				 slab_flags_t flags)
{
	static const struct kmem_cache_args defaults;
	unsigned int align, size;
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
	nl_cache_shape(c, id, object_size, size);
	c->align = align;
	c->flags = flags;
	c->mode = (flags & SLAB_TYPESAFE_BY_RCU) && heap->type == NL_HEAP_PRIVATE ?
			  NL_CACHE_TYPESAFE :
			  0;
	c->rcu_sheaf = c->rcu_sheaf_fail = 0;
	c->left = 0;
	c->bugs = 0;
	c->ctor = (nl_u64)(uintptr_t)args->ctor;
	if (args->sheaf_capacity)
		c->capacity = args->sheaf_capacity;
	memset(c->name, 0, NL_NAME);
	strncpy(c->name, name, NL_NAME - 1);
	if (heap->type == NL_HEAP_PRIVATE) {
		nl_debug_cache(c, flags | nl_debug_flags(c->name));
		nl_debug_prepare(c->flags);
	}
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

		if (nl_load_acquire(&c->state) == NL_CACHE_LIVE && !strncmp(c->name, name, NL_NAME))
			return (struct kmem_cache *)c;
	}
	errno = ENOENT;
	return NULL;
}

/* Objects that are not free in the cache's slabs, once its sheaves are empty. */
static unsigned long objects_left(nl_heap_t *h, nl_cache_t *c)
{
	nl_u32 end = nl_load_acquire(&h->nr_open) << NL_GROUP_SHIFT;
	unsigned long left = 0;

	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		if (nl_load(nl_tag(h, chunk)) != NL_TAG(NL_KIND_SLAB, c->id))
			continue;
		left += c->per_slab;
		for (nl_u32 w = 0; w < c->words; w++)
			left -= (unsigned long)__builtin_popcountll(
				nl_load(&nl_slab(h, chunk)->free[w]));
	}
	return left;
}

void nl_cache_forget(struct nolock_heap *heap, nl_u32 id)
{
	nl_cache_t *c = nl_cache(heap->h, id);

	/* The next cache with this number counts from 0. */
	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
		memset(nl_rslot(heap->h, cpu, id), 0, sizeof(struct nl_slot));
		memset(nl_aslot(heap->h, cpu, id), 0, sizeof(struct nl_slot));
	}
	memset(c->barn, 0, sizeof(c->barn));
	nl_store_release(&c->state, NL_CACHE_FREE);
}

int kmem_cache_destroy(struct kmem_cache *s)
{
	nl_cache_t *c = (nl_cache_t *)s;
	struct nolock_heap *heap;
	unsigned long left;
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
	nl_cache_shrink(heap, c->id);
	nl_rcu_kick(heap);
	left = objects_left(heap->h, c);
	if (left || nl_load(&c->nr_slabs)) {
		nl_store(&c->flags, flags);
		fprintf(stderr, "nolock: cache '%s' is not destroyed: %lu object%s still in use\n",
			c->name, left, left == 1 ? "" : "s");
		nl_debug_leaks(heap, c->id, left);
		return -EBUSY;
	}
	nl_store(&c->state, NL_CACHE_BUSY_BY(heap->client));
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
