// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_leave.c - calls of the allocator that are never gone back to: left by pthread_exit() or
 * siglongjmp() in a handler that interrupted them. What the thread held is put right when it exits,
 * and what lives on still decays.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "rseq.h"
#include "util.h"
#include "core/slot.h"

#define HEAP_SIZE (64 * MiB)

static struct nolock_heap *heap;
static struct kmem_cache *cache;
static void *seen; /* an object that lives on, and its slab's lock */

/* Locked as a call has them in the middle: a slot, a barn, a slab, and a sheaf out of all lists. */
static void *exit_with_locks(void *arg)
{
	nl_u32 who = nl_who(heap), id = nl_cache_id(cache);
	nl_barn_t *barn = &nl_cache(heap->h, id)->barn[0];
	nl_u32 chunk = (nl_u32)(((nl_u64)seen - heap->h->base) >> NL_CHUNK_SHIFT);
	struct nolock_heap_report rep;

	(void)arg;
	nl_depth++;
	cr_assert_not_null(nl_lock_slot(heap, id, who));
	cr_assert_not_null(nl_lock_slot(heap, id, who)); /* the A-slot */
	cr_assert(nl_barn_lock(barn, who, 0));
	cr_assert(nl_slab_trylock(nl_slab(heap->h, chunk), who));
	nolock_heap_check(heap, &rep);
	cr_assert_eq(rep.locks_held, 4);
	pthread_exit(NULL);
}

Test(leave, locks_go_with_the_thread)
{
	for (unsigned int kind = 0; kind < NR_HEAP_KINDS; kind++) {
		struct nolock_heap_report rep;
		pthread_t thread;
		void *p[300];

		heap = heap_of_kind(kind, HEAP_SIZE);
		if (!heap)
			continue;
		if (!rseq_in_use(heap)) {
			cr_assert_eq(nolock_heap_close(heap), 0);
			continue; /* both would be A-slots: one lock */
		}
		cache = nolock_heap_kmem_cache_create(heap, "left", 100, NULL, 0);
		cr_assert_not_null(cache);
		seen = kmem_cache_alloc(cache, GFP_KERNEL);
		for (int round = 0; round < 3; round++) {
			cr_assert_eq(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 300, p), 300);
			cr_assert_eq(pthread_create(&thread, NULL, exit_with_locks, NULL), 0);
			cr_assert_eq(pthread_join(thread, NULL), 0);
			expect_whole(heap, &rep, "after a thread that held locks");
			cr_assert_eq(rep.allocated, 301);
			kmem_cache_free_bulk(cache, 300, p);
		}
		kfree(seen);
		cr_assert_eq(kmem_cache_destroy(cache), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* As a client that died with a lock, and had written what only a private heap's words have. */
Test(leave, number_in_a_shared_word)
{
	for (unsigned int kind = 0; kind < NR_HEAP_KINDS; kind++) {
		struct nolock_heap_report rep;
		nl_slot_t *slot;

		heap = heap_of_kind(kind, HEAP_SIZE);
		if (!heap)
			continue;
		if (nolock_heap_type(heap) != NOLOCK_HEAP_PRIVATE) {
			slot = nl_rslot(heap->h, 0, 0);
			nl_store(&slot->lock, NL_HELD(9u << 16 | 1));
			nl_store(&slot->word,
				 nl_load(&slot->word) | NL_WORD_LOCKED | (nl_u64)127 << 8);
			cr_assert_eq(nl_heap_repair(heap, 8), 0);
			cr_assert_eq(nl_heap_repair(heap, 9), 1);
			expect_whole(heap, &rep, "after a client that wrote a number");
			cr_assert_eq(rep.locks_held, 0);
			cr_assert_eq(nl_load(&slot->word) & NL_WORD_LOCK_MASK, 0);
		}
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* Work that is mostly slow paths: bursts of one size, and a cache that is shrunk. */
static void work(struct rng *r, void **p, unsigned int n)
{
	unsigned int i = rng_below(r, n);

	if (p[i]) {
		kfree(p[i]);
		p[i] = NULL;
	} else if (rng_below(r, 3)) {
		p[i] = kmalloc(rng_below(r, 3000) + 1, GFP_KERNEL);
	} else {
		p[i] = kmem_cache_alloc(cache, GFP_KERNEL);
	}
	if (!rng_below(r, 500))
		kmem_cache_shrink(cache);
}

static unsigned int left_inside;

static void on_exit_signal(int sig)
{
	(void)sig;
	if (nl_depth)
		__atomic_fetch_add(&left_inside, 1, __ATOMIC_RELAXED);
	pthread_exit(NULL);
}

static unsigned int begun;

static void *work_until_killed(void *arg)
{
	void *p[200] = { NULL };
	struct rng r;

	rng_init(&r, (uint64_t)(uintptr_t)arg);
	/* A handler must not leave the C library's start of a thread. */
	__atomic_store_n(&begun, 1, __ATOMIC_RELEASE);
	for (;;)
		work(&r, p, ARRAY_LEN(p));
	return NULL;
}

Test(leave, threads_that_exit_in_a_handler)
{
	struct sigaction sa = { .sa_handler = on_exit_signal };
	struct nolock_heap_report rep;
	unsigned int i;

	heap = nolock_heap_default();
	cache = kmem_cache_create("left", 100, NULL, 0);
	cr_assert_not_null(cache);
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	for (i = 0; i < 3000 && __atomic_load_n(&left_inside, __ATOMIC_RELAXED) < 60; i++) {
		pthread_t thread;

		begun = 0;
		cr_assert_eq(pthread_create(&thread, NULL, work_until_killed,
					    (void *)(uintptr_t)(i + 1)),
			     0);
		while (!__atomic_load_n(&begun, __ATOMIC_ACQUIRE))
			usleep(10);
		usleep(i % 7 * 100);
		cr_assert_eq(pthread_kill(thread, SIGUSR1), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		if (i % 50 == 0)
			expect_whole(heap, &rep, "after threads that exited in a handler");
	}
	expect_whole(heap, &rep, "after all threads");
	cr_assert_gt(left_inside, 0, "no thread was inside of the allocator: nothing was tested");
	report("  threads_that_exit_in_a_handler: %u threads, %u inside", i, left_inside);
}

/* In the middle of emptying other CPUs' R-slots, whose words then have the call's number. */
static void on_number_signal(int sig)
{
	(void)sig;
	for (nl_u32 i = 1; i < NL_SHRINKERS; i++)
		if (nl_depth && nl_load(&nl_shrinker[i]))
			pthread_exit(NULL);
}

static void *shrink_until_killed(void *arg)
{
	__atomic_store_n(&begun, 1, __ATOMIC_RELEASE);
	for (;;) {
		kfree(kmem_cache_alloc(cache, GFP_KERNEL));
		kmem_cache_shrink(cache);
	}
	return arg;
}

Test(leave, numbers_go_with_the_thread)
{
	struct sigaction sa = { .sa_handler = on_number_signal };
	struct nolock_heap_report rep;

	heap = nolock_heap_default();
	if (!rseq_in_use(heap))
		return;
	cache = kmem_cache_create("left", 100, NULL, 0);
	cr_assert_not_null(cache);
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	for (int round = 0; round < 10; round++) {
		pthread_t thread;

		begun = 0;
		cr_assert_eq(pthread_create(&thread, NULL, shrink_until_killed, NULL), 0);
		while (!__atomic_load_n(&begun, __ATOMIC_ACQUIRE))
			usleep(10);
		while (pthread_tryjoin_np(thread, NULL)) {
			pthread_kill(thread, SIGUSR1);
			usleep(100);
		}
		for (nl_u32 i = 0; i < NL_SHRINKERS; i++)
			cr_assert_eq(nl_load(&nl_shrinker[i]), 0, "round %d: number %u", round, i);
		expect_whole(heap, &rep, "after a thread that had a number");
		cr_assert_eq(rep.locks_held, 0);
	}
}

static sigjmp_buf out;
static volatile sig_atomic_t armed;

static void on_jump_signal(int sig)
{
	(void)sig;
	if (armed)
		siglongjmp(out, 1);
}

static void *send_signals(void *arg)
{
	for (;;) {
		usleep(200);
		pthread_kill(*(pthread_t *)arg, SIGUSR1);
		pthread_testcancel();
	}
	return NULL;
}

/* Jumps out of handlers until one of them was in the middle of a call. False: none ever was. */
static bool jump_out_inside(void **p, unsigned int n)
{
	static volatile unsigned int jumps;
	static pthread_t self, sender;
	static struct rng r;

	self = pthread_self();
	rng_init(&r, 7);
	signal(SIGUSR1, on_jump_signal);
	if (pthread_create(&sender, NULL, send_signals, &self))
		return false;
	if (sigsetjmp(out, 1))
		jumps++;
	armed = 1;
	while (jumps < 20000 && !(nl_depth && jumps))
		work(&r, p, n);
	armed = 0;
	signal(SIGUSR1, SIG_IGN);
	pthread_cancel(sender);
	pthread_join(sender, NULL);
	return nl_depth != 0;
}

static void *jump_and_decay(void *arg)
{
	static void *p[200];
	int *rc = arg;
	size_t before;
	char *big;

	if (!jump_out_inside(p, ARRAY_LEN(p))) {
		report("  no handler was inside of the allocator");
		return NULL;
	}
	big = kmalloc(100 * MiB, GFP_KERNEL);
	if (!big)
		return NULL;
	memset(big, 1, 100 * MiB);
	before = rss_bytes();
	kfree(big);
	/* Goes on until it decays: a thread that never does ends with its test's timeout. */
	while (rss_bytes() > before - 90 * MiB) {
		void *burst[1000];

		for (size_t i = 0; i < ARRAY_LEN(burst); i++)
			burst[i] = kmalloc(300, GFP_KERNEL);
		for (size_t i = 0; i < ARRAY_LEN(burst); i++)
			kfree(burst[i]);
	}
	*rc = 0;
	return NULL;
}

JOB(jump_out)
{
	pthread_t thread;
	int rc = 1;

	heap = nolock_heap_default();
	cache = kmem_cache_create("left", 100, NULL, 0);
	if (!cache || pthread_create(&thread, NULL, jump_and_decay, &rc) ||
	    pthread_join(thread, NULL))
		return 1;
	/* What it held when it jumped, it held until it exited. */
	expect_whole(heap, NULL, "after a thread that had jumped out");
	return rc;
}

Test(leave, jumped_out_of_a_handler, .timeout = 120)
{
	cr_assert_eq(job_run("jump_out", "NOLOCK_DECAY_MS", "300"), 0);
}
