/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * util.h - what the suites of the library share: patterned objects, mailboxes, random numbers,
 * checks of a heap, and jobs (a second run of the same binary with another environment).
 *
 * What is marked "handler" may be called from a signal handler.
 */
#ifndef NOLOCK_SELFTESTS_UTIL_H
#define NOLOCK_SELFTESTS_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <nolock/heap.h>
#include <nolock/page.h>
#include <nolock/slab.h>
#include <nolock/stat.h>
#include "plain.h"

/* Sanitizers' shadow memory needs address space and pages that a few tests forbid. */
#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifndef UNDER_ASAN
#define UNDER_ASAN 0
#endif

/* xorshift64*: small, and every thread and handler level has its own. Handler. */
struct rng {
	uint64_t s;
};

static inline uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1dULL;
}

static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
	return (uint32_t)(((rng_next(r) >> 32) * n) >> 32);
}

static inline void rng_init(struct rng *r, uint64_t seed)
{
	r->s = seed * 0x9e3779b97f4a7c15ULL | 1;
}

/*
 * A stamped object says its own size and seed in its first 8 bytes and has the pattern of that
 * seed behind them, so that whoever gets the pointer can check it. At least 8 bytes. Handler.
 */
void stamp(void *p, uint32_t size, uint32_t seed);
/* The object's size, or 0 when any byte is not what stamp() wrote. */
uint32_t stamp_check(const void *p);
/* Are the first n bytes, which are left of a stamped object, as stamp() wrote them? At least 8. */
bool stamp_begins(const void *p, size_t n);

/* Slots through which threads and handlers pass objects: put returns what was there. Handler. */
#define MAILBOX_SLOTS 64
struct mailbox {
	void *slot[MAILBOX_SLOTS];
};

static inline void *mailbox_swap(struct mailbox *m, uint32_t i, void *p)
{
	return __atomic_exchange_n(&m->slot[i % MAILBOX_SLOTS], p, __ATOMIC_ACQ_REL);
}

/* One line of figures on stdout. */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* nolock_heap_check() that fails the test, or the job, with the report when the heap is damaged. */
void expect_whole(struct nolock_heap *heap, struct nolock_heap_report *rep, const char *when);
/* The same for a place that must not assert: prints, and returns 0 or 1 error. */
int check_whole(struct nolock_heap *heap, struct nolock_heap_report *rep, const char *when);

/* A positive number of the environment, or what stands for it. */
unsigned long env_number(const char *name, unsigned long def);

/* Stay on one CPU. 0; -1: it may not be used. Or on the nr-th of those that may, if there are so many. */
int stay_on(unsigned int cpu);
int stay_on_nth(unsigned int nr);

/* A child that is not waited for, because its test failed, ends with it. In the child. */
void die_with_parent(void);

/* Is the heap's fast path by rseq in use in this process? */
bool rseq_in_use(struct nolock_heap *heap);

/*
 * A job is a function that a second run of this binary calls instead of the suite: the way to
 * test with an environment variable that the library reads once. JOB(name) { ... return 0; }
 */
struct job {
	const char *name;
	int (*fn)(void);
	struct job *next;
};
void job_register(struct job *job);
/* Run a job with NAME=value set in its environment; returns its wait status. */
int job_run(const char *name, const char *env, const char *value);

#define JOB(id)                                                                                    \
	static int job_##id(void);                                                                 \
	__attribute__((constructor)) static void job_register_##id(void)                           \
	{                                                                                          \
		static struct job job = { .name = #id, .fn = job_##id };                           \
                                                                                                   \
		job_register(&job);                                                                \
	}                                                                                          \
	static int job_##id(void)

#endif /* NOLOCK_SELFTESTS_UTIL_H */
