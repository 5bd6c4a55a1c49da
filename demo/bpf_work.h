/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bpf_work.h - the demo's BPF programs that allocate in the shared heap: at every kernel
 * kmem_cache_alloc event that they sample, and in NMI context, on a data breakpoint.
 */
#ifndef BPF_WORK_H
#define BPF_WORK_H

#include <stdint.h>
#include <nolock/heap.h>

struct bpf_work;

struct bpf_work_counts {
	uint64_t events; /* that were sampled */
	uint64_t allocs;
	uint64_t frees;
	uint64_t failures;
	uint64_t corruptions;
	uint64_t nmi_hits;
	uint64_t nmi_allocs;
	uint64_t nmi_frees;
	uint64_t nmi_failures;
};

/*
 * bpf_work_start - load the programs on the heap's arena and attach them
 * Returns the work, or NULL with *why, one line for people.
 */
struct bpf_work *bpf_work_start(struct nolock_heap *heap, const char **why);

/* bpf_work_no_nmi - why nothing runs in NMI context, or NULL. */
const char *bpf_work_no_nmi(const struct bpf_work *w);

void bpf_work_counts(const struct bpf_work *w, struct bpf_work_counts *counts);

/* bpf_work_finish - detach, free what the programs still hold, and count for the last time. */
void bpf_work_finish(struct bpf_work *w, struct bpf_work_counts *counts);

/* bpf_work_free - finish, if it was not, and free it. NULL is fine. */
void bpf_work_free(struct bpf_work *w);

#endif /* BPF_WORK_H */
