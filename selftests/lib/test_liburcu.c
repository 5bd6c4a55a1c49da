// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_liburcu.c - kfree_rcu() on liburcu: readers find each object whole for as long as they may
 * look at it, while writers replace it and allocate the memory of those before it.
 *
 * A storm lasts NOLOCK_STORM_SECONDS (2).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <urcu/urcu-memb.h>
#include <criterion/criterion.h>
#include <nolock/rcu.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

enum { SLOTS = 64, SIZE = 200 };

struct adapted {
	struct rcu_head head;
	void (*func)(struct nolock_rcu_head *head);
};
_Static_assert(sizeof(struct adapted) <= sizeof(struct nolock_rcu_head), "room for liburcu's head");

static void adapter(struct rcu_head *head)
{
	((struct adapted *)head)->func((struct nolock_rcu_head *)head);
}

static void liburcu_call(struct nolock_rcu_head *head, void (*func)(struct nolock_rcu_head *))
{
	struct adapted *a = (struct adapted *)head;

	a->func = func;
	urcu_memb_call_rcu(&a->head, adapter);
}

static const struct nolock_rcu_ops liburcu = { .synchronize = urcu_memb_synchronize_rcu,
					       .call = liburcu_call };

static void *shared[SLOTS];
static struct kmem_cache *cache;
static volatile int stop;
static unsigned long reads, writes, damaged, failed, handlers;

static void *reader(void *arg)
{
	struct rng r;
	unsigned long n = 0, bad = 0;

	rng_init(&r, (uint64_t)(uintptr_t)arg);
	urcu_memb_register_thread();
	while (!stop) {
		urcu_memb_read_lock();
		for (int i = 0; i < 8; i++) {
			void *p = rcu_dereference(shared[rng_below(&r, SLOTS)]);

			bad += p && stamp_check(p) != SIZE;
			n++;
		}
		urcu_memb_read_unlock();
	}
	urcu_memb_unregister_thread();
	__atomic_fetch_add(&reads, n, __ATOMIC_RELAXED);
	__atomic_fetch_add(&damaged, bad, __ATOMIC_RELAXED);
	return NULL;
}

static __thread struct rng handler_rng;

static void replace(struct rng *r, bool nolock)
{
	void *p = nolock ? kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE) :
			   kmem_cache_alloc(cache, GFP_KERNEL);
	int err;

	if (!p) {
		__atomic_fetch_add(&failed, 1, __ATOMIC_RELAXED);
		return;
	}
	/* If somebody could still read it, this is what he would see. */
	stamp(p, SIZE, (uint32_t)rng_next(r));
	p = __atomic_exchange_n(&shared[rng_below(r, SLOTS)], p, __ATOMIC_ACQ_REL);
	err = nolock ? kfree_rcu_nolock(p) : kfree_rcu(p);
	if (err)
		__atomic_fetch_add(&failed, 1, __ATOMIC_RELAXED);
}

static void handler(int sig)
{
	int err = errno;

	(void)sig;
	if (handler_rng.s) {
		for (int i = 0; i < 4; i++)
			replace(&handler_rng, true);
		__atomic_fetch_add(&handlers, 1, __ATOMIC_RELAXED);
	}
	errno = err;
}

static void *writer(void *arg)
{
	struct rng r;
	unsigned long n = 0;

	rng_init(&r, (uint64_t)(uintptr_t)arg);
	rng_init(&handler_rng, (uint64_t)(uintptr_t)arg + 1);
	while (!stop) {
		replace(&r, n & 1);
		if (n++ % 1000 == 0)
			nolock_rcu_poll();
		if (n % 64 == 0)
			sched_yield();
	}
	__atomic_fetch_add(&writes, n, __ATOMIC_RELAXED);
	return NULL;
}

static void storm(bool signals)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	struct nolock_heap_report rep;
	struct nolock_cache_stat st;
	struct nolock_heap *heap;

	cr_assert_eq(nolock_rcu_register(&liburcu), 0);
	sigaction(SIGUSR1, &sa, NULL);
	for_each_kind(heap, 256 * MiB) {
		pthread_t thread[4];
		uint64_t end = now_ns() + env_number("NOLOCK_STORM_SECONDS", 1) * 500000000u;

		stop = 0;
		cr_assert_eq(nolock_heap_populate(heap, 64 * MiB), 0);
		cache = nolock_heap_kmem_cache_create(heap, "rcu", SIZE, NULL, 0);
		cr_assert_not_null(cache);
		for (uintptr_t i = 0; i < 4; i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, i < 2 ? reader : writer,
						    (void *)(i * 8 + 1)),
				     0);
		while (now_ns() < end) {
			if (signals)
				pthread_kill(thread[2], SIGUSR1);
			usleep(signals ? 20 : 10000);
		}
		stop = 1;
		for (int i = 0; i < 4; i++)
			pthread_join(thread[i], NULL);
		for (int i = 0; i < SLOTS; i++) {
			cr_assert_eq(kfree_rcu(shared[i]), 0);
			shared[i] = NULL;
		}
		cr_assert_eq(nolock_rcu_barrier(), 0);
		cr_assert_eq(nolock_rcu_poll(), 0);
		expect_whole(heap, &rep, heap_kinds[kind]);
		cr_assert_eq(rep.allocated, 0, "%lu objects lost", rep.allocated);
		cr_assert_eq(rep.refused, 0);
		cr_assert_eq(nolock_heap_cache_stat(heap, nl_cache_id(cache), &st), 0);
		report("  %s: %lu reads, %lu writes, %lu handlers, %lu by sheaf, %lu by bit",
		       heap_kinds[kind], reads, writes, handlers, st.stat[NOLOCK_FREE_RCU_SHEAF],
		       st.stat[NOLOCK_FREE_RCU_SHEAF_FAIL]);
		cr_assert_eq(kmem_cache_destroy(cache), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
	cr_assert_eq(damaged, 0, "%lu objects were written while they were read", damaged);
	cr_assert_eq(failed, 0);
	cr_assert_gt(reads, 0);
	cr_assert_gt(writes, 0);
	cr_assert(!signals || handlers);
}

Test(liburcu, readers_and_writers)
{
	storm(false);
}

Test(liburcu, handlers_free_too)
{
	storm(true);
}

/* Type-safe: a reader may find an object freed, or another one in its place, but of this cache. */
struct typed {
	uint64_t magic;
	uint64_t value;
};
#define TYPED_MAGIC 0x7465737465646f6bULL

static void construct(void *p)
{
	((struct typed *)p)->magic = TYPED_MAGIC;
}

static void *typed_reader(void *arg)
{
	struct rng r;
	unsigned long n = 0, bad = 0;

	rng_init(&r, (uint64_t)(uintptr_t)arg);
	urcu_memb_register_thread();
	while (!stop) {
		urcu_memb_read_lock();
		for (int i = 0; i < 8; i++) {
			struct typed *t = rcu_dereference(shared[rng_below(&r, SLOTS)]);

			bad += t && __atomic_load_n(&t->magic, __ATOMIC_RELAXED) != TYPED_MAGIC;
			n++;
		}
		urcu_memb_read_unlock();
	}
	urcu_memb_unregister_thread();
	__atomic_fetch_add(&reads, n, __ATOMIC_RELAXED);
	__atomic_fetch_add(&damaged, bad, __ATOMIC_RELAXED);
	return NULL;
}

Test(liburcu, typesafe)
{
	struct kmem_cache_args args = { .ctor = construct };
	uint64_t end = now_ns() + env_number("NOLOCK_STORM_SECONDS", 1) * 1000000000u;
	struct nolock_heap_report rep;
	unsigned long slabs = 0;
	pthread_t thread[2];
	struct rng r;

	cr_assert_eq(nolock_rcu_register(&liburcu), 0);
	cache = kmem_cache_create("typed", 1024, &args, SLAB_TYPESAFE_BY_RCU);
	cr_assert_not_null(cache);
	rng_init(&r, 5);
	for (uintptr_t i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, typed_reader, (void *)(i + 1)), 0);
	while (now_ns() < end) {
		void *fill[256];

		/* Freed at once; then their slabs, whose memory others fill. */
		for (int i = 0; i < SLOTS; i++)
			__atomic_store_n(&shared[i], kmem_cache_alloc(cache, GFP_KERNEL),
					 __ATOMIC_RELEASE);
		for (int i = 0; i < SLOTS; i++)
			kmem_cache_free(cache,
					__atomic_exchange_n(&shared[i], NULL, __ATOMIC_ACQ_REL));
		slabs += (unsigned long)kmem_cache_shrink(cache);
		for (int i = 0; i < 256; i++)
			if ((fill[i] = kmalloc(512, GFP_KERNEL)))
				memset(fill[i], 0xff, 512);
		for (int i = 0; i < 256; i++)
			kfree(fill[i]);
		nolock_heap_trim(nolock_heap_default());
		sched_yield();
	}
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	cr_assert_eq(kmem_cache_destroy(cache), 0);
	cr_assert_eq(nolock_rcu_barrier(), 0);
	expect_whole(nolock_heap_default(), &rep, "after type-safe slabs");
	cr_assert_eq(rep.chunks_slab, 0);
	report("  typesafe: %lu reads, %lu slabs given back", reads, slabs);
	cr_assert_eq(damaged, 0, "%lu objects of another type", damaged);
	cr_assert_gt(slabs, 0);
	cr_assert_gt(reads, 0);
}

/* fork() in the middle of it: the child frees what it inherited, liburcu's handlers or not. */
Test(liburcu, fork)
{
	struct nolock_heap_report rep;

	cr_assert_eq(nolock_rcu_register(&liburcu), 0);
	for (int with = 0; with < 2; with++) {
		int status;
		pid_t pid;

		for (int i = 0; i < 1000; i++)
			cr_assert_eq(kfree_rcu(kmalloc(100, GFP_KERNEL)), 0);
		if (with)
			urcu_memb_call_rcu_before_fork();
		pid = fork();
		if (!pid) {
			if (with)
				urcu_memb_call_rcu_after_fork_child();
			for (int i = 0; i < 1000; i++)
				if (kfree_rcu(kmalloc(100, GFP_KERNEL)))
					_exit(1);
			if (nolock_rcu_barrier())
				_exit(2);
			if (check_whole(nolock_heap_default(), &rep, "in a child"))
				_exit(3);
			_exit(rep.allocated ? 4 : 0);
		}
		if (with)
			urcu_memb_call_rcu_after_fork_parent();
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "%s handlers: %#x", with ? "with" : "without", status);
	}
	cr_assert_eq(nolock_rcu_barrier(), 0);
	expect_whole(nolock_heap_default(), &rep, "in the parent");
	cr_assert_eq(rep.allocated, 0);
}
