// SPDX-License-Identifier: GPL-2.0-only
/*
 * work.c - the workloads, and the process that runs them with one allocator.
 *
 * Each workload is written once and instantiated for each way to call an allocator, so that the
 * loops around the calls are the same instructions. Every call goes through a pointer that is
 * loaded from memory, which is what a call of a shared library's function costs its users
 * (call *GOT), for us as for the peers. Each object is written to once, as an object is.
 */
#define _GNU_SOURCE
#ifndef __clang__
/* All loops alike: where one falls by chance is worth several per cent of a pair. */
#pragma GCC optimize("align-functions=64", "align-loops=64")
#endif
#include <dlfcn.h>
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <nolock/heap.h>
#include <nolock/slab.h>

#include "bench.h"

#define SIZE 64
#define BATCH 1000
#define CHURN_SLOTS 1000

static struct {
	void *(*malloc)(size_t size);
	void (*free)(void *p);
	void *(*kmalloc)(size_t size, gfp_t gfp);
	void (*kfree)(const void *p);
	void *(*kmalloc_nolock)(size_t size, gfp_t gfp, int node);
	/* What the header makes of the two where the size is a constant. */
	void *(*bucket_alloc)(size_t bucket);
	void *(*bucket_alloc_nolock)(size_t bucket);
	void (*kfree_nolock)(const void *p);
} call;

/* What one thread works with. */
struct worker {
	unsigned int nr; /* 0 or 1 */
	unsigned int workload;
	uint64_t pairs;
	uint64_t failed;
	uint64_t start, end;
	uint64_t cpu_time;
	uint64_t random;
	void *objs[BATCH];
};

static struct worker workers[2];
static enum entry entry;
static unsigned int nr_threads;
static int the_cpus[2];

/* Threads that wait for each other: spinning, since a futex would be measured too. */
static struct {
	unsigned int count;
	unsigned int turn;
} meeting;

static void meet(void)
{
	unsigned int turn = __atomic_load_n(&meeting.turn, __ATOMIC_ACQUIRE);

	if (nr_threads < 2)
		return;
	if (__atomic_add_fetch(&meeting.count, 1, __ATOMIC_ACQ_REL) == nr_threads) {
		__atomic_store_n(&meeting.count, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&meeting.turn, turn + 1, __ATOMIC_RELEASE);
		return;
	}
	for (unsigned int spins = 0; __atomic_load_n(&meeting.turn, __ATOMIC_ACQUIRE) == turn;)
		if (++spins % 1000 == 0)
			sched_yield();
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void *get(struct worker *w, enum entry e, size_t size)
{
	uint64_t *p;

	switch (e) {
	case ENTRY_NOLOCK:
		p = __builtin_constant_p(size) ? call.bucket_alloc_nolock(nolock_bucket(size)) :
						 (call.kmalloc_nolock)(size, 0, NUMA_NO_NODE);
		break;
	case ENTRY_KMALLOC:
		p = __builtin_constant_p(size) ? call.bucket_alloc(nolock_bucket(size)) :
						 (call.kmalloc)(size, GFP_KERNEL);
		break;
	default:
		p = call.malloc(size);
	}
	if (__builtin_expect(!p, 0))
		w->failed++;
	else
		*(volatile uint64_t *)p = size;
	return p;
}

ALWAYS_INLINE void put(enum entry e, void *p)
{
	switch (e) {
	case ENTRY_NOLOCK:
		call.kfree_nolock(p);
		break;
	case ENTRY_KMALLOC:
		call.kfree(p);
		break;
	default:
		call.free(p);
	}
}

ALWAYS_INLINE void do_pair(struct worker *w, enum entry e)
{
	for (uint64_t i = 0; i < w->pairs; i++)
		put(e, get(w, e, SIZE));
}

ALWAYS_INLINE void do_lifo(struct worker *w, enum entry e)
{
	for (uint64_t done = 0; done < w->pairs; done += BATCH) {
		for (int i = 0; i < BATCH; i++)
			w->objs[i] = get(w, e, SIZE);
		for (int i = BATCH; i-- > 0;)
			put(e, w->objs[i]);
	}
}

ALWAYS_INLINE void do_fifo(struct worker *w, enum entry e)
{
	for (uint64_t done = 0; done < w->pairs; done += BATCH) {
		for (int i = 0; i < BATCH; i++)
			w->objs[i] = get(w, e, SIZE);
		for (int i = 0; i < BATCH; i++)
			put(e, w->objs[i]);
	}
}

/* xorshift64: cheap, and the same sequence for every allocator. */
ALWAYS_INLINE uint64_t next_random(struct worker *w)
{
	uint64_t x = w->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return w->random = x;
}

/* Sizes from 16 to 1024, small ones as often as large ones: a random power, then within it. */
ALWAYS_INLINE void do_churn(struct worker *w, enum entry e)
{
	memset(w->objs, 0, sizeof(w->objs));
	w->random = 0x9e3779b97f4a7c15ULL + w->nr;
	for (uint64_t i = 0; i < w->pairs; i++) {
		uint64_t r = next_random(w);
		unsigned int slot = (r >> 32) * CHURN_SLOTS >> 32;
		unsigned int power = 4 + (r & 0xffff) * 6 / 0x10000;
		size_t size = (1U << power) + ((r >> 16 & 0xffff) << power) / 0x10000;

		if (w->objs[slot])
			put(e, w->objs[slot]);
		w->objs[slot] = get(w, e, size);
	}
	for (int i = 0; i < CHURN_SLOTS; i++)
		if (w->objs[i])
			put(e, w->objs[i]);
}

/* Two threads free each other's objects. */
ALWAYS_INLINE void do_swap(struct worker *w, enum entry e)
{
	struct worker *other = &workers[!w->nr];

	for (uint64_t done = 0; done < w->pairs; done += BATCH) {
		for (int i = 0; i < BATCH; i++)
			w->objs[i] = get(w, e, SIZE);
		meet();
		for (int i = 0; i < BATCH; i++)
			put(e, other->objs[i]);
		meet();
	}
}

#define INSTANCES(name)                                                                            \
	static void name##_nolock(struct worker *w)                                                \
	{                                                                                          \
		do_##name(w, ENTRY_NOLOCK);                                                        \
	}                                                                                          \
	static void name##_kmalloc(struct worker *w)                                               \
	{                                                                                          \
		do_##name(w, ENTRY_KMALLOC);                                                       \
	}                                                                                          \
	static void name##_malloc(struct worker *w)                                                \
	{                                                                                          \
		do_##name(w, ENTRY_MALLOC);                                                        \
	}

INSTANCES(pair)
INSTANCES(lifo)
INSTANCES(fifo)
INSTANCES(churn)
INSTANCES(swap)

#define RUNS(name)                                                                                 \
	{                                                                                          \
		name##_nolock, name##_kmalloc, name##_malloc                                       \
	}

enum { PAIR, LIFO, FIFO, CHURN, CHURN2, SWAP2, NR_WORKLOADS };

static void (*const runs[NR_WORKLOADS][NR_ENTRIES])(struct worker *w) = {
	[PAIR] = RUNS(pair),   [LIFO] = RUNS(lifo),    [FIFO] = RUNS(fifo),
	[CHURN] = RUNS(churn), [CHURN2] = RUNS(churn), [SWAP2] = RUNS(swap),
};

const struct workload workloads[] = {
	[PAIR] = { "pair", "one object of 64 B, freed at once", 1, 200000 },
	[LIFO] = { "lifo", "1000 objects of 64 B, freed last first", 1, 100 * BATCH },
	[FIFO] = { "fifo", "1000 objects of 64 B, freed first first", 1, 100 * BATCH },
	[CHURN] = { "churn", "random replacement among 1000 of 16 to 1024 B", 1, 100000 },
	[CHURN2] = { "churn2", "the same in two threads at once", 2, 100000 },
	[SWAP2] = { "swap2", "two threads free each other's 1000 objects of 64 B", 2, 50 * BATCH },
};
const unsigned int nr_workloads = NR_WORKLOADS;

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* Not allowed somewhere: a little more noise, which the spread shows. */
	sched_setaffinity(0, sizeof(set), &set);
}

static void work(struct worker *w)
{
	uint64_t pairs = w->pairs, cpu;

	/* What one process left in the caches is not the next one's cost. */
	w->pairs = pairs / 20;
	runs[w->workload][entry](w);
	w->pairs = pairs;
	meet();
	w->start = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_THREAD_CPUTIME_ID);
	runs[w->workload][entry](w);
	w->cpu_time = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	w->end = now(CLOCK_MONOTONIC);
}

static void *second(void *arg)
{
	struct worker *w = arg;

	pin(the_cpus[1]);
	work(w);
	return NULL;
}

/*
 * One thread is timed by its own CPU time, which other work on the machine leaves alone. Two are
 * timed by the clock, because waiting for each other is part of what they do.
 */
static void serve_one(const struct work_request *req, struct work_reply *reply)
{
	pthread_t thread;
	uint64_t start, end;

	nr_threads = workloads[req->workload].threads;
	for (unsigned int i = 0; i < 2; i++) {
		workers[i].nr = i;
		workers[i].workload = req->workload;
		workers[i].pairs = req->pairs;
		workers[i].failed = 0;
	}
	if (nr_threads == 2) {
		int error = pthread_create(&thread, NULL, second, &workers[1]);

		if (error)
			errx(1, "bench: cannot start a thread: %s", strerror(error));
	}
	work(&workers[0]);
	reply->ns = workers[0].cpu_time;
	reply->failed = workers[0].failed;
	if (nr_threads == 2) {
		pthread_join(thread, NULL);
		start = workers[0].start < workers[1].start ? workers[0].start : workers[1].start;
		end = workers[0].end > workers[1].end ? workers[0].end : workers[1].end;
		reply->ns = end - start;
		reply->failed += workers[1].failed;
	}
}

static void *symbol(const char *name)
{
	void *p = dlsym(RTLD_DEFAULT, name);

	if (!p)
		errx(1, "bench: no %s() in this process: %s", name, dlerror());
	return p;
}

void work_serve(int fd, enum entry which, const int *cpus, unsigned int nr_cpus)
{
	struct work_request req;
	struct work_reply reply;

	entry = which;
	the_cpus[0] = cpus[0];
	the_cpus[1] = cpus[nr_cpus > 1];
	pin(the_cpus[0]);
	if (entry == ENTRY_MALLOC) {
		call.malloc = symbol("malloc");
		call.free = symbol("free");
	} else {
		call.kmalloc = symbol("kmalloc");
		call.kfree = symbol("kfree");
		call.kmalloc_nolock = symbol("kmalloc_nolock");
		call.bucket_alloc = symbol("nolock_bucket_alloc");
		call.bucket_alloc_nolock = symbol("nolock_bucket_alloc_nolock");
		call.kfree_nolock = symbol("kfree_nolock");
		/* Wait-free callers take what is there: have it there, as their users would. */
		int (*populate)(struct nolock_heap *, size_t) = symbol("nolock_heap_populate");
		struct nolock_heap *(*heap)(void) = symbol("nolock_heap_default");

		if (populate(heap(), 4 << 20))
			err(1, "bench: cannot populate the heap");
	}
	while (read(fd, &req, sizeof(req)) == sizeof(req)) {
		serve_one(&req, &reply);
		if (write(fd, &reply, sizeof(reply)) != sizeof(reply))
			break;
	}
	exit(0);
}
