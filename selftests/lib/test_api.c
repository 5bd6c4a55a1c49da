// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_api.c - the calls of slab.h on each kind of heap, with each flag: arrays, nodes, zeroing,
 * accounting, and the largest object that a heap can hold.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)

static const gfp_t ordinary[] = { GFP_KERNEL,
				  GFP_NOWAIT,
				  GFP_ATOMIC,
				  0,
				  GFP_KERNEL | __GFP_NOFAIL,
				  GFP_KERNEL | __GFP_NOWARN,
				  GFP_KERNEL | __GFP_THISNODE,
				  GFP_KERNEL_ACCOUNT };

static bool all_zero(const void *p, size_t n)
{
	const unsigned char *b = p;

	return !n || (!b[0] && !memcmp(b, b + 1, n - 1));
}

/* Every size, dirtied, so that zeroing has something to do. */
static void dirty(struct nolock_heap *heap, gfp_t gfp)
{
	static const size_t sizes[] = { 16, 64, 100, 1000, 4096, 32768, 70000 };
	void *p[4];

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (size_t k = 0; k < ARRAY_LEN(p); k++)
			if ((p[k] = nolock_heap_kmalloc(heap, sizes[i], gfp)))
				memset(p[k], 0xa5, sizes[i]);
		for (size_t k = 0; k < ARRAY_LEN(p); k++)
			kfree(p[k]);
	}
}

Test(api, every_call_kind_and_flag)
{
	static const size_t sizes[] = { 1, 16, 63, 100, 1000, 4096, 32768 };
	struct nolock_heap_report rep;
	struct nolock_heap *heap;
	unsigned long ops = 0;

	for_each_kind(heap, HEAP_SIZE) {
		/* What does not block finds only what was opened before. */
		cr_assert_eq(nolock_heap_populate(heap, 2 * MiB), 0);
		for (size_t f = 0; f < ARRAY_LEN(ordinary); f++) {
			gfp_t gfp = ordinary[f];

			dirty(heap, GFP_KERNEL | (gfp & __GFP_ACCOUNT));
			for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
				size_t n = sizes[i];
				void *p[8] = {
					nolock_heap_kmalloc(heap, n, gfp),
					nolock_heap_kzalloc(heap, n, gfp),
					nolock_heap_kmalloc_node(heap, n, gfp, 0),
					nolock_heap_kmalloc_node(heap, n, gfp, NUMA_NO_NODE),
					nolock_heap_kmalloc_array(heap, n, 1, gfp),
					nolock_heap_kcalloc(heap, 1, n, gfp),
					nolock_heap_krealloc(heap, NULL, n, gfp | __GFP_ZERO),
					nolock_heap_kmalloc_nolock(
						heap, n, (gfp & __GFP_ACCOUNT) | __GFP_ZERO, -1),
				};

				for (size_t k = 0; k < ARRAY_LEN(p); k++) {
					cr_assert_not_null(p[k], "%s: call %zu, gfp %#x, %zu bytes",
							   heap_kinds[kind], k, gfp, n);
					cr_assert_eq(nolock_heap_of(p[k]), heap);
					cr_assert_geq(ksize(p[k]), n);
					if (k == 1 || k >= 5)
						cr_assert(all_zero(p[k], n), "call %zu", k);
					memset(p[k], (int)k, n);
				}
				for (size_t k = 0; k < ARRAY_LEN(p); k++) {
					p[k] = nolock_heap_krealloc_array(heap, p[k], 2, n, gfp);
					cr_assert_not_null(p[k]);
					for (size_t b = 0; b < n; b++)
						cr_assert_eq(((char *)p[k])[b], (char)k);
					if (k & 1)
						kfree_nolock(p[k]);
					else
						kfree(p[k]);
					ops += 3;
				}
			}
		}
		expect_whole(heap, &rep, heap_kinds[kind]);
		cr_assert_eq(rep.allocated + rep.large, 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	report("  every_call_kind_and_flag: %lu calls", ops);
}

Test(api, flags_and_nodes_refused)
{
	struct nolock_heap *heap;

	for_each_kind(heap, HEAP_SIZE) {
		static const gfp_t bad[] = { 0x1, 0x80000000u, ~0u };

		for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
			errno = 0;
			cr_assert_null(nolock_heap_kmalloc(heap, 64, bad[i]));
			cr_assert_eq(errno, EINVAL);
			errno = 0;
			cr_assert_null(nolock_heap_kcalloc(heap, 4, 16, bad[i]));
			cr_assert_eq(errno, EINVAL);
		}
		errno = 0;
		cr_assert_null(nolock_heap_kmalloc_nolock(heap, 64, GFP_KERNEL, -1));
		cr_assert_eq(errno, EINVAL);
		for (int node = -3; node < 100; node += 7) {
			if (node == NUMA_NO_NODE || node == 0)
				continue;
			errno = 0;
			cr_assert_null(nolock_heap_kmalloc_node(heap, 64, GFP_KERNEL, node));
			cr_assert_eq(errno, EINVAL, "node %d", node);
		}
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	errno = 0;
	cr_assert_null(nolock_heap_kcalloc(NULL, 1, 1, GFP_KERNEL));
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_null(nolock_heap_krealloc(NULL, NULL, 1, GFP_KERNEL));
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_null(nolock_heap_kmalloc_node(NULL, 1, GFP_KERNEL, 0));
	cr_assert_eq(errno, EINVAL);
}

Test(api, arrays_that_overflow)
{
	static const size_t big[][2] = { { SIZE_MAX, 2 },
					 { 2, SIZE_MAX },
					 { SIZE_MAX, SIZE_MAX },
					 { (size_t)1 << 32, (size_t)1 << 32 },
					 { SIZE_MAX / 8 + 2, 8 } };
	void *p = kmalloc_array(3, 7, GFP_KERNEL);

	cr_assert_not_null(p);
	memset(p, 0x77, 21);
	for (size_t i = 0; i < ARRAY_LEN(big); i++) {
		errno = 0;
		cr_assert_null(kmalloc_array(big[i][0], big[i][1], GFP_KERNEL), "case %zu", i);
		cr_assert_eq(errno, ENOMEM);
		errno = 0;
		cr_assert_null(kcalloc(big[i][0], big[i][1], GFP_KERNEL), "case %zu", i);
		cr_assert_eq(errno, ENOMEM);
		errno = 0;
		cr_assert_null(krealloc_array(p, big[i][0], big[i][1], GFP_KERNEL), "case %zu", i);
		cr_assert_eq(errno, ENOMEM);
	}
	for (int i = 0; i < 21; i++)
		cr_assert_eq(((char *)p)[i], 0x77, "a failed krealloc_array touched the object");
	cr_assert_eq(krealloc_array(p, 0, 7, GFP_KERNEL), ZERO_SIZE_PTR);
	cr_assert_eq(kmalloc_array(0, SIZE_MAX, GFP_KERNEL), ZERO_SIZE_PTR);
	cr_assert_eq(kcalloc(SIZE_MAX, 0, GFP_KERNEL), ZERO_SIZE_PTR);
	p = kcalloc(1000, 100, GFP_KERNEL);
	cr_assert_not_null(p);
	cr_assert(all_zero(p, 100000));
	kfree(p);
	expect_whole(nolock_heap_default(), NULL, "after arrays");
}

Test(api, krealloc_keeps_zero)
{
	/* Zeroed as far as the bucket goes, shrunk in it, and grown in it again. */
	char *p = kzalloc(1024, GFP_KERNEL);

	cr_assert_not_null(p);
	memset(p, 0x5a, 1024);
	cr_assert_eq(krealloc(p, 600, GFP_KERNEL | __GFP_ZERO), p);
	cr_assert_eq(krealloc(p, 1024, GFP_KERNEL | __GFP_ZERO), p);
	for (int i = 0; i < 1024; i++)
		cr_assert_eq(p[i], i < 600 ? 0x5a : 0, "byte %d", i);
	kfree(p);
}

/* The largest object: found by trying, whole, and again after everything was in pieces. */
Test(api, largest_object)
{
	struct nolock_heap_report rep;
	struct nolock_heap *heap;

	for_each_kind(heap, HEAP_SIZE) {
		size_t chunks, largest = 0;
		char *p;

		nl_heap_t *h = heap->h;

		for (int round = 0; round < 2; round++) {
			chunks = (HEAP_SIZE >> NL_CHUNK_SHIFT) - h->first_chunk;
			cr_assert_null(nolock_heap_kmalloc(heap, (chunks << NL_CHUNK_SHIFT) + 1,
							   GFP_KERNEL | __GFP_NOWARN));
			expect_whole(heap, NULL, "after too large an object");
			p = nolock_heap_kmalloc(heap, chunks << NL_CHUNK_SHIFT, GFP_KERNEL);
			cr_assert_not_null(p, "%s, round %d: %zu chunks", heap_kinds[kind], round,
					   chunks);
			largest = ksize(p);
			cr_assert_eq(largest, chunks << NL_CHUNK_SHIFT);
			for (size_t i = 0; i < largest; i += NL_CHUNK_SIZE)
				p[i] = (char)(i >> NL_CHUNK_SHIFT);
			for (size_t i = 0; i < largest; i += NL_CHUNK_SIZE)
				cr_assert_eq(p[i], (char)(i >> NL_CHUNK_SHIFT));
			cr_assert_null(nolock_heap_kmalloc(heap, 1, GFP_KERNEL | __GFP_NOWARN));
			kfree(p);
			/* Slabs all over the heap, emptied: the allocation gives them back. */
			if (!round) {
				static void *o[4096];
				size_t n = 0;

				while (n < 4096 &&
				       (o[n] = nolock_heap_kmalloc(heap, 16384, GFP_KERNEL)))
					n++;
				while (n)
					kfree(o[--n]);
			}
		}
		expect_whole(heap, &rep, "after the largest object");
		cr_assert_eq(rep.large + rep.allocated, 0);
		report("  largest_object, %s: %zu bytes of %zu", heap_kinds[kind], largest,
		       HEAP_SIZE);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

static void stat_of(struct nolock_heap *heap, const char *name, struct nolock_cache_stat *st)
{
	for (unsigned int id = 0;; id++) {
		int rc = nolock_heap_cache_stat(heap, id, st);

		cr_assert_neq(rc, -ERANGE, "no cache named %s", name);
		if (rc == 0 && strcmp(st->name, name) == 0)
			return;
	}
}

Test(api, accounting)
{
	struct nolock_heap *heap;

	for_each_kind(heap, HEAP_SIZE) {
		struct kmem_cache *s =
			nolock_heap_kmem_cache_create(heap, "accounted", 100, NULL, SLAB_ACCOUNT);
		struct kmem_cache *t = nolock_heap_kmem_cache_create(heap, "plain", 100, NULL, 0);
		struct nolock_cache_stat cs;
		struct nolock_heap_stat hs;
		void *p[40], *large[3];

		cr_assert_not_null(s);
		cr_assert_not_null(t);
		for (int i = 0; i < 40; i++) {
			p[i] = i < 10 ? kmem_cache_alloc(s, GFP_KERNEL) :
			       i < 20 ? kmem_cache_alloc(t, GFP_KERNEL_ACCOUNT) :
			       i < 30 ? nolock_heap_kmalloc(heap, 64, GFP_KERNEL_ACCOUNT) :
			       i < 35 ? nolock_heap_kmalloc_nolock(heap, 64, __GFP_ACCOUNT, -1) :
					nolock_heap_kmalloc(heap, 64, GFP_KERNEL);
			cr_assert_not_null(p[i]);
		}
		large[0] = nolock_heap_kmalloc(heap, 100000, GFP_KERNEL);
		large[1] = nolock_heap_kmalloc(heap, 100000, GFP_KERNEL_ACCOUNT);
		large[2] = nolock_heap_kmalloc_nolock(heap, 60000, __GFP_ACCOUNT, -1);
		stat_of(heap, "accounted", &cs);
		cr_assert_eq(cs.accounted, 10UL * cs.size);
		cr_assert(cs.flags & SLAB_ACCOUNT);
		stat_of(heap, "plain", &cs);
		cr_assert_eq(cs.allocated, 10);
		cr_assert_eq(cs.accounted, 0);
		stat_of(heap, "kmalloc-cg-64", &cs);
		cr_assert_eq(cs.accounted, 15 * 64);
		stat_of(heap, "kmalloc-64", &cs);
		cr_assert_eq(cs.allocated, 5);
		cr_assert_eq(cs.accounted, 0);
		cr_assert_eq(nolock_heap_stat(heap, &hs), 0);
		cr_assert_eq(hs.accounted, 10 * 104 + 15 * 64 + 3 * NL_CHUNK_SIZE, "%lu",
			     hs.accounted);
		for (int i = 0; i < 40; i++)
			kfree(p[i]);
		for (int i = 0; i < 3; i++)
			kfree_nolock(large[i]);
		cr_assert_eq(nolock_heap_stat(heap, &hs), 0);
		cr_assert_eq(hs.accounted, 0);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(kmem_cache_destroy(t), 0);
		expect_whole(heap, NULL, "after accounting");
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(api, accounted_alignment)
{
	for (size_t n = 1; n <= 32768; n += n / 3 + 1) {
		void *p = kmalloc(n, GFP_KERNEL_ACCOUNT), *q = kmalloc(n, GFP_KERNEL);
		size_t bucket = ksize(p);

		cr_assert_not_null(p);
		cr_assert_eq(bucket, ksize(q));
		cr_assert_eq((uintptr_t)p % (bucket & -bucket), 0, "%zu bytes at %p", n, p);
		kfree(p);
		kfree(q);
	}
	expect_whole(nolock_heap_default(), NULL, "after accounted sizes");
}

/* What a heap costs before anything is in it, and a process that uses a little of it. */
Test(api, footprint)
{
	static const size_t sizes[] = { 16, 40, 64, 100, 200, 500, 1000, 4000 };
	struct nolock_heap_stat st;
	struct nolock_heap *heap;
	size_t before, after;
	struct nl_shape shape = { .base = 0x567000000000ULL,
				  .size = 64 * MiB,
				  .type = NL_HEAP_MEMFD,
				  .nr_slots = nolock_heap_default()->nr_slots,
				  .nr_nodes = 1 };

	kfree(kmalloc(1, GFP_KERNEL)); /* the library's own first touch */
	before = rss_bytes();
	heap = nolock_heap_create(0);
	cr_assert_not_null(heap);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *p = nolock_heap_kmalloc(heap, sizes[i], GFP_KERNEL);

		cr_assert_not_null(p);
		memset(p, 1, sizes[i]);
	}
	after = rss_bytes();
	cr_assert_eq(nolock_heap_stat(heap, &st), 0);
	cr_assert_geq(st.metadata, heap->h->off_tag);
	report("# footprint%s: %llu KiB of fixed metadata in a heap of 64 MiB, %u slots; %zu KiB "
	       "present after 8 small objects in a private one",
	       NL_BARN_MAX ? "" : " (TINY)", (unsigned long long)nl_heap_fixed_size(&shape) >> 10,
	       shape.nr_slots, (after - before) >> 10);
	cr_assert_eq(nolock_heap_close(heap), 0);
}
