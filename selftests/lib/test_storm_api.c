// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_storm_api.c - storms on the calls that take many objects, or keep them for later: bulk,
 * prefilled sheaves, per-CPU arrays, kfree_rcu(). Handlers call their nolock forms, on the same
 * caches, while the main flow is inside of them; each object says who it is.
 *
 * On each kind of heap, for NOLOCK_STORM_SECONDS (2) in all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <nolock/rcu.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

enum { BATCH = 40, SIZE = 96, COUNT = 32 };

/* Grace periods end when the storm says so; what waits is stamped, and must stay so. */
static unsigned long begun, over;

static void my_synchronize(void)
{
	over = __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
}

static unsigned long my_start_poll(void)
{
	return __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
}

static int my_poll(unsigned long cookie)
{
	return __atomic_load_n(&over, __ATOMIC_ACQUIRE) >= cookie;
}

static const struct nolock_rcu_ops ops = { .synchronize = my_synchronize,
					   .start_poll = my_start_poll,
					   .poll = my_poll };

static struct kmem_cache *plain, *array;
static volatile int stop;
static unsigned long handlers, hits, objects, failed, damaged;
static __thread volatile sig_atomic_t inside;
static __thread struct rng handler_rng;

static void fill(void **p, int n, struct rng *r)
{
	for (int i = 0; i < n; i++)
		stamp(p[i], SIZE, (uint32_t)rng_next(r));
}

static void check(void **p, int n)
{
	for (int i = 0; i < n; i++)
		if (stamp_check(p[i]) != SIZE)
			__atomic_fetch_add(&damaged, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&objects, (unsigned long)n, __ATOMIC_RELAXED);
}

static void fail(void)
{
	__atomic_fetch_add(&failed, 1, __ATOMIC_RELAXED);
}

/* One turn, by nolock calls alone. Handler. */
static void turn_nolock(struct rng *r)
{
	struct kmem_cache *s = rng_below(r, 2) ? plain : array;
	int n = 1 + (int)rng_below(r, BATCH);
	struct slab_sheaf *sheaf;
	void *p[BATCH];

	switch (rng_below(r, 3)) {
	case 0:
		if (kmem_cache_alloc_bulk_nolock(s, 0, (size_t)n, p) != n) {
			fail();
			return;
		}
		fill(p, n, r);
		check(p, n);
		kmem_cache_free_bulk_nolock(rng_below(r, 2) ? s : NULL, (size_t)n, p);
		return;
	case 1:
		sheaf = kmem_cache_prefill_sheaf_nolock(s, 0, (unsigned int)n);
		if (!sheaf) {
			fail();
			return;
		}
		for (int i = 0; i < n; i++)
			p[i] = kmem_cache_alloc_from_sheaf(s, 0, sheaf);
		kmem_cache_return_sheaf(s, 0, sheaf);
		fill(p, n, r);
		check(p, n);
		for (int i = 0; i < n; i++)
			kmem_cache_free_nolock(s, p[i]);
		return;
	default:
		for (int i = 0; i < n; i++) {
			p[0] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE);
			if (!p[0]) {
				fail();
				return;
			}
			fill(p, 1, r);
			check(p, 1);
			if (kmem_cache_free_rcu_nolock(s, p[0]))
				fail();
		}
	}
}

static void handler(int sig)
{
	int err = errno;

	(void)sig;
	if (!handler_rng.s)
		return;
	__atomic_fetch_add(&handlers, 1, __ATOMIC_RELAXED);
	if (inside)
		__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
	turn_nolock(&handler_rng);
	errno = err;
}

static void turn(struct rng *r)
{
	struct kmem_cache *s = rng_below(r, 2) ? plain : array;
	int n = 1 + (int)rng_below(r, BATCH);
	struct slab_sheaf *sheaf;
	void *p[BATCH];

	switch (rng_below(r, 6)) {
	case 0:
		if (kmem_cache_alloc_bulk(s, GFP_KERNEL, (size_t)n, p) != n) {
			fail();
			return;
		}
		fill(p, n, r);
		check(p, n);
		kmem_cache_free_bulk(s, (size_t)n, p);
		return;
	case 1:
		sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 4);
		if (!sheaf || kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, (unsigned int)n)) {
			fail();
			return;
		}
		for (int i = 0; i < n; i++)
			p[i] = kmem_cache_alloc_from_sheaf(s, 0, sheaf);
		kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
		fill(p, n, r);
		check(p, n);
		kmem_cache_free_bulk(NULL, (size_t)n, p);
		return;
	case 2:
		n = kmem_cache_prefill_percpu_array(array, COUNT, GFP_KERNEL);
		if (n && n != -EBUSY) /* the handler's CPU may be another one's array */
			fail();
		return;
	case 3:
		nolock_rcu_poll();
		/* All that was begun is over: nobody reads. */
		__atomic_store_n(&over, __atomic_load_n(&begun, __ATOMIC_RELAXED),
				 __ATOMIC_RELEASE);
		return;
	case 4:
		for (int i = 0; i < n; i++) {
			p[0] = kmem_cache_alloc(s, GFP_KERNEL);
			if (!p[0]) {
				fail();
				return;
			}
			fill(p, 1, r);
			check(p, 1);
			if (kfree_rcu(p[0]))
				fail();
		}
		return;
	default:
		turn_nolock(r);
	}
}

static pthread_t thread[2];
static pthread_barrier_t both;

/* A signal to the other thread with each turn, as long as both are there. */
static void *main_flow(void *arg)
{
	uintptr_t nr = (uintptr_t)arg;
	struct rng r;

	rng_init(&r, nr * 3 + 1);
	rng_init(&handler_rng, nr * 7 + 5);
	/* A signal hits what its target is in only if that runs while it is sent: on another CPU. */
	stay_on_nth((unsigned int)nr);
	pthread_barrier_wait(&both);
	while (!stop) {
		inside = 1;
		turn(&r);
		inside = 0;
		pthread_kill(thread[!nr], SIGUSR1);
	}
	pthread_barrier_wait(&both);
	return NULL;
}

static unsigned long storm(const char *name)
{
	uint64_t span = env_number("NOLOCK_STORM_SECONDS", 2) * 1000000000u / NR_HEAP_KINDS;
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	struct kmem_cache_args args = { .sheaf_capacity = 16 };
	struct nolock_heap_report rep;
	struct nolock_heap *heap;
	unsigned long bad = 0;

	if (nolock_rcu_register(&ops) || sigaction(SIGUSR1, &sa, NULL))
		return 1;
	for_each_kind(heap, 256 * MiB) {
		uint64_t end = now_ns() + span;

		stop = 0;
		pthread_barrier_init(&both, NULL, 2);
		bad += nolock_heap_populate(heap, 64 * MiB) != 0;
		plain = nolock_heap_kmem_cache_create(heap, "plain", SIZE, &args, 0);
		array = nolock_heap_kmem_cache_create(heap, "array", SIZE, NULL, SLAB_NO_MERGE);
		bad += kmem_cache_setup_percpu_array(array, COUNT) != 0;
		for (uintptr_t i = 0; i < 2; i++)
			bad += pthread_create(&thread[i], NULL, main_flow, (void *)i) != 0;
		while (now_ns() < end)
			usleep(10000);
		stop = 1;
		for (int i = 0; i < 2; i++)
			pthread_join(thread[i], NULL);
		pthread_barrier_destroy(&both);
		bad += nolock_rcu_barrier() != 0;
		bad += nolock_rcu_poll() != 0;
		bad += (unsigned long)check_whole(heap, &rep, heap_kinds[kind]);
		if (rep.allocated || rep.refused) {
			report("  %s, %s: %lu objects lost, %lu frees refused", name,
			       heap_kinds[kind], rep.allocated, rep.refused);
			bad++;
		}
		bad += kmem_cache_destroy(plain) != 0;
		bad += kmem_cache_destroy(array) != 0;
		bad += nolock_heap_close(heap) != 0;
	}
	report("  %s: %lu handlers, %lu of them inside the allocator, %lu objects, %lu failures, "
	       "%lu damaged",
	       name, handlers, hits, objects, failed, damaged);
	return bad + failed + damaged + !hits;
}

Test(storm_api, with_rseq)
{
	cr_assert_eq(storm("with_rseq"), 0);
}

/* A-slots serve everything. */
JOB(storm_api_without_rseq)
{
	return storm("without_rseq") != 0 || rseq_in_use(nolock_heap_default());
}

Test(storm_api, without_rseq)
{
	cr_assert_eq(job_run("storm_api_without_rseq", "NOLOCK_RSEQ", "0"), 0);
}
