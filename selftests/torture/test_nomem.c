// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nomem.c - memory runs out at every point where it can.
 *
 * The Nth call by which the library gets memory fails with ENOMEM, that one alone or all from it on,
 * while a workload makes a heap, caches, objects of all kinds and sheaves, populates, shrinks and
 * trims. N goes up until none is left to fail. Whatever fails, fails with ENOMEM, nothing is lost or
 * damaged, and as soon as there is memory again everything succeeds. On private heaps, and on a
 * shared one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "internal.h"
#include "row.h"
#include "shared.h"
#include "../lib/nomem.h"
#include "../lib/util.h"

enum { OBJECTS = 900 };

static unsigned long problems, refused_calls;

static void problem(const char *what)
{
	if (problems++ < 10)
		printf("  %s, with calls %lu to %lu failing\n", what, fail_from, fail_to);
}

/* NULL is fine if it says ENOMEM and a call was made to fail, or in the calls that never ask. */
static void *may_fail(void *p, size_t size, bool sure)
{
	if (p) {
		stamp(p, (uint32_t)size, 5);
		return p;
	}
	refused_calls++;
	if (errno != ENOMEM)
		problem("an allocation failed with another error");
	if (sure)
		problem("an allocation failed though there is memory");
	return NULL;
}

static void put(void *p)
{
	if (p && !stamp_check(p))
		problem("an object is damaged");
	kfree(p);
}

/* Everything that asks for memory. With sure, nothing may fail. */
static void use(struct nolock_heap *heap, bool sure)
{
	static const unsigned int sizes[] = { 16, 100, 700, 4096, 20000, 32768, 70000, 300000 };
	struct kmem_cache_args args = { .sheaf_capacity = 6 };
	static void *obj[OBJECTS];
	struct slab_sheaf *sheaf;
	struct kmem_cache *s;
	void *many[30];
	int n;

	errno = 0;
	s = nolock_heap_kmem_cache_create(heap, "nomem", 200, &args, 0);
	if (!s) {
		problem("a cache was not made, which needs no memory");
		return;
	}
	n = nolock_heap_populate(heap, 4 * NL_CHUNK_SIZE);
	if (n && (n != -ENOMEM || sure))
		problem("populate failed in another way");
	for (unsigned int i = 0; i < OBJECTS; i++) {
		unsigned int size = sizes[i % ARRAY_LEN(sizes)];

		/* A large heap is no part of it. */
		if (size > 4096 && i > 200)
			size = 200;
		errno = 0;
		obj[i] = i % 3 ? may_fail(nolock_heap_kmalloc(heap, size, GFP_KERNEL), size, sure) :
				 may_fail(kmem_cache_alloc(s, GFP_KERNEL), 200, sure);
	}
	for (unsigned int i = 0; i < 20; i++) {
		void *p;

		if (!obj[i])
			continue;
		if (!stamp_check(obj[i]))
			problem("an object is damaged");
		errno = 0;
		p = krealloc(obj[i], 40000, GFP_KERNEL);
		if (p) {
			stamp(p, 40000, 1);
			obj[i] = p;
		} else if (sure || errno != ENOMEM) {
			problem("krealloc failed");
		}
	}
	errno = 0;
	n = kmem_cache_alloc_bulk(s, GFP_KERNEL, ARRAY_LEN(many), many);
	if (n)
		kmem_cache_free_bulk(s, (size_t)n, many);
	else if (sure || errno != ENOMEM)
		problem("a bulk allocation failed");
	for (unsigned int size = 5; size < 200; size += 190) {
		errno = 0;
		sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, size);
		if (!sheaf) {
			if (sure || errno != ENOMEM)
				problem("a sheaf was not prefilled");
			continue;
		}
		n = kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, size + 1);
		if (n && (sure || n != -ENOMEM))
			problem("a sheaf was not refilled");
		kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	}
	for (unsigned int i = 0; i < OBJECTS; i++)
		put(obj[i]);
	n = nolock_heap_populate(heap, 0);
	if (n)
		problem("populating nothing failed");
	nolock_heap_trim(heap);
	if (kmem_cache_destroy(s))
		problem("a cache could not be destroyed");
}

static void must_be_whole(struct nolock_heap *heap)
{
	unsigned long from = fail_from;
	struct nolock_heap_report rep;

	fail_from = ~0ul; /* the check needs memory, too */
	if (check_whole(heap, &rep, "without memory"))
		problem("the heap is not whole");
	if (rep.allocated || rep.large || rep.refused)
		problem("objects are lost");
	fail_from = from;
}

static void round_of(bool shared, unsigned long from, unsigned long to)
{
	struct nolock_heap *heap = NULL;
	unsigned long had = injected;

	fail_from = ~0ul;
	if (shared)
		heap = shared_make(32 * MiB);
	calls = 0;
	fail_from = from;
	fail_to = to;
	if (!shared) {
		errno = 0;
		heap = nolock_heap_create(24 * MiB);
		if (!heap) {
			if (errno != ENOMEM || injected == had)
				problem("a heap was not made");
			return;
		}
	}
	use(heap, false);
	must_be_whole(heap);
	/* There is memory again. */
	fail_from = ~0ul;
	use(heap, true);
	must_be_whole(heap);
	if (nolock_heap_close(heap))
		problem("a heap could not be closed");
}

static void until_none_fails(bool shared, const char *name)
{
	unsigned long before = injected, refused = refused_calls, rounds = 0, n;

	/* The one, and all from it on. */
	for (unsigned int all = 0; all < 2; all++)
		for (n = 1;; n++) {
			unsigned long had = injected;

			round_of(shared, n, all ? ~0ul : n);
			rounds++;
			if (injected == had)
				break;
		}
	if (refused_calls == refused)
		problem("nothing was refused");
	printf("# memory runs out, %s: %lu rounds, %lu calls made to fail, %lu allocations "
	       "refused\n",
	       name, rounds, injected - before, refused_calls - refused);
	row(name, rounds, injected - before, "failures injected", problems);
}

int main(void)
{
	unsigned long before;

	nolock_heap_default();
	until_none_fails(false, "private heaps");
	before = problems;
	until_none_fails(true, "shared heaps");
	printf("%d passed, %d failed, 0 skipped\n", !before + !(problems - before),
	       !!before + !!(problems - before));
	return problems != 0;
}
