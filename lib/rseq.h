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
 * looked at in every section, or has been before (struct nl_thread). The range is not: both are
 * below the number of possible CPUs, and heap.c uses no sections on a heap with fewer slots.
 * Sections are named by the offset of the cache's slot among a CPU's (NL_TAG_SLOT), and run only
 * while heap->rseq_slots is not 0.
 *
 * The lock word is loaded with acquire: it pairs with the release store of nl_slot_unlock() by a
 * holder that was migrated to another CPU. While it is not 0 the sequence leaves the slot alone.
 *
 * Every sequence returns an address when it is done, and otherwise one of the small numbers below.
 * (No asm goto: with outputs, gcc up to 12.3 loses them on the ways to its labels.)
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

#define NL_RSEQ_EMPTY 1 /* nothing to pop, or no room to push */
#define NL_RSEQ_BUSY 2	/* locked, or no R-slots for this thread */
#define NL_RSEQ_ABORT 3 /* aborted */
#define NL_RSEQ_DONE(r) ((r) > NL_RSEQ_ABORT)

/*
 * What a thread knows of itself. rslots is set once the thread is seen to be registered, on a
 * private heap whose slots are indexed by mm_cid; then sections need not look at cpu_id. glibc
 * registers a thread before it runs anything, for good. last_tag is the tag of the thread's last
 * free: a slab's, and only after rslots is set.
 */
struct nl_thread {
	nl_u64 rslots;
	nl_u32 last_tag;
	nl_u32 vforked; /* no sequences: a child that shares this may run (lib/malloc/vfork.c) */
};
extern __thread struct nl_thread nl_self NL_HIDDEN;
extern nl_u64 nl_rseq_off NL_HIDDEN;

/* heap.c: try to set nl_self.rslots; is it? */
NL_HIDDEN bool nl_thread_start(void);

/* From a slot's index to its CPU's slots, as the assembler reads it. */
#define NL_RSEQ_STRING(x) #x
#define NL_RSEQ_EXPAND(x) NL_RSEQ_STRING(x)
#define NL_RSEQ_ROW NL_RSEQ_EXPAND(NL_ROW_SHIFT)

#if defined(__x86_64__) && !defined(NOLOCK_NO_RSEQ)
#define NL_HAVE_RSEQ 1

/* Descriptor of the section between labels 1 and 2, aborting to 4; its address goes to rseq_cs. */
#define NL_RSEQ_ARM                                                                                \
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
	"1:\n\t"

/* From the index to the slot; what is locked is left alone. */
#define NL_RSEQ_FIND                                                                               \
	"shlq $" NL_RSEQ_ROW ", %[t]\n\t"                                                          \
	"addq %[slots], %[t]\n\t"                                                                  \
	"cmpq $0, (%[t])\n\t"                                                                      \
	"jne 7f\n\t"

#define NL_RSEQ_BEGIN                                                                              \
	NL_RSEQ_ARM                                                                                \
	"cmpl $0, %%fs:4(%[rseq])\n\t"                                                             \
	"js 7f\n\t"                                                                                \
	"movq %[at], %[t]\n\t"                                                                     \
	"movl %%fs:(%[t]), %k[t]\n\t" NL_RSEQ_FIND

/* For a thread that is known to be registered, on the private heap: the index is mm_cid. */
#define NL_RSEQ_BEGIN_CID NL_RSEQ_ARM "movl %%fs:24(%[rseq]), %k[t]\n\t" NL_RSEQ_FIND

#define NL_RSEQ_POP                                                                                \
	"movq 8(%[t]), %[word]\n\t"                                                                \
	"movzwl %w[word], %k[res]\n\t"                                                             \
	"testl %k[res], %k[res]\n\t"                                                               \
	"jz 8f\n\t"                                                                                \
	"movq 16(%[t]), %[slots]\n\t"                                                              \
	"movq -8(%[slots], %[res], 8), %[res]\n\t"                                                 \
	"addq $0xffff, %[word]\n\t"                                                                \
	"movq %[word], 8(%[t])\n"

#define NL_RSEQ_PUSH                                                                               \
	"movq 8(%[t]), %[word]\n\t"                                                                \
	"movzwl %w[word], %k[n]\n\t"                                                               \
	"cmpl 24(%[t]), %k[n]\n\t"                                                                 \
	"jae 8f\n\t"                                                                               \
	"movq 16(%[t]), %[slots]\n\t"                                                              \
	"movq %[obj], (%[slots], %[n], 8)\n\t"                                                     \
	"incq %[word]\n\t"                                                                         \
	"movq %[word], 8(%[t])\n"

#define NL_RSEQ_LOCK "movq %[owner], (%[t])\n"

/*
 * The ways out that are not the commit, out of line. The abort handler comes after the signature
 * that glibc registered: an ud1 with it as operand.
 */
#define NL_RSEQ_END(res)                                                                           \
	"2:\n\t"                                                                                   \
	".pushsection __rseq_failure, \"ax\"\n\t"                                                  \
	".byte 0x0f, 0xb9, 0x3d\n\t"                                                               \
	".long 0x53053053\n"                                                                       \
	"4:\tmovl $3, %k[" res "]\n\t"                                                             \
	"jmp 9f\n"                                                                                 \
	"7:\tmovl $2, %k[" res "]\n\t"                                                             \
	"jmp 9f\n"                                                                                 \
	"8:\tmovl $1, %k[" res "]\n\t"                                                             \
	"jmp 9f\n\t"                                                                               \
	".popsection\n"                                                                            \
	"9:\n"

#define NL_RSEQ_INPUTS [rseq] "r"(heap->rseq_off), [at] "m"(heap->slot_off)

/* The first slot of the cache; the sections go on to use its register for other things. */
#define NL_RSEQ_SLOTS(heap, slot) ((nl_u64)(heap)->rslots + (slot))

NL_INLINE nl_u64 nl_rseq_pop_once(const struct nolock_heap *heap, nl_u64 slot)
{
	nl_u64 t, word, res, slots = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_POP NL_RSEQ_END("res")
			 : [t] "=&r"(t), [word] "=&r"(word), [slots] "+&r"(slots), [res] "=&a"(res)
			 : NL_RSEQ_INPUTS
			 : "memory", "cc");
	return res;
}

NL_INLINE nl_u64 nl_rseq_pop_cid(nl_u64 rslots, nl_u64 slot)
{
	nl_u64 t, word, res, slots = rslots + slot;

	__asm__ volatile(NL_RSEQ_BEGIN_CID NL_RSEQ_POP NL_RSEQ_END("res")
			 : [t] "=&r"(t), [word] "=&r"(word), [slots] "+&r"(slots), [res] "=&a"(res)
			 : [rseq] "r"(nl_rseq_off)
			 : "memory", "cc");
	return res;
}

NL_INLINE nl_u64 nl_rseq_push_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 obj)
{
	nl_u64 t, word, n, slots = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_PUSH NL_RSEQ_END("t")
			 : [t] "=&r"(t), [word] "=&r"(word), [slots] "+&r"(slots), [n] "=&r"(n)
			 : NL_RSEQ_INPUTS, [obj] "r"(obj)
			 : "memory", "cc");
	return t;
}

/*
 * Without a result but done or not, so an asm goto without outputs, which no compiler gets wrong,
 * saves the look at it.
 */
NL_INLINE bool nl_rseq_push_cid(nl_u64 rslots, nl_u64 slot, nl_u64 obj)
{
	__asm__ volatile goto(".pushsection __rseq_cs, \"aw\"\n\t"
			      ".balign 32\n"
			      "3:\t.long 0, 0\n\t"
			      ".quad 1f, 2f - 1f, 4f\n\t"
			      ".popsection\n\t"
			      ".pushsection __rseq_cs_ptr_array, \"aw\"\n\t"
			      ".quad 3b\n\t"
			      ".popsection\n\t"
			      "leaq 3b(%%rip), %%rcx\n\t"
			      "movq %%rcx, %%fs:8(%[rseq])\n"
			      "1:\n\t"
			      "movl %%fs:24(%[rseq]), %%ecx\n\t"
			      "shlq $" NL_RSEQ_ROW ", %%rcx\n\t"
			      "addq %[slots], %%rcx\n\t"
			      "cmpq $0, (%%rcx)\n\t"
			      "jne %l[not]\n\t"
			      "movq 8(%%rcx), %%rsi\n\t"
			      "movzwl %%si, %%r8d\n\t"
			      "cmpl 24(%%rcx), %%r8d\n\t"
			      "jae %l[not]\n\t"
			      "movq 16(%%rcx), %%rax\n\t"
			      "movq %[obj], (%%rax, %%r8, 8)\n\t"
			      "incq %%rsi\n\t"
			      "movq %%rsi, 8(%%rcx)\n"
			      "2:\n\t"
			      ".pushsection __rseq_failure, \"ax\"\n\t"
			      ".byte 0x0f, 0xb9, 0x3d\n\t"
			      ".long 0x53053053\n"
			      "4:\tjmp %l[not]\n\t"
			      ".popsection\n"
			      :
			      : [rseq] "r"(nl_rseq_off), [slots] "r"(rslots + slot), [obj] "r"(obj)
			      : "memory", "cc", "rax", "rcx", "rsi", "r8"
			      : not );
	return true;
	not : return false;
}

/* Returns the slot. */
NL_INLINE nl_u64 nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 owner)
{
	nl_u64 t, slots = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_LOCK NL_RSEQ_END("t")
			 : [t] "=&r"(t), [slots] "+&r"(slots)
			 : NL_RSEQ_INPUTS, [owner] "r"(owner)
			 : "memory", "cc");
	return t;
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
	"cmp %w[t], #0\n\t"                                                                        \
	"b.lt 7f\n\t"                                                                              \
	"ldr %w[t], [%[at]]\n\t"                                                                   \
	"add %[t], %[slots], %[t], lsl #" NL_RSEQ_ROW "\n\t"                                       \
	"ldar %[x], [%[t]]\n\t"                                                                    \
	"cbnz %[x], 7f\n\t"

#define NL_RSEQ_POP                                                                                \
	"ldr %[word], [%[t], #8]\n\t"                                                              \
	"ands %[res], %[word], #0xffff\n\t"                                                        \
	"b.eq 8f\n\t"                                                                              \
	"ldr %[x], [%[t], #16]\n\t"                                                                \
	"add %[x], %[x], %[res], lsl #3\n\t"                                                       \
	"ldur %[res], [%[x], #-8]\n\t"                                                             \
	"mov %[x], #0xffff\n\t"                                                                    \
	"add %[word], %[word], %[x]\n\t"                                                           \
	"str %[word], [%[t], #8]\n"

#define NL_RSEQ_PUSH                                                                               \
	"ldr %[word], [%[t], #8]\n\t"                                                              \
	"and %[n], %[word], #0xffff\n\t"                                                           \
	"ldr %w[x], [%[t], #24]\n\t"                                                               \
	"cmp %w[n], %w[x]\n\t"                                                                     \
	"b.hs 8f\n\t"                                                                              \
	"ldr %[x], [%[t], #16]\n\t"                                                                \
	"str %[obj], [%[x], %[n], lsl #3]\n\t"                                                     \
	"add %[word], %[word], #1\n\t"                                                             \
	"str %[word], [%[t], #8]\n"

#define NL_RSEQ_LOCK "str %[owner], [%[t]]\n"

#define NL_RSEQ_END(res)                                                                           \
	"2:\n\t"                                                                                   \
	".pushsection __rseq_failure, \"ax\"\n\t"                                                  \
	".inst 0xd428bc00\n"                                                                       \
	"4:\tmov %[" res "], #3\n\t"                                                               \
	"b 9f\n"                                                                                   \
	"7:\tmov %[" res "], #2\n\t"                                                               \
	"b 9f\n"                                                                                   \
	"8:\tmov %[" res "], #1\n\t"                                                               \
	"b 9f\n\t"                                                                                 \
	".popsection\n"                                                                            \
	"9:\n"

#define NL_RSEQ_INPUTS                                                                             \
	[rseq] "r"((char *)__builtin_thread_pointer() + heap->rseq_off),                           \
		[at] "r"((char *)__builtin_thread_pointer() + heap->slot_off),                     \
		[slots] "r"((char *)heap->rslots + slot)

NL_INLINE nl_u64 nl_rseq_pop_once(const struct nolock_heap *heap, nl_u64 slot)
{
	nl_u64 t, x, word, res;

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_POP NL_RSEQ_END("res")
			 : [t] "=&r"(t), [x] "=&r"(x), [word] "=&r"(word), [res] "=&r"(res)
			 : NL_RSEQ_INPUTS
			 : "memory", "cc");
	return res;
}

NL_INLINE nl_u64 nl_rseq_push_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 obj)
{
	nl_u64 t, x, word, n;

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_PUSH NL_RSEQ_END("t")
			 : [t] "=&r"(t), [x] "=&r"(x), [word] "=&r"(word), [n] "=&r"(n)
			 : NL_RSEQ_INPUTS, [obj] "r"(obj)
			 : "memory", "cc");
	return t;
}

NL_INLINE nl_u64 nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 owner)
{
	nl_u64 t, x;

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_LOCK NL_RSEQ_END("t")
			 : [t] "=&r"(t), [x] "=&r"(x)
			 : NL_RSEQ_INPUTS, [owner] "r"(owner)
			 : "memory", "cc");
	return t;
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

NL_INLINE nl_u64 nl_rseq_pop_once(const struct nolock_heap *heap, nl_u64 slot)
{
	(void)heap, (void)slot;
	return NL_RSEQ_BUSY;
}

NL_INLINE nl_u64 nl_rseq_push_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 obj)
{
	(void)heap, (void)slot, (void)obj;
	return NL_RSEQ_BUSY;
}

NL_INLINE nl_u64 nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 owner)
{
	(void)heap, (void)slot, (void)owner;
	return NL_RSEQ_BUSY;
}

NL_INLINE nl_u32 nl_rseq_index(const struct nolock_heap *heap)
{
	(void)heap;
	return ~0u;
}

#endif

#ifndef NL_RSEQ_BEGIN_CID
/* Without the shorter sections: the ordinary ones. */
NL_INLINE nl_u64 nl_rseq_pop_cid(nl_u64 rslots, nl_u64 slot)
{
	(void)rslots;
	return nl_rseq_pop_once(nl_default, slot);
}

NL_INLINE bool nl_rseq_push_cid(nl_u64 rslots, nl_u64 slot, nl_u64 obj)
{
	(void)rslots;
	return NL_RSEQ_DONE(nl_rseq_push_once(nl_default, slot, obj));
}
#endif

/* A section that is aborted is tried once more. */
#define NL_RSEQ_RETRY(heap, call)                                                                  \
	({                                                                                         \
		nl_u64 res = (heap)->rseq_slots && !nl_self.vforked ? NL_RSEQ_ABORT :              \
								      NL_RSEQ_BUSY;                \
		for (int i = 0; i < NL_RSEQ_TRIES && res == NL_RSEQ_ABORT; i++)                    \
			res = (call);                                                              \
		res;                                                                               \
	})

#endif /* NL_RSEQ_H */
