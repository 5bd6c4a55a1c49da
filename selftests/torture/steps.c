// SPDX-License-Identifier: GPL-2.0-only
/*
 * steps.c - see steps.h.
 *
 * The kernel would send a stepped restartable sequence to its abort label at each step. So before
 * the first instruction of a sequence the descriptor is taken out of the child's rseq area: it
 * runs as plain code then. That is sound as long as nobody else is on its CPU with the same slot,
 * and the stepper, which alone is awake, sees to that.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include "steps.h"

/* The descriptors of all sequences, as the linker has gathered them. */
struct section {
	uint32_t version, flags;
	uint64_t start, length, abort;
};
extern struct section *__start___rseq_cs_ptr_array[] __attribute__((weak));
extern struct section *__stop___rseq_cs_ptr_array[] __attribute__((weak));

static bool in_section(uintptr_t ip)
{
	for (struct section **s = __start___rseq_cs_ptr_array; s < __stop___rseq_cs_ptr_array; s++)
		if (ip - (*s)->start < (*s)->length)
			return true;
	return false;
}

/* Offset 8 of struct rseq; the child, a fork of this thread, has its area where we have ours. */
static int forget_section(pid_t pid)
{
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	return ptrace(PTRACE_POKEDATA, pid, area + 8, 0) ? -1 : 0;
}

#if defined(__x86_64__)
#define IP(regs) ((regs).rip)
#define BREAKPOINT(word) (((word) & ~0xffL) | 0xcc) /* int3 */
#elif defined(__aarch64__)
#define IP(regs) ((regs).pc)
#define BREAKPOINT(word) (((word) & ~0xffffffffL) | 0xd4200000L) /* brk #0 */
#else
#error which register is the instruction pointer here?
#endif

static int where(struct steps *st)
{
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };

	if (ptrace(PTRACE_GETREGSET, st->pid, NT_PRSTATUS, &iov))
		return -1;
	st->ip = IP(regs);
	return in_section(st->ip) ? forget_section(st->pid) : 0;
}

static int wait_stop(struct steps *st)
{
	while (waitpid(st->pid, &st->status, __WALL) < 0)
		if (errno != EINTR)
			return -1;
	return WIFSTOPPED(st->status) ? WSTOPSIG(st->status) : -1;
}

int steps_start(struct steps *st, void (*work)(void *arg), void *arg)
{
	memset(st, 0, sizeof(*st));
	fflush(NULL);
	st->pid = fork();
	if (st->pid < 0) {
		st->status = -1;
		return -1;
	}
	if (!st->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(120);
		work(arg);
		_exit(121);
	}
	if (wait_stop(st) != SIGSTOP)
		return -1;
	if (ptrace(PTRACE_SETOPTIONS, st->pid, 0, PTRACE_O_EXITKILL) || where(st))
		return -1;
	return 0;
}

void steps_begin(void)
{
	raise(SIGSTOP);
}

void steps_end(void)
{
	raise(SIGSTOP);
}

/* The length of a string instruction with a repeat prefix, which traps once for each element. */
static unsigned int repeated(uintptr_t ip)
{
#if defined(__x86_64__)
	/* The child is a fork: its text is where ours is. */
	const unsigned char *c = (const unsigned char *)ip;
	unsigned int n = 1;

	if (c[0] != 0xf3)
		return 0;
	if ((c[n] & 0xf0) == 0x40)
		n++;
	switch (c[n]) {
	case 0xa4:
	case 0xa5:
	case 0xaa:
	case 0xab:
		return n + 1;
	}
#endif
	(void)ip;
	return 0;
}

/* Run up to an address by a breakpoint of the child's own. */
static int run_to(struct steps *st, uintptr_t ip)
{
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };
	int sig;
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, st->pid, ip, 0);
	if (errno || ptrace(PTRACE_POKETEXT, st->pid, ip, BREAKPOINT(word)) ||
	    ptrace(PTRACE_CONT, st->pid, 0, 0))
		return -1;
	sig = wait_stop(st);
	if (sig != SIGTRAP || ptrace(PTRACE_POKETEXT, st->pid, ip, word) ||
	    ptrace(PTRACE_GETREGSET, st->pid, NT_PRSTATUS, &iov))
		return -1;
	IP(regs) = ip;
	return ptrace(PTRACE_SETREGSET, st->pid, NT_PRSTATUS, &iov) ? -1 : SIGTRAP;
}

bool steps_next(struct steps *st)
{
	unsigned int len = repeated(st->ip);
	int sig;

	if (len) {
		sig = run_to(st, st->ip + len);
	} else {
		if (ptrace(PTRACE_SINGLESTEP, st->pid, 0, 0))
			return false;
		sig = wait_stop(st);
	}
	if (sig != SIGTRAP || where(st))
		return false;
	st->nr++;
	return true;
}

bool steps_run_to(struct steps *st, uintptr_t ip)
{
	return run_to(st, ip) == SIGTRAP && !where(st);
}

bool steps_run(struct steps *st)
{
	return !ptrace(PTRACE_CONT, st->pid, 0, 0) && wait_stop(st) == SIGSTOP;
}

void steps_kill(struct steps *st)
{
	if (st->pid <= 0)
		return;
	kill(st->pid, SIGKILL);
	while (waitpid(st->pid, &st->status, __WALL) < 0 && errno == EINTR)
		;
	st->pid = 0;
}
