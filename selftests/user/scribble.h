/* SPDX-License-Identifier: GPL-2.0-only */
/* scribble.h - what the test and the programs of scribble.bpf.c say to each other. */
#ifndef SCRIBBLE_H
#define SCRIBBLE_H

struct scribble {
	unsigned int turns;
	unsigned int got;    /* objects */
	unsigned int failed; /* allocations that returned NULL */
	unsigned int rng;
	unsigned int sound; /* frees what it has allocated, and nothing else */
};

#endif /* SCRIBBLE_H */
