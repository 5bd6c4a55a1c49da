// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_forms.c - the forms of allocating beside one object at a time: constant sizes in
 * line, caches, bulk, prefilled sheaves; called by a program, with user space on the other side.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "core/kmalloc.h"
#include "nolock_help.h"

#define SIZE 96u
#define CAPACITY 20u
#define MOST 4096u

struct env {
	struct nolock_heap *heap;
	struct nolock_call_bpf *s;
	struct kmem_cache *cache;
	void **array; /* in the heap: room for MOST pointers */
};

static struct env start(unsigned int groups)
{
	struct kmem_cache_args args = { .sheaf_capacity = CAPACITY };
	struct env e = { .heap = heap_new(0, groups) };

	pin(0);
	e.s = call_load(nolock_heap_fd(e.heap));
	e.cache = nolock_heap_kmem_cache_create(e.heap, "forms", SIZE, &args, 0);
	e.array = nolock_heap_kmalloc(e.heap, MOST * sizeof(void *), GFP_KERNEL);
	cr_assert(e.cache && e.array);
	return e;
}

static struct nolock_heap_report look(struct env *e)
{
	struct nolock_heap_report r;

	cr_assert_eq(nolock_heap_check(e->heap, &r), 0, "%s", r.first_error);
	return r;
}

static void finish(struct env *e)
{
	kfree(e->array);
	cr_assert_eq(kmem_cache_destroy(e->cache), 0);
	heap_whole(e->heap, 0, "at the end");
}

static nl_u64 take_bulk(struct env *e, nl_u32 nr, nl_u32 flags)
{
	return call_with(e->s, CALL_ALLOC_BULK, e->cache, e->array, nr, flags);
}

static void free_bulk(struct env *e, nl_u32 nr)
{
	call_with(e->s, CALL_FREE_BULK, e->cache, e->array, nr, 0);
}

#define LISTED(size) size,
static const nl_u32 const_sizes[] = { CALL_CONST_SIZES(LISTED) };
#define NR_CONST (sizeof(const_sizes) / sizeof(const_sizes[0]))

Test(nolock_forms, constant_sizes)
{
	struct env e = start(4);

	for (unsigned int i = 0; i < NR_CONST; i++) {
		nl_u32 size = const_sizes[i];

		/* In line, and behind it when a sheaf is empty; the same bucket as any other way. */
		for (unsigned int k = 0; k < 300; k++) {
			unsigned char *p = (void *)call1(e.s, CALL_CONST_ALLOC, size, 0, 0);
			nl_u64 other = call1(e.s, CALL_ALLOC, size, 0, NUMA_NO_NODE);

			cr_assert(p && other, "size %u", size);
			cr_assert_eq(ksize(p), ksize((void *)other), "size %u: %zu and %zu", size,
				     ksize(p), ksize((void *)other));
			memset(p, 0xa5, ksize(p));
			kfree_nolock((void *)other);
			e.array[k] = p;
		}
		for (unsigned int k = 0; k < 300; k++)
			call1(e.s, CALL_FREE, (nl_u64)e.array[k], 0, 0);
		for (unsigned int k = 0; k < 300; k++) {
			unsigned char *p = (void *)call1(e.s, CALL_CONST_ZALLOC, size, 0, 0);

			cr_assert(p);
			for (unsigned int b = 0; b < size; b++)
				cr_assert_eq(p[b], 0, "size %u, byte %u is %#x", size, b, p[b]);
			e.array[k] = p;
		}
		for (unsigned int k = 0; k < 300; k++)
			kfree_nolock(e.array[k]);
	}
	cr_assert_eq(look(&e).refused, 0);
	finish(&e);
}

Test(nolock_forms, only_caches_are_caches)
{
	struct env e = start(2);
	struct kmem_cache *gone = nolock_heap_kmem_cache_create(e.heap, "gone", 64, NULL, 0);
	char *fake = nolock_heap_kmalloc(e.heap, 4096, GFP_KERNEL);
	const void *const bad[] = { NULL,
				    (void *)16,
				    e.heap->base,
				    (char *)e.cache + 64,
				    fake,
				    (char *)e.cache - 1,
				    (void *)~0ULL,
				    (void *)(nl_u64)(nl_u32)(nl_u64)e.heap->h,
				    (void *)&e.heap,
				    gone };

	cr_assert(gone && fake);
	cr_assert_eq(kmem_cache_destroy(gone), 0);
	/* A copy of a cache is none: two of them would share what there is one of. */
	memcpy(fake, e.cache, sizeof(struct nl_cache));
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(call_with(e.s, CALL_CACHE_ALLOC, bad[i], NULL, 0, 0), 0, "%p", bad[i]);
		cr_assert_eq(call_with(e.s, CALL_CACHE_ALLOC, bad[i], NULL, 0, __GFP_NOWARN), 0);
		cr_assert_eq(call_with(e.s, CALL_CACHE_ZALLOC, bad[i], NULL, 0, 0), 0);
		cr_assert_eq(call_with(e.s, CALL_ALLOC_BULK, bad[i], e.array, 4, 0), 0);
		cr_assert_eq(call_with(e.s, CALL_PREFILL, bad[i], NULL, 4, 0), 0);
	}
	cr_assert_eq(call1(e.s, CALL_CACHE_ALLOC, (nl_u64)e.cache, 0, 1), 0, "node 1");
	cr_assert_eq(call1(e.s, CALL_CACHE_ALLOC, (nl_u64)e.cache, __GFP_DIRECT_RECLAIM, -1), 0);
	for (unsigned int i = 0; i < 3 * CAPACITY; i++) {
		unsigned char *p = (void *)call_with(e.s, CALL_CACHE_ZALLOC, e.cache, NULL, 0, 0);

		cr_assert(p);
		for (unsigned int b = 0; b < SIZE; b++)
			cr_assert_eq(p[b], 0);
		memset(p, 0x77, SIZE);
		call_with(e.s, CALL_CACHE_FREE, e.cache, p, 0, 0);
	}
	kfree(fake);
	finish(&e);
}

Test(nolock_forms, bulk)
{
	static const nl_u32 nrs[] = { 1, 2, CAPACITY - 1, CAPACITY, CAPACITY + 1, 300, 1000, MOST };
	struct env e = start(4);

	for (unsigned int i = 0; i < 2 * sizeof(nrs) / sizeof(nrs[0]); i++) {
		nl_u32 nr = nrs[i / 2], flags = i & 1 ? __GFP_ZERO : 0;

		cr_assert_eq(take_bulk(&e, nr, flags), nr, "%u objects", nr);
		heap_whole(e.heap, nr + 1, "bulk");
		for (nl_u32 k = 0; k < nr; k++) {
			unsigned char *p = e.array[k];

			cr_assert_eq(nl_cache_of(e.heap->h, (nl_u64)p), (int)nl_cache_id(e.cache));
			for (unsigned int b = 0; flags && b < SIZE; b++)
				cr_assert_eq(p[b], 0);
			memset(p, (int)k, SIZE);
		}
		for (nl_u32 k = 0; k < nr; k++)
			for (unsigned int b = 0; b < SIZE; b++)
				cr_assert_eq(((unsigned char *)e.array[k])[b], k & 0xff,
					     "two objects overlap");
		/* Freed on either side. */
		if (nr & 1)
			kmem_cache_free_bulk(e.cache, nr, e.array);
		else
			free_bulk(&e, nr);
		heap_whole(e.heap, 1, "bulk freed");
	}
	cr_assert_eq(take_bulk(&e, 0, 0), 0);
	cr_assert_eq(take_bulk(&e, MOST + 1, 0), 0);
	cr_assert_eq(take_bulk(&e, 4, __GFP_DIRECT_RECLAIM), 0);
	cr_assert_eq(look(&e).refused, 0);
	free_bulk(&e, 0);
	free_bulk(&e, MOST + 1);
	cr_assert_eq(look(&e).refused, 1);
	finish(&e);
}

Test(nolock_forms, bulk_is_all_or_nothing)
{
	struct env e = start(1);
	struct nolock_heap_report before, after;
	void *held[64];
	nl_u32 n = 0;

	/* All memory but five chunks is gone, which is less than the objects of one bulk need. */
	while (n < 64 && (held[n] = nolock_heap_kmalloc(e.heap, 300000, GFP_NOWAIT)))
		n++;
	cr_assert(n && n < 64);
	while (call_with(e.s, CALL_CACHE_ALLOC, e.cache, NULL, 0, 0))
		;
	kfree(held[--n]);
	before = look(&e);
	cr_assert_eq(take_bulk(&e, MOST, 0), 0);
	after = look(&e);
	cr_assert_eq(after.allocated, before.allocated, "%lu objects in use, not %lu",
		     after.allocated, before.allocated);
	/* It is not lost: fewer can still be had. */
	cr_assert_eq(take_bulk(&e, 3000, 0), 3000);
	figure("all or nothing: 4096 objects refused, 3000 had");
	free_bulk(&e, 3000);
	after = look(&e);
	cr_assert_eq(after.allocated, before.allocated);
}

/* Another cache's, large ones, nothing at all, half addresses: each goes where it belongs. */
Test(nolock_forms, bulk_free_of_anything)
{
	struct env e = start(4);
	unsigned long refused;
	nl_u32 n = 0;
	char *obj;

	for (nl_u32 size = 16; size <= 32768; size *= 2)
		for (unsigned int i = 0; i < 5; i++)
			e.array[n++] = (void *)call1(e.s, CALL_ALLOC, size, 0, NUMA_NO_NODE);
	e.array[n++] = NULL;
	e.array[n++] = (void *)16;
	e.array[n++] = nolock_heap_kmalloc(e.heap, 300000, GFP_KERNEL);
	obj = (void *)call_with(e.s, CALL_CACHE_ALLOC, e.cache, NULL, 0, 0);
	e.array[n++] = (void *)(nl_u64)(nl_u32)(nl_u64)obj;
	for (nl_u32 i = 0; i < n; i++)
		cr_assert(e.array[i] || i == n - 4);
	free_bulk(&e, n);
	heap_whole(e.heap, 1, "freed in bulk");
	refused = look(&e).refused;
	cr_assert_eq(refused, 0);
	/* No objects: refused and counted, one by one, and those beside them are freed. */
	e.array[0] = (void *)call_with(e.s, CALL_CACHE_ALLOC, e.cache, NULL, 0, 0);
	e.array[1] = (char *)e.array[0] + 8;
	e.array[2] = e.heap->base;
	e.array[3] = (void *)&e;
	e.array[4] = (void *)0x1234567800000000ULL;
	e.array[5] = (void *)call_with(e.s, CALL_CACHE_ALLOC, e.cache, NULL, 0, 0);
	free_bulk(&e, 6);
	heap_whole(e.heap, 1, "freed beside nonsense");
	cr_assert_eq(look(&e).refused, 4);
	finish(&e);
}

static struct slab_sheaf *prefill(struct env *e, bool bpf, nl_u32 nr)
{
	return bpf ? (struct slab_sheaf *)call_with(e->s, CALL_PREFILL, e->cache, NULL, nr, 0) :
		     kmem_cache_prefill_sheaf(e->cache, GFP_KERNEL, nr);
}

static void *from(struct env *e, bool bpf, struct slab_sheaf *sheaf)
{
	return bpf ? (void *)call_with(e->s, CALL_FROM_SHEAF, e->cache, sheaf, 0, __GFP_ZERO) :
		     kmem_cache_alloc_from_sheaf(e->cache, __GFP_ZERO, sheaf);
}

static nl_u32 left(struct env *e, bool bpf, struct slab_sheaf *sheaf)
{
	return bpf ? (nl_u32)call_with(e->s, CALL_SHEAF_SIZE, NULL, sheaf, 0, 0) :
		     kmem_cache_sheaf_size(sheaf);
}

static void give_back(struct env *e, bool bpf, struct slab_sheaf *sheaf)
{
	if (bpf)
		call_with(e->s, CALL_RETURN, e->cache, sheaf, 0, 0);
	else
		kmem_cache_return_sheaf(e->cache, GFP_KERNEL, sheaf);
}

/* Each of the two sides fills, uses and returns, in all combinations, at all sizes. */
Test(nolock_forms, sheaves_cross)
{
	static const nl_u32 nrs[] = { 1, 5, CAPACITY, CAPACITY + 1, 126, 127, 1000, 4095 };
	struct env e = start(4);

	for (unsigned int i = 0; i < 8 * sizeof(nrs) / sizeof(nrs[0]); i++) {
		bool fills = i & 1, uses = i & 2, returns = i & 4;
		nl_u32 nr = nrs[i / 8], size, used = nr / 2 + 1;
		struct slab_sheaf *sheaf = prefill(&e, fills, nr);

		cr_assert(sheaf, "%u objects", nr);
		size = left(&e, uses, sheaf);
		cr_assert_geq(size, nr);
		cr_assert_eq(left(&e, fills, sheaf), size);
		for (nl_u32 k = 0; k < used; k++) {
			e.array[k] = from(&e, uses, sheaf);
			cr_assert(e.array[k]);
			for (unsigned int b = 0; b < SIZE; b++)
				cr_assert_eq(((char *)e.array[k])[b], 0);
			memset(e.array[k], 0x5a, SIZE);
		}
		cr_assert_eq(left(&e, returns, sheaf), size - used);
		/* An oversize sheaf is an object itself, and its objects are allocated ones. */
		heap_whole(e.heap, 1 + (nr > CAPACITY ? 1 + size : used), "a sheaf in use");
		give_back(&e, returns, sheaf);
		heap_whole(e.heap, 1 + used, "the sheaf returned");
		kmem_cache_free_bulk(e.cache, used, e.array);
		heap_whole(e.heap, 1, "its objects freed");
	}
	cr_assert_eq(look(&e).refused, 0);
	finish(&e);
}

Test(nolock_forms, sheaves_used_up_and_returned_twice)
{
	struct env e = start(2);

	for (unsigned int i = 0; i < 2; i++) {
		struct slab_sheaf *sheaf = prefill(&e, i, 3);
		nl_u32 n = left(&e, i, sheaf);
		unsigned long refused = look(&e).refused;

		for (nl_u32 k = 0; k < n; k++)
			kfree_nolock(from(&e, !i, sheaf));
		cr_assert_null(from(&e, i, sheaf));
		cr_assert_null(from(&e, !i, sheaf));
		give_back(&e, i, sheaf);
		cr_assert_null(from(&e, i, sheaf));
		cr_assert_null(from(&e, !i, sheaf));
		give_back(&e, i, sheaf);
		give_back(&e, !i, sheaf);
		heap_whole(e.heap, 1, "returned twice");
		cr_assert_eq(look(&e).refused, refused + 2, "%lu, were %lu", look(&e).refused,
			     refused);
	}
	cr_assert_eq(call_with(e.s, CALL_PREFILL, e.cache, NULL, 0, 0), 0);
	cr_assert_eq(call_with(e.s, CALL_PREFILL, e.cache, NULL, 4096, 0), 0);
	cr_assert_eq(call_with(e.s, CALL_PREFILL, e.cache, NULL, 4, __GFP_DIRECT_RECLAIM), 0);
	cr_assert_eq(call_with(e.s, CALL_FROM_SHEAF, e.cache, NULL, 0, 0), 0);
	cr_assert_eq(call_with(e.s, CALL_SHEAF_SIZE, NULL, (void *)&e, 0, 0), 0);
	call_with(e.s, CALL_RETURN, e.cache, NULL, 0, 0);
	finish(&e);
}

/* What a dead client's sheaf has goes back, unless a program has taken the sheaf over. */
Test(nolock_forms, sheaves_of_the_dead)
{
	struct env e = start(2);
	struct slab_sheaf *its, *taken;
	void *obj, *last;

	/* As the client that dies. */
	e.heap->client = 7;
	its = prefill(&e, false, 5);
	taken = prefill(&e, false, 5);
	cr_assert(its && taken);
	e.heap->client = 1;
	obj = from(&e, true, taken);
	cr_assert(obj);
	cr_assert_eq(NL_OWNER_CLIENT(((struct nl_sheaf *)taken)->owner), NL_CLIENT_BPF);
	nl_heap_repair(e.heap, 7);
	heap_whole(e.heap, 2, "after the repair");
	cr_assert_eq(((struct nl_sheaf *)its)->owner, 0, "the dead one's sheaf is still there");
	cr_assert_null(from(&e, true, its));
	cr_assert_null(from(&e, false, its));
	last = from(&e, true, taken);
	cr_assert(last && last != obj);
	/* And back: it is this process's now, and goes with it. */
	cr_assert(e.array[0] = from(&e, false, taken));
	cr_assert_eq(NL_OWNER_CLIENT(((struct nl_sheaf *)taken)->owner), 1);
	e.heap->client = 2;
	nl_heap_repair(e.heap, 1);
	cr_assert_eq(((struct nl_sheaf *)taken)->owner, 0);
	heap_whole(e.heap, 4, "after the second repair");
	kfree(obj);
	kfree(last);
	kfree(e.array[0]);
	finish(&e);
}

Test(nolock_forms, root)
{
	struct env e = start(1);

	cr_assert_eq(call_with(e.s, CALL_ROOT, NULL, NULL, 0, 0), 0);
	nolock_heap_set_root(e.heap, e.array);
	cr_assert_eq(call_with(e.s, CALL_ROOT, NULL, NULL, 0, 0), (nl_u64)e.array);
	finish(&e);
}
