/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * gfp.h - allocation flags, with the names and meanings of Linux's gfp_t.
 *
 * A flag that has no meaning outside a kernel (zones, movability) does not exist here. Passing a
 * bit that is not in NOLOCK_GFP_MASK makes an allocation fail with EINVAL.
 */
#ifndef NOLOCK_GFP_H
#define NOLOCK_GFP_H

#ifdef __cplusplus
extern "C" {
#endif

typedef unsigned int gfp_t;

/*
 * Zero the memory: all of the object, as far as ksize() says, so that what krealloc() adds to it later,
 * with this flag in each call, is zero, too.
 */
#define __GFP_ZERO ((gfp_t)0x0100)
/* May make system calls: open more of the heap, give memory back from other caches. */
#define __GFP_DIRECT_RECLAIM ((gfp_t)0x0400)
/* A bounded wait for a barn's lock is allowed. */
#define __GFP_KSWAPD_RECLAIM ((gfp_t)0x0800)
/*
 * No message when the allocation fails. Without this flag, a failure of an allocation that may wait or
 * make system calls (__GFP_RECLAIM) is a line on stderr, ten of them in five seconds at most, as in
 * Linux's slab_out_of_memory(); *_nolock calls say nothing. The drop-in malloc does not either.
 */
#define __GFP_NOWARN ((gfp_t)0x2000)
/*
 * Count the object as accounted. kmalloc() takes it from the accounted buckets (kmalloc-cg-*, as
 * Linux); a cache counts all of its objects, or none: SLAB_ACCOUNT in slab.h.
 */
#define __GFP_ACCOUNT ((gfp_t)0x0040)
/*
 * The caller cannot handle failure: abort() with a message instead of NULL. Not for *_nolock, and not
 * for kmem_cache_prefill_percpu_array().
 */
#define __GFP_NOFAIL ((gfp_t)0x8000)
/* The request is for the given node (or the CPU's) alone, no other node may serve it. */
#define __GFP_THISNODE ((gfp_t)0x0020)

#define __GFP_RECLAIM (__GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM)

/* An ordinary allocation. */
#define GFP_KERNEL (__GFP_RECLAIM)
/* As GFP_KERNEL, accounted. */
#define GFP_KERNEL_ACCOUNT (GFP_KERNEL | __GFP_ACCOUNT)
/* No system call; opened memory only. */
#define GFP_NOWAIT (__GFP_KSWAPD_RECLAIM | __GFP_NOWARN)
/*
 * As GFP_NOWAIT, with a message on failure, which is its one system call, and allowed into the memory
 * set aside by populate.
 */
#define GFP_ATOMIC ((gfp_t)0x0200 | __GFP_KSWAPD_RECLAIM)

#define NOLOCK_GFP_MASK                                                                            \
	(__GFP_ZERO | __GFP_RECLAIM | __GFP_NOWARN | __GFP_ACCOUNT | __GFP_NOFAIL |                \
	 __GFP_THISNODE | GFP_ATOMIC)

/* Flags that kmalloc_nolock() and kmem_cache_alloc_nolock() take; others fail with EINVAL. */
#define NOLOCK_GFP_NOLOCK_MASK (__GFP_ZERO | __GFP_ACCOUNT | __GFP_NOWARN)

/* Any node. */
#define NUMA_NO_NODE (-1)

/*
 * gfpflags_allow_spinning - may an allocation with these flags wait for a lock?
 * Source: gfpflags_allow_spinning() in Linux's gfp.h. Any context.
 */
static inline int gfpflags_allow_spinning(gfp_t flags)
{
	return (flags & __GFP_RECLAIM) != 0;
}

/*
 * gfpflags_allow_blocking - may an allocation with these flags make system calls?
 * Source: gfpflags_allow_blocking() in Linux's gfp.h. Any context.
 */
static inline int gfpflags_allow_blocking(gfp_t flags)
{
	return (flags & __GFP_DIRECT_RECLAIM) != 0;
}

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_GFP_H */
