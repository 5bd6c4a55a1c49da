// SPDX-License-Identifier: GPL-2.0-only
/* test_stat.c - counters: their names, what they add up to, and another process's heap. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "util.h"

Test(stat, names)
{
	for (int i = 0; i < NOLOCK_NR_STAT_ITEMS; i++) {
		const char *name = nolock_stat_name((enum nolock_stat_item)i);

		cr_assert_not_null(name, "item %d", i);
		for (const char *c = name; *c; c++)
			cr_assert(islower((unsigned char)*c) || *c == '_', "%s", name);
		for (int k = 0; k < i; k++)
			cr_assert_str_neq(name, nolock_stat_name((enum nolock_stat_item)k));
	}
	cr_assert_null(nolock_stat_name(NOLOCK_NR_STAT_ITEMS));
	cr_assert_null(nolock_stat_name((enum nolock_stat_item) - 1));
	cr_assert_null(nolock_stat_name((enum nolock_stat_item)100000));
	cr_assert_str_eq(nolock_stat_name(NOLOCK_ALLOC_FASTPATH), "alloc_fastpath");
	cr_assert_str_eq(nolock_stat_name(NOLOCK_BARN_GET_FAIL), "barn_get_fail");
	cr_assert_str_eq(nolock_stat_name(NOLOCK_SHEAF_PREFILL_OVERSIZE), "sheaf_prefill_oversize");
}

static void find(struct nolock_heap *heap, const char *name, struct nolock_cache_stat *st)
{
	for (unsigned int id = 0;; id++) {
		int rc = nolock_heap_cache_stat(heap, id, st);

		cr_assert_neq(rc, -ERANGE, "no cache %s", name);
		cr_assert(rc == 0 || rc == -ENOENT, "cache %u: %d", id, rc);
		if (rc == 0 && strcmp(st->name, name) == 0) {
			cr_assert_eq(st->id, id);
			return;
		}
	}
}

/* Every allocation and every free is in exactly one counter; every object in one place. */
static void adds_up(const struct nolock_cache_stat *st, unsigned long allocs, unsigned long frees)
{
	unsigned long a = st->stat[NOLOCK_ALLOC_FASTPATH] + st->stat[NOLOCK_ALLOC_SLOWPATH];
	unsigned long f = st->stat[NOLOCK_FREE_FASTPATH] + st->stat[NOLOCK_FREE_SLOWPATH];

	cr_assert_eq(a, allocs, "%lu allocations counted, %lu made", a, allocs);
	cr_assert_eq(f, frees, "%lu frees counted, %lu made", f, frees);
	cr_assert_eq(st->allocated, allocs - frees);
	cr_assert_eq(st->objects, st->in_sheaves + st->in_slabs + st->allocated);
	cr_assert_eq(st->objects, st->slabs * st->objs_per_slab);
	cr_assert_eq(st->stat[NOLOCK_ALLOC_SLAB] - st->stat[NOLOCK_FREE_SLAB], st->slabs);
	cr_assert_leq(st->in_sheaves, (unsigned long)st->sheaves * st->sheaf_capacity);
}

Test(stat, counters_add_up)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct kmem_cache *s = kmem_cache_create("books", 90, NULL, 0);
	struct nolock_cache_stat st;
	static void *obj[20000];
	unsigned long allocs = 0, frees = 0, n = 0;
	struct rng r;

	cr_assert_not_null(s);
	rng_init(&r, 11);
	find(heap, "books", &st);
	adds_up(&st, 0, 0);
	cr_assert_eq(st.object_size, 90);
	cr_assert_geq(st.size, 90);
	for (int i = 0; i < 200000; i++) {
		/* Waves: up to all of them, down to none. */
		bool up = (i / 15000) % 2 == 0;

		if (n < ARRAY_LEN(obj) && (n == 0 || rng_below(&r, 4) < (up ? 3 : 1))) {
			obj[n] = rng_below(&r, 2) ? kmem_cache_alloc(s, GFP_KERNEL) :
						    kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE);
			cr_assert_not_null(obj[n++]);
			allocs++;
		} else {
			uint32_t k = rng_below(&r, (uint32_t)n);

			kfree(obj[k]);
			obj[k] = obj[--n];
			frees++;
		}
		if (i % 9973 == 0) {
			find(heap, "books", &st);
			adds_up(&st, allocs, frees);
		}
	}
	cr_assert_gt(st.stat[NOLOCK_SHEAF_REFILL], 0);
	cr_assert_gt(st.stat[NOLOCK_BARN_PUT] + st.stat[NOLOCK_SHEAF_FLUSH], 0);
	cr_assert_eq(st.stat[NOLOCK_ALLOC_FAIL], 0);
	cr_assert_eq(st.stat[NOLOCK_FREE_REFUSED], 0);
	while (n) {
		kfree(obj[--n]);
		frees++;
	}
	kmem_cache_shrink(s);
	find(heap, "books", &st);
	adds_up(&st, allocs, frees);
	cr_assert_eq(st.slabs, 0);
	report("  counters_add_up: %lu allocations, %lu frees, %lu objects refilled", allocs, frees,
	       st.stat[NOLOCK_SHEAF_REFILL]);
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

Test(stat, heap_figures)
{
	struct nolock_heap *heap = nolock_heap_create(100 * MiB);
	struct nolock_heap_stat st;
	struct nolock_cache_stat cs;
	unsigned int id, live = 0;
	void *p;

	cr_assert_not_null(heap);
	cr_assert_not_null(p = nolock_heap_kmalloc(heap, 5 * MiB, GFP_KERNEL));
	cr_assert_eq(nolock_heap_stat(heap, &st), 0);
	cr_assert_eq(st.type, NOLOCK_HEAP_PRIVATE);
	cr_assert_geq(st.size, 100 * MiB);
	cr_assert_eq(st.large, 1);
	cr_assert_geq(st.opened, 5 * MiB);
	cr_assert_leq(st.opened, st.size);
	cr_assert_gt(st.metadata, 0);
	cr_assert((uintptr_t)p >= st.base && (uintptr_t)p < st.base + st.size);
	for (id = 0;; id++) {
		int rc = nolock_heap_cache_stat(heap, id, &cs);

		if (rc == -ERANGE)
			break;
		cr_assert(rc == 0 || rc == -ENOENT);
		live += rc == 0;
		cr_assert_lt(id, 100000, "no end of the cache table");
	}
	cr_assert_eq(live, st.nr_caches);
	kfree(p);
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(stat, failures_are_counted)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "fails", 30000, NULL, 0);
	struct nolock_cache_stat st;
	unsigned long n = 0;

	cr_assert_not_null(s);
	while (kmem_cache_alloc(s, GFP_KERNEL | __GFP_NOWARN))
		n++;
	cr_assert_null(kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
	find(heap, "fails", &st);
	cr_assert_eq(st.stat[NOLOCK_ALLOC_FAIL], 2, "%lu failures counted, 2 seen",
		     st.stat[NOLOCK_ALLOC_FAIL]);
	cr_assert_eq(st.allocated, n);
	cr_assert_eq(nolock_heap_close(heap), 0);
}

static const char *exe_of(pid_t pid, char path[64])
{
	snprintf(path, 64, "/proc/%d/exe", (int)pid);
	return path;
}

Test(stat, other_process)
{
	struct nolock_heap *other;
	struct nolock_cache_stat st;
	struct nolock_heap_stat hs;
	char path[64], target[256], c = 0;
	int ready[2], done[2];
	ssize_t n;
	pid_t pid;

	/* A process without the library has no heap. */
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		execl("/bin/sleep", "sleep", "1000", (char *)NULL);
		_exit(127);
	}
	cr_assert_gt(pid, 0);
	do {
		usleep(1000);
		n = readlink(exe_of(pid, path), target, sizeof(target) - 1);
	} while (n < 5 || memcmp(target + n - 5, "sleep", 5) != 0);
	errno = 0;
	cr_assert_null(nolock_heap_attach_pid(pid));
	cr_assert_eq(errno, ENODEV, "errno %d", errno);
	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);

	cr_assert_eq(pipe(ready) | pipe(done), 0);
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		if (read(done[0], &c, 1) != 1)
			_exit(1);
		for (int i = 0; i < 777; i++)
			if (!kmalloc(40, GFP_KERNEL))
				_exit(2);
		if (!kmalloc(3 * MiB, GFP_KERNEL) || write(ready[1], "r", 1) != 1 ||
		    read(done[0], &c, 1) != 1)
			_exit(3);
		_exit(0);
	}
	cr_assert_eq(write(done[1], "g", 1), 1);
	cr_assert_eq(read(ready[0], &c, 1), 1);
	other = nolock_heap_attach_pid(pid);
	cr_assert_not_null(other, "errno %d", errno);
	cr_assert_eq(nolock_heap_stat(other, &hs), 0);
	cr_assert_eq(hs.large, 1);
	find(other, "kmalloc-48", &st);
	cr_assert_eq(st.allocated, 777, "%lu objects seen in the other process", st.allocated);
	cr_assert_eq(nolock_heap_close(other), 0);
	cr_assert_eq(write(done[1], "x", 1), 1);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	errno = 0;
	cr_assert_null(nolock_heap_attach_pid(pid));
	cr_assert_eq(errno, ESRCH, "errno %d", errno);
}

/* Slabs that are made ahead of demand, as nolockd does, are slabs made. */
Test(stat, slabs_made_ahead)
{
	struct nolock_heap *heap = nolock_heap_create(64 * MiB);
	struct nolock_cache_stat st;
	nl_u32 made, counted = 0;

	cr_assert_not_null(heap);
	made = nl_heap_prefill(heap, 100000);
	cr_assert_gt(made, 0);
	for (unsigned int id = 0; id < NL_NR_BUCKETS; id++) {
		cr_assert_eq(nolock_heap_cache_stat(heap, id, &st), 0);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_SLAB], st.slabs, "%s", st.name);
		counted += (nl_u32)st.slabs;
	}
	cr_assert_eq(counted, made);
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(stat, process_of_another_user, .description = "EPERM, whichever way the system refuses")
{
	int status;
	pid_t pid;

	if (geteuid())
		return; /* may become nobody else */
	pid = fork();
	if (!pid) {
		errno = 0;
		_exit(setuid(65534) || nolock_heap_attach_pid(getppid()) || errno != EPERM);
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "status %#x", status);
}
