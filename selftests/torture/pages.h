/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pages.h - a heap's metadata page by page: what has changed, what somebody looks at.
 */
#ifndef NOLOCK_TORTURE_PAGES_H
#define NOLOCK_TORTURE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* pages_sync - copy what differs of bytes [start, end). Whether anything did. */
bool pages_sync(char *to, const char *from, size_t start, size_t end);

/*
 * pages_seen - which of n pages from base on are in the page tables of a process: set in seen[]
 * Those that are not stay as they are there. False after a line that says why.
 */
bool pages_seen(pid_t pid, const void *base, size_t n, bool *seen);

#endif /* NOLOCK_TORTURE_PAGES_H */
