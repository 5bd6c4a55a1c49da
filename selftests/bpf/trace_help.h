/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trace_help.h - for the tests of the tracing module: known work done in a process of its own, and
 * the events of the stream gathered.
 */
#ifndef TRACE_HELP_H
#define TRACE_HELP_H

#include <stdio.h>
#include <sys/types.h>
#include "../../user/trace.h"
#include "../../user/kernel_stat.h"

/* A child that waits until it is told to, does its work once, and ends. */
struct trace_child {
	pid_t pid;
	int go;
	int done;
};

void trace_child_start(struct trace_child *c, void (*work)(unsigned int n), unsigned int n);
/* Let it work; returns when it has ended, after its status was checked to be 0. */
void trace_child_run(struct trace_child *c);

/* Work: each makes and closes @n of them, on one CPU. */
void trace_open_files(unsigned int n);
void trace_open_pipes(unsigned int n);

struct nl_trace *trace_open(unsigned int what, unsigned int ring_bytes);

struct trace_seen {
	unsigned int nr;
	unsigned int kinds[NLT_NR_KINDS];
	unsigned int wrong_pid, wrong_cache;
	pid_t pid;
	const char *cache;
	struct nlt_event last;
	uint64_t last_ns[1024]; /* per CPU */
	unsigned int out_of_order;
};

/* nl_trace_fn: arg is a struct trace_seen */
int trace_note(void *arg, const struct nlt_event *e);

const struct nl_trace_prog *trace_find(const struct nl_trace *t, const char *target);

#endif /* TRACE_HELP_H */
