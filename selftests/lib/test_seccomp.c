// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_seccomp.c - no system call: the nolock calls, and those whose flags forbid blocking, run
 * under a seccomp filter that kills the process on any.
 *
 * Results go to the parent through shared memory. Signals come from faults (ud2, the trap flag), not
 * from calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "forbid.h"
#include "util.h"
#include "trap.h"

/* What the child tells the parent. */
struct result {
	unsigned long ops, failed, bad, signals;
	int done;
};

static struct result *res;
static struct kmem_cache *cache;
static struct slab_sheaf *sheaf;

static const unsigned int sizes[] = { 1, 16, 48, 64, 100, 333, 1000, 4096, 20000, 32768 };

static void check_and_free(void *p, unsigned int k)
{
	if (!p)
		return;
	if (!stamp_check(p))
		res->bad++;
	switch (k % 4) {
	case 0:
		kfree_nolock(p);
		break;
	case 1:
		kfree(p);
		break;
	default:
		kfree_nolock(p);
	}
	res->ops++;
}

/* One allocation by each of the calls that promise to make no system call. */
static void *one(unsigned int k)
{
	unsigned int size = sizes[k / 8 % ARRAY_LEN(sizes)];
	void *p;

	switch (k % 8) {
	case 0:
		size = 96;
		p = kmem_cache_alloc_nolock(cache, __GFP_ZERO, NUMA_NO_NODE);
		break;
	case 1:
		size = 4096;
		p = alloc_pages_nolock(0, NUMA_NO_NODE, 0);
		break;
	case 2:
		p = kmalloc(size, GFP_ATOMIC);
		break;
	case 3:
		size = 8192;
		p = alloc_pages_nolock(__GFP_ZERO, 0, 1);
		break;
	default:
		p = kmalloc_nolock(size, k & 1 ? __GFP_ZERO : 0, NUMA_NO_NODE);
	}
	res->ops++;
	if (!p) {
		res->failed++;
		return NULL;
	}
	stamp(p, size < 16 ? 16 : size, k);
	return p;
}

static void work(void)
{
	static void *obj[600];
	unsigned int n;

	for (int round = 0; round < 20; round++) {
		for (n = 0; n < ARRAY_LEN(obj); n++)
			obj[n] = one(n + (unsigned int)round);
		for (n = 0; n < ARRAY_LEN(obj); n++) {
			if (obj[n] && ksize(obj[n]) < 16)
				res->bad++;
			if (obj[n] && nolock_heap_of(obj[n]) != nolock_heap_default())
				res->bad++;
			check_and_free(obj[n], n);
		}
	}
	/* Large ones are tried once: whether they are there or not, no call is made. */
	for (n = 40000; n < 2 * MiB; n *= 2) {
		void *p = kmalloc_nolock(n, 0, NUMA_NO_NODE);

		if (p) {
			stamp(p, n, n);
			if (!stamp_check(p))
				res->bad++;
			kfree_nolock(p);
		}
		res->ops++;
	}
	while (kmem_cache_sheaf_size(sheaf)) {
		void *p = kmem_cache_alloc_from_sheaf(cache, 0, sheaf);

		if (!p)
			res->failed++;
		else
			kfree_nolock(p);
		res->ops++;
	}
	kmem_cache_return_sheaf(cache, GFP_NOWAIT, sheaf);
	/* Until nothing is left: the last levels make no system call either. */
	{
		void *chain = NULL, *p;

		while ((p = kmalloc_nolock(32768, 0, NUMA_NO_NODE))) {
			*(void **)p = chain;
			chain = p;
			res->ops++;
		}
		if (!chain)
			res->failed++;
		while (chain) {
			p = *(void **)chain;
			kfree_nolock(chain);
			chain = p;
			res->ops++;
		}
	}
}

/* Not declared noreturn: in front of a call to such a function ASan makes system calls. */
static void finish(void)
{
	res->done = 1;
	syscall(__NR_exit_group, 0);
}

/* Everything is made ready by the parent; the child's first use comes after the filter. */
static void prepare(void)
{
	res = mmap(NULL, sizeof(*res), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(res, MAP_FAILED);
	cache = kmem_cache_create("quiet", 96, NULL, 0);
	cr_assert_not_null(cache);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 64 * MiB), 0);
	sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 50);
	cr_assert_not_null(sheaf);
}

static void judge(const char *name, pid_t pid)
{
	int status = 0;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	report("  %s: %lu operations, %lu signals, %lu failures, %lu damaged, status %#x", name,
	       res->ops, res->signals, res->failed, res->bad, status);
	cr_assert_not(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
		      "%s: a system call was made after %lu operations", name, res->ops);
	cr_assert_eq(status, 0, "%s: status %#x after %lu operations", name, status, res->ops);
	cr_assert(res->done);
	cr_assert_eq(res->failed, 0);
	cr_assert_eq(res->bad, 0);
	cr_assert_gt(res->ops, 1000);
}

Test(seccomp, the_filter_kills, .description = "the method itself: a system call is fatal")
{
	pid_t pid;
	int status = 0;

	pid = fork();
	if (pid == 0) {
		die_with_parent();
		if (forbid_system_calls())
			_exit(1);
		syscall(__NR_getppid);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "status %#x", status);
}

Test(seccomp, ordinary_code)
{
	pid_t pid;

	prepare();
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		/* Warmed up, as a program is that has used its heap. */
		kfree(kmalloc(64, GFP_KERNEL));
		if (forbid_system_calls())
			_exit(1);
		work();
		finish();
	}
	judge("ordinary_code", pid);
}

Test(seccomp, first_calls_of_a_child, .description = "after fork, nothing warmed up")
{
	pid_t pid;

	prepare();
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		if (forbid_system_calls())
			_exit(1);
		work();
		finish();
	}
	judge("first_calls_of_a_child", pid);
}

/* The heap is full but for what populate set aside, and no lock is to be waited for. */
Test(seccomp, last_levels)
{
	pid_t pid;

	prepare();
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		unsigned long n = 0;

		if (forbid_system_calls())
			_exit(1);
		/* Fresh chunks, the next bucket, and the scan that believes no hint. */
		for (unsigned int i = 0; i < ARRAY_LEN(sizes); i++) {
			void *chain = NULL, *p;

			while ((p = kmalloc_nolock(sizes[i] < 16 ? 16 : sizes[i], 0,
						   NUMA_NO_NODE))) {
				*(void **)p = chain;
				chain = p;
				n++;
			}
			while (chain) {
				p = *(void **)chain;
				kfree_nolock(chain);
				chain = p;
			}
		}
		res->ops = n;
		finish();
	}
	judge("last_levels", pid);
}

#if defined(__x86_64__)
/* In a handler that a fault raised while the main flow was in the allocator. */
static void *held[16];

static void in_handler(int sig, siginfo_t *si, void *context)
{
	unsigned int k = (unsigned int)res->signals++;
	int saved = errno;

	(void)si;
	check_and_free(held[k % 16], k);
	held[k % 16] = one(k);
	check_and_free(one(k * 7), k);
	if (sig == SIGILL) /* ud2 is two bytes */
		trap_set_ip(context, trap_ip(context) + 2);
	errno = saved;
}

static void handler_child(bool stepping)
{
	struct sigaction sa = { .sa_sigaction = in_handler, .sa_flags = SA_SIGINFO };
	static void *obj[64];

	sigaction(SIGILL, &sa, NULL);
	sigaction(SIGTRAP, &sa, NULL);
	if (forbid_system_calls())
		_exit(1);
	for (unsigned int i = 0; i < (stepping ? 200u : 20000u); i++) {
		unsigned int k = i % ARRAY_LEN(obj);

		check_and_free(obj[k], i);
		if (stepping) {
			trap_on();
			obj[k] = kmalloc_nolock(48, 0, NUMA_NO_NODE);
			trap_off();
			if (!obj[k])
				res->failed++;
			else
				stamp(obj[k], 48, i);
		} else {
			obj[k] = one(i);
			__asm__ volatile("ud2" ::: "memory");
		}
	}
	finish();
}

Test(seccomp, in_a_handler)
{
	pid_t pid;

	prepare();
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		handler_child(false);
	}
	judge("in_a_handler", pid);
	cr_assert_geq(res->signals, 20000);
}

Test(seccomp, in_a_handler_at_every_instruction)
{
	pid_t pid;

	prepare();
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		handler_child(true);
	}
	judge("in_a_handler_at_every_instruction", pid);
	cr_assert_geq(res->signals, 5000);
}
#endif

JOB(without_rseq)
{
	int status = 0;
	pid_t pid;

	if (rseq_in_use(nolock_heap_default()))
		return 2;
	res = mmap(NULL, sizeof(*res), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cache = kmem_cache_create("quiet", 96, NULL, 0);
	if (res == MAP_FAILED || !cache || nolock_heap_populate(nolock_heap_default(), 64 * MiB))
		return 3;
	sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 50);
	if (!sheaf)
		return 4;
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		if (forbid_system_calls())
			_exit(1);
		work();
		finish();
	}
	if (waitpid(pid, &status, 0) != pid)
		return 5;
	report("  without_rseq: %lu operations, %lu failures, %lu damaged, status %#x", res->ops,
	       res->failed, res->bad, status);
	return status || res->failed || res->bad || !res->done;
}

Test(seccomp, without_rseq)
{
	int status = job_run("without_rseq", "NOLOCK_RSEQ", "0");

	cr_assert_eq(status, 0, "the run without rseq ended with status %#x", status);
}
