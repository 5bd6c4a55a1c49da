// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_signals.c - storms: handlers that allocate and free while the main flow is inside the
 * allocator, on the same caches, with nested signals, from another thread and from timers.
 *
 * Objects pass between handlers and main flows through mailboxes, each says its own size and
 * pattern, and each is checked before it is freed. A storm lasts NOLOCK_STORM_SECONDS (3).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "util.h"

enum { KEEP = 256, STASH = 8 };

static const int signals[] = { SIGUSR1, SIGUSR2, SIGURG };
#define NR_SIGNALS ARRAY_LEN(signals)

static const unsigned int sizes[] = { 16, 32, 40, 64, 64, 64, 100, 128, 256, 500, 1024, 4096 };

/* Which calls a handler makes. The main flow always makes all of them. */
enum style {
	NOLOCK_ONLY = 1, /* kmalloc_nolock, kfree_nolock */
	ORDINARY = 2,	 /* kmalloc(GFP_ATOMIC), kfree: a handler may call those too */
	CACHE = 4,	 /* kmem_cache_alloc_nolock and kmem_cache_free_nolock */
	PAGES = 8,
};

/* What one thread, or one kind of signal on one thread, owns. Handlers of one kind do not nest. */
struct owner {
	struct rng r;
	void *stash[STASH];
	unsigned long entered, ops, failed, bad;
};

struct storm_thread {
	pthread_t thread;
	unsigned int nr;
	struct owner main, handler[NR_SIGNALS];
	void *keep[KEEP];
	unsigned long nested;
	volatile sig_atomic_t depth, inside; /* inside: the main flow is in the allocator */
	unsigned long hits;		     /* handlers that found it there */
};

static struct storm_thread threads[2];
static struct mailbox box;
static struct kmem_cache *cache;
static enum style style;
static volatile int stop;
static pthread_barrier_t go;
static __thread struct storm_thread *self;

static void *get(struct owner *o, enum style how)
{
	unsigned int size = sizes[rng_below(&o->r, ARRAY_LEN(sizes))];
	void *p;

	switch (how) {
	case NOLOCK_ONLY:
		p = kmalloc_nolock(size, 0, NUMA_NO_NODE);
		break;
	case ORDINARY:
		p = kmalloc(size, GFP_ATOMIC);
		break;
	case CACHE:
		size = 64;
		p = kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE);
		break;
	default:
		size = 4096;
		p = alloc_pages_nolock(0, NUMA_NO_NODE, 0);
	}
	o->ops++;
	if (!p) {
		o->failed++;
		return NULL;
	}
	stamp(p, size, (uint32_t)rng_next(&o->r));
	return p;
}

static void put(struct owner *o, void *p, bool ordinary)
{
	if (!p)
		return;
	if (!stamp_check(p))
		o->bad++;
	o->ops++;
	if (ordinary)
		kfree(p);
	else
		kfree_nolock(p);
}

static enum style pick(struct owner *o, enum style of)
{
	for (;;) {
		enum style one = 1u << rng_below(&o->r, 4);

		if (one & of)
			return one;
	}
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
	if (t->inside)
		t->hits++;
	o->entered++;
	for (int i = 0; i < 2; i++) {
		uint32_t s = rng_below(&o->r, STASH);
		bool ordinary = (style & ORDINARY) && rng_below(&o->r, 2);

		/* Keep one across handlers, hand one over, free what was left for us. */
		put(o, o->stash[s], ordinary);
		o->stash[s] = get(o, pick(o, style));
		put(o, mailbox_swap(&box, (uint32_t)rng_next(&o->r), get(o, pick(o, style))),
		    ordinary);
	}
	t->depth--;
	errno = saved;
}

/* The main flow: every call there is, on the same caches; and a signal to the other thread. */
static void *main_flow(void *arg)
{
	struct storm_thread *t = arg;
	struct owner *o = &t->main;
	unsigned long i = 0;

	self = t;
	/* A signal hits the allocator only if its target runs while it is sent: on another CPU. */
	stay_on_nth(t->nr);
	pthread_barrier_wait(&go);
	while (!stop) {
		uint32_t k = rng_below(&o->r, KEEP);
		void *p;

		t->inside = 1;
		put(o, t->keep[k], rng_below(&o->r, 2));
		switch (rng_below(&o->r, 8)) {
		case 0:
			p = kmem_cache_alloc(cache, GFP_KERNEL);
			if (p)
				stamp(p, 64, 1);
			break;
		case 1:
			p = kmalloc(70000, GFP_KERNEL);
			if (p)
				stamp(p, 70000, 2);
			break;
		case 2:
			p = kzalloc(100, GFP_KERNEL);
			if (p)
				stamp(p, 100, 3);
			break;
		case 3:
			p = get(o, pick(o, ~0u));
			break;
		default:
			p = kmalloc(64, GFP_KERNEL);
			if (p)
				stamp(p, 64, (uint32_t)i);
		}
		if (!p)
			o->failed++;
		t->keep[k] = p;
		if (k % 4 == 0)
			t->keep[k] = mailbox_swap(&box, (uint32_t)rng_next(&o->r), p);
		t->inside = 0;
		o->ops++;
		/* As fast as pthread_kill can: one for each operation. */
		pthread_kill(threads[!t->nr].thread, signals[i++ % NR_SIGNALS]);
	}
	/* Signals may come until the other one has stopped too. */
	pthread_barrier_wait(&go);
	return NULL;
}

static void sum(const struct owner *o, unsigned long *ops, unsigned long *failed,
		unsigned long *bad)
{
	*ops += o->ops;
	*failed += o->failed;
	*bad += o->bad;
}

static void storm_begin(enum style how)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };

	style = how;
	stop = 0;
	cache = kmem_cache_create("storm", 64, NULL, 0);
	cr_assert_not_null(cache);
	/* What handlers hold is bounded: this is more than enough for it. */
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 32 * MiB), 0);
	for (unsigned int i = 0; i < 2; i++) {
		memset(&threads[i], 0, sizeof(threads[i]));
		threads[i].nr = i;
		rng_init(&threads[i].main.r, i + 1);
		for (unsigned int k = 0; k < NR_SIGNALS; k++)
			rng_init(&threads[i].handler[k].r, i * 10 + k + 100);
	}
	/* No sa_mask: handlers of different signals interrupt each other. */
	for (unsigned int k = 0; k < NR_SIGNALS; k++)
		cr_assert_eq(sigaction(signals[k], &sa, NULL), 0);
}

/* All has stopped: free what is left, check, and say what happened. Returns failures. */
static unsigned long storm_end(const char *name)
{
	unsigned long ops = 0, failed = 0, bad = 0, entered = 0, nested = 0, hits = 0, main_ops = 0;
	struct nolock_heap_report rep;

	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		put(&threads[0].main, mailbox_swap(&box, i, NULL), true);
	for (unsigned int i = 0; i < 2; i++) {
		struct storm_thread *t = &threads[i];

		for (int k = 0; k < KEEP; k++)
			put(&t->main, t->keep[k], true);
		for (unsigned int k = 0; k < NR_SIGNALS; k++) {
			for (int s = 0; s < STASH; s++)
				put(&t->handler[k], t->handler[k].stash[s], false);
			sum(&t->handler[k], &ops, &failed, &bad);
			entered += t->handler[k].entered;
		}
		main_ops += t->main.ops;
		failed += t->main.failed;
		bad += t->main.bad;
		nested += t->nested;
		hits += t->hits;
	}
	report("  %s: %lu signals (%lu nested, %lu inside the allocator), %lu operations in "
	       "handlers, %lu in main flows, %lu failures, %lu damaged",
	       name, entered, nested, hits, ops, main_ops, failed, bad);
	expect_whole(nolock_heap_default(), &rep, name);
	failed += rep.allocated + rep.large + rep.refused;
	if (rep.allocated + rep.large + rep.refused)
		report("  %s: %lu objects lost, %lu large, %lu frees refused", name, rep.allocated,
		       rep.large, rep.refused);
	if (kmem_cache_destroy(cache))
		failed++;
	if (!entered || !hits) {
		report("  %s: no signal hit the allocator: nothing was tested", name);
		failed++;
	}
	return failed + bad;
}

static void wait_for_the_end(void)
{
	uint64_t end = now_ns() + env_number("NOLOCK_STORM_SECONDS", 3) * 1000000000u;

	while (now_ns() < end)
		usleep(10000);
	stop = 1;
}

/* Two threads that interrupt each other; a third, this one, sleeps and ends it. */
static unsigned long storm_of_two(const char *name, enum style how)
{
	storm_begin(how);
	pthread_barrier_init(&go, NULL, 2);
	for (unsigned int i = 0; i < 2; i++)
		if (pthread_create(&threads[i].thread, NULL, main_flow, &threads[i]))
			return 1;
	wait_for_the_end();
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(threads[i].thread, NULL);
	pthread_barrier_destroy(&go);
	return storm_end(name);
}

Test(signals, storm_nolock)
{
	cr_assert_eq(storm_of_two("storm_nolock", NOLOCK_ONLY), 0);
}

Test(signals, storm_all_calls, .description = "handlers call kmalloc, caches and pages as well")
{
	cr_assert_eq(storm_of_two("storm_all_calls", NOLOCK_ONLY | ORDINARY | CACHE | PAGES), 0);
}

/* Timers that interrupt one thread at three rates, while it gives no signal itself. */
Test(signals, timers)
{
	struct storm_thread *t = &threads[0];
	timer_t timer[NR_SIGNALS];
	unsigned long n = 0;
	uint64_t end;

	storm_begin(NOLOCK_ONLY | CACHE);
	self = t;
	for (unsigned int k = 0; k < NR_SIGNALS; k++) {
		struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = signals[k] };
		struct itimerspec it = { { 0, 19000 + 12000 * (long)k }, { 0, 20000 } };

		ev._sigev_un._tid = gettid();
		cr_assert_eq(timer_create(CLOCK_MONOTONIC, &ev, &timer[k]), 0);
		cr_assert_eq(timer_settime(timer[k], 0, &it, NULL), 0);
	}
	end = now_ns() + env_number("NOLOCK_STORM_SECONDS", 3) * 1000000000u;
	while (n++ % 256 || now_ns() < end) {
		uint32_t k = rng_below(&t->main.r, KEEP);

		t->inside = 1;
		put(&t->main, t->keep[k], true);
		t->keep[k] = get(&t->main, pick(&t->main, ~0u));
		t->inside = 0;
	}
	for (unsigned int k = 0; k < NR_SIGNALS; k++)
		timer_delete(timer[k]);
	cr_assert_eq(storm_end("timers"), 0);
}

/* The first allocations of a process after fork, and of each thread, interrupted. */
static volatile sig_atomic_t first_done, first_bad;

static void first_handler(int sig)
{
	void *p = kmalloc_nolock(64, 0, NUMA_NO_NODE);

	(void)sig;
	if (p) {
		stamp(p, 64, 9);
		first_bad += !stamp_check(p);
		kfree_nolock(p);
		first_done++;
	}
}

static void *first_thread(void *arg)
{
	void *p[10];

	(void)arg;
	for (int i = 0; i < 10; i++) {
		p[i] = kmalloc(64, GFP_KERNEL);
		if (!p[i])
			return (void *)1;
		stamp(p[i], 64, (uint32_t)i);
	}
	for (int i = 0; i < 10; i++) {
		if (stamp_check(p[i]) != 64)
			return (void *)2;
		kfree(p[i]);
	}
	return NULL;
}

Test(signals, first_allocation_interrupted)
{
	enum { CHILDREN = 60, THREADS = 4 };
	struct sigaction sa = { .sa_handler = first_handler };
	unsigned long handlers = 0;

	sigaction(SIGUSR1, &sa, NULL);
	for (int c = 0; c < CHILDREN; c++) {
		int status = 0, pipefd[2];
		unsigned int seen = 0;
		pid_t pid;

		cr_assert_eq(pipe(pipefd), 0);
		pid = fork();
		if (pid == 0) {
			die_with_parent();
			pthread_t th[THREADS];
			void *ret;
			int bad = 0;

			/* All threads and signals at a heap that the child has not used yet. */
			for (int i = 0; i < THREADS; i++)
				if (pthread_create(&th[i], NULL, first_thread, NULL))
					_exit(10);
			for (int k = 0; k < 50 * c; k++)
				pthread_kill(th[k % THREADS], SIGUSR1);
			for (int i = 0; i < THREADS; i++) {
				pthread_join(th[i], &ret);
				bad |= ret != NULL;
			}
			raise(SIGUSR1);
			bad |= first_bad ? 2 : 0;
			bad |= check_whole(nolock_heap_default(), NULL, "after first use") ? 4 : 0;
			seen = (unsigned int)first_done;
			if (write(pipefd[1], &seen, sizeof(seen)) != sizeof(seen))
				bad |= 8;
			_exit(bad);
		}
		cr_assert_gt(pid, 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "child %d: status %#x", c, status);
		cr_assert_eq(read(pipefd[0], &seen, sizeof(seen)), (ssize_t)sizeof(seen));
		handlers += seen;
		close(pipefd[0]);
		close(pipefd[1]);
	}
	report("  first_allocation_interrupted: %d processes, %lu handlers", CHILDREN, handlers);
}

/* The same storm where rseq is switched off: A-slots serve everything. */
JOB(storm_without_rseq)
{
	unsigned long bad =
		storm_of_two("storm_without_rseq", NOLOCK_ONLY | ORDINARY | CACHE | PAGES);

	if (rseq_in_use(nolock_heap_default())) {
		report("  storm_without_rseq: NOLOCK_RSEQ=0 did not switch rseq off");
		return 1;
	}
	return bad != 0;
}

Test(signals, storm_without_rseq)
{
	int status = job_run("storm_without_rseq", "NOLOCK_RSEQ", "0");

	cr_assert_eq(status, 0, "the storm without rseq ended with status %#x", status);
}
