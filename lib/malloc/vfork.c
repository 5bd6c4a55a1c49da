/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * vfork.c - children that share their parent's memory and thread data until they exec.
 *
 * Such a child runs with its parent's struct rseq, whose cpu_id and mm_cid say that the thread is
 * registered. It is not: the kernel registers no child that shares memory. Its sequences would be
 * aborted neither by a signal nor by preemption, while another thread of the process may be given
 * the same mm_cid meanwhile, and both would change one slot.
 *
 * POSIX lets a vfork() child do nothing but exec; programs allocate in it. So before the system call
 * vfork() marks the thread, which from then on uses no sequences: last_tag matches no object,
 * slots is 0, and slow paths and those of other heaps look at the mark. What is left are the A-slots and bitmaps, which
 * are for anybody who shares the memory. Nothing is marked after the call: a handler might come in
 * between. The parent, which sleeps until the child is done, puts everything back as it was; the
 * fast paths of a call that it may have interrupted rely on that. fork() in the child copies the
 * mark, rightly: that process's thread is not registered either.
 *
 * A child killed inside of the allocator leaves an A-slot locked: others go on to the bitmaps.
 *
 * posix_spawn(), system() and popen() use a clone of their own, on a stack of its own, that blocks
 * all signals, and that does not allocate before it execs. clone() with CLONE_VM and CLONE_VFORK but
 * without CLONE_SETTLS is served here as well. A raw system call, or CLONE_VM alone without
 * CLONE_SETTLS, is not: that child must not allocate.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include "entry.h"
#include "rseq.h"

_Static_assert(offsetof(struct nolock_thread, slots) == 0 &&
		       offsetof(struct nolock_thread, last_tag) == 8 &&
		       offsetof(struct nolock_thread, vforked) == 12,
	       "vfork() below");

NL_HIDDEN int nl_vfork_failed(int err);

int nl_vfork_failed(int err)
{
	errno = err;
	return -1;
}

/*
 * In the child the caller goes on in the frame that the parent will return to: no stack of its own.
 * So the return address is kept in a register, and the child jumps to it, for a shadow stack's sake.
 */
#if defined(__x86_64__)
__asm__(".pushsection .text\n"
	".globl vfork\n"
	".type vfork, @function\n"
	"vfork:\n\t"
	".cfi_startproc\n\t"
	"endbr64\n\t"
	"movq nl_self@gottpoff(%rip), %rdx\n\t"
	"movq %fs:(%rdx), %r8\n\t"
	"movl %fs:8(%rdx), %r9d\n\t"
	"movl %fs:12(%rdx), %r10d\n\t"
	"movl $1, %fs:12(%rdx)\n\t"
	"movq $0, %fs:(%rdx)\n\t"
	"movl $-1, %fs:8(%rdx)\n\t"
	"popq %rdi\n\t"
	".cfi_adjust_cfa_offset -8\n\t"
	".cfi_register %rip, %rdi\n\t"
	"movl $58, %eax\n\t" /* SYS_vfork */
	"syscall\n\t"
	"testl %eax, %eax\n\t"
	"jz 1f\n\t"
	"movl %r10d, %fs:12(%rdx)\n\t"
	"movl %r9d, %fs:8(%rdx)\n\t"
	"movq %r8, %fs:(%rdx)\n\t"
	"pushq %rdi\n\t"
	".cfi_adjust_cfa_offset 8\n\t"
	".cfi_rel_offset %rip, 0\n\t"
	"testl %eax, %eax\n\t"
	"js 2f\n\t"
	"ret\n"
	"1:\tjmp *%rdi\n"
	"2:\tmovl %eax, %edi\n\t"
	"negl %edi\n\t"
	"jmp nl_vfork_failed\n\t"
	".cfi_endproc\n\t"
	".size vfork, . - vfork\n\t"
	".popsection\n\t"
	".globl __vfork\n\t"
	".set __vfork, vfork\n");
#elif defined(__aarch64__)
__asm__(".pushsection .text\n"
	".globl vfork\n"
	".type vfork, %function\n"
	"vfork:\n\t"
	".cfi_startproc\n\t"
	"hint #34\n\t" /* bti c */
	"mrs x9, tpidr_el0\n\t"
	"adrp x10, :gottprel:nl_self\n\t"
	"ldr x10, [x10, :gottprel_lo12:nl_self]\n\t"
	"add x9, x9, x10\n\t"
	"ldr x10, [x9]\n\t"
	"ldr w11, [x9, #8]\n\t"
	"ldr w12, [x9, #12]\n\t"
	"mov w13, #1\n\t"
	"str w13, [x9, #12]\n\t"
	"str xzr, [x9]\n\t"
	"mov w13, #-1\n\t"
	"str w13, [x9, #8]\n\t"
	"mov x0, #0x4111\n\t" /* CLONE_VM | CLONE_VFORK | SIGCHLD */
	"mov x1, #0\n\t"
	"mov x8, #220\n\t" /* SYS_clone */
	"svc #0\n\t"
	"cbz x0, 1f\n\t"
	"str w12, [x9, #12]\n\t"
	"str w11, [x9, #8]\n\t"
	"str x10, [x9]\n\t"
	"tbnz x0, #63, 2f\n"
	"1:\tret\n"
	"2:\tneg w0, w0\n\t"
	"b nl_vfork_failed\n\t"
	".cfi_endproc\n\t"
	".size vfork, . - vfork\n\t"
	".popsection\n\t"
	".globl __vfork\n\t"
	".set __vfork, vfork\n");
#endif

/* glibc's clone() under its other name. */
int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
NL_ENTRY int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);

int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	const int like_vfork = CLONE_VM | CLONE_VFORK;
	bool shares = (flags & (like_vfork | CLONE_SETTLS)) == like_vfork;
	struct nolock_thread mine = nl_self;
	void *parent_tid, *tls, *child_tid;
	va_list args;
	int pid;

	/* As many as there can be: what was not given is not looked at, for want of its flag. */
	va_start(args, arg);
	parent_tid = va_arg(args, void *);
	tls = va_arg(args, void *);
	child_tid = va_arg(args, void *);
	va_end(args);
	if (shares) {
		/* The mark first: a handler in between must not set slots again. */
		nl_store(&nl_self.vforked, 1);
		nl_store(&nl_self.slots, 0);
		nl_store(&nl_self.last_tag, ~0u);
	}
	pid = __clone(fn, stack, flags, arg, parent_tid, tls, child_tid);
	if (shares) {
		nl_store(&nl_self.vforked, mine.vforked);
		nl_store(&nl_self.last_tag, mine.last_tag);
		nl_store(&nl_self.slots, mine.slots);
	}
	return pid;
}
