/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * place.h - the one place that knows whether the core is compiled for the CPU or for BPF.
 *
 * Everything else in core/ is written in the words defined here: how a pointer into the heap is
 * spelled, what a function of the core is, how a loop is bounded, and which single-instruction
 * operations exist on a shared word.
 *
 * Ordering. nl_cas, nl_xchg, nl_add, nl_or and nl_and are full barriers on the CPU side. In BPF
 * cmpxchg and xchg are full barriers, while or, and, add with their result unused are relaxed
 * by the BPF memory model: where a following load must not pass one, nl_mb() stands between.
 */
#ifndef NL_CORE_PLACE_H
#define NL_CORE_PLACE_H

#define NL_INLINE static inline __attribute__((always_inline))
#define nl_likely(x) __builtin_expect(!!(x), 1)
#define nl_unlikely(x) __builtin_expect(!!(x), 0)
#define nl_barrier() __asm__ volatile("" ::: "memory")

#ifdef __bpf__

typedef unsigned char nl_u8;
typedef unsigned short nl_u16;
typedef unsigned int nl_u32;
typedef unsigned long long nl_u64;

/* A pointer into the heap: an arena pointer, cast by the verifier at each access. */
#define NLA __attribute__((address_space(1)))
/* A function of the core with loops or several callers: verified once, on its own. */
#define NL_FUNC __attribute__((noinline))
/* The same, but inlined there: the verifier allows 8 frames, the caller's own among them. */
#define NL_FLAT static inline __attribute__((always_inline, unused))
/* Groups that scans may look at, whatever a damaged header says: an arena is at most 4 GiB. */
#define NL_REACH_GROUPS 1024u
/* An arena pointer parameter of such a function. */
#define NL_ARG __attribute__((btf_decl_tag("arg:arena")))

/*
 * What a loop counts starts from a zero that the verifier does not know, read from a global, and
 * the loop asks may_goto beside its own bound: the verifier then checks its body once instead of
 * once for each turn.
 */
static volatile nl_u32 nl_unknown_zero;

NL_INLINE nl_u32 nl_zero(void)
{
	return nl_unknown_zero;
}

#define NL_CAN_LOOP                                                                                \
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

#define nl_load(p) (*(volatile __typeof__(*(p)) *)(p))
#define nl_store(p, v) (*(volatile __typeof__(*(p)) *)(p) = (v))
/*
 * The BPF instruction set has no acquire load before v6.15; an xchg or cmpxchg that took the
 * lock before is the full barrier that makes a plain load enough.
 */
#define nl_load_acquire(p) nl_load(p)
/*
 * A plain BPF store becomes a plain store of the machine: a release on x86, whose stores stay in
 * order and behind its loads. It is none on arm64; xchg is. The object is built for one machine.
 */
#ifdef __TARGET_ARCH_x86
#define nl_store_release(p, v)                                                                     \
	({                                                                                         \
		nl_barrier();                                                                      \
		nl_store(p, v);                                                                    \
	})
#else
#define nl_store_release(p, v) ((void)__sync_lock_test_and_set((p), (v)))
#endif
#define nl_cas(p, old, val) (__sync_val_compare_and_swap((p), (old), (val)) == (old))
#define nl_xchg(p, val) __sync_lock_test_and_set((p), (val))
#define nl_or(p, val) ((void)__sync_fetch_and_or((p), (val)))
#define nl_and(p, val) ((void)__sync_fetch_and_and((p), (val)))
#define nl_add(p, val) ((void)__sync_fetch_and_add((p), (val)))

NL_INLINE void nl_mb(void)
{
	nl_u64 word = 0;

	(void)__sync_lock_test_and_set(&word, 1);
}

#define nl_pause() ((void)0)

#else /* CPU */

#include <stdint.h>

typedef uint8_t nl_u8;
typedef uint16_t nl_u16;
typedef uint32_t nl_u32;
typedef uint64_t nl_u64;

#define NLA
#define NL_FUNC __attribute__((visibility("hidden")))
#define NL_FLAT NL_FUNC
#define NL_ARG
#define NL_REACH_GROUPS (1u << 16) /* NL_MAX_GROUPS */

#define nl_zero() 0u
#define NL_CAN_LOOP 1

#define nl_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define nl_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define nl_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define nl_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define nl_cas(p, old, val) __sync_bool_compare_and_swap((p), (old), (val))
#define nl_xchg(p, val) __atomic_exchange_n((p), (val), __ATOMIC_SEQ_CST)
#define nl_or(p, val) ((void)__atomic_fetch_or((p), (val), __ATOMIC_SEQ_CST))
#define nl_and(p, val) ((void)__atomic_fetch_and((p), (val), __ATOMIC_SEQ_CST))
#define nl_add(p, val) ((void)__atomic_fetch_add((p), (val), __ATOMIC_SEQ_CST))
#define nl_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)

#ifdef __x86_64__
#define nl_pause() __builtin_ia32_pause()
#else
#define nl_pause() ((void)0)
#endif

#endif /* __bpf__ */

/* A counted loop: i from 0 to n - 1. Its break path is as safe as its end. */
#define nl_for(i, n) for (nl_u32 i = nl_zero(); i < (n) && NL_CAN_LOOP; i++)

/* A loop with a small constant bound, unrolled: the verifier then sees straight code. */
#ifdef __clang__
#define NL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define NL_UNROLL _Pragma("GCC unroll 4")
#endif

#endif /* NL_CORE_PLACE_H */
