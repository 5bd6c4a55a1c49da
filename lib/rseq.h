/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * rseq.h - the three restartable sequences on an R-slot: pop, push, and take its lock.
 *
 * A sequence reads the slot's index and its lock word and ends in one store, the commit. If the
 * thread is preempted, migrated or gets a signal in between, the kernel sends it to the abort
 * label and nothing has happened; a process killed in it has committed nothing either. So a
 * handler never finds a slot half changed, and the fast path needs no atomic instruction.
 *
 * The slot's index is mm_cid in a private heap: a number below the number of possible CPUs that
 * no two running threads of the process share. In a shared heap it is cpu_id, because other
 * processes have an mm_cid of their own. A thread that is not registered (an old kernel, or
 * switched off) has cpu_id < 0, and may have an mm_cid of 0, which is a valid index: the sign is
 * looked at in every section. The range is not: both are below the number of possible CPUs, and
 * heap.c uses no sections on a heap with fewer slots. Sections are named by the offset of the
 * cache's slot among a CPU's (NL_TAG_SLOT), and run only while heap->rseq_slots is not 0.
 *
 * The lock word is loaded with acquire: it pairs with the release store of nl_slot_unlock() by a
 * holder that was migrated to another CPU. While it is not 0 the sequence leaves the slot alone.
 *
 * Source: Linux's rseq(2) and tools/testing/selftests/rseq; TCMalloc's per-CPU mode uses the
 * same mechanism.
 */
#ifndef NL_RSEQ_H
#define NL_RSEQ_H

#include "internal.h"
#include "core/slot.h"

/* After this many aborted sections the caller goes on to the A-slot. */
#define NL_RSEQ_TRIES 2

enum nl_rseq_result {
	NL_RSEQ_DONE,
	NL_RSEQ_EMPTY, /* nothing to pop, or no room to push */
	NL_RSEQ_BUSY,  /* locked, or no R-slots for this thread */
	NL_RSEQ_ABORT, /* aborted NL_RSEQ_TRIES times */
};

#define NL_STR_(x) #x
#define NL_STR(x) NL_STR_(x)

#if defined(__x86_64__) && !defined(NOLOCK_NO_RSEQ)
#define NL_HAVE_RSEQ 1

/* Descriptor of the section between labels 1 and 2, aborting to 4; its address goes to rseq_cs. */
#define NL_RSEQ_BEGIN                                                                              \
	".pushsection __rseq_cs, \"aw\"\n\t"                                                       \
	".balign 32\n"                                                                             \
	"3:\t.long 0, 0\n\t"                                                                       \
	".quad 1f, 2f - 1f, 4f\n\t"                                                                \
	".popsection\n\t"                                                                          \
	".pushsection __rseq_cs_ptr_array, \"aw\"\n\t"                                             \
	".quad 3b\n\t"                                                                             \
	".popsection\n\t"                                                                          \
	"leaq 3b(%%rip), %[t]\n\t"                                                                 \
	"movq %[t], %%fs:8(%[rseq])\n"                                                             \
	"1:\n\t"                                                                                   \
	"cmpl $0, %%fs:4(%[rseq])\n\t"                                                             \
	"js %l[busy]\n\t"                                                                          \
	"movq %[at], %[t]\n\t"                                                                     \
	"movl %%fs:(%[t]), %k[t]\n\t"                                                              \
	"shlq $16, %[t]\n\t"                                                                       \
	"addq %[objs], %[t]\n\t"                                                                   \
	"cmpq $0, (%[t])\n\t"                                                                      \
	"jne %l[busy]\n\t"

/* The abort handler, after the signature that glibc registered: an ud1 with it as operand. */
#define NL_RSEQ_END                                                                                \
	"2:\n\t"                                                                                   \
	".pushsection __rseq_failure, \"ax\"\n\t"                                                  \
	".byte 0x0f, 0xb9, 0x3d\n\t"                                                               \
	".long 0x53053053\n"                                                                       \
	"4:\tjmp %l[abort]\n\t"                                                                    \
	".popsection\n\t"

#define NL_RSEQ_INPUTS [rseq] "r"(heap->rseq_off), [at] "m"(heap->slot_off)

/* The first slot of the cache; the sections go on to use its register for other things. */
#define NL_RSEQ_SLOTS(heap, slot) ((nl_u64)(heap)->rslots + (slot))

NL_INLINE enum nl_rseq_result nl_rseq_pop_once(const struct nolock_heap *heap, nl_u64 slot,
					       nl_u64 *objp)
{
	nl_u64 t, word, obj, objs = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile goto(
		NL_RSEQ_BEGIN "movq 8(%[t]), %[word]\n\t"
			      "movzwl %w[word], %k[obj]\n\t"
			      "testl %k[obj], %k[obj]\n\t"
			      "jz %l[empty]\n\t"
			      "movq 16(%[t]), %[objs]\n\t"
			      "movq -8(%[objs], %[obj], 8), %[obj]\n\t"
			      "addq $0xffff, %[word]\n\t"
			      "movq %[word], 8(%[t])\n" NL_RSEQ_END
		: [t] "=&r"(t), [word] "=&r"(word), [objs] "+&r"(objs), [obj] "=&a"(obj)
		: NL_RSEQ_INPUTS
		: "memory", "cc"
		: busy, empty, abort);
	*objp = obj;
	return NL_RSEQ_DONE;
busy:
	return NL_RSEQ_BUSY;
empty:
	return NL_RSEQ_EMPTY;
abort:
	return NL_RSEQ_ABORT;
}

NL_INLINE enum nl_rseq_result nl_rseq_push_once(const struct nolock_heap *heap, nl_u64 slot,
						nl_u64 obj)
{
	nl_u64 t, word, n, objs = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile goto(NL_RSEQ_BEGIN "movq 8(%[t]), %[word]\n\t"
					    "movzwl %w[word], %k[n]\n\t"
					    "cmpl 24(%[t]), %k[n]\n\t"
					    "jae %l[full]\n\t"
					    "movq 16(%[t]), %[objs]\n\t"
					    "movq %[obj], (%[objs], %[n], 8)\n\t"
					    "incq %[word]\n\t"
					    "movq %[word], 8(%[t])\n" NL_RSEQ_END
			      : [t] "=&r"(t), [word] "=&r"(word), [objs] "+&r"(objs), [n] "=&r"(n)
			      : NL_RSEQ_INPUTS, [obj] "r"(obj)
			      : "memory", "cc"
			      : busy, full, abort);
	return NL_RSEQ_DONE;
busy:
	return NL_RSEQ_BUSY;
full:
	return NL_RSEQ_EMPTY;
abort:
	return NL_RSEQ_ABORT;
}

NL_INLINE enum nl_rseq_result nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot,
						nl_u64 owner, nl_slot_t **slotp)
{
	nl_u64 t, objs = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile goto(NL_RSEQ_BEGIN "movq %[owner], (%[t])\n" NL_RSEQ_END
			      : [t] "=&r"(t), [objs] "+&r"(objs)
			      : NL_RSEQ_INPUTS, [owner] "r"(owner)
			      : "memory", "cc"
			      : busy, abort);
	*slotp = (nl_slot_t *)t;
	return NL_RSEQ_DONE;
busy:
	return NL_RSEQ_BUSY;
abort:
	return NL_RSEQ_ABORT;
}

/* The index of this thread's slot right now, or nr_slots and more without rseq. */
NL_INLINE nl_u32 nl_rseq_index(const struct nolock_heap *heap)
{
	nl_u32 cpu, index;

	__asm__ volatile("movl %%fs:4(%2), %0\n\tmovl %%fs:(%3), %1"
			 : "=&r"(cpu), "=&r"(index)
			 : "r"(heap->rseq_off), "r"(heap->slot_off));
	return (int)cpu < 0 || index >= heap->rseq_slots ? ~0u : index;
}

#elif defined(__aarch64__) && !defined(NOLOCK_NO_RSEQ)
#define NL_HAVE_RSEQ 1

#define NL_RSEQ_BEGIN                                                                              \
	".pushsection __rseq_cs, \"aw\"\n\t"                                                       \
	".balign 32\n"                                                                             \
	"3:\t.long 0, 0\n\t"                                                                       \
	".quad 1f, 2f - 1f, 4f\n\t"                                                                \
	".popsection\n\t"                                                                          \
	".pushsection __rseq_cs_ptr_array, \"aw\"\n\t"                                             \
	".quad 3b\n\t"                                                                             \
	".popsection\n\t"                                                                          \
	"adrp %[t], 3b\n\t"                                                                        \
	"add %[t], %[t], :lo12:3b\n\t"                                                             \
	"str %[t], [%[rseq], #8]\n"                                                                \
	"1:\n\t"                                                                                   \
	"ldr %w[t], [%[rseq], #4]\n\t"                                                             \
	"tbnz %w[t], #31, %l[busy]\n\t"                                                            \
	"ldr %w[t], [%[at]]\n\t"                                                                   \
	"add %[t], %[slots], %[t], lsl #16\n\t"                                                    \
	"ldar %[x], [%[t]]\n\t"                                                                    \
	"cbnz %[x], %l[busy]\n\t"

#define NL_RSEQ_END                                                                                \
	"2:\n\t"                                                                                   \
	".pushsection __rseq_failure, \"ax\"\n\t"                                                  \
	".inst 0xd428bc00\n"                                                                       \
	"4:\tb %l[abort]\n\t"                                                                      \
	".popsection\n\t"

#define NL_RSEQ_INPUTS                                                                             \
	[rseq] "r"((char *)__builtin_thread_pointer() + heap->rseq_off),                           \
		[at] "r"((char *)__builtin_thread_pointer() + heap->slot_off),                     \
		[slots] "r"((char *)heap->rslots + slot)

NL_INLINE enum nl_rseq_result nl_rseq_pop_once(const struct nolock_heap *heap, nl_u64 slot,
					       nl_u64 *objp)
{
	nl_u64 t, x, word, obj;

	__asm__ volatile goto(NL_RSEQ_BEGIN "ldr %[word], [%[t], #8]\n\t"
					    "ands %[obj], %[word], #0xffff\n\t"
					    "b.eq %l[empty]\n\t"
					    "ldr %[x], [%[t], #16]\n\t"
					    "add %[x], %[x], %[obj], lsl #3\n\t"
					    "ldur %[obj], [%[x], #-8]\n\t"
					    "mov %[x], #0xffff\n\t"
					    "add %[word], %[word], %[x]\n\t"
					    "str %[word], [%[t], #8]\n" NL_RSEQ_END
			      : [t] "=&r"(t), [x] "=&r"(x), [word] "=&r"(word), [obj] "=&r"(obj)
			      : NL_RSEQ_INPUTS
			      : "memory", "cc"
			      : busy, empty, abort);
	*objp = obj;
	return NL_RSEQ_DONE;
busy:
	return NL_RSEQ_BUSY;
empty:
	return NL_RSEQ_EMPTY;
abort:
	return NL_RSEQ_ABORT;
}

NL_INLINE enum nl_rseq_result nl_rseq_push_once(const struct nolock_heap *heap, nl_u64 slot,
						nl_u64 obj)
{
	nl_u64 t, x, word, n;

	__asm__ volatile goto(NL_RSEQ_BEGIN "ldr %[word], [%[t], #8]\n\t"
					    "and %[n], %[word], #0xffff\n\t"
					    "ldr %w[x], [%[t], #24]\n\t"
					    "cmp %w[n], %w[x]\n\t"
					    "b.hs %l[full]\n\t"
					    "ldr %[x], [%[t], #16]\n\t"
					    "str %[obj], [%[x], %[n], lsl #3]\n\t"
					    "add %[word], %[word], #1\n\t"
					    "str %[word], [%[t], #8]\n" NL_RSEQ_END
			      : [t] "=&r"(t), [x] "=&r"(x), [word] "=&r"(word), [n] "=&r"(n)
			      : NL_RSEQ_INPUTS, [obj] "r"(obj)
			      : "memory", "cc"
			      : busy, full, abort);
	return NL_RSEQ_DONE;
busy:
	return NL_RSEQ_BUSY;
full:
	return NL_RSEQ_EMPTY;
abort:
	return NL_RSEQ_ABORT;
}

NL_INLINE enum nl_rseq_result nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot,
						nl_u64 owner, nl_slot_t **slotp)
{
	nl_u64 t, x;

	__asm__ volatile goto(NL_RSEQ_BEGIN "str %[owner], [%[t]]\n" NL_RSEQ_END
			      : [t] "=&r"(t), [x] "=&r"(x)
			      : NL_RSEQ_INPUTS, [owner] "r"(owner)
			      : "memory", "cc"
			      : busy, abort);
	*slotp = (nl_slot_t *)t;
	return NL_RSEQ_DONE;
busy:
	return NL_RSEQ_BUSY;
abort:
	return NL_RSEQ_ABORT;
}

NL_INLINE nl_u32 nl_rseq_index(const struct nolock_heap *heap)
{
	const char *thread = (const char *)__builtin_thread_pointer();
	nl_u32 index = *(const volatile nl_u32 *)(thread + heap->slot_off);

	if (*(const volatile int *)(thread + heap->rseq_off + 4) < 0 || index >= heap->rseq_slots)
		return ~0u;
	return index;
}

#else /* no sequences for this machine: A-slots serve everything */

NL_INLINE enum nl_rseq_result nl_rseq_pop_once(const struct nolock_heap *heap, nl_u64 slot,
					       nl_u64 *objp)
{
	(void)heap, (void)slot, (void)objp;
	return NL_RSEQ_BUSY;
}

NL_INLINE enum nl_rseq_result nl_rseq_push_once(const struct nolock_heap *heap, nl_u64 slot,
						nl_u64 obj)
{
	(void)heap, (void)slot, (void)obj;
	return NL_RSEQ_BUSY;
}

NL_INLINE enum nl_rseq_result nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot,
						nl_u64 owner, nl_slot_t **slotp)
{
	(void)heap, (void)slot, (void)owner, (void)slotp;
	return NL_RSEQ_BUSY;
}

NL_INLINE nl_u32 nl_rseq_index(const struct nolock_heap *heap)
{
	(void)heap;
	return ~0u;
}

#endif

#define NL_RSEQ_RETRY(heap, call)                                                                  \
	({                                                                                         \
		enum nl_rseq_result res = (heap)->rseq_slots ? NL_RSEQ_ABORT : NL_RSEQ_BUSY;       \
		for (int i = 0; i < NL_RSEQ_TRIES && res == NL_RSEQ_ABORT; i++)                    \
			res = (call);                                                              \
		res;                                                                               \
	})

#endif /* NL_RSEQ_H */
