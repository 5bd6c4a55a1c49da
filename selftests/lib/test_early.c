// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_early.c - NULL is freed before anything was allocated, and at each instruction of that a
 * handler's allocation, the first of all, opens the heap. Each instruction in a process of its own.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include "util.h"

#if defined(__x86_64__)
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "internal.h"
#include "trap.h"

enum { FINE = 0, AT_THE_END = 1, NO_MEMORY = 2, NOT_EARLY = 3, MOST = 20000 };

static unsigned long nth, traps;
static bool failed;

static void on_trap(int sig, siginfo_t *info, void *context)
{
	void *p;

	(void)sig, (void)info;
	if (++traps != nth)
		return;
	trap_set_stepping(context, 0);
	p = kmalloc(64, GFP_KERNEL);
	failed = !p;
	kfree(p);
}

static void free_early(void (*put)(const void *), const void *p)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };

	if (nl_free_map.span)
		_exit(NOT_EARLY);
	sigaction(SIGTRAP, &sa, NULL);
	trap_on();
	put(p);
	trap_off();
	if (failed)
		_exit(NO_MEMORY);
	if (traps >= nth)
		expect_whole(nolock_heap_default(), NULL, "at last");
	_exit(traps >= nth ? FINE : AT_THE_END);
}

static void each_instruction(void (*put)(const void *), const void *p)
{
	int status = FINE;

	for (nth = 1; !status && nth < MOST; nth++) {
		pid_t pid = fork();

		cr_assert_geq(pid, 0);
		if (!pid) {
			die_with_parent();
			free_early(put, p);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == AT_THE_END, "instruction %lu: %#x",
		  nth - 1, status);
	report("  %lu instructions", nth - 2);
	cr_expect_gt(nth, 5);
}

Test(early, kfree_null)
{
	each_instruction(kfree, NULL);
	each_instruction(kfree, ZERO_SIZE_PTR);
}

Test(early, kfree_nolock_null)
{
	each_instruction(kfree_nolock, NULL);
}
#else
Test(early, other_machines, .description = "single-stepping from within is for x86-64 alone")
{
	cr_skip_test("no trap flag on this machine");
}
#endif
