// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_barn.c - barns of a private heap grow deeper for batches that are larger than they are, and
 * are as shallow as before once nobody uses that; not for a barn that is only locked. Counts that no
 * barn has keep nobody busy.
 */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"
#include "core/core.h"
#include "core/slot.h"

enum { N = 60000, ROUNDS = 4 };

/* A batch; returns how many objects were flushed to their slabs. */
static unsigned long batch(struct kmem_cache *s)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_cache_stat before, after;
	int id = (int)nl_cache_id(s);
	static void *p[N];

	cr_assert_eq(nolock_heap_cache_stat(heap, id, &before), 0);
	for (int i = 0; i < N; i++)
		cr_assert_not_null(p[i] = kmem_cache_alloc(s, GFP_KERNEL));
	for (int i = N; i-- > 0;)
		kmem_cache_free(s, p[i]);
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &after), 0);
	cr_expect_leq(after.barn_full, NL_BARN_MAX + NL_SHEAVES_DEEP);
	return after.stat[NOLOCK_SHEAF_FLUSH] - before.stat[NOLOCK_SHEAF_FLUSH];
}

Test(barn, grows_deeper)
{
	struct kmem_cache *s = kmem_cache_create("batch", 64, NULL, SLAB_NO_MERGE);
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long flushed[ROUNDS];

	cr_assert_not_null(s);
	for (int i = 0; i < ROUNDS; i++)
		flushed[i] = batch(s);
	report("  %d objects, flushed: %lu, %lu, %lu, %lu", N, flushed[0], flushed[1], flushed[2],
	       flushed[3]);
	cr_expect_gt(flushed[0], N / 2);
	if (NL_SHEAVES_DEEP)
		cr_expect_lt(flushed[ROUNDS - 1], N / 20);
	cr_expect_leq(heap->h->deep, NL_SHEAVES_DEEP);
	expect_whole(heap, NULL, "with a deep barn");
	/* A cache that goes leaves the depth to others. */
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_expect_eq(heap->h->deep, 0);
	expect_whole(heap, NULL, "after the cache");
}

/* What is flushed while somebody else has the barn's lock is no reason to grow. */
Test(barn, locked_is_not_full)
{
	struct kmem_cache *s = kmem_cache_create("locked", 64, NULL, SLAB_NO_MERGE);
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_cache_stat before, after;
	enum { FEW = 500 }; /* sheaves of a slot, not of a barn */
	void *p[FEW];
	nl_barn_t *barn;
	int id;

	cr_assert_not_null(s);
	id = (int)nl_cache_id(s);
	barn = &nl_cache(heap->h, (nl_u32)id)->barn[nl_here(heap)];
	for (int i = 0; i < FEW; i++)
		cr_assert_not_null(p[i] = kmem_cache_alloc(s, GFP_KERNEL));
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &before), 0);
	nl_store(&barn->lock, NL_HELD(NL_OWNER_WHO(NL_OWNER(1, 999))));
	for (int i = 0; i < FEW; i++)
		kmem_cache_free(s, p[i]);
	cr_expect_eq(nl_load(&barn->flushed), 0);
	nl_store(&barn->lock, 0);
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &after), 0);
	if (NL_BARN_MAX)
		cr_expect_gt(after.stat[NOLOCK_SHEAF_FLUSH], before.stat[NOLOCK_SHEAF_FLUSH]);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

/* Whatever a client wrote to a barn's list and its counts: giving back ends. */
Test(barn, flush_is_bounded)
{
	struct kmem_cache *s = kmem_cache_create("cyclic", 64, NULL, SLAB_NO_MERGE);
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_cache_stat before, after;
	nl_barn_t *barn;
	nl_u32 sheaf;
	int id;

	cr_assert_not_null(s);
	id = (int)nl_cache_id(s);
	barn = &nl_cache(heap->h, (nl_u32)id)->barn[nl_here(heap)];
	sheaf = nl_sheaf_get(heap->h, (nl_u32)id, nl_who(heap));
	cr_assert_neq(sheaf, 0);
	nl_barn_push(heap->h, &barn->full, sheaf);
	nl_store(&nl_sheaf(heap->h, sheaf - 1)->next, sheaf);
	nl_store(&barn->full.nr, 1u << 28);
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &before), 0);
	kmem_cache_shrink(s);
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &after), 0);
	cr_expect_leq(after.stat[NOLOCK_SHEAF_FREE] - before.stat[NOLOCK_SHEAF_FREE],
		      heap->h->nr_sheaves);
}

/* Other caches are at work: the deep one is not used any more. */
JOB(batches_end)
{
	struct kmem_cache *s = kmem_cache_create("batch", 64, NULL, SLAB_NO_MERGE);
	struct nolock_heap *heap = nolock_heap_default();
	nl_u64 deepest;

	for (int i = 0; i < ROUNDS; i++)
		batch(s);
	deepest = heap->h->deep;
	for (int i = 0; heap->h->deep; i++) {
		void *p[150]; /* less than what a barn takes anyway */

		if (i == 10000)
			return 1;
		for (size_t k = 0; k < ARRAY_LEN(p); k++)
			p[k] = kmalloc(1024, GFP_KERNEL);
		for (size_t k = 0; k < ARRAY_LEN(p); k++)
			kfree(p[k]);
		usleep(1000);
	}
	return NL_SHEAVES_DEEP && !deepest ? 2 : 0;
}

Test(barn, grows_shallow_again)
{
	cr_assert_eq(job_run("batches_end", "NOLOCK_DECAY_MS", "200"), 0);
}

/* How often a slot is locked by frees and allocations in random order, of a thousand. */
static unsigned long locks_of_churn(enum nolock_heap_type type)
{
	enum { LIVE = 400, TURNS = 100000 };
	struct nolock_heap *heap = heap_of_kind(type, 64 * MiB);
	struct kmem_cache_args args = { .sheaf_capacity = 16 };
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "churn", 64, &args, 0);
	struct nolock_cache_stat before, after;
	int id = (int)nl_cache_id(s);
	static void *p[LIVE];
	struct rng r;

	memset(p, 0, sizeof(p));
	rng_init(&r, 1);
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &before), 0);
	for (int i = 0; i < TURNS; i++) {
		void **at = &p[rng_below(&r, LIVE)];

		if (*at)
			kmem_cache_free(s, *at);
		*at = *at ? NULL : kmem_cache_alloc(s, GFP_KERNEL);
	}
	cr_assert_eq(nolock_heap_cache_stat(heap, id, &after), 0);
	for (int i = 0; i < LIVE; i++)
		if (p[i])
			kmem_cache_free(s, p[i]);
	expect_whole(heap, NULL, "after churn");
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
	return (after.stat[NOLOCK_SLOT_LOCK] - before.stat[NOLOCK_SLOT_LOCK]) * 1000 / TURNS;
}

/* Main and spare run full and empty in turn: in a private heap they share what they have. */
Test(barn, main_and_spare_share)
{
	unsigned long apart = locks_of_churn(NOLOCK_HEAP_MEMFD);
	unsigned long private = locks_of_churn(NOLOCK_HEAP_PRIVATE);

	report("  slot locks of 1000 calls: %lu, where they do not share %lu", private, apart);
	cr_expect_lt(4 * private, 3 * apart);
}
