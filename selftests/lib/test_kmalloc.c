// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_kmalloc.c - kmalloc and its relatives at every size: alignment, contents, zeroing,
 * krealloc, large objects, pages, flags, and what is refused with EINVAL.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "rseq.h"
#include "util.h"

/* The alignment that slab.h promises for an object whose bucket is @bucket bytes. */
static size_t promised_align(size_t size, size_t bucket)
{
	size_t align = bucket & -bucket;

	if (size && !(size & (size - 1)) && size > align)
		align = size;
	if (align > 65536)
		align = 65536;
	return align < 16 ? 16 : align;
}

static void *alloc_by(int how, size_t size)
{
	switch (how) {
	case 0:
		return kmalloc(size, GFP_KERNEL);
	case 1:
		return kzalloc(size, GFP_KERNEL);
	case 2:
		return kmalloc_nolock(size, 0, NUMA_NO_NODE);
	case 3:
		return kmalloc_node(size, GFP_ATOMIC, 0);
	case 4:
		return kmalloc_nolock(size, __GFP_ZERO | __GFP_ACCOUNT | __GFP_NOWARN, 0);
	default:
		return nolock_heap_kmalloc(nolock_heap_default(), size, GFP_NOWAIT);
	}
}

#define NR_HOW 6

static void free_by(int how, void *p)
{
	if (how & 1)
		kfree_nolock(p);
	else
		kfree(p);
}

static bool all_bytes(const void *p, size_t n, unsigned char value)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++)
		if (b[i] != value)
			return false;
	return true;
}

Test(kmalloc, every_size, .description = "alignment, usable size and contents of 0 to 40000")
{
	unsigned long ops = 0;

	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 4 * MiB), 0);
	for (size_t size = 0; size <= 40000; size += size < 4200 ? 1 : 7) {
		for (int how = 0; how < NR_HOW; how++) {
			unsigned char *p = alloc_by(how, size);
			size_t usable;

			cr_assert_not_null(p, "%zu bytes, way %d: errno %d", size, how, errno);
			if (!size) {
				cr_assert_eq((void *)p, ZERO_SIZE_PTR);
				cr_assert_eq(ksize(p), 0);
				free_by(how, p);
				continue;
			}
			usable = ksize(p);
			cr_assert_geq(usable, size);
			cr_assert_eq((uintptr_t)p % promised_align(size, usable), 0,
				     "%zu bytes at %p, bucket %zu", size, (void *)p, usable);
			if (how == 1 || how == 4)
				cr_assert(all_bytes(p, size, 0), "%zu bytes not zero", size);
			pat_fill(p, usable, size);
			cr_assert(pat_check(p, usable, size));
			memset(p, 0xa5, usable);
			free_by(how, p);
			ops++;
		}
	}
	expect_whole(nolock_heap_default(), NULL, "after every size");
	report("  every_size: %lu objects, 0 failures", ops);
}

Test(kmalloc, all_live_at_once, .description = "no two live objects overlap")
{
	enum { STEP = 13, N = 40000 / STEP };
	static void *obj[3][N];
	struct nolock_heap_report rep;
	unsigned long live = 0;

	/* Nolock callers live on what is opened. */
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 128 * MiB), 0);
	for (int how = 0; how < 3; how++)
		for (size_t i = 1; i < N; i++) {
			obj[how][i] = alloc_by(how, i * STEP);
			cr_assert_not_null(obj[how][i],
					   "%zu bytes, way %d: errno %d, %u + %u chunks", i * STEP,
					   how, errno, nl_heap_free_chunks(nolock_heap_default()),
					   nolock_heap_default()->h->nr_reserve);
			pat_fill(obj[how][i], ksize(obj[how][i]), i * 3 + (size_t)how);
			live++;
		}
	for (int how = 0; how < 3; how++)
		for (size_t i = 1; i < N; i++)
			cr_assert(pat_check(obj[how][i], ksize(obj[how][i]), i * 3 + (size_t)how),
				  "object of %zu bytes, way %d, was written by another", i * STEP,
				  how);
	expect_whole(nolock_heap_default(), &rep, "with all objects live");
	cr_assert_eq(rep.allocated + rep.large, live, "%lu + %lu allocated, %lu live",
		     rep.allocated, rep.large, live);
	for (int how = 0; how < 3; how++)
		for (size_t i = 1; i < N; i++)
			free_by((int)i, obj[how][i]);
	expect_whole(nolock_heap_default(), &rep, "after all frees");
	cr_assert_eq(rep.allocated + rep.large, 0);
	report("  all_live_at_once: %lu objects", live);
}

Test(kmalloc, zeroing, .description = "all of the object is zeroed, as far as ksize() says")
{
	unsigned long reused = 0;

	/* Nolock callers live on what is opened: the accounted buckets need slabs of their own. */
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 16 * MiB), 0);
	for (size_t size = 1; size <= 32768; size += size / 16 + 1) {
		for (int how = 1; how <= 4; how += 3) {
			unsigned char *p = kmalloc(size, GFP_KERNEL), *q;
			size_t usable = ksize(p);

			memset(p, 0xff, usable);
			kfree(p);
			q = alloc_by(how, size);
			cr_assert_not_null(q);
			cr_assert(all_bytes(q, size, 0));
			cr_assert(all_bytes(q + size, ksize(q) - size, 0),
				  "%zu bytes: the rest of the bucket was not zeroed", size);
			/* Sheaves are last in, first out: the same object had something to zero. */
			reused += q == p;
			kfree(q);
		}
	}
	cr_assert_gt(reused, 100, "no object came back at once: nothing was tested");
	report("  zeroing: %lu objects reused", reused);
}

Test(kmalloc, krealloc_keeps_contents)
{
	static const size_t sizes[] = { 1,     8,     15,   16,	    17,		100,   128,
					129,   500,   1000, 4096,   5000,	32768, 32769,
					65536, 65537, MiB,  200000, 3 * MiB + 5 };
	unsigned long ops = 0;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t j = 0; j < ARRAY_LEN(sizes); j++)
			for (int zero = 0; zero < 2; zero++) {
				size_t from = sizes[i], to = sizes[j], old;
				size_t both = from < to ? from : to;
				gfp_t gfp = GFP_KERNEL | (zero ? __GFP_ZERO : 0);
				unsigned char *p = kmalloc(from, GFP_KERNEL), *q;

				cr_assert_not_null(p);
				old = ksize(p);
				pat_fill(p, from, i);
				q = krealloc(p, to, gfp);
				cr_assert_not_null(q, "krealloc %zu to %zu", from, to);
				cr_assert_geq(ksize(q), to);
				/* The pattern's tail is not a word's: check what is common. */
				{
					unsigned char *want = malloc(from);

					cr_assert_not_null(want);
					pat_fill(want, from, i);
					cr_assert_eq(memcmp(q, want, both), 0, "%zu to %zu", from,
						     to);
					free(want);
				}
				if (zero && to > old)
					cr_assert(all_bytes(q + old, to - old, 0),
						  "krealloc %zu to %zu with __GFP_ZERO", from, to);
				kfree(q);
				ops++;
			}
	expect_whole(nolock_heap_default(), NULL, "after krealloc");
	report("  krealloc: %lu pairs of sizes", ops);
}

Test(kmalloc, krealloc_edges)
{
	struct nolock_heap_report rep;
	unsigned char *p;

	p = krealloc(NULL, 100, GFP_KERNEL);
	cr_assert_not_null(p);
	pat_fill(p, 100, 1);
	/* A request that cannot be met leaves the object alone. */
	cr_assert_null(krealloc(p, SIZE_MAX / 2, GFP_KERNEL | __GFP_NOWARN));
	cr_assert(pat_check(p, 100, 1));
	errno = 0;
	cr_assert_null(krealloc(p, 200, (gfp_t)0x1));
	cr_assert_eq(errno, EINVAL);
	cr_assert(pat_check(p, 100, 1));
	cr_assert_eq(krealloc(p, 0, GFP_KERNEL), ZERO_SIZE_PTR);
	expect_whole(nolock_heap_default(), &rep, "after krealloc to 0");
	cr_assert_eq(rep.allocated, 0);

	p = krealloc(ZERO_SIZE_PTR, 64, GFP_KERNEL);
	cr_assert_not_null(p);
	cr_assert_neq((void *)p, ZERO_SIZE_PTR);
	kfree(p);
	cr_assert_eq(krealloc(NULL, 0, GFP_KERNEL), ZERO_SIZE_PTR);
	p = krealloc(NULL, 64, GFP_KERNEL | __GFP_ZERO);
	cr_assert(all_bytes(p, 64, 0));
	kfree(p);
	expect_whole(nolock_heap_default(), NULL, "after the edges of krealloc");
}

Test(kmalloc, large_objects)
{
	static const size_t sizes[] = { 32769,	     40000,   65535,	65536,	       65537,
					131072,	     MiB - 1, MiB,	MiB + 1,       4 * MiB,
					4 * MiB + 1, 9 * MiB, 33 * MiB, 100 * MiB + 77 };
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_heap_report rep;
	unsigned char *p[ARRAY_LEN(sizes)];

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			size_t align = promised_align(sizes[i], sizes[i]);

			p[i] = round == 1 ? kzalloc(sizes[i], GFP_KERNEL) :
					    kmalloc(sizes[i], GFP_KERNEL);
			cr_assert_not_null(p[i], "%zu bytes", sizes[i]);
			cr_assert_geq(ksize(p[i]), sizes[i]);
			cr_assert_eq((uintptr_t)p[i] % align, 0, "%zu bytes at %p", sizes[i],
				     (void *)p[i]);
			if (round == 1)
				cr_assert(all_bytes(p[i], sizes[i], 0), "%zu bytes", sizes[i]);
			pat_fill(p[i], sizes[i], i);
		}
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			cr_assert(pat_check(p[i], sizes[i], i), "%zu bytes", sizes[i]);
		expect_whole(heap, &rep, "with large objects");
		cr_assert_eq(rep.large, ARRAY_LEN(sizes));
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			free_by(round + (int)i, p[i]);
		expect_whole(heap, &rep, "after large objects");
		cr_assert_eq(rep.large, 0);
		cr_assert_eq(rep.chunks_large, 0);
	}
}

Test(kmalloc, large_nolock, .description = "nolock callers get large objects of opened memory")
{
	struct nolock_heap *heap = nolock_heap_create(256 * MiB);
	struct nolock_heap_report rep;
	unsigned long got = 0, tried = 0;
	void *p;

	cr_assert_not_null(heap);
	/* Opened and free memory: a large object that came and went. */
	p = nolock_heap_kmalloc(heap, 100 * MiB, GFP_KERNEL);
	cr_assert_not_null(p);
	kfree(p);
	for (size_t size = 32769; size < 40 * MiB; size = size * 5 / 4) {
		void *q = nolock_heap_kmalloc_nolock(heap, size, __GFP_ZERO, NUMA_NO_NODE);

		tried++;
		if (!q) {
			cr_assert_eq(errno, ENOMEM);
			continue;
		}
		got++;
		cr_assert(all_bytes(q, size, 0));
		stamp(q, (uint32_t)size, 3);
		cr_assert_eq(stamp_check(q), size);
		kfree_nolock(q);
	}
	expect_whole(heap, &rep, "after large nolock objects");
	cr_assert_eq(rep.large, 0);
	cr_assert_eq(got, tried, "%lu of %lu large nolock allocations failed with 100 MiB free",
		     tried - got, tried);
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  large_nolock: %lu of %lu served", got, tried);
}

Test(kmalloc, pages)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_heap_report rep;
	void *p[4][NOLOCK_MAX_PAGE_ORDER + 1];

	cr_assert_eq(nolock_heap_populate(heap, 16 * MiB), 0);
	for (int round = 0; round < 3; round++) {
		for (unsigned int order = 0; order <= NOLOCK_MAX_PAGE_ORDER; order++) {
			size_t bytes = NOLOCK_PAGE_SIZE << order;
			size_t align = bytes < 65536 ? bytes : 65536;

			p[0][order] = alloc_pages(GFP_KERNEL | __GFP_ZERO, order);
			p[1][order] = alloc_pages_nolock(__GFP_ZERO, NUMA_NO_NODE, order);
			p[2][order] = nolock_heap_alloc_pages(heap, GFP_ATOMIC, order);
			p[3][order] = nolock_heap_alloc_pages_nolock(heap, 0, 0, order);
			for (int k = 0; k < 4; k++) {
				/* Large nolock requests are tried once, in opened memory. */
				if (!p[k][order] && order >= 4 && k) {
					cr_assert_eq(errno, ENOMEM);
					continue;
				}
				cr_assert_not_null(p[k][order], "order %u, way %d", order, k);
				cr_assert_eq((uintptr_t)p[k][order] % align, 0);
				cr_assert_geq(ksize(p[k][order]), bytes);
				if (k < 2)
					cr_assert(all_bytes(p[k][order], bytes, 0));
				pat_fill(p[k][order], bytes, order * 4 + (unsigned int)k);
			}
		}
		for (unsigned int order = 0; order <= NOLOCK_MAX_PAGE_ORDER; order++)
			for (int k = 0; k < 4; k++) {
				if (!p[k][order])
					continue;
				cr_assert(pat_check(p[k][order], NOLOCK_PAGE_SIZE << order,
						    order * 4 + (unsigned int)k));
				switch ((k + round) % 4) {
				case 0:
					free_pages(p[k][order], order);
					break;
				case 1:
					free_pages_nolock(p[k][order], order);
					break;
				case 2:
					kfree(p[k][order]);
					break;
				default:
					kfree_nolock(p[k][order]);
				}
			}
		expect_whole(heap, &rep, "after pages of all orders");
		cr_assert_eq(rep.allocated, 0);
		cr_assert_eq(rep.large, 0);
	}
	free_pages(NULL, 0);
	free_pages_nolock(NULL, 5);
	for (unsigned int order = 11; order; order <<= 3) {
		errno = 0;
		cr_assert_null(alloc_pages(GFP_KERNEL, order));
		cr_assert_eq(errno, EINVAL, "order %u", order);
		errno = 0;
		cr_assert_null(alloc_pages_nolock(0, NUMA_NO_NODE, order));
		cr_assert_eq(errno, EINVAL, "order %u", order);
	}
}

Test(kmalloc, bad_flags_and_nodes)
{
	unsigned long refused = 0;

	for (int bit = 0; bit < 32; bit++) {
		gfp_t flag = (gfp_t)1 << bit;

		/* With __GFP_NOFAIL a refusal aborts: tested on its own. */
		if (flag == __GFP_NOFAIL)
			continue;
		errno = 0;
		if (flag & ~NOLOCK_GFP_MASK) {
			cr_assert_null(kmalloc(64, GFP_KERNEL | flag), "flag %#x", flag);
			cr_assert_eq(errno, EINVAL, "flag %#x", flag);
			errno = 0;
			cr_assert_null(alloc_pages(GFP_KERNEL | flag, 0));
			cr_assert_eq(errno, EINVAL, "flag %#x", flag);
			refused++;
		} else {
			void *p = kmalloc(64, GFP_KERNEL | flag);

			cr_assert_not_null(p, "flag %#x", flag);
			kfree(p);
		}
	}
	for (int bit = 0; bit < 32; bit++) {
		gfp_t flag = (gfp_t)1 << bit;
		void *p;

		errno = 0;
		p = kmalloc_nolock(64, flag, NUMA_NO_NODE);
		if (flag & ~NOLOCK_GFP_NOLOCK_MASK) {
			cr_assert_null(p, "nolock flag %#x", flag);
			cr_assert_eq(errno, EINVAL, "nolock flag %#x", flag);
			errno = 0;
			cr_assert_null(alloc_pages_nolock(flag, NUMA_NO_NODE, 0));
			cr_assert_eq(errno, EINVAL, "nolock flag %#x", flag);
			refused++;
		} else {
			cr_assert_not_null(p, "nolock flag %#x", flag);
			kfree_nolock(p);
		}
	}
	for (int i = 0; i < 4; i++) {
		static const int nodes[] = { -2, 4096, 0x7fffffff, -0x7fffffff };

		errno = 0;
		cr_assert_null(kmalloc_node(64, GFP_KERNEL, nodes[i]));
		cr_assert_eq(errno, EINVAL, "node %d", nodes[i]);
		errno = 0;
		cr_assert_null(kmalloc_nolock(64, 0, nodes[i]));
		cr_assert_eq(errno, EINVAL, "nolock, node %d", nodes[i]);
		refused += 2;
	}
	for (int shift = 40; shift < 64; shift++) {
		errno = 0;
		cr_assert_null(kmalloc((size_t)1 << shift, GFP_KERNEL | __GFP_NOWARN));
		cr_assert(errno == ENOMEM || errno == EINVAL);
		errno = 0;
		cr_assert_null(kmalloc_nolock((size_t)1 << shift, 0, NUMA_NO_NODE));
		cr_assert(errno == ENOMEM || errno == EINVAL);
		refused += 2;
	}
	/* Sizes that wrap when they are rounded up. */
	for (size_t d = 0; d < 70000; d += d < 32 ? 1 : 997) {
		cr_assert_null(kmalloc(SIZE_MAX - d, GFP_KERNEL | __GFP_NOWARN));
		cr_assert_null(kmalloc_nolock(SIZE_MAX - d, 0, NUMA_NO_NODE));
		refused += 2;
	}
	expect_whole(nolock_heap_default(), NULL, "after refused requests");
	report("  bad_flags_and_nodes: %lu requests refused", refused);
}

static nl_u64 words_of(struct nolock_heap *heap)
{
	nl_u64 sum = 0;

	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++)
		for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
			sum += nl_load(&nl_rslot(heap->h, cpu, id)->word);
	return sum;
}

/* As in a child that shares the thread's memory, whose sequences nobody aborts (lib/malloc/vfork.c). */
Test(kmalloc, no_sequences_where_marked)
{
	struct nolock_heap *heap[] = { nolock_heap_default(), nolock_heap_create(64 * MiB) };
	struct kmem_cache *cache[2];
	struct nolock_thread mine;
	nl_u64 before[2];
	void *p[2][4];

	for (int i = 0; i < 2; i++) {
		cr_assert_not_null(heap[i]);
		cache[i] = nolock_heap_kmem_cache_create(heap[i], "marked", 100, NULL, 0);
		cr_assert_not_null(cache[i]);
		kfree(kmem_cache_alloc(cache[i], GFP_KERNEL));
		kfree(nolock_heap_kmalloc(heap[i], 100, GFP_KERNEL));
		before[i] = words_of(heap[i]);
	}
	mine = nl_self;
	nl_self.vforked = 1;
	nl_self.slots = 0;
	nl_self.last_tag = ~0u;
	for (int i = 0; i < 2; i++) {
		p[i][0] = kmem_cache_alloc(cache[i], GFP_KERNEL);
		p[i][1] = kmem_cache_alloc_nolock(cache[i], 0, NUMA_NO_NODE);
		p[i][2] = nolock_heap_kmalloc(heap[i], 100, GFP_KERNEL);
		p[i][3] = nolock_heap_kmalloc_nolock(heap[i], 100, 0, NUMA_NO_NODE);
		for (int k = 0; k < 4; k++) {
			cr_assert_not_null(p[i][k]);
			kfree(p[i][k]);
		}
		cr_expect_eq(words_of(heap[i]), before[i], "heap %d", i);
	}
	nl_self = mine;
	cr_assert_eq(nolock_heap_close(heap[1]), 0);
}

Test(kmalloc, nothing_to_free)
{
	struct nolock_heap_report before, after;

	kfree(kmalloc(1, GFP_KERNEL));
	expect_whole(nolock_heap_default(), &before, "before");
	kfree(NULL);
	kfree(ZERO_SIZE_PTR);
	kfree_nolock(NULL);
	kfree_nolock(ZERO_SIZE_PTR);
	cr_assert_eq(ksize(NULL), 0);
	cr_assert_eq(ksize(ZERO_SIZE_PTR), 0);
	cr_assert_eq(kmalloc(0, GFP_KERNEL), ZERO_SIZE_PTR);
	cr_assert_eq(kmalloc_nolock(0, 0, NUMA_NO_NODE), ZERO_SIZE_PTR);
	cr_assert_eq(kzalloc(0, GFP_ATOMIC), ZERO_SIZE_PTR);
	expect_whole(nolock_heap_default(), &after, "after freeing nothing");
	cr_assert_eq(before.frees, after.frees);
	cr_assert_eq(before.refused, after.refused);
}

Test(kmalloc, nofail_aborts, .signal = SIGABRT, .description = "__GFP_NOFAIL does not return NULL")
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);

	cr_assert_not_null(heap);
	for (;;)
		if (!nolock_heap_kmalloc(heap, MiB, GFP_KERNEL | __GFP_NOFAIL))
			exit(0); /* no abort: the test fails for want of the signal */
}

Test(kmalloc, gfp_helpers)
{
	cr_assert(gfpflags_allow_spinning(GFP_KERNEL));
	cr_assert(gfpflags_allow_spinning(GFP_NOWAIT));
	cr_assert(gfpflags_allow_spinning(GFP_ATOMIC));
	cr_assert_not(gfpflags_allow_spinning(__GFP_ZERO | __GFP_ACCOUNT));
	cr_assert(gfpflags_allow_blocking(GFP_KERNEL));
	cr_assert_not(gfpflags_allow_blocking(GFP_NOWAIT));
	cr_assert_not(gfpflags_allow_blocking(GFP_ATOMIC));
	cr_assert_eq(GFP_KERNEL_ACCOUNT & __GFP_ACCOUNT, __GFP_ACCOUNT);
}
