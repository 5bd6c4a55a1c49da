// SPDX-License-Identifier: GPL-2.0-only
/*
 * handlers.c - see handlers.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <nolock/heap.h>

#include "handlers.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define WORKERS 2
#define TIMER_NS 200000
/* Objects that a handler leaves for a later one, and the main flow for a later round of its own. */
#define HELD 64
#define KEPT 256
#define PER_SIGNAL 8

static const unsigned int sizes[] = { 16, 32, 40, 64, 96, 100, 192, 256, 512, 1000, 2048, 4000 };
#define NR_SIZES (sizeof(sizes) / sizeof(*sizes))

/* One thread's objects. Handlers nest: what they share is exchanged, never read and written. */
struct worker {
	pthread_t thread;
	pid_t tid;
	timer_t timer;
	uint64_t turn; /* of the handlers */
	void *held[HELD];
	void *to_main;	  /* from a handler, for the main flow to free */
	void *to_handler; /* and the other way */
	uint64_t seed;
};

static struct worker workers[WORKERS];
static __thread struct worker *self;
static struct nolock_heap *heap;
static struct handlers_shared *shared;

static void count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* Every word of an object depends on its address, its size and its place in it. */
static void stamp(void *p, unsigned int size)
{
	uint64_t *word = p;
	unsigned int i;

	for (i = 0; i < size / 8; i++)
		word[i] = ((uint64_t)p ^ ((uint64_t)size << 48)) + i * 0x9e3779b97f4a7c15ULL;
}

static void verify(const void *p)
{
	const uint64_t *word = p;
	unsigned int size = (word[0] ^ (uint64_t)p) >> 48, i;

	for (i = 0; i < NR_SIZES && sizes[i] != size; i++)
		;
	if (i == NR_SIZES || size > ksize(p)) {
		count(&shared->corruptions);
		return;
	}
	for (i = 0; i < size / 8; i++) {
		if (word[i] != ((uint64_t)p ^ ((uint64_t)size << 48)) + i * 0x9e3779b97f4a7c15ULL) {
			count(&shared->corruptions);
			return;
		}
	}
}

static void handler_free(void *p)
{
	if (!p)
		return;
	verify(p);
	kfree_nolock(p);
	count(&shared->handler_frees);
}

static void *handler_alloc(unsigned int size)
{
	void *p = nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE);

	if (!p) {
		count(&shared->handler_failures);
		return NULL;
	}
	count(&shared->handler_allocs);
	stamp(p, size);
	return p;
}

static void on_signal(int sig)
{
	struct worker *w = self;
	int saved = errno, i;
	uint64_t turn;
	void *p;

	(void)sig;
	if (!w)
		return;
	count(&shared->signals);
	for (i = 0; i < PER_SIGNAL; i++) {
		turn = __atomic_fetch_add(&w->turn, 1, __ATOMIC_RELAXED);
		p = handler_alloc(sizes[turn % NR_SIZES]);
		handler_free(__atomic_exchange_n(&w->held[turn % HELD], p, __ATOMIC_ACQ_REL));
	}
	handler_free(__atomic_exchange_n(&w->to_handler, NULL, __ATOMIC_ACQ_REL));
	p = handler_alloc(sizes[turn % NR_SIZES]);
	handler_free(__atomic_exchange_n(&w->to_main, p, __ATOMIC_ACQ_REL));
	errno = saved;
}

static void main_free(void *p)
{
	if (!p)
		return;
	verify(p);
	kfree(p);
	count(&shared->main_frees);
}

static void *main_alloc(unsigned int size)
{
	void *p = nolock_heap_kmalloc(heap, size, GFP_KERNEL);

	if (!p) {
		count(&shared->main_failures);
		return NULL;
	}
	count(&shared->main_allocs);
	stamp(p, size);
	return p;
}

static uint64_t random_of(struct worker *w)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return w->seed;
}

static void *work(void *arg)
{
	void *kept[KEPT] = { NULL }, *p;
	struct worker *w = arg;
	sigset_t set;
	uint64_t r;
	int i;

	w->tid = gettid();
	self = w;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
		r = random_of(w);
		i = r % KEPT;
		main_free(kept[i]);
		kept[i] = main_alloc(sizes[(r >> 32) % NR_SIZES]);
		if (r >> 60)
			continue;
		main_free(__atomic_exchange_n(&w->to_main, NULL, __ATOMIC_ACQ_REL));
		p = main_alloc(sizes[(r >> 40) % NR_SIZES]);
		main_free(__atomic_exchange_n(&w->to_handler, p, __ATOMIC_ACQ_REL));
	}
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < KEPT; i++)
		main_free(kept[i]);
	for (i = 0; i < HELD; i++)
		handler_free(w->held[i]);
	handler_free(w->to_main);
	main_free(w->to_handler);
	return NULL;
}

/* Signals as fast as one thread can send them. */
static void *storm(void *arg)
{
	int i;

	(void)arg;
	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED))
		for (i = 0; i < WORKERS; i++)
			pthread_kill(workers[i].thread, SIGUSR1);
	return NULL;
}

static void start_timer(struct worker *w)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };
	struct itimerspec every = { .it_interval.tv_nsec = TIMER_NS, .it_value.tv_nsec = TIMER_NS };

	while (!__atomic_load_n(&w->tid, __ATOMIC_RELAXED))
		usleep(100);
	ev.sigev_notify_thread_id = w->tid;
	if (timer_create(CLOCK_MONOTONIC, &ev, &w->timer) ||
	    timer_settime(w->timer, 0, &every, NULL))
		warn("no timer for thread %d", w->tid);
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int handlers_run(const char *name, struct handlers_shared *the_shared)
{
	struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	pthread_t sender;
	int i;

	shared = the_shared;
	heap = nolock_heap_open(name);
	if (!heap) {
		warn("the process of the handlers cannot open heap '%s'", name);
		return 1;
	}
	block_signals();
	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGRTMIN, &act, NULL);
	for (i = 0; i < WORKERS; i++) {
		workers[i].seed = 88172645463325252ULL + i;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) {
			warnx("the process of the handlers cannot start a thread");
			return 1;
		}
		start_timer(&workers[i]);
	}
	if (pthread_create(&sender, NULL, storm, NULL)) {
		warnx("the process of the handlers cannot start a thread");
		return 1;
	}
	__atomic_store_n(&shared->ready, true, __ATOMIC_RELEASE);
	pthread_join(sender, NULL);
	for (i = 0; i < WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		timer_delete(workers[i].timer);
	}
	nolock_heap_close(heap);
	return 0;
}
