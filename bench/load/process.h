/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * process.h - what the files of a measured process share: the allocator's calls, a thread's state.
 *
 * Nothing here allocates by malloc(): that would be the measured allocator's.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include <nolock/heap.h>
#include <nolock/slab.h>

#include "load.h"

#define MAX_THREADS 64
#define MAX_OBJS 100000 /* of one thread */

/*
 * Every call goes through a pointer that is loaded from memory, which is what a call of a shared
 * library's function costs its users (call *GOT), for libnolock as for the others. What libnolock's
 * header has in line is in line (workloads.c).
 */
struct calls {
	void *(*malloc)(size_t size);
	void (*free)(void *p);
	void *(*realloc)(void *p, size_t size); /* or NULL */
	void *(*kmalloc)(size_t size, gfp_t gfp);
	void (*kfree)(const void *p);
	void *(*krealloc)(const void *p, size_t size, gfp_t gfp);
	void *(*kmalloc_nolock)(size_t size, gfp_t gfp, int node);
	void (*kfree_nolock)(const void *p);
	/* What the header makes of the two where the size is a constant. */
	void *(*bucket_alloc)(size_t bucket);
	void *(*bucket_alloc_nolock)(size_t bucket);
	/* For prefilled sheaves. */
	struct kmem_cache *cache;
	void *(*cache_alloc)(struct kmem_cache *s, gfp_t gfp);
	void (*cache_free)(struct kmem_cache *s, void *p);
	struct slab_sheaf *(*prefill)(struct kmem_cache *s, gfp_t gfp, unsigned int size);
	void (*return_sheaf)(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf);
	void *(*from_sheaf)(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf);
};
extern struct calls call;

/* What one thread works with. */
struct worker {
	unsigned int nr;
	uint64_t units;
	uint64_t failed; /* allocations that returned NULL */
	uint64_t random;
	uint64_t own_ns; /* of a workload that times itself: the part that counts */
	uint64_t start, end, cpu_ns;
	struct work_map *map; /* to be filled at the peak, or NULL */
	void **objs;	      /* room for MAX_OBJS, the same as long as the process lives */
};
extern struct worker workers[MAX_THREADS];
extern unsigned int nr_threads;
extern enum entry entry;

/* A random order of n objects, the same for every allocator. */
extern uint32_t order[MAX_OBJS];

/* load.c: threads wait until all are there. Spinning, since a futex would be measured too. */
void meet(void);
/* One turn of a loop that waits for another thread. */
void wait_a_turn(unsigned int *turns);
uint64_t cpu_now(void);
/* Let other work on the machine come second, where that is allowed. */
void come_first(void);
/* A symbol of the allocator, or exit with a message. */
void *symbol(const char *name);

/* memory.c */
uint64_t memory_rss(void);  /* exact, and slow */
uint64_t memory_peak(void); /* as the kernel noted it */
bool memory_counts(struct work_counts *c);
bool memory_map(struct work_map *map);
void memory_trim(void);

/* workloads.c */
extern void (*const loads[NR_WORKLOADS][NR_ENTRIES])(struct worker *w);
void loads_prepare(unsigned int workload);
void load_burst(struct worker *w, uint64_t bytes);
void load_tick(struct worker *w);

/* spawn.c */
_Noreturn void spawn_serve(int fd);

#endif /* PROCESS_H */
