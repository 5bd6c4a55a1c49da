// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_inside.c - decay adds nothing to the work of a handler that interrupted a call, whatever
 * time it is then: the clock's coarse milliseconds are even or odd as the test wants them.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "util.h"

static long odd;

/* In place of libc's, for the library too. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int err = (int)syscall(SYS_clock_gettime, clock, ts);

	if (!err && clock == CLOCK_MONOTONIC_COARSE)
		ts->tv_nsec = (ts->tv_nsec / 2000000 * 2 + odd) * 1000000;
	return err;
}

Test(inside, no_visit)
{
	struct nolock_heap *heap = nolock_heap_default();
	nl_u32 before;

	cr_assert_not_null(heap);
	for (odd = 0; odd < 2; odd++) {
		nl_store(&heap->decay_next, 0);
		before = nl_load(&heap->decay_visits);
		nl_decay(heap);
		cr_assert_eq(nl_load(&heap->decay_visits), before + 1);

		nl_store(&heap->decay_next, 0);
		nl_depth++;
		nl_decay(heap);
		nl_depth--;
		cr_expect_eq(nl_load(&heap->decay_visits), before + 1, "%s milliseconds",
			     odd ? "odd" : "even");
	}
}
