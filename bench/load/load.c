// SPDX-License-Identifier: GPL-2.0-only
/*
 * load.c - the process that an allocator is measured in: it runs what the benchmark asks for.
 *
 * Not for people: bench starts it, once for each allocator.
 *   load serve FD ENTRY MALLOC,FREE,REALLOC KIB CPU...   measure, with these calls, on these CPUs
 *   load where FD SYMBOL                             which file is SYMBOL in?
 *   load tiny ENTRY MALLOC,FREE                      start, allocate a little, end
 *   load spawn FD                                    run programs, and say what they took
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

struct calls call;
struct worker workers[MAX_THREADS];
unsigned int nr_threads;
enum entry entry;

static int cpus[CPU_SETSIZE];
static unsigned int nr_cpus, workload;

static struct {
	unsigned int count;
	unsigned int turn;
} meeting;

void wait_a_turn(unsigned int *turns)
{
	if (++*turns % (nr_threads > nr_cpus ? 10 : 1000) == 0)
		sched_yield();
}

void meet(void)
{
	unsigned int turn = __atomic_load_n(&meeting.turn, __ATOMIC_ACQUIRE), turns = 0;

	if (nr_threads < 2)
		return;
	if (__atomic_add_fetch(&meeting.count, 1, __ATOMIC_ACQ_REL) == nr_threads) {
		__atomic_store_n(&meeting.count, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&meeting.turn, turn + 1, __ATOMIC_RELEASE);
		return;
	}
	while (__atomic_load_n(&meeting.turn, __ATOMIC_ACQUIRE) == turn)
		wait_a_turn(&turns);
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t cpu_now(void)
{
	return now(CLOCK_THREAD_CPUTIME_ID);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* Not allowed somewhere: a little more noise, which the spread shows. */
	sched_setaffinity(0, sizeof(set), &set);
}

static void run(struct worker *w)
{
	void (*load)(struct worker * w) = loads[workload][entry];
	uint64_t units = w->units, cpu;

	/* What one process left in the caches is not the next one's cost. */
	w->units = (units + 19) / 20;
	load(w);
	w->units = units;
	meet();
	w->start = now(CLOCK_MONOTONIC);
	cpu = cpu_now();
	load(w);
	w->cpu_ns = cpu_now() - cpu;
	w->end = now(CLOCK_MONOTONIC);
}

static void *thread(void *arg)
{
	struct worker *w = arg;

	pin(cpus[w->nr % nr_cpus]);
	run(w);
	return NULL;
}

static void *room(void)
{
	void *p = mmap(NULL, MAX_OBJS * sizeof(void *), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		err(1, "bench: no memory");
	return p;
}

static void prepare(unsigned int threads, const struct work_request *req, struct work_map *map)
{
	nr_threads = threads;
	for (unsigned int i = 0; i < nr_threads; i++) {
		struct worker *w = &workers[i];

		if (!w->objs)
			w->objs = room();
		w->nr = i;
		w->units = req->units;
		w->failed = 0;
		w->own_ns = 0;
		w->map = map;
	}
}

/*
 * One thread is timed by its own CPU time, which other work on the machine leaves alone. Several
 * are timed by the clock, because waiting for each other is part of what they do.
 */
static void serve_run(const struct work_request *req, struct work_reply *reply, bool map)
{
	static const unsigned int threads_of[] = {
#define THREADS(id, name, threads, ...) [id] = threads,
		WORKLOADS(THREADS)
#undef THREADS
	};
	pthread_t threads[MAX_THREADS];
	uint64_t start, end;

	if (req->workload >= NR_WORKLOADS || !loads[req->workload][entry])
		errx(2, "bench: no workload %u", req->workload);
	if (workload != req->workload || !workers[0].objs)
		loads_prepare(req->workload);
	workload = req->workload;
	prepare(threads_of[workload], req, map ? &reply->map : NULL);
	for (unsigned int i = 1; i < nr_threads; i++) {
		int error = pthread_create(&threads[i], NULL, thread, &workers[i]);

		if (error)
			errx(1, "bench: cannot start a thread: %s", strerror(error));
	}
	run(&workers[0]);
	start = workers[0].start;
	end = workers[0].end;
	reply->failed = workers[0].failed;
	for (unsigned int i = 1; i < nr_threads; i++) {
		pthread_join(threads[i], NULL);
		if (workers[i].start < start)
			start = workers[i].start;
		if (workers[i].end > end)
			end = workers[i].end;
		reply->failed += workers[i].failed;
	}
	reply->ns = nr_threads > 1    ? end - start :
		    workers[0].own_ns ? workers[0].own_ns :
					workers[0].cpu_ns;
}

static void serve(const struct work_request *req, struct work_reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	switch (req->op) {
	case WORK_RUN:
	case WORK_MAP:
		serve_run(req, reply, req->op == WORK_MAP);
		break;
	case WORK_PEAK:
		reply->peak = memory_peak();
		break;
	case WORK_COUNT:
		memory_counts(&reply->counts);
		break;
	case WORK_BURST:
		prepare(1, req, NULL);
		load_burst(&workers[0], req->units);
		reply->failed = workers[0].failed;
		reply->peak = memory_peak();
		reply->rss = memory_rss();
		break;
	case WORK_TICK:
		prepare(1, req, NULL);
		load_tick(&workers[0]);
		reply->failed = workers[0].failed;
		reply->rss = memory_rss();
		break;
	case WORK_TRIM:
		memory_trim();
		reply->rss = memory_rss();
		break;
	default:
		errx(2, "bench: no such request: %u", req->op);
	}
}

void *symbol(const char *name)
{
	void *p = dlsym(RTLD_DEFAULT, name);

	if (!p)
		errx(1, "bench: no %s() in this process: %s", name, dlerror());
	return p;
}

/* names: of malloc, free and, or not, realloc. */
static void find_calls(char *names)
{
	void (*grow)(void) = dlsym(RTLD_DEFAULT, "AO_malloc_enable_mmap");
	char *name[3] = { NULL };

	for (unsigned int i = 0; i < 3; i++)
		name[i] = strtok(i ? NULL : names, ",");
	if (entry == ENTRY_MALLOC) {
		if (!name[0] || !name[1])
			errx(2, "bench: no names of malloc and free");
		call.malloc = symbol(name[0]);
		call.free = symbol(name[1]);
		call.realloc = name[2] ? symbol(name[2]) : NULL;
		/* What its users call first, who want more than its 16 MiB. */
		if (grow)
			grow();
		return;
	}
	call.kmalloc = symbol("kmalloc");
	call.kfree = symbol("kfree");
	call.krealloc = symbol("krealloc");
	call.kmalloc_nolock = symbol("kmalloc_nolock");
	call.kfree_nolock = symbol("kfree_nolock");
	call.bucket_alloc = symbol("nolock_bucket_alloc");
	call.bucket_alloc_nolock = symbol("nolock_bucket_alloc_nolock");
	if (entry == ENTRY_CACHE || entry == ENTRY_SHEAF) {
		struct kmem_cache *(*create)(const char *, unsigned int,
					     const struct kmem_cache_args *,
					     slab_flags_t) = symbol("kmem_cache_create");

		call.cache = create("bench", 64, NULL, 0);
		call.cache_alloc = symbol("kmem_cache_alloc");
		call.cache_free = symbol("kmem_cache_free");
		call.prefill = symbol("kmem_cache_prefill_sheaf");
		call.return_sheaf = symbol("kmem_cache_return_sheaf");
		call.from_sheaf = symbol("kmem_cache_alloc_from_sheaf");
		if (!call.cache)
			err(1, "bench: no cache");
	}
}

/* Wait-free callers take what is there: have it there, as their users would. */
static void set_aside(uint64_t kib)
{
	int (*populate)(struct nolock_heap *, size_t) = symbol("nolock_heap_populate");
	struct nolock_heap *(*heap)(void) = symbol("nolock_heap_default");

	if (kib && populate(heap(), kib << 10))
		err(1, "bench: cannot populate the heap");
}

void come_first(void)
{
	int fd;

	setpriority(PRIO_PROCESS, 0, -20);
	/* With autogroups, a process's priority counts within its session alone. */
	setsid();
	fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "-20", 3) < 0)
		errno = 0; /* not allowed: the spread shows it */
	close(fd);
}

static _Noreturn void serve_all(int fd, uint64_t kib)
{
	struct work_request req;
	struct work_reply reply;

	come_first();
	pin(cpus[0]);
	if (entry == ENTRY_NOLOCK)
		set_aside(kib);
	while (read(fd, &req, sizeof(req)) == sizeof(req)) {
		serve(&req, &reply);
		if (write(fd, &reply, sizeof(reply)) != sizeof(reply))
			break;
	}
	exit(0);
}

static _Noreturn void where(int fd, const char *name)
{
	Dl_info info;
	void *p = dlsym(RTLD_DEFAULT, name);

	if (p && dladdr(p, &info) && write(fd, info.dli_fname, strlen(info.dli_fname)) > 0)
		exit(0);
	exit(1);
}

#define TINY_KIB 1536

/* 100 allocations of 16 to 1024 bytes; half of them are freed, the exit has the rest. */
static _Noreturn void tiny(void)
{
	if (entry == ENTRY_NOLOCK)
		set_aside(TINY_KIB);
	for (size_t i = 0; i < 100; i++) {
		size_t size = 16 + i * 1008 / 99;
		char *p = entry == ENTRY_NOLOCK	 ? (call.kmalloc_nolock)(size, 0, NUMA_NO_NODE) :
			  entry == ENTRY_KMALLOC ? (call.kmalloc)(size, GFP_KERNEL) :
						   call.malloc(size);

		if (!p)
			errx(1, "bench: out of memory");
		memset(p, 1, size);
		if (i % 2)
			continue;
		if (entry == ENTRY_MALLOC)
			call.free(p);
		else if (entry == ENTRY_NOLOCK)
			call.kfree_nolock(p);
		else
			call.kfree(p);
	}
	exit(0);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	bool serves = argc > 6 && !strcmp(verb, "serve");

	if (argc == 4 && !strcmp(verb, "where"))
		where(atoi(argv[2]), argv[3]);
	if (argc == 3 && !strcmp(verb, "spawn"))
		spawn_serve(atoi(argv[2]));
	if (!serves && (argc != 4 || strcmp(verb, "tiny")))
		errx(2, "not meant to be started by people: run bench");
	entry = (enum entry)atoi(argv[serves ? 3 : 2]);
	if (entry >= NR_ENTRIES)
		errx(2, "no way to call an allocator: %d", (int)entry);
	find_calls(argv[serves ? 4 : 3]);
	if (!serves)
		tiny();
	for (int i = 6; i < argc && nr_cpus < CPU_SETSIZE; i++)
		cpus[nr_cpus++] = atoi(argv[i]);
	serve_all(atoi(argv[2]), strtoull(argv[5], NULL, 10));
}
