// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_random.c - the drop-in in a process to which everything happens at random points, all at
 * once.
 *
 * Threads that allocate and free begin and end; signals and timers interrupt them and each other;
 * threads and handlers fork; of the children some are killed, others allocate, free what the parent
 * allocated, start threads, and check the heap; another process stops this one and lets it go on.
 * Each object is checked in full before it is freed or resized, and at the end the heap is whole.
 * It lasts NOLOCK_STORM_SECONDS (1), or longer, until everything happened.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include "../torture/row.h"
#include "storm.h"

enum { MOST = 8, LEAST = 4 };

struct worker {
	pthread_t thread;
	struct flow main, handler[NR_SIGNALS];
	unsigned long entered, nested;
	volatile sig_atomic_t depth;
	bool leaves;
	int end;
};

/* Seen by the process that stops this one. */
struct outside {
	unsigned long stops;
	int end;
};

static struct worker workers[MOST];
static void *mailbox[32];
static unsigned long forks, in_handlers, killed, ends;
/* Forks wanted: each serves the next thread, or handler, that comes by. */
static int wanted[2];
static volatile sig_atomic_t is_child;
static __thread struct worker *self;

static void pause_ns(long ns)
{
	struct timespec t = { 0, ns };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static void wait_for_child(pid_t pid, bool kill_it, uint64_t r)
{
	int status = -1;
	pid_t got;

	CHECK(pid > 0, "fork: errno %d", errno);
	if (kill_it) {
		pause_ns((long)(r % 2000000));
		if (is_child)
			return;
		kill(pid, SIGKILL);
		__atomic_fetch_add(&killed, 1, __ATOMIC_RELAXED);
	}
	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	/* A child of a handler that interrupted this: not its child. */
	if (is_child)
		return;
	CHECK(got == pid && (!status || (kill_it && status == SIGKILL)), "a child ended with %#x",
	      status);
	__atomic_fetch_add(&forks, 1, __ATOMIC_RELAXED);
}

static bool take(int *n)
{
	int had = __atomic_load_n(n, __ATOMIC_RELAXED);

	return had > 0 && __atomic_compare_exchange_n(n, &had, had - 1, false, __ATOMIC_ACQ_REL,
						      __ATOMIC_RELAXED);
}

/* In a handler nothing but _Fork() may be called; the child returns to what was interrupted. */
static void on_signal(int sig)
{
	struct worker *w = self;
	int saved = errno;
	struct flow *f;

	if (!w || is_child)
		return;
	f = &w->handler[signal_index(sig)];
	w->nested += w->depth++ != 0;
	w->entered++;
	flow_step(f);
	exchange(f, mailbox, ARRAY_LEN(mailbox));
	if (!__atomic_load_n(&w->leaves, __ATOMIC_RELAXED) && take(&wanted[1])) {
		uint64_t r = rng(&f->s);
		pid_t pid = _Fork();

		if (!pid) {
			is_child = 1;
			for (int i = 0; i < 20; i++)
				flow_step(f);
		} else {
			wait_for_child(pid, r & 1, r >> 1);
			__atomic_fetch_add(&in_handlers, 1, __ATOMIC_RELAXED);
		}
	}
	w->depth--;
	errno = saved;
}

static void *in_a_child(void *arg)
{
	for (int i = 0; i < 100; i++)
		flow_step(arg);
	return NULL;
}

/*
 * What the parent's other threads had in their registers, a child with one thread takes stock of,
 * in a call that may make system calls. One that has more by then loses it: no check there.
 */
static _Noreturn void end_of_child(struct flow *f, bool threads)
{
	bool stock = !threads || rng(&f->s) & 1;
	pthread_t t;

	if (stock)
		malloc_trim(0);
	if (threads) {
		struct flow other = { .s = rng(&f->s) };

		CHECK(!pthread_create(&t, NULL, in_a_child, &other), "pthread_create in a child");
		in_a_child(f);
		pthread_join(t, NULL);
		flow_end(&other);
	}
	in_a_child(f);
	for (size_t i = 0; i < ARRAY_LEN(mailbox); i++)
		object_free(f, __atomic_exchange_n(&mailbox[i], NULL, __ATOMIC_ACQ_REL));
	flow_end(f);
	if (stock)
		dropin_whole();
	_exit(0);
}

/* With the signals blocked: fork() has locks that a child of a handler's would find held. */
static void fork_here(struct flow *f)
{
	uint64_t r = rng(&f->s);
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* A handler's child meanwhile: another thread may have been in fork(), with its locks. */
	pid = is_child ? -1 : fork();
	if (!pid) {
		is_child = 1;
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		end_of_child(f, r & 2);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!is_child)
		wait_for_child(pid, r & 1, r >> 2);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	timer_t timer;

	self = w;
	CHECK(thread_timer(&timer, 1, 300000) || is_child, "no timer");
	while (!__atomic_load_n(&w->end, __ATOMIC_RELAXED)) {
		for (int i = 0; i < 20 && !is_child; i++)
			flow_step(&w->main);
		if (is_child)
			end_of_child(&w->main, false);
		exchange(&w->main, mailbox, ARRAY_LEN(mailbox));
		if (take(&wanted[0]))
			fork_here(&w->main);
	}
	/* From here on handlers do not fork: a child could not end by way of a thread's end. */
	__atomic_store_n(&w->leaves, true, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (is_child)
		end_of_child(&w->main, false);
	timer_delete(timer);
	/* Signals are still coming; what the thread had its successor has. */
	return NULL;
}

static _Noreturn void stop_and_go(pid_t pid, struct outside *o)
{
	uint64_t s = 99;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!__atomic_load_n(&o->end, __ATOMIC_ACQUIRE)) {
		pause_ns((long)(rng(&s) % 5000000));
		kill(pid, SIGSTOP);
		pause_ns((long)(rng(&s) % 2000000));
		kill(pid, SIGCONT);
		__atomic_fetch_add(&o->stops, 1, __ATOMIC_RELAXED);
	}
	_exit(0);
}

static void start(struct worker *w)
{
	__atomic_store_n(&w->end, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&w->leaves, false, __ATOMIC_RELAXED);
	CHECK(!pthread_create(&w->thread, NULL, work, w), "pthread_create");
}

static void random_points(unsigned int threads)
{
	struct outside *o =
		mmap(NULL, sizeof(*o), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t end = storm_end();
	unsigned long entered = 0, nested = 0, ops = 0;
	uint64_t s = 4711 + threads;
	pid_t pid = getpid(), stopper;
	int status;

	CHECK(o != MAP_FAILED, "mmap");
	stopper = fork();
	if (!stopper)
		stop_and_go(pid, o);
	CHECK(stopper > 0, "fork");
	catch_signals(on_signal);
	for (unsigned int i = 0; i < threads; i++) {
		workers[i].main.s = 1000 + i;
		for (unsigned int k = 0; k < NR_SIGNALS; k++)
			workers[i].handler[k].s = 2000 + 10 * i + k;
		start(&workers[i]);
	}
	while (now_ns() < end || __atomic_load_n(&forks, __ATOMIC_RELAXED) < LEAST ||
	       __atomic_load_n(&in_handlers, __ATOMIC_RELAXED) < LEAST ||
	       __atomic_load_n(&killed, __ATOMIC_RELAXED) < LEAST || ends < LEAST ||
	       __atomic_load_n(&o->stops, __ATOMIC_RELAXED) < LEAST) {
		uint64_t r = rng(&s);
		struct worker *w = &workers[(r >> 8) % threads];

		for (unsigned int i = 0; i < threads; i++)
			pthread_kill(workers[i].thread, signals[(r >> i) % NR_SIGNALS]);
		if (r % 64 == 0) {
			__atomic_store_n(&w->end, 1, __ATOMIC_RELAXED);
			pthread_join(w->thread, NULL);
			ends++;
			start(w);
		}
		/* One at a time of each kind. */
		if (r % 32 == 1)
			__atomic_store_n(&wanted[0], 1, __ATOMIC_RELAXED);
		if (r % 32 == 2)
			__atomic_store_n(&wanted[1], 1, __ATOMIC_RELAXED);
		pause_ns((long)((r >> 16) % 200000));
	}
	__atomic_store_n(&o->end, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < threads; i++) {
		__atomic_store_n(&workers[i].end, 1, __ATOMIC_RELAXED);
		pthread_join(workers[i].thread, NULL);
	}
	CHECK(waitpid(stopper, &status, 0) == stopper && !status, "it ended with %#x", status);
	for (unsigned int i = 0; i < threads; i++) {
		struct worker *w = &workers[i];

		entered += w->entered;
		nested += w->nested;
		ops += w->main.ops;
		flow_end(&w->main);
		for (unsigned int k = 0; k < NR_SIGNALS; k++) {
			ops += w->handler[k].ops;
			flow_end(&w->handler[k]);
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(mailbox); i++)
		object_free(&workers[0].main, mailbox[i]);
	dropin_whole();
	printf("# random points, %u thread%s: %lu handlers (%lu nested), %lu forks (%lu in "
	       "handlers, %lu children killed), %lu threads ended, %lu stops, %lu operations, 0 "
	       "failures\n",
	       threads, threads == 1 ? "" : "s", entered, nested, forks, in_handlers, killed, ends,
	       o->stops, ops);
	row("random points, drop-in", ops, entered + forks + ends + o->stops, "signals and so on",
	    0);
}

DROPIN_JOB(one)
{
	random_points(1);
}

DROPIN_JOB(three)
{
	random_points(3);
}

DROPIN_JOB(eight)
{
	random_points(MOST);
}

Test(random, one_thread)
{
	dropin_expect("one", NULL);
}

Test(random, three_threads_that_decay)
{
	dropin_expect("three", "NOLOCK_DECAY_MS=1");
}

Test(random, eight_threads)
{
	dropin_expect("eight", NULL);
}

Test(random, three_threads_without_rseq)
{
	dropin_expect("three", "NOLOCK_RSEQ=0");
}
