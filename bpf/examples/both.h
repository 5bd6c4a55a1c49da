/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * both.h - one source for a program and for the process beside it: the few words in which the two
 * differ. What is shared lies in a heap of libnolock's; both have the same addresses for it.
 *
 *   __shared                         a pointer to something in the heap
 *   load_acquire, store_release      of an aligned word; pairs with each other across the sides
 *   cas, xchg, add                   full barriers; cas() says whether it stored; add() is void,
 *                                    and no barrier in BPF
 *   read_barrier, full_barrier       loads before it happen before loads after it; everything does
 *   kmalloc_here(p, size)            a nolock allocation from the heap that p lies in
 *   bounded(i, n)                    for i from 0 to n - 1: a loop that the verifier accepts
 *   unknown(n)                       n: to begin with, of what such a loop changes; so the verifier
 *                                    looks at its body once, not once for each value
 */
#ifndef EXAMPLES_BOTH_H
#define EXAMPLES_BOTH_H

#define EBUSY_HERE (-16)
#define ENOMEM_HERE (-12)
#define ENOENT_HERE (-2)
#define E2BIG_HERE (-7)
#define EEXIST_HERE (-17)

#ifdef __bpf__

#define __shared __arena
#define BOTH_INLINE static inline __attribute__((always_inline))
/* Verified once, however often it is called. */
#define BOTH_FUNC __attribute__((noinline))
#define BOTH_ARG __attribute__((btf_decl_tag("arg:arena")))

#define load(p) (*(volatile __typeof__(*(p)) *)(p))
#define store(p, v) (*(volatile __typeof__(*(p)) *)(p) = (v))
#define cas(p, old, new) (__sync_val_compare_and_swap((p), (old), (new)) == (old))
#define xchg(p, v) __sync_lock_test_and_set((p), (v))
#define add(p, v) ((void)__sync_fetch_and_add((p), (v)))
#define compiler_barrier() __asm__ volatile("" ::: "memory")
#define kmalloc_here(p, size) kmalloc_nolock((size), 0, NUMA_NO_NODE)

/* BPF has none of its own before Linux 6.15, but an atomic operation with a result is one. */
BOTH_INLINE void full_barrier(void)
{
	unsigned long long word = 0;

	(void)__sync_lock_test_and_set(&word, 1);
}

#ifdef __TARGET_ARCH_x86
/* The machine keeps loads in order, and stores; only the compiler is to be told. */
#define read_barrier() compiler_barrier()
#define store_release(p, v)                                                                        \
	({                                                                                         \
		compiler_barrier();                                                                \
		store(p, v);                                                                       \
	})
#else
#define read_barrier() full_barrier()
#define store_release(p, v) ((void)__sync_lock_test_and_set((p), (v)))
#endif
#define load_acquire(p)                                                                            \
	({                                                                                         \
		__auto_type loaded = load(p);                                                      \
		read_barrier();                                                                    \
		loaded;                                                                            \
	})

static volatile unsigned int unknown_zero;
#define unknown(n) ((n) + unknown_zero)

#define may_go_on                                                                                  \
	({                                                                                         \
		__label__ l_break, l_continue;                                                     \
		int can = 1;                                                                       \
		__asm__ volatile goto("1:.byte 0xe5; .byte 0; .long ((%l[l_break] - 1b - 8) / 8) " \
				      "& 0xffff; .short 0" ::                                      \
					      :                                                    \
				      : l_break);                                                  \
		goto l_continue;                                                                   \
l_break:                                                                                           \
		can = 0;                                                                           \
l_continue:                                                                                        \
		can;                                                                               \
	})
#define bounded(i, n) for (unsigned int i = unknown_zero; i < (n) && may_go_on; i++)

#else

#include <nolock/heap.h>
#include <nolock/slab.h>
#include <linux/types.h>

#define __shared
#define BOTH_INLINE static inline __attribute__((always_inline))
#define BOTH_FUNC static __attribute__((unused))
#define BOTH_ARG

#define load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define cas(p, old, new) __sync_bool_compare_and_swap((p), (old), (new))
#define xchg(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define add(p, v) ((void)__atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST))
#define kmalloc_here(p, size) nolock_heap_kmalloc_nolock(nolock_heap_of(p), (size), 0, NUMA_NO_NODE)
#define read_barrier() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define full_barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define unknown(n) (n)
#define bounded(i, n) for (unsigned int i = 0; i < (n); i++)

#endif

#endif /* EXAMPLES_BOTH_H */
