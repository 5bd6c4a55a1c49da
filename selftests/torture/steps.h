/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * steps.h - a child that is single-stepped from outside, restartable sequences included.
 */
#ifndef NOLOCK_TORTURE_STEPS_H
#define NOLOCK_TORTURE_STEPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct steps {
	pid_t pid;
	uintptr_t ip; /* the next instruction */
	unsigned long nr;
	int status; /* once it ended */
};

/*
 * steps_start - fork, and run work(arg) in the child up to its call of steps_begin()
 * The child never returns from it. Returns 0 or -1, with the child's end in st->status.
 */
int steps_start(struct steps *st, void (*work)(void *arg), void *arg);

/* In the child: from here on, and up to here. */
void steps_begin(void);
void steps_end(void);

/* Execute one instruction. False once the child is at its steps_end(), or dead: st->status. */
bool steps_next(struct steps *st);

/*
 * Run on until it is about to execute the instruction at @ip, for the first time from here. False if it
 * was at its steps_end() before, or died.
 */
bool steps_run_to(struct steps *st, uintptr_t ip);

/* Run on to its steps_end() without a stop. False if it did not get there. */
bool steps_run(struct steps *st);

/* SIGKILL it, and wait until it is gone. */
void steps_kill(struct steps *st);

#endif /* NOLOCK_TORTURE_STEPS_H */
