// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_arena_self.c - BPF programs that grow the heap themselves, linked with libnolock-grow.bpf.o:
 * to the limit, in want of memory, beside clients that grow it too, and where nothing may sleep.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nolock/bpf.h>
#include "arena_help.h"
#include "capture.h"
#include "core/grow.h"
#include "nolock_grows.skel.h"

TestSuite(arena_self, .timeout = 120);

struct env {
	struct rig r;
	struct nolock_heap *heap;
	nl_heap_t *h;
	struct nolock_grows_bpf *s;
	nl_u32 first;
};

/* A heap of which nothing is open, and the programs; those that may not sleep if asked for. */
static int load(struct env *e, unsigned int groups, bool any)
{
	int fd = heap_make(0, groups);

	e->heap = heap_map(fd, 0, 1);
	e->h = e->heap->h;
	e->first = e->h->first_chunk >> NL_GROUP_SHIFT;
	rig_new(&e->r, fd);
	e->s = nolock_grows_bpf__open();
	cr_assert(e->s);
	bpf_program__set_autoload(e->s->progs.any_tc, any);
	bpf_program__set_autoload(e->s->progs.any_perf, any);
	cr_assert_eq(nolock_bpf_attach_heap(e->s->obj, e->heap), 0);
	return nolock_grows_bpf__load(e->s);
}

static void run(struct bpf_program *p, struct nolock_call *c)
{
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = c, .ctx_size_in = sizeof(*c));

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &run), 0);
}

/* Allocate, or free all, in as many runs as it takes: a run ends after a while. */
static unsigned int repeat(struct env *e, struct bpf_program *p, nl_u64 size)
{
	unsigned int before;

	do {
		struct nolock_call c = { .arg = size, .obj = 2000 };

		before = e->s->bss->nr_got;
		run(p, &c);
		cr_assert_lt(e->s->bss->nr_got, CALL_GOT);
	} while (e->s->bss->nr_got != before);
	return before;
}

static unsigned long failures(struct env *e)
{
	struct nolock_cache_stat st;
	unsigned long n = 0;

	for (unsigned int id = 0; nolock_heap_cache_stat(e->heap, id, &st) != -ERANGE; id++)
		n += st.stat[NOLOCK_ALLOC_FAIL];
	return n;
}

static void pages_there(struct env *e, nl_u32 end)
{
	for (nl_u32 g = e->first; g < end; g++) {
		nl_u32 from = nl_chunks_at(e->h, g) / NL_PAGE;
		nl_u32 to = nl_chunks_at(e->h, g + 1) / NL_PAGE;

		cr_assert_eq(rig_there(&e->r, from, to - from), to - from, "group %u", g);
		cr_assert_eq(rig_there(&e->r, nl_groups_at(e->h, g) / NL_PAGE, 10), 10);
	}
}

static unsigned int chunks_of(struct env *e)
{
	return e->h->limit * NL_GROUP_CHUNKS - e->h->first_chunk;
}

/* All that BPF got is written by user space over its whole length, and nothing twice. */
static void fill_all(struct env *e, nl_u64 size)
{
	nl_u64 *obj = (nl_u64 *)(void *)e->s->bss->got;
	unsigned int n = e->s->bss->nr_got;

	for (unsigned int i = 0; i < n; i++)
		memset((void *)obj[i], (int)(i % 251), size);
	for (unsigned int i = 0; i < n; i++)
		for (nl_u64 b = 0; b < size; b += size / 8)
			cr_assert_eq(((unsigned char *)obj[i])[b], i % 251, "handed out twice");
}

static void give_back(struct env *e)
{
	cr_assert_eq(repeat(e, e->s->progs.empty, 0), 0);
	heap_whole(e->heap, 0, "all freed");
	nl_heap_shrink(e->heap);
	cr_assert_eq(nl_heap_free_chunks(e->heap), chunks_of(e), "chunks are lost");
}

Test(arena_self, to_the_limit)
{
	static const unsigned int sizes[] = { 1024, 128, 32768 };
	struct env e;

	cr_assert_eq(load(&e, 4, false), 0);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		unsigned long failed = failures(&e);
		unsigned int n = repeat(&e, e.s->progs.fill, sizes[i]);

		cr_assert_eq(n, chunks_of(&e) * (NL_CHUNK_SIZE / sizes[i]), "%u bytes: %u objects",
			     sizes[i], n);
		cr_assert_gt(failures(&e), failed, "NULL was not counted");
		cr_assert_eq(e.h->nr_open, e.h->limit);
		pages_there(&e, e.h->limit);
		cr_assert_eq(rig_there(&e.r, nl_chunks_at(e.h, e.h->limit) / NL_PAGE, 1024), 0,
			     "beyond the limit");
		fill_all(&e, sizes[i]);
		heap_whole(e.heap, n, "used up");
		give_back(&e);
	}
}

/* One group at a time, and no sooner than it is needed. */
Test(arena_self, when_it_must)
{
	struct nolock_call c = { .arg = 32768, .obj = 1 };
	struct env e;

	cr_assert_eq(load(&e, 6, false), 0);
	for (unsigned int i = 0; i < chunks_of(&e) * 2; i++) {
		nl_u64 chunk = i / 2 + e.h->first_chunk;

		run(e.s->progs.fill, &c);
		cr_assert_eq(e.s->bss->nr_got, i + 1);
		cr_assert_eq(e.h->nr_open, chunk / NL_GROUP_CHUNKS + 1, "object %u", i);
	}
	give_back(&e);
	/* By its name. */
	c.ret = 1;
	run(e.s->progs.grow, &c);
	cr_assert_eq(c.ret, 0, "grown over the limit");
	e.h->limit++;
	run(e.s->progs.grow, &c);
	cr_assert_eq(c.ret, 1);
	give_back(&e);
}

/* Linked with libnolock.bpf.o alone: NULL, counted, and nothing happens. */
Test(arena_self, without_the_object)
{
	struct nolock_call_bpf *s;
	struct env e;

	cr_assert_eq(load(&e, 4, false), 0);
	s = call_load(e.r.fd);
	cr_assert_eq(call1(s, CALL_ALLOC, 64, 0, NUMA_NO_NODE), 0);
	cr_assert_eq(failures(&e), 1);
	cr_assert_eq(e.h->cursor, e.first);
	cr_assert_eq(rig_there(&e.r, nl_chunks_at(e.h, e.first) / NL_PAGE, 1024), 0);
}

Test(arena_self, in_want_of_memory)
{
	struct nolock_call c = { .arg = 4096, .obj = 1 };
	unsigned long failed;
	nl_u32 page;
	struct env e;

	cr_assert_eq(load(&e, 3, false), 0);
	page = nl_chunks_at(e.h, e.first) / NL_PAGE + 3;
	rig_hold(&e.r, page, 1);
	for (unsigned int i = 1; i < 5; i++) {
		run(e.s->progs.fill, &c);
		cr_assert_eq(e.s->bss->nr_got, 0);
		cr_assert_eq(failures(&e), i);
		cr_assert_eq(e.h->nr_open, e.first);
		cr_assert_eq(e.h->cursor, e.first);
	}
	failed = failures(&e);
	rig_release(&e.r, page, 1);
	repeat(&e, e.s->progs.fill, 4096);
	cr_assert_eq(e.s->bss->nr_got, chunks_of(&e) * (NL_CHUNK_SIZE / 4096));
	cr_assert_gt(failures(&e), failed);
	fill_all(&e, 4096);
	give_back(&e);
}

/* A client that takes 32 KiB at a time until there is nothing left. */
static pid_t taking_client(struct env *e, nl_u32 *shared)
{
	struct nolock_heap *heap;
	nl_u64 *p;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	heap = nl_heap_map(dup(e->r.fd), NL_HEAP_ARENA, arena_base(0), e->heap->size, 2);
	if (!heap)
		_exit(1);
	while (!nl_load_acquire(&shared[0]))
		;
	while ((p = nolock_heap_kmalloc(heap, 32768, GFP_KERNEL))) {
		memset(p, 0x5a, 32768);
		shared[1]++;
	}
	_exit(0);
}

Test(arena_self, beside_a_growing_client)
{
	nl_u32 *shared =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int n;
	struct env e;
	int status;
	pid_t pid;

	cr_assert_neq(shared, MAP_FAILED);
	cr_assert_eq(load(&e, 30, false), 0);
	pid = taking_client(&e, shared);
	nl_store_release(&shared[0], 1);
	n = repeat(&e, e.s->progs.fill, 32768);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	/* What the client had cached when it saw nothing left is there now, for any CPU. */
	nl_heap_shrink(e.heap);
	n = repeat(&e, e.s->progs.fill, 32768);
	figure("beside_a_growing_client: BPF has %u objects, the client %u", n, shared[1]);
	cr_assert_eq(n + shared[1], chunks_of(&e) * 2);
	cr_assert_eq(e.h->nr_open, e.h->limit);
	cr_assert_eq(e.h->cursor, e.h->limit);
	cr_assert_eq(e.h->nr_left, 0);
	pages_there(&e, e.h->limit);
	fill_all(&e, 32768);
	heap_whole(e.heap, n + shared[1], "used up");
}

/* Does what the kernel's BTF says hold, and what nolockd finds out by loading a program? */
static bool any_context(struct env *e, int loaded)
{
	int can = nolock_bpf_can_grow();

	cr_assert(can == 0 || can == 1, "%s", strerror(-can));
	cr_assert_eq(can, e->r.arena.any_context, "nolockd says: %s", e->r.arena.why_not_any);
	cr_assert_eq(can, loaded == 0, "a program that may not sleep: %s", strerror(-loaded));
	return can;
}

/* On a kernel that lets it: in softirq-like context (tc), then in whatever a timer interrupts. */
Test(arena_self, where_nothing_may_sleep)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.size = sizeof(attr),
		.sample_period = 1000000,
		.disabled = 1,
	};
	char packet[64] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, tc, .data_in = packet, .data_size_in = sizeof(packet));
	struct env e;
	int loaded, fd;

	nl_capture_begin();
	loaded = load(&e, 6, true);
	nl_capture_end();
	if (!any_context(&e, loaded)) {
		figure("where_nothing_may_sleep: this kernel lets only programs that may sleep");
		return;
	}
	e.s->bss->any_size = 32768;
	e.s->bss->any_nr = 3 * NL_GROUP_CHUNKS;
	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(e.s->progs.any_tc), &tc), 0);
	cr_assert_eq(e.s->bss->nr_got, 3 * NL_GROUP_CHUNKS);
	cr_assert_lt(e.h->nr_open, e.h->limit);
	/* The rest from an interrupt of user space. */
	e.s->bss->any_nr = 16;
	pin(0);
	fd = (int)syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	cr_assert_geq(fd, 0, "%s", strerror(errno));
	cr_assert_eq(ioctl(fd, PERF_EVENT_IOC_SET_BPF, bpf_program__fd(e.s->progs.any_perf)), 0);
	cr_assert_eq(ioctl(fd, PERF_EVENT_IOC_ENABLE, 0), 0);
	while (*(volatile nl_u32 *)&e.s->bss->nr_got < chunks_of(&e) * 2)
		;
	close(fd);
	cr_assert_eq(e.h->nr_open, e.h->limit);
	pages_there(&e, e.h->limit);
	fill_all(&e, 32768);
	heap_whole(e.heap, e.s->bss->nr_got, "used up");
	give_back(&e);
}
