// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_first.c - first times: the first allocation of a process, of a thread and of a child of
 * fork, interrupted at each instruction; fork and thread creation in the handler there.
 *
 * A first time comes once, so each instruction is a process of its own: it single-steps its first
 * allocation by the trap flag up to the Nth instruction, has its handler there, and goes on freely.
 *   process	before the library's constructor: there is no heap yet
 *   thread	that never called the allocator, in a process that has a heap
 *   child	of a process whose other threads were inside of the allocator
 * Every other handler forks and makes a thread, which both allocate. Instructions: some of each
 * kind, spread evenly. With TORTURE_SECONDS=N all of a thread's, and as many of a process's and of a
 * child's as N seconds each allow: most of these are of loops, over the tables of a heap that is being
 * made, and of the inventory that a child takes.
 */
#define _GNU_SOURCE
#include <stdio.h>

#if defined(__x86_64__)
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "internal.h"
#include "row.h"
#include "../lib/trap.h"
#include "../lib/util.h"

#define NTH_ENV "TORTURE_NTH"
/* Descriptor of a file into which a process writes how many instructions there were. */
enum { counter = 200 };

/* How a process that was interrupted ends; statuses below are failures. */
enum { FINE = 0, NO_MEMORY = 1, DAMAGED, NOT_WHOLE, BAD_CHILD, LEFT_OVER, NOT_REACHED = 40 };

static unsigned long nth, traps;
static int result;
static void *kept;

static void is_bad(int what)
{
	if (result == FINE)
		result = what;
}

/* While nothing is opened yet, a nolock call has nothing to give; an ordinary one opens it. */
static void *get(unsigned int size)
{
	void *p = kmalloc_nolock(size, 0, NUMA_NO_NODE);

	if (!p)
		p = kmalloc(size, GFP_KERNEL);
	if (p)
		stamp(p, size, size);
	else
		is_bad(NO_MEMORY);
	return p;
}

static void put(void *p)
{
	if (p && !stamp_check(p))
		is_bad(DAMAGED);
	kfree_nolock(p);
}

static void *new_thread(void *arg)
{
	(void)arg;
	for (unsigned int i = 0; i < 5; i++)
		put(get(64 + i));
	return NULL;
}

/* A child has all that its parent had, and can go on at once. */
static void fork_here(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		result = FINE;
		put(get(64));
		put(get(3000));
		put(kept);
		_exit(result);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		is_bad(BAD_CHILD);
}

static void in_handler(void)
{
	pthread_t th;

	/* Before there is a heap, this makes one. */
	kept = get(64);
	put(get(64));
	put(get(200));
	if (nth % 2)
		return;
	fork_here();
	if (pthread_create(&th, NULL, new_thread, NULL)) {
		is_bad(BAD_CHILD);
		return;
	}
	pthread_join(th, NULL);
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	int saved = errno;

	(void)sig;
	(void)si;
	if (++traps == nth) {
		in_handler();
		trap_set_stepping(context, 0);
	}
	errno = saved;
}

/* Returns how it went. */
static int first_allocation(void)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	void *p, *more[40];

	sigaction(SIGTRAP, &sa, NULL);
	trap_on();
	p = kmalloc(64, GFP_KERNEL);
	trap_off();
	if (!p)
		is_bad(NO_MEMORY);
	else
		stamp(p, 64, 1);
	for (unsigned int i = 0; i < ARRAY_LEN(more); i++)
		more[i] = get(16 + i * 50);
	for (unsigned int i = 0; i < ARRAY_LEN(more); i++)
		put(more[i]);
	put(p);
	put(kept);
	if (nth == ULONG_MAX && pwrite(counter, &traps, sizeof(traps), 0) != sizeof(traps))
		is_bad(BAD_CHILD);
	return result != FINE ? result : traps < nth ? NOT_REACHED : FINE;
}

static int verdict(int how, bool alone)
{
	struct nolock_heap_report rep;

	if (how != FINE && how != NOT_REACHED)
		return how;
	if (check_whole(nolock_heap_default(), &rep, "after a first time"))
		return NOT_WHOLE;
	if (alone && (rep.allocated || rep.large || rep.refused))
		return LEFT_OVER;
	return how;
}

/* This program again, before the library's own constructor, which has no priority. */
__attribute__((constructor(200))) static void first_of_a_process(void)
{
	nth = env_number(NTH_ENV, 0);
	if (nth)
		_exit(verdict(first_allocation(), true));
}

static void *as_thread(void *arg)
{
	*(int *)arg = first_allocation();
	return NULL;
}

static int in_a_process(void)
{
	char number[24];

	snprintf(number, sizeof(number), "%lu", nth);
	setenv(NTH_ENV, number, 1);
	execl("/proc/self/exe", "test_first", (char *)NULL);
	return BAD_CHILD;
}

static int in_a_thread(void)
{
	pthread_t th;
	int how = BAD_CHILD;

	if (pthread_create(&th, NULL, as_thread, &how))
		return BAD_CHILD;
	pthread_join(th, NULL);
	return verdict(how, true);
}

/* What the parent's threads had is not the child's to free. */
static int in_a_child(void)
{
	return verdict(first_allocation(), false);
}

static volatile int churning;

static void *churn(void *arg)
{
	(void)arg;
	while (churning)
		kfree(kmalloc(64, GFP_KERNEL));
	return NULL;
}

static int run_one(int (*how)(void))
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		die_with_parent();
		_exit(how());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return BAD_CHILD;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/*
 * At each instruction, or, in an order that spreads them evenly and begins anywhere, at so many of
 * them, and for so long more.
 */
static int every_instruction(const char *name, int (*how)(void), unsigned long most,
			     uint64_t seconds)
{
	uint64_t begin = now_ns(), end = begin + seconds * 1000000000u;
	unsigned long low = 0, tried = 0, missed = 0, failed = 0, step;

	/* Once without a handler: how many there are. */
	nth = ULONG_MAX;
	if (run_one(how) != NOT_REACHED || pread(counter, &low, sizeof(low), 0) != sizeof(low)) {
		printf("  %s: the instructions could not be counted\n", name);
		return 1;
	}
	step = low % 7919 ? 7919 : 7907;
	for (; tried < low && (tried < most || now_ns() < end); tried++) {
		int status;

		nth = 1 + (begin + tried * step) % low;
		status = run_one(how);
		missed += status == NOT_REACHED;
		if (status == FINE || status == NOT_REACHED)
			continue;
		if (failed++ < 10)
			printf("  %s, instruction %lu: ended with %d (1 no memory, 2 damaged, 3 "
			       "not whole, 4 a child, 5 left over, 128 and more a signal)\n",
			       name, nth, status);
	}
	printf("# first allocation of a %s: %lu instructions, %lu tried, %lu not reached, %lu "
	       "failed\n",
	       name, low, tried, missed, failed);
	row(name, tried, tried - missed, "first times", failed);
	return failed != 0 || low < 50 || missed > tried / 2;
}

int main(void)
{
	unsigned long seconds = env_number("TORTURE_SECONDS", 0), failed = 0;
	pthread_t th;

	if (dup2(memfd_create("counter", 0), counter) != counter) {
		perror("memfd_create");
		return 2;
	}
	failed += (unsigned long)every_instruction("process", in_a_process, 40, seconds);
	/* The main thread has a number from here on, as a program's has that allocates. */
	kfree(kmalloc_node(64, GFP_KERNEL, 0));
	failed += (unsigned long)every_instruction("thread", in_a_thread, seconds ? ULONG_MAX : 40,
						   0);
	churning = 1;
	if (pthread_create(&th, NULL, churn, NULL))
		return 2;
	failed += (unsigned long)every_instruction("child", in_a_child, 5, seconds);
	churning = 0;
	pthread_join(th, NULL);
	printf("%lu passed, %lu failed, 0 skipped\n", 3 - failed, failed);
	return failed != 0;
}
#else
int main(void)
{
	printf("single-stepping from within is for x86-64 alone\n");
	return 77;
}
#endif
