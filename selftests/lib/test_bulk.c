// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_bulk.c - kmem_cache_alloc_bulk() and _free_bulk() and their nolock forms: each kind of
 * heap, all or nothing, mixed and bad pointers, and locks that are held.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "hold.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)

static void stat_of(struct nolock_heap *heap, const char *name, struct nolock_cache_stat *st)
{
	for (unsigned int id = 0;; id++) {
		int rc = nolock_heap_cache_stat(heap, id, st);

		cr_assert_neq(rc, -ERANGE, "no cache named %s", name);
		if (rc == 0 && strcmp(st->name, name) == 0)
			return;
	}
}

static int cmp_ptr(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t) * (void *const *)a, y = (uintptr_t) * (void *const *)b;

	return x < y ? -1 : x > y;
}

Test(bulk, every_kind_and_flag)
{
	static const gfp_t flags[] = {
		GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC, 0, GFP_KERNEL | __GFP_ZERO, GFP_KERNEL_ACCOUNT
	};
	static const unsigned int sizes[] = { 16, 64, 500, 4096 };
	static void *p[2000];
	struct nolock_heap_report rep;
	struct nolock_heap *heap;
	unsigned long objects = 0;

	for_each_kind(heap, HEAP_SIZE) {
		cr_assert_eq(nolock_heap_populate(heap, 16 * MiB), 0);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			struct kmem_cache *s =
				nolock_heap_kmem_cache_create(heap, "bulk", sizes[i], NULL, 0);

			cr_assert_not_null(s);
			for (size_t f = 0; f <= ARRAY_LEN(flags); f++)
				for (size_t n = 1; n <= 2000; n = n * 5 + 1) {
					bool nolock = f == ARRAY_LEN(flags);
					gfp_t gfp = nolock ? __GFP_ZERO : flags[f];
					int got;

					/* What does not block finds what was opened. */
					if (n > 1000 && !nolock)
						gfp |= GFP_KERNEL;
					if (sizes[i] * n > 2 * MiB)
						continue;
					got = nolock ? kmem_cache_alloc_bulk_nolock(s, gfp, n, p) :
						       kmem_cache_alloc_bulk(s, gfp, n, p);
					cr_assert_eq(got, (int)n, "%s: %zu of %u bytes, gfp %#x",
						     heap_kinds[kind], n, sizes[i], gfp);
					for (size_t k = 0; k < n; k++) {
						if (gfp & __GFP_ZERO)
							for (unsigned int b = 0; b < sizes[i]; b++)
								cr_assert_eq(((char *)p[k])[b], 0);
						pat_fill(p[k], sizes[i], k);
					}
					for (size_t k = 0; k < n; k++)
						cr_assert(pat_check(p[k], sizes[i], k));
					qsort(p, n, sizeof(p[0]), cmp_ptr);
					for (size_t k = 1; k < n; k++)
						cr_assert_neq(p[k], p[k - 1]);
					cr_assert_eq(nolock_heap_check(heap, &rep), 0, "%s",
						     rep.first_error);
					cr_assert_eq(rep.allocated, n);
					if (f & 1)
						kmem_cache_free_bulk(n & 1 ? s : NULL, n, p);
					else
						kmem_cache_free_bulk_nolock(n & 1 ? s : NULL, n, p);
					objects += n;
				}
			cr_assert_eq(kmem_cache_destroy(s), 0);
		}
		expect_whole(heap, &rep, heap_kinds[kind]);
		cr_assert_eq(rep.allocated, 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	report("  every_kind_and_flag: %lu objects", objects);
}

Test(bulk, bad_arguments)
{
	struct kmem_cache *s = kmem_cache_create("bulk-bad", 64, NULL, 0);
	void *p[4] = { 0 };

	cr_assert_not_null(s);
	errno = 0;
	cr_assert_eq(kmem_cache_alloc_bulk(NULL, GFP_KERNEL, 4, p), 0);
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_eq(kmem_cache_alloc_bulk(s, 0x1, 4, p), 0);
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_eq(kmem_cache_alloc_bulk_nolock(s, GFP_KERNEL, 4, p), 0);
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, (size_t)INT_MAX + 1, p), 0);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, 0, p), 0);
	kmem_cache_free_bulk(s, 0, p);
	kmem_cache_free_bulk(s, 4, p); /* NULLs are ignored */
	cr_assert_eq(kmem_cache_destroy(s), 0);
	expect_whole(nolock_heap_default(), NULL, "after bad arguments");
}

/* More than the heap holds: nothing stays allocated, whatever the flags. */
Test(bulk, all_or_nothing)
{
	size_t n = 40000;
	void **p = calloc(n, sizeof(*p));
	struct nolock_heap_report before, after;
	struct nolock_heap *heap;

	cr_assert_not_null(p);
	for_each_kind(heap, HEAP_SIZE) {
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "full", 4096, NULL, 0);
		struct nolock_cache_stat st;

		cr_assert_not_null(s);
		cr_assert_eq(nolock_heap_populate(heap, MiB), 0);
		cr_assert_not_null(p[n - 1] = kmem_cache_alloc(s, GFP_KERNEL));
		expect_whole(heap, &before, "before");
		for (int f = 0; f < 3; f++) {
			void *keep = p[n - 1];

			errno = 0;
			if (f == 2)
				cr_assert_eq(kmem_cache_alloc_bulk_nolock(s, 0, n, p), 0);
			else
				cr_assert_eq(kmem_cache_alloc_bulk(
						     s, f ? GFP_ATOMIC : GFP_KERNEL | __GFP_NOWARN,
						     n, p),
					     0);
			cr_assert_eq(errno, ENOMEM);
			expect_whole(heap, &after, "after a bulk that failed");
			cr_assert_eq(before.allocated, after.allocated);
			p[n - 1] = keep;
		}
		stat_of(heap, "full", &st);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_FAIL], 3);
		kmem_cache_free(s, p[n - 1]);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	free(p);
}

Test(bulk, mixed_and_bad_pointers)
{
	struct kmem_cache *a = kmem_cache_create("mix-a", 64, NULL, 0);
	struct kmem_cache *b = kmem_cache_create("mix-b", 64, NULL, 0);
	struct nolock_heap *other = nolock_heap_create(HEAP_SIZE);
	struct nolock_heap_report rep;
	void *p[600];
	int on_stack;

	cr_assert_not_null(a);
	cr_assert_not_null(b);
	cr_assert_not_null(other);
	for (int i = 0; i < 600; i++) {
		switch (i % 6) {
		case 0:
			p[i] = kmem_cache_alloc(a, GFP_KERNEL);
			break;
		case 1:
			p[i] = kmem_cache_alloc(b, GFP_KERNEL);
			break;
		case 2:
			p[i] = kmalloc((size_t)i, GFP_KERNEL);
			break;
		case 3:
			p[i] = nolock_heap_kmalloc(other, 64, GFP_KERNEL);
			break;
		case 4:
			p[i] = i % 12 == 4 ? NULL : ZERO_SIZE_PTR;
			break;
		default:
			p[i] = i % 60 == 5 ? kmalloc(100000, GFP_KERNEL) : &on_stack;
		}
	}
	kmem_cache_free_bulk_nolock(NULL, 600, p);
	expect_whole(nolock_heap_default(), &rep, "after a mix");
	cr_assert_eq(rep.allocated + rep.large, 0);
	cr_assert_eq(rep.refused, 90, "%lu refused", rep.refused);
	expect_whole(other, &rep, "after a mix");
	cr_assert_eq(rep.allocated, 0);
	/* Objects of another cache are counted, and go to their own. */
	for (int i = 0; i < 300; i++)
		cr_assert_not_null(p[i] = kmem_cache_alloc(i % 3 ? a : b, GFP_KERNEL));
	kmem_cache_free_bulk(a, 300, p);
	expect_whole(nolock_heap_default(), &rep, "after the wrong cache");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(rep.refused, 190, "%lu refused", rep.refused);
	/* Inside an object: refused at once. The object's own free is good. */
	cr_assert_eq(kmem_cache_alloc_bulk(a, GFP_KERNEL, 2, p), 2);
	p[2] = p[1];
	p[1] = (char *)p[0] + 8;
	kmem_cache_free_bulk_nolock(a, 3, p);
	expect_whole(nolock_heap_default(), &rep, "after an interior pointer");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(rep.refused, 191, "%lu refused", rep.refused);
	cr_assert_eq(kmem_cache_destroy(a), 0);
	cr_assert_eq(kmem_cache_destroy(b), 0);
	cr_assert_eq(nolock_heap_close(other), 0);
}

/* With every slot and barn locked by somebody else: objects come and go one by one. */
Test(bulk, behind_locks)
{
	struct nolock_heap *heap = nolock_heap_create(HEAP_SIZE);
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "locked", 64, NULL, 0);
	const nl_u64 holder = NL_OWNER(1, 0xfff0) | 7;
	struct nolock_heap_report rep;
	static void *p[3000];
	nl_u32 id;

	cr_assert_not_null(s);
	id = nl_cache_id(s);
	cr_assert_eq(nolock_heap_populate(heap, MiB), 0);
	for (int round = 0; round < 2; round++) {
		nl_u64 word = round ? 0 : holder;

		for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
			hold_rslot(nl_rslot(heap->h, cpu, id), word);
			hold_aslot(nl_aslot(heap->h, cpu, id), word);
		}
		for (nl_u32 node = 0; node < NL_MAX_NODES; node++)
			nl_cache(heap->h, id)->barn[node].lock = word;
		if (!round) {
			cr_assert_eq(kmem_cache_alloc_bulk_nolock(s, 0, 3000, p), 3000);
			kmem_cache_free_bulk_nolock(s, 1500, p);
			cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, 1500, p), 1500);
			kmem_cache_free_bulk(s, 3000, p);
		}
	}
	expect_whole(heap, &rep, "after bulk behind locks");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
}
