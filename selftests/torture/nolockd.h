/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nolockd.h - a nolockd of a test's own, with one heap.
 */
#ifndef NOLOCK_TORTURE_NOLOCKD_H
#define NOLOCK_TORTURE_NOLOCKD_H

#include <stdbool.h>
#include <sys/types.h>
#include "temp.h"

struct nolockd {
	pid_t pid, keeper;
	char heap[32]; /* for nolock_heap_open() */
	char dir[TEMP_DIR_LEN];
};

/*
 * nolockd_start - start build/user/nolockd with a heap of 64 MiB, and point NOLOCK_SOCKET at it
 * @bpf: an arena; else it may not use BPF, and the heap is a memfd
 * Returns 0, or -1 after a line that says why. It ends with this process.
 */
int nolockd_start(struct nolockd *d, bool bpf);

/*
 * nolockd_rest - stop the keeper of the heap where it waits for something to do
 * In the middle of its upkeep it would have chunks in its hands. Returns 0, or -1: it is not there,
 * or never waits. nolockd_resume() lets it go on.
 */
int nolockd_rest(struct nolockd *d);
void nolockd_resume(struct nolockd *d);

/* nolockd_stop - SIGTERM; returns its wait status. */
int nolockd_stop(struct nolockd *d);

#endif /* NOLOCK_TORTURE_NOLOCKD_H */
