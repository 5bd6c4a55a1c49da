/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dropin.h - tests that run with libnolock-malloc.so preloaded: PRELOADED(suite, name) { ... } is a
 * test whose body runs in a new process of this binary, started with LD_PRELOAD and the test's
 * environment. CHECK() ends it.
 *
 * libnolock's own functions are those of the preloaded library, found by name (struct dropin_api).
 */
#ifndef NOLOCK_SELFTESTS_DROPIN_H
#define NOLOCK_SELFTESTS_DROPIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <nolock/heap.h>
#include "../lib/plain.h"

/* In a handler, too: formats on the stack and writes. */
#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			dprintf(STDOUT_FILENO, "%s:%d: %s: ", __FILE__, __LINE__, #cond);          \
			dprintf(STDOUT_FILENO, "" __VA_ARGS__);                                    \
			dprintf(STDOUT_FILENO, "\n");                                              \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

struct dropin_api {
	struct nolock_heap *(*heap_default)(void);
	struct nolock_heap *(*heap_of)(const void *p);
	int (*heap_check)(struct nolock_heap *heap, struct nolock_heap_report *report);
};
extern struct dropin_api dropin;

struct dropin_job {
	const char *name;
	void (*fn)(void);
	struct dropin_job *next;
};
void dropin_register(struct dropin_job *job);

/* Run a body in a process of its own, with env ("NAME=value", or NULL) set: its wait status. */
int dropin_run(const char *name, const char *env);
/* The same, with what it writes to stderr. */
int dropin_run_stderr(const char *name, const char *env, char *text, size_t size);
/* Fails the test unless the body ended with status 0. */
void dropin_expect(const char *name, const char *env);

/* Path of libnolock-malloc.so. */
const char *dropin_path(void);

/* CHECK that the heap is whole: at a quiescent point. */
void dropin_whole(void);

static inline uint64_t rng(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

#define DROPIN_JOB(id)                                                                             \
	static void job_##id(void);                                                                \
	__attribute__((constructor)) static void register_##id(void)                               \
	{                                                                                          \
		static struct dropin_job job = { .name = #id, .fn = job_##id };                    \
                                                                                                   \
		dropin_register(&job);                                                             \
	}                                                                                          \
	static void job_##id(void)

#define PRELOADED(suite, id)                                                                       \
	static void job_##id(void);                                                                \
	Test(suite, id)                                                                            \
	{                                                                                          \
		dropin_expect(#id, NULL);                                                          \
	}                                                                                          \
	DROPIN_JOB(id)

#endif /* NOLOCK_SELFTESTS_DROPIN_H */
