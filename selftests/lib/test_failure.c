// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_failure.c - allocations that fail: what is said about it, by which of them, how often; that
 * __GFP_NOFAIL never returns a failure; and what is refused before anything is done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)
#define OUT_OF_MEMORY "nolock: out of memory"

static struct nolock_heap *heap;
static struct kmem_cache *cache;
static struct slab_sheaf *sheaf;
static struct kmem_cache *array;

/* A heap with nothing left, not even in its buckets and caches. */
static void exhaust(void)
{
	static const size_t sizes[] = { 1 << 20, 65536, 4096, 200, 64 };
	void *p;

	heap = nolock_heap_create(HEAP_SIZE);
	cr_assert_not_null(heap);
	cache = nolock_heap_kmem_cache_create(heap, "full", 200, NULL, 0);
	array = nolock_heap_kmem_cache_create(heap, "array", 4096, NULL, SLAB_NO_MERGE);
	cr_assert_not_null(cache);
	cr_assert_not_null(array);
	cr_assert_eq(kmem_cache_setup_percpu_array(array, 40), 0);
	sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 2);
	cr_assert_not_null(sheaf);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		while ((p = nolock_heap_kmalloc(heap, sizes[i], GFP_KERNEL | __GFP_NOWARN)))
			;
	while (kmem_cache_alloc(cache, GFP_KERNEL | __GFP_NOWARN))
		;
	while (kmem_cache_alloc(array, GFP_KERNEL | __GFP_NOWARN))
		;
}

/* Run fn in a child; returns its wait status, and what it wrote to stderr. */
static int said(void (*fn)(gfp_t gfp), gfp_t gfp, char *text, size_t room)
{
	size_t n = 0;
	ssize_t got;
	int fds[2], status = -1;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		signal(SIGABRT, SIG_DFL);
		fn(gfp);
		_exit(0);
	}
	close(fds[1]);
	while (n < room - 1 && (got = read(fds[0], text + n, room - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	close(fds[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static unsigned int lines(const char *text)
{
	unsigned int n = 0;

	for (; (text = strstr(text, OUT_OF_MEMORY)); text++)
		n++;
	return n;
}

static void by_kmalloc(gfp_t gfp)
{
	errno = 0;
	if (nolock_heap_kmalloc(heap, 64, gfp) || errno != ENOMEM)
		_exit(1);
}

static void by_large(gfp_t gfp)
{
	errno = 0;
	if (nolock_heap_kmalloc(heap, (size_t)1 << 39, gfp) || errno != ENOMEM)
		_exit(1);
}

static void by_zalloc_node(gfp_t gfp)
{
	if (nolock_heap_kmalloc_node(heap, 64, gfp | __GFP_ZERO, 0))
		_exit(1);
}

static void by_cache(gfp_t gfp)
{
	if (kmem_cache_alloc(cache, gfp))
		_exit(1);
}

static void by_bulk(gfp_t gfp)
{
	void *p[4];

	if (kmem_cache_alloc_bulk(cache, gfp, ARRAY_LEN(p), p))
		_exit(1);
}

static void by_prefill(gfp_t gfp)
{
	errno = 0;
	if (kmem_cache_prefill_sheaf(cache, gfp, 20) || errno != ENOMEM)
		_exit(1);
}

static void by_prefill_oversize(gfp_t gfp)
{
	if (kmem_cache_prefill_sheaf(cache, gfp, 2000))
		_exit(1);
}

static void by_refill(gfp_t gfp)
{
	if (kmem_cache_refill_sheaf(cache, gfp, &sheaf, NL_SHEAF_MAX) != -ENOMEM)
		_exit(1);
}

static void by_refill_oversize(gfp_t gfp)
{
	if (kmem_cache_refill_sheaf(cache, gfp, &sheaf, 2000) != -ENOMEM)
		_exit(1);
}

static void by_pages(gfp_t gfp)
{
	if (nolock_heap_alloc_pages(heap, gfp, 2))
		_exit(1);
}

static void by_krealloc(gfp_t gfp)
{
	if (nolock_heap_krealloc(heap, NULL, 64, gfp))
		_exit(1);
}

static void (*const ways[])(gfp_t gfp) = { by_kmalloc,	by_large,	   by_zalloc_node,
					   by_cache,	by_bulk,	   by_prefill,
					   by_refill,	by_pages,	   by_prefill_oversize,
					   by_krealloc, by_refill_oversize };

Test(failure, one_line_unless_nowarn)
{
	static const gfp_t loud[] = { GFP_KERNEL, GFP_ATOMIC, __GFP_KSWAPD_RECLAIM };
	static const gfp_t silent[] = { GFP_KERNEL | __GFP_NOWARN, GFP_NOWAIT,
					GFP_ATOMIC | __GFP_NOWARN, 0 };
	char text[4096];

	exhaust();
	for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
		for (size_t i = 0; i < ARRAY_LEN(loud); i++) {
			cr_assert_eq(said(ways[w], loud[i], text, sizeof(text)), 0, "way %zu", w);
			cr_assert_eq(lines(text), 1, "way %zu, flags %#x: %s", w, loud[i], text);
			cr_assert(strchr(text, '\n') == text + strlen(text) - 1, "%s", text);
		}
		for (size_t i = 0; i < ARRAY_LEN(silent); i++) {
			cr_assert_eq(said(ways[w], silent[i], text, sizeof(text)), 0, "way %zu", w);
			cr_assert_eq(strlen(text), 0, "way %zu, flags %#x: %s", w, silent[i], text);
		}
	}
}

static void nolock_calls(gfp_t gfp)
{
	void *p[4];

	if (nolock_heap_kmalloc_nolock(heap, 64, gfp, NUMA_NO_NODE) ||
	    nolock_heap_kmalloc_nolock(heap, MiB, gfp, NUMA_NO_NODE) ||
	    kmem_cache_alloc_nolock(cache, gfp, NUMA_NO_NODE) ||
	    kmem_cache_alloc_bulk_nolock(cache, gfp, ARRAY_LEN(p), p) ||
	    kmem_cache_prefill_sheaf_nolock(cache, gfp, 20) ||
	    kmem_cache_prefill_sheaf_nolock(cache, gfp, 2000) ||
	    nolock_heap_alloc_pages_nolock(heap, gfp, NUMA_NO_NODE, 0))
		_exit(1);
}

Test(failure, nolock_calls_say_nothing)
{
	char text[4096];

	exhaust();
	cr_assert_eq(said(nolock_calls, 0, text, sizeof(text)), 0);
	cr_assert_eq(strlen(text), 0, "%s", text);
	cr_assert_eq(said(nolock_calls, __GFP_ZERO, text, sizeof(text)), 0);
	cr_assert_eq(strlen(text), 0, "%s", text);
}

static void often(gfp_t gfp)
{
	for (int i = 0; i < 1000; i++)
		by_kmalloc(gfp);
}

Test(failure, many_are_a_few_lines)
{
	static char text[200000];

	exhaust();
	cr_assert_eq(said(often, GFP_ATOMIC, text, sizeof(text)), 0);
	cr_assert_geq(lines(text), 1);
	/* Ten in five seconds, and a thousand failures take no minute. */
	cr_assert_leq(lines(text), 120, "%u lines for 1000 failures", lines(text));
}

Test(failure, nofail_aborts_with_a_line)
{
	char text[4096];

	exhaust();
	for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
		int status = said(ways[w], GFP_KERNEL | __GFP_NOFAIL, text, sizeof(text));

		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
			  "way %zu: status %#x, %s", w, (unsigned int)status, text);
		cr_assert_eq(lines(text), 1, "way %zu: %s", w, text);
	}
	/* Which may fail for want of its lock, too: not to be had. */
	cr_assert_eq(kmem_cache_prefill_percpu_array(array, 20, GFP_KERNEL | __GFP_NOFAIL),
		     -EINVAL);
	cr_assert_eq(kmem_cache_prefill_percpu_array(array, 20, GFP_KERNEL | __GFP_NOWARN),
		     -ENOMEM);
}

Test(failure, populate_too_much)
{
	struct nolock_heap_report before, after;
	struct nolock_heap *h;

	for_each_kind(h, HEAP_SIZE) {
		cr_assert_eq(nolock_heap_populate(h, 2 * MiB), 0);
		expect_whole(h, &before, "with a reserve");
		for (size_t less = 0; less < 3 * NL_CHUNK_SIZE; less += NL_CHUNK_SIZE / 2)
			cr_assert_eq(nolock_heap_populate(h, SIZE_MAX - less), -EINVAL);
		expect_whole(h, &after, "after too much");
		cr_assert_eq(before.chunks_reserve, 2 * MiB / NL_CHUNK_SIZE);
		cr_assert_eq(after.chunks_reserve, before.chunks_reserve);
		cr_assert_eq(nolock_heap_close(h), 0);
	}
}

Test(failure, too_many_heaps)
{
	struct nolock_heap *h[200];
	size_t n = 0;

	errno = 0;
	while (n < ARRAY_LEN(h) && (h[n] = nolock_heap_create(16 * MiB)))
		n++;
	cr_assert_lt(n, ARRAY_LEN(h));
	cr_assert_geq(n, 32);
	cr_assert_eq(errno, EMFILE);
	while (n)
		cr_assert_eq(nolock_heap_close(h[--n]), 0);
	cr_assert_not_null(h[0] = nolock_heap_create(16 * MiB));
	cr_assert_eq(nolock_heap_close(h[0]), 0);
}
