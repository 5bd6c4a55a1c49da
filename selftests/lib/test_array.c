// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_array.c - per-CPU arrays, and the way of a prefilled sheaf by spare and barn: what is
 * counted where, on each kind of heap, and with locks held.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "hold.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)
enum { COUNT = 32 };

static void stat_of(struct kmem_cache *s, struct nolock_cache_stat *st)
{
	cr_assert_eq(nolock_heap_cache_stat(nolock_heap_of(s), nl_cache_id(s), st), 0);
}

/* One CPU: the array that is filled is the one that is asked. */
static void stay_here(void)
{
	cr_assert_eq(stay_on((unsigned int)sched_getcpu()), 0);
}

static void hold_slots(struct kmem_cache *s, nl_u64 word)
{
	struct nolock_heap *heap = nolock_heap_of(s);

	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
		hold_rslot(nl_rslot(heap->h, cpu, nl_cache_id(s)), word);
		hold_aslot(nl_aslot(heap->h, cpu, nl_cache_id(s)), word);
	}
}

Test(array, setup_arguments)
{
	struct kmem_cache *plain = kmem_cache_create("no-array", 64, NULL, 0);
	struct kmem_cache *s = kmem_cache_create("array", 64, NULL, SLAB_NO_MERGE);
	void *p;

	cr_assert_eq(kmem_cache_setup_percpu_array(NULL, COUNT), -EINVAL);
	cr_assert_eq(kmem_cache_setup_percpu_array(plain, COUNT), -EINVAL);
	cr_assert_eq(kmem_cache_prefill_percpu_array(plain, 1, GFP_KERNEL), -EINVAL);
	cr_assert_eq(kmem_cache_setup_percpu_array(s, 0), -EINVAL);
	cr_assert_eq(kmem_cache_setup_percpu_array(s, 127), -EINVAL);
	cr_assert_not_null(p = kmem_cache_alloc(s, GFP_KERNEL));
	cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), -EBUSY);
	kmem_cache_free(s, p);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	s = kmem_cache_create("array", 64, NULL, SLAB_NO_MERGE);
	cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), 0);
	cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), -EINVAL);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, COUNT + 1, GFP_KERNEL), -EINVAL);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, 1, 0x1), -EINVAL);
	cr_assert_eq(kmem_cache_prefill_percpu_array(NULL, 1, GFP_KERNEL), -EINVAL);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, 0, GFP_KERNEL), 0);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(kmem_cache_destroy(plain), 0);
	expect_whole(nolock_heap_default(), NULL, "after bad arguments");
}

/* nolockd may have slabs ready for a cache before its maker comes to this. */
Test(array, set_up_behind_nolockd)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, HEAP_SIZE);
	struct kmem_cache *s =
		nolock_heap_kmem_cache_create(heap, "array", 200, NULL, SLAB_NO_MERGE);
	struct nolock_cache_stat st;

	cr_assert_gt(nl_heap_prefill(heap, 100000), 0);
	stat_of(s, &st);
	cr_assert_gt(st.slabs, 0);
	cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), 0);
	cr_assert_gt(nl_heap_prefill(heap, 100000), 0);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, COUNT, GFP_KERNEL), 0);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	expect_whole(heap, NULL, "after an array behind nolockd");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(array, filled_by_frees_and_bypassed)
{
	static void *p[3 * COUNT];
	struct nolock_heap *heap;

	stay_here();
	for_each_kind(heap, HEAP_SIZE) {
		struct kmem_cache *s =
			nolock_heap_kmem_cache_create(heap, "array", 200, NULL, SLAB_NO_MERGE);
		struct nolock_cache_stat st;

		cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), 0);
		/* Empty: bypassed, and not filled by allocating. */
		for (int i = 0; i < 3 * COUNT; i++)
			cr_assert_not_null(p[i] = kmem_cache_alloc(s, GFP_KERNEL));
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_CPU_CACHE], 0);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_SLOWPATH], 3 * COUNT);
		cr_assert_eq(st.in_sheaves, 0);
		/* Filled by freeing, then full and bypassed. An interruption may use the A-slot's. */
		for (int i = 0; i < 3 * COUNT; i++)
			kmem_cache_free(s, p[i]);
		stat_of(s, &st);
		cr_assert_geq(st.in_sheaves, COUNT);
		cr_assert_eq(st.stat[NOLOCK_FREE_CPU_CACHE], st.in_sheaves);
		cr_assert_eq(st.stat[NOLOCK_FREE_SLOWPATH], 3 * COUNT - st.in_sheaves);
		cr_assert_leq(st.in_sheaves, 2 * COUNT, "%s", heap_kinds[kind]);
		cr_assert_eq(st.barn_full + st.barn_empty, 0);
		cr_assert_eq(st.stat[NOLOCK_FREE_FASTPATH], 0);
		/* What is in it comes out first. */
		for (int i = 0; i < COUNT; i++)
			cr_assert_not_null(p[i] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_CPU_CACHE], COUNT);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_SLOWPATH], 3 * COUNT);
		for (int i = 0; i < COUNT; i++)
			kfree(p[i]);
		expect_whole(heap, NULL, "with arrays");
		/* Bulk, and prefilled sheaves, work on such a cache as on any. */
		cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, 3 * COUNT, p), 3 * COUNT);
		kmem_cache_free_bulk(s, 3 * COUNT, p);
		kmem_cache_return_sheaf(s, GFP_KERNEL,
					kmem_cache_prefill_sheaf(s, GFP_KERNEL, COUNT / 2));
		stat_of(s, &st);
		cr_assert_eq(st.barn_full + st.barn_empty, 0);
		cr_assert_eq(st.allocated, 0);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		expect_whole(heap, NULL, "after arrays");
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(array, prefilled)
{
	static const gfp_t flags[] = { GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC, 0 };
	static void *p[2 * COUNT];
	struct nolock_heap *heap;

	stay_here();
	for_each_kind(heap, HEAP_SIZE) {
		cr_assert_eq(nolock_heap_populate(heap, 4 * MiB), 0);
		for (size_t f = 0; f < ARRAY_LEN(flags); f++) {
			/* Two objects a slab: a prefill adds many. */
			struct kmem_cache *s = nolock_heap_kmem_cache_create(
				heap, "array", f ? 256 : 30000, NULL, SLAB_NO_MERGE);
			struct nolock_cache_stat st;

			cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), 0);
			cr_assert_eq(kmem_cache_prefill_percpu_array(s, COUNT, flags[f]), 0);
			cr_assert_eq(kmem_cache_prefill_percpu_array(s, COUNT / 2, flags[f]), 0);
			stat_of(s, &st);
			cr_assert_eq(st.in_sheaves, COUNT);
			/* Not one of these needs a slab. */
			for (int i = 0; i < COUNT; i++)
				cr_assert_not_null(p[i] = kmem_cache_alloc(s, 0));
			stat_of(s, &st);
			cr_assert_eq(st.stat[NOLOCK_ALLOC_CPU_CACHE], COUNT);
			cr_assert_eq(st.stat[NOLOCK_ALLOC_SLOWPATH], 0);
			for (int i = 0; i < COUNT; i++)
				kfree(p[i]);
			cr_assert_eq(kmem_cache_destroy(s), 0);
			expect_whole(heap, NULL, "after prefilled arrays");
		}
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(array, full_heap)
{
	struct nolock_heap *heap = nolock_heap_create(16 * MiB);
	struct kmem_cache *s =
		nolock_heap_kmem_cache_create(heap, "array", 32768, NULL, SLAB_NO_MERGE);
	static void *p[1024];
	int n = 0;

	cr_assert_eq(kmem_cache_setup_percpu_array(s, 100), 0);
	while (n < 1024 && (p[n] = nolock_heap_kmalloc(heap, 32768, GFP_KERNEL | __GFP_NOWARN)))
		n++;
	cr_assert_lt(n, 1024);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, 100, GFP_KERNEL), -ENOMEM);
	while (n)
		kfree(p[--n]);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, 100, GFP_KERNEL), 0);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	expect_whole(heap, NULL, "after a full heap");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(array, bypassed_behind_locks)
{
	struct kmem_cache *s = kmem_cache_create("array", 64, NULL, SLAB_NO_MERGE);
	struct nolock_cache_stat st;
	void *p[COUNT];

	cr_assert_eq(kmem_cache_setup_percpu_array(s, COUNT), 0);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, COUNT, GFP_KERNEL), 0);
	hold_slots(s, NL_OWNER(1, 0xfff0) | 7);
	cr_assert_eq(kmem_cache_prefill_percpu_array(s, COUNT, GFP_KERNEL), -EBUSY);
	for (int i = 0; i < COUNT; i++)
		cr_assert_not_null(p[i] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
	for (int i = 0; i < COUNT; i++)
		kfree_nolock(p[i]);
	hold_slots(s, 0);
	stat_of(s, &st);
	cr_assert_eq(st.stat[NOLOCK_ALLOC_CPU_CACHE], 0);
	cr_assert_eq(st.stat[NOLOCK_ALLOC_SLOWPATH], COUNT);
	cr_assert_eq(st.stat[NOLOCK_FREE_SLOWPATH], COUNT);
	expect_whole(nolock_heap_default(), NULL, "after locks");
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

/* A prefilled sheaf: the spare first, then the barn, then a new one; and back the same way. */
Test(prefill, spare_barn_table)
{
	struct kmem_cache_args args = { .sheaf_capacity = COUNT };
	static void *p[8 * COUNT];
	struct nolock_heap *heap;

	stay_here();
	for_each_kind(heap, HEAP_SIZE) {
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "prefill", 64, &args, 0);
		struct slab_sheaf *a, *b, *c, *d;
		struct nolock_cache_stat st;
		bool few;

		cr_assert_not_null(s);
		/* Nothing freed yet: a new sheaf. Returned, it is the spare; asked for, the same. */
		cr_assert_not_null(a = kmem_cache_prefill_sheaf(s, GFP_KERNEL, COUNT / 2));
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_SHEAF_PREFILL_SLOW], 1);
		kmem_cache_return_sheaf(s, GFP_KERNEL, a);
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_SHEAF_RETURN_FAST], 1);
		cr_assert_eq(b = kmem_cache_prefill_sheaf(s, GFP_KERNEL, COUNT), a);
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_SHEAF_PREFILL_FAST], 1);
		cr_assert_not_null(c = kmem_cache_prefill_sheaf_nolock(s, 0, COUNT));
		cr_assert_not_null(d = kmem_cache_prefill_sheaf_nolock(s, 0, COUNT));
		/* The spare is one already: the others go to the barn, and come from it again. */
		kmem_cache_return_sheaf(s, GFP_KERNEL, b);
		kmem_cache_return_sheaf(s, GFP_KERNEL, c);
		kmem_cache_return_sheaf(s, 0, d);
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_SHEAF_RETURN_FAST], 2);
		cr_assert_eq(st.stat[NOLOCK_SHEAF_RETURN_SLOW], 2);
		if (NL_BARN_MAX) {
			cr_assert_eq(st.stat[NOLOCK_BARN_PUT], 2);
			cr_assert_eq(st.barn_full, 2);
		}
		/* Where objects can be moved, full ones stay for a few objects. */
		few = nolock_heap_type(heap) == NOLOCK_HEAP_PRIVATE && heap->h->nr_nodes == 1;
		cr_assert_not_null(a = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 1));
		cr_assert_not_null(b = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 1));
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_SHEAF_PREFILL_FAST], few ? 1 : 2);
		cr_assert_eq(kmem_cache_sheaf_size(a), few ? 1 : COUNT);
		if (NL_BARN_MAX)
			cr_assert_eq(st.stat[NOLOCK_BARN_GET], few ? 0 : 1);
		kmem_cache_return_sheaf(s, GFP_KERNEL, a);
		kmem_cache_return_sheaf(s, GFP_KERNEL, b);
		/* Oversize, without a lock, too. */
		errno = 0;
		cr_assert_null(kmem_cache_prefill_sheaf_nolock(s, GFP_KERNEL, 1));
		cr_assert_eq(errno, EINVAL);
		cr_assert_not_null(a = kmem_cache_prefill_sheaf_nolock(s, 0, 4 * COUNT));
		cr_assert_eq(kmem_cache_sheaf_size(a), 4 * COUNT);
		for (int i = 0; i < 4 * COUNT; i++)
			cr_assert_not_null(p[i] = kmem_cache_alloc_from_sheaf(s, __GFP_ZERO, a));
		cr_assert_null(kmem_cache_alloc_from_sheaf(s, 0, a));
		kmem_cache_return_sheaf(s, 0, a);
		kmem_cache_free_bulk(s, 4 * COUNT, p);
		expect_whole(heap, NULL, "after prefilled sheaves");
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* With all locks held: from the table and the slabs. */
Test(prefill, behind_locks)
{
	struct kmem_cache *s = kmem_cache_create("prefill", 64, NULL, 0);
	const nl_u64 holder = NL_OWNER(1, 0xfff0) | 7;
	struct slab_sheaf *a, *b;

	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), MiB), 0);
	hold_slots(s, holder);
	for (nl_u32 node = 0; node < NL_MAX_NODES; node++)
		((nl_cache_t *)s)->barn[node].lock = holder;
	cr_assert_not_null(a = kmem_cache_prefill_sheaf_nolock(s, 0, 50));
	cr_assert_not_null(b = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 200));
	for (int i = 0; i < 50; i++)
		kfree(kmem_cache_alloc_from_sheaf(s, 0, a));
	kmem_cache_return_sheaf(s, 0, a);
	kmem_cache_return_sheaf(s, GFP_KERNEL, b);
	for (nl_u32 node = 0; node < NL_MAX_NODES; node++)
		((nl_cache_t *)s)->barn[node].lock = 0;
	hold_slots(s, 0);
	expect_whole(nolock_heap_default(), NULL, "after prefill behind locks");
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

/* A refill that fails leaves what there was: not one object more. */
Test(prefill, failed_refill)
{
	struct nolock_heap *heap = nolock_heap_create(16 * MiB);
	struct kmem_cache_args args = { .sheaf_capacity = 120 };
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "failed", 4096, &args, 0);
	struct slab_sheaf *sheaf;
	static void *p[8192];
	unsigned int had;
	int n = 0;

	cr_assert_not_null(sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 10));
	while (n < 8192 && (p[n] = kmem_cache_alloc(s, GFP_KERNEL | __GFP_NOWARN)))
		n++;
	for (int i = 0; i < 20; i++)
		kmem_cache_free(s, p[--n]);
	while (kmem_cache_sheaf_size(sheaf) > 10)
		kfree(kmem_cache_alloc_from_sheaf(s, 0, sheaf));
	had = kmem_cache_sheaf_size(sheaf);
	cr_assert_eq(kmem_cache_refill_sheaf(s, GFP_KERNEL | __GFP_NOWARN, &sheaf, 120), -ENOMEM);
	cr_assert_eq(kmem_cache_sheaf_size(sheaf), had);
	expect_whole(heap, NULL, "after a refill that failed");
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	while (n)
		kfree(p[--n]);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
}
