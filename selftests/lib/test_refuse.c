// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_refuse.c - frees of what was never handed out: foreign, interior, twice. Each is refused
 * and counted, and the inventory stays whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

static unsigned long refused(struct nolock_heap *heap, const char *when)
{
	struct nolock_heap_report rep;

	expect_whole(heap, &rep, when);
	return rep.refused;
}

static void free_all_ways(const void *p)
{
	kfree(p);
	kfree_nolock(p);
}

Test(refuse, foreign_pointers)
{
	struct nolock_heap *heap = nolock_heap_default();
	void *own = kmalloc(100, GFP_KERNEL);
	static int global;
	int local, n = 0;
	void *heap_c = malloc(100);
	void *mapped = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const void *foreign[] = {
		&global,
		&local,
		heap_c,
		mapped,
		(char *)heap_c + 3,
		(void *)17,
		(void *)4096,
		(void *)0xdead000000000ull,
		(void *)0x7fffffffffffull,
		(void *)0x800000000000ull,
		(void *)0xffff888000000000ull,
		(void *)~0ull,
		(void *)(~0ull - 15),
		"text",
		(void *)(uintptr_t)&free_all_ways,
	};
	unsigned long before = refused(heap, "before");

	cr_assert_not_null(own);
	cr_assert_not_null(heap_c);
	cr_assert_neq(mapped, MAP_FAILED);
	for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
		free_all_ways(foreign[i]);
		n += 2;
		cr_assert_eq(refused(heap, "after a foreign free"), before + (unsigned long)n,
			     "%p: not counted", foreign[i]);
	}
	free(heap_c);
	munmap(mapped, 65536);
	kfree(own);
	report("  foreign_pointers: %d frees refused", n);
}

Test(refuse, interior_pointers)
{
	static const size_t sizes[] = { 16, 32, 48, 64, 96, 112, 320, 1000, 4096, 5000, 32768 };
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long n = 0;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *p = kmalloc(sizes[i], GFP_KERNEL);
		size_t usable = ksize(p);
		unsigned long before = refused(heap, "before");

		cr_assert_not_null(p);
		pat_fill(p, usable, i);
		n = 0;
		for (size_t off = 1; off < usable; off += usable / 7 + 1) {
			free_all_ways(p + off);
			n += 2;
		}
		free_all_ways(p + usable - 1);
		n += 2;
		/* What a sheaf cannot see is caught when the object reaches its slab. */
		nolock_heap_trim(heap);
		cr_assert_eq(refused(heap, "after interior frees") - before, n,
			     "%zu bytes: %lu interior frees, %lu counted", sizes[i], n,
			     refused(heap, "again") - before);
		cr_assert(pat_check(p, usable, i), "an interior free wrote to the object");
		kfree(p);
	}
	expect_whole(heap, NULL, "after interior frees");
}

Test(refuse, ends_of_a_slab, .description = "the rest of a chunk that holds no object")
{
	struct nolock_heap *heap = nolock_heap_default();
	struct kmem_cache *s = kmem_cache_create("rest", 20000, NULL, 0);
	char *p = kmem_cache_alloc(s, GFP_KERNEL);
	char *chunk = (char *)((uintptr_t)p & ~(uintptr_t)(NL_CHUNK_SIZE - 1));
	unsigned long before = refused(heap, "before");
	size_t size = ksize(p);

	cr_assert_not_null(p);
	cr_assert_lt(3 * size + 16, NL_CHUNK_SIZE);
	free_all_ways(chunk + 3 * size);
	free_all_ways(chunk + NL_CHUNK_SIZE - 1);
	free_all_ways(chunk + NL_CHUNK_SIZE - 16);
	nolock_heap_trim(heap);
	cr_assert_eq(refused(heap, "after") - before, 6);
	kfree(p);
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

Test(refuse, large_objects)
{
	struct nolock_heap *heap = nolock_heap_default();
	char *p = kmalloc(MiB, GFP_KERNEL), *other = kmalloc(MiB, GFP_KERNEL);
	struct nolock_heap_report rep;
	unsigned long before = refused(heap, "before");
	unsigned long n = 0;

	cr_assert_not_null(p);
	cr_assert_not_null(other);
	for (size_t off = 1; off < MiB; off = off * 3 + 5) {
		free_all_ways(p + off);
		n += 2;
	}
	free_all_ways(p + NL_CHUNK_SIZE);
	n += 2;
	kfree(p);
	/* Twice: its chunks are free, or another's by now. */
	free_all_ways(p);
	free_all_ways(p + NL_CHUNK_SIZE);
	n += 4;
	cr_assert_eq(refused(heap, "after") - before, n);
	expect_whole(heap, &rep, "with one large object left");
	cr_assert_eq(rep.large, 1);
	kfree(other);
}

Test(refuse, metadata_and_free_chunks)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	unsigned long before, n = 0;
	void *p;

	cr_assert_not_null(heap);
	cr_assert_not_null(p = nolock_heap_kmalloc(heap, 64, GFP_KERNEL));
	before = refused(heap, "before");
	/* Every chunk of the heap but the one in use: metadata, free, or not opened. */
	for (size_t off = 0; off < 64 * MiB; off += NL_CHUNK_SIZE) {
		char *at = heap->base + off;

		if ((uintptr_t)at == ((uintptr_t)p & ~(uintptr_t)(NL_CHUNK_SIZE - 1)))
			continue;
		free_all_ways(at);
		free_all_ways(at + 4096);
		n += 4;
	}
	cr_assert_eq(refused(heap, "after") - before, n, "%lu refused of %lu",
		     refused(heap, "after") - before, n);
	kfree(p);
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  metadata_and_free_chunks: %lu frees refused", n);
}

Test(refuse, double_frees)
{
	static const size_t sizes[] = { 16, 64, 100, 1000, 4096, 32768 };
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long total = 0;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		enum { N = 64 };
		void *keep[2], *p[N];
		struct nolock_heap_report rep;
		unsigned long before = refused(heap, "before");
		unsigned long had;

		/* A neighbour keeps each slab from being given back as a whole. */
		for (int k = 0; k < N; k++)
			cr_assert_not_null(p[k] = kmalloc(sizes[i], GFP_KERNEL));
		keep[0] = p[0];
		keep[1] = p[N - 1];
		for (int k = 1; k < N - 1; k++)
			kfree(p[k]);
		nolock_heap_trim(heap); /* every free object is in its slab now */
		expect_whole(heap, &rep, "after the first free");
		had = rep.allocated;
		for (int k = 1; k < N - 1; k += 5) {
			kfree(p[k]);
			total++;
		}
		nolock_heap_trim(heap);
		for (int k = 2; k < N - 1; k += 5) {
			kfree_nolock(p[k]);
			total++;
		}
		nolock_heap_trim(heap);
		expect_whole(heap, &rep, "after double frees");
		cr_assert_eq(rep.allocated, had);
		cr_assert_eq(rep.refused - before, 13 + 13, "%zu bytes: %lu double frees counted",
			     sizes[i], rep.refused - before);
		kfree(keep[0]);
		kfree(keep[1]);
		nolock_heap_trim(heap);
	}
	report("  double_frees: %lu refused", total);
}

static int by_address(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t) * (void *const *)a, y = (uintptr_t) * (void *const *)b;

	return x < y ? -1 : x > y;
}

/* How many of them are there more than once? */
static unsigned int doubles(void **p, size_t n)
{
	unsigned int twice = 0;

	qsort(p, n, sizeof(*p), by_address);
	for (size_t i = 1; i < n; i++)
		twice += p[i] == p[i - 1];
	return twice;
}

/*
 * Bad frees of objects in one sheaf, then as many good ones as fill it: nobody gets an object twice
 * that comes by after that. Without restartable sequences no sheaf is looked through.
 */
static void twice_in_a_sheaf(struct nolock_heap *heap, size_t size, int how)
{
	enum { N = 1000 };
	static void *p[N], *q[2 * N];
	struct nolock_heap_report rep;
	unsigned long before = refused(heap, "before"), bad = 0;

	for (int i = 0; i < N; i++)
		cr_assert_not_null(p[i] = nolock_heap_kmalloc(heap, size, GFP_KERNEL));
	switch (how) {
	case 0: /* at once */
		kfree(p[0]);
		kfree(p[0]);
		bad = 1;
		break;
	case 1: /* with another in between, both of them */
		kfree(p[0]);
		kfree(p[1]);
		kfree_nolock(p[0]);
		kfree_nolock(p[1]);
		bad = 2;
		break;
	default: /* three times */
		kfree(p[0]);
		kfree(p[1]);
		kfree(p[0]);
		kfree(p[0]);
		bad = 2;
	}
	for (int i = how ? 2 : 1; i < N; i++)
		kfree(p[i]);
	if (!rseq_in_use(heap))
		nolock_heap_trim(heap);
	cr_assert_eq(refused(heap, "with the sheaf full") - before, bad, "%zu bytes, way %d", size,
		     how);
	for (int i = 0; i < 2 * N; i++)
		cr_assert_not_null(q[i] = nolock_heap_kmalloc(heap, size, GFP_KERNEL));
	cr_assert_eq(doubles(q, 2 * N), 0, "%zu bytes, way %d", size, how);
	kmem_cache_free_bulk(NULL, 2 * N, q);
	nolock_heap_trim(heap);
	expect_whole(heap, &rep, "after double frees in a sheaf");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(rep.refused - before, bad);
}

Test(refuse, twice_in_a_sheaf)
{
	static const size_t sizes[] = { 16, 48, 64, 300, 1024, 4096 };
	struct nolock_heap *heap;

	for_each_kind(heap, 256 * MiB) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			for (int how = 0; how < 3; how++)
				twice_in_a_sheaf(heap, sizes[i], how);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(refuse, twice_by_a_slow_path, .description = "at once: free in its slab, or in a full sheaf")
{
	struct nolock_heap *heap = nolock_heap_default();
	struct kmem_cache_args args = { .sheaf_capacity = 4 };
	struct kmem_cache *s = kmem_cache_create("slow", 64, &args, SLAB_NO_MERGE);
	unsigned long before;
	void *p[20];

	cr_assert_not_null(s);
	cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, ARRAY_LEN(p), p), (int)ARRAY_LEN(p));
	nolock_heap_trim(heap);
	before = refused(heap, "before");
	for (int i = 0; i < 4; i++)
		kfree(p[i]);
	/* The sheaf is full of these. */
	if (rseq_in_use(heap)) {
		kfree(p[0]);
		kfree_nolock(p[3]);
		kmem_cache_free_bulk(s, 1, p + 2);
		cr_assert_eq(refused(heap, "in a full sheaf") - before, 3);
	}
	/* And now their slab has them, and no sheaf. */
	nolock_heap_trim(heap);
	before = refused(heap, "before");
	kfree(p[1]);
	kfree_nolock(p[2]);
	cr_assert_eq(refused(heap, "in their slab") - before, 2);
	kmem_cache_free_bulk(s, 16, p + 4);
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

Test(refuse, krealloc_of_no_object, .description = "refused, counted, and nothing touched")
{
	static const size_t sizes[] = { 16, 48, 64, 100, 1000, 5000, 32768, 70000, MiB };
	struct nolock_heap *heap;
	unsigned long n = 0;

	for_each_kind(heap, 64 * MiB) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			char *p = nolock_heap_kmalloc(heap, sizes[i], GFP_KERNEL);
			size_t usable = ksize(p);
			unsigned long before = refused(heap, "before"), tried = 0;

			cr_assert_not_null(p);
			pat_fill(p, usable, i);
			for (size_t off = 1; off < usable; off += usable / 5 + 1) {
				size_t to[] = { 1, usable - off, usable, usable * 2 };

				for (size_t j = 0; j < ARRAY_LEN(to); j++) {
					errno = 0;
					cr_assert_null(krealloc(p + off, to[j],
								j & 1 ? GFP_KERNEL :
									GFP_KERNEL | __GFP_ZERO),
						       "%zu bytes at %zu of %zu", to[j], off,
						       usable);
					cr_assert_eq(errno, EINVAL);
					tried++;
				}
			}
			cr_assert(pat_check(p, usable, i));
			cr_assert_eq(refused(heap, "after") - before, tried);
			n += tried;
			kfree(p);
		}
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	report("  krealloc_of_no_object: %lu refused", n);
}

Test(refuse, krealloc_of_a_freed_object)
{
	static const size_t sizes[] = { 16, 100, 5000, 70000 };
	struct nolock_heap *heap;

	for_each_kind(heap, 64 * MiB) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			void *keep = nolock_heap_kmalloc(heap, sizes[i], GFP_KERNEL);
			char *p = nolock_heap_kmalloc(heap, sizes[i], GFP_KERNEL);
			unsigned long before = refused(heap, "before");

			cr_assert_not_null(keep);
			cr_assert_not_null(p);
			kfree(p);
			nolock_heap_trim(heap); /* into its slab, which lives on */
			for (size_t to = 1; to < 200000; to *= 7) {
				errno = 0;
				cr_assert_null(krealloc(p, to, GFP_KERNEL), "%zu to %zu", sizes[i],
					       to);
				cr_assert_eq(errno, EINVAL);
				before++;
			}
			cr_assert_eq(refused(heap, "after"), before);
			kfree(keep);
		}
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* A cache goes, the bad frees of its objects stay on the books. */
static void bad_free(struct kmem_cache *s, int how, unsigned long *bad)
{
	void *p[3] = { kmem_cache_alloc(s, GFP_KERNEL), NULL, NULL };

	cr_assert_not_null(p[0]);
	switch (how) {
	case 0:
		kfree(p[0]);
		kfree(p[0]);
		*bad += 1;
		break;
	case 1:
		p[1] = p[2] = p[0];
		kmem_cache_free_bulk(s, 3, p);
		*bad += 2;
		break;
	case 2:
		kfree((char *)p[0] + 8);
		kfree(p[0]);
		*bad += 1;
		break;
	default:
		kmem_cache_free_nolock(s, p[0]);
		kmem_cache_shrink(s);
		kfree_nolock(p[0]);
		/* Its slab is gone, or it is free in it. */
		*bad += 1;
	}
}

Test(refuse, cache_destroyed, .description = "bad frees, then the cache goes: the books agree")
{
	struct nolock_heap *heap;

	for_each_kind(heap, 64 * MiB) {
		unsigned long bad = 0;

		for (int round = 0; round < 3; round++)
			for (int how = 0; how < 4; how++) {
				struct kmem_cache *s = nolock_heap_kmem_cache_create(
					heap, "gone", 200, NULL, SLAB_NO_MERGE);
				void *live = kmem_cache_alloc(s, GFP_KERNEL);

				cr_assert_not_null(live);
				bad_free(s, how, &bad);
				kfree(live);
				kmem_cache_shrink(s);
				cr_assert_eq(refused(heap, "before it is destroyed"), bad, "way %d",
					     how);
				cr_assert_eq(kmem_cache_destroy(s), 0);
				cr_assert_eq(refused(heap, "after it is destroyed"), bad, "way %d",
					     how);
			}
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(refuse, closed_heap, .description = "objects of a heap that is gone are foreign")
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	unsigned long before = refused(nolock_heap_default(), "before");
	void *p;

	cr_assert_not_null(heap);
	cr_assert_not_null(p = nolock_heap_kmalloc(heap, 64, GFP_KERNEL));
	cr_assert_eq(nolock_heap_of(p), heap);
	cr_assert_eq(nolock_heap_close(heap), 0);
	cr_assert_null(nolock_heap_of(p));
	free_all_ways(p);
	cr_assert_eq(refused(nolock_heap_default(), "after") - before, 2);
}
