// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_pass.c - objects cross between BPF programs and processes, in both directions, and
 * all of them allocate from one cache on two CPUs at once.
 *
 * Whoever has an object puts it into a mail slot, takes out what was there, checks its pattern and
 * frees it. So each side frees what every other one has allocated.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "nolock_help.h"

/* What the heap's root points to. */
struct shared {
	nl_u64 bpf_work;
	nl_u64 process_work;
	nl_u32 stop;
};

static __thread struct nolock_work *my_handler_work;

static void on_timer(int sig)
{
	int err = errno;

	(void)sig;
	if (my_handler_work)
		work_run(my_handler_work);
	errno = err;
}

/* Signals to this thread, many a second. */
static timer_t storm_start(struct nolock_work *w, long ns)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	struct itimerspec every = { .it_interval.tv_nsec = ns, .it_value.tv_nsec = ns };
	struct sigaction sa = { .sa_handler = on_timer, .sa_flags = SA_RESTART };
	timer_t timer = 0;

	ev._sigev_un._tid = gettid();
	my_handler_work = w;
	if (sigaction(SIGUSR1, &sa, NULL) || timer_create(CLOCK_MONOTONIC, &ev, &timer) ||
	    timer_settime(timer, 0, &every, NULL))
		abort();
	return timer;
}

static void storm_end(timer_t timer)
{
	timer_delete(timer);
	my_handler_work = NULL;
}

static void show(const char *name, const struct nolock_work *w)
{
	figure("%s: %llu allocations, %llu frees; of user space %llu, handlers %llu, the second "
	       "process %llu, BPF %llu; %llu failed, %llu damaged",
	       name, (unsigned long long)w->allocs, (unsigned long long)w->frees,
	       (unsigned long long)w->from[SIDE_USER], (unsigned long long)w->from[SIDE_HANDLER],
	       (unsigned long long)w->from[SIDE_PROCESS], (unsigned long long)w->from[SIDE_BPF],
	       (unsigned long long)w->fails, (unsigned long long)w->bad);
}

/* The second process: finds all by the heap's root, works until it is told to stop. */
static int second_process(int fd, int ready)
{
	struct nolock_heap *heap =
		nl_heap_map(dup(fd), NL_HEAP_ARENA, arena_base(0), 4ULL << 30, 2);
	struct nolock_work *w;
	struct shared *sh;
	char byte;

	if (!heap || read(ready, &byte, 1) != 1)
		return 1;
	sh = nolock_heap_root(heap);
	if (nolock_heap_of(sh) != heap)
		return 2;
	w = (struct nolock_work *)sh->process_work;
	w->heap = (nl_u64)heap;
	while (!nl_load(&sh->stop))
		work_run(w);
	work_drain(w);
	return nolock_heap_close(heap) ? 3 : 0;
}

struct pair {
	const struct nolock_work *w;
	unsigned int side;
};

/* Of what BPF allocated, handlers have had less than a quarter of what user space has. */
static bool handler_is_late(const struct nolock_work *handler, const struct nolock_work *user)
{
	return nl_load(&handler->from[SIDE_BPF]) < nl_load(&user->from[SIDE_BPF]) / 4;
}

Test(nolock_pass, both_directions, .timeout = 400)
{
	static const char *const progs[] = { "work_root", NULL };
	int fd = heap_make(0, 8), status, ready[2];
	struct nolock_work *user, *handler, *process, *bpf;
	struct nolock_work_bpf *s;
	struct nolock_heap *heap;
	struct nolock_mail *mail;
	struct shared *sh;
	timer_t timer;
	bool enough;
	pid_t pid;

	cr_assert_eq(pipe(ready), 0);
	fflush(NULL);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid)
		_exit(second_process(fd, ready[0]));
	heap = heap_map(fd, 0, 1);
	cr_assert_gt(nl_heap_grow(heap, ~0u), 0);
	s = work_load(fd, progs);
	mail = mail_new(heap);
	user = work_new(heap, SIDE_USER, 16, 128);
	handler = work_new(heap, SIDE_HANDLER, 16, 128);
	process = work_new(heap, SIDE_PROCESS, 16, 128);
	bpf = work_new(heap, SIDE_BPF, 16, 128);
	user->mail = handler->mail = process->mail = bpf->mail = (nl_u64)mail;
	user->max_size = handler->max_size = process->max_size = bpf->max_size = 4096;
	sh = nolock_heap_kmalloc(heap, sizeof(*sh), GFP_KERNEL | __GFP_ZERO);
	cr_assert(sh);
	sh->bpf_work = (nl_u64)bpf;
	sh->process_work = (nl_u64)process;
	nolock_heap_set_root(heap, sh);
	cr_assert_eq(write(ready[1], "", 1), 1);
	timer = storm_start(handler, 50000);
	do {
		const struct pair all[] = {
			{ user, SIDE_BPF },	{ handler, SIDE_BPF },	   { process, SIDE_BPF },
			{ bpf, SIDE_USER },	{ bpf, SIDE_HANDLER },	   { bpf, SIDE_PROCESS },
			{ process, SIDE_USER }, { process, SIDE_HANDLER },
		};

		work_run(user);
		run_syscall(s->progs.work_root, NULL);
		/*
		 * Where the timer's interrupt lets the second process run first, as in an emulator that
		 * has one thread for all CPUs, the handler finds little of BPF's left in the mail.
		 */
		if (handler_is_late(handler, user))
			raise(SIGUSR1);
		enough = true;
		for (unsigned int i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			enough &= nl_load(&all[i].w->from[all[i].side]) >= 1000;
	} while (!enough);
	storm_end(timer);
	nl_store(&sh->stop, 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "the second process: %x", status);
	work_drain(handler);
	work_drain(bpf);
	work_drain(user);
	mail_drain(mail, user);
	show("user space", user);
	show("signal handler", handler);
	show("second process", process);
	show("BPF", bpf);
	work_good(user, "user space");
	work_good(handler, "the handler");
	work_good(process, "the second process");
	work_good(bpf, "BPF");
	cr_assert_eq(user->allocs + handler->allocs + process->allocs + bpf->allocs,
		     user->frees + handler->frees + process->frees + bpf->frees);
	nolock_heap_set_root(heap, NULL);
	heap_whole(heap, 6, "all passed");
}

#define STORM_RUNS 8000u

struct thread {
	pthread_t id;
	int cpu;
	struct nolock_work *w;
	struct nolock_work *handler;
	struct nolock_work_bpf *s;
	nl_u32 *busy; /* threads that run BPF programs */
	int err;
};

static void stay_on(struct thread *t)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(t->cpu, &set);
	t->err = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *bpf_thread(void *arg)
{
	struct thread *t = arg;
	nl_u64 args = (nl_u64)t->w;
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &args, .ctx_size_in = sizeof(args));

	stay_on(t);
	for (unsigned int i = 0; i < STORM_RUNS && !t->err; i++)
		t->err = bpf_prog_test_run_opts(bpf_program__fd(t->s->progs.work_syscall), &run);
	__atomic_sub_fetch(t->busy, 1, __ATOMIC_ACQ_REL);
	return NULL;
}

static void *user_thread(void *arg)
{
	struct thread *t = arg;
	timer_t timer;

	stay_on(t);
	timer = storm_start(t->handler, 100000);
	while (nl_load(t->busy))
		work_run(t->w);
	storm_end(timer);
	return NULL;
}

/* BPF on two CPUs, and on each a user's thread with a storm of signals: on the same cache. */
static void storm(const char *what, unsigned int size, unsigned int capacity, bool rseq)
{
	static const char *const progs[] = { "work_syscall", NULL };
	struct kmem_cache_args args = { .sheaf_capacity = capacity };
	struct nolock_heap *heap = heap_new(0, 16);
	struct nolock_mail *mail = mail_new(heap);
	struct nolock_work_bpf *s = work_load(nolock_heap_fd(heap), progs);
	struct kmem_cache *cache = NULL;
	struct thread t[4] = { 0 };
	nl_u64 allocs = 0, frees = 0, fails = 0, crossed = 0;
	nl_u32 busy = 2;

	if (!rseq)
		heap->rseq_slots = 0;
	if (size) {
		cache = nolock_heap_kmem_cache_create(heap, "storm", size, &args, 0);
		cr_assert(cache);
	}
	for (unsigned int i = 0; i < 4; i++) {
		struct nolock_work *of[2] = {
			work_new(heap, i < 2 ? SIDE_BPF : SIDE_USER, 256, 256),
			work_new(heap, SIDE_HANDLER, 16, 64),
		};

		for (unsigned int k = 0; k < 2; k++) {
			of[k]->cache = (nl_u64)cache;
			of[k]->mail = (nl_u64)mail;
			if (size)
				of[k]->min_size = of[k]->max_size = size;
		}
		t[i] = (struct thread){ .cpu = (int)(i % 2 % nr_cpus()),
					.w = of[0],
					.handler = of[1],
					.s = s,
					.busy = &busy };
	}
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(
			pthread_create(&t[i].id, NULL, i < 2 ? bpf_thread : user_thread, &t[i]), 0);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(pthread_join(t[i].id, NULL), 0);
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(t[i].err, 0);
		work_drain(t[i].w);
		work_drain(t[i].handler);
		mail_drain(mail, t[i].w);
		work_good(t[i].w, i < 2 ? "BPF" : "user space");
		if (i >= 2)
			work_good(t[i].handler, "a handler");
		allocs += t[i].w->allocs + t[i].handler->allocs;
		frees += t[i].w->frees + t[i].handler->frees;
		fails += t[i].w->fails + t[i].handler->fails;
		crossed += i < 2 ? t[i].w->from[SIDE_USER] + t[i].w->from[SIDE_HANDLER] :
				   t[i].w->from[SIDE_BPF] + t[i].handler->from[SIDE_BPF];
	}
	figure("%s: %llu allocations (BPF %llu, handlers %llu), %llu frees, %llu crossed, "
	       "%llu failed",
	       what, (unsigned long long)allocs,
	       (unsigned long long)t[0].w->allocs + t[1].w->allocs,
	       (unsigned long long)t[2].handler->allocs + t[3].handler->allocs,
	       (unsigned long long)frees, (unsigned long long)crossed, (unsigned long long)fails);
	cr_assert_eq(allocs, frees);
	cr_assert_gt(crossed, 0);
	heap_whole(heap, 9, what);
}

Test(nolock_storm, kmalloc_sizes, .timeout = 400)
{
	storm("kmalloc, 16 to 512 bytes", 0, 0, true);
}

Test(nolock_storm, one_cache, .timeout = 400)
{
	storm("one cache of 64 bytes", 64, 0, true);
}

Test(nolock_storm, small_sheaves, .timeout = 400)
{
	storm("one cache, 2 objects a sheaf", 1024, 2, true);
}

Test(nolock_storm, a_slots_alone, .timeout = 400)
{
	storm("one cache, without rseq", 256, 4, false);
}
