#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdio.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <nolock/heap.h>
#include "daemon.h"
#include "internal.h"
#include "scribble.h"
#include "scribble.skel.h"
TestSuite(trust, .init = setup, .timeout = 120);
static struct output o;
Test(trust, first)
{
	struct daemon d;
	struct nolock_heap *heap;
	unsigned long long t0 = now_ms();
	struct scribble c = {.turns = 1000, .rng = 12345};
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	printf("start %llu\n", now_ms() - t0);
	t0 = now_ms();
	heap = nolock_heap_open(heap_name());
	struct scribble_bpf *s = scribble_bpf__open();
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(heap)), 0);
	cr_assert_eq(scribble_bpf__load(s), 0);
	printf("load %llu\n", now_ms() - t0);
	t0 = now_ms();
	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(s->progs.storm), &run), 0);
	printf("run %llu got %u failed %u\n", now_ms() - t0, c.got, c.failed);
	t0 = now_ms();
	RUN(&o, "nolock", "rebuild", "--heap", heap_name());
	printf("rebuild %llu: %d %s %s\n", now_ms() - t0, o.status, o.out, o.err);
	t0 = now_ms();
	RUN(&o, "nolock", "rebuild", "--heap", heap_name(), "--force");
	printf("rebuild %llu: %d %s %s\n", now_ms() - t0, o.status, o.out, o.err);
	RUN(&o, "nolock", "status");
	printf("%s\n", o.out);
	printf("%s\n", daemon_said(&d));
	daemon_stop(&d);
}
