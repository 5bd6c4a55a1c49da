/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * trace.h - what the tracing programs and user space share: kinds of events, the rows of counters,
 * the records of the event stream and of the kmem_cache iterator.
 *
 * Every map is a plain array that user space maps, so that reading the counters costs no system
 * call and stops nobody.
 */
#ifndef NLT_TRACE_H
#define NLT_TRACE_H

#ifdef __bpf__
typedef __u64 nlt_u64;
typedef __u32 nlt_u32;
typedef __s32 nlt_s32;
typedef __u8 nlt_u8;
#else
#include <stdint.h>
typedef uint64_t nlt_u64;
typedef uint32_t nlt_u32;
typedef int32_t nlt_s32;
typedef uint8_t nlt_u8;
#endif

#define NLT_NAME 40 /* a cache's name in the tables and events, with its 0 */
#define NLT_COMM 16

/* What happened. The first NLT_NR_TP come from tracepoints and have rows of counters per cache. */
enum nlt_kind {
	NLT_KMEM_CACHE_ALLOC,
	NLT_KMEM_CACHE_FREE,
	NLT_KMALLOC,
	NLT_KFREE,
	NLT_NR_TP,

	/* kernel functions, by fentry and fexit where the kernel allows them */
	NLT_KMALLOC_NOLOCK = NLT_NR_TP,
	NLT_KFREE_NOLOCK,
	NLT_PCS_REPLACE_EMPTY_MAIN,
	NLT_PCS_REPLACE_FULL_MAIN,
	NLT_BARN_REPLACE_EMPTY_SHEAF,
	NLT_BARN_REPLACE_FULL_SHEAF,
	NLT_BARN_GET_EMPTY_SHEAF,
	NLT_BARN_PUT_EMPTY_SHEAF,
	NLT_BARN_PUT_FULL_SHEAF,
	NLT_BARN_SHRINK,
	NLT_SHEAF_FLUSH_UNUSED,
	NLT_REFILL_SHEAF,
	NLT_ALLOC_EMPTY_SHEAF,
	NLT_PREFILL_SHEAF,
	NLT_RETURN_SHEAF,
	NLT_FN_END,

	/* the library's USDT probes, provider "nolock" */
	NLT_U_SHEAF_REFILL = NLT_FN_END,
	NLT_U_SHEAF_FLUSH,
	NLT_U_ALLOC_SLAB,
	NLT_U_FREE_SLAB,
	NLT_U_ALLOC_FAIL,
	NLT_U_FREE_REFUSED,
	NLT_U_HEAP_GROW,
	NLT_NR_KINDS,
};

/*
 * The hash of caches: NLT_SLOTS places, each for one struct kmem_cache *, open addressing, at most
 * NLT_PROBES places from the hash. Three rows more for what belongs to no cache.
 */
#define NLT_SLOT_BITS 10
#define NLT_SLOTS (1u << NLT_SLOT_BITS)
#define NLT_PROBES 16
#define NLT_ROW_LARGE (NLT_SLOTS + 0)	/* kmalloc from pages: larger than the largest cache */
#define NLT_ROW_UNKNOWN (NLT_SLOTS + 1) /* the kernel cannot tell the cache of an address */
#define NLT_ROW_NULL (NLT_SLOTS + 2)	/* kfree of NULL or ZERO_SIZE_PTR, kmalloc of 0 bytes */
#define NLT_ROWS (NLT_SLOTS + 3)
#define NLT_ROW_FULL 0xffffffffu /* found no place */
#define NLT_TOMBSTONE 1ull	 /* key of a place whose cache is gone */

/*
 * Counters of one cache on one CPU. Each field has one writer: the program of that tracepoint on
 * that CPU, which is never entered twice. So plain additions lose nothing. The bytes of
 * kmem_cache_alloc follow from the cache's sizes.
 */
struct nlt_row {
	nlt_u64 cache_allocs;
	nlt_u64 cache_frees;
	nlt_u64 cache_fails;
	nlt_u64 kmallocs;
	nlt_u64 kmalloc_fails;
	nlt_u64 bytes_req; /* of kmallocs */
	nlt_u64 bytes_alloc;
	nlt_u64 kfrees;
};

/* Per CPU, written with atomic additions by any program. */
struct nlt_cpu {
	nlt_u64 kinds[NLT_NR_KINDS]; /* functions and USDT probes: how often each ran */
	nlt_u64 full[NLT_NR_TP];     /* not counted by cache: the hash was full */
	nlt_u64 nested[NLT_NR_TP];   /* caught by the second program of the tracepoint */
	nlt_u64 streamed;
	nlt_u64 ring_lost;
	nlt_u64 tick; /* for sampling; only this CPU's programs, approximate */
};

/* The hash of struct kmem_cache * and, aside from the keys, what was learned on insertion. */
struct nlt_slot {
	char name[NLT_NAME];
	nlt_u32 object_size;
	nlt_u32 size;
	nlt_u8 want; /* 1: the stream's filter by name lets it pass */
	nlt_u8 pad[7];
};

#define NLT_MAX_CPUS 1024

/* One shared page set: what user space asks for, and the hash. */
struct nlt_state {
	/* written by user space */
	nlt_u32 stream;	    /* 1: emit events */
	nlt_u32 sample;	    /* emit one of this many; 0 and 1: all */
	nlt_u32 want_pid;   /* 0: any process */
	nlt_u32 by_cache;   /* 1: only caches that match cache[] */
	nlt_u64 kinds;	    /* bit per enum nlt_kind that is wanted */
	nlt_u32 wake_bytes; /* wake the reader when this much waits */
	nlt_u32 nr_cpus;
	char cache[NLT_NAME]; /* a name, or a prefix if it ends in '*' */
	/*
	 * Where &prog->active of the four first programs is on each CPU: cpu_off[cpu] + active[kind].
	 * 0: not known, then the second programs do nothing.
	 */
	nlt_u64 active[NLT_NR_TP];
	nlt_u64 cpu_off[NLT_MAX_CPUS];

	/* written by the programs (keys by cmpxchg); user space retires keys of caches that are gone */
	nlt_u64 keys[NLT_SLOTS];
	struct nlt_slot slots[NLT_SLOTS];
};

/* One event of the stream. */
struct nlt_event {
	nlt_u64 ns;   /* CLOCK_MONOTONIC */
	nlt_u32 kind; /* enum nlt_kind */
	nlt_u32 cpu;
	nlt_u32 pid;
	nlt_u32 tid;
	nlt_u64 ptr;	   /* object; chunk number of a slab; for functions their first argument */
	nlt_u64 call_site; /* kernel address, 0 if none */
	nlt_u64 bytes_req; /* or number of objects, or groups */
	nlt_u64 bytes_alloc; /* or flags */
	nlt_u64 heap;	     /* address of the heap in its process: USDT only */
	nlt_u64 ret;	     /* what the function returned: fexit only */
	char comm[NLT_COMM];
	char cache[NLT_NAME]; /* or the reason of free_refused */
};

/* Which fields of struct nlt_cache the kernel had. */
#define NLT_HAS_SHEAVES 1u /* sheaf_capacity */
#define NLT_HAS_NODES 2u   /* nr_partial */
#define NLT_HAS_SLABS 4u   /* nr_slabs, objects: CONFIG_SLUB_DEBUG */
#define NLT_HAS_BARN 8u
#define NLT_HAS_PCS 16u /* main, spare and rcu sheaves of each CPU */

/* One record of the kmem_cache iterator. */
struct nlt_cache {
	nlt_u64 ptr;
	char name[NLT_NAME];
	nlt_u32 has;
	nlt_u32 object_size;
	nlt_u32 size;
	nlt_u32 align;
	nlt_u32 objs_per_slab;
	nlt_u32 order;
	nlt_u64 flags;
	nlt_u32 refcount; /* caches merged into this one */
	nlt_u32 sheaf_capacity;
	nlt_u32 nr_nodes;
	nlt_u32 nr_barns;
	nlt_u32 barn_full; /* sheaves, all nodes */
	nlt_u32 barn_empty;
	nlt_u64 nr_partial; /* slabs, all nodes */
	nlt_u64 nr_slabs;
	nlt_u64 objects;   /* room in all slabs */
	nlt_u32 main_objs; /* in the main sheaves of all CPUs */
	nlt_u32 spare_objs;
	nlt_u32 rcu_objs;
	nlt_u32 nr_spare; /* CPUs that have a spare sheaf */
};

/* One record of the program iterator. */
struct nlt_prog {
	nlt_u32 id;
	nlt_u32 pad;
	nlt_u64 active; /* struct bpf_prog.active: an offset within each CPU's area */
};

#endif /* NLT_TRACE_H */
