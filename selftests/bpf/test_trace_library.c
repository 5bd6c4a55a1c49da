// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trace_library.c - the probes that libnolock itself has, fired by real work on a heap.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <limits.h>
#include <nolock/slab.h>
#include <string.h>
#include <unistd.h>
#include "trace_help.h"

static void churn(unsigned int n)
{
	struct kmem_cache *s = kmem_cache_create("trace-test", 200, NULL, 0);
	void **p = kmalloc(n * sizeof(*p), GFP_KERNEL);
	unsigned int i;

	if (!s || !p)
		_exit(3);
	for (i = 0; i < n; i++) {
		p[i] = kmem_cache_alloc(s, GFP_KERNEL);
		if (!p[i])
			_exit(4);
	}
	for (i = 0; i < n; i++)
		kmem_cache_free(s, p[i]);
	kfree(p);
	kmem_cache_shrink(s);
	kmem_cache_destroy(s);
}

struct sums {
	unsigned int events[NLT_NR_KINDS];
	uint64_t objects[NLT_NR_KINDS];
	uint64_t heap;
	unsigned int other_heap;
};

static int add_up(void *arg, const struct nlt_event *e)
{
	struct sums *s = arg;

	if (strcmp(e->cache, "trace-test"))
		return 0;
	s->events[e->kind]++;
	s->objects[e->kind] += e->bytes_req;
	if (s->heap && s->heap != e->heap)
		s->other_heap++;
	s->heap = e->heap;
	return 0;
}

#define N 20000u

Test(trace_library, sheaves_and_slabs_of_a_heap)
{
	struct nl_trace *t = trace_open(NL_TRACE_USDT, 0);
	char path[PATH_MAX] = "";
	struct trace_child child;
	struct sums s = { 0 };
	struct nl_trace_counts c;

	cr_assert_gt(readlink("/proc/self/exe", path, sizeof(path) - 1), 0);
	trace_child_start(&child, churn, N);
	cr_assert_eq(nl_trace_usdt(t, path, child.pid), 7);
	cr_assert_eq(nl_trace_stream(t, &(struct nl_trace_filter){ .cache = "trace-*" }), 0);
	trace_child_run(&child);
	cr_assert_gt(nl_trace_consume(t, add_up, &s), 0);
	cr_assert_eq(nl_trace_counts(t, &c), 0);
	cr_log_info("%u refills of %lu objects, %u flushes of %lu, %u slabs made, %u freed",
		    s.events[NLT_U_SHEAF_REFILL], (unsigned long)s.objects[NLT_U_SHEAF_REFILL],
		    s.events[NLT_U_SHEAF_FLUSH], (unsigned long)s.objects[NLT_U_SHEAF_FLUSH],
		    s.events[NLT_U_ALLOC_SLAB], s.events[NLT_U_FREE_SLAB]);
	cr_expect_eq(c.lost, 0);
	/* every object that was handed out came into a sheaf first, out of slabs of 64 KiB */
	cr_expect_geq(s.objects[NLT_U_SHEAF_REFILL], N);
	cr_expect_geq(s.events[NLT_U_ALLOC_SLAB], N * 200 / 65536);
	/* all of them went back to their slabs in the end, and the slabs to the heap */
	cr_expect_geq(s.objects[NLT_U_SHEAF_FLUSH], s.objects[NLT_U_SHEAF_REFILL] / 2);
	cr_expect_eq(s.events[NLT_U_FREE_SLAB], s.events[NLT_U_ALLOC_SLAB]);
	cr_expect_neq(s.heap, 0);
	cr_expect_eq(s.other_heap, 0);
	nl_trace_close(t);
}
