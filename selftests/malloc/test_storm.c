// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_storm.c - storms of signals on the drop-in: handlers that call malloc, calloc, realloc,
 * memalign and free, whatever they interrupted, nested, by pthread_kill() and by timers.
 *
 * Objects pass between all threads and handlers through a mailbox; each is checked in full before it
 * is freed or resized. A storm lasts NOLOCK_STORM_SECONDS (1), and ends whole.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include "../torture/row.h"
#include "storm.h"

struct worker {
	pthread_t thread;
	struct flow main, handler[NR_SIGNALS];
	unsigned long entered[NR_SIGNALS], nested, hits;
	volatile sig_atomic_t depth, inside;
};

static struct worker workers[8];
static unsigned int nr_workers;
static void *mailbox[64];
static volatile int stop;
static __thread struct worker *self;

static void on_signal(int sig)
{
	struct worker *w = self;
	int saved = errno;
	unsigned int k = signal_index(sig);

	if (!w)
		return;
	if (w->depth++)
		w->nested++;
	w->hits += w->inside != 0;
	w->entered[k]++;
	for (int i = 0; i < 3; i++)
		flow_step(&w->handler[k]);
	exchange(&w->handler[k], mailbox, ARRAY_LEN(mailbox));
	w->depth--;
	errno = saved;
}

static void *work(void *arg)
{
	timer_t timer;

	self = arg;
	CHECK(thread_timer(&timer, 400000, 400000), "no timer");
	while (!stop) {
		self->inside = 1;
		for (int i = 0; i < 50; i++)
			flow_step(&self->main);
		exchange(&self->main, mailbox, ARRAY_LEN(mailbox));
		self->inside = 0;
	}
	timer_delete(timer);
	return NULL;
}

static void storm(unsigned int threads)
{
	uint64_t end = storm_end();
	unsigned long entered = 0, nested = 0, hits = 0, ops = 0;

	nr_workers = threads;
	catch_signals(on_signal);
	for (unsigned int i = 0; i < threads; i++) {
		struct worker *w = &workers[i];

		w->main.s = 1000 + i;
		for (unsigned int k = 0; k < NR_SIGNALS; k++)
			w->handler[k].s = 2000 + 10 * i + k;
		CHECK(!pthread_create(&w->thread, NULL, work, w), "pthread_create");
	}
	/* Not before each thread was hit on its way through the allocator by each signal. */
	for (unsigned int round = 0, enough = 0; !enough || now_ns() < end; round++) {
		enough = 1;
		for (unsigned int i = 0; i < threads; i++) {
			pthread_kill(workers[i].thread, signals[round % 2]);
			for (unsigned int k = 0; k < NR_SIGNALS; k++)
				enough &= __atomic_load_n(&workers[i].entered[k],
							  __ATOMIC_RELAXED) > 20;
			enough &= __atomic_load_n(&workers[i].hits, __ATOMIC_RELAXED) > 20;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	}
	stop = 1;
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned int i = 0; i < threads; i++) {
		struct worker *w = &workers[i];

		ops += w->main.ops;
		flow_end(&w->main);
		for (unsigned int k = 0; k < NR_SIGNALS; k++) {
			ops += w->handler[k].ops;
			entered += w->entered[k];
			flow_end(&w->handler[k]);
		}
		nested += w->nested;
		hits += w->hits;
	}
	for (size_t i = 0; i < ARRAY_LEN(mailbox); i++)
		object_free(&workers[0].main, mailbox[i]);
	dropin_whole();
	printf("# storm, %u thread%s: %lu handlers (%lu inside the allocator's calls, %lu nested), "
	       "%lu operations, 0 failures\n",
	       threads, threads == 1 ? "" : "s", entered, hits, nested, ops);
	row("storms, drop-in", ops, entered, "signals", 0);
}

PRELOADED(storm, one_thread)
{
	storm(1);
}

PRELOADED(storm, two_threads)
{
	storm(2);
}

PRELOADED(storm, eight_threads)
{
	storm(8);
}

DROPIN_JOB(storm_of_two)
{
	storm(2);
}

Test(storm, without_rseq)
{
	dropin_expect("storm_of_two", "NOLOCK_RSEQ=0");
}

/* All decay there can be, in handlers and out of them. */
Test(storm, while_decaying)
{
	dropin_expect("storm_of_two", "NOLOCK_DECAY_MS=1");
}
