/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nolock_help.h - for the tests of the BPF allocator: heaps in arenas without nolockd, programs
 * loaded onto them, workers, and data breakpoints.
 */
#ifndef NOLOCK_HELP_H
#define NOLOCK_HELP_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <nolock/bpf.h>
#include <nolock/heap.h>
#include <nolock/slab.h>
#include "internal.h"

/* The worker of nolock_work.h on the user's side. */
NL_HIDDEN nl_u64 help_alloc(nl_u64 heap, nl_u64 cache, nl_u32 size);
#define work_alloc(w, size) help_alloc((w)->heap, (w)->cache, (size))
#define work_free(obj) kfree_nolock((void *)(obj))
#define work_alloc_bulk(cache, nr, p)                                                              \
	kmem_cache_alloc_bulk((struct kmem_cache *)(cache), GFP_ATOMIC, (nr), (void **)(p))
#define work_free_bulk(cache, nr, p)                                                               \
	kmem_cache_free_bulk((struct kmem_cache *)(cache), (nr), (void **)(p))
#define work_prefill(cache, nr)                                                                    \
	((nl_u64)kmem_cache_prefill_sheaf((struct kmem_cache *)(cache), GFP_ATOMIC, (nr)))
#define work_from_sheaf(cache, sheaf)                                                              \
	((nl_u64)kmem_cache_alloc_from_sheaf((struct kmem_cache *)(cache), 0,                      \
					     (struct slab_sheaf *)(sheaf)))
#define work_return(cache, sheaf)                                                                  \
	kmem_cache_return_sheaf((struct kmem_cache *)(cache), 0, (struct slab_sheaf *)(sheaf))
#include "nolock_work.h"

#include "nolock_call.h"
#include "nolock_call.skel.h"
#include "nolock_work.skel.h"

/* One line of figures, which the runner shows. */
void figure(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * An arena of 4 GiB at 0x567000000000 + place * 8 GiB with an unformatted heap, and a formatted
 * one of the given number of 4 MiB groups: descriptors. Tests fail if it cannot be made.
 */
nl_u64 arena_base(unsigned int place);
int arena_make(unsigned int place);
int heap_make(unsigned int place, unsigned int groups);

/* This process's handle on it, as client number @client; the descriptor is copied. */
struct nolock_heap *heap_map(int fd, unsigned int place, unsigned int client);

/* Both, with all of the heap opened. */
struct nolock_heap *heap_new(unsigned int place, unsigned int groups);

/* nolock_heap_check(): clean, no lock held, @allocated objects in use; the test fails if not. */
void heap_whole(struct nolock_heap *heap, unsigned long allocated, const char *when);

/* Opened with these programs alone, by name, up to NULL; not loaded. */
struct nolock_work_bpf *work_open(const char *const *progs);

/* Load onto the heap's arena. */
struct nolock_call_bpf *call_load(int fd);
struct nolock_work_bpf *work_load(int fd, const char *const *progs);

/* One call; fails the test if the program does not run. */
nl_u64 call1(struct nolock_call_bpf *s, nl_u32 op, nl_u64 arg, nl_u32 flags, int node);

/* The same with all that a call may have. */
nl_u64 call_with(struct nolock_call_bpf *s, nl_u32 op, const void *arg, const void *obj, nl_u32 nr,
		 nl_u32 flags);

/* Run a program once by BPF_PROG_TEST_RUN: with a worker, or (tc, xdp) with a packet. */
void run_syscall(struct bpf_program *p, struct nolock_work *w);
void run_packet(struct bpf_program *p);

/* A worker in the heap: sizes, turns of one run, objects held; everything else is 0. */
struct nolock_work *work_new(struct nolock_heap *heap, nl_u32 side, nl_u32 turns, nl_u32 nr_held);
struct nolock_mail *mail_new(struct nolock_heap *heap);
/* It calls the bulk forms and prefills sheaves in each run, too: from that cache. */
void work_forms_of(struct nolock_work *w, struct kmem_cache *cache);
/* Check and free all that a worker holds, or that is in the mail: from user space. */
void work_drain(struct nolock_work *w);
void mail_drain(struct nolock_mail *mail, struct nolock_work *w);
/* 0 failed, 0 damaged. */
void work_good(const struct nolock_work *w, const char *who);

/* Stay on one CPU. */
void pin(int cpu);
unsigned int nr_cpus(void);

/* The program by perf's software clock on a CPU; to be enabled by PERF_EVENT_IOC_ENABLE. */
int clock_open(int cpu, unsigned long period_ns, struct bpf_program *p);

/*
 * A data breakpoint of 8 (or 4) bytes, reads and writes, with the program on it: its descriptor.
 * For the kernel's own address of a word of the heap, or for the user's.
 */
int break_kernel(struct nolock_heap *heap, const void *word, unsigned int len, int cpu,
		 struct bpf_program *p);
int break_user(const void *word, unsigned int len, struct bpf_program *p);

#endif /* NOLOCK_HELP_H */
