/* SPDX-License-Identifier: GPL-2.0-only */
/* daemon.h - nolockd's server and a heap of it in a fuzz target's own process. */
#ifndef FUZZ_DAEMON_H
#define FUZZ_DAEMON_H

#include <stddef.h>

#define FUZZ_HEAP "fuzz"

/* Serve at a socket of its own, whose path goes to @path; removed at the process's end. */
void fuzz_daemon_start(char *path, size_t size);

/* The heap: a memfd of 16 MiB. */
void fuzz_heap_start(void);

#endif /* FUZZ_DAEMON_H */
