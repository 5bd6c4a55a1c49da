// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trace_usdt.c - the library's probes: this program has probes of the same provider and names,
 * and a child fires them with known arguments.
 */
#define _GNU_SOURCE
#define _SDT_HAS_SEMAPHORES 1
#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>
#include <sys/sdt.h>
#include <unistd.h>
#include "trace_help.h"

#define HEAP ((void *)0x567000000000ull)
#define OBJ ((void *)0x567000012340ull)

/* As in the library: a probe that nobody listens to costs one test. */
#define SEMAPHORE(probe)                                                                           \
	static volatile unsigned short nolock_##probe##_semaphore                                  \
		__attribute__((used, section(".probes")))

SEMAPHORE(sheaf_refill);
SEMAPHORE(sheaf_flush);
SEMAPHORE(alloc_slab);
SEMAPHORE(free_slab);
SEMAPHORE(alloc_fail);
SEMAPHORE(free_refused);
SEMAPHORE(heap_grow);

#define PROBE3(probe, a, b, c)                                                                     \
	do {                                                                                       \
		if (nolock_##probe##_semaphore)                                                    \
			DTRACE_PROBE3(nolock, probe, a, b, c);                                     \
	} while (0)

static volatile unsigned int fired;

static void fire(unsigned int n)
{
	static const char cache[] = "nl-test-cache", reason[] = "double free";

	while (n--) {
		PROBE3(sheaf_refill, HEAP, cache, 61u + fired);
		PROBE3(sheaf_flush, HEAP, cache, 32u);
		PROBE3(alloc_slab, HEAP, cache, 77u);
		PROBE3(free_slab, HEAP, cache, 78u);
		PROBE3(alloc_fail, HEAP, 4096ul, 0x20u);
		PROBE3(free_refused, HEAP, OBJ, reason);
		if (nolock_heap_grow_semaphore)
			DTRACE_PROBE2(nolock, heap_grow, HEAP, 3u);
		fired++;
	}
}

static const char *own_path(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	cr_assert_gt(n, 0);
	path[n] = 0;
	return path;
}

struct all {
	struct nlt_event of[NLT_NR_KINDS];
	unsigned int kinds[NLT_NR_KINDS];
};

static int keep(void *arg, const struct nlt_event *e)
{
	struct all *a = arg;

	cr_assert_lt(e->kind, NLT_NR_KINDS);
	a->of[e->kind] = *e;
	a->kinds[e->kind]++;
	return 0;
}

Test(trace_usdt, arguments_arrive)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);
	struct nl_trace_counts c;
	struct trace_child child;
	static struct all a;
	struct nlt_event *e = a.of;

	trace_child_start(&child, fire, 5);
	/* of this child alone: other tests fire the same probes at the same time */
	cr_assert_eq(nl_trace_usdt(t, own_path(), child.pid), 7);
	cr_assert_eq(nl_trace_stream(t, &(struct nl_trace_filter){ .pid = child.pid }), 0);
	trace_child_run(&child);
	cr_assert_eq(nl_trace_consume(t, keep, &a), 35);

	for (int k = NLT_U_SHEAF_REFILL; k <= NLT_U_HEAP_GROW; k++) {
		cr_expect_eq(a.kinds[k], 5, "%s: %u", nl_trace_kind_name((unsigned int)k),
			     a.kinds[k]);
		cr_expect_eq(e[k].heap, (uintptr_t)HEAP);
		cr_expect_eq((pid_t)e[k].pid, child.pid);
	}
	cr_expect_str_eq(e[NLT_U_SHEAF_REFILL].cache, "nl-test-cache");
	cr_expect_eq(e[NLT_U_SHEAF_REFILL].bytes_req, 61 + 4);
	cr_expect_str_eq(e[NLT_U_SHEAF_FLUSH].cache, "nl-test-cache");
	cr_expect_eq(e[NLT_U_SHEAF_FLUSH].bytes_req, 32);
	cr_expect_str_eq(e[NLT_U_ALLOC_SLAB].cache, "nl-test-cache");
	cr_expect_eq(e[NLT_U_ALLOC_SLAB].ptr, 77);
	cr_expect_eq(e[NLT_U_FREE_SLAB].ptr, 78);
	cr_expect_eq(e[NLT_U_ALLOC_FAIL].bytes_req, 4096);
	cr_expect_eq(e[NLT_U_ALLOC_FAIL].bytes_alloc, 0x20);
	cr_expect_eq(e[NLT_U_FREE_REFUSED].ptr, (uintptr_t)OBJ);
	cr_expect_str_eq(e[NLT_U_FREE_REFUSED].cache, "double free");
	cr_expect_eq(e[NLT_U_HEAP_GROW].bytes_req, 3);

	cr_assert_eq(nl_trace_counts(t, &c), 0);
	cr_expect_eq(c.seen, 35);
	cr_expect_eq(c.lost, 0);
	nl_trace_close(t);
}

Test(trace_usdt, one_process_only)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);
	struct trace_child mine, other;
	static struct all a;

	trace_child_start(&mine, fire, 2);
	trace_child_start(&other, fire, 2);
	cr_assert_eq(nl_trace_usdt(t, own_path(), mine.pid), 7);
	cr_assert_eq(nl_trace_stream(t, &(struct nl_trace_filter){ 0 }), 0);
	trace_child_run(&other);
	trace_child_run(&mine);
	cr_expect_eq(nl_trace_consume(t, keep, &a), 14);
	cr_expect_eq((pid_t)a.of[NLT_U_HEAP_GROW].pid, mine.pid);
	nl_trace_close(t);
}

Test(trace_usdt, filter_by_cache_and_kind)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);
	struct nl_trace_filter f = { .cache = "nl-test-*" };
	struct trace_child child;
	static struct all a;

	cr_assert_eq(nl_trace_usdt(t, own_path(), -1), 7);
	trace_child_start(&child, fire, 3);
	f.pid = child.pid;
	f.kinds = 1ull << NLT_U_SHEAF_FLUSH | 1ull << NLT_U_HEAP_GROW;
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	cr_expect_eq(nl_trace_consume(t, keep, &a), 3); /* heap_grow has no cache */
	cr_expect_eq(a.kinds[NLT_U_SHEAF_FLUSH], 3);
	nl_trace_close(t);
}

/* With the kernel's tracepoints in the same stream, in one order. */
Test(trace_usdt, beside_kernel_events)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM | NL_TRACE_USDT, 0);
	struct trace_child child;
	static struct all a;

	trace_child_start(&child, fire, 1);
	cr_assert_eq(nl_trace_usdt(t, own_path(), -1), 7);
	cr_assert_eq(nl_trace_stream(t, &(struct nl_trace_filter){ .pid = child.pid }), 0);
	trace_child_run(&child);
	cr_assert_gt(nl_trace_consume(t, keep, &a), 7);
	cr_expect_eq(a.kinds[NLT_U_FREE_SLAB], 1);
	cr_expect_gt(a.kinds[NLT_KMEM_CACHE_FREE], 0, "a process ends without any free");
	nl_trace_close(t);
}

Test(trace_usdt, attach_and_detach)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);
	unsigned int before = nl_trace_nr_progs(t);
	struct nl_trace_counts c0, c1;
	struct trace_child child;

	cr_assert_eq(nl_trace_usdt(t, own_path(), -1), 7);
	cr_expect_eq(nl_trace_usdt(t, own_path(), -1), -EEXIST);
	cr_expect_eq(nl_trace_nr_progs(t), before + 7);
	cr_expect_eq(nl_trace_usdt_detach(t, own_path(), -1), 0);
	cr_expect_eq(nl_trace_usdt_detach(t, own_path(), -1), -ENOENT);
	cr_expect_eq(nl_trace_nr_progs(t), before);
	cr_assert_eq(nl_trace_counts(t, &c0), 0);
	trace_child_start(&child, fire, 2);
	trace_child_run(&child);
	cr_assert_eq(nl_trace_counts(t, &c1), 0);
	cr_expect_eq(c1.seen, c0.seen, "seen although detached");
	cr_expect_eq(nl_trace_usdt(t, own_path(), -1), 7, "again, after a detach");
	nl_trace_close(t);
}

Test(trace_usdt, files_without_probes)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);

	cr_expect_eq(nl_trace_usdt(t, "/no/such/file", -1), -ENOENT);
	cr_expect_lt(nl_trace_usdt(t, "/etc/passwd", -1), 0);
	cr_expect_lt(nl_trace_usdt(t, "/bin/true", -1), 0);
	for (unsigned int i = 0; i < nl_trace_nr_progs(t); i++) {
		const struct nl_trace_prog *p = nl_trace_prog(t, i);

		cr_expect(p->attached || p->reason[0], "%s", p->target);
		if (strstr(p->target, "/bin/true:nolock:heap_grow"))
			cr_log_info("%s: %s", p->target, p->reason);
	}
	nl_trace_close(t);
}

Test(trace_usdt, json)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);
	struct nlt_event e = {
		.kind = NLT_U_FREE_REFUSED, .heap = 0x1000, .ptr = 0x2000, .cache = "foreign"
	};
	struct json_object *o = nl_trace_event_json(t, &e), *v;

	cr_assert(json_object_object_get_ex(o, "kind", &v));
	cr_expect_str_eq(json_object_get_string(v), "nolock:free_refused");
	cr_assert(json_object_object_get_ex(o, "reason", &v));
	cr_expect_str_eq(json_object_get_string(v), "foreign");
	cr_assert(json_object_object_get_ex(o, "ptr", &v));
	cr_expect_str_eq(json_object_get_string(v), "0x2000");
	cr_expect_not(json_object_object_get_ex(o, "cache", &v));
	json_object_put(o);
	nl_trace_close(t);
}
