// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_starve.c - a small heap is used up by BPF to the last object: nothing is handed out
 * twice or from memory that is not there, and everything comes back.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "nolock_help.h"

struct env {
	struct nolock_heap *heap;
	struct nolock_call_bpf *s;
};

static struct env start(unsigned int groups)
{
	struct env e = { .heap = heap_new(0, groups) };

	pin(0);
	e.s = call_load(nolock_heap_fd(e.heap));
	return e;
}

/* As many runs as it takes: a run ends after a while, whatever it has done. */
static unsigned int repeat(struct env *e, struct bpf_program *p, nl_u64 size)
{
	unsigned int before;

	do {
		struct nolock_call c = { .arg = size, .obj = 2000 };
		LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));

		before = e->s->bss->nr_got;
		cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &run), 0);
		cr_assert_lt(e->s->bss->nr_got, CALL_GOT);
	} while (e->s->bss->nr_got != before);
	return before;
}

static unsigned long failures(struct env *e)
{
	struct nolock_cache_stat st;
	unsigned long n = 0;

	for (unsigned int id = 0; nolock_heap_cache_stat(e->heap, id, &st) != -ERANGE; id++)
		n += st.stat[NOLOCK_ALLOC_FAIL];
	return n;
}

static int by_address(const void *a, const void *b)
{
	nl_u64 x = *(const nl_u64 *)a, y = *(const nl_u64 *)b;

	return x < y ? -1 : x > y;
}

/* Distinct, in present memory: every object is written by user space over its whole length. */
static void expect_distinct(struct env *e, nl_u64 size)
{
	unsigned int n = e->s->bss->nr_got;
	nl_u64 *obj = (nl_u64 *)(void *)e->s->bss->got, low, high;
	unsigned char present;

	low = arena_base(0) + ((nl_u64)e->heap->h->first_chunk << NL_CHUNK_SHIFT);
	high = arena_base(0) + (nl_u64)e->heap->h->nr_open * NL_GROUP_SIZE;
	qsort(obj, n, sizeof(*obj), by_address);
	for (unsigned int i = 0; i < n; i++) {
		cr_assert(obj[i] >= low && obj[i] + size <= high, "%#llx is outside",
			  (unsigned long long)obj[i]);
		cr_assert(!i || obj[i] - obj[i - 1] >= size, "%#llx and %#llx overlap",
			  (unsigned long long)obj[i - 1], (unsigned long long)obj[i]);
		cr_assert_eq(mincore((void *)(obj[i] & -(nl_u64)NL_PAGE), NL_PAGE, &present), 0);
		cr_assert(present & 1, "%#llx is not present", (unsigned long long)obj[i]);
	}
	for (unsigned int i = 0; i < n; i++)
		memset((void *)obj[i], (int)(i % 251), size);
	for (unsigned int i = 0; i < n; i++)
		for (nl_u64 b = 0; b < size; b += size / 8)
			cr_assert_eq(((unsigned char *)obj[i])[b], i % 251);
}

Test(nolock_starve, to_the_last_object, .timeout = 120)
{
	static const unsigned int sizes[] = { 64, 192, 1024, 4096, 20480, 32768 };
	struct env e = start(2);

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned long before = failures(&e), chunks = nl_heap_free_chunks(e.heap), failed;
		unsigned int n = repeat(&e, e.s->progs.fill, sizes[i]);

		failed = failures(&e) - before;
		figure("%u bytes: %u objects out of %lu chunks, then NULL %lu times", sizes[i], n,
		       chunks, failed);
		cr_assert_geq(n, chunks * (NL_CHUNK_SIZE / sizes[i]));
		cr_assert_gt(failed, 0, "NULL was not counted");
		cr_assert_eq(nl_heap_free_chunks(e.heap), 0);
		expect_distinct(&e, sizes[i]);
		heap_whole(e.heap, n, "used up");
		/* One comes back, one can be had. */
		call1(e.s, CALL_FREE, e.s->bss->got[n / 2], 0, 0);
		e.s->bss->got[n / 2] = call1(e.s, CALL_ALLOC, sizes[i], 0, NUMA_NO_NODE);
		cr_assert(e.s->bss->got[n / 2]);
		cr_assert_eq(repeat(&e, e.s->progs.empty, 0), 0);
		heap_whole(e.heap, 0, "all freed");
		nl_heap_shrink(e.heap);
		cr_assert_eq(nl_heap_free_chunks(e.heap), chunks, "chunks are lost");
	}
}

/* What populate() has set aside is there for BPF, whoever holds which lock, when all else is gone. */
static void starve_with(const char *what, bool slots, bool barns)
{
	struct env e = start(2);
	static void *taken[1024];
	unsigned int nr_taken = 0, reserve = 24, n;
	nl_heap_t *h = e.heap->h;

	cr_assert_eq(nolock_heap_populate(e.heap, reserve * NL_CHUNK_SIZE), 0);
	/* Everything that an ordinary allocation gets. */
	while (nr_taken < 1024 &&
	       (taken[nr_taken] = nolock_heap_kmalloc(e.heap, 32768, GFP_NOWAIT)))
		nr_taken++;
	cr_assert_lt(nr_taken, 1024);
	for (unsigned int id = 0; id < NL_MAX_CACHES; id++) {
		for (unsigned int cpu = 0; slots && cpu < h->nr_slots; cpu++)
			nl_store(&nl_aslot(h, cpu, id)->lock, NL_OWNER(1, 0xfff0) | 1);
		for (unsigned int node = 0; barns && node < h->nr_nodes; node++)
			nl_store(&nl_cache(h, id)->barn[node].lock, NL_OWNER(1, 0xfff0) | 1);
	}
	n = repeat(&e, e.s->progs.fill, 1024);
	figure("%s: %u objects of 1 KiB out of a reserve of %u chunks", what, n, reserve);
	expect_distinct(&e, 1024);
	cr_assert_geq(n, reserve * (NL_CHUNK_SIZE / 1024));
	cr_assert_eq(repeat(&e, e.s->progs.empty, 0), 0);
	for (unsigned int id = 0; id < NL_MAX_CACHES; id++) {
		for (unsigned int cpu = 0; slots && cpu < h->nr_slots; cpu++)
			nl_store(&nl_aslot(h, cpu, id)->lock, 0);
		for (unsigned int node = 0; barns && node < h->nr_nodes; node++)
			nl_store(&nl_cache(h, id)->barn[node].lock, 0);
	}
	while (nr_taken)
		kfree(taken[--nr_taken]);
	heap_whole(e.heap, 0, what);
}

Test(nolock_starve, no_lock_held)
{
	starve_with("no lock held", false, false);
}

Test(nolock_starve, slots_held)
{
	starve_with("A-slots held", true, false);
}

Test(nolock_starve, barns_held)
{
	starve_with("barns held", false, true);
}

Test(nolock_starve, all_locks_held)
{
	starve_with("all locks held", true, true);
}

/* No sheaf is left: the slabs serve alone. */
Test(nolock_starve, no_sheaves)
{
	struct env e = start(2);
	nl_u64 map[4096];
	nl_u32 words = e.heap->h->nr_sheaves / 64;
	unsigned int n;

	cr_assert_leq(words, 4096);
	for (nl_u32 w = 0; w < words; w++)
		map[w] = nl_xchg(nl_sheaf_map(e.heap->h) + w, 0);
	n = repeat(&e, e.s->progs.fill, 128);
	expect_distinct(&e, 128);
	cr_assert_geq(n, nl_cache(e.heap->h, 7)->nr_slabs * (NL_CHUNK_SIZE / 128));
	cr_assert_eq(nl_heap_free_chunks(e.heap), 0);
	cr_assert_eq(repeat(&e, e.s->progs.empty, 0), 0);
	for (nl_u32 w = 0; w < words; w++)
		nl_store(nl_sheaf_map(e.heap->h) + w, map[w]);
	heap_whole(e.heap, 0, "without sheaves");
	figure("no_sheaves: %u objects of 128 bytes", n);
}
