// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trim.c - trim drops the free pages of slabs that are partly used, while others allocate from
 * them, and so that a child of a fork in the midst of it has every object in one place.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "core/word.h"
#include "trap.h"
#include "util.h"

/* Pages that are present, of all slabs. */
static size_t slab_pages(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	size_t n = 0;

	for (nl_u32 c = h->first_chunk; c < nl_nr_open(h) << NL_GROUP_SHIFT; c++) {
		unsigned char vec[16];

		if (NL_TAG_KIND(nl_load(nl_tag(h, c))) != NL_KIND_SLAB)
			continue;
		cr_assert_eq(mincore(heap->base + (size_t)c * NL_CHUNK_SIZE, NL_CHUNK_SIZE, vec),
			     0);
		for (int i = 0; i < 16; i++)
			n += vec[i] & 1;
	}
	return n;
}

/* Of each size, one object in so many stays: the pages it touches, and no more. */
Test(trim, free_pages_of_used_slabs)
{
	static const size_t sizes[] = { 16, 48, 100, 192, 640, 1000, 3000, 4096, 7000, 24576 };
	struct nolock_heap *heap = nolock_heap_create(128 * MiB);

	cr_assert_not_null(heap);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		const size_t size = sizes[i], n = 8 * MiB / size, step = 40000 / size + 1;
		char **p = calloc(n, sizeof(*p));
		size_t before, after, most = 0, given;

		cr_assert_not_null(p);
		for (size_t k = 0; k < n; k++) {
			cr_assert_not_null(p[k] = nolock_heap_kmalloc(heap, size, GFP_KERNEL));
			pat_fill(p[k], size, k);
		}
		for (size_t k = 0; k < n; k++) {
			if (k % step)
				kfree(p[k]);
			else
				most += ((uintptr_t)p[k] % 4096 + ksize(p[k]) + 4095) / 4096;
		}
		before = slab_pages(heap);
		given = nolock_heap_trim(heap);
		after = slab_pages(heap);
		cr_assert_leq(after, most, "%zu bytes: %zu pages of %zu left, used %zu", size,
			      after, before, most);
		cr_assert_geq(given, (before - after) * 4096);
		cr_assert_eq(nolock_heap_trim(heap), 0, "%zu bytes: given back twice", size);
		expect_whole(heap, NULL, "after trim");
		for (size_t k = 0; k < n; k += step)
			cr_assert(pat_check(p[k], size, k), "%zu bytes, object %zu", size, k);
		/* The dropped ones are good, and zero when they are asked to be. */
		for (size_t k = 0; k < n; k++) {
			if (!(k % step))
				continue;
			p[k] = nolock_heap_kzalloc(heap, size, GFP_KERNEL);
			cr_assert(p[k] && !p[k][0] && !memcmp(p[k], p[k] + 1, size - 1));
			pat_fill(p[k], size, k);
		}
		for (size_t k = 0; k < n; k++) {
			cr_assert(pat_check(p[k], size, k), "%zu bytes, object %zu", size, k);
			kfree(p[k]);
		}
		nolock_heap_trim(heap);
		free(p);
		report("  %zu bytes: %zu of %zu pages left, %zu are used", size, after, before,
		       most);
	}
	cr_assert_eq(nolock_heap_close(heap), 0);
}

static void ctor(void *p)
{
	memset(p, 0x77, 100);
}

Test(trim, constructed_objects_stay)
{
	struct kmem_cache_args args = { .ctor = ctor };
	struct kmem_cache *s = kmem_cache_create("ctor", 100, &args, 0);
	static char *p[5000];

	cr_assert_not_null(s);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_LEN(p); i++) {
			cr_assert_not_null(p[i] = kmem_cache_alloc(s, GFP_KERNEL));
			cr_assert(p[i][0] == 0x77 && p[i][99] == 0x77);
		}
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			if (round || i % 100)
				kmem_cache_free(s, p[i]);
		nolock_heap_trim(nolock_heap_default());
		for (size_t i = 0; !round && i < ARRAY_LEN(p); i += 100)
			kmem_cache_free(s, p[i]);
	}
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

/* Others allocate, free and look into the same slabs meanwhile. */
static volatile int stop;
static unsigned long done; /* steps of all of them */
static struct nolock_heap *stormed;

static void *storm(void *arg)
{
	enum { N = 2000 };
	static __thread void *p[N];
	struct rng rng;

	rng_init(&rng, (uintptr_t)arg);
	while (!stop) {
		uint32_t i = rng_below(&rng, N), size = 16 + rng_below(&rng, 1200);

		__atomic_fetch_add(&done, 1, __ATOMIC_RELAXED);
		if (p[i]) {
			if (!stamp_check(p[i]))
				return "an object has changed";
			if (rng_below(&rng, 2))
				kfree_nolock(p[i]);
			else
				kfree(p[i]);
			p[i] = NULL;
		}
		if (rng_below(&rng, 3) == 0)
			continue;
		if (rng_below(&rng, 2))
			p[i] = nolock_heap_kmalloc(stormed, size, GFP_KERNEL);
		else
			p[i] = nolock_heap_kmalloc_nolock(stormed, size, 0, NUMA_NO_NODE);
		if (p[i])
			stamp(p[i], size, i);
	}
	for (int i = 0; i < N; i++) {
		if (p[i] && !stamp_check(p[i]))
			return "an object has changed";
		kfree(p[i]);
	}
	return NULL;
}

Test(trim, beside_others)
{
	struct nolock_heap_report rep;
	pthread_t t[3];
	size_t given = 0;

	cr_assert_not_null(stormed = nolock_heap_create(128 * MiB));
	for (uintptr_t i = 0; i < ARRAY_LEN(t); i++)
		cr_assert_eq(pthread_create(&t[i], NULL, storm, (void *)(i + 1)), 0);
	/* Until there was something to give: the others may have had both CPUs. */
	while (!given || __atomic_load_n(&done, __ATOMIC_RELAXED) < 300000)
		given += nolock_heap_trim(stormed);
	stop = 1;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		void *why;

		pthread_join(t[i], &why);
		cr_assert_null(why, "%s", (char *)why);
	}
	cr_assert_gt(given, 0);
	expect_whole(stormed, &rep, "after a storm");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(nolock_heap_close(stormed), 0);
}

#if defined(__x86_64__) && !UNDER_ASAN
/*
 * A thread steps through a trim of the default heap; wherever it changed the slab, another one
 * forks. In the child, which the stepping thread is not in, every object is free, or one of those
 * that are used.
 */
static sem_t reached, go_on;
static nl_slab_t *watched;
static nl_u32 watched_free;
static volatile int ended;

static void on_step(int sig)
{
	static nl_u64 last;
	nl_u64 now = watched->lock ^ watched->intent * 3;
	int err = errno;

	(void)sig;
	for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++)
		now = now * 31 + watched->free[w];
	if (now != last) {
		last = now;
		sem_post(&reached);
		while (sem_wait(&go_on))
			;
	}
	errno = err;
}

static void *step(void *arg)
{
	trap_on();
	nolock_heap_trim(arg);
	trap_off();
	ended = 1;
	sem_post(&reached);
	return NULL;
}

static nl_u32 free_bits(void)
{
	nl_u32 n = 0;

	for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++)
		n += (nl_u32)__builtin_popcountll(watched->free[w]);
	return n;
}

static int look(struct nolock_heap *heap)
{
	struct nolock_heap_report rep;

	if (nolock_heap_check(heap, &rep) || rep.errors)
		return 1;
	if (watched->lock || watched->intent)
		return 2;
	return free_bits() == watched_free ? 0 : 3;
}

Test(trim, forked_in_the_midst)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct sigaction sa = { .sa_handler = on_step };
	static char *p[4000];
	unsigned int forks = 0, taken = 0;
	pthread_t t;

	/* Fewer than a chunk of them: all in one slab, or two. */
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		cr_assert_not_null(p[i] = kmalloc(100, GFP_KERNEL));
		memset(p[i], 1, 100);
	}
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		if (i % 150)
			kfree(p[i]);
	nl_heap_shrink(heap);
	watched = nl_slab(heap->h,
			  (nl_u32)(((nl_u64)p[1500] - (nl_u64)heap->base) >> NL_CHUNK_SHIFT));
	watched_free = free_bits();
	cr_assert(sem_init(&reached, 0, 0) == 0 && sem_init(&go_on, 0, 0) == 0);
	cr_assert_eq(sigaction(SIGTRAP, &sa, NULL), 0);
	cr_assert_eq(pthread_create(&t, NULL, step, heap), 0);
	for (;;) {
		int status;
		pid_t pid;

		while (sem_wait(&reached))
			;
		if (ended)
			break;
		forks++;
		taken += free_bits() < watched_free;
		pid = fork();
		if (!pid)
			_exit(look(heap));
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "fork %u: %#x, intent %#llx", forks, status,
			     (unsigned long long)watched->intent);
		sem_post(&go_on);
	}
	pthread_join(t, NULL);
	report("  %u forks, %u of them with bits of the slab taken", forks, taken);
	cr_assert_gt(taken, 10);
	cr_assert_eq(free_bits(), watched_free);
	expect_whole(heap, NULL, "after it");
}
#endif
