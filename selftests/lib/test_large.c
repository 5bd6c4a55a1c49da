// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_large.c - what large objects cost: instructions that do not grow with the heap, pages that
 * are not touched in vain.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "trap.h"
#include "util.h"

#define CHUNK ((size_t)NL_CHUNK_SIZE)

#if defined(__x86_64__) && !UNDER_ASAN
static volatile unsigned long steps;

static void on_step(int sig)
{
	(void)sig;
	steps++;
}

/* Instructions of an allocation and its free, the least of some. */
static unsigned long pair_steps(struct nolock_heap *heap, size_t size, bool nolock)
{
	struct sigaction sa = { .sa_handler = on_step }, old;
	unsigned long least = ~0ul;

	cr_assert_eq(sigaction(SIGTRAP, &sa, &old), 0);
	for (int i = 0; i < 2; i++) {
		void *p;

		steps = 0;
		trap_on();
		p = nolock ? nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE) :
			     nolock_heap_kmalloc(heap, size, GFP_KERNEL);
		if (nolock)
			kfree_nolock(p);
		else
			kfree(p);
		trap_off();
		cr_assert_not_null(p);
		if (steps < least)
			least = steps;
	}
	sigaction(SIGTRAP, &old, NULL);
	return least;
}

/* Groups with a free chunk here and there, but no two together, then room for more. */
static struct nolock_heap *fragmented(unsigned int groups)
{
	struct nolock_heap *heap = nolock_heap_create((groups + 64) * NL_GROUP_SIZE);
	unsigned int n = groups * NL_GROUP_CHUNKS;
	void **p = calloc(n, sizeof(*p));

	cr_assert(heap && p);
	for (unsigned int i = 0; i < n; i++)
		cr_assert_not_null(p[i] = nolock_heap_kmalloc(heap, 40000, GFP_KERNEL));
	for (unsigned int i = 0; i < n; i += 2)
		kfree(p[i]);
	free(p);
	return heap;
}

Test(large, instructions, .description = "an allocation costs nothing that grows with the heap")
{
	static const size_t sizes[] = { 40000, 400000, 5 * MiB };
	struct nolock_heap *little = fragmented(4), *big = fragmented(200);

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (int nolock = 0; nolock < 2; nolock++) {
			unsigned long few, many;

			/* What it finds is open by then. */
			kfree(nolock_heap_kmalloc(little, 2 * sizes[i], GFP_KERNEL));
			kfree(nolock_heap_kmalloc(big, 2 * sizes[i], GFP_KERNEL));
			few = pair_steps(little, sizes[i], nolock);
			many = pair_steps(big, sizes[i], nolock);
			report("  %zu bytes%s: %lu instructions in a heap of 4 groups, %lu of 200",
			       sizes[i], nolock ? ", nolock" : "", few, many);
			cr_assert_leq(many, few + few / 4 + 100);
		}
	}
	expect_whole(big, NULL, "after pairs");
	cr_assert_eq(nolock_heap_close(little), 0);
	cr_assert_eq(nolock_heap_close(big), 0);
}
#endif

/* Whatever the hints say: every run that is there is found, and before the heap grows. */
Test(large, every_run_is_found)
{
	enum { SIZE = 64, N = SIZE * 64 };
	struct nolock_heap *heap = nolock_heap_create(SIZE * NL_GROUP_SIZE);
	static void *p[N];
	struct rng rng;
	unsigned int n = 0;

	cr_assert_not_null(heap);
	rng_init(&rng, 7);
	/* All of the heap in single chunks. */
	while (n < N && (p[n] = nolock_heap_kmalloc(heap, CHUNK, GFP_KERNEL | __GFP_NOWARN)))
		n++;
	cr_assert(n > N / 2 && n < N, "%u chunks", n);
	for (int round = 0; round < 4000; round++) {
		unsigned int len = 1 + rng_below(&rng, round % 8 ? 20 : 300);
		unsigned int at = rng_below(&rng, n - len), order = rng_below(&rng, 3);
		void *q;

		/* A hole is made, in some order; nothing else of that length is there. */
		for (unsigned int i = 0; i < len; i++) {
			unsigned int k = order == 0 ? i : order == 1 ? len - 1 - i : (i * 7) % len;

			if (order == 2 && len % 7 == 0)
				k = i;
			cr_assert_eq((char *)p[at + k], (char *)p[0] + (at + k) * CHUNK);
			kfree(p[at + k]);
		}
		if (rng_below(&rng, 2))
			q = nolock_heap_kmalloc(heap, len * CHUNK, GFP_KERNEL | __GFP_NOWARN);
		else
			q = nolock_heap_kmalloc_nolock(heap, len * CHUNK, 0, NUMA_NO_NODE);
		cr_assert_eq(q, p[at], "a hole of %u chunks at %u", len, at);
		kfree(q);
		/* Filled again from its start, in pieces. */
		for (unsigned int i = 0; i < len; i++) {
			q = nolock_heap_kmalloc(heap, CHUNK, GFP_KERNEL | __GFP_NOWARN);
			cr_assert_eq(q, p[at + i], "chunk %u of a hole of %u", i, len);
		}
	}
	cr_assert_null(nolock_heap_kmalloc(heap, CHUNK, GFP_KERNEL | __GFP_NOWARN));
	for (unsigned int i = 0; i < n; i++)
		kfree(p[i]);
	expect_whole(heap, NULL, "after runs");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

static bool zero(const char *p, size_t size)
{
	return !p[0] && !memcmp(p, p + 1, size - 1);
}

/* What a block of that size has present, in bytes. */
static size_t present(void *p, size_t size)
{
	size_t pages = size / 4096, n = 0;
	unsigned char *vec = calloc(pages, 1);

	cr_assert(vec && !mincore(p, size, vec));
	for (size_t i = 0; i < pages; i++)
		n += vec[i] & 1;
	free(vec);
	return n * 4096;
}

Test(large, zeroed_without_being_touched)
{
	const size_t size = 64 * MiB + 12 * 4096;
	struct nolock_heap *heap = nolock_heap_create(256 * MiB);
	char *p;

	cr_assert_not_null(heap);
	for (int round = 0; round < 3; round++) {
		cr_assert_not_null(p = nolock_heap_kmalloc(heap, size, GFP_KERNEL));
		/* A page of it; all of it; here and there. */
		for (size_t at = 0; at < size; at += round == 0 ? size : round == 1 ? 4096 : 300000)
			p[at] = 1;
		kfree(p);
		cr_assert_not_null(p = nolock_heap_kzalloc(heap, size, GFP_KERNEL));
		cr_assert_leq(present(p, size), 2 * MiB, "%zu bytes present", present(p, size));
		cr_assert(zero(p, size - 1000));
		kfree(p);
	}
	/* No system call where none is allowed: memory that was touched is written. */
	for (int nolock = 0; nolock < 2; nolock++) {
		cr_assert_not_null(p = nolock_heap_kmalloc(heap, size, GFP_KERNEL));
		memset(p, 1, size);
		kfree(p);
		p = nolock ? nolock_heap_kmalloc_nolock(heap, size, __GFP_ZERO, NUMA_NO_NODE) :
			     nolock_heap_kmalloc(heap, size, GFP_ATOMIC | __GFP_ZERO);
		cr_assert_not_null(p);
		cr_assert_eq(present(p, size), size);
		cr_assert(zero(p, size));
		kfree(p);
	}
	expect_whole(heap, NULL, "after zeroed objects");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

/* Pages that the system does not drop. */
Test(large, zeroed_while_locked)
{
	const size_t size = 4 * MiB;
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	char *p;

	cr_assert_not_null(heap);
	/* Once more: in the lowest place there is, now that there is one. */
	kfree(nolock_heap_kmalloc(heap, size, GFP_KERNEL));
	cr_assert_not_null(p = nolock_heap_kmalloc(heap, size, GFP_KERNEL));
	cr_assert_eq(mlock(p, size), 0, "mlock: errno %d", errno);
	memset(p, 1, size);
	kfree(p);
	errno = 77;
	cr_assert_eq(nolock_heap_kzalloc(heap, size, GFP_KERNEL), p);
	cr_assert_eq(errno, 77);
	cr_assert(zero(p, size));
	kfree(p);
	cr_assert_eq(nolock_heap_close(heap), 0);
}

/* Of every kind of heap, of sizes on both sides of where pages are dropped. */
Test(large, zeroed_in_every_heap)
{
	static const size_t sizes[] = { 40000, MiB - 1, MiB, MiB + 1, 3 * MiB + 4097 };
	struct nolock_heap *heap;

	for_each_kind(heap, 64 * MiB) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			char *p, *q;

			/* Dirty chunks among clean ones. */
			cr_assert_not_null(p = nolock_heap_kmalloc(heap, CHUNK, GFP_KERNEL));
			cr_assert_not_null(q = nolock_heap_kmalloc(heap, sizes[i], GFP_KERNEL));
			memset(p, 1, CHUNK);
			memset(q, 1, sizes[i]);
			kfree(p);
			kfree(q);
			p = nolock_heap_kzalloc(heap, sizes[i] + MiB, GFP_KERNEL);
			cr_assert_not_null(p);
			cr_assert(zero(p, sizes[i] + MiB), "%zu bytes", sizes[i] + MiB);
			kfree(p);
		}
		expect_whole(heap, NULL, "after zeroed objects");
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}
