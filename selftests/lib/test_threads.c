// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_threads.c - threads that churn, hand objects to each other, exit, move between CPUs, and
 * fork; every object has a pattern that is checked before it is freed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "util.h"

enum { MAX_THREADS = 8, KEEP = 300 };

struct worker {
	pthread_t thread;
	unsigned int nr;
	unsigned long ops, failed, bad;
	unsigned long iterations;
	struct mailbox *box; /* NULL: keeps to itself */
	struct kmem_cache *cache;
	unsigned long large;
};

static pthread_barrier_t start;

static const unsigned int sizes[] = { 16,  24,	32,   48,   64,	  100,	 128,	200,
				      320, 512, 1000, 2048, 4096, 10000, 32768, 50000 };

static void *get(struct worker *w, struct rng *r)
{
	uint32_t what = rng_below(r, 100);
	unsigned int size = sizes[what < 80 ? rng_below(r, 12) : rng_below(r, ARRAY_LEN(sizes))];
	void *p;

	if (what % 4 == 0 && w->cache) {
		size = 72;
		p = what & 8 ? kmem_cache_alloc(w->cache, GFP_KERNEL) :
			       kmem_cache_alloc_nolock(w->cache, 0, NUMA_NO_NODE);
	} else if (what % 4 == 1 && size <= KMALLOC_MAX_CACHE_SIZE) {
		p = kmalloc_nolock(size, 0, NUMA_NO_NODE);
	} else {
		p = kmalloc(size, GFP_KERNEL);
	}
	w->ops++;
	if (!p) {
		w->failed++;
		return NULL;
	}
	stamp(p, size, (uint32_t)rng_next(r));
	return p;
}

static void put(struct worker *w, struct rng *r, void *p)
{
	if (!p)
		return;
	if (!stamp_check(p))
		w->bad++;
	w->ops++;
	if (rng_below(r, 2))
		kfree(p);
	else
		kfree_nolock(p);
}

static void *churn(void *arg)
{
	struct worker *w = arg;
	void *keep[KEEP] = { NULL };
	struct rng r;

	rng_init(&r, w->nr + 100);
	pthread_barrier_wait(&start);
	for (unsigned long i = 0; i < w->iterations; i++) {
		uint32_t k = rng_below(&r, KEEP);

		if (w->box && rng_below(&r, 3) == 0) {
			/* Hand an object over, and free whatever another thread left there. */
			put(w, &r, mailbox_swap(w->box, k, get(w, &r)));
			continue;
		}
		put(w, &r, keep[k]);
		keep[k] = rng_below(&r, 5) ? get(w, &r) : NULL;
	}
	for (int k = 0; k < KEEP; k++)
		put(w, &r, keep[k]);
	return NULL;
}

static void run_workers(const char *name, unsigned int threads, unsigned long iterations,
			struct mailbox *box)
{
	static struct worker w[MAX_THREADS];
	struct kmem_cache *cache = kmem_cache_create("shared", 72, NULL, 0);
	struct nolock_heap_report rep;
	unsigned long ops = 0, bad = 0, failed = 0;

	cr_assert_not_null(cache);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 4 * MiB), 0);
	pthread_barrier_init(&start, NULL, threads);
	for (unsigned int i = 0; i < threads; i++) {
		w[i] = (struct worker){
			.nr = i, .iterations = iterations, .box = box, .cache = cache
		};
		cr_assert_eq(pthread_create(&w[i].thread, NULL, churn, &w[i]), 0);
	}
	for (unsigned int i = 0; i < threads; i++) {
		pthread_join(w[i].thread, NULL);
		ops += w[i].ops;
		bad += w[i].bad;
		failed += w[i].failed;
	}
	pthread_barrier_destroy(&start);
	for (uint32_t i = 0; box && i < MAILBOX_SLOTS; i++) {
		void *p = mailbox_swap(box, i, NULL);

		if (p) {
			bad += !stamp_check(p);
			kfree(p);
		}
	}
	expect_whole(nolock_heap_default(), &rep, name);
	cr_assert_eq(bad, 0, "%s: %lu objects were damaged", name, bad);
	cr_assert_eq(failed, 0, "%s: %lu allocations failed", name, failed);
	cr_assert_eq(rep.allocated + rep.large, 0, "%s: %lu objects lost", name,
		     rep.allocated + rep.large);
	cr_assert_eq(rep.refused, 0, "%s: %lu frees refused", name, rep.refused);
	cr_assert_eq(kmem_cache_destroy(cache), 0);
	report("  %s: %u threads, %lu operations, %lu failures, %lu damaged", name, threads, ops,
	       failed, bad);
}

Test(threads, churn_alone)
{
	for (unsigned int n = 1; n <= MAX_THREADS; n *= 2)
		run_workers("churn_alone", n, 150000 / n, NULL);
}

Test(threads, churn_with_handover)
{
	static struct mailbox box;

	for (unsigned int n = 2; n <= MAX_THREADS; n *= 2)
		run_workers("churn_with_handover", n, 150000 / n, &box);
}

/* One thread allocates all, another frees all: objects travel one way only. */
#define RING 1024
struct ring {
	void *slot[RING];
	unsigned long head, tail; /* head by the producer, tail by the consumer */
};

static void *produce(void *arg)
{
	struct worker *w = arg;
	struct ring *ring = (struct ring *)w->box;
	struct rng r;

	rng_init(&r, w->nr + 1);
	pthread_barrier_wait(&start);
	for (unsigned long i = 0; i < w->iterations; i++) {
		void *p = get(w, &r);

		while (i - __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) >= RING)
			sched_yield();
		ring->slot[i % RING] = p;
		__atomic_store_n(&ring->head, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *consume(void *arg)
{
	struct worker *w = arg;
	struct ring *ring = (struct ring *)w->box;
	struct rng r;

	rng_init(&r, w->nr + 1);
	pthread_barrier_wait(&start);
	for (unsigned long i = 0; i < w->iterations; i++) {
		while (__atomic_load_n(&ring->head, __ATOMIC_ACQUIRE) <= i)
			sched_yield();
		put(w, &r, ring->slot[i % RING]);
		__atomic_store_n(&ring->tail, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

Test(threads, producers_and_consumers)
{
	enum { PAIRS = 3 };
	static struct ring ring[PAIRS];
	static struct worker w[2 * PAIRS];
	struct kmem_cache *cache = kmem_cache_create("one-way", 72, NULL, 0);
	struct nolock_heap_report rep;
	unsigned long ops = 0;

	cr_assert_not_null(cache);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 64 * MiB), 0);
	pthread_barrier_init(&start, NULL, 2 * PAIRS);
	for (unsigned int i = 0; i < 2 * PAIRS; i++) {
		w[i] = (struct worker){ .nr = i,
					.iterations = 100000,
					.cache = cache,
					.box = (struct mailbox *)&ring[i / 2] };
		cr_assert_eq(pthread_create(&w[i].thread, NULL, i & 1 ? consume : produce, &w[i]),
			     0);
	}
	for (unsigned int i = 0; i < 2 * PAIRS; i++) {
		pthread_join(w[i].thread, NULL);
		ops += w[i].ops;
		cr_assert_eq(w[i].bad, 0);
		cr_assert_eq(w[i].failed, 0);
	}
	expect_whole(nolock_heap_default(), &rep, "after producers and consumers");
	cr_assert_eq(rep.allocated + rep.large, 0);
	/* One-way traffic must not pile memory up: at most the rings were ever in flight. */
	cr_assert_lt(rep.chunks_slab, 2048, "%lu slabs for %d objects in flight", rep.chunks_slab,
		     PAIRS * RING);
	cr_assert_eq(kmem_cache_destroy(cache), 0);
	report("  producers_and_consumers: %d pairs, %lu operations", PAIRS, ops);
}

static void *short_life(void *arg)
{
	struct worker *w = arg;
	struct rng r;
	void *p[20];

	rng_init(&r, w->nr + 7);
	for (int i = 0; i < 20; i++)
		p[i] = get(w, &r);
	/* Half is freed here, half by whoever comes after the thread. */
	for (uint32_t i = 0; i < 20; i++)
		put(w, &r, i & 1 ? p[i] : mailbox_swap(w->box, w->nr + i, p[i]));
	return NULL;
}

Test(threads, thread_exit, .description = "nothing is lost with a thread that ends")
{
	enum { ROUNDS = 300, AT_ONCE = 6 };
	static struct mailbox box;
	static struct worker w[AT_ONCE];
	struct nolock_heap_report rep;
	unsigned long bad = 0, failed = 0, ops = 0;

	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 16 * MiB), 0);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (unsigned int i = 0; i < AT_ONCE; i++) {
			w[i] = (struct worker){ .nr = round * AT_ONCE + i, .box = &box };
			cr_assert_eq(pthread_create(&w[i].thread, NULL, short_life, &w[i]), 0);
		}
		for (unsigned int i = 0; i < AT_ONCE; i++) {
			pthread_join(w[i].thread, NULL);
			bad += w[i].bad;
			failed += w[i].failed;
			ops += w[i].ops;
		}
	}
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		kfree(mailbox_swap(&box, i, NULL));
	expect_whole(nolock_heap_default(), &rep, "after many threads");
	cr_assert_eq(bad + failed, 0);
	cr_assert_eq(rep.allocated + rep.large, 0);
	report("  thread_exit: %d threads, %lu operations", ROUNDS * AT_ONCE, ops);
}

static volatile int moving;

/* Push every worker from CPU to CPU for as long as they run. */
static void *mover(void *arg)
{
	struct worker *w = arg;
	cpu_set_t all, one;
	int cpu = 0;

	sched_getaffinity(0, sizeof(all), &all);
	while (moving) {
		for (int i = 0; i < 4; i++) {
			do
				cpu = (cpu + 1) % CPU_SETSIZE;
			while (!CPU_ISSET(cpu, &all));
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			pthread_setaffinity_np(w[i].thread, sizeof(one), &one);
			w[4].ops++;
		}
	}
	for (int i = 0; i < 4; i++)
		pthread_setaffinity_np(w[i].thread, sizeof(all), &all);
	return NULL;
}

Test(threads, affinity_churn)
{
	static struct worker w[5];
	static struct mailbox box;
	struct nolock_heap_report rep;
	unsigned long ops = 0;
	pthread_t m;

	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 16 * MiB), 0);
	moving = 1;
	pthread_barrier_init(&start, NULL, 5);
	for (unsigned int i = 0; i < 4; i++) {
		w[i] = (struct worker){ .nr = i, .iterations = 60000, .box = &box };
		cr_assert_eq(pthread_create(&w[i].thread, NULL, churn, &w[i]), 0);
	}
	cr_assert_eq(pthread_create(&m, NULL, mover, w), 0);
	pthread_barrier_wait(&start);
	for (unsigned int i = 0; i < 4; i++) {
		/* Joined threads must not be moved any more: stop the mover before the first. */
		if (i == 0)
			while (__atomic_load_n(&w[0].ops, __ATOMIC_RELAXED) < 50000 &&
			       __atomic_load_n(&w[1].ops, __ATOMIC_RELAXED) < 50000)
				sched_yield();
		if (i == 0) {
			moving = 0;
			pthread_join(m, NULL);
		}
		pthread_join(w[i].thread, NULL);
		ops += w[i].ops;
		cr_assert_eq(w[i].bad, 0);
		cr_assert_eq(w[i].failed, 0);
	}
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		kfree(mailbox_swap(&box, i, NULL));
	expect_whole(nolock_heap_default(), &rep, "after moves between CPUs");
	cr_assert_eq(rep.allocated + rep.large, 0);
	report("  affinity_churn: %lu operations, %lu moves", ops, w[4].ops);
}

/* What the forking thread allocated before the fork is the child's too, with its contents. */
static int child_work(void **inherited, int n, unsigned int seed)
{
	struct worker w = { .nr = seed };
	struct nolock_heap_report rep;
	void *p[200];
	struct rng r;

	rng_init(&r, seed + 1);
	for (int i = 0; i < 200; i++)
		p[i] = get(&w, &r);
	for (int i = 0; i < n; i++)
		put(&w, &r, inherited[i]);
	for (int i = 0; i < 200; i++)
		put(&w, &r, p[i]);
	if (w.failed)
		return 1;
	if (w.bad)
		return 2;
	if (check_whole(nolock_heap_default(), &rep, "in a child"))
		return 3;
	if (rep.refused)
		return 4;
	return 0;
}

static struct mailbox fork_box;
static volatile int forking;

static void *churn_while_forking(void *arg)
{
	struct worker *w = arg;
	struct rng r;

	rng_init(&r, w->nr + 55);
	while (forking)
		put(w, &r, mailbox_swap(&fork_box, rng_below(&r, MAILBOX_SLOTS), get(w, &r)));
	return NULL;
}

static void forks(const char *name, pid_t (*do_fork)(void), int count)
{
	enum { N = 100 };
	static struct worker w[4];
	struct nolock_heap_report rep;
	struct worker me = { .nr = 9 };
	unsigned long children = 0;
	void *p[N];
	struct rng r;

	rng_init(&r, 3);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 64 * MiB), 0);
	forking = 1;
	for (unsigned int i = 0; i < 3; i++) {
		w[i] = (struct worker){ .nr = i };
		cr_assert_eq(pthread_create(&w[i].thread, NULL, churn_while_forking, &w[i]), 0);
	}
	for (int k = 0; k < count; k++) {
		int status = 0;
		pid_t pid;

		for (int i = 0; i < N; i++)
			p[i] = get(&me, &r);
		pid = do_fork();
		if (pid == 0) {
			die_with_parent();
			_exit(child_work(p, N, (unsigned int)k));
		}
		cr_assert_gt(pid, 0);
		for (int i = 0; i < N; i++)
			put(&me, &r, p[i]);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
			  "%s: child %d ended with status %#x (1 failed, 2 damaged, 3 not whole)",
			  name, k, status);
		children++;
	}
	forking = 0;
	for (unsigned int i = 0; i < 3; i++) {
		pthread_join(w[i].thread, NULL);
		cr_assert_eq(w[i].bad + w[i].failed, 0);
	}
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		kfree(mailbox_swap(&fork_box, i, NULL));
	cr_assert_eq(me.bad + me.failed, 0);
	expect_whole(nolock_heap_default(), &rep, "in the parent of many children");
	cr_assert_eq(rep.allocated + rep.large, 0);
	report("  %s: %lu children of a process with 4 threads, all whole", name, children);
}

Test(threads, fork_of_a_threaded_process)
{
	forks("fork", fork, 150);
}

#if __GLIBC_PREREQ(2, 34)
Test(threads, raw_fork_of_a_threaded_process, .description = "_Fork runs no handlers")
{
	forks("_Fork", _Fork, 150);
}
#endif

/*
 * The child is made by a signal handler that interrupted whatever the thread was doing. It
 * allocates at once, returns from the handler into the interrupted operation, and works on.
 */
static volatile sig_atomic_t handler_children, handler_bad, am_child;

static void fork_in_handler(int sig)
{
	int saved = errno, status = 0;
	pid_t pid;

	(void)sig;
	if (am_child)
		return;
	pid = _Fork();
	if (pid == 0) {
		die_with_parent();
		void *p[50];

		am_child = 1;
		for (unsigned int i = 0; i < 50; i++) {
			p[i] = kmalloc_nolock(sizes[i % 12], 0, NUMA_NO_NODE);
			if (!p[i])
				_exit(1);
			stamp(p[i], sizes[i % 12], i);
		}
		for (unsigned int i = 0; i < 50; i++) {
			if (!stamp_check(p[i]))
				_exit(2);
			kfree_nolock(p[i]);
		}
		errno = saved;
		return;
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		handler_bad = status ? status : 1;
	handler_children++;
	errno = saved;
}

Test(threads, fork_in_a_handler)
{
	enum { CHILDREN = 150 };
	struct sigaction sa = { .sa_handler = fork_in_handler };
	struct worker me = { .nr = 4 };
	struct nolock_heap_report rep;
	void *keep[KEEP] = { NULL };
	struct itimerspec it = { { 0, 0 }, { 0, 0 } };
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	unsigned int more = 2000, armed = 0;
	timer_t timer;
	struct rng r;

	rng_init(&r, 77);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 4 * MiB), 0);
	sigaction(SIGUSR1, &sa, NULL);
	ev._sigev_un._tid = gettid();
	cr_assert_eq(timer_create(CLOCK_MONOTONIC, &ev, &timer), 0);
	while (handler_children < CHILDREN && more) {
		uint32_t k = rng_below(&r, KEEP);

		/* One shot at a time: a fork may take longer than any interval. */
		if (!am_child && armed == (unsigned int)handler_children) {
			it.it_value.tv_nsec = 1000 + (long)rng_below(&r, 100000);
			cr_assert_eq(timer_settime(timer, 0, &it, NULL), 0);
			armed++;
		}
		put(&me, &r, keep[k]);
		keep[k] = get(&me, &r);
		more -= am_child;
	}
	if (!am_child)
		timer_delete(timer);
	for (int k = 0; k < KEEP; k++)
		put(&me, &r, keep[k]);
	if (am_child) {
		int bad = check_whole(nolock_heap_default(), &rep, "in a handler's child");

		_exit(bad ? 3 : me.bad ? 4 : me.failed ? 5 : rep.allocated + rep.large ? 6 : 0);
	}
	cr_assert_eq(handler_bad, 0, "a child of a handler ended with status %#x",
		     (unsigned int)handler_bad);
	cr_assert_eq(me.bad + me.failed, 0);
	expect_whole(nolock_heap_default(), &rep, "after forks in handlers");
	cr_assert_eq(rep.allocated + rep.large, 0);
	report("  fork_in_a_handler: %d children, %lu operations around them",
	       (int)handler_children, me.ops);
}
