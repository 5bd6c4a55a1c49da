/* SPDX-License-Identifier: GPL-2.0-only */
/* again.h - a torture's program runs itself once more. */
#ifndef NOLOCK_TORTURE_AGAIN_H
#define NOLOCK_TORTURE_AGAIN_H

#include <stdbool.h>

/*
 * run_without_rseq - run this program with NOLOCK_RSEQ=0, which the library reads once, and wait
 * @name: its argv[0]; @arg: its one argument
 * False if it did not end with status 0, after a line with what it ended with.
 */
bool run_without_rseq(const char *name, const char *arg);

#endif /* NOLOCK_TORTURE_AGAIN_H */
