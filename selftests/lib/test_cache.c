// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_cache.c - kmem_cache: odd sizes and alignments, constructors, bulk, prefilled sheaves,
 * destroy and shrink, the end of the cache table.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>
#include "util.h"

static void stat_of(struct nolock_heap *heap, const char *name, struct nolock_cache_stat *st)
{
	for (unsigned int id = 0;; id++) {
		int rc = nolock_heap_cache_stat(heap, id, st);

		cr_assert_neq(rc, -ERANGE, "no cache named %s", name);
		if (rc == 0 && strcmp(st->name, name) == 0)
			return;
	}
}

Test(cache, sizes_aligns_flags)
{
	static const unsigned int sizes[] = { 1,    2,	  3,	 7,	8,     9,    15,
					      16,   17,	  24,	 33,	47,    63,   64,
					      65,   95,	  100,	 127,	192,   255,  333,
					      512,  777,  1025,	 2047,	3000,  4096, 5001,
					      8191, 9999, 16385, 20000, 32767, 32768 };
	static const unsigned int aligns[] = { 0, 1, 2, 8, 16, 64, 256, 4096, 32768, 65536 };
	static const slab_flags_t flags[] = { 0, SLAB_HWCACHE_ALIGN, SLAB_ACCOUNT | SLAB_NO_MERGE };
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long caches = 0, objects = 0;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t j = 0; j < ARRAY_LEN(aligns); j++) {
			struct kmem_cache_args args = {
				.align = aligns[j],
				.sheaf_capacity = (unsigned int)(i * 31 + j * 7) % 127,
			};
			slab_flags_t f = flags[(i + j) % ARRAY_LEN(flags)];
			unsigned int n = sizes[i] > 4096 || aligns[j] > 4096 ? 40 : 300;
			size_t least = aligns[j] ? aligns[j] : 1;
			struct kmem_cache *s;
			void *obj[300];

			s = kmem_cache_create("odd", sizes[i], &args, f);
			cr_assert_not_null(s, "size %u align %u: errno %d", sizes[i], aligns[j],
					   errno);
			cr_assert_eq(kmem_cache_size(s), sizes[i]);
			if (f & SLAB_HWCACHE_ALIGN) {
				/* Linux: halved for as long as two objects fit in the fraction. */
				size_t line = 64;

				while (line > 16 && sizes[i] <= line / 2)
					line /= 2;
				if (line > least)
					least = line;
			}
			for (unsigned int k = 0; k < n; k++) {
				switch (k % 4) {
				case 0:
					obj[k] = kmem_cache_alloc(s, GFP_KERNEL);
					break;
				case 1:
					obj[k] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE);
					break;
				case 2:
					obj[k] = kmem_cache_zalloc(s, GFP_ATOMIC);
					break;
				default:
					obj[k] = kmem_cache_alloc_node(s, GFP_KERNEL, 0);
				}
				cr_assert_not_null(obj[k], "size %u align %u object %u", sizes[i],
						   aligns[j], k);
				cr_assert_eq((uintptr_t)obj[k] % least, 0,
					     "size %u align %u flags %#x: %p", sizes[i], aligns[j],
					     f, obj[k]);
				cr_assert_geq(ksize(obj[k]), sizes[i]);
				if (k % 4 == 2)
					for (unsigned int b = 0; b < sizes[i]; b++)
						cr_assert_eq(((char *)obj[k])[b], 0);
				pat_fill(obj[k], sizes[i], k);
			}
			for (unsigned int k = 0; k < n; k++) {
				cr_assert(pat_check(obj[k], sizes[i], k),
					  "size %u align %u: object %u was written by another",
					  sizes[i], aligns[j], k);
				switch (k % 4) {
				case 0:
					kmem_cache_free(s, obj[k]);
					break;
				case 1:
					kmem_cache_free_nolock(s, obj[k]);
					break;
				case 2:
					kfree(obj[k]);
					break;
				default:
					kfree_nolock(obj[k]);
				}
			}
			expect_whole(heap, NULL, "before destroy");
			cr_assert_eq(kmem_cache_destroy(s), 0);
			caches++;
			objects += n;
		}
	expect_whole(heap, NULL, "after all caches");
	report("  sizes_aligns_flags: %lu caches, %lu objects", caches, objects);
}

Test(cache, bad_arguments)
{
	static const struct {
		unsigned int size, align, capacity;
		slab_flags_t flags;
	} bad[] = {
		{ 0, 0, 0, 0 },
		{ 32769, 0, 0, 0 },
		{ ~0u, 0, 0, 0 },
		{ 64, 3, 0, 0 },
		{ 64, 48, 0, 0 },
		{ 64, 131072, 0, 0 },
		{ 64, 0x80000000u, 0, 0 },
		{ 64, ~0u, 0, 0 },
		{ 64, 0, 127, 0 },
		{ 64, 0, ~0u, 0 },
		{ 64, 0, 0, 0x1 },
		{ 64, 0, 0, 0x80000000u },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct kmem_cache_args args = { .align = bad[i].align,
						.sheaf_capacity = bad[i].capacity };

		errno = 0;
		cr_assert_null(kmem_cache_create("bad", bad[i].size, &args, bad[i].flags),
			       "case %zu was accepted", i);
		cr_assert_eq(errno, EINVAL, "case %zu: errno %d", i, errno);
	}
	errno = 0;
	cr_assert_null(kmem_cache_create(NULL, 64, NULL, 0));
	cr_assert_eq(errno, EINVAL);
	expect_whole(nolock_heap_default(), NULL, "after bad arguments");
}

Test(cache, panic_flag_aborts, .signal = SIGABRT)
{
	kmem_cache_create("panic", 0, NULL, SLAB_PANIC);
}

Test(cache, long_name_is_cut_and_found)
{
	static const char name[] = "a-name-that-is-longer-than-thirty-one-characters";
	struct nolock_heap *heap = nolock_heap_default();
	struct kmem_cache *s = kmem_cache_create(name, 100, NULL, 0);
	struct nolock_cache_stat st;
	char cut[32] = "";

	cr_assert_not_null(s);
	memcpy(cut, name, 31);
	stat_of(heap, cut, &st);
	cr_assert_eq(st.object_size, 100);
	cr_assert_eq(nolock_heap_kmem_cache_find(heap, cut), s);
	cr_assert_eq(nolock_heap_kmem_cache_find(heap, name), s);
	errno = 0;
	cr_assert_null(nolock_heap_kmem_cache_find(heap, "no such cache"));
	cr_assert_eq(errno, ENOENT);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	errno = 0;
	cr_assert_null(nolock_heap_kmem_cache_find(heap, cut));
	cr_assert_eq(errno, ENOENT);
}

Test(cache, destroy_refuses_live_objects)
{
	struct kmem_cache *s = kmem_cache_create("busy", 200, NULL, 0);
	void *obj[1000];

	cr_assert_not_null(s);
	for (int live = 1; live <= 1000; live += 333) {
		for (int i = 0; i < 1000; i++)
			cr_assert_not_null(obj[i] = kmem_cache_alloc(s, GFP_KERNEL));
		for (int i = live; i < 1000; i++)
			kmem_cache_free(s, obj[i]);
		cr_assert_eq(kmem_cache_destroy(s), -EBUSY);
		expect_whole(nolock_heap_default(), NULL, "after a refused destroy");
		/* The cache stays usable. */
		for (int i = live; i < 1000; i++)
			cr_assert_not_null(obj[i] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
		for (int i = 0; i < 1000; i++)
			kfree(obj[i]);
	}
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(kmem_cache_destroy(NULL), 0);
	expect_whole(nolock_heap_default(), NULL, "after destroy");
}

Test(cache, shrink_gives_slabs_back)
{
	struct kmem_cache *s = kmem_cache_create("shrink", 1024, NULL, 0);
	struct nolock_cache_stat st;
	void *obj[4096];
	int given;

	cr_assert_not_null(s);
	for (int i = 0; i < 4096; i++)
		cr_assert_not_null(obj[i] = kmem_cache_alloc(s, GFP_KERNEL));
	stat_of(nolock_heap_default(), "shrink", &st);
	cr_assert_geq(st.slabs, 64);
	cr_assert_eq(st.allocated, 4096);
	for (int i = 1; i < 4096; i++)
		kmem_cache_free(s, obj[i]);
	given = kmem_cache_shrink(s);
	cr_assert_eq((unsigned long)given, st.slabs - 1, "%d of %lu slabs given back", given,
		     st.slabs);
	stat_of(nolock_heap_default(), "shrink", &st);
	cr_assert_eq(st.slabs, 1);
	cr_assert_eq(st.in_sheaves, 0);
	cr_assert_eq(st.allocated, 1);
	kmem_cache_free(s, obj[0]);
	cr_assert_eq(kmem_cache_shrink(s), 1);
	cr_assert_eq(kmem_cache_shrink(s), 0);
	expect_whole(nolock_heap_default(), NULL, "after shrink");
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

static unsigned long constructed;

static void ctor(void *p)
{
	memset(p, 0x5c, 72);
	constructed++;
}

Test(cache, constructor_runs_once_per_object)
{
	struct kmem_cache_args args = { .ctor = ctor };
	struct kmem_cache *s = kmem_cache_create("ctor", 72, &args, 0);
	struct nolock_cache_stat st;
	unsigned char want[72];
	void *obj[3000];

	cr_assert_not_null(s);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 4 * MiB), 0);
	memset(want, 0x5c, sizeof(want));
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 3000; i++) {
			obj[i] = i & 1 ? kmem_cache_alloc(s, GFP_KERNEL) :
					 kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE);
			cr_assert_not_null(obj[i]);
			cr_assert_eq(memcmp(obj[i], want, sizeof(want)), 0, "round %d object %d",
				     round, i);
		}
		stat_of(nolock_heap_default(), "ctor", &st);
		cr_assert_eq(constructed, st.objects, "%lu constructed, %lu objects", constructed,
			     st.objects);
		/* An object is freed in its constructed state, and comes back in it. */
		for (int i = 0; i < 3000; i++)
			kfree(obj[i]);
	}
	cr_assert_eq(kmem_cache_destroy(s), 0);
	report("  constructor: %lu objects", constructed);
}

Test(cache, table_full_is_enospc)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct kmem_cache *s[300];
	int n;

	cr_assert_not_null(heap);
	for (int round = 0; round < 2; round++) {
		for (n = 0; n < 300; n++) {
			char name[16];

			snprintf(name, sizeof(name), "t%d", n);
			errno = 0;
			s[n] = nolock_heap_kmem_cache_create(heap, name, 48, NULL, 0);
			if (!s[n])
				break;
			for (int i = 0; i < n; i++)
				cr_assert_neq(s[i], s[n]);
		}
		cr_assert_eq(errno, ENOSPC, "cache %d: errno %d", n, errno);
		cr_assert_gt(n, 40, "only %d caches", n);
		cr_assert_eq(kmem_cache_destroy(s[n / 2]), 0);
		s[n / 2] = nolock_heap_kmem_cache_create(heap, "again", 80, NULL, 0);
		cr_assert_not_null(s[n / 2]);
		cr_assert_eq(kmem_cache_size(s[n / 2]), 80);
		expect_whole(heap, NULL, "with a full table");
		for (int i = 0; i < n; i++)
			cr_assert_eq(kmem_cache_destroy(s[i]), 0);
	}
	expect_whole(heap, NULL, "with all caches destroyed");
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  table_full: %d caches", n);
}

static int cmp_ptr(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t) * (void *const *)a, y = (uintptr_t) * (void *const *)b;

	return x < y ? -1 : x > y;
}

Test(cache, bulk)
{
	enum { MAX = 5000 };
	struct kmem_cache *s = kmem_cache_create("bulk", 56, NULL, 0);
	struct nolock_heap_report rep;
	static void *p[MAX];
	unsigned long ops = 0;

	cr_assert_not_null(s);
	for (size_t n = 1; n <= MAX; n = n * 3 / 2 + 1) {
		cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL | __GFP_ZERO, n, p), (int)n);
		for (size_t i = 0; i < n; i++) {
			for (int b = 0; b < 56; b++)
				cr_assert_eq(((char *)p[i])[b], 0, "object %zu of %zu", i, n);
			pat_fill(p[i], 56, i);
		}
		for (size_t i = 0; i < n; i++)
			cr_assert(pat_check(p[i], 56, i));
		qsort(p, n, sizeof(p[0]), cmp_ptr);
		for (size_t i = 1; i < n; i++)
			cr_assert_neq(p[i], p[i - 1], "bulk gave an object twice");
		expect_whole(nolock_heap_default(), &rep, "with bulk objects");
		cr_assert_eq(rep.allocated, n);
		kmem_cache_free_bulk(ops & 1 ? s : NULL, n, p);
		ops += n;
	}
	/* A mix of caches may be freed with no cache named. */
	for (int i = 0; i < 300; i++)
		cr_assert_not_null(p[i] = i % 3 ? kmalloc((size_t)i * 10 + 1, GFP_KERNEL) :
						  kmem_cache_alloc(s, GFP_KERNEL));
	kmem_cache_free_bulk(NULL, 300, p);
	kmem_cache_free_bulk(s, 0, p);
	expect_whole(nolock_heap_default(), &rep, "after bulk");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	report("  bulk: %lu objects", ops);
}

Test(cache, bulk_is_all_or_nothing)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct kmem_cache *s;
	struct nolock_heap_report before, after;
	size_t n = 40000; /* of 4096 bytes: more than the heap */
	void **p = calloc(n, sizeof(*p));

	cr_assert_not_null(heap);
	cr_assert_not_null(p);
	s = nolock_heap_kmem_cache_create(heap, "bulk-full", 4096, NULL, 0);
	cr_assert_not_null(s);
	cr_assert_not_null(kmem_cache_alloc(s, GFP_KERNEL));
	expect_whole(heap, &before, "before");
	errno = 0;
	cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL | __GFP_NOWARN, n, p), 0);
	cr_assert_eq(errno, ENOMEM);
	expect_whole(heap, &after, "after a bulk that failed");
	cr_assert_eq(before.allocated, after.allocated);
	cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, 1000, p), 1000);
	kmem_cache_free_bulk(s, 1000, p);
	cr_assert_eq(nolock_heap_close(heap), 0);
	free(p);
}

Test(cache, prefilled_sheaves)
{
	static const unsigned int sizes[] = { 1, 2, 15, 16, 31, 32, 33, 64, 126, 127, 500, 4096 };
	struct kmem_cache_args args = { .sheaf_capacity = 32 };
	struct kmem_cache *s = kmem_cache_create("prefill", 120, &args, 0);
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_heap_report rep;
	static void *obj[8192];
	unsigned long ops = 0, base;

	cr_assert_not_null(s);
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			unsigned int n = sizes[i], have, again, got = 0;
			struct slab_sheaf *sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, n);

			cr_assert_not_null(sheaf, "%u objects", n);
			have = kmem_cache_sheaf_size(sheaf);
			cr_assert_geq(have, n);
			expect_whole(heap, &rep, "with a prefilled sheaf");
			/*
			 * Prefilled objects are free ones, but for those of an oversize sheaf: they
			 * and the sheaf itself are ordinary objects.
			 */
			base = rep.allocated + rep.large;
			cr_assert_eq(base, n <= 32 ? 0 : have + 1, "%u prefilled, %lu allocated", n,
				     base);
			/* Take some, refill, take all: never a fall back, never one less. */
			for (; got < n / 2; got++) {
				obj[got] = kmem_cache_alloc_from_sheaf(s, got & 1 ? __GFP_ZERO : 0,
								       sheaf);
				cr_assert_not_null(obj[got]);
				if (got & 1)
					for (int b = 0; b < 120; b++)
						cr_assert_eq(((char *)obj[got])[b], 0);
				pat_fill(obj[got], 120, got);
				cr_assert_eq(kmem_cache_sheaf_size(sheaf), have - got - 1);
			}
			cr_assert_eq(kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, n), 0);
			again = kmem_cache_sheaf_size(sheaf);
			cr_assert_geq(again, n);
			if (round == 1) {
				/* Give it back part used. */
				kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
			} else {
				for (unsigned int k = 0; k < again; k++, got++) {
					obj[got] = kmem_cache_alloc_from_sheaf(s, 0, sheaf);
					cr_assert_not_null(obj[got]);
					pat_fill(obj[got], 120, got);
				}
				cr_assert_null(kmem_cache_alloc_from_sheaf(s, 0, sheaf));
				cr_assert_null(kmem_cache_alloc_from_sheaf(s, 0, sheaf));
				cr_assert_eq(kmem_cache_sheaf_size(sheaf), 0);
				kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
			}
			expect_whole(heap, &rep, "after a sheaf went back");
			cr_assert_eq(rep.allocated, got);
			for (unsigned int k = 0; k < got; k++) {
				cr_assert(pat_check(obj[k], 120, k));
				kfree(obj[k]);
			}
			ops += got;
		}
	for (unsigned int n = 1; n < 4096; n *= 5) {
		struct slab_sheaf *sheaf = kmem_cache_prefill_sheaf(s, GFP_ATOMIC, n);

		/* Growing beyond what the sheaf can hold replaces it. */
		cr_assert_not_null(sheaf);
		cr_assert_eq(kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, 4096), 0);
		cr_assert_geq(kmem_cache_sheaf_size(sheaf), 4096);
		kmem_cache_return_sheaf(s, 0, sheaf);
	}
	expect_whole(heap, &rep, "after all sheaves");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	report("  prefilled_sheaves: %lu objects", ops);
}

Test(cache, bad_sheaf_sizes)
{
	struct kmem_cache *s = kmem_cache_create("bad-sheaf", 64, NULL, 0);
	struct slab_sheaf *sheaf, *same;
	unsigned int have;

	cr_assert_not_null(s);
	for (unsigned int i = 0; i < 3; i++) {
		static const unsigned int bad[] = { 0, 4097, ~0u };

		errno = 0;
		cr_assert_null(kmem_cache_prefill_sheaf(s, GFP_KERNEL, bad[i]));
		cr_assert_eq(errno, EINVAL, "%u objects", bad[i]);
	}
	same = sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 10);
	cr_assert_not_null(sheaf);
	have = kmem_cache_sheaf_size(sheaf);
	cr_assert_eq(kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, 4097), -EINVAL);
	cr_assert_eq(sheaf, same, "a refused refill leaves the sheaf");
	cr_assert_eq(kmem_cache_sheaf_size(sheaf), have);
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	expect_whole(nolock_heap_default(), NULL, "after bad sheaf sizes");
}

Test(cache, sheaf_returned_twice, .description = "refused and counted: nobody has it any more")
{
	static void *obj[600];
	struct nolock_heap *heap = nolock_heap_default();
	struct kmem_cache_args args = { .sheaf_capacity = 40 };
	struct kmem_cache *s = kmem_cache_create("twice", 200, &args, SLAB_NO_MERGE);
	struct kmem_cache *other = kmem_cache_create("other", 200, &args, SLAB_NO_MERGE);
	static const unsigned int sizes[] = { 5, 30, 2000 };
	struct nolock_heap_report before, after;

	cr_assert_not_null(s);
	cr_assert_not_null(other);
	for (unsigned int i = 0; i < 9; i++) {
		struct slab_sheaf *sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, sizes[i % 3]);
		struct slab_sheaf *same = sheaf;

		cr_assert_not_null(sheaf);
		if (i % 3 < 2) {
			/* To another cache: it stays the caller's. */
			expect_whole(heap, &before, "before");
			kmem_cache_return_sheaf(other, GFP_KERNEL, sheaf);
			cr_assert_geq(kmem_cache_sheaf_size(sheaf), sizes[i % 3]);
			expect_whole(heap, &after, "after it was returned to another cache");
			cr_assert_eq(after.refused - before.refused, 1);
		}
		kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
		expect_whole(heap, &before, "after it was returned");
		kmem_cache_return_sheaf(s, i & 1 ? GFP_KERNEL : 0, sheaf);
		if (i % 3 < 2) {
			/* And it gives nothing, and takes nothing. */
			errno = 0;
			cr_assert_null(kmem_cache_alloc_from_sheaf(s, 0, sheaf));
			cr_assert_eq(errno, EINVAL);
			cr_assert_eq(kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, 20), -EINVAL);
			cr_assert_eq(sheaf, same);
		}
		expect_whole(heap, &after, "after it was returned twice");
		cr_assert_eq(after.refused - before.refused, 1, "%u objects: %lu", sizes[i % 3],
			     after.refused - before.refused);
	}
	for (size_t i = 0; i < ARRAY_LEN(obj); i++) {
		obj[i] = kmem_cache_alloc(s, GFP_KERNEL);
		pat_fill(obj[i], 200, i);
	}
	for (size_t i = 0; i < ARRAY_LEN(obj); i++) {
		cr_assert(pat_check(obj[i], 200, i), "object %zu was handed out twice", i);
		kfree(obj[i]);
	}
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(kmem_cache_destroy(other), 0);
	expect_whole(heap, NULL, "after sheaves that were returned twice");
}

Test(cache, sheaf_of_a_full_heap, .description = "prefill and refill fail whole")
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "full", 32768, NULL, 0);
	struct slab_sheaf *sheaf, *same;
	struct nolock_heap_report before, after;
	static void *obj[4096];
	unsigned int have;
	int n = 0;

	cr_assert_not_null(s);
	sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 20);
	cr_assert_not_null(sheaf);
	while (n < 4096 && (obj[n] = kmem_cache_alloc(s, GFP_KERNEL | __GFP_NOWARN)))
		n++;
	expect_whole(heap, &before, "with a full heap");
	errno = 0;
	cr_assert_null(kmem_cache_prefill_sheaf(s, GFP_KERNEL | __GFP_NOWARN, 30));
	cr_assert_eq(errno, ENOMEM);
	same = sheaf;
	have = kmem_cache_sheaf_size(sheaf);
	cr_assert_eq(kmem_cache_refill_sheaf(s, GFP_KERNEL | __GFP_NOWARN, &sheaf, have + 50),
		     -ENOMEM);
	cr_assert_eq(sheaf, same);
	cr_assert_eq(kmem_cache_sheaf_size(sheaf), have);
	expect_whole(heap, &after, "after sheaves that failed");
	cr_assert_eq(before.allocated, after.allocated);
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	kmem_cache_free_bulk(s, (size_t)n, obj);
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(cache, free_to_the_wrong_cache)
{
	struct kmem_cache *a = kmem_cache_create("right", 64, NULL, 0);
	struct kmem_cache *b = kmem_cache_create("wrong", 64, NULL, 0);
	struct nolock_heap_report rep;
	void *p[10];

	cr_assert_not_null(a);
	cr_assert_not_null(b);
	for (int i = 0; i < 10; i++)
		cr_assert_not_null(p[i] = kmem_cache_alloc(a, GFP_KERNEL));
	for (int i = 0; i < 10; i++)
		if (i & 1)
			kmem_cache_free(b, p[i]);
		else
			kmem_cache_free_nolock(b, p[i]);
	/* Each went to the cache that it belongs to, and was counted. */
	expect_whole(nolock_heap_default(), &rep, "after frees to the wrong cache");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(rep.refused, 10, "%lu counted", rep.refused);
	cr_assert_eq(kmem_cache_destroy(a), 0);
	cr_assert_eq(kmem_cache_destroy(b), 0);
}
