// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_stepped.c - the trap flag over every instruction of a workload of the whole API, with a
 * handler at each that allocates, frees, and frees what the main flow allocated.
 *
 * Every restartable sequence of the main flow aborts, every cmpxchg may lose: what is left is what
 * the wait-free exits carry. The main flow must make progress, which is found by counting: a call
 * that takes more than MAX_TRAPS traps is given up and reported. On the private heap and on a shared
 * one, without the longest calls; with TORTURE_SECONDS=N all calls, of other sizes, too, and on the
 * private heap without rseq, of which make check has a build of its own.
 */
#define _GNU_SOURCE
#include <stdio.h>

#if defined(__x86_64__)
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "internal.h"
#include "../lib/trap.h"
#include "again.h"
#include "api.h"
#include "row.h"
#include "shared.h"

/* Trimming and making a heap touch thousands of words; an ordinary call some hundred. */
#define MAX_TRAPS 1000000ul

static struct api api;
static unsigned long traps, this_call, most, aborts, stuck;
static const char *longest;

static void on_trap(int sig, siginfo_t *si, void *context)
{
	const char *call = api.call;
	int saved = errno;

	(void)sig;
	(void)si;
	traps++;
	aborts += (unsigned long)trap_at_abort(trap_ip(context));
	if (++this_call > MAX_TRAPS) {
		stuck++;
		trap_set_stepping(context, 0);
		return;
	}
	trap_hurry_string(context);
	api_handler(&api, traps);
	api.call = call;
	errno = saved;
}

static DRIVER void arm(void)
{
	this_call = 0;
	trap_on();
}

static DRIVER void disarm(void)
{
	trap_off();
	if (this_call > most) {
		most = this_call;
		longest = api.call;
	}
}

static int torture(struct nolock_heap *heap, const char *name, unsigned int size,
		   unsigned int depth)
{
	struct nolock_heap_report rep;
	bool whole;

	memset(&api, 0, sizeof(api));
	traps = most = aborts = 0;
	api.heap = heap;
	api.size = size;
	api.depth = depth;
	api.brief = !env_number("TORTURE_SECONDS", 0);
	api.rcu_polls = !rseq_in_use(nolock_heap_default());
	api.arm = arm;
	api.disarm = disarm;
	if (!api_begin(&api))
		return 1;
	api_work(&api);
	if (!api_end(&api))
		api.failed++;
	whole = !check_whole(heap, &rep, name);
	printf("# stepped, %s, objects of %u: %lu calls, %lu traps (most in one: %lu, %s), %lu "
	       "sections aborted, failures: %lu failed, %lu damaged, %lu stuck, %lu late\n",
	       name, size, api.calls, traps, most, longest, aborts, api.failed, api.bad, stuck,
	       api.late);
	row(name, api.calls, traps, "traps", api.failed + api.bad + stuck);
	if (api.line)
		printf("  the first at api.c:%u\n", api.line);
	if (rep.allocated || rep.large || rep.refused) {
		printf("  %lu objects lost, %lu large, %lu frees refused\n", rep.allocated,
		       rep.large, rep.refused);
		return 1;
	}
	if (traps < api.calls * 10) {
		printf("  the trap flag was not in effect\n");
		return 1;
	}
	return api.failed || api.bad || stuck || !whole || (rseq_in_use(heap) && !aborts);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	unsigned long lengthy = env_number("TORTURE_SECONDS", 0);
	uint64_t end = now_ns() + lengthy * 1000000000u;
	struct nolock_heap *heap = nolock_heap_default(), *shared;
	unsigned long passed = 0, failed = 0;
	struct rng r;
	int status;

	sigaction(SIGTRAP, &sa, NULL);
	rng_init(&r, 11);
	if (argc > 1) {
		if (rseq_in_use(heap))
			return 20;
		return torture(heap, "no rseq", (unsigned int)atoi(argv[1]), 20);
	}
	shared = shared_make(64 * MiB);
	for (unsigned int size = 320;; size = 16 + rng_below(&r, 6000)) {
		char arg[16];

		status = torture(heap, "private heap", size, 20);
		failed += status != 0;
		passed += status == 0;
		if (lengthy || !SMALL_BUILD) {
			status = torture(shared, "shared heap", size, 20);
			failed += status != 0;
			passed += status == 0;
		}
		if (!lengthy || !PLAIN_BUILD) {
			if (now_ns() >= end)
				break;
			continue;
		}
		snprintf(arg, sizeof(arg), "%u", size);
		if (run_without_rseq(argv[0], arg))
			passed++;
		else
			failed++;
		if (now_ns() >= end)
			break;
	}
	printf("%lu passed, %lu failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
#else
int main(void)
{
	printf("single-stepping from within is for x86-64 alone\n");
	return 77;
}
#endif
