/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * inline.h - kmalloc() and kmalloc_nolock() of a constant size, in line at the caller
 *
 * Not included directly: nolock/slab.h does, unless NOLOCK_NO_INLINE is defined. What a call of a
 * function in a shared library costs, a call and a return through two jumps, is more than half of
 * an allocation; Linux's kmalloc() is an inline function for the same reason.
 *
 * The sequence below is the one of the library's own fast path (there it is explained: lib/rseq.h),
 * so what it relies on is part of the library's binary interface: struct nolock_thread, and the
 * first three words of a slot, which are its lock, its count and the address of its objects. A
 * library that lays them out in another way leaves nolock_thread's slots 0, as they are at a thread's
 * start, and every call goes to the library.
 */
#ifndef NOLOCK_INLINE_H
#define NOLOCK_INLINE_H

#include <stddef.h>

/* What a thread knows of its CPU's slots in the private heap. Written by the library alone. */
struct nolock_thread {
	unsigned long slots; /* address of the first slot of the first row; 0: call the library */
	unsigned int last_tag;
	unsigned int vforked;
	long rseq;	      /* from the thread pointer to the thread's struct rseq */
	unsigned long tagged; /* slots, less the part of a slab's tag that is not a slot's offset */
	unsigned int seen_tag; /* of the last free that went without last_tag */
};

#if defined(__x86_64__) && defined(__LP64__) && !defined(NOLOCK_NO_INLINE)

extern __thread struct nolock_thread nolock_thread __attribute__((tls_model("initial-exec")));

/*
 * nolock_pop - an object of the private heap's kmalloc bucket, if the CPU's own sheaf has one
 * @bucket: nolock_bucket(size)
 * Any context, wait-free: at most one store that others can see. NULL where the library is to be
 * called: the sheaf is empty, or locked by whom this interrupted, or the sequence was interrupted.
 * ("?" puts the descriptor into the group of the function that has it, which C++ may discard.)
 * Source: Linux's rseq(2).
 */
static inline __attribute__((always_inline)) void *nolock_pop(size_t bucket)
{
	unsigned long slots = nolock_thread.slots, slot, word, obj;

	if (__builtin_expect(!slots, 0))
		return NULL;
	slots += bucket;
	__asm__ volatile(
		".pushsection __rseq_cs, \"aw?\"\n\t"
		".balign 32\n"
		"3:\t.long 0, 0\n\t"
		".quad 1f, 2f - 1f, 4f\n\t"
		".popsection\n\t"
		".pushsection __rseq_cs_ptr_array, \"aw?\"\n\t"
		".quad 3b\n\t"
		".popsection\n\t"
		"leaq 3b(%%rip), %[slot]\n\t"
		"movq %[slot], %%fs:8(%[rseq])\n"
		"1:\n\t"
		"movl %%fs:24(%[rseq]), %k[slot]\n\t"
		"shlq $16, %[slot]\n\t"
		"addq %[slots], %[slot]\n\t"
		"movq 8(%[slot]), %[word]\n\t"
		"movzwl %w[word], %k[obj]\n\t"
		"testw %w[word], %w[word]\n\t"
		"jle 5f\n\t"
		"movq 16(%[slot]), %[slots]\n\t"
		"movq -8(%[slots], %[obj], 8), %[obj]\n\t"
		"addq $0xffff, %[word]\n\t"
		"movq %[word], 8(%[slot])\n"
		"2:\n\t"
		".pushsection __rseq_failure, \"ax?\"\n\t"
		".byte 0x0f, 0xb9, 0x3d\n\t" /* ud1, the signature its operand */
		".long 0x53053053\n"
		"4:\tjmp 5f\n" /* only an abort comes here */
		"5:\txorl %k[obj], %k[obj]\n\t"
		"jmp 6f\n\t"
		".popsection\n"
		"6:\n"
		: [slot] "=&r"(slot), [word] "=&r"(word), [slots] "+&r"(slots), [obj] "=&a"(obj)
		: [rseq] "r"(nolock_thread.rseq)
		: "memory", "cc");
	return (void *)obj;
}

#else

static inline void *nolock_pop(size_t bucket)
{
	(void)bucket;
	return NULL;
}

#endif

#endif /* NOLOCK_INLINE_H */
