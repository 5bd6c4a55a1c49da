// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_types.c - the same allocations from programs of every type, each really run; and
 * what a program of ordinary length costs the verifier.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "nolock_help.h"

#define RUNS 2000u
#define TOKEN 0x6e6f6c6f636b2121ULL

struct env {
	struct nolock_heap *heap;
	struct nolock_work_bpf *s;
	struct nolock_work *w;
	struct bpf_link *link;
};

static struct env start(const char *prog, unsigned int type)
{
	const char *const progs[] = { prog, NULL };
	struct env e = { .heap = heap_new(0, 4) };

	pin(0);
	e.s = work_load(nolock_heap_fd(e.heap), progs);
	e.w = work_new(e.heap, SIDE_BPF, 16, 256);
	e.s->bss->work_of[type] = (nl_u64)e.w;
	e.s->bss->token = TOKEN;
	return e;
}

static void attach(struct env *e, struct bpf_program *p)
{
	e->link = bpf_program__attach(p);
	cr_assert(e->link, "%s: %s", bpf_program__name(p), strerror(errno));
}

static void finish(struct env *e, const char *type, unsigned long runs)
{
	bpf_link__destroy(e->link);
	cr_assert_geq(e->w->runs, runs, "%s: run %llu times of %lu", type,
		      (unsigned long long)e->w->runs, runs);
	figure("%s: %llu runs, %llu allocations, %llu frees, %llu failed, %llu damaged", type,
	       (unsigned long long)e->w->runs, (unsigned long long)e->w->allocs,
	       (unsigned long long)e->w->frees, (unsigned long long)e->w->fails,
	       (unsigned long long)e->w->bad);
	work_drain(e->w);
	work_good(e->w, type);
	cr_assert_eq(e->w->allocs, e->w->frees);
	kfree(e->w);
	heap_whole(e->heap, 0, type);
	nolock_work_bpf__destroy(e->s);
	cr_assert_eq(nolock_heap_close(e->heap), 0);
}

static void knock(void)
{
	for (unsigned int i = 0; i < RUNS; i++)
		syscall(SYS_getppid, TOKEN);
}

Test(nolock_types, syscall)
{
	struct env e = start("work_syscall", TYPE_SYSCALL);

	for (unsigned int i = 0; i < RUNS; i++)
		run_syscall(e.s->progs.work_syscall, e.w);
	finish(&e, "syscall", RUNS);
}

Test(nolock_types, tc)
{
	struct env e = start("work_tc", TYPE_TC);

	for (unsigned int i = 0; i < RUNS; i++)
		run_packet(e.s->progs.work_tc);
	finish(&e, "tc", RUNS);
}

Test(nolock_types, xdp)
{
	struct env e = start("work_xdp", TYPE_XDP);

	for (unsigned int i = 0; i < RUNS; i++)
		run_packet(e.s->progs.work_xdp);
	finish(&e, "xdp", RUNS);
}

Test(nolock_types, tp_btf)
{
	struct env e = start("work_tp_btf", TYPE_TP_BTF);

	attach(&e, e.s->progs.work_tp_btf);
	knock();
	finish(&e, "tp_btf", RUNS);
}

Test(nolock_types, raw_tp)
{
	struct env e = start("work_raw_tp", TYPE_RAW_TP);

	attach(&e, e.s->progs.work_raw_tp);
	knock();
	finish(&e, "raw_tp", RUNS);
}

/* The numbers of tracepoints are in tracefs: mounted, where it is not, for this process alone. */
static void need_tracefs(void)
{
	if (!access("/sys/kernel/tracing/events", F_OK))
		return;
	cr_assert_eq(unshare(CLONE_NEWNS), 0, "%s", strerror(errno));
	cr_assert_eq(mount(NULL, "/sys", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%s",
		     strerror(errno));
	cr_assert_eq(mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL), 0, "%s",
		     strerror(errno));
}

Test(nolock_types, tracepoint)
{
	struct env e = start("work_tracepoint", TYPE_TRACEPOINT);

	need_tracefs();
	attach(&e, e.s->progs.work_tracepoint);
	knock();
	finish(&e, "tracepoint", RUNS);
}

/* What the probe sits on. */
static volatile unsigned int probed;
__attribute__((noinline)) void nolock_types_probed(void)
{
	probed++;
}

/* Where in the file a function of this program lies. */
static size_t file_offset(const void *fn)
{
	unsigned long start, end, off;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");

	cr_assert(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &off) == 3 &&
		    (unsigned long)fn >= start && (unsigned long)fn < end) {
			fclose(f);
			return (unsigned long)fn - start + off;
		}
	}
	fclose(f);
	cr_assert_fail("this program is not in its own maps");
	return 0;
}

Test(nolock_types, uprobe)
{
	struct env e = start("work_uprobe", TYPE_UPROBE);

	e.link = bpf_program__attach_uprobe(e.s->progs.work_uprobe, false, getpid(),
					    "/proc/self/exe", file_offset(nolock_types_probed));
	cr_assert(e.link, "%s", strerror(errno));
	for (unsigned int i = 0; i < RUNS; i++)
		nolock_types_probed();
	finish(&e, "uprobe", RUNS);
}

Test(nolock_types, iter)
{
	struct env e = start("work_iter", TYPE_ITER);
	char byte;
	int fd;

	attach(&e, e.s->progs.work_iter);
	for (unsigned int i = 0; i < RUNS / 10; i++) {
		fd = bpf_iter_create(bpf_link__fd(e.link));
		cr_assert_geq(fd, 0);
		while (read(fd, &byte, 1) > 0)
			;
		close(fd);
	}
	/* The heap itself is one of the maps that it is shown. */
	finish(&e, "iter", RUNS / 10);
}

Test(nolock_types, perf_event, .timeout = 60)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.size = sizeof(attr),
		.sample_period = 100000,
	};
	struct env e = start("work_perf", TYPE_PERF_EVENT);
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	cr_assert_geq(fd, 0, "%s", strerror(errno));
	e.link = bpf_program__attach_perf_event(e.s->progs.work_perf, fd);
	cr_assert(e.link, "%s", strerror(errno));
	while (nl_load(&e.w->runs) < RUNS)
		;
	finish(&e, "perf_event", RUNS);
}

/* A kernel may refuse it, by -EPERM and in no other way; then that is what is tested. */
Test(nolock_types, fentry)
{
	struct nolock_work_bpf *s = nolock_work_bpf__open();
	struct nolock_heap *heap = heap_new(0, 4);
	struct bpf_program *p;
	struct env e;
	int err;

	cr_assert(s);
	pin(0);
	bpf_object__for_each_program(p, s->obj)
		bpf_program__set_autoload(p, p == s->progs.work_fentry);
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(heap)), 0);
	libbpf_set_print(NULL);
	err = nolock_work_bpf__load(s);
	e = (struct env){ .heap = heap, .s = s };
	if (!err) {
		e.w = work_new(heap, SIDE_BPF, 16, 256);
		s->bss->work_of[TYPE_FENTRY] = (nl_u64)e.w;
		e.link = bpf_program__attach(s->progs.work_fentry);
		err = e.link ? 0 : -errno;
	}
	if (err) {
		cr_assert_eq(err, -EPERM, "%s", strerror(-err));
		figure("fentry: this kernel refuses it with -EPERM");
		return;
	}
	for (unsigned int i = 0; i < RUNS; i++) {
		LIBBPF_OPTS(bpf_test_run_opts, run);

		cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(s->progs.work_fentry), &run),
			     0);
	}
	finish(&e, "fentry", RUNS);
}

/* 8 allocations and 8 frees: what the verifier looks at must stay far from its limit. */
Test(nolock_types, budget)
{
	static char log[1 << 20];
	struct nolock_heap *heap = heap_new(0, 4);
	struct nolock_call c = { .arg = 64 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));
	struct nolock_call_bpf *s = nolock_call_bpf__open();
	unsigned long insns;
	const char *at;

	cr_assert(s);
	bpf_program__set_autoload(s->progs.call, false);
	bpf_program__set_autoload(s->progs.fill, false);
	bpf_program__set_autoload(s->progs.empty, false);
	bpf_program__set_log_level(s->progs.budget, 4);
	bpf_program__set_log_buf(s->progs.budget, log, sizeof(log));
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(heap)), 0);
	cr_assert_eq(nolock_call_bpf__load(s), 0);
	at = strstr(log, "processed ");
	cr_assert(at, "the verifier's log has no count: %s", log);
	insns = strtoul(at + strlen("processed "), NULL, 10);
	figure("budget: 8 allocations and 8 frees, %lu instructions processed (limit 100000)",
	       insns);
	cr_assert_gt(insns, 0);
	cr_assert_lt(insns, 100000);
	for (unsigned int i = 0; i < 1000; i++) {
		cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(s->progs.budget), &run), 0);
		cr_assert_eq(c.ret, 1);
	}
	heap_whole(heap, 0, "after the program of 8 pairs");
}
