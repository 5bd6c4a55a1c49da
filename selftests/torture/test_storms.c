// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_storms.c - storms of signals: pthread_kill() by one that does nothing else, and POSIX timers
 * of each thread, whose handlers nest and allocate and free what anybody allocated, on 1 to 8
 * threads that do the same, on a private heap, a shared one of our own, and nolockd's.
 *
 * Main flows and handlers use single objects, many at once, prefilled sheaves, a per-CPU array and
 * kfree_rcu(). Objects pass between threads and handlers through mailboxes, each says its own size and pattern,
 * and each is checked before it is freed. No nolock call may fail: what is set aside is more than
 * all can hold. TORTURE_SECONDS=N shares N seconds among the storms; else each has half a second.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <nolock/rcu.h>
#include "internal.h"
#include "again.h"
#include "nolockd.h"
#include "row.h"
#include "shared.h"
#include "../lib/util.h"

enum { MOST = 8, KEEP = 100, STASH = 6, FEW = 6, MAX_WAITING = 2000 };

static const int signals[] = { SIGUSR1, SIGUSR2, SIGURG };
#define NR_SIGNALS ARRAY_LEN(signals)
static const unsigned int sizes[] = { 16, 48, 64, 64, 100, 320, 500, 1024, 4096, 16384 };

/* What one thread, or one signal on one thread, owns: handlers of one signal do not nest. */
struct owner {
	struct rng r;
	void *stash[STASH];
	unsigned long entered, ops, failed, bad;
};

struct storm_thread {
	pthread_t thread;
	struct owner main, handler[NR_SIGNALS];
	void *keep[KEEP];
	unsigned long nested, hits;
	volatile sig_atomic_t depth, inside;
	bool timed;
};

static struct storm_thread threads[MOST];
static struct mailbox box;
static struct nolock_heap *heap;
static struct kmem_cache *cache, *array;
static unsigned long rcu_begun, rcu_over; /* grace periods */
static unsigned long rcu_waiting;	  /* roughly how many objects */
static int stop;
static pthread_barrier_t go;
static __thread struct storm_thread *self;

#define LOAD(where) __atomic_load_n(&(where), __ATOMIC_SEQ_CST)

static void over_at_least(unsigned long n)
{
	unsigned long old = LOAD(rcu_over);

	while (old < n && !__atomic_compare_exchange_n(&rcu_over, &old, n, false, __ATOMIC_SEQ_CST,
						       __ATOMIC_SEQ_CST))
		;
}

static unsigned long rcu_start_poll(void)
{
	return __atomic_add_fetch(&rcu_begun, 1, __ATOMIC_SEQ_CST);
}

static int rcu_poll(unsigned long cookie)
{
	return LOAD(rcu_over) >= cookie;
}

static void rcu_synchronize(void)
{
	over_at_least(rcu_start_poll());
}

/* An RCU without readers, whose grace periods end when the sender of signals says so. */
static const struct nolock_rcu_ops rcu_ops = { .synchronize = rcu_synchronize,
					       .start_poll = rcu_start_poll,
					       .poll = rcu_poll };

static void *get(struct owner *o, bool in_handler)
{
	unsigned int size = sizes[rng_below(&o->r, ARRAY_LEN(sizes))];
	void *p;

	switch (rng_below(&o->r, in_handler ? 5 : 7)) {
	case 0:
		size = kmem_cache_size(cache);
		p = kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE);
		break;
	case 4:
		size = kmem_cache_size(array);
		p = kmem_cache_alloc_nolock(array, 0, NUMA_NO_NODE);
		break;
	case 1:
		p = nolock_heap_kmalloc(heap, size, GFP_ATOMIC);
		break;
	case 2:
	case 3:
		p = nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE);
		break;
	case 5:
		size = kmem_cache_size(cache);
		p = kmem_cache_alloc(cache, GFP_KERNEL);
		break;
	default:
		if (!rng_below(&o->r, 50))
			size = 100000;
		p = nolock_heap_kmalloc(heap, size, GFP_KERNEL);
	}
	o->ops++;
	if (p)
		stamp(p, size, (uint32_t)rng_next(&o->r));
	else
		o->failed++;
	return p;
}

static void put(struct owner *o, void *p, bool in_handler)
{
	unsigned int how = rng_below(&o->r, 16), size;

	if (!p)
		return;
	size = stamp_check(p);
	if (!size)
		o->bad++;
	o->ops++;
	/* As many as may wait without using up what is set aside. */
	if (how < 2 && size <= 1024 && LOAD(rcu_waiting) < MAX_WAITING) {
		__atomic_add_fetch(&rcu_waiting, 1, __ATOMIC_SEQ_CST);
		if (how || in_handler ? kfree_rcu_nolock(p) : kfree_rcu(p))
			o->failed++;
	} else if (how % 2) {
		kfree(p);
	} else {
		kfree_nolock(p);
	}
}

/* What handlers and main flows do alike: several objects by one call. */
static void many(struct owner *o)
{
	struct kmem_cache *s = rng_below(&o->r, 4) ? cache : array;
	unsigned int n = 1 + rng_below(&o->r, FEW), size = kmem_cache_size(s);
	struct slab_sheaf *sheaf;
	void *p[FEW];

	o->ops++;
	if (rng_below(&o->r, 2)) {
		if (kmem_cache_alloc_bulk_nolock(s, 0, n, p) != (int)n) {
			o->failed++;
			return;
		}
		for (unsigned int i = 0; i < n; i++)
			stamp(p[i], size, i);
		for (unsigned int i = 0; i < n; i++)
			o->bad += !stamp_check(p[i]);
		kmem_cache_free_bulk_nolock(s, n, p);
		return;
	}
	/* Now and then an oversize one. */
	sheaf = kmem_cache_prefill_sheaf_nolock(s, 0, rng_below(&o->r, 8) ? n : 200);
	if (!sheaf) {
		o->failed++;
		return;
	}
	for (unsigned int i = 0; i < n; i++) {
		p[i] = kmem_cache_alloc_from_sheaf(s, 0, sheaf);
		if (p[i])
			stamp(p[i], size, i);
		else
			o->failed++;
	}
	kmem_cache_return_sheaf(s, 0, sheaf);
	for (unsigned int i = 0; i < n; i++)
		put(o, p[i], true);
}

static void handler(int sig)
{
	struct storm_thread *t = self;
	int saved = errno;
	struct owner *o;
	unsigned int k = 0;

	if (!t)
		return;
	while (signals[k] != sig)
		k++;
	o = &t->handler[k];
	if (t->depth++)
		t->nested++;
	t->hits += (unsigned long)t->inside;
	o->entered++;
	k = rng_below(&o->r, STASH);
	put(o, o->stash[k], true);
	o->stash[k] = get(o, true);
	put(o, mailbox_swap(&box, (uint32_t)rng_next(&o->r), get(o, true)), true);
	if (rng_below(&o->r, 2))
		many(o);
	t->depth--;
	errno = saved;
}

static void other_calls(struct owner *o, unsigned int what)
{
	struct slab_sheaf *sheaf;
	void *p[20];

	switch (what) {
	case 0:
		if (kmem_cache_alloc_bulk(cache, GFP_KERNEL, ARRAY_LEN(p), p))
			kmem_cache_free_bulk(cache, ARRAY_LEN(p), p);
		else
			o->failed++;
		break;
	case 1:
		sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 1 + rng_below(&o->r, 20));
		if (!sheaf) {
			o->failed++;
			break;
		}
		kmem_cache_free(cache, kmem_cache_alloc_from_sheaf(cache, 0, sheaf));
		kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
		break;
	case 2:
		/* Not if what this thread or another has interrupted holds the array. */
		kmem_cache_prefill_percpu_array(array, 1 + rng_below(&o->r, 8), GFP_KERNEL);
		break;
	case 3:
		__atomic_store_n(&rcu_waiting, nolock_rcu_poll(), __ATOMIC_SEQ_CST);
		break;
	case 4:
		kmem_cache_shrink(rng_below(&o->r, 2) ? cache : array);
		break;
	case 5:
		nolock_heap_trim(heap);
		break;
	default:
		many(o);
	}
}

static void *work(void *arg)
{
	struct storm_thread *t = arg;
	timer_t timer[NR_SIGNALS];
	struct owner *o = &t->main;

	self = t;
	for (unsigned int k = 0; k < NR_SIGNALS; k++) {
		struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = signals[k] };
		struct itimerspec it = { { 0, 130000 + 70000 * (long)k }, { 0, 100000 } };

		ev._sigev_un._tid = gettid();
		t->timed = !timer_create(CLOCK_MONOTONIC, &ev, &timer[k]) &&
			   !timer_settime(timer[k], 0, &it, NULL);
		if (!t->timed)
			o->failed++;
	}
	pthread_barrier_wait(&go);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		uint32_t k = rng_below(&o->r, KEEP), what = rng_below(&o->r, 2000);

		t->inside = 1;
		if (what < 60) {
			/* The last two visit the whole heap. */
			other_calls(o, what < 40 ? what % 4 : what < 42 ? what - 36 : what);
		} else {
			put(o, t->keep[k], false);
			t->keep[k] = get(o, false);
			if (what < 500)
				t->keep[k] =
					mailbox_swap(&box, (uint32_t)rng_next(&o->r), t->keep[k]);
		}
		t->inside = 0;
	}
	for (unsigned int k = 0; k < NR_SIGNALS; k++)
		timer_delete(timer[k]);
	/* Nobody sends signals to a thread that has ended. */
	pthread_barrier_wait(&go);
	return NULL;
}

static void sum(struct owner *o, unsigned long *ops, unsigned long *failed, unsigned long *bad)
{
	*ops += o->ops;
	*failed += o->failed;
	*bad += o->bad;
}

#define FAR 100000000000u

static bool met(unsigned int n)
{
	unsigned long nested = 0, hits = 0;

	for (unsigned int i = 0; i < n; i++) {
		nested += *(volatile unsigned long *)&threads[i].nested;
		hits += *(volatile unsigned long *)&threads[i].hits;
	}
	return nested && hits;
}

/* Returns what went wrong. */
static unsigned long storm(struct nolock_heap *on, const char *name, unsigned int n, uint64_t ns)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	unsigned long ops = 0, failed = 0, bad = 0, entered = 0, nested = 0, hits = 0, wrong;
	struct nolock_heap_report rep, before;
	struct kmem_cache_args args = { .sheaf_capacity = 8 };
	uint64_t end;

	heap = on;
	stop = 0;
	memset(threads, 0, sizeof(threads));
	if (nolock_heap_populate(heap, 24 * MiB) || check_whole(heap, &before, "before"))
		return 1;
	cache = nolock_heap_kmem_cache_create(heap, "storm", 72, &args, 0);
	array = nolock_heap_kmem_cache_create(heap, "storm-array", 136, NULL, SLAB_NO_MERGE);
	if (!cache || !array || kmem_cache_setup_percpu_array(array, 8))
		return 1;
	/* No sa_mask: handlers of different signals interrupt each other. */
	for (unsigned int k = 0; k < NR_SIGNALS; k++)
		sigaction(signals[k], &sa, NULL);
	pthread_barrier_init(&go, NULL, n + 1);
	for (unsigned int i = 0; i < n; i++) {
		rng_init(&threads[i].main.r, i + now_ns());
		for (unsigned int k = 0; k < NR_SIGNALS; k++)
			rng_init(&threads[i].handler[k].r, i * 10 + k + now_ns());
		if (pthread_create(&threads[i].thread, NULL, work, &threads[i]))
			return 1;
	}
	pthread_barrier_wait(&go);
	end = now_ns() + ns;
	/* Longer on a busy machine: until handlers met the allocator and each other. */
	for (unsigned long i = 0; now_ns() < end || (!met(n) && now_ns() < end + FAR); i++) {
		pthread_kill(threads[i % n].thread, signals[i / n % NR_SIGNALS]);
		/* With one CPU for all, somebody else should have it, too. */
		if (i % 16 == 0) {
			over_at_least(LOAD(rcu_begun));
			sched_yield();
		}
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_barrier_wait(&go);
	for (unsigned int i = 0; i < n; i++)
		pthread_join(threads[i].thread, NULL);
	pthread_barrier_destroy(&go);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		put(&threads[0].main, mailbox_swap(&box, i, NULL), false);
	for (unsigned int i = 0; i < n; i++) {
		struct storm_thread *t = &threads[i];

		for (int k = 0; k < KEEP; k++)
			put(&t->main, t->keep[k], false);
		for (unsigned int k = 0; k < NR_SIGNALS; k++) {
			for (int s = 0; s < STASH; s++)
				put(&t->handler[k], t->handler[k].stash[s], true);
			sum(&t->handler[k], &ops, &failed, &bad);
			entered += t->handler[k].entered;
		}
		sum(&t->main, &ops, &failed, &bad);
		nested += t->nested;
		hits += t->hits;
	}
	wrong = failed + bad;
	if (nolock_rcu_barrier()) {
		printf("  objects still wait\n");
		wrong++;
	}
	wrong += (unsigned long)check_whole(heap, &rep, name);
	if (rep.allocated != before.allocated || rep.large != before.large ||
	    rep.refused != before.refused) {
		printf("  %ld objects lost, %ld large, %ld frees refused\n",
		       (long)(rep.allocated - before.allocated), (long)(rep.large - before.large),
		       (long)(rep.refused - before.refused));
		wrong++;
	}
	if (kmem_cache_destroy(cache) || kmem_cache_destroy(array)) {
		printf("  a cache is in use\n");
		wrong++;
	}
	if (!hits || !nested) {
		printf("  no signal hit the allocator, or none hit a handler\n");
		wrong++;
	}
	printf("# storm, %s, %u threads: %lu signals (%lu nested, %lu inside the allocator), %lu "
	       "operations, %lu failed, %lu damaged\n",
	       name, n, entered, nested, hits, ops, failed, bad);
	row(name, ops, entered, "signals", wrong);
	return wrong;
}

int main(int argc, char **argv)
{
	uint64_t ns = env_number("TORTURE_SECONDS", 0) * 1000000000u / 8;
	unsigned long passed = 0, tried = 0;
	/* Of a build for small machines there is the library alone. */
	const bool daemon_wanted = !SMALL_BUILD;
	struct nolock_heap *mine = nolock_heap_default(), *served = NULL;
	struct nolockd d;
	int status;

	if (!ns)
		ns = 500000000;
	if (nolock_rcu_register(&rcu_ops))
		return 1;
	if (argc > 1) {
		if (rseq_in_use(mine))
			return 20;
		return storm(mine, "private heap, no rseq", 4, ns) != 0;
	}
	/* nolockd first: it is started by a fork, and this process has no other thread yet. */
	if (daemon_wanted) {
		if (nolockd_start(&d, true))
			return 1;
		served = nolock_heap_open(d.heap);
	}
	for (unsigned int n = 1; n <= MOST; n += n < 2 ? 1 : 6) {
		passed += storm(mine, "private heap", n, ns) == 0;
		tried++;
	}
	for (unsigned int n = 3; n <= MOST; n += 5) {
		passed += storm(shared_make(64 * MiB), "shared heap", n, ns) == 0;
		tried++;
	}
	for (unsigned int n = 2; daemon_wanted && n <= MOST; n += 3) {
		passed += served && storm(served, "nolockd's arena", n, ns) == 0;
		tried++;
		if (!env_number("TORTURE_SECONDS", 0))
			break;
	}
	if (served)
		nolock_heap_close(served);
	if (daemon_wanted) {
		status = nolockd_stop(&d);
		if (status)
			printf("nolockd ended with status %#x\n", status);
		passed += status == 0;
		tried++;
	}
	passed += run_without_rseq(argv[0], "no-rseq");
	tried++;
	printf("%lu passed, %lu failed, 0 skipped\n", passed, tried - passed);
	return passed != tried;
}
