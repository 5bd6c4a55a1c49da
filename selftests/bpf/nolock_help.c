// SPDX-License-Identifier: GPL-2.0-only
/*
 * nolock_help.c - heaps in arenas, programs on them, workers and data breakpoints for the tests.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "nolock_help.h"
#include "nolock_addr.skel.h"

#define MAP_TYPE_ARENA ((enum bpf_map_type)33)
#define ARENA_SIZE (4ULL << 30)
/* The kernel's mapping of an arena has a guard of half of 64 KiB before it. */
#define ARENA_GUARD 32768u

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

void figure(const char *fmt, ...)
{
	va_list args;

	fputs("# ", stdout);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

nl_u64 arena_base(unsigned int place)
{
	return 0x567000000000ULL + place * (8ULL << 30);
}

int arena_make(unsigned int place)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE,
		    .map_extra = arena_base(place));
	int fd = bpf_map_create(MAP_TYPE_ARENA, "nolock_test", 0, 0, ARENA_SIZE / NL_PAGE, &opts);

	cr_assert_geq(fd, 0, "cannot create an arena: %s", strerror(-fd));
	return fd;
}

int heap_make(unsigned int place, unsigned int groups)
{
	struct nl_shape shape = {
		.base = arena_base(place),
		.size = ARENA_SIZE,
		.type = NL_HEAP_ARENA,
		.nr_slots = nr_cpus(),
		.nr_nodes = nl_nodes(true),
		.slot_by_cpu = 1,
		.name = "test",
	};
	int fd = arena_make(place);
	struct nl_heap *h = mmap((void *)shape.base, ARENA_SIZE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	unsigned int first;

	cr_assert_neq(h, MAP_FAILED, "cannot map the arena: %s", strerror(errno));
	cr_assert_eq(madvise(h, nl_heap_fixed_size(&shape), MADV_POPULATE_WRITE), 0);
	cr_assert_eq(nl_heap_format(h, &shape), 0);
	/* The first group is partly metadata. */
	first = h->first_chunk >> NL_GROUP_SHIFT;
	h->limit = first + groups + (h->first_chunk % NL_GROUP_CHUNKS ? 1 : 0);
	cr_assert_leq(h->limit, h->nr_groups);
	munmap(h, ARENA_SIZE);
	return fd;
}

struct nolock_heap *heap_map(int fd, unsigned int place, unsigned int client)
{
	int copy = dup(fd);
	struct nolock_heap *heap;

	cr_assert_geq(copy, 0);
	heap = nl_heap_map(copy, NL_HEAP_ARENA, arena_base(place), ARENA_SIZE, client);
	cr_assert(heap, "cannot map the heap: %s", strerror(errno));
	return heap;
}

struct nolock_heap *heap_new(unsigned int place, unsigned int groups)
{
	int fd = heap_make(place, groups);
	struct nolock_heap *heap = heap_map(fd, place, 1);

	close(fd);
	cr_assert_gt(nl_heap_grow(heap, ~0u), 0);
	return heap;
}

void heap_whole(struct nolock_heap *heap, unsigned long allocated, const char *when)
{
	struct nolock_heap_report r;
	int err = nolock_heap_check(heap, &r);

	cr_assert_eq(err, 0, "%s: %lu errors, the first: %s", when, r.errors, r.first_error);
	cr_assert_eq(r.locks_held, 0, "%s: %lu locks held", when, r.locks_held);
	cr_assert_eq(r.allocated, allocated, "%s: %lu objects in use, not %lu", when, r.allocated,
		     allocated);
}

struct nolock_call_bpf *call_load(int fd)
{
	struct nolock_call_bpf *s = nolock_call_bpf__open();

	cr_assert(s);
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, fd), 0);
	cr_assert_eq(nolock_call_bpf__load(s), 0, "cannot load the programs");
	return s;
}

struct nolock_work_bpf *work_open(const char *const *progs)
{
	struct nolock_work_bpf *s = nolock_work_bpf__open();
	struct bpf_program *p;

	cr_assert(s);
	bpf_object__for_each_program(p, s->obj)
		bpf_program__set_autoload(p, false);
	for (; *progs; progs++) {
		p = bpf_object__find_program_by_name(s->obj, *progs);
		cr_assert(p, "no program %s", *progs);
		bpf_program__set_autoload(p, true);
	}
	return s;
}

struct nolock_work_bpf *work_load(int fd, const char *const *progs)
{
	struct nolock_work_bpf *s = work_open(progs);

	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, fd), 0);
	/* As nolock_bpf_attach_heap(), which wants a handle. */
	s->rodata->nolock_bpf_unpreempted = nolock_bpf_is_unpreempted(s->obj);
	cr_assert_eq(nolock_work_bpf__load(s), 0, "cannot load the programs");
	return s;
}

nl_u64 call1(struct nolock_call_bpf *s, nl_u32 op, nl_u64 arg, nl_u32 flags, int node)
{
	struct nolock_call c = { .arg = arg, .op = op, .flags = flags, .node = node };
	/* The kernel writes a syscall program's context back to where it came from. */
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(s->progs.call), &run), 0);
	return c.ret;
}

nl_u64 call_with(struct nolock_call_bpf *s, nl_u32 op, const void *arg, const void *obj, nl_u32 nr,
		 nl_u32 flags)
{
	struct nolock_call c = { .arg = (nl_u64)arg,
				 .obj = (nl_u64)obj,
				 .op = op,
				 .flags = flags,
				 .node = NUMA_NO_NODE,
				 .nr = nr };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(s->progs.call), &run), 0);
	return c.ret;
}

void run_syscall(struct bpf_program *p, struct nolock_work *w)
{
	nl_u64 args = (nl_u64)w;
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &args, .ctx_size_in = sizeof(args));

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &run), 0);
}

void run_packet(struct bpf_program *p)
{
	char packet[64] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet));

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &run), 0);
}

nl_u64 help_alloc(nl_u64 heap, nl_u64 cache, nl_u32 size)
{
	if (cache)
		return (nl_u64)kmem_cache_alloc_nolock((struct kmem_cache *)cache, 0, NUMA_NO_NODE);
	return (nl_u64)nolock_heap_kmalloc_nolock((struct nolock_heap *)heap, size, 0,
						  NUMA_NO_NODE);
}

struct nolock_work *work_new(struct nolock_heap *heap, nl_u32 side, nl_u32 turns, nl_u32 nr_held)
{
	static nl_u64 seed;
	struct nolock_work *w = nolock_heap_kmalloc(heap, sizeof(*w), GFP_KERNEL | __GFP_ZERO);

	cr_assert(w);
	w->rng = ++seed * 0x9e3779b97f4a7c15ULL | 1;
	w->heap = (nl_u64)heap;
	w->side = side;
	w->turns = turns;
	w->nr_held = nr_held;
	w->min_size = 16;
	w->max_size = 512;
	return w;
}

void work_forms_of(struct nolock_work *w, struct kmem_cache *cache)
{
	w->form_cache = (nl_u64)cache;
	w->form_size = kmem_cache_size(cache);
}

struct nolock_mail *mail_new(struct nolock_heap *heap)
{
	struct nolock_mail *m = nolock_heap_kmalloc(heap, sizeof(*m), GFP_KERNEL | __GFP_ZERO);

	cr_assert(m);
	return m;
}

void work_drain(struct nolock_work *w)
{
	for (unsigned int i = 0; i < WORK_HELD; i++) {
		nl_u64 obj = nl_xchg(&w->held[i], 0);

		if (obj)
			work_drop(w, obj);
	}
}

void mail_drain(struct nolock_mail *mail, struct nolock_work *w)
{
	for (unsigned int i = 0; i < WORK_MAIL; i++) {
		nl_u64 obj = nl_xchg(&mail->slot[i], 0);

		if (obj)
			work_drop(w, obj);
	}
}

void work_good(const struct nolock_work *w, const char *who)
{
	cr_assert_gt(w->allocs, 0, "%s never ran", who);
	cr_assert_eq(w->fails, 0, "%s: %llu of %llu allocations failed", who,
		     (unsigned long long)w->fails, (unsigned long long)(w->allocs + w->fails));
	cr_assert_eq(w->bad, 0, "%s: %llu objects damaged", who, (unsigned long long)w->bad);
}

void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
}

unsigned int nr_cpus(void)
{
	int n = libbpf_num_possible_cpus();

	cr_assert_gt(n, 0);
	return (unsigned int)n;
}

static int event_open(struct perf_event_attr *attr, pid_t pid, int cpu, struct bpf_program *p)
{
	int fd;

	attr->size = sizeof(*attr);
	attr->disabled = 1;
	fd = (int)syscall(SYS_perf_event_open, attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	cr_assert_geq(fd, 0, "no event of type %u, address %#llx: %s", attr->type,
		      (unsigned long long)attr->bp_addr, strerror(errno));
	cr_assert_eq(ioctl(fd, PERF_EVENT_IOC_SET_BPF, bpf_program__fd(p)), 0, "%s",
		     strerror(errno));
	return fd;
}

int clock_open(int cpu, unsigned long period_ns, struct bpf_program *p)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = period_ns,
	};

	return event_open(&attr, -1, cpu, p);
}

static int break_open(nl_u64 addr, unsigned int len, pid_t pid, int cpu, struct bpf_program *p)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.sample_period = 1,
		.bp_type = HW_BREAKPOINT_RW,
		.bp_addr = addr,
		.bp_len = len,
	};
	int fd = event_open(&attr, pid, cpu, p);

	cr_assert_eq(ioctl(fd, PERF_EVENT_IOC_ENABLE, 0), 0);
	return fd;
}

static nl_u64 kernel_address(int fd)
{
	struct nolock_addr_bpf *s = nolock_addr_bpf__open();
	LIBBPF_OPTS(bpf_test_run_opts, run);
	nl_u64 addr;

	cr_assert(s);
	cr_assert_eq(bpf_map__reuse_fd(s->maps.arena, fd), 0);
	cr_assert_eq(nolock_addr_bpf__load(s), 0);
	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(s->progs.find_kernel_address), &run),
		     0);
	addr = s->bss->kernel_address;
	nolock_addr_bpf__destroy(s);
	cr_assert_neq(addr, 0);
	return addr;
}

int break_kernel(struct nolock_heap *heap, const void *word, unsigned int len, int cpu,
		 struct bpf_program *p)
{
	nl_u64 addr = kernel_address(heap->fd) + ARENA_GUARD + (nl_u32)(nl_u64)word;

	return break_open(addr, len, -1, cpu, p);
}

int break_user(const void *word, unsigned int len, struct bpf_program *p)
{
	return break_open((nl_u64)word, len, 0, -1, p);
}
