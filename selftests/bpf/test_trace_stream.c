// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trace_stream.c - the stream of events: filters, sampling, order, a ring that overflows, JSON.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "trace_help.h"

#define N 400u

static struct nl_trace_filter filp_allocs(pid_t pid)
{
	return (struct nl_trace_filter){
		.kinds = 1ull << NLT_KMEM_CACHE_ALLOC,
		.pid = pid,
		.cache = "filp",
	};
}

Test(trace_stream, off_until_asked_for)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { 0 };
	struct nl_trace_counts c;
	struct trace_child child;

	trace_child_start(&child, trace_open_files, N);
	trace_child_run(&child);
	cr_assert_eq(nl_trace_counts(t, &c), 0);
	cr_expect_gt(c.seen, N);
	cr_expect_eq(c.streamed, 0);
	cr_expect_eq(nl_trace_consume(t, trace_note, &seen), 0);
	nl_trace_close(t);
}

Test(trace_stream, filters_give_exactly_what_was_done)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { .cache = "filp" };
	struct nl_trace_filter f;
	struct trace_child child;

	trace_child_start(&child, trace_open_files, N);
	seen.pid = child.pid;
	f = filp_allocs(child.pid);
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	cr_assert_eq(nl_trace_stream(t, NULL), 0);
	cr_assert_eq(nl_trace_consume(t, trace_note, &seen), (int)N);
	cr_expect_eq(seen.kinds[NLT_KMEM_CACHE_ALLOC], N);
	cr_expect_eq(seen.wrong_pid, 0);
	cr_expect_eq(seen.wrong_cache, 0);
	cr_expect_eq(seen.out_of_order, 0);
	cr_expect_neq(seen.last.ptr, 0);
	cr_expect_neq(seen.last.call_site, 0);
	cr_expect_gt(seen.last.bytes_alloc, 0);
	cr_expect_str_not_empty(seen.last.comm);
	nl_trace_close(t);
}

Test(trace_stream, a_prefix_matches)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { 0 };
	struct nl_trace_filter f = { .cache = "kmalloc-*" };
	struct nl_kernel_stat stat;
	struct trace_child child;

	trace_child_start(&child, trace_open_pipes, N);
	f.pid = child.pid;
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	nl_trace_stream(t, NULL);
	nl_trace_consume(t, trace_note, &seen);
	cr_assert_eq(nl_kernel_stat_read(t, &stat), 0);
	nl_kernel_stat_free(&stat);
	if (stat.unknown.frees)
		cr_skip_test("this kernel does not tell the cache of an object (6.13 does)");
	cr_log_info("%u kmallocs and %u kfrees for %u pipes", seen.kinds[NLT_KMALLOC],
		    seen.kinds[NLT_KFREE], N);
	cr_expect_geq(seen.kinds[NLT_KMALLOC], 2 * N);
	cr_expect_geq(seen.kinds[NLT_KFREE], 2 * N);
	cr_expect_eq(strncmp(seen.last.cache, "kmalloc-", 8), 0);
	nl_trace_close(t);
}

Test(trace_stream, sampling)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { 0 };
	struct nl_trace_filter f;
	struct trace_child child;

	trace_child_start(&child, trace_open_files, 8 * N);
	f = filp_allocs(child.pid);
	f.sample = 8;
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	nl_trace_stream(t, NULL);
	nl_trace_consume(t, trace_note, &seen);
	/* the child may have been on another CPU before it chose its own: one more or less for each */
	cr_expect_geq(seen.nr, N - 2);
	cr_expect_leq(seen.nr, N + 2);
	nl_trace_close(t);
}

Test(trace_stream, a_full_ring_loses_and_says_so)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 4096);
	struct trace_seen seen = { 0 };
	struct nl_trace_filter f;
	struct nl_trace_counts c;
	struct trace_child child;

	trace_child_start(&child, trace_open_files, N);
	f = filp_allocs(child.pid);
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	nl_trace_stream(t, NULL);
	cr_assert_eq(nl_trace_counts(t, &c), 0);
	nl_trace_consume(t, trace_note, &seen);
	cr_log_info("of %u events %u were read and %lu lost", N, seen.nr,
		    (unsigned long)c.lost_ring);
	cr_expect_gt(c.lost_ring, 0);
	cr_expect_gt(seen.nr, 0);
	cr_expect_eq(c.streamed, seen.nr);
	cr_expect_eq(c.streamed + c.lost_ring, N);
	cr_expect_geq(c.lost, c.lost_ring);
	nl_trace_close(t);
}

Test(trace_stream, readable_when_events_wait)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 16384);
	struct trace_seen seen = { 0 };
	struct nl_trace_filter f;
	struct trace_child child;
	struct pollfd p = { .fd = nl_trace_fd(t), .events = POLLIN };

	cr_assert_geq(p.fd, 0);
	cr_expect_eq(poll(&p, 1, 0), 0, "readable with the stream off");
	trace_child_start(&child, trace_open_files, 1);
	f = filp_allocs(child.pid);
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	/* one event is too little to wake anybody: the timer does */
	cr_expect_eq(poll(&p, 1, 10000), 1);
	while (!seen.nr && poll(&p, 1, 10000) == 1)
		nl_trace_consume(t, trace_note, &seen);
	cr_expect_eq(seen.nr, 1);
	nl_trace_close(t);
}

static int stop_at_third(void *arg, const struct nlt_event *e)
{
	trace_note(arg, e);
	return ((struct trace_seen *)arg)->nr == 3 ? -EPIPE : 0;
}

Test(trace_stream, a_callback_can_stop)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { 0 };
	struct nl_trace_filter f;
	struct trace_child child;

	trace_child_start(&child, trace_open_files, N);
	f = filp_allocs(child.pid);
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	cr_expect_eq(nl_trace_consume(t, stop_at_third, &seen), -EPIPE);
	cr_expect_eq(seen.nr, 3);
	cr_expect_eq(nl_trace_consume(t, trace_note, &seen), (int)N - 3);
	nl_trace_close(t);
}

Test(trace_stream, quiet_processes_stay_out)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { 0 };
	struct nl_trace_filter f;
	struct trace_child child;

	trace_child_start(&child, trace_open_files, N);
	f = filp_allocs(child.pid);
	cr_assert_eq(nl_trace_quiet(t, child.pid, true), 0);
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	cr_expect_eq(nl_trace_consume(t, trace_note, &seen), 0);
	cr_expect_eq(nl_trace_quiet(t, child.pid, false), 0);
	cr_expect_eq(nl_trace_quiet(t, child.pid, false), -ENOENT);

	/* and this process by itself: it would stream its own reading of the stream */
	f = filp_allocs(getpid());
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_open_files(N);
	cr_expect_eq(nl_trace_consume(t, trace_note, &seen), 0);
	nl_trace_close(t);
}

Test(trace_stream, bad_filters_are_refused)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct nl_trace_filter f = { .cache = "km*lloc" };

	cr_expect_eq(nl_trace_stream(t, &f), -EINVAL);
	memset(f.cache, 'x', sizeof(f.cache));
	cr_expect_eq(nl_trace_stream(t, &f), -EINVAL);
	nl_trace_close(t);

	t = trace_open(NL_TRACE_USDT, 0); /* nothing is attached yet */
	cr_expect_eq(nl_trace_stream(t, &(struct nl_trace_filter){ 0 }), -ENODEV);
	nl_trace_close(t);
}

Test(trace_stream, json_of_an_event)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	struct trace_seen seen = { 0 };
	struct json_object *o, *parsed, *v;
	struct nl_trace_filter f;
	struct trace_child child;
	char want[32];

	trace_child_start(&child, trace_open_files, 1);
	f = filp_allocs(child.pid);
	cr_assert_eq(nl_trace_stream(t, &f), 0);
	trace_child_run(&child);
	cr_assert_eq(nl_trace_consume(t, trace_note, &seen), 1);
	o = nl_trace_event_json(t, &seen.last);
	cr_assert(o);
	parsed = json_tokener_parse(json_object_to_json_string(o));
	cr_assert(parsed);
	cr_assert(json_object_object_get_ex(parsed, "kind", &v));
	cr_expect_str_eq(json_object_get_string(v), "kmem_cache_alloc");
	cr_assert(json_object_object_get_ex(parsed, "cache", &v));
	cr_expect_str_eq(json_object_get_string(v), "filp");
	cr_assert(json_object_object_get_ex(parsed, "pid", &v));
	cr_expect_eq(json_object_get_int(v), child.pid);
	snprintf(want, sizeof(want), "0x%llx", (unsigned long long)seen.last.ptr);
	cr_assert(json_object_object_get_ex(parsed, "ptr", &v));
	cr_expect_str_eq(json_object_get_string(v), want);
	/* root sees kernel symbols unless kptr_restrict is 2 */
	cr_assert(json_object_object_get_ex(parsed, "symbol", &v), "%s",
		  json_object_to_json_string(o));
	cr_expect(strstr(json_object_get_string(v), "file"), "%s", json_object_get_string(v));
	json_object_put(parsed);
	json_object_put(o);
	nl_trace_close(t);
}

Test(trace_stream, kind_names)
{
	for (int i = 0; i < NLT_NR_KINDS; i++) {
		cr_assert(nl_trace_kind_name((unsigned int)i));
		cr_expect_eq(nl_trace_kind(nl_trace_kind_name((unsigned int)i)), i);
	}
	cr_expect_str_eq(nl_trace_kind_name(NLT_NR_KINDS), "?");
	cr_expect_eq(nl_trace_kind("no such"), -1);
}
