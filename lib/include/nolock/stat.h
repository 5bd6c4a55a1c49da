/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * stat.h - counters, under SLUB's names, read without stopping anybody.
 *
 * alloc_fastpath and free_fastpath count objects served by a sheaf; the other counters count as
 * in Linux: sheaf_flush and sheaf_refill count objects, the other sheaf_* and barn_* count
 * sheaves. Reading is racy by design: a sum over CPUs while others count on.
 */
#ifndef NOLOCK_STAT_H
#define NOLOCK_STAT_H

#include <nolock/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

enum nolock_stat_item {
	NOLOCK_ALLOC_FASTPATH, /* from the main sheaf of a slot */
	NOLOCK_ALLOC_SLOWPATH, /* straight from a slab bitmap, a fresh chunk or a larger bucket */
	NOLOCK_FREE_FASTPATH,  /* to the main sheaf of a slot */
	NOLOCK_FREE_SLOWPATH,  /* straight to a slab bitmap */
	NOLOCK_ALLOC_SLAB,     /* chunks made into slabs */
	NOLOCK_FREE_SLAB,      /* slabs given back */
	NOLOCK_SHEAF_FLUSH,
	NOLOCK_SHEAF_REFILL,
	NOLOCK_SHEAF_ALLOC,
	NOLOCK_SHEAF_FREE,
	NOLOCK_BARN_GET,
	NOLOCK_BARN_GET_FAIL,
	NOLOCK_BARN_PUT,
	NOLOCK_BARN_PUT_FAIL,
	NOLOCK_SHEAF_PREFILL_FAST,
	NOLOCK_SHEAF_PREFILL_SLOW, /* not from the spare; for a few objects, moved from the slot */
	NOLOCK_SHEAF_PREFILL_OVERSIZE,
	NOLOCK_SHEAF_RETURN_FAST,
	NOLOCK_SHEAF_RETURN_SLOW,
	NOLOCK_SLOT_BUSY,	    /* the A-slot's trylock failed: the next level served */
	NOLOCK_ALLOC_NEXT_BUCKET,   /* served by the next larger bucket */
	NOLOCK_ALLOC_FAIL,	    /* NULL returned */
	NOLOCK_FREE_REFUSED,	    /* double, foreign or interior frees */
	NOLOCK_ALLOC_CPU_CACHE,	    /* from a per-CPU array, instead of alloc_fastpath */
	NOLOCK_FREE_CPU_CACHE,	    /* to a per-CPU array, instead of free_fastpath */
	NOLOCK_FREE_RCU_SHEAF,	    /* kfree_rcu(): to a sheaf that waits for a grace period */
	NOLOCK_FREE_RCU_SHEAF_FAIL, /* noted otherwise: the CPU's sheaves were locked, or full */
	NOLOCK_ALLOC_NODE_MISMATCH, /* served from the node asked for, which was not the CPU's */
	NOLOCK_SLOT_LOCK,	    /* a slot locked that had nothing to give, or no room */
	NOLOCK_NR_STAT_ITEMS
};

/* One cache, all its slots summed up. Sizes in bytes. */
struct nolock_cache_stat {
	char name[32];
	unsigned int id;	  /* index in the heap's cache table */
	unsigned int object_size; /* as asked for */
	unsigned int size;	  /* distance between two objects */
	unsigned int objs_per_slab;
	unsigned int sheaf_capacity; /* objects; 0 in a debugged cache */
	unsigned int flags;	     /* SLAB_*, those of NOLOCK_DEBUG among them */
	unsigned long slabs;
	unsigned long objects;	  /* in all slabs */
	unsigned long in_sheaves; /* free, in slots and barns */
	unsigned long in_slabs;	  /* free, in slab bitmaps */
	unsigned long allocated;  /* objects - in_sheaves - in_slabs, 0 if the race makes it less */
	unsigned long accounted;  /* allocated, in bytes, where flags has SLAB_ACCOUNT; else 0 */
	unsigned int sheaves;	  /* in slots and barns */
	unsigned int barn_full;
	unsigned int barn_empty;
	unsigned long debug_errors; /* what debugging found and mended: nolock/debug.h */
	unsigned long stat[NOLOCK_NR_STAT_ITEMS];
};

/* One heap. */
struct nolock_heap_stat {
	char name[32];
	enum nolock_heap_type type;
	unsigned long base;	      /* address */
	unsigned long size;	      /* bytes of address space */
	unsigned long opened;	      /* bytes that may be handed out without a system call */
	unsigned long metadata;	      /* bytes of metadata that are opened */
	unsigned long chunks_free;    /* free chunks of 64 KiB, the reserve included */
	unsigned long chunks_reserve; /* set aside by populate, still there */
	unsigned long reserve_target; /* set aside by populate, asked for */
	unsigned int nr_caches;	      /* caches in use; ids may have gaps */
	unsigned int nr_slots;	      /* slots of each kind */
	unsigned int clients;	      /* processes registered (shared heaps) */
	unsigned long large;	      /* large objects in use */
	unsigned long accounted;      /* bytes in use of accounted caches and large objects */
};

/* nolock_stat_name - SLUB's lower-case name of a counter, or NULL. Any context. */
NOLOCK_API const char *nolock_stat_name(enum nolock_stat_item item);

/*
 * nolock_heap_stat - read a heap's figures
 * Returns 0; -EINVAL without a heap; -EPROTO (another version) or -EUCLEAN for a damaged header.
 * Ordinary context.
 */
NOLOCK_API int nolock_heap_stat(const struct nolock_heap *heap, struct nolock_heap_stat *st);

/*
 * nolock_heap_cache_stat - read the figures of cache number @id
 * Returns 0, or -ENOENT when no cache has that number, or -ERANGE when none can (end the loop); else
 * as nolock_heap_stat(). Ordinary context.
 */
NOLOCK_API int nolock_heap_cache_stat(const struct nolock_heap *heap, unsigned int id,
				      struct nolock_cache_stat *st);

/*
 * nolock_heap_attach_pid - read the private heap of another process
 * Copies the heap's metadata out of the process (process_vm_readv); the handle returned serves
 * nolock_heap_stat(), nolock_heap_cache_stat() and nolock_heap_close() alone, and shows the
 * moment of the call. Returns NULL: ESRCH (no such process), EPERM (not allowed to read it),
 * ENODEV (the process has no nolock heap), EPROTO (another version). Ordinary context.
 */
NOLOCK_API struct nolock_heap *nolock_heap_attach_pid(int pid);

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_STAT_H */
