// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_fork.c - the drop-in around fork, _Fork, vfork, clone and posix_spawn, in processes with
 * threads that are inside of malloc, and out of handlers that interrupted it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include "../lib/trap.h"
#include "objects.h"

extern char **environ;

static volatile int stop, is_child;
static struct flow flows[4];

/* The thread that a handler has forked in goes on in the child, to the end of what it was at. */
static _Noreturn void end_of_child(struct flow *f)
{
	for (int i = 0; i < 100; i++)
		flow_step(f);
	flow_end(f);
	dropin_whole();
	_exit(0);
}

static void *churn(void *arg)
{
	struct flow *f = arg;

	while (!stop) {
		flow_step(f);
		if (is_child)
			end_of_child(f);
	}
	return NULL;
}

static void with_threads(void (*fn)(void))
{
	pthread_t threads[ARRAY_LEN(flows)];

	for (size_t i = 0; i < ARRAY_LEN(flows); i++) {
		flows[i].s = 77 + i;
		CHECK(!pthread_create(&threads[i], NULL, churn, &flows[i]), "pthread_create");
	}
	fn();
	stop = 1;
	for (size_t i = 0; i < ARRAY_LEN(flows); i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < ARRAY_LEN(flows); i++)
		flow_end(&flows[i]);
	dropin_whole();
}

static void expect_child(pid_t pid, const char *what)
{
	int status = -1;
	pid_t got;

	CHECK(pid > 0, "%s", what);
	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	CHECK(got == pid && status == 0, "%s: the child ended with %#x", what, status);
}

static void *in_a_thread(void *arg)
{
	struct flow *f = arg;

	for (int i = 0; i < 300; i++)
		flow_step(f);
	return NULL;
}

/* The parent's other threads, and what they held, are gone. */
static _Noreturn void child(bool threads)
{
	struct flow mine = { .s = (uint64_t)getpid() }, other = { .s = 5 };
	pthread_t t;

	for (int i = 0; i < 300; i++)
		flow_step(&mine);
	if (threads) {
		CHECK(!pthread_create(&t, NULL, in_a_thread, &other), "pthread_create in a child");
		in_a_thread(&mine);
		pthread_join(t, NULL);
		flow_end(&other);
	}
	flow_end(&mine);
	dropin_whole();
	_exit(0);
}

static void fork_often(void)
{
	for (int i = 0; i < 120; i++) {
		pid_t pid = i % 3 == 2 ? _Fork() : fork();

		if (!pid)
			child(i % 3 == 1);
		expect_child(pid, "fork");
	}
}

PRELOADED(fork, of_a_process_with_threads)
{
	with_threads(fork_often);
}

/* A thread that never allocated forks while others are at it: its child's first call is its first. */
static void *fork_first(void *arg)
{
	pid_t pid = _Fork();

	if (!pid)
		child(false);
	*(pid_t *)arg = pid;
	return NULL;
}

static void fork_in_new_threads(void)
{
	for (int i = 0; i < 150; i++) {
		pthread_t t;
		pid_t pid = -1;

		CHECK(!pthread_create(&t, NULL, fork_first, &pid), "pthread_create");
		pthread_join(t, NULL);
		expect_child(pid, "fork in a new thread");
	}
}

PRELOADED(fork, of_a_thread_that_never_allocated)
{
	with_threads(fork_in_new_threads);
}

/*
 * Out of a handler, wherever the process was: one fork each time it is asked for, in whichever thread
 * gets the signal. The child goes on where the handler interrupted it.
 */
static volatile int asked, forks;
static volatile pid_t last_child;

static void forking(int sig)
{
	int saved = errno;
	pid_t pid;

	(void)sig;
	if (is_child || !__atomic_exchange_n(&asked, 0, __ATOMIC_ACQ_REL))
		return;
	pid = forks % 2 ? fork() : _Fork();
	if (!pid) {
		struct flow f = { .s = 9 };

		is_child = 1;
		for (int i = 0; i < 50; i++)
			flow_step(&f);
		flow_end(&f);
	} else {
		last_child = pid;
		__atomic_fetch_add(&forks, 1, __ATOMIC_RELEASE);
	}
	errno = saved;
}

static void fork_in_handlers(void)
{
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, off = { { 0, 0 }, { 0, 0 } };
	struct sigaction sa = { .sa_handler = forking, .sa_flags = SA_RESTART };
	struct flow f = { .s = 4242 };

	CHECK(!sigaction(SIGALRM, &sa, NULL), "sigaction");
	CHECK(!setitimer(ITIMER_REAL, &every, NULL), "setitimer");
	for (int n = 0; n < 60; n++) {
		asked = 1;
		while (__atomic_load_n(&forks, __ATOMIC_ACQUIRE) == n && !is_child)
			flow_step(&f);
		if (is_child)
			end_of_child(&f);
		expect_child(last_child, "fork in a handler");
	}
	setitimer(ITIMER_REAL, &off, NULL);
	flow_end(&f);
}

PRELOADED(fork, in_handlers)
{
	fork_in_handlers();
	dropin_whole();
}

PRELOADED(fork, in_handlers_of_a_process_with_threads)
{
	with_threads(fork_in_handlers);
}

/* A child that does what it may not: allocates, and frees what the parent allocated. */
static struct flow shared = { .s = 31337 };

static void in_vfork_child(void)
{
	for (int i = 0; i < 200; i++)
		flow_step(&shared);
}

static __attribute__((noinline)) pid_t by_vfork(bool exec)
{
	pid_t pid = vfork();

	if (!pid) {
		in_vfork_child();
		if (exec)
			execl("/bin/true", "true", (char *)NULL);
		_exit(0);
	}
	return pid;
}

static void vfork_often(void)
{
	for (int i = 0; i < 150; i++) {
		expect_child(by_vfork(i % 2), "vfork");
		flow_step(&shared);
	}
	flow_end(&shared);
}

PRELOADED(fork, vfork_child_allocates)
{
	vfork_often();
	dropin_whole();
}

PRELOADED(fork, vfork_child_allocates_among_threads)
{
	with_threads(vfork_often);
}

static int clone_child(void *arg)
{
	(void)arg;
	in_vfork_child();
	return 0;
}

static void clone_often(void)
{
	size_t size = MiB;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(stack != MAP_FAILED, "mmap");
	for (int i = 0; i < 100; i++) {
		expect_child(clone(clone_child, stack + size, CLONE_VM | CLONE_VFORK | SIGCHLD,
				   NULL),
			     "clone");
		flow_step(&shared);
	}
	/* CLONE_THREAD wants more flags than that. */
	CHECK(clone(clone_child, stack + size, CLONE_VM | CLONE_VFORK | CLONE_THREAD, NULL) < 0 &&
		      errno == EINVAL,
	      "errno %d", errno);
	flow_end(&shared);
	munmap(stack, size);
}

PRELOADED(fork, clone_child_allocates)
{
	with_threads(clone_often);
}

/*
 * What must not happen there, made to happen: a signal in the midst of a sequence, which nobody
 * aborts, whose handler pops and pushes the same slot. One at each instruction of malloc and free.
 */
#if defined(__x86_64__)
static struct flow trapped = { .s = 123 };
static volatile unsigned long traps;
static void *volatile vict[8];

/* Keeps some, so that a pop or push of before, completed after, is one too many. */
static void on_trap(int sig)
{
	static void *held[5];
	void **oldest = &held[traps++ % ARRAY_LEN(held)], *p;

	(void)sig;
	free(*oldest);
	*oldest = NULL;
	p = malloc(48);
	CHECK(p, "malloc");
	for (size_t i = 0; i < ARRAY_LEN(vict); i++)
		CHECK(p != vict[i], "%p is in use", p);
	for (size_t i = 0; i < ARRAY_LEN(held); i++)
		CHECK(p != held[i], "%p is in use by the handler", p);
	memset(p, 0x11, 48);
	*oldest = p;
}

static void step_through(void)
{
	for (int round = 0; round < 12; round++) {
		for (size_t i = 0; i < ARRAY_LEN(vict); i++) {
			void *p;

			trap_on();
			p = malloc(48);
			trap_off();
			CHECK(p, "malloc");
			for (size_t k = 0; k < i; k++)
				CHECK(p != vict[k], "%p was handed out twice", p);
			vict[i] = p;
			memset(p, (int)i, 48);
		}
		for (size_t i = 0; i < ARRAY_LEN(vict); i++) {
			char *p = vict[i];

			CHECK(p[0] == (char)i && !memcmp(p, p + 1, 47), "%p was overwritten", p);
			vict[i] = NULL;
			trap_on();
			free(p);
			trap_off();
		}
	}
}

static void step_setup(void)
{
	struct sigaction sa = { .sa_handler = on_trap };

	CHECK(!sigaction(SIGTRAP, &sa, NULL), "sigaction");
	for (int i = 0; i < 1000; i++)
		flow_step(&trapped);
}

PRELOADED(fork, vfork_child_interrupted_at_each_instruction)
{
	pid_t pid;

	step_setup();
	pid = vfork();
	if (!pid) {
		step_through();
		_exit(0);
	}
	expect_child(pid, "vfork");
	CHECK(traps > 3000, "%lu traps", traps);
	/* And the parent, whose sequences are aborted as ever. */
	step_through();
	flow_end(&trapped);
	dropin_whole();
}

/* A handler that forks, allocates in the child and execs, at each instruction of malloc and free. */
static void vforking(int sig)
{
	pid_t pid;
	void *p;

	(void)sig;
	if (traps++ % 16)
		return;
	pid = vfork();
	if (!pid) {
		free(malloc(48));
		_exit(0);
	}
	expect_child(pid, "vfork");
	p = malloc(48);
	CHECK(p, "malloc");
	memset(p, 0x33, 48);
	free(p);
}

PRELOADED(fork, vfork_at_each_instruction)
{
	struct sigaction sa = { .sa_handler = vforking };

	step_setup();
	CHECK(!sigaction(SIGTRAP, &sa, NULL), "sigaction");
	for (int i = 0; i < 12; i++) {
		char *p;

		/* Not a divisor of the instructions of a call: each is hit once in 16 rounds. */
		traps += 5;
		trap_on();
		p = malloc(48);
		free(p);
		trap_off();
	}
	flow_end(&trapped);
	dropin_whole();
}
#endif

static void spawn_often(void)
{
	static char *const argv[] = { "true", NULL };

	for (int i = 0; i < 40; i++) {
		pid_t pid;

		CHECK(!posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ), "posix_spawn");
		expect_child(pid, "posix_spawn");
		CHECK(posix_spawn(&pid, "/no/such/program", NULL, NULL, argv, environ) == ENOENT,
		      "posix_spawn");
		CHECK(system("exit 3") == 3 << 8, "system");
	}
}

PRELOADED(fork, posix_spawn_and_system)
{
	with_threads(spawn_often);
}
