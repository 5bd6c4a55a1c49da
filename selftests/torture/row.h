/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * row.h - one row of the table that selftests/torture/run prints at its end.
 */
#ifndef NOLOCK_TORTURE_ROW_H
#define NOLOCK_TORTURE_ROW_H

#include <stdio.h>

/* @events: signals, kills, forks, whatever the part does to the allocator; @kind says which. */
static inline void row(const char *part, unsigned long operations, unsigned long events,
		       const char *kind, unsigned long failures)
{
	printf("row|%s|%lu|%lu %s|%lu\n", part, operations, events, kind, failures);
	fflush(stdout);
}

#endif /* NOLOCK_TORTURE_ROW_H */
