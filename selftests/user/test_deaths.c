// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_deaths.c - clients of nolockd's heap die by SIGKILL at every instruction that they execute in
 * the library, while a BPF program is at work in it: the program goes on, nolockd notices, repairs
 * and counts it, another client allocates and frees as before, and the heap is whole.
 *
 * One client is single-stepped through every call there is, which says what the instructions are.
 * Then for each of them a client runs up to it, and is killed there. make check takes some of them,
 * with TORTURE_SECONDS=N as many as there is time for, all if it lasts; spread evenly in any case.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nolock/heap.h>
#include <nolock/rcu.h>
#include <nolock/slab.h>

#include "client.h"
#include "daemon.h"
#include "../torture/row.h"
#include "../torture/steps.h"

enum { CAPACITY = 4, MANY = 60, MOST = 1 << 16, SOME = 300 };
/* What the dead had allocated is lost: a new heap after so many. */
enum { OF_A_HEAP = 150 };
#define BIG (75000u) /* more than a chunk */

TestSuite(deaths, .init = setup, .timeout = 0);

static void no_readers(void)
{
}

static unsigned long no_grace_period(void)
{
	return 0;
}

static int is_over(unsigned long cookie)
{
	return !cookie;
}

static void *p[MANY];

static void allocate(struct nolock_heap *heap, struct kmem_cache *s, int n)
{
	for (int i = 0; i < n; i++)
		p[i] = i % 4 == 0 ? kmem_cache_alloc(s, GFP_KERNEL) :
		       i % 4 == 1 ? kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE) :
		       i % 4 == 2 ? nolock_heap_kmalloc(heap, 320, GFP_KERNEL | __GFP_ZERO) :
				    nolock_heap_kmalloc_nolock(heap, 320, 0, NUMA_NO_NODE);
}

static void give_back(int n)
{
	for (int i = 0; i < n; i++)
		(i % 2 ? kfree_nolock : kfree)(p[i]);
}

static void sheaves(struct kmem_cache *s, unsigned int n)
{
	struct slab_sheaf *sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, n);

	if (!sheaf)
		return;
	p[0] = kmem_cache_alloc_from_sheaf(s, 0, sheaf);
	kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, n + 1);
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	kfree(p[0]);
}

/* Every call, and every level behind it. */
static void every_call(struct nolock_heap *heap, struct kmem_cache *s)
{
	static const struct nolock_rcu_ops ops = { .synchronize = no_readers,
						   .start_poll = no_grace_period,
						   .poll = is_over };
	struct kmem_cache *own;
	void *big;

	allocate(heap, s, MANY);
	give_back(MANY);
	if (kmem_cache_alloc_bulk(s, GFP_KERNEL, 2 * CAPACITY + 1, p))
		kmem_cache_free_bulk(s, 2 * CAPACITY + 1, p);
	if (kmem_cache_alloc_bulk_nolock(s, 0, 2 * CAPACITY + 1, p))
		kmem_cache_free_bulk_nolock(s, 2 * CAPACITY + 1, p);
	sheaves(s, CAPACITY);
	sheaves(s, 3 * CAPACITY);
	big = krealloc(nolock_heap_kmalloc(heap, BIG, GFP_KERNEL), 2 * BIG, GFP_KERNEL);
	p[0] = nolock_heap_kmalloc_nolock(heap, BIG, 0, NUMA_NO_NODE);
	kfree_nolock(big);
	kfree(p[0]);
	nolock_rcu_register(&ops);
	allocate(heap, s, 3 * CAPACITY);
	for (int i = 0; i < 3 * CAPACITY; i++)
		kfree_rcu(p[i]);
	nolock_rcu_barrier();
	own = nolock_heap_kmem_cache_create(heap, "own", 900, NULL, SLAB_NO_MERGE);
	if (own) {
		kmem_cache_setup_percpu_array(own, 3);
		kmem_cache_prefill_percpu_array(own, 3, GFP_KERNEL);
		kmem_cache_free(own, kmem_cache_alloc(own, GFP_KERNEL));
		/* Of the client that is stepped it fails: nolockd has a new slab ready before. */
		kmem_cache_destroy(own);
	}
	allocate(heap, s, CAPACITY);
	kmem_cache_shrink(s);
	give_back(CAPACITY);
	nolock_heap_trim(heap);
}

/* In the child of steps_start(). @arg: may it use restartable sequences? */
static void victim(void *arg)
{
	struct nolock_heap *heap;
	struct kmem_cache *s;

	if (!*(bool *)arg)
		setenv("NOLOCK_RSEQ", "0", 1);
	heap = nolock_heap_open(heap_name());
	s = heap ? nolock_heap_kmem_cache_find(heap, "first") : NULL;
	if (!s)
		_exit(1);
	/* Memory is opened, and what a process does only once is done. */
	kfree(nolock_heap_kmalloc(heap, 320, GFP_KERNEL));
	steps_begin();
	every_call(heap, s);
	steps_end();
	_exit(0);
}

static struct world {
	struct daemon d;
	struct program program;
	struct client other;
	unsigned int gone;
} w;

static void world_begin(bool program)
{
	static char arg[128];
	struct kmem_cache_args args = { .sheaf_capacity = CAPACITY };
	struct nolock_heap *heap;

	snprintf(arg, sizeof(arg), "--heap=%s:1G:2M", heap_name());
	START(&w.d, arg, "--no-trace", "--destroy-on-exit");
	heap = nolock_heap_open(heap_name());
	cr_assert(heap, "%s", strerror(errno));
	cr_assert(nolock_heap_kmem_cache_create(heap, "first", 320, &args, SLAB_NO_MERGE));
	cr_assert_eq(nolock_heap_close(heap), 0);
	client_start(&w.other, heap_name());
	DO(&w.other, 'a');
	if (program)
		program_start(&w.program);
	cr_assert(EVENTUALLY(nr_clients() == 1u + program));
	w.gone = (unsigned int)of_heap("clients_gone");
}

static void world_end(bool program)
{
	DO(&w.other, 'v');
	DO(&w.other, 'f');
	check_whole();
	client_kill(&w.other);
	if (program)
		program_stop(&w.program);
	daemon_stop(&w.d);
}

/* This program's own text, libnolock in it: the C library's is not asked for. */
static bool ours(uintptr_t ip)
{
	extern const char __executable_start[], etext[];

	return ip >= (uintptr_t)__executable_start && ip < (uintptr_t)etext;
}

static uintptr_t *step_of;

/* The instructions, in the order of their first time; how many. */
static unsigned int find_steps(bool rseq)
{
	static unsigned char seen[4 << 20];
	extern const char __executable_start[];
	unsigned int n = 0;
	struct steps st;

	memset(seen, 0, sizeof(seen));
	world_begin(false);
	cr_assert_eq(steps_start(&st, victim, &rseq), 0, "%#x", st.status);
	do {
		uintptr_t at = st.ip - (uintptr_t)__executable_start;

		if (!ours(st.ip) || n == MOST)
			continue;
		cr_assert_lt(at, sizeof(seen));
		if (seen[at])
			continue;
		seen[at] = 1;
		step_of[n++] = st.ip;
	} while (steps_next(&st));
	cr_assert(WIFSTOPPED(st.status) && WSTOPSIG(st.status) == SIGSTOP, "%#x", st.status);
	steps_kill(&st);
	cr_assert_lt(n, MOST);
	world_end(false);
	return n;
}

/* Was it killed there? Not where the program, or the dead before, have left nothing to do. */
static bool die_at(uintptr_t ip, bool rseq, unsigned long long *longest)
{
	unsigned long long before, ms;
	struct steps st;
	bool there;

	cr_assert_eq(steps_start(&st, victim, &rseq), 0, "%#x", st.status);
	there = steps_run_to(&st, ip);
	cr_assert(there || (WIFSTOPPED(st.status) && WSTOPSIG(st.status) == SIGSTOP),
		  "a client ended by itself: %#x", st.status);
	before = now_ms();
	steps_kill(&st);
	w.gone++;
	cr_assert(EVENTUALLY(of_heap("clients_gone") == w.gone), "nolockd does not notice");
	ms = now_ms() - before;
	*longest = ms > *longest ? ms : *longest;
	program_goes_on(&w.program);
	DO(&w.other, 'f');
	DO(&w.other, 'a');
	return there;
}

static void deaths(bool rseq, unsigned long seconds)
{
	unsigned long long longest = 0, locks = 0, end;
	unsigned int n, some, step, there = 0, done = 0;

	step_of = calloc(MOST, sizeof(*step_of));
	cr_assert(step_of);
	n = find_steps(rseq);
	cr_assert_gt(n, 1000);
	some = seconds || n < SOME ? n : SOME;
	/* The step is a prime: each has its turn once. */
	step = n % 7919 ? 7919 : 7907;
	end = now_ms() + seconds * 1000;
	while (done < some && (!seconds || now_ms() < end)) {
		world_begin(true);
		for (unsigned int i = 0; i < OF_A_HEAP && done < some; i++, done++)
			there += die_at(step_of[(size_t)done * step % n], rseq, &longest);
		locks += of_heap("locks_repaired");
		world_end(true);
	}
	/* How many depends on who comes in between: the most part, but no exact share. */
	cr_expect_gt(there, done / 2, "only %u of %u were where they should die", there, done);
	cr_expect_gt(locks, 0);
	printf("# deaths%s: clients killed at %u of %u instructions beside a program, %u elsewhere, %llu "
	       "locks taken over, at most %llu ms until it was all repaired\n",
	       rseq ? "" : " without sequences", there, n, done - there, locks, longest);
	row("death beside BPF", 0, done, "kills", 0);
	free(step_of);
}

static unsigned long share(void)
{
	const char *text = getenv("TORTURE_SECONDS");

	return text ? (strtoul(text, NULL, 10) + 1) / 2 : 0;
}

Test(deaths, with_sequences)
{
	NEEDS_ARENA();
	deaths(true, share());
}

Test(deaths, without_sequences)
{
	NEEDS_ARENA();
	deaths(false, share());
}
