/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* events.h - what queue.bpf.c and queue.c send each other. */
#ifndef EXAMPLES_EVENTS_H
#define EXAMPLES_EVENTS_H

#include "queue.h"

enum {
	FROM_CALL,  /* a system call: value is its number */
	FROM_TIMER, /* a timer interrupt: value is the CPU */
	ANSWER,	    /* to a command: value is its number */
	KINDS,
};

#define EVENT_CPUS 64

/* A node of either queue. */
struct event {
	struct queue_node node;
	__u32 kind;
	__u32 source; /* whose sequence it is: events of one source arrive in its order */
	__u64 seq;
	__u64 value;
};

/* At the heap's root. */
struct queues {
	struct queue up; /* events, from the programs */
	__u64 pad[7];
	struct queue down; /* commands, to the programs */
};

typedef struct event __shared event_t;
typedef struct queues __shared queues_t;

#endif /* EXAMPLES_EVENTS_H */
