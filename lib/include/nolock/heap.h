/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * heap.h - heaps: the process's private one, more private ones, and shared ones.
 *
 * A shared heap is one memory object mapped at the same address in every process that opens it,
 * so that a pointer means the same in all of them, and in BPF programs where the object is a
 * bpf_arena. nolockd(8) creates shared heaps, keeps them populated, and decides who may open
 * them. Contexts are named as in slab.h.
 *
 * NUMA. A shared heap has the nodes of the machine that it is made on, 4 at most: the kernel's number
 * modulo 4. Its memory comes from the node that asks, and objects that are freed elsewhere go back
 * there. A private heap has node 0 alone, since its fast paths know no CPU, unless NOLOCK_NUMA=1 was
 * in the environment when it was made: then it has nodes, too, and no fast paths.
 * NOLOCK_FAKE_NODES=N (1 to 4), for tests, gives every heap that is made N nodes, CPU c being of node
 * c % N; memory is not bound then. A TINY build has one node.
 */
#ifndef NOLOCK_HEAP_H
#define NOLOCK_HEAP_H

#include <nolock/slab.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Longest name of a shared heap: letters, digits, '-', '_' and '.', not starting with '.'. */
#define NOLOCK_HEAP_NAME_MAX 31

enum nolock_heap_type {
	NOLOCK_HEAP_NONE = -1,
	NOLOCK_HEAP_PRIVATE, /* of this process */
	NOLOCK_HEAP_MEMFD,   /* shared, a sealed memfd: no BPF */
	NOLOCK_HEAP_ARENA,   /* shared, a bpf_arena: user space and BPF */
};

/*
 * nolock_heap_default - the process's private heap, made on first use
 * It reserves 256 GiB of addresses; where RLIMIT_AS leaves less than twice of that, none but for its
 * metadata, 2 % of the limit. NOLOCK_HEAP_MAX=MIB in the environment (16 to 262144) makes a heap of
 * that size at most which reserves none: for programs that set RLIMIT_AS later, and for mlockall(),
 * which the kernel refuses while more is mapped, reserved or not, than RLIMIT_MEMLOCK allows.
 * Returns NULL only if no memory could be reserved (errno: ENOMEM). Any context.
 */
NOLOCK_API struct nolock_heap *nolock_heap_default(void);

/*
 * nolock_heap_create - make a private heap
 * @size: bytes of address space to reserve, rounded up to 4 MiB; 0 for that of the default heap.
 *	  Reserving costs no memory.
 * Returns the heap or NULL: EINVAL (more than 256 GiB), ENOMEM, EMFILE (64 heaps are open in this
 * process, shared ones and the default one included). Ordinary context.
 */
NOLOCK_API struct nolock_heap *nolock_heap_create(size_t size);

/*
 * nolock_heap_open - open a shared heap by name
 * @name: as given to nolockd
 * Asks nolockd over its socket (NOLOCK_SOCKET, or /run/nolock/nolockd.sock) for the heap, and
 * maps it. Opening a heap twice gives the same handle, to be closed as often.
 * A child after fork() does not have its parent's shared heaps and must not touch their handles;
 * it opens the heap again, and the addresses are the same.
 * Returns the heap or NULL: ENOENT (no such heap), ECONNREFUSED (nolockd does not run), EACCES
 * (nolockd refuses this user), EMFILE (64 heaps are open in this process), EPROTO (another
 * version), EADDRINUSE (the heap's address is taken in this process), EUSERS (too many clients),
 * EINVAL (the name). Ordinary context.
 */
NOLOCK_API struct nolock_heap *nolock_heap_open(const char *name);

/*
 * nolock_heap_close - close a heap that was opened, or destroy one that was created
 * A private heap's memory goes with it. Nobody may use the heap in this process any more.
 * Objects of a shared heap that wait for a grace period (rcu.h) are freed first, which blocks and
 * may fail as nolock_rcu_barrier(). Returns 0; -EINVAL for the default heap, which cannot be closed,
 * and for what is no open heap. Ordinary context.
 */
NOLOCK_API int nolock_heap_close(struct nolock_heap *heap);

/*
 * nolock_heap_populate - set memory aside for the nolock calls
 * @bytes: rounded up to chunks of 64 KiB; this many are opened, made present, and kept for
 *	   nolock callers alone: ordinary allocations neither take nor shrink them, and top them
 *	   up again in passing when nolock callers have used some
 * Returns 0, -ENOMEM (what could be set aside stays so) or -EINVAL (more than any heap holds: nothing
 * has changed). Ordinary context.
 */
NOLOCK_API int nolock_heap_populate(struct nolock_heap *heap, size_t bytes);

/*
 * nolock_heap_trim - give free memory back to the system
 * Flushes sheaves, frees empty slabs, and drops the pages of free chunks beyond the populated
 * reserve; in a private heap also the free pages of partly used slabs of kmalloc()'s own caches,
 * unless they are debugged. Returns the bytes given back. Ordinary context.
 */
NOLOCK_API size_t nolock_heap_trim(struct nolock_heap *heap);

/* What nolock_heap_check() saw. Every object is counted in exactly one of the three places. */
struct nolock_heap_report {
	unsigned long chunks;	      /* chunks of the heap that are opened, metadata not counted */
	unsigned long chunks_free;    /* of them free, the reserve included */
	unsigned long chunks_reserve; /* set aside by populate */
	unsigned long chunks_slab;    /* slabs */
	unsigned long chunks_large;   /* parts of large objects */
	unsigned long objects;	      /* objects in all slabs */
	unsigned long in_slabs;	      /* free in the slab bitmaps */
	unsigned long in_sheaves;     /* free in sheaves: slots, barns, prefilled, of kfree_rcu() */
	unsigned long allocated;      /* neither: in use */
	unsigned long large;	      /* large objects in use */
	unsigned long allocs;	      /* allocations ever made, by the counters */
	unsigned long frees;	      /* frees ever made, by the counters */
	unsigned long refused;	      /* double, foreign and interior frees refused */
	unsigned long locks_held;     /* locks found held: 0 when nothing runs */
	unsigned long debug_errors;   /* what debugging found and mended: nolock/debug.h */
	unsigned long errors;	      /* broken invariants; 0 means the inventory is whole */
	char first_error[160];	      /* the first one in words */
};

/*
 * nolock_heap_check - prove that the inventory is whole
 * @heap: any heap; meaningful at a quiescent point: no other thread or process or BPF program
 *	  is inside the allocator
 * @report: filled in, or NULL
 * Checks that every chunk, slab, sheaf and object is in exactly one place, that all links and
 * sizes are in range, and that the counters agree with the objects. Reads only.
 * Returns 0 when whole, -EUCLEAN when not, -ENOMEM when it could not run. Ordinary context.
 */
NOLOCK_API int nolock_heap_check(struct nolock_heap *heap, struct nolock_heap_report *report);

/*
 * nolock_heap_type, nolock_heap_name - what kind of heap, and its name ("" for private)
 * Any context, wait-free. Of NULL these and the calls up to nolock_heap_layout() say NOLOCK_HEAP_NONE, "", -1, 0.
 */
NOLOCK_API enum nolock_heap_type nolock_heap_type(const struct nolock_heap *heap);
NOLOCK_API const char *nolock_heap_name(const struct nolock_heap *heap);

/*
 * nolock_heap_fd - the descriptor of a shared heap's memory (an arena map, or a memfd), or -1
 * Stays the library's: do not close it. Any context, wait-free.
 */
NOLOCK_API int nolock_heap_fd(const struct nolock_heap *heap);

/*
 * nolock_heap_layout - the version of how a heap's memory is laid out
 * All who have a heap agree on it: nolockd and the library refuse a heap of another, and
 * nolock_bpf_attach_heap() programs built for another. Any context, wait-free.
 */
NOLOCK_API unsigned int nolock_heap_layout(const struct nolock_heap *heap);

/* nolock_heap_of - the open heap that an address lies in, or NULL. Any context, wait-free. */
NOLOCK_API struct nolock_heap *nolock_heap_of(const void *p);

/*
 * The calls of slab.h and page.h on a given heap. kfree(), kfree_nolock(), ksize() and krealloc()
 * find an object's heap by themselves.
 */
NOLOCK_API void *nolock_heap_kmalloc(struct nolock_heap *heap, size_t size, gfp_t flags);
NOLOCK_API void *nolock_heap_kzalloc(struct nolock_heap *heap, size_t size, gfp_t flags);
NOLOCK_API void *nolock_heap_kmalloc_node(struct nolock_heap *heap, size_t size, gfp_t flags,
					  int node);
NOLOCK_API void *nolock_heap_kmalloc_array(struct nolock_heap *heap, size_t n, size_t size,
					   gfp_t flags);
NOLOCK_API void *nolock_heap_kcalloc(struct nolock_heap *heap, size_t n, size_t size, gfp_t flags);
NOLOCK_API void *nolock_heap_kmalloc_nolock(struct nolock_heap *heap, size_t size, gfp_t flags,
					    int node);
/* The heap is that of @p; the given one where @p is NULL or ZERO_SIZE_PTR. */
NOLOCK_API void *nolock_heap_krealloc(struct nolock_heap *heap, const void *p, size_t new_size,
				      gfp_t flags);
NOLOCK_API void *nolock_heap_krealloc_array(struct nolock_heap *heap, void *p, size_t n,
					    size_t size, gfp_t flags);
NOLOCK_API struct kmem_cache *nolock_heap_kmem_cache_create(struct nolock_heap *heap,
							    const char *name,
							    unsigned int object_size,
							    const struct kmem_cache_args *args,
							    slab_flags_t flags);
NOLOCK_API void *nolock_heap_alloc_pages(struct nolock_heap *heap, gfp_t gfp, unsigned int order);
NOLOCK_API void *nolock_heap_alloc_pages_nolock(struct nolock_heap *heap, gfp_t gfp, int node,
						unsigned int order);

/*
 * nolock_heap_kmem_cache_find - a cache of the heap by its name, cut as kmem_cache_create() does; or
 * NULL (ENOENT)
 * How a second process, or nolockd, gets at a cache that the first one made. Ordinary context.
 */
NOLOCK_API struct kmem_cache *nolock_heap_kmem_cache_find(struct nolock_heap *heap,
							  const char *name);

/*
 * nolock_heap_root, nolock_heap_set_root - one word that all users of a shared heap see
 * The place for a pointer to what they share. An atomic load and store. Any context, wait-free. A
 * heap that is NULL has NULL there, and keeps it.
 */
NOLOCK_API void *nolock_heap_root(const struct nolock_heap *heap);
NOLOCK_API void nolock_heap_set_root(struct nolock_heap *heap, void *p);

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_HEAP_H */
