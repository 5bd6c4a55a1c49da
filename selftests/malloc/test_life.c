// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_life.c - the drop-in over the life of threads and processes: a thread's first allocation
 * interrupted at each instruction, its end, atexit, descriptors closed, limits on address space.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "../lib/trap.h"
#include "objects.h"

#if defined(__x86_64__)
static __thread struct flow trap_flow;
static volatile unsigned long traps;

static void on_trap(int sig)
{
	int saved = errno;

	(void)sig;
	traps++;
	if (!trap_flow.s)
		trap_flow.s = 99;
	flow_step(&trap_flow);
	errno = saved;
}

/* Each thread takes another call as its first. */
struct first {
	int which;
	void *old;
};

static void *first_call(void *arg)
{
	struct first *first = arg;
	void *p = NULL;

	trap_on();
	switch (first->which) {
	case 0:
		p = malloc(100);
		break;
	case 1:
		p = calloc(10, 10);
		break;
	case 2:
		p = realloc(NULL, 100);
		break;
	case 3:
		p = memalign(256, 100);
		break;
	case 4:
		free(first->old);
		break;
	default:
		p = malloc(100 * KiB);
	}
	trap_off();
	CHECK(first->which == 4 || p, "call %d", first->which);
	if (p)
		memset(p, 0x5a, 100);
	/* What the handlers made is whole, too. */
	flow_end(&trap_flow);
	free(p);
	return NULL;
}

PRELOADED(life, first_allocation_interrupted)
{
	struct sigaction sa = { .sa_handler = on_trap };

	CHECK(!sigaction(SIGTRAP, &sa, NULL), "sigaction");
	for (int i = 0; i < 24; i++) {
		struct first arg = { i % 6, malloc(100) };
		pthread_t t;

		CHECK(!pthread_create(&t, NULL, first_call, &arg), "pthread_create");
		pthread_join(t, NULL);
		if (arg.which != 4)
			free(arg.old);
	}
	CHECK(traps > 500, "%lu traps", traps);
	dropin_whole();
}
#endif

/* Destructors of thread-specific data allocate and free, round by round. */
static pthread_key_t key;

static void destructor(void *value)
{
	struct flow *f = value;

	for (int i = 0; i < 20; i++)
		flow_step(f);
	if (f->ops < 60) {
		pthread_setspecific(key, f);
		return;
	}
	flow_end(f);
	free(f);
}

static void *short_life(void *arg)
{
	struct flow *f = calloc(1, sizeof(*f));

	CHECK(f, "calloc");
	f->s = (uint64_t)(uintptr_t)arg + 1;
	CHECK(!pthread_setspecific(key, f), "pthread_setspecific");
	return malloc(100);
}

PRELOADED(life, threads_that_end)
{
	CHECK(!pthread_key_create(&key, destructor), "pthread_key_create");
	for (uintptr_t i = 0; i < 250; i++) {
		pthread_t t[4];

		for (int k = 0; k < 4; k++)
			CHECK(!pthread_create(&t[k], NULL, short_life, (void *)(i * 4 + k)),
			      "pthread_create");
		for (int k = 0; k < 4; k++) {
			void *p;

			pthread_join(t[k], &p);
			free(p);
		}
	}
	dropin_whole();
}

static void at_exit(void)
{
	static struct flow f = { .s = 7 };

	for (int i = 0; i < 1000; i++)
		flow_step(&f);
	flow_end(&f);
	dropin_whole();
}

__attribute__((destructor)) static void last(void)
{
	free(malloc(100));
}

PRELOADED(life, at_exit)
{
	CHECK(!atexit(at_exit), "atexit");
	exit(0);
}

/* All descriptors closed, as daemons do, before there is need to grow. */
PRELOADED(life, without_descriptors)
{
	int out = dup(STDOUT_FILENO);
	void *p[200];

	for (int fd = 0; fd < 1000; fd++)
		if (fd != out)
			close(fd);
	for (int i = 0; i < 200; i++) {
		p[i] = malloc(MiB);
		if (!p[i])
			_exit(2);
		memset(p[i], i, 4096);
	}
	for (int i = 0; i < 200; i++)
		free(p[i]);
	malloc_trim(0);
	dup2(out, STDOUT_FILENO);
	dropin_whole();
}

/* ulimit -v: what there is can be used up, fails then, and can be used again. */
DROPIN_JOB(use_it_up)
{
	static void *p[65536];
	unsigned int n, small = 0;
	struct rlimit lim;

	CHECK(!getrlimit(RLIMIT_AS, &lim) && lim.rlim_cur != RLIM_INFINITY, "no limit");
	for (int round = 0; round < 3; round++) {
		for (n = 0; n < ARRAY_LEN(p); n++) {
			errno = 0;
			p[n] = malloc(100 * KiB);
			if (!p[n])
				break;
			*(char *)p[n] = 1;
		}
		CHECK(errno == ENOMEM && n < ARRAY_LEN(p), "%u of 100 KiB, errno %d", n, errno);
		CHECK(n * 128 * KiB > lim.rlim_cur / 8, "%u of 100 KiB in %lu MiB", n,
		      (unsigned long)(lim.rlim_cur / MiB));
		while (n)
			free(p[--n]);
		for (small = 0; small < ARRAY_LEN(p) && (p[small] = malloc(4000)); small++)
			;
		for (n = 0; n < small; n++)
			free(p[n]);
	}
	dropin_whole();
}

Test(life, address_space_limited)
{
	static const unsigned int mib[] = { 64, 200, 1000 };

	for (size_t i = 0; i < ARRAY_LEN(mib); i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			struct rlimit lim = { mib[i] * MiB, mib[i] * MiB };

			if (setrlimit(RLIMIT_AS, &lim))
				_exit(3);
			_exit(dropin_run("use_it_up", NULL) != 0);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "with %u MiB: %#x", mib[i], status);
	}
}
