// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_heap.c - heaps: made and closed, several at once, populated, trimmed, full, and in a
 * process with little address space or with all memory locked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "util.h"

/* Objects linked through their first word: what is live needs no other memory. */
struct chain {
	struct chain *next;
	size_t size;
};

static unsigned long fill(struct nolock_heap *heap, size_t size, gfp_t gfp, struct chain **chain)
{
	unsigned long n = 0;
	struct chain *c;

	errno = 0;
	while ((c = nolock_heap_kmalloc(heap, size, gfp | __GFP_NOWARN))) {
		c->next = *chain;
		c->size = size;
		*chain = c;
		n++;
	}
	return n;
}

static unsigned long fill_nolock(struct nolock_heap *heap, size_t size, struct chain **chain)
{
	unsigned long n = 0;
	struct chain *c;

	errno = 0;
	while ((c = nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE))) {
		c->next = *chain;
		c->size = size;
		*chain = c;
		n++;
	}
	return n;
}

static unsigned long drain(struct chain *c)
{
	unsigned long n = 0;

	while (c) {
		struct chain *next = c->next;

		if (n++ & 1)
			kfree(c);
		else
			kfree_nolock(c);
		c = next;
	}
	return n;
}

Test(heap, default_heap)
{
	struct nolock_heap *heap = nolock_heap_default();
	void *p = kmalloc(100, GFP_KERNEL);

	cr_assert_not_null(heap);
	cr_assert_eq(nolock_heap_default(), heap);
	cr_assert_eq(nolock_heap_of(p), heap);
	cr_assert_eq(nolock_heap_type(heap), NOLOCK_HEAP_PRIVATE);
	cr_assert_str_eq(nolock_heap_name(heap), "");
	cr_assert_eq(nolock_heap_close(heap), -EINVAL);
	cr_assert_null(nolock_heap_of(NULL));
	cr_assert_null(nolock_heap_of(&heap));
	cr_assert_null(nolock_heap_of((void *)~0ul));
	kfree(p);
}

/* Every call on a heap that could not be opened. */
Test(heap, no_heap)
{
	struct nolock_heap_report rep;
	struct nolock_cache_stat cache;
	struct nolock_heap_stat st;

	cr_expect_eq(nolock_heap_type(NULL), NOLOCK_HEAP_NONE);
	cr_expect_str_eq(nolock_heap_name(NULL), "");
	cr_expect_eq(nolock_heap_fd(NULL), -1);
	cr_expect_eq(nolock_heap_layout(NULL), 0);
	nolock_heap_set_root(NULL, &rep);
	cr_expect_null(nolock_heap_root(NULL));
	cr_expect_eq(nolock_heap_close(NULL), -EINVAL);
	cr_expect_eq(nolock_heap_populate(NULL, 0), -EINVAL);
	cr_expect_eq(nolock_heap_trim(NULL), 0);
	cr_expect_eq(nolock_heap_check(NULL, &rep), -EINVAL);
	cr_expect_eq(nolock_heap_stat(NULL, &st), -EINVAL);
	cr_expect_null(nolock_heap_kmalloc(NULL, 64, GFP_KERNEL));
	cr_expect_null(nolock_heap_kmalloc_nolock(NULL, 64, 0, NUMA_NO_NODE));
	cr_expect_null(nolock_heap_kmalloc_node(NULL, 64, GFP_KERNEL, 0));
	cr_expect_eq(nolock_heap_cache_stat(NULL, 1, &cache), -EINVAL);
	cr_expect_null(nolock_heap_kmem_cache_create(NULL, "none", 64, NULL, 0));
	cr_expect_null(nolock_heap_kmem_cache_find(NULL, "none"));
}

Test(heap, several_heaps)
{
	enum { NR = 8, OBJ = 400 };
	struct nolock_heap *heap[NR];
	struct nolock_heap_report rep;
	static char *obj[NR][OBJ];

	for (int i = 0; i < NR; i++) {
		heap[i] = nolock_heap_create((size_t)(i + 8) * 8 * MiB);
		cr_assert_not_null(heap[i], "heap %d: errno %d", i, errno);
		cr_assert_eq(nolock_heap_type(heap[i]), NOLOCK_HEAP_PRIVATE);
		cr_assert_str_eq(nolock_heap_name(heap[i]), "");
		cr_assert_null(nolock_heap_root(heap[i]));
	}
	for (int k = 0; k < OBJ; k++)
		for (int i = 0; i < NR; i++) {
			size_t size = (size_t)(k * 97 + i) % 9000 + 1;

			obj[i][k] = nolock_heap_kmalloc(heap[i], size, GFP_KERNEL);
			cr_assert_not_null(obj[i][k]);
			cr_assert_eq(nolock_heap_of(obj[i][k]), heap[i]);
			cr_assert_eq(nolock_heap_of(obj[i][k] + size - 1), heap[i]);
			pat_fill(obj[i][k], size, (uint64_t)(i * 1000 + k));
		}
	for (int i = 0; i < NR; i++) {
		nolock_heap_set_root(heap[i], obj[i][0]);
		cr_assert_eq(nolock_heap_root(heap[i]), obj[i][0]);
		expect_whole(heap[i], &rep, "with several heaps");
		cr_assert_eq(rep.allocated, OBJ);
	}
	/* Plain kfree() finds each object's heap. */
	for (int k = 0; k < OBJ; k++)
		for (int i = NR - 1; i >= 0; i--) {
			cr_assert(pat_check(obj[i][k], (size_t)(k * 97 + i) % 9000 + 1,
					    (uint64_t)(i * 1000 + k)));
			if (k & 1)
				kfree(obj[i][k]);
			else
				kfree_nolock(obj[i][k]);
		}
	for (int i = 0; i < NR; i++) {
		expect_whole(heap[i], &rep, "after frees across heaps");
		cr_assert_eq(rep.allocated, 0);
		cr_assert_eq(rep.refused, 0);
		cr_assert_eq(nolock_heap_close(heap[i]), 0);
	}
}

Test(heap, create_and_close_leave_nothing)
{
	size_t before = 0, after;

	for (int i = 0; i < 200; i++) {
		struct nolock_heap *heap = nolock_heap_create(128 * MiB);

		cr_assert_not_null(heap, "heap %d: errno %d", i, errno);
		for (int k = 0; k < 100; k++) {
			char *p = nolock_heap_kmalloc(heap, 10000, GFP_KERNEL);

			cr_assert_not_null(p);
			memset(p, k, 10000);
		}
		cr_assert_eq(nolock_heap_close(heap), 0);
		if (i == 20)
			before = rss_bytes();
	}
	after = rss_bytes();
	/* 180 heaps of at least 1 MB each came and went. */
	cr_assert_lt(after, before + 16 * MiB, "%zu bytes present, %zu before", after, before);
}

Test(heap, sizes)
{
	struct nolock_heap_stat st;

	for (size_t size = 1; size <= 4096 * MiB; size *= 3) {
		struct nolock_heap *heap = nolock_heap_create(size);
		void *p;

		if (!heap) {
			/* Too small for its own metadata: that is said, not hidden. */
			cr_assert(errno == EINVAL || errno == ENOMEM, "%zu: errno %d", size, errno);
			cr_assert_lt(size, 64 * MiB, "%zu bytes are refused", size);
			continue;
		}
		cr_assert_eq(nolock_heap_stat(heap, &st), 0);
		cr_assert_geq(st.size, size);
		p = nolock_heap_kmalloc(heap, 64, GFP_KERNEL);
		if (p)
			cr_assert_eq(nolock_heap_of(p), heap);
		else
			cr_assert_eq(errno, ENOMEM);
		kfree(p);
		expect_whole(heap, NULL, "of an odd size");
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	errno = 0;
	cr_assert_null(nolock_heap_create(SIZE_MAX));
	cr_assert(errno == EINVAL || errno == ENOMEM, "errno %d", errno);
	errno = 0;
	cr_assert_null(nolock_heap_create((size_t)1 << 60));
	cr_assert(errno == EINVAL || errno == ENOMEM, "errno %d", errno);
}

Test(heap, full_and_recovers, .description = "ENOMEM, and all of it is there again after frees")
{
	static const size_t sizes[] = { 32768, 16, 4096, 64, 1000, 200000, 100, 20000, MiB };
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct nolock_heap_report rep;
	struct chain *chain;
	unsigned long n, again;

	cr_assert_not_null(heap);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		chain = NULL;
		n = fill(heap, sizes[i], GFP_KERNEL, &chain);
		cr_assert_eq(errno, ENOMEM, "%zu bytes: errno %d", sizes[i], errno);
		/* Other sizes came before: their empty slabs must have come back. */
		cr_assert_gt(n * sizes[i], 32 * MiB, "%lu objects of %zu bytes only", n, sizes[i]);
		expect_whole(heap, &rep, "when full");
		cr_assert_eq(rep.allocated + rep.large, n, "%lu + %lu allocated, %lu live",
			     rep.allocated, rep.large, n);
		cr_assert_eq(drain(chain), n);
		expect_whole(heap, &rep, "after all was freed");
		cr_assert_eq(rep.allocated + rep.large, 0);
		chain = NULL;
		again = fill(heap, sizes[i], GFP_KERNEL, &chain);
		cr_assert_geq(again, n - n / 50, "%zu bytes: %lu objects, then %lu", sizes[i], n,
			      again);
		drain(chain);
		report("  full_and_recovers: %7zu bytes: %lu objects, again %lu", sizes[i], n,
		       again);
	}
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(heap, nolock_until_null, .description = "nolock callers get all that is opened, then recover")
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct nolock_heap_report rep;
	struct chain *chain = NULL, *one;
	unsigned long n, first;

	cr_assert_not_null(heap);
	/* Open all of it. */
	fill(heap, 32768, GFP_KERNEL, &chain);
	drain(chain);
	nolock_heap_trim(heap);
	for (int round = 0; round < 3; round++) {
		chain = NULL;
		n = fill_nolock(heap, 512, &chain);
		cr_assert_eq(errno, ENOMEM);
		cr_assert_gt(n, 10000);
		if (!round)
			first = n;
		cr_assert_geq(n, first - first / 50);
		expect_whole(heap, &rep, "after nolock NULL");
		cr_assert_eq(rep.allocated, n);
		cr_assert_eq(rep.in_sheaves + rep.in_slabs, rep.objects - n);
		/* One object freed is one object to be had. */
		one = chain;
		chain = one->next;
		kfree_nolock(one);
		cr_assert_not_null(one = nolock_heap_kmalloc_nolock(heap, 512, 0, NUMA_NO_NODE));
		kfree(one);
		drain(chain);
	}
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  nolock_until_null: %lu objects of 512 bytes of 64 MiB", n);
}

Test(heap, populate_is_for_nolock_alone)
{
	enum { CHUNKS = 64 };
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct chain *chain = NULL, *nolock = NULL;
	struct nolock_heap_stat st;
	unsigned long n;

	cr_assert_not_null(heap);
	cr_assert_eq(nolock_heap_populate(heap, CHUNKS * NL_CHUNK_SIZE), 0);
	cr_assert_eq(nolock_heap_stat(heap, &st), 0);
	cr_assert_eq(st.chunks_reserve, CHUNKS);
	cr_assert_eq(st.reserve_target, CHUNKS);
	fill(heap, 4096, GFP_KERNEL, &chain);
	fill(heap, 65536, GFP_KERNEL, &chain);
	fill(heap, 16, GFP_NOWAIT, &chain);
	cr_assert_eq(nolock_heap_stat(heap, &st), 0);
	cr_assert_eq(st.chunks_reserve, CHUNKS, "ordinary callers took from the reserve: %lu left",
		     st.chunks_reserve);
	/* An atomic request is allowed into it. */
	cr_assert_not_null(nolock_heap_kmalloc(heap, 2048, GFP_ATOMIC));
	n = fill_nolock(heap, 1024, &nolock);
	cr_assert_geq(n, (CHUNKS - 1) * 64, "%lu objects of 1 KiB of %d chunks", n, CHUNKS);
	expect_whole(heap, NULL, "with the reserve used up");
	cr_assert_eq(drain(nolock), n);
	drain(chain);
	/* Ordinary allocations top it up again in passing. */
	chain = NULL;
	for (int i = 0; i < 4096; i++) {
		struct chain *c = nolock_heap_kmalloc(heap, 8192, GFP_KERNEL | __GFP_NOWARN);

		if (!c)
			break;
		c->next = chain;
		chain = c;
	}
	drain(chain);
	cr_assert_eq(nolock_heap_stat(heap, &st), 0);
	cr_assert_eq(st.chunks_reserve, CHUNKS, "the reserve is %lu chunks after use, not %d",
		     st.chunks_reserve, CHUNKS);
	expect_whole(heap, NULL, "with the reserve topped up");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(heap, populate_edges)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct nolock_heap_stat st;
	size_t rss;

	cr_assert_not_null(heap);
	cr_assert_eq(nolock_heap_populate(heap, 1), 0);
	nolock_heap_stat(heap, &st);
	cr_assert_eq(st.chunks_reserve, 1, "1 byte is one chunk");
	rss = rss_bytes();
	cr_assert_eq(nolock_heap_populate(heap, 16 * MiB), 0);
	nolock_heap_stat(heap, &st);
	cr_assert_geq(st.chunks_reserve, 256);
	cr_assert_gt(rss_bytes(), rss + 14 * MiB, "populated memory is not present");
	/* More than there is: what could be set aside stays so. */
	cr_assert_eq(nolock_heap_populate(heap, 100 * MiB), -ENOMEM);
	nolock_heap_stat(heap, &st);
	cr_assert_geq(st.chunks_reserve, 256);
	expect_whole(heap, NULL, "after too much was asked for");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(heap, trim_gives_memory_back)
{
	enum { N = 64 };
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_heap_stat st;
	size_t full, empty, given;
	void *p[N], *small[3000];

	cr_assert_eq(nolock_heap_populate(heap, 2 * MiB), 0);
	for (int i = 0; i < N; i++) {
		cr_assert_not_null(p[i] = kmalloc(MiB, GFP_KERNEL));
		memset(p[i], i, MiB);
	}
	for (int i = 0; i < 3000; i++) {
		cr_assert_not_null(small[i] = kmalloc(8192, GFP_KERNEL));
		memset(small[i], i, 8192);
	}
	full = rss_bytes();
	for (int i = 0; i < N; i++)
		kfree(p[i]);
	for (int i = 0; i < 3000; i++)
		kfree(small[i]);
	given = nolock_heap_trim(heap);
	empty = rss_bytes();
	cr_assert_geq(given, 64 * MiB + 20 * MiB, "%zu bytes given back", given);
	cr_assert_lt(empty + 80 * MiB, full, "%zu bytes present, %zu before the trim", empty, full);
	nolock_heap_stat(heap, &st);
	cr_assert_eq(st.chunks_reserve, 32, "trim took from the reserve");
	expect_whole(heap, NULL, "after trim");
	/* What comes out of trimmed memory is good. */
	for (int i = 0; i < N; i++) {
		cr_assert_not_null(p[i] = kzalloc(MiB, GFP_KERNEL));
		for (size_t k = 0; k < MiB; k += 4096)
			cr_assert_eq(((char *)p[i])[k], 0);
		stamp(p[i], MiB, (uint32_t)i);
	}
	for (int i = 0; i < N; i++) {
		cr_assert_eq(stamp_check(p[i]), MiB);
		kfree(p[i]);
	}
	report("  trim: %zu MiB given back, resident %zu MiB before, %zu after", given >> 20,
	       full >> 20, empty >> 20);
}

/* Sanitizers reserve terabytes of address space and touch shadow pages: not under these limits. */
#if !UNDER_ASAN
/* A process of its own: the limit must be there before the default heap is. */
JOB(little_address_space)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_heap_report rep;
	struct chain *chain = NULL, *c;
	unsigned long n, again = 0;
	struct rlimit rl;
	void *p;

	if (getrlimit(RLIMIT_AS, &rl) || rl.rlim_cur == RLIM_INFINITY)
		return 10;
	p = kmalloc(100, GFP_KERNEL);
	if (!p || nolock_heap_populate(heap, MiB))
		return 11;
	kfree(p);
	for (n = 0; n * 1000 < rl.rlim_cur; n++) {
		c = kmalloc(1000, GFP_KERNEL | __GFP_NOWARN);
		if (!c)
			break;
		c->next = chain;
		chain = c;
	}
	if (n * 1000 >= rl.rlim_cur || n < 1000)
		return 12;
	if (check_whole(heap, &rep, "with little address space"))
		return 13;
	if (drain(chain) != n)
		return 14;
	for (chain = NULL; again < n; again++) {
		c = kmalloc(3000, GFP_KERNEL | __GFP_NOWARN);
		if (!c)
			break;
		c->next = chain;
		chain = c;
	}
	if (again * 3000 < n * 1000 * 9 / 10)
		return 15;
	drain(chain);
	if (check_whole(heap, &rep, "with little address space, again"))
		return 16;
	report("  little_address_space: %lu MiB: %lu kB had in objects of 1000 bytes",
	       (unsigned long)rl.rlim_cur >> 20, n);
	return 0;
}

/* Where the heap would go on, something else is mapped: it goes on behind that, and leaves it alone. */
JOB(place_taken)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct chain *chain = NULL, *c;
	struct nolock_heap_report rep;
	unsigned long *taken[3];

	if (!heap->lazy)
		return 10;
	for (nl_u32 i = 0; i < ARRAY_LEN(taken); i++) {
		char *at = heap->base + (heap->h->cursor + 1 + 3 * i) * NL_GROUP_SIZE + i * 4096;

		taken[i] = mmap(at, 4096, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (taken[i] == MAP_FAILED)
			return 11;
		*taken[i] = i;
	}
	for (int i = 0; i < 600; i++) {
		size_t size = i % 20 ? 100000 : 3 * MiB;

		c = kmalloc(size, GFP_KERNEL);
		if (!c)
			return 12;
		memset(c, 0x55, size);
		c->next = chain;
		chain = c;
	}
	for (nl_u32 i = 0; i < ARRAY_LEN(taken); i++)
		if (*taken[i] != i)
			return 13;
	if (check_whole(heap, &rep, "with places taken"))
		return 14;
	while (chain) {
		c = chain->next;
		kfree(chain);
		chain = c;
	}
	nolock_heap_trim(heap);
	/* One more of them, and gone: what is not its own stays. */
	heap = nolock_heap_create(0);
	if (!heap || !heap->lazy || !nolock_heap_kmalloc(heap, 5 * MiB, GFP_KERNEL) ||
	    check_whole(heap, &rep, "the second") || nolock_heap_close(heap))
		return 15;
	for (nl_u32 i = 0; i < ARRAY_LEN(taken); i++)
		if (*taken[i] != i)
			return 16;
	return check_whole(nolock_heap_default(), &rep, "after places taken") ? 17 : 0;
}

static bool apart(const struct nolock_heap *a, const struct nolock_heap *b)
{
	return a->base + a->size <= b->base || b->base + b->size <= a->base;
}

/* Heaps that reserve nothing, made while what the system maps next moves: no two share an address. */
JOB(heaps_apart)
{
	struct nolock_heap *heap[4] = { nolock_heap_default() };

	for (size_t i = 1; i < ARRAY_LEN(heap); i++) {
		char *between =
			mmap(NULL, 100 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char *page = between;

		/* No hole is left above it. */
		while (page != MAP_FAILED && page >= between)
			page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		heap[i] = nolock_heap_create(0);
		if (page == MAP_FAILED || !heap[i] || !heap[i]->lazy)
			return 10;
		for (size_t k = 0; k < i; k++)
			if (!apart(heap[i], heap[k]))
				return 11;
	}
	for (size_t i = 1; i < ARRAY_LEN(heap); i++)
		if (nolock_heap_close(heap[i]))
			return 12;
	return 0;
}

/* Of a group of which there was room for a part, the rest is not the heap's when it is closed. */
JOB(part_closed)
{
	struct nolock_heap *heap = nolock_heap_create(0);
	unsigned long *taken = MAP_FAILED;
	struct nolock_heap_report rep;
	struct nolock_heap_stat st;
	struct rlimit rl;
	nl_u32 end, open, chunk;

	if (!heap || !heap->lazy || getrlimit(RLIMIT_DATA, &rl))
		return 10;
	/* The limit comes down until a group does not fit any more. */
	open = nl_nr_open(heap->h);
	for (rl.rlim_cur = 16 * MiB; nl_nr_open(heap->h) == open; rl.rlim_cur += MiB) {
		if (rl.rlim_cur > 512 * MiB || setrlimit(RLIMIT_DATA, &rl))
			return 11;
		while (nolock_heap_kmalloc(heap, 100000, GFP_KERNEL | __GFP_NOWARN))
			;
	}
	end = nl_nr_open(heap->h) << NL_GROUP_SHIFT;
	for (chunk = end - NL_GROUP_CHUNKS; chunk < end; chunk++)
		if (nl_load(nl_tag(heap->h, chunk)) == NL_TAG(NL_KIND_META, 0))
			break;
	if (chunk == end)
		return 12;
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_DATA, &rl))
		return 13;
	taken = mmap(heap->base + (nl_u64)chunk * NL_CHUNK_SIZE, 4096, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (taken == MAP_FAILED)
		return 14;
	*taken = 77;
	/* Nor does it count as opened. */
	if (check_whole(heap, &rep, "with a group of which a part is open") ||
	    nolock_heap_stat(heap, &st) || st.opened != rep.chunks * NL_CHUNK_SIZE)
		return 15;
	if (nolock_heap_close(heap))
		return 16;
	return *taken == 77 ? 0 : 17;
}

static void with_limit(const char *job, size_t limit)
{
	struct rlimit rl, old;
	int status;

	cr_assert_eq(getrlimit(RLIMIT_AS, &old), 0);
	rl.rlim_cur = limit;
	rl.rlim_max = old.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_AS, &rl), 0);
	status = job_run(job, "NOLOCK_TEST", "1");
	cr_assert_eq(setrlimit(RLIMIT_AS, &old), 0);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		  "%s with %zu MiB of address space: status %#x (step %d)", job, limit / MiB,
		  status, WEXITSTATUS(status));
}

Test(heap, place_taken)
{
	with_limit("place_taken", 1024 * MiB);
}

Test(heap, heaps_apart)
{
	with_limit("heaps_apart", 1024 * MiB);
}

Test(heap, part_closed)
{
	with_limit("part_closed", 1024 * MiB);
}

Test(heap, little_address_space, .description = "ulimit -v: the heap is made smaller")
{
	static const size_t limits[] = { 192, 256, 512, 1024 };

	for (size_t i = 0; i < ARRAY_LEN(limits); i++)
		with_limit("little_address_space", limits[i] * MiB);
}

static unsigned long status_kb(const char *field)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[128];
	unsigned long kb = 0;

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, field, strlen(field)) == 0)
			kb = strtoul(line + strlen(field) + 1, NULL, 10);
	if (f)
		fclose(f);
	return kb;
}

Test(heap, locked_memory, .description = "mlockall: opened memory alone is locked")
{
	struct nolock_heap *heap;
	void *p[1000];
	unsigned long present;

	cr_assert_eq(mlockall(MCL_CURRENT | MCL_FUTURE), 0, "mlockall: errno %d", errno);
	/* What is reserved is on the books as locked; what counts is what is present. */
	heap = nolock_heap_create(0);
	cr_assert_not_null(heap);
	for (int i = 0; i < 1000; i++) {
		cr_assert_not_null(p[i] = nolock_heap_kmalloc(heap, 1000, GFP_KERNEL));
		memset(p[i], i, 1000);
		cr_assert_not_null(kmalloc(1000, GFP_KERNEL));
	}
	present = status_kb("VmRSS:");
	cr_assert_lt(present, 256 * 1024, "%lu kB present for 2 MB of objects", present);
	cr_assert_eq(nolock_heap_populate(heap, 4 * MiB), 0);
	for (int i = 0; i < 1000; i++)
		kfree(p[i]);
	nolock_heap_trim(heap);
	expect_whole(heap, NULL, "with locked memory");
	report("  locked_memory: %lu kB present, %lu kB reserved", present, status_kb("VmSize:"));
}
#endif

Test(heap, bad_names_of_shared_heaps)
{
	static const char *const bad[] = { "",	   ".",
					   "..",   ".hidden",
					   "a/b",  "/",
					   "a b",  "0123456789012345678901234567890123456789",
					   "\x01", "ü" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		errno = 0;
		cr_assert_null(nolock_heap_open(bad[i]));
		cr_assert_eq(errno, EINVAL, "\"%s\": errno %d", bad[i], errno);
	}
	errno = 0;
	cr_assert_null(nolock_heap_open(NULL));
	cr_assert_eq(errno, EINVAL);
	/* No daemon at that address. */
	setenv("NOLOCK_SOCKET", "/nonexistent/nolockd.sock", 1);
	errno = 0;
	cr_assert_null(nolock_heap_open("good-name_1.2"));
	cr_assert(errno == ECONNREFUSED, "errno %d", errno);
}

Test(heap, headers_of_garbage, .description = "a heap's header is believed only when it is sane")
{
	struct nl_heap good, bad;
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct rng r;
	const char *why;
	unsigned long caught = 0, same = 0;

	cr_assert_not_null(heap);
	memcpy(&good, heap->base, sizeof(good));
	cr_assert_eq(nl_heap_validate(&good, good.base, good.size, &why), 0, "%s", why);
	rng_init(&r, 7);
	for (int i = 0; i < 200000; i++) {
		size_t off = rng_below(&r, offsetof(struct nl_heap, pad) / 4) * 4;
		uint32_t val = i & 1 ? (uint32_t)rng_next(&r) : 1u << (i / 2 % 32);

		bad = good;
		memcpy((char *)&bad + off, &val, 4);
		why = NULL;
		if (nl_heap_validate(&bad, good.base, good.size, &why) == 0) {
			same++;
			continue;
		}
		cr_assert_not_null(why);
		caught++;
	}
	/* Anything at all, all at once. */
	for (int i = 0; i < 2000; i++) {
		for (size_t k = 0; k < sizeof(bad) / 8; k++)
			((uint64_t *)&bad)[k] = rng_next(&r);
		cr_assert_neq(nl_heap_validate(&bad, good.base, good.size, &why), 0);
		bad.magic = good.magic;
		bad.version = good.version;
		cr_assert_neq(nl_heap_validate(&bad, good.base, good.size, &why), 0);
	}
	cr_assert_gt(caught, 100000);
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  headers_of_garbage: %lu damaged headers refused, %lu harmless", caught, same);
}
