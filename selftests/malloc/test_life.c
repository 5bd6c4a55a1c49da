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

/* The soft limits go: the check needs memory of its own. */
static void unlimit(int what)
{
	struct rlimit lim;

	CHECK(!getrlimit(what, &lim), "getrlimit");
	lim.rlim_cur = lim.rlim_max;
	CHECK(!setrlimit(what, &lim), "setrlimit");
}

static size_t space_used(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	CHECK(f && fscanf(f, "%lu", &pages) == 1, "statm");
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* What RLIMIT_DATA counts: memory that can be written and is nobody else's, the stack apart. */
static size_t data_used(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	CHECK(f, "status");
	while (fgets(line, sizeof(line), f) && sscanf(line, "VmData: %lu kB", &kib) != 1)
		;
	fclose(f);
	CHECK(kib, "no VmData");
	return kib * KiB;
}

/* ulimit -v, -d: most of what there is can be used up, fails then, and can be used again. */
DROPIN_JOB(use_it_up)
{
	int what = getenv("LIMIT_DATA") ? RLIMIT_DATA : RLIMIT_AS;
	/* Program, libraries, and what the heap has opened. */
	const size_t rest = what == RLIMIT_AS ? space_used() : data_used();
	static void *p[65536];
	unsigned int n, small = 0;
	struct rlimit lim;

	CHECK(!getrlimit(what, &lim) && lim.rlim_cur != RLIM_INFINITY, "no limit");
	for (int round = 0; round < 3; round++) {
		for (n = 0; n < ARRAY_LEN(p); n++) {
			errno = 0;
			p[n] = malloc(100 * KiB);
			if (!p[n])
				break;
			*(char *)p[n] = 1;
		}
		CHECK(errno == ENOMEM && n < ARRAY_LEN(p), "%u of 100 KiB, errno %d", n, errno);
		CHECK(n * 128 * KiB > (lim.rlim_cur - rest) / 10 * 9, "%u of 100 KiB in %lu MiB", n,
		      (unsigned long)(lim.rlim_cur / MiB));
		while (n)
			free(p[--n]);
		for (small = 0; small < ARRAY_LEN(p) && (p[small] = malloc(4000)); small++)
			;
		for (n = 0; n < small; n++)
			free(p[n]);
	}
	unlimit(what);
	dropin_whole();
}

/* What the heap does not use is there for others; what they use, the heap does not get. */
DROPIN_JOB(share_it)
{
	struct rlimit lim;
	size_t size, n;
	void *p;

	CHECK(!getrlimit(RLIMIT_AS, &lim) && lim.rlim_cur != RLIM_INFINITY, "no limit");
	free(malloc(1000));
	CHECK(space_used() < 24 * MiB + lim.rlim_cur / 40, "%zu MiB in use", space_used() / MiB);
	size = lim.rlim_cur - space_used() - 4 * MiB;
	p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED, "%zu of %zu MiB", size / MiB, (size_t)lim.rlim_cur / MiB);
	for (n = 0; n <= 16 && malloc(MiB); n++)
		;
	CHECK(n < 16, "more than there was");
	CHECK(!munmap(p, size), "munmap");
	for (n = 0; n < size && malloc(64 * KiB); n += 64 * KiB)
		;
	CHECK(n > size / 10 * 9, "%zu of %zu MiB", n / MiB, size / MiB);
	unlimit(RLIMIT_AS);
	dropin_whole();
}

static void limited(const char *job, int what, size_t bytes, const char *env)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rlimit lim;

		if (getrlimit(what, &lim))
			_exit(3);
		lim.rlim_cur = bytes;
		if (setrlimit(what, &lim))
			_exit(3);
		_exit(dropin_run(job, env) != 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%s with %zu KiB: %#x", job, bytes / KiB, status);
}

Test(life, address_space_limited)
{
	static const size_t mib[] = { 16, 20, 64, 200, 1000 };

	for (size_t i = 0; i < ARRAY_LEN(mib); i++) {
		limited("use_it_up", RLIMIT_AS, mib[i] * MiB + 4096 * i, NULL);
		if (mib[i] >= 64)
			limited("share_it", RLIMIT_AS, mib[i] * MiB, NULL);
	}
}

Test(life, data_limited)
{
	static const size_t mib[] = { 12, 20, 64, 300 };

	for (size_t i = 0; i < ARRAY_LEN(mib); i++)
		limited("use_it_up", RLIMIT_DATA, mib[i] * MiB, "LIMIT_DATA=1");
}

/* A program that needs little starts with little. */
Test(life, least_address_space)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rlimit lim = { 20000 * KiB, 20000 * KiB };

		setenv("LD_PRELOAD", dropin_path(), 1);
		if (setrlimit(RLIMIT_AS, &lim))
			_exit(3);
		execl("/usr/bin/env", "env", "true", (char *)NULL);
		_exit(127);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%#x", status);
}

static void *nothing(void *arg)
{
	return arg;
}

/* NOLOCK_HEAP_MAX: nothing is reserved, so limits that are set later leave what they say. */
DROPIN_JOB(limits_itself)
{
	struct rlimit lim = { space_used() + 64 * MiB, RLIM_INFINITY };
	pthread_t t;
	size_t n;
	void *p;

	CHECK(space_used() < 64 * MiB, "%zu MiB in use", space_used() / MiB);
	lim.rlim_max = lim.rlim_cur;
	CHECK(!setrlimit(RLIMIT_AS, &lim), "setrlimit");
	CHECK(!pthread_create(&t, NULL, nothing, NULL) && !pthread_join(t, NULL), "a thread");
	p = mmap(NULL, 32 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED && !munmap(p, 32 * MiB), "32 MiB");
	CHECK(!malloc(100 * MiB), "more than the limit");
	for (n = 0; n < 64 && malloc(MiB); n++)
		;
	CHECK(n >= 32 && n < 64, "%zu MiB", n);
}

Test(life, limits_itself)
{
	dropin_expect("limits_itself", "NOLOCK_HEAP_MAX=512");
}

/*
 * All of it may be locked by a user whose limit is above what is mapped: that is what the kernel asks
 * for. Where such a limit cannot be set, by root alone.
 */
DROPIN_JOB(locks_itself)
{
	struct rlimit lim = { 64 * MiB, 64 * MiB };
	void *p;

	CHECK(space_used() < 64 * MiB, "%zu MiB are mapped", space_used() / MiB);
	if (!setrlimit(RLIMIT_MEMLOCK, &lim))
		CHECK(getuid() || (!setgid(65534) && !setuid(65534)), "setuid");
	CHECK(!mlockall(MCL_CURRENT), "mlockall: %d", errno);
	p = malloc(MiB);
	CHECK(p, "malloc");
	free(p);
	dropin_whole();
}

Test(life, locks_itself)
{
	dropin_expect("locks_itself", "NOLOCK_HEAP_MAX=512");
}

PRELOADED(life, bad_heap_max)
{
	free(malloc(100));
	dropin_whole();
}

Test(life, bad_heap_max_is_said)
{
	static const char *const bad[] = { "15", "x", "1G", "-1", "99999999999999999999" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char env[64], text[512];

		snprintf(env, sizeof(env), "NOLOCK_HEAP_MAX=%s", bad[i]);
		cr_assert_eq(dropin_run_stderr("bad_heap_max", env, text, sizeof(text)), 0);
		cr_assert(strstr(text, "NOLOCK_HEAP_MAX is not a number"), "%s: %s", env, text);
	}
}
