/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * slab.h - the slab allocator: kmalloc, kmem_cache, and their _nolock forms.
 *
 * Contexts. "Any context" means: ordinary code, a signal handler whatever it interrupted (this
 * library included), a child after fork(), a single-stepped program. "Any context, wait-free"
 * adds: no system call, no lock waited for, no unbounded retry. Functions without a heap argument
 * work on the process's private heap, which is made on first use.
 *
 * A handler should return to a call of this library that it has interrupted. If it does not, by
 * siglongjmp() or pthread_exit(), the heap stays usable and whole: what the call had locked stays so
 * until its thread exits, which costs others time, and what it had in its hands, less than a sheaf, is
 * never freed.
 *
 * Alignment. An object of a power-of-two size is aligned to its size (up to 64 KiB); any other
 * kmalloc object to the largest power of two that divides its bucket, at least 16.
 *
 * Errors. An allocation that fails returns NULL and sets errno: ENOMEM (nothing left), EINVAL
 * (flags, size or alignment that make no sense). Frees never fail. A pointer into no heap, into
 * metadata or into free memory is refused at once, counted (nolock_heap_check()) and, by kfree(),
 * reported once on stderr. A pointer into the middle of an object, and an object freed twice, may
 * go through a sheaf first: they are caught, and counted, when that sheaf is full, or where they reach
 * their slab. nolock/debug.h says what is caught when, and how to catch all at once.
 */
#ifndef NOLOCK_SLAB_H
#define NOLOCK_SLAB_H

#include <stddef.h>
#include <nolock/gfp.h>
#include <nolock/inline.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef NOLOCK_API
#define NOLOCK_API __attribute__((visibility("default")))
#endif

struct kmem_cache;
struct slab_sheaf;
struct nolock_heap;

typedef unsigned int slab_flags_t;

/* Debugging of one cache of a private heap, as the letters F, Z, P, U and T do: nolock/debug.h. */
#define SLAB_CONSISTENCY_CHECKS ((slab_flags_t)0x00000100)
#define SLAB_RED_ZONE ((slab_flags_t)0x00000400)
#define SLAB_POISON ((slab_flags_t)0x00000800)
#define SLAB_STORE_USER ((slab_flags_t)0x00010000)
#define SLAB_TRACE ((slab_flags_t)0x00200000)
/* Align objects to a cache line (64 bytes), smaller ones to a fraction of it. */
#define SLAB_HWCACHE_ALIGN ((slab_flags_t)0x00002000)
/* Abort if the cache cannot be created. */
#define SLAB_PANIC ((slab_flags_t)0x00040000)
/* Count the cache's objects in use as accounted, in nolock_cache_stat and nolock_heap_stat. */
#define SLAB_ACCOUNT ((slab_flags_t)0x04000000)
/*
 * Slabs go back to the heap after a grace period only: an object may be read in a read-side section
 * even after it was freed, and is then an object of this cache. Needs nolock_rcu_register(), rcu.h.
 * In a shared heap, whose other users' readers nobody knows here, they stay until the cache is
 * destroyed.
 */
#define SLAB_TYPESAFE_BY_RCU ((slab_flags_t)0x00080000)
/* Never share slabs with another cache. Caches are never merged here: accepted, no effect. */
#define SLAB_NO_MERGE ((slab_flags_t)0x01000000)

/* What an allocation of size 0 returns: not NULL, not to be dereferenced, may be freed. */
#define ZERO_SIZE_PTR ((void *)16)
#define ZERO_OR_NULL_PTR(x) ((unsigned long)(x) <= (unsigned long)ZERO_SIZE_PTR)

/* Smallest and largest kmalloc bucket; larger requests are whole chunks of 64 KiB. */
#define KMALLOC_MIN_SIZE 16
#define KMALLOC_MAX_CACHE_SIZE 32768

/*
 * kmalloc - allocate size bytes
 * @size: bytes; 0 gives ZERO_SIZE_PTR; at most what the heap can hold in one piece
 * @flags: GFP_KERNEL and the like
 * Returns the object or NULL. Any context: where the flags allow spinning it waits for no longer
 * than a bounded number of tries, and where they allow blocking it may make system calls.
 * Source: kmalloc() of Linux's slab.h.
 */
NOLOCK_API void *kmalloc(size_t size, gfp_t flags);

/* kzalloc - kmalloc() with the memory set to zero. Same contexts and errors. */
NOLOCK_API void *kzalloc(size_t size, gfp_t flags);

/*
 * kmalloc_node - kmalloc() from a NUMA node
 * @node: the node, or NUMA_NO_NODE: that of the CPU. A node that the heap has not fails with EINVAL.
 * Without __GFP_THISNODE another node serves when this one has nothing left and cannot grow.
 * Which nodes a heap has: heap.h. Contexts and errors as kmalloc().
 * Source: kmalloc_node() of Linux's slub.c.
 */
NOLOCK_API void *kmalloc_node(size_t size, gfp_t flags, int node);

/*
 * krealloc - change the size of an object
 * @p: the object, NULL or ZERO_SIZE_PTR
 * @new_size: bytes; 0 frees @p and returns ZERO_SIZE_PTR
 * @flags: with __GFP_ZERO, here and in all calls for this object so far, bytes beyond its old size
 *	   are zero. Without it in some of them: bytes beyond its old usable size (ksize())
 * Returns the object, moved or not, or NULL with @p untouched. What is no object's start, or is free in
 * its slab, fails with EINVAL, counted and reported as by kfree(). Any context.
 * Source: krealloc() of Linux's slab.h.
 */
NOLOCK_API void *krealloc(const void *p, size_t new_size, gfp_t flags);

/*
 * kmalloc_array, kcalloc, krealloc_array - kmalloc(), kzalloc(), krealloc() of @n times @size bytes
 * A product that does not fit a size_t fails with ENOMEM; an @n or @size of 0 is a size of 0.
 * Contexts and errors as those. Source: the functions of these names in Linux's slab.h.
 */
NOLOCK_API void *kmalloc_array(size_t n, size_t size, gfp_t flags);
NOLOCK_API void *kcalloc(size_t n, size_t size, gfp_t flags);
NOLOCK_API void *krealloc_array(void *p, size_t n, size_t size, gfp_t flags);

/* ksize - usable bytes of an object; 0 for NULL and ZERO_SIZE_PTR. Any context, wait-free. */
NOLOCK_API size_t ksize(const void *p);

/*
 * kfree - free an object of any kind: kmalloc(), kmalloc_nolock(), any cache, any heap that this
 * process has open, or a BPF program
 * @p: the object; NULL and ZERO_SIZE_PTR are ignored
 * Any context. Off the fast path it may make system calls, by which free memory goes back after
 * NOLOCK_DECAY_MS (10000; -1: never); kfree_nolock() makes none.
 * Source: kfree() of Linux's slub.c.
 */
NOLOCK_API void kfree(const void *p);

/*
 * kmalloc_nolock - allocate from any context, wait-free
 * @size: bytes; 0 gives ZERO_SIZE_PTR
 * @flags: NOLOCK_GFP_NOLOCK_MASK; others fail with EINVAL
 * @node: a NUMA node or NUMA_NO_NODE, as for kmalloc_node(); another node serves if it must
 * For sizes up to KMALLOC_MAX_CACHE_SIZE it returns NULL only if, during the call, the slab
 * bitmaps of the size's bucket and of the next larger one and the chunk bitmap were all empty:
 * nolock_heap_populate() sets memory aside for it. Larger sizes are tried once, in opened memory.
 * Source: kmalloc_nolock() of Linux's slub.c.
 */
NOLOCK_API void *kmalloc_nolock(size_t size, gfp_t flags, int node);

/*
 * kfree_nolock - free from any context, wait-free, and cannot fail
 * @p: as for kfree(); memory of kmalloc() is welcome too, as is memory of more than one chunk
 * Source: kfree_nolock() of Linux's slub.c.
 */
NOLOCK_API void kfree_nolock(const void *p);

/*
 * nolock_bucket_alloc, nolock_bucket_alloc_nolock - kmalloc(size, GFP_KERNEL) and
 * kmalloc_nolock(size, 0, NUMA_NO_NODE) of a size whose bucket is known to the compiler
 * @bucket: nolock_bucket(size), for a size of 1 to KMALLOC_MAX_CACHE_SIZE; nothing else is checked
 * Contexts, errors as those. Not called directly: the two inline functions below do, where the
 * CPU's own sheaf has nothing for them.
 * Source: __kmalloc_cache_noprof() of Linux's slub.c, which kmalloc() of a constant size becomes.
 */
NOLOCK_API void *nolock_bucket_alloc(size_t bucket);
NOLOCK_API void *nolock_bucket_alloc_nolock(size_t bucket);

/*
 * nolock_bucket - the kmalloc bucket of a size: 16 apart up to 128, then four a doubling
 * Counted in steps of 256, the size of a slot. Any context.
 */
static inline size_t nolock_bucket(size_t size)
{
	unsigned int top;

	if (size <= 128)
		return (size - 1) / 16 * 256;
	top = 31u - (unsigned int)__builtin_clz((unsigned int)size - 1);
	return (8 + (top - 7) * 4 + (((size - 1) >> (top - 2)) & 3)) * 256;
}

#ifndef NOLOCK_NO_INLINE
/*
 * With a constant size and constant flags the compiler looks up the bucket, and the caller takes
 * the object itself (nolock/inline.h).
 */
void *nolock_kmalloc_any(size_t size, gfp_t flags) __asm__("kmalloc");
void *nolock_kmalloc_nolock_any(size_t size, gfp_t flags, int node) __asm__("kmalloc_nolock");

static inline __attribute__((always_inline)) void *nolock_kmalloc_inline(size_t size, gfp_t flags)
{
	void *p;

	if (!__builtin_constant_p(size) || !__builtin_constant_p(flags) || !size ||
	    size > KMALLOC_MAX_CACHE_SIZE ||
	    (flags & ~(NOLOCK_GFP_MASK & ~(__GFP_ZERO | __GFP_ACCOUNT))))
		return nolock_kmalloc_any(size, flags);
	p = nolock_pop(nolock_bucket(size));
	if (__builtin_expect(p != NULL, 1))
		return p;
	return flags == GFP_KERNEL ? nolock_bucket_alloc(nolock_bucket(size)) :
				     nolock_kmalloc_any(size, flags);
}

static inline __attribute__((always_inline)) void *nolock_kmalloc_nolock_inline(size_t size,
										gfp_t flags,
										int node)
{
	void *p;

	if (!__builtin_constant_p(size) || !__builtin_constant_p(flags) ||
	    !__builtin_constant_p(node) || !size || size > KMALLOC_MAX_CACHE_SIZE || flags ||
	    node != NUMA_NO_NODE)
		return nolock_kmalloc_nolock_any(size, flags, node);
	p = nolock_pop(nolock_bucket(size));
	return __builtin_expect(p != NULL, 1) ? p : nolock_bucket_alloc_nolock(nolock_bucket(size));
}

/* Function-like, so that the functions' own names, addresses and declarations stay as they are. */
#define kmalloc(size, flags) nolock_kmalloc_inline(size, flags)
#define kmalloc_nolock(size, flags, node) nolock_kmalloc_nolock_inline(size, flags, node)
#endif

/* What kmem_cache_create() takes beside name, size and flags. Zero means the default. */
struct kmem_cache_args {
	/* Alignment in bytes: a power of two up to 65536. */
	unsigned int align;
	/* Objects per sheaf, 1 to 126; default by size (NOLOCK's budget of bytes per sheaf). */
	unsigned int sheaf_capacity;
	/* Called once for each object when its slab is made. Private heaps only. */
	void (*ctor)(void *object);
};

/*
 * kmem_cache_create - make a cache of objects of one size
 * @name: for people and for nolock stat; copied; up to 31 bytes, longer ones are cut
 * @object_size: 1 to KMALLOC_MAX_CACHE_SIZE bytes
 * @args: or NULL
 * @flags: SLAB_*
 * Returns the cache, or NULL: EINVAL, ENOMEM, ENOSPC when the heap's cache table is full, or
 * EOPNOTSUPP for SLAB_TYPESAFE_BY_RCU where no RCU is registered.
 * Ordinary context. Source: kmem_cache_create() of Linux's slab.h.
 */
NOLOCK_API struct kmem_cache *kmem_cache_create(const char *name, unsigned int object_size,
						const struct kmem_cache_args *args,
						slab_flags_t flags);

/*
 * kmem_cache_destroy - give all memory of the cache back and forget it
 * @s: NULL is ignored
 * Returns 0; -EINVAL for what is no cache that kmem_cache_create() made; or -EBUSY with a message when
 * objects are still allocated, or others (nolockd, another thread's decay) had free slabs of it in their
 * hands, try after try: the cache stays usable. Of a shared heap's cache free objects count, too, that lie in slots of CPUs on
 * which the calling thread may not run, or that are offline; or of any where this process has no
 * restartable sequences.
 * Waits for objects that were passed to kfree_rcu(), and may fail as nolock_rcu_barrier().
 * Ordinary context; nobody may use the cache any more.
 * (Linux's returns void and leaks in that case.)
 */
NOLOCK_API int kmem_cache_destroy(struct kmem_cache *s);

/* kmem_cache_size - the object size that the cache was made with. Any context, wait-free. */
NOLOCK_API unsigned int kmem_cache_size(const struct kmem_cache *s);

/*
 * kmem_cache_shrink - flush the cache's sheaves and give empty slabs back to the heap
 * Returns the number of slabs given back. Ordinary context.
 */
NOLOCK_API int kmem_cache_shrink(struct kmem_cache *s);

/* kmem_cache_alloc and friends: as kmalloc(), kzalloc(), kmalloc_node(), kmalloc_nolock(). */
NOLOCK_API void *kmem_cache_alloc(struct kmem_cache *s, gfp_t flags);
NOLOCK_API void *kmem_cache_zalloc(struct kmem_cache *s, gfp_t flags);
NOLOCK_API void *kmem_cache_alloc_node(struct kmem_cache *s, gfp_t flags, int node);
NOLOCK_API void *kmem_cache_alloc_nolock(struct kmem_cache *s, gfp_t flags, int node);

/*
 * kmem_cache_free, kmem_cache_free_nolock - as kfree() and kfree_nolock(); an object of another
 * cache is reported, counted, and freed to the cache that it belongs to
 */
NOLOCK_API void kmem_cache_free(struct kmem_cache *s, void *p);
NOLOCK_API void kmem_cache_free_nolock(struct kmem_cache *s, void *p);

/*
 * kmem_cache_alloc_bulk - allocate @size objects into @p, all or nothing
 * @size: up to INT_MAX
 * Returns @size, or 0 with nothing allocated (errno as kmalloc()). Takes them sheaf by sheaf, with
 * one lock. Any context (as kmalloc()). Source: kmem_cache_alloc_bulk() of Linux's slab.h.
 */
NOLOCK_API int kmem_cache_alloc_bulk(struct kmem_cache *s, gfp_t flags, size_t size, void **p);

/*
 * kmem_cache_free_bulk - free @size objects of @s, or of any caches if @s is NULL
 * Runs of objects of one cache go into its sheaves with one lock. Any context (as kfree()).
 * Source: kmem_cache_free_bulk() and kfree_bulk() of Linux's slab.h.
 */
NOLOCK_API void kmem_cache_free_bulk(struct kmem_cache *s, size_t size, void **p);

/*
 * kmem_cache_alloc_bulk_nolock, kmem_cache_free_bulk_nolock - the same with the contexts, flags
 * and promises of kmalloc_nolock() and kfree_nolock() for each object; steps grow with @size alone
 */
NOLOCK_API int kmem_cache_alloc_bulk_nolock(struct kmem_cache *s, gfp_t flags, size_t size,
					    void **p);
NOLOCK_API void kmem_cache_free_bulk_nolock(struct kmem_cache *s, size_t size, void **p);

/*
 * kmem_cache_prefill_sheaf - a sheaf with at least @size objects, for the caller alone
 * @size: 1 to 4096; beyond the cache's sheaf_capacity an oversize sheaf is made
 * Takes this CPU's spare sheaf, or one of the barn, or a new one, and fills it up. In a private heap, for
 * less than half of the sheaf_capacity, an empty one, into which objects of the others are moved.
 * Returns the sheaf or NULL (EINVAL, ENOMEM). Any context (as kmalloc()).
 * Source: kmem_cache_prefill_sheaf() of Linux's slub.c.
 */
NOLOCK_API struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *s, gfp_t gfp,
						       unsigned int size);

/*
 * kmem_cache_prefill_sheaf_nolock - the same from any context, wait-free
 * @gfp: NOLOCK_GFP_NOLOCK_MASK; others fail with EINVAL
 */
NOLOCK_API struct slab_sheaf *kmem_cache_prefill_sheaf_nolock(struct kmem_cache *s, gfp_t gfp,
							      unsigned int size);

/*
 * kmem_cache_refill_sheaf - fill *@sheafp up to at least @size objects again
 * Returns 0, -EINVAL or -ENOMEM; the sheaf is replaced when it is too small, and left as it was
 * on failure. Any context (as kmalloc()). Source: kmem_cache_refill_sheaf() of Linux's slub.c.
 */
NOLOCK_API int kmem_cache_refill_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf **sheafp,
				       unsigned int size);

/*
 * kmem_cache_return_sheaf - give a prefilled sheaf back with what is left in it
 * It becomes this CPU's spare, or goes to the barn, or is emptied into its slabs. What is no prefilled
 * sheaf of the cache (any more) is refused, and counted as a bad free is; one of more objects than a
 * sheaf holds is memory of kmalloc(), and known to be gone only until somebody else has it.
 * Any context; wait-free where @gfp does not allow spinning.
 */
NOLOCK_API void kmem_cache_return_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf);

/*
 * kmem_cache_alloc_from_sheaf - take an object from a prefilled sheaf
 * Returns the object, or NULL when the sheaf is used up: never falls back; EINVAL if it is no
 * prefilled sheaf of the cache. Any context, wait-free; one caller at a time for each sheaf: not in a
 * handler on a sheaf whose call it may have interrupted.
 */
NOLOCK_API void *kmem_cache_alloc_from_sheaf(struct kmem_cache *s, gfp_t gfp,
					     struct slab_sheaf *sheaf);

/* kmem_cache_sheaf_size - objects left in a prefilled sheaf. Any context, wait-free. */
NOLOCK_API unsigned int kmem_cache_sheaf_size(const struct slab_sheaf *sheaf);

/*
 * kmem_cache_setup_percpu_array - give the cache a per-CPU array in place of sheaves and barn
 * @s: a cache made with SLAB_NO_MERGE, from which nothing was allocated yet
 * @count: objects in each CPU's array, 1 to 126
 * Freeing fills the array, allocating empties it; either bypasses it when it is full or empty, or
 * locked by what this call has interrupted. Counted as alloc_cpu_cache and free_cpu_cache.
 * Returns 0, -EINVAL, -EBUSY (in use), -EOPNOTSUPP (without sheaves: it is debugged).
 * Ordinary context. Source: the function of that name in the SLUB percpu array RFCs of 2023.
 */
NOLOCK_API int kmem_cache_setup_percpu_array(struct kmem_cache *s, unsigned int count);

/*
 * kmem_cache_prefill_percpu_array - fill this CPU's array up to at least @count objects
 * @count: at most what the array was set up for
 * Objects of another node are taken when this CPU's has nothing left and cannot grow, and not with
 * __GFP_THISNODE.
 * A thread that moves to another CPU afterwards finds that one's array, and may find it empty.
 * Returns 0, -EINVAL, -EBUSY (locked by what this call has interrupted, or by a thread that was
 * preempted here) or -ENOMEM, with what could be had in the array. Any context (as kmalloc()).
 * __GFP_NOFAIL fails with -EINVAL: it could not be kept.
 * Source: the same.
 */
NOLOCK_API int kmem_cache_prefill_percpu_array(struct kmem_cache *s, unsigned int count, gfp_t gfp);

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_SLAB_H */
