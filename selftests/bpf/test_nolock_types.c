// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_types.c - the same allocations from programs of every type, each really run; and
 * what a program of ordinary length costs the verifier.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "nolock_help.h"
#include "nolock_ops.skel.h"

#define RUNS 2000u
#define TOKEN 0x6e6f6c6f636b2121ULL

struct env {
	struct nolock_heap *heap;
	struct kmem_cache *cache;
	struct nolock_work_bpf *s;
	struct nolock_work *w;
	struct bpf_link *link;
};

/* A heap with a worker that goes through all forms of allocating. */
static struct env prepare(void)
{
	struct env e = { .heap = heap_new(0, 4) };

	pin(0);
	e.w = work_new(e.heap, SIDE_BPF, 16, 256);
	e.cache = nolock_heap_kmem_cache_create(e.heap, "types", 128, NULL, 0);
	cr_assert(e.cache);
	work_forms_of(e.w, e.cache);
	return e;
}

static struct env start(const char *prog, unsigned int type)
{
	const char *const progs[] = { prog, NULL };
	struct env e = prepare();

	e.s = work_load(nolock_heap_fd(e.heap), progs);
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
	figure("%s: %llu runs, %llu allocations, %llu frees, %llu by bulk and sheaf, %llu failed, "
	       "%llu damaged",
	       type, (unsigned long long)e->w->runs, (unsigned long long)e->w->allocs,
	       (unsigned long long)e->w->frees, (unsigned long long)e->w->forms,
	       (unsigned long long)e->w->fails, (unsigned long long)e->w->bad);
	cr_assert_geq(e->w->forms, 2 * runs, "%s: no bulk forms", type);
	work_drain(e->w);
	work_good(e->w, type);
	cr_assert_eq(e->w->allocs, e->w->frees);
	kfree(e->w);
	cr_assert_eq(kmem_cache_destroy(e->cache), 0);
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

/* A network of our own, in which we alone send: each packet is received on this CPU. */
static void loopback_up(void)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	cr_assert_eq(unshare(CLONE_NEWNET), 0, "%s", strerror(errno));
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	cr_assert(fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &r), "%s", strerror(errno));
	close(fd);
}

/* Datagrams to ourselves, one by one, through what is attached to the socket or the interface. */
static void send_packets(int filter)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	int to = socket(AF_INET, SOCK_DGRAM, 0), from = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof(at);
	char data[64] = { 0 };

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert(to >= 0 && from >= 0);
	if (filter >= 0)
		cr_assert_eq(setsockopt(to, SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof(filter)), 0,
			     "%s", strerror(errno));
	cr_assert_eq(bind(to, (struct sockaddr *)&at, sizeof(at)), 0);
	cr_assert_eq(getsockname(to, (struct sockaddr *)&at, &len), 0);
	for (unsigned int i = 0; i < RUNS; i++) {
		cr_assert_eq(sendto(from, data, sizeof(data), 0, (struct sockaddr *)&at, len),
			     sizeof(data), "%s", strerror(errno));
		cr_assert_eq(recv(to, data, sizeof(data), 0), sizeof(data));
	}
	close(from);
	close(to);
}

/* In the softirq that receives, where test_run() is in a task. */
Test(nolock_types, xdp_received)
{
	struct env e = start("work_xdp", TYPE_XDP);

	loopback_up();
	e.link = bpf_program__attach_xdp(e.s->progs.work_xdp, (int)if_nametoindex("lo"));
	cr_assert(e.link, "%s", strerror(errno));
	send_packets(-1);
	finish(&e, "xdp, received", RUNS);
}

#define TCX_INGRESS ((enum bpf_attach_type)46) /* newer than the headers; 6.6 */

/* Without a queueing discipline, which kernels may have as a module alone. */
Test(nolock_types, tc_received)
{
	struct env e = start("work_tc", TYPE_TC);
	int link;

	loopback_up();
	link = bpf_link_create(bpf_program__fd(e.s->progs.work_tc), (int)if_nametoindex("lo"),
			       TCX_INGRESS, NULL);
	cr_assert_geq(link, 0, "%s", strerror(-link));
	send_packets(-1);
	close(link);
	finish(&e, "tc, received", RUNS);
}

Test(nolock_types, socket)
{
	struct env e = start("work_socket", TYPE_SOCKET);

	loopback_up();
	send_packets(bpf_program__fd(e.s->progs.work_socket));
	finish(&e, "socket", RUNS);
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

static void probe(const char *prog, unsigned int type, const char *name)
{
	struct env e = start(prog, type);

	e.link = bpf_program__attach_uprobe(bpf_object__find_program_by_name(e.s->obj, prog), false,
					    getpid(), "/proc/self/exe",
					    file_offset(nolock_types_probed));
	cr_assert(e.link, "%s", strerror(errno));
	for (unsigned int i = 0; i < RUNS; i++)
		nolock_types_probed();
	finish(&e, name, RUNS);
}

Test(nolock_types, uprobe)
{
	probe("work_uprobe", TYPE_UPROBE, "uprobe");
}

Test(nolock_types, uprobe_sleepable)
{
	probe("work_uprobe_s", TYPE_UPROBE_S, "uprobe.s");
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
	struct env e = prepare();
	struct bpf_program *p;
	int err;

	cr_assert(s);
	e.s = s;
	bpf_object__for_each_program(p, s->obj)
		bpf_program__set_autoload(p, p == s->progs.work_fentry);
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(e.heap)), 0);
	libbpf_set_print(NULL);
	err = nolock_work_bpf__load(s);
	if (!err) {
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

/* A connection to ourselves, with the program as its congestion control. */
static void tcp_talk(const char *control, nl_u64 *runs)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	static char data[65536];
	int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0), a;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert(l >= 0 && c >= 0);
	cr_assert_eq(setsockopt(c, IPPROTO_TCP, TCP_CONGESTION, control, strlen(control)), 0, "%s",
		     strerror(errno));
	cr_assert_eq(bind(l, (struct sockaddr *)&at, sizeof(at)), 0);
	cr_assert_eq(listen(l, 1), 0);
	cr_assert_eq(getsockname(l, (struct sockaddr *)&at, &len), 0);
	cr_assert_eq(connect(c, (struct sockaddr *)&at, sizeof(at)), 0, "%s", strerror(errno));
	a = accept(l, NULL, NULL);
	cr_assert_geq(a, 0);
	/* What was sent is acknowledged by its being received. */
	for (unsigned int i = 0; i < 100 * RUNS && nl_load(runs) < RUNS; i++) {
		ssize_t sent = send(c, data, 4096, 0);

		cr_assert_gt(sent, 0, "%s", strerror(errno));
		while (sent > 0) {
			ssize_t n = recv(a, data, sizeof(data), 0);

			cr_assert_gt(n, 0, "%s", strerror(errno));
			sent -= n;
		}
	}
	close(c);
	close(a);
	close(l);
}

Test(nolock_types, struct_ops)
{
	struct nolock_ops_bpf *s = nolock_ops_bpf__open();
	struct env e = prepare();
	nl_u64 runs;

	cr_assert(s);
	loopback_up();
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(e.heap)), 0);
	cr_assert_eq(nolock_ops_bpf__load(s), 0, "cannot load the programs");
	s->bss->work_of = (nl_u64)e.w;
	e.link = bpf_map__attach_struct_ops(s->maps.nolock_tcp);
	cr_assert(e.link, "%s", strerror(errno));
	tcp_talk("nolock_test", &e.w->runs);
	/* The kernel keeps it while a connection uses it, which ends by and by. */
	s->bss->work_of = 0;
	do {
		runs = nl_load(&e.w->runs);
		usleep(20000);
	} while (runs != nl_load(&e.w->runs));
	finish(&e, "struct_ops", RUNS);
	nolock_ops_bpf__destroy(s);
}

/* What the verifier looks at must stay far from its limit of a million. */
static void budget(const char *name, const char *what, unsigned long limit)
{
	static char log[1 << 20];
	struct nolock_heap *heap = heap_new(0, 4);
	struct kmem_cache *cache = nolock_heap_kmem_cache_create(heap, "budget", 64, NULL, 0);
	void *array = nolock_heap_kmalloc(heap, 4096, GFP_KERNEL);
	struct nolock_call c = { .arg = 64, .obj = (nl_u64)array };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));
	struct nolock_call_bpf *s = nolock_call_bpf__open();
	struct bpf_program *p;
	unsigned long insns;
	const char *at;

	cr_assert(s && cache && array);
	if (strcmp(name, "budget") && strcmp(name, "budget_const"))
		c.arg = (nl_u64)cache;
	bpf_object__for_each_program(p, s->obj)
		bpf_program__set_autoload(p, false);
	p = bpf_object__find_program_by_name(s->obj, name);
	cr_assert(p, "no program %s", name);
	bpf_program__set_autoload(p, true);
	bpf_program__set_log_level(p, 4);
	bpf_program__set_log_buf(p, log, sizeof(log));
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(heap)), 0);
	cr_assert_eq(nolock_call_bpf__load(s), 0, "%s", log);
	at = strstr(log, "processed ");
	cr_assert(at, "the verifier's log has no count: %s", log);
	insns = strtoul(at + strlen("processed "), NULL, 10);
	figure("%s: %s, %lu instructions processed (limit %lu)", name, what, insns, limit);
	cr_assert_gt(insns, 0);
	cr_assert_lt(insns, limit);
	for (unsigned int i = 0; i < 1000; i++) {
		c.ret = 0;
		cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &run), 0);
		cr_assert_eq(c.ret, 1);
	}
	kfree(array);
	cr_assert_eq(kmem_cache_destroy(cache), 0);
	heap_whole(heap, 0, name);
}

Test(nolock_types, budget)
{
	budget("budget", "8 allocations and 8 frees of any size", 80000);
}

Test(nolock_types, budget_const)
{
	budget("budget_const", "8 allocations and 8 frees of constant sizes", 80000);
}

Test(nolock_types, budget_cache)
{
	budget("budget_cache", "2 objects of a cache", 80000);
}

Test(nolock_types, budget_bulk)
{
	budget("budget_bulk", "2 times both bulk forms", 90000);
}

Test(nolock_types, budget_sheaf)
{
	budget("budget_sheaf", "2 sheaves prefilled, used, returned", 90000);
}
