/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * load.h - what the benchmark and its processes know of each other: the workloads, and the
 * messages between them.
 *
 * The processes run build/bench/load/load, which links nothing but the C library: what an
 * allocator makes of a process is not hidden behind what the benchmark needs itself.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How an allocator is called; decides which instance of a workload runs. */
enum entry {
	ENTRY_NOLOCK,  /* kmalloc_nolock(size, 0, NUMA_NO_NODE), kfree_nolock(p) */
	ENTRY_KMALLOC, /* kmalloc(size, GFP_KERNEL), krealloc(), kfree(p) */
	ENTRY_MALLOC,  /* malloc(size), realloc(), free(p), or what the allocator calls them */
	ENTRY_CACHE,   /* kmem_cache_alloc(), kmem_cache_free() */
	ENTRY_SHEAF,   /* the same, from prefilled sheaves */
	NR_ENTRIES,
};

#define WITH(e) (1u << (e))
#define WITH_NOLOCK WITH(ENTRY_NOLOCK)
#define WITH_ORDINARY (WITH(ENTRY_KMALLOC) | WITH(ENTRY_MALLOC))
#define WITH_ALL (WITH_NOLOCK | WITH_ORDINARY)
#define WITH_SHEAVES (WITH(ENTRY_CACHE) | WITH(ENTRY_SHEAF))

/* What is expected of a row: its ratio to the fastest peer. */
enum aim {
	AIM_NONE,  /* counts in the geometric mean alone */
	AIM_PAIR,  /* pairs and batches: 0.85 */
	AIM_CROSS, /* memory that goes from thread to thread, churn on two: 0.75 */
	NR_AIMS,
};

/*
 * The workloads: identifier, name, threads, CPUs that they need, units of one thread in
 * a round, KiB set aside for kmalloc_nolock before, largest size asked for, who runs it, what is
 * expected, what a unit is, and in words.
 */
#define WORKLOADS(X)                                                                               \
	X(PAIR16, "pair16", 1, 1, 1000000, 64, 16, WITH_ALL, AIM_PAIR, "pair",                     \
	  "one object of 16 B, freed at once")                                                     \
	X(PAIR64, "pair64", 1, 1, 1000000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                     \
	  "one object of 64 B, freed at once")                                                     \
	X(PAIR256, "pair256", 1, 1, 1000000, 64, 256, WITH_ALL, AIM_PAIR, "pair",                  \
	  "one object of 256 B, freed at once")                                                    \
	X(PAIR1024, "pair1024", 1, 1, 1000000, 64, 1024, WITH_ALL, AIM_PAIR, "pair",               \
	  "one object of 1024 B, freed at once")                                                   \
	X(LIFO10, "lifo10", 1, 1, 1000000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                     \
	  "10 objects of 64 B, freed last first")                                                  \
	X(LIFO1000, "lifo1000", 1, 1, 500000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                  \
	  "1000 objects of 64 B, freed last first")                                                \
	X(LIFO100K, "lifo100k", 1, 1, 200000, 7168, 64, WITH_ALL, AIM_PAIR, "pair",                \
	  "100,000 objects of 64 B, freed last first")                                             \
	X(FIFO10, "fifo10", 1, 1, 1000000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                     \
	  "10 objects of 64 B, freed first first")                                                 \
	X(FIFO1000, "fifo1000", 1, 1, 500000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                  \
	  "1000 objects of 64 B, freed first first")                                               \
	X(FIFO100K, "fifo100k", 1, 1, 200000, 7168, 64, WITH_ALL, AIM_PAIR, "pair",                \
	  "100,000 objects of 64 B, freed first first")                                            \
	X(RAND10, "rand10", 1, 1, 1000000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                     \
	  "10 objects of 64 B, freed in random order")                                             \
	X(RAND1000, "rand1000", 1, 1, 500000, 64, 64, WITH_ALL, AIM_PAIR, "pair",                  \
	  "1000 objects of 64 B, freed in random order")                                           \
	X(RAND100K, "rand100k", 1, 1, 200000, 7168, 64, WITH_ALL, AIM_PAIR, "pair",                \
	  "100,000 objects of 64 B, freed in random order")                                        \
	X(CHURN, "churn", 1, 1, 200000, 2048, 1024, WITH_ALL, AIM_NONE, "pair",                    \
	  "random replacement among 1000 of 16 to 1024 B")                                         \
	X(CHURN2, "churn2", 2, 2, 200000, 3072, 1024, WITH_ALL, AIM_CROSS, "pair",                 \
	  "the same in two threads at once, each its own")                                         \
	X(CHURN4, "churn4", 4, 4, 200000, 6144, 1024, WITH_ALL, AIM_NONE, "pair",                  \
	  "the same in 4 threads on 4 CPUs")                                                       \
	X(CHURN8, "churn8", 8, 8, 200000, 8192, 1024, WITH_ALL, AIM_NONE, "pair",                  \
	  "the same in 8 threads on 8 CPUs")                                                       \
	X(CHURN16, "churn16", 16, 16, 200000, 16384, 1024, WITH_ALL, AIM_NONE, "pair",             \
	  "the same in 16 threads on 16 CPUs")                                                     \
	X(CHURN64, "churn64", 64, 1, 20000, 24576, 1024, WITH_ALL, AIM_NONE, "pair",               \
	  "the same in 64 threads that hold 500 each")                                             \
	X(ASYM, "asym", 4, 1, 50000, 3072, 1024, WITH_ALL, AIM_NONE, "pair",                       \
	  "three threads allocate 16 to 1024 B, a fourth frees")                                   \
	X(SWAP2, "swap2", 2, 2, 100000, 512, 64, WITH_ALL, AIM_CROSS, "pair",                      \
	  "two threads free each other's 1000 objects of 64 B")                                    \
	X(PRODCONS, "prodcons", 2, 2, 200000, 512, 64, WITH_ALL, AIM_CROSS, "pair",                \
	  "one thread allocates 64 B, another frees")                                              \
	X(SERVER, "server", 2, 2, 100000, 4096, 1024, WITH_ALL, AIM_CROSS, "pair",                 \
	  "two lines of threads that replace objects, hand 1000 on, and end")                      \
	X(GROW, "grow", 1, 1, 36000, 12288, 24576, WITH_ALL, AIM_NONE, "realloc",                  \
	  "100 vectors that grow by half from 16 B to 24 KiB")                                     \
	X(GROWBIG, "growbig", 1, 1, 15, 0, 32 << 20, WITH_ORDINARY, AIM_NONE, "realloc",           \
	  "a vector that grows by half from 64 KiB to 18 MiB")                                     \
	X(LARGE, "large", 1, 1, 1000, 0, 1 << 20, WITH_ORDINARY, AIM_NONE, "pair",                 \
	  "random replacement among 64 of 64 KiB to 1 MiB, pages touched")                         \
	X(PREFILL, "prefill", 1, 1, 200000, 0, 64, WITH_SHEAVES, AIM_NONE, "allocation",           \
	  "32 allocations in a row; prefilling and freeing not counted")                           \
	X(PREFILLED, "prefill-all", 1, 1, 200000, 0, 64, WITH_SHEAVES, AIM_NONE, "pair",           \
	  "the same; prefilling, returning and freeing counted")

#define WORKLOAD_ID(id, ...) id,
enum { WORKLOADS(WORKLOAD_ID) NR_WORKLOADS };
#undef WORKLOAD_ID

enum op {
	WORK_RUN,   /* a round: how long it took */
	WORK_PEAK,  /* the peak RSS so far */
	WORK_COUNT, /* libnolock's counters since the process began */
	WORK_MAP,   /* a round, at whose peak libnolock's memory is looked at */
	WORK_BURST, /* allocate and free 64 MiB */
	WORK_TICK,  /* a few allocations, and the RSS after them */
	WORK_TRIM,  /* what the allocator has to give memory back, and the RSS after it */
};

struct work_request {
	uint32_t op;
	uint32_t workload;
	uint64_t units;
};

/* Operations by the level of the cascade that served them, of the R- and of the A-slots. */
struct work_counts {
	uint64_t allocs, frees;
	uint64_t a_allocs, a_frees;	  /* of them in A-slots' sheaves */
	uint64_t slow_allocs, slow_frees; /* of them past the sheaves, in the bitmaps */
	uint64_t next_bucket;		  /* of those from the next larger bucket */
	uint64_t refilled, flushed;	  /* objects, between sheaves and slabs */
	uint64_t from_barn;		  /* objects */
	uint64_t slot_locks;		  /* R-slots' */
	uint64_t barn_locks;		  /* that exchanged a sheaf */
	uint64_t slab_visits;		  /* refills that went to the slabs */
	uint64_t busy;			  /* trylocks that failed */
	uint64_t slabs_made, slabs_freed;
};

/* A heap's memory in bytes. */
struct work_map {
	uint64_t objects;      /* allocated, whole buckets */
	uint64_t large;	       /* allocated, whole chunks */
	uint64_t slots, barns; /* free objects in sheaves */
	uint64_t slabs;	       /* free objects in bitmaps */
	uint64_t tails;	       /* what is left of a slab behind its last object */
	uint64_t slabs_absent; /* of these pages that are not there */
	uint64_t large_absent; /* the same of large objects */
	uint64_t free_present; /* free chunks' pages that are there */
	uint64_t metadata;     /* its pages that are there */
	uint64_t present;      /* all pages of the heap that are there */
	uint64_t rss;	       /* of the process */
};

struct work_reply {
	uint64_t ns;
	uint64_t failed;    /* allocations that returned NULL */
	uint64_t rss, peak; /* bytes */
	union {
		struct work_counts counts;
		struct work_map map;
	};
};

/*
 * A program for the spawner (load spawn FD) to run, strings that each end in NUL: LD_PRELOAD or
 * "", then the arguments. It is found in PATH; its output goes nowhere.
 */
#define SPAWN_MAX 8192

struct spawn_reply {
	int32_t status; /* of wait4() */
	uint32_t pad;
	uint64_t cpu_ns; /* user and system, its children included */
	uint64_t peak;	 /* bytes */
};

#endif /* BENCH_LOAD_H */
