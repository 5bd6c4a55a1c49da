/* SPDX-License-Identifier: GPL-2.0-only */
/* nolock_contexts.h - what test_nolock_contexts.c and its programs say to each other. */
#ifndef NOLOCK_CONTEXTS_H
#define NOLOCK_CONTEXTS_H

/* What an operation runs in; what it has interrupted. */
enum {
	CTX_NONE, /* none of ours */
	CTX_TASK,
	CTX_SOFTIRQ, /* a tracepoint of each softirq */
	CTX_HARDIRQ, /* a tracepoint of each timer interrupt */
	CTX_CLOCK,   /* perf's clock, in the interrupt itself */
	CTX_NMI,     /* a data breakpoint */
	NR_CTX,
};

/* Where an operation was served. */
enum {
	AT_SLOT,    /* the A-slot's main sheaf */
	AT_REFILL,  /* its spare, the barn, or words of slabs, with the slot's lock */
	AT_BITMAPS, /* a word of a slab, past the slot */
	AT_CHUNK,   /* a fresh slab, past the slot */
	AT_FREE_SLOT,
	AT_FREE_ROOM, /* after main made room */
	AT_FREE_BITMAPS,
	NR_AT,
};

/* Counters of a slot that tell the levels apart. */
struct levels {
	unsigned long long slow, slab, lock, put;
};

#endif /* NOLOCK_CONTEXTS_H */
