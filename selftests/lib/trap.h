/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trap.h - single-stepping this process from within: the trap flag, and what a SIGTRAP handler
 * reads and changes in the interrupted context. x86-64.
 */
#ifndef NOLOCK_SELFTESTS_TRAP_H
#define NOLOCK_SELFTESTS_TRAP_H

#if defined(__x86_64__)
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

#define EFLAGS_TF 0x100L

/* From the instruction after this one on, SIGTRAP comes after each instruction. */
static inline __attribute__((always_inline)) void trap_on(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\t" /* the red zone is the compiler's */
			 "pushfq\n\t"
			 "orq $0x100, (%%rsp)\n\t"
			 "popfq\n\t"
			 "lea 128(%%rsp), %%rsp" ::
				 : "memory", "cc");
}

static inline __attribute__((always_inline)) void trap_off(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
			 "pushfq\n\t"
			 "andq $~0x100, (%%rsp)\n\t"
			 "popfq\n\t"
			 "lea 128(%%rsp), %%rsp" ::
				 : "memory", "cc");
}

static inline uintptr_t trap_ip(void *context)
{
	return (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

static inline void trap_set_ip(void *context, uintptr_t ip)
{
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = (greg_t)ip;
}

static inline void trap_set_stepping(void *context, int on)
{
	greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];

	*flags = on ? *flags | EFLAGS_TF : *flags & ~EFLAGS_TF;
}

/* An abort label of a restartable sequence has the signature in front of it. */
#define TRAP_RSEQ_SIG 0x53053053u

static inline int trap_at_abort(uintptr_t ip)
{
	uint32_t sig;

	__builtin_memcpy(&sig, (const char *)ip - 4, 4);
	return sig == TRAP_RSEQ_SIG;
}
/*
 * A string instruction with a repeat prefix traps after each element of it. If one comes next, with
 * much to do, do it here as the CPU would, forwards, but for the last element.
 */
static inline void trap_hurry_string(void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
	const unsigned char *ip = (const unsigned char *)g[REG_RIP];
	unsigned int wide = ip[0] == 0xf3 && ip[1] == 0x48, op = ip[0] == 0xf3 ? ip[1 + wide] : 0;
	unsigned int size = op & 1 ? wide ? 8 : 4 : 1;
	unsigned long n;

	if ((op != 0xa4 && op != 0xa5 && op != 0xaa && op != 0xab) || (g[REG_EFL] & 0x400) ||
	    g[REG_RCX] < 4)
		return;
	for (n = (unsigned long)g[REG_RCX] - 1; n; n--) {
		__builtin_memcpy((void *)g[REG_RDI],
				 op & 8 ? (void *)&g[REG_RAX] : (void *)g[REG_RSI], size);
		g[REG_RDI] += size;
		if (!(op & 8))
			g[REG_RSI] += size;
	}
	g[REG_RCX] = 1;
}
#endif

#endif /* NOLOCK_SELFTESTS_TRAP_H */
