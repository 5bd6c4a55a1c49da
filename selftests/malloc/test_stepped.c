// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_stepped.c - the trap flag over every instruction of malloc, calloc, realloc, memalign and free
 * of the drop-in, in a process that has used them, with a handler at each that calls them all, and
 * frees and resizes what the main flow allocated.
 *
 * Each restartable sequence aborts, each cmpxchg may lose. More rounds with NOLOCK_STORM_SECONDS.
 */
#define _GNU_SOURCE
#include "objects.h"

#if defined(__x86_64__)
#include <errno.h>
#include <signal.h>
#include "../lib/trap.h"
#include "../torture/row.h"

#define MAX_TRAPS 1000000ul

enum { ROUNDS = 12 };

static struct flow flow, handler;
static void *mailbox[16];
static unsigned long traps, this_call, most, calls;

static void on_trap(int sig, siginfo_t *si, void *context)
{
	void **slot = &mailbox[rng(&handler.s) % ARRAY_LEN(mailbox)];
	int saved = errno;

	(void)sig;
	(void)si;
	traps++;
	CHECK(++this_call < MAX_TRAPS, "a call does not end");
	trap_hurry_string(context);
	flow_step(&handler);
	/* What the main flow left, and something for it. */
	object_free(&handler, __atomic_exchange_n(slot, object_new(&handler), __ATOMIC_ACQ_REL));
	errno = saved;
}

#define STEPPED(call_)                                                                             \
	do {                                                                                       \
		this_call = 0;                                                                     \
		trap_on();                                                                         \
		call_;                                                                             \
		trap_off();                                                                        \
		calls++;                                                                           \
		if (this_call > most)                                                              \
			most = this_call;                                                          \
	} while (0)

static void stepped_free(void *p)
{
	if (!p)
		return;
	object_check(p);
	STEPPED(free(p));
}

/* Each of the five, of a small, a larger and, now and then, a large size. */
static void each_call(unsigned int i)
{
	static const size_t sizes[] = { 24, 200, 1000, 5000, 40, 20000, 64, 100000 };
	size_t size = sizes[i % ARRAY_LEN(sizes)] + i;
	void *obj[4], *p;

	/* The compiler knows what these functions do, and must not. */
	void *(*volatile do_malloc)(size_t) = malloc;
	void *(*volatile do_calloc)(size_t, size_t) = calloc;
	void *(*volatile do_realloc)(void *, size_t) = realloc;
	void *(*volatile do_memalign)(size_t, size_t) = memalign;

	STEPPED(obj[0] = do_malloc(size));
	STEPPED(obj[1] = do_calloc(2, size / 2 + 1));
	STEPPED(obj[2] = do_memalign(64u << i % 7, size));
	STEPPED(obj[3] = do_malloc(size * 2));
	CHECK(obj[0] && obj[1] && obj[2] && obj[3], "no memory");
	CHECK((uintptr_t)obj[2] % (64u << i % 7) == 0, "memalign");
	for (size_t k = 0; k < size; k++)
		CHECK(!((char *)obj[1])[k], "calloc");
	for (int k = 0; k < 4; k++)
		object_fill(&flow, obj[k], size);
	/* Up and down. */
	for (int k = 0; k < 2; k++) {
		size_t to = k ? size / 2 + 16 : size * 3;
		struct object_head h;

		object_check(obj[k]);
		memcpy(&h, obj[k], sizeof(h));
		STEPPED(p = do_realloc(obj[k], to));
		CHECK(p, "realloc");
		obj[k] = p;
		if (to > size)
			to = size;
		CHECK(pat_check((char *)p + sizeof(h), (to - sizeof(h)) / 8 * 8, h.seed),
		      "realloc to %zu", to);
		object_fill(&flow, p, to);
	}
	for (int k = 0; k < 4; k++) {
		p = __atomic_exchange_n(&mailbox[(i + (unsigned int)k) % ARRAY_LEN(mailbox)],
					obj[k], __ATOMIC_ACQ_REL);
		stepped_free(p);
	}
}

static void stepped(const char *name)
{
	const char *text = getenv("NOLOCK_STORM_SECONDS");
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	uint64_t end = now_ns() + (text ? (uint64_t)(atof(text) * 1e9) : 0);
	unsigned long rounds = 0;

	flow.s = 7;
	handler.s = 11;
	/* Warm: what a first use does is test_first's. */
	for (int i = 0; i < 3000; i++)
		flow_step(&flow);
	CHECK(!sigaction(SIGTRAP, &sa, NULL), "sigaction");
	do {
		for (unsigned int i = 0; i < ROUNDS; i++)
			each_call(i + 7 * (unsigned int)rounds);
		rounds++;
	} while (now_ns() < end);
	for (size_t i = 0; i < ARRAY_LEN(mailbox); i++)
		object_free(&flow, mailbox[i]);
	flow_end(&flow);
	flow_end(&handler);
	CHECK(traps > calls * 10, "the trap flag was not in effect");
	dropin_whole();
	printf("# %s: %lu calls, %lu traps (most in one: %lu), %lu operations of the "
	       "handler, 0 failures\n",
	       name, calls, traps, most, handler.ops);
	row(name, calls, traps, "traps", 0);
}

PRELOADED(stepped, every_call)
{
	stepped("stepped, drop-in");
}

DROPIN_JOB(every_call_plainly)
{
	stepped("stepped, drop-in, no rseq");
}

Test(stepped, without_rseq)
{
	dropin_expect("every_call_plainly", "NOLOCK_RSEQ=0");
}
#else
Test(stepped, every_call)
{
	cr_skip("single-stepping from within is for x86-64 alone");
}
#endif
