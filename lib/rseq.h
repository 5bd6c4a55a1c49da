/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * rseq.h - the three restartable sequences on an R-slot: pop, push, and take its lock; and the one on
 * an A-slot: take its lock from the BPF programs of this CPU.
 *
 * A sequence reads the slot's index and its word and ends in one store to the word, the commit. If the
 * thread is preempted, migrated or gets a signal in between, the kernel sends it to the abort
 * label and nothing has happened; a process killed in it has committed nothing either. So a
 * handler never finds a slot half changed, and the fast path needs no atomic instruction.
 *
 * The slot's index is mm_cid in a private heap: a number below the number of possible CPUs that
 * no two running threads of the process share. In a shared heap it is cpu_id, because other
 * processes have an mm_cid of their own. A thread that is not registered (an old kernel, or
 * switched off) has cpu_id < 0, and may have an mm_cid of 0, which is a valid index: the sign is
 * looked at in every section, or has been before (struct nolock_thread). The range is not: both are
 * below the number of possible CPUs, and heap.c uses no sections on a heap with fewer slots.
 * Sections are named by the offset of the cache's slot among a CPU's (NL_TAG_SLOT), and run only
 * while heap->rseq_slots is not 0.
 *
 * The word is loaded with acquire: it pairs with the release store of nl_rslot_unlock() by a holder
 * that was migrated to another CPU. While it is marked as locked (slot.h) the sequence leaves the
 * slot alone: to pop, as one of which the count is not positive; to push, as one without room.
 *
 * A sequence with a result returns an address when it is done, and otherwise one of the small numbers
 * below. (No asm goto: with outputs, gcc up to 12.3 loses them on the ways to its labels.)
 *
 * Source: Linux's rseq(2) and tools/testing/selftests/rseq; TCMalloc's per-CPU mode uses the
 * same mechanism.
 */
#ifndef NL_RSEQ_H
#define NL_RSEQ_H

#ifndef NOLOCK_NO_RSEQ
#include <sys/rseq.h>
#endif
#include <nolock/inline.h>
#include "internal.h"
#include "core/slot.h"

/* After this many aborted sections the caller goes on to the A-slot. */
#define NL_RSEQ_TRIES 2

#define NL_RSEQ_EMPTY 1 /* nothing to pop, or no room to push: on x86-64 also a locked slot */
#define NL_RSEQ_BUSY 2	/* to lock, or on aarch64: locked; no R-slots for this thread */
#define NL_RSEQ_ABORT 3 /* aborted */
#define NL_RSEQ_DONE(r) ((r) > NL_RSEQ_ABORT)

/*
 * What a thread knows of itself (nolock/inline.h). slots is set once the thread is seen to be
 * registered, on a private heap whose slots are indexed by mm_cid; then sections need not look at
 * cpu_id. glibc registers a thread before it runs anything, for good. last_tag is the tag that kfree()
 * guesses: a slab's, and only after slots is set, or one that no chunk has. While vforked is set there are no
 * sequences: a child that shares the thread's memory may run (lib/malloc/vfork.c).
 */
extern __thread struct nolock_thread nl_self NL_HIDDEN;

/* heap.c: try to set nl_self.slots; is it? */
NL_HIDDEN bool nl_thread_start(void);

/* From a slot's index to its CPU's slots, and from an address to its chunk, as the assembler reads it. */
#define NL_RSEQ_STRING(x) #x
#define NL_RSEQ_EXPAND(x) NL_RSEQ_STRING(x)
#define NL_RSEQ_ROW NL_RSEQ_EXPAND(NL_ROW_SHIFT)
#define NL_RSEQ_CHUNK NL_RSEQ_EXPAND(NL_CHUNK_SHIFT)

/* Descriptor of the section between labels 1 and 2, aborting to 4. */
#define NL_RSEQ_CS                                                                                 \
	".pushsection __rseq_cs, \"aw\"\n\t"                                                       \
	".balign 32\n"                                                                             \
	"3:\t.long 0, 0\n\t"                                                                       \
	".quad 1f, 2f - 1f, 4f\n\t"                                                                \
	".popsection\n\t"                                                                          \
	".pushsection __rseq_cs_ptr_array, \"aw\"\n\t"                                             \
	".quad 3b\n\t"                                                                             \
	".popsection\n\t"

#if defined(__x86_64__) && !defined(NOLOCK_NO_RSEQ)
#define NL_HAVE_RSEQ 1

/* Its address goes to rseq_cs: the section begins. */
#define NL_RSEQ_ARM                                                                                \
	NL_RSEQ_CS                                                                                 \
	"leaq 3b(%%rip), %[t]\n\t"                                                                 \
	"movq %[t], %%fs:8(%[rseq])\n"                                                             \
	"1:\n\t"

/* From the index to the slot. */
#define NL_RSEQ_FIND                                                                               \
	"shlq $" NL_RSEQ_ROW ", %[t]\n\t"                                                          \
	"addq %[slots], %[t]\n\t"

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
	"testw %w[word], %w[word]\n\t"                                                             \
	"jle 8f\n\t"                                                                               \
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

/* The name first: whoever finds the word locked finds the name. */
#define NL_RSEQ_LOCK                                                                               \
	"movq 8(%[t]), %[word]\n\t"                                                                \
	"testw %w[word], %w[word]\n\t"                                                             \
	"js 7f\n\t"                                                                                \
	"movq %[owner], (%[t])\n\t"                                                                \
	"orq $0x8000, %[word]\n\t"                                                                 \
	"movq %[word], 8(%[t])\n"

/*
 * The ways out that are not the commit, out of line. The abort handler comes after the signature
 * that glibc registered: an ud1 with it as operand.
 */
#define NL_RSEQ_FAILURE                                                                            \
	"2:\n\t"                                                                                   \
	".pushsection __rseq_failure, \"ax\"\n\t"                                                  \
	".byte 0x0f, 0xb9, 0x3d\n\t"                                                               \
	".long 0x53053053\n"

#define NL_RSEQ_END(res)                                                                           \
	NL_RSEQ_FAILURE                                                                            \
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
			 : [rseq] "r"(nl_self.rseq)
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
 * A whole push in registers of its own, for an asm goto: rcx, rsi and rax are its, and n, which has the
 * names n32 and n64; slots is where the row of this index is counted from. Out of it by the label not.
 */
#define NL_RSEQ_PUSH_GOTO(rseq, slots, n32, n64)                                                   \
	NL_RSEQ_CS                                                                                 \
	"leaq 3b(%%rip), %%rcx\n\t"                                                                \
	"movq %%rcx, %%fs:8(" rseq ")\n"                                                           \
	"1:\n\t"                                                                                   \
	"movl %%fs:24(" rseq "), %%ecx\n\t"                                                        \
	"shlq $" NL_RSEQ_ROW ", %%rcx\n\t"                                                         \
	"addq " slots ", %%rcx\n\t"                                                                \
	"movq 8(%%rcx), %%rsi\n\t"                                                                 \
	"movzwl %%si, " n32 "\n\t"                                                                 \
	"cmpl 24(%%rcx), " n32 "\n\t"                                                              \
	"jae %l[not]\n\t"                                                                          \
	"movq 16(%%rcx), %%rax\n\t"                                                                \
	"movq %[obj], (%%rax, " n64 ", 8)\n\t"                                                     \
	"incq %%rsi\n\t"                                                                           \
	"movq %%rsi, 8(%%rcx)\n" NL_RSEQ_FAILURE "4:\tjmp %l[not]\n\t"                             \
	".popsection\n"

/*
 * Without a result but done or not, so an asm goto without outputs, which no compiler gets wrong,
 * saves the look at it.
 */
NL_INLINE bool nl_rseq_push_cid(nl_u64 rslots, nl_u64 slot, nl_u64 obj)
{
	__asm__ volatile goto(NL_RSEQ_PUSH_GOTO("%[rseq]", "%[slots]", "%%r8d", "%%r8")
			      :
			      : [rseq] "r"(nl_self.rseq), [slots] "r"(rslots + slot), [obj] "r"(obj)
			      : "memory", "cc", "rax", "rcx", "rsi", "r8"
			      : not );
	return true;
	not : return false;
}

/*
 * free_fast() in one piece, up to the commit: an object whose tag is the one that is guessed. What free_fast() says of the guess is why the tag is compared, but last_tag used.
 */
enum { NL_FREE_DONE, NL_FREE_OTHER_TAG, NL_FREE_NOT };
NL_INLINE int nl_rseq_free_guess(nl_u64 obj)
{
	__asm__ volatile goto(
		"movq %[obj], %%rdx\n\t"
		"subq %[first], %%rdx\n\t"
		"movl %[last], %%esi\n\t"
		"cmpq %[span], %%rdx\n\t"
		"jae %l[not]\n\t"
		"shrq $" NL_RSEQ_CHUNK ", %%rdx\n\t"
		"movq %[tags], %%rax\n\t"
		"cmpl (%%rax, %%rdx, 4), %%esi\n\t"
		"jne %l[other]\n\t"
		"addq %[tagged], %%rsi\n\t"
		"movq %[rseq], %%rdx\n\t" NL_RSEQ_PUSH_GOTO("%%rdx", "%%rsi", "%%edx", "%%rdx")
		:
		: [obj] "r"(obj), [first] "m"(nl_free_map.first), [span] "m"(nl_free_map.span),
		  [tags] "m"(nl_free_map.tags), [last] "m"(nl_self.last_tag),
		  [tagged] "m"(nl_self.tagged), [rseq] "m"(nl_self.rseq)
		: "memory", "cc", "rax", "rcx", "rdx", "rsi"
		: other, not );
	return NL_FREE_DONE;
other:
	return NL_FREE_OTHER_TAG;
	not : return NL_FREE_NOT;
}
#define NL_HAVE_FREE_GUESS 1

/* Returns the slot. */
NL_INLINE nl_u64 nl_rseq_lock_once(const struct nolock_heap *heap, nl_u64 slot, nl_u64 owner)
{
	nl_u64 t, word, slots = NL_RSEQ_SLOTS(heap, slot);

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_LOCK NL_RSEQ_END("t")
			 : [t] "=&r"(t), [word] "=&r"(word), [slots] "+&r"(slots)
			 : NL_RSEQ_INPUTS, [owner] "r"(owner)
			 : "memory", "cc");
	return t;
}

/*
 * While this thread is on that CPU, one try of a cmpxchg of the word, which is the commit. Not where
 * threads are not registered: bias.c knows.
 */
NL_INLINE bool nl_rseq_cas_on_cpu(nl_u64 *word, nl_u64 old, nl_u64 val, nl_u32 cpu)
{
	nl_u64 t, seen = old;

	__asm__ volatile(NL_RSEQ_ARM "cmpl %[cpu], %%fs:4(%[rseq])\n\t"
				     "jne 7f\n\t"
				     "lock cmpxchgq %[val], %[word]\n" NL_RSEQ_FAILURE "4:\n"
				     "7:\tmovq %[val], %[seen]\n\t"
				     "jmp 9f\n\t"
				     ".popsection\n"
				     "9:\n"
			 : [t] "=&r"(t), [seen] "+&a"(seen), [word] "+m"(*word)
			 : [rseq] "r"((nl_u64)__rseq_offset), [cpu] "r"(cpu), [val] "r"(val)
			 : "memory", "cc");
	return seen == old;
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
	NL_RSEQ_CS                                                                                 \
	"adrp %[t], 3b\n\t"                                                                        \
	"add %[t], %[t], :lo12:3b\n\t"                                                             \
	"str %[t], [%[rseq], #8]\n"                                                                \
	"1:\n\t"                                                                                   \
	"ldr %w[t], [%[rseq], #4]\n\t"                                                             \
	"cmp %w[t], #0\n\t"                                                                        \
	"b.lt 7f\n\t"                                                                              \
	"ldr %w[t], [%[at]]\n\t"                                                                   \
	"add %[t], %[slots], %[t], lsl #" NL_RSEQ_ROW "\n\t"                                       \
	"add %[x], %[t], #8\n\t"                                                                   \
	"ldar %[word], [%[x]]\n\t"                                                                 \
	"tst %[word], #0x8000\n\t"                                                                 \
	"b.ne 7f\n\t"

#define NL_RSEQ_POP                                                                                \
	"ands %[res], %[word], #0xffff\n\t"                                                        \
	"b.eq 8f\n\t"                                                                              \
	"ldr %[x], [%[t], #16]\n\t"                                                                \
	"add %[x], %[x], %[res], lsl #3\n\t"                                                       \
	"ldur %[res], [%[x], #-8]\n\t"                                                             \
	"mov %[x], #0xffff\n\t"                                                                    \
	"add %[word], %[word], %[x]\n\t"                                                           \
	"str %[word], [%[t], #8]\n"

#define NL_RSEQ_PUSH                                                                               \
	"and %[n], %[word], #0xffff\n\t"                                                           \
	"ldr %w[x], [%[t], #24]\n\t"                                                               \
	"cmp %w[n], %w[x]\n\t"                                                                     \
	"b.hs 8f\n\t"                                                                              \
	"ldr %[x], [%[t], #16]\n\t"                                                                \
	"str %[obj], [%[x], %[n], lsl #3]\n\t"                                                     \
	"add %[word], %[word], #1\n\t"                                                             \
	"str %[word], [%[t], #8]\n"

/* The name first, and the commit a release: whoever finds the word locked finds the name. */
#define NL_RSEQ_LOCK                                                                               \
	"str %[owner], [%[t]]\n\t"                                                                 \
	"orr %[word], %[word], #0x8000\n\t"                                                        \
	"stlr %[word], [%[x]]\n"

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
	nl_u64 t, x, word;

	__asm__ volatile(NL_RSEQ_BEGIN NL_RSEQ_LOCK NL_RSEQ_END("t")
			 : [t] "=&r"(t), [x] "=&r"(x), [word] "=&r"(word)
			 : NL_RSEQ_INPUTS, [owner] "r"(owner)
			 : "memory", "cc");
	return t;
}

/*
 * The store of an exclusive pair is the commit: another CPU's store in between makes it fail, and so does
 * whatever interrupts this CPU, as the return from it ends the pair.
 */
NL_INLINE bool nl_rseq_cas_on_cpu(nl_u64 *word, nl_u64 old, nl_u64 val, nl_u32 cpu)
{
	nl_u64 t;

	__asm__ volatile(NL_RSEQ_CS "adrp %[t], 3b\n\t"
				    "add %[t], %[t], :lo12:3b\n\t"
				    "str %[t], [%[rseq], #8]\n"
				    "1:\n\t"
				    "ldr %w[t], [%[rseq], #4]\n\t"
				    "cmp %w[t], %w[cpu]\n\t"
				    "b.ne 7f\n\t"
				    "ldaxr %[t], [%[word]]\n\t"
				    "cmp %[t], %[old]\n\t"
				    "b.ne 7f\n\t"
				    "stlxr %w[t], %[val], [%[word]]\n"
				    "2:\n\t"
				    ".pushsection __rseq_failure, \"ax\"\n\t"
				    ".inst 0xd428bc00\n"
				    "4:\n"
				    "7:\tmov %w[t], #1\n\t"
				    "b 9f\n\t"
				    ".popsection\n"
				    "9:\n"
			 : [t] "=&r"(t)
			 : [rseq] "r"((char *)__builtin_thread_pointer() + __rseq_offset),
			   [word] "r"(word), [old] "r"(old), [val] "r"(val), [cpu] "r"(cpu)
			 : "memory", "cc");
	return !(nl_u32)t;
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

NL_INLINE bool nl_rseq_cas_on_cpu(nl_u64 *word, nl_u64 old, nl_u64 val, nl_u32 cpu)
{
	(void)word, (void)old, (void)val, (void)cpu;
	return false;
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
