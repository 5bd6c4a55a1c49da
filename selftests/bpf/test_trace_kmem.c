// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trace_kmem.c - the always-on counters: known kernel allocations are counted on the right
 * caches, and what could not be counted is reported.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "trace_help.h"

#define N 2000u

Test(trace_kmem, tracepoints_attach)
{
	static const char *const targets[] = {
		"tp_btf/kmem_cache_alloc",
		"tp_btf/kmem_cache_free",
		"tp_btf/kmalloc",
		"tp_btf/kfree",
	};
	struct nl_trace *t = trace_open(NL_TRACE_KMEM | NL_TRACE_CACHES, 0);

	for (unsigned int i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		const struct nl_trace_prog *p = trace_find(t, targets[i]);

		cr_assert(p, "%s is not in the table", targets[i]);
		cr_expect(p->attached, "%s: %s", targets[i], p->reason);
		cr_expect_str_empty(p->reason);
	}
	nl_trace_close(t);
}

static uint64_t allocs(struct nl_trace *t, const char *name, uint64_t *frees)
{
	const struct nl_kernel_cache *c;
	struct nl_kernel_stat s;
	uint64_t n = 0;

	cr_assert_eq(nl_kernel_stat_read(t, &s), 0);
	c = nl_kernel_stat_find(&s, name);
	cr_assert(c, "no cache %s", name);
	n = c->counts.allocs;
	*frees = c->counts.frees;
	nl_kernel_stat_free(&s);
	return n;
}

Test(trace_kmem, files_move_filp)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM | NL_TRACE_CACHES, 0);
	struct nl_trace_counts before, after;
	uint64_t a0, a1, f0, f1;

	a0 = allocs(t, "filp", &f0);
	nl_trace_counts(t, &before);
	trace_open_files(N);
	nl_trace_counts(t, &after);
	a1 = allocs(t, "filp", &f1);
	cr_log_info("filp: %lu allocations and %lu frees seen for %u files",
		    (unsigned long)(a1 - a0), (unsigned long)(f1 - f0), N);
	cr_expect_geq(a1 - a0, N);
	/* freed after a grace period of RCU: some may be to come */
	cr_expect_gt(f1 - f0, 0);
	cr_expect_geq(after.kinds[NLT_KMEM_CACHE_ALLOC] - before.kinds[NLT_KMEM_CACHE_ALLOC], N);
	cr_expect_geq(after.seen - before.seen, 2 * N);
	cr_expect_eq(after.lost_full, 0);
	cr_expect_eq(after.lost_ring, 0);
	nl_trace_close(t);
}

/* A pipe is two kmallocs: pipe_inode_info, and 16 buffers that need the class of 1 KiB. */
Test(trace_kmem, kmalloc_is_booked_on_its_cache)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM | NL_TRACE_CACHES, 0);
	struct nl_kernel_stat s0, s1;
	uint64_t moved = 0, freed = 0, req = 0, alloc = 0;
	const char *name = "none";

	cr_assert_eq(nl_kernel_stat_read(t, &s0), 0);
	trace_open_pipes(N);
	cr_assert_eq(nl_kernel_stat_read(t, &s1), 0);
	for (unsigned int i = 0; i < s1.nr; i++) {
		const struct nl_kernel_cache *c = &s1.caches[i], *b;

		if (strncmp(c->now.name, "kmalloc-", 8) || c->now.object_size != 1024)
			continue;
		b = nl_kernel_stat_find(&s0, c->now.name);
		cr_assert(b);
		if (c->counts.allocs - b->counts.allocs <= moved)
			continue;
		moved = c->counts.allocs - b->counts.allocs;
		freed = c->counts.frees - b->counts.frees;
		req = c->counts.bytes_req - b->counts.bytes_req;
		alloc = c->counts.bytes_alloc - b->counts.bytes_alloc;
		name = c->now.name;
	}
	if (s1.unknown.frees)
		cr_skip_test("this kernel does not tell the cache of an object (6.13 does)");
	cr_log_info("%s: %lu allocations of %lu bytes in all, %lu frees, for %u pipes", name,
		    (unsigned long)moved, (unsigned long)req, (unsigned long)freed, N);
	cr_expect_geq(moved, N);
	cr_expect_geq(freed, N);
	cr_expect_eq(alloc, moved * 1024);
	cr_expect_leq(req, alloc);
	cr_expect_gt(req, moved * 512, "sizes that belong to a smaller class");
	cr_expect_geq(s1.counts.kinds[NLT_KMALLOC] - s0.counts.kinds[NLT_KMALLOC], 2 * N);
	nl_kernel_stat_free(&s0);
	nl_kernel_stat_free(&s1);
	nl_trace_close(t);
}

/* What is counted by cache, and by no cache, is all that was seen. */
Test(trace_kmem, rows_add_up)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM | NL_TRACE_CACHES, 0);
	struct nl_trace_counts c;
	struct nl_kernel_stat s;
	uint64_t sum;

	trace_open_pipes(N);
	nl_trace_detach(t);
	cr_assert_eq(nl_trace_counts(t, &c), 0);
	cr_assert_eq(nl_kernel_stat_read(t, &s), 0);
	cr_expect_eq(s.from, NL_KERNEL_FROM_SLABINFO, "detached: the iterator is gone");
	sum = s.large.allocs + s.large.frees + s.unknown.allocs + s.unknown.frees +
	      s.unknown.fails + s.null.allocs + s.null.frees + s.null.fails + s.gone.allocs +
	      s.gone.frees + s.gone.fails;
	for (unsigned int i = 0; i < s.nr; i++)
		sum += s.caches[i].counts.allocs + s.caches[i].counts.frees +
		       s.caches[i].counts.fails;
	cr_expect_eq(sum, c.seen, "%lu in rows, %lu seen", (unsigned long)sum,
		     (unsigned long)c.seen);
	cr_expect_gt(c.seen, 4 * N);
	nl_kernel_stat_free(&s);
	nl_trace_close(t);
}

static void on_alarm(int sig)
{
	(void)sig;
}

/*
 * The kernel sends SIGALRM from the interrupt of a timer, and allocates a struct sigqueue there: a
 * kmem_cache_alloc event in an interrupt, many thousand times a second. Some of them hit the
 * tracing program for that very event. The kernel's own statistics make the programs longer, so
 * that it happens the more often. Returns a descriptor to close.
 */
static int interrupt_often(void)
{
	struct itimerval often = { { 0, 100 }, { 0, 100 } };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);

	cr_assert_geq(stats, 0);
	cr_assert_eq(sigaction(SIGALRM, &sa, NULL), 0);
	cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
	return stats;
}

static void interrupt_no_more(int stats)
{
	struct itimerval never = { { 0, 0 }, { 0, 0 } };

	setitimer(ITIMER_REAL, &never, NULL);
	close(stats);
}

#define ROUNDS 500u

/* Allocations in an interrupt within the program that counts allocations are not lost. */
Test(trace_kmem, nested_events_are_caught)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM | NL_TRACE_NESTED, 0);
	const struct nl_trace_prog *p = trace_find(t, "tp_btf/kmem_cache_alloc (in interrupts)");
	int stats = interrupt_often();
	struct nl_trace_counts c;
	unsigned int round;

	cr_assert(p);
	cr_assert(p->attached, "%s", p->reason);
	for (round = 0; round < ROUNDS; round++) {
		trace_open_files(5000);
		nl_trace_counts(t, &c);
		if (c.nested >= 200)
			break;
	}
	interrupt_no_more(stats);
	cr_log_info("%lu events seen, %lu of them nested, %lu missed, after %u rounds",
		    (unsigned long)c.seen, (unsigned long)c.nested, (unsigned long)c.lost_missed,
		    round);
	cr_expect_geq(c.nested, 200, "too few interrupts hit a tracing program");
	/* lost is only what interrupts both programs of a tracepoint at once */
	cr_expect_leq(c.lost_missed, c.nested / 20);
	nl_trace_close(t);
}

/* Without the second programs the kernel's count of misses is what is reported as lost. */
Test(trace_kmem, misses_are_reported_as_lost)
{
	struct nl_trace *t = trace_open(NL_TRACE_KMEM, 0);
	int stats = interrupt_often();
	struct nl_trace_counts c;
	unsigned int round;

	for (round = 0; round < ROUNDS; round++) {
		trace_open_files(5000);
		nl_trace_counts(t, &c);
		if (c.lost_missed >= 200)
			break;
	}
	interrupt_no_more(stats);
	cr_log_info("%lu events seen, %lu missed, after %u rounds", (unsigned long)c.seen,
		    (unsigned long)c.lost_missed, round);
	cr_expect_geq(c.lost_missed, 200);
	cr_expect_eq(c.nested, 0);
	cr_expect_eq(c.lost, c.lost_missed);
	nl_trace_close(t);
}
