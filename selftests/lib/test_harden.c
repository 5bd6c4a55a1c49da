// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_harden.c - what is looked at twice although no correct program needs it, and NOLOCK_HARDEN=0.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "harden.h"
#include "util.h"

/* Fill sheaves with objects and a pointer into the middle of one; what comes out again? */
static unsigned long circulate(unsigned long *dropped)
{
	enum { N = 500 };
	struct kmem_cache *s = kmem_cache_create("sheaves", 64, NULL, 0);
	struct nolock_heap *heap = nolock_heap_default();
	nl_u64 before = heap->h->dropped;
	unsigned long strange = 0;
	void *p[N], *keep;

	for (int i = 0; i < N; i++)
		p[i] = kmem_cache_alloc(s, GFP_KERNEL);
	keep = p[0];
	/* Onto one CPU's main sheaf, and a whole sheaf's worth and more over it. */
	kmem_cache_free(s, p[1]);
	kmem_cache_free(s, (char *)keep + 16);
	for (int i = 2; i < N; i++)
		kmem_cache_free(s, p[i]);
	*dropped = heap->h->dropped - before;
	for (int i = 1; i < N; i++) {
		p[i] = kmem_cache_alloc(s, GFP_KERNEL);
		strange += (uintptr_t)p[i] % 64 != (uintptr_t)keep % 64;
	}
	for (int i = 1; i < N; i++)
		kmem_cache_free(s, p[i]);
	kmem_cache_free(s, keep);
	kmem_cache_shrink(s);
	return strange;
}

Test(harden, sheaves)
{
	unsigned long dropped;

	cr_assert_eq(stay_on((unsigned int)sched_getcpu()), 0);
	cr_expect_eq(circulate(&dropped), 0, "the middle of an object was handed out");
	/* A heap of several nodes looks at each object when it is freed. */
	cr_expect_eq(dropped, nolock_heap_default()->h->nr_nodes == 1);
	expect_whole(nolock_heap_default(), NULL, "after an interior pointer");
}

JOB(not_hardened)
{
	unsigned long dropped;

	circulate(&dropped);
	/* Without barns a full sheaf is flushed, which finds it anyway. */
	return (NL_BARN_MAX && dropped != 0) || nl_hardened();
}

Test(harden, switched_off)
{
	cr_assert_eq(job_run("not_hardened", "NOLOCK_HARDEN", "0"), 0);
}

/*
 * nl_harden_slot() itself, on a slot of the test's own: sheaves of objects out of several slabs, in
 * any order, without and with one that is there twice, or that is to follow.
 */
Test(harden, twice)
{
	enum { N = 6000, ROUNDS = 5000 };
	static const unsigned int sizes[] = { 8, 16, 64, 96, 1024, 8192 };
	struct nolock_heap *heap = nolock_heap_default();
	nl_u64 objs[NL_SHEAF_MAX];
	static void *p[N];
	struct rng r;

	rng_init(&r, 3);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		struct kmem_cache *c = kmem_cache_create("twice", sizes[s], NULL, SLAB_NO_MERGE);
		unsigned int nr = sizes[s] > 1024 ? N / 10 : N;
		nl_u32 id = ((struct nl_cache *)c)->id;

		for (unsigned int i = 0; i < nr; i++)
			cr_assert_not_null(p[i] = kmem_cache_alloc(c, GFP_KERNEL));
		for (unsigned int round = 0; round < ROUNDS; round++) {
			nl_u32 n = 2 + rng_below(&r, NL_SHEAF_MAX - 1), at = rng_below(&r, n), from;
			nl_slot_t slot = { .word = n, .objs = (nl_u64)objs, .cap = n };
			nl_u64 next = 0;
			nl_u32 kind = rng_below(&r, 4);
			bool other;

			/* The first n of a shuffle. */
			for (nl_u32 i = 0; i <= n; i++) {
				nl_u32 j = i + rng_below(&r, nr - i);
				void *q = p[i];

				p[i] = p[j];
				p[j] = q;
				if (i < n)
					objs[i] = (nl_u64)p[i];
			}
			do
				from = rng_below(&r, n);
			while (from == at);
			if (kind == 1)
				objs[at] = objs[from];
			if (kind == 2)
				next = objs[at];
			if (kind == 3)
				next = (nl_u64)p[n];
			other = nl_harden_slot(heap->h, &slot, id, next);
			cr_assert_eq(other, kind != 2, "%u of %u bytes, round %u", n, sizes[s],
				     round);
			cr_assert_eq(slot.word, n - (kind == 1),
				     "%u of %u bytes, round %u: %u are left", n, sizes[s], round,
				     (unsigned int)slot.word);
			cr_assert_eq(slot.stat[NL_STAT_OUT], kind == 1);
		}
		heap->h->dropped = 0;
		for (unsigned int i = 0; i < nr; i++)
			kmem_cache_free(c, p[i]);
		cr_assert_eq(kmem_cache_destroy(c), 0);
	}
	expect_whole(heap, NULL, "after all rounds");
}

static int touch(volatile char *p)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		die_with_parent();
		signal(SIGSEGV, SIG_DFL);
		*p = 1;
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

Test(harden, guards)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	char *first;

	cr_assert_not_null(heap);
	/* All of it open, so that nothing else is between metadata and objects. */
	while (nl_heap_grow(heap, 1))
		;
	first = (char *)heap->first;
	cr_expect_eq(touch(first), 0);
	cr_expect_eq(touch(heap->base + heap->size - 1), 0);
	cr_expect_neq(touch(first - 1), 0, "metadata follow the objects");
	cr_expect_neq(touch(heap->base - 1), 0);
	cr_expect_neq(touch(heap->base + heap->size), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
}
