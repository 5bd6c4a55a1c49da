/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kill_client.h - the client of a shared heap that test_kill_steps.c kills: what it does, and what it
 * says of it.
 */
#ifndef NOLOCK_TORTURE_KILL_CLIENT_H
#define NOLOCK_TORTURE_KILL_CLIENT_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include "shared.h"

enum { OBJECTS = 256, CLIENT = CLIENT_FIRST };

/* What the client has, written by it before and after each call; in memory that outlives it. */
struct book {
	const char *call;
	unsigned int in_flight; /* objects that the call may have made and not handed out */
	unsigned int from, to;	/* objects [from, to) of obj[] may be free by now */
	unsigned int failed;	/* calls that failed and should not have */
	unsigned int done;
	unsigned int cpu; /* + 1: that the client has gone to, or 0 */
	void *obj[OBJECTS];
};

/* What a pass of the workload is done with. */
struct plan {
	const char *name;
	bool rseq;
	unsigned int size, capacity;
	uint64_t seed; /* 0: the fixed sequence */
	bool nodes;    /* that of two nodes instead */
};

/* All that it is given. */
struct kill_client {
	volatile struct book *book;
	struct nolock_heap *heap;
	const struct plan *plan;
	const cpu_set_t *cpus; /* those that it may go to */
};

/* What the child of steps_start() runs, of a struct kill_client. Does not return. */
void kill_client(void *arg);

#endif /* NOLOCK_TORTURE_KILL_CLIENT_H */
