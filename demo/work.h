/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * work.h - what the demo's BPF programs and their user-space side share.
 */
#ifndef WORK_H
#define WORK_H

#define WORK_CPUS 128
/* Objects that each side holds on each CPU, and the words of one that are stamped. */
#define WORK_HELD 64
#define WORK_WORDS 8

/* Tasks and interrupts on one side, NMIs on the other. Counters by atomic add. */
struct work_side {
	unsigned long long turn;
	unsigned long long events;
	unsigned long long allocs;
	unsigned long long frees;
	unsigned long long failures;
	unsigned long long corruptions;
	unsigned long long held[WORK_CPUS][WORK_HELD]; /* exchanged */
};

static inline __attribute__((always_inline)) unsigned long long work_word(unsigned long long addr,
									  unsigned int size,
									  unsigned int i)
{
	return (addr ^ ((unsigned long long)size << 48)) + i * 0x9e3779b97f4a7c15ULL;
}

#endif /* WORK_H */
