// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_examples.c - the hash table, the queue and the skip list of bpf/examples, used by a program,
 * two threads and an NMI at once. The NMI comes at each access to a word of theirs: in the middle
 * of each change, of the program's or of a thread's. In the end the books have to add up, and
 * nothing may be left in the heap. The examples themselves are run by selftests/install.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "nolock_help.h"
#include "examples_side.h"
#include "examples_all.skel.h"

#define TURNS 4000u
#define BATCH 100u

struct env {
	struct nolock_heap *heap;
	struct examples_all_bpf *s;
	struct ex_all *a;
	hash_t *hash;
	skiplist_t *list;
};

static struct ex_event *event_new(struct env *e)
{
	struct ex_event *v = nolock_heap_kmalloc(e->heap, sizeof(*v), GFP_KERNEL | __GFP_ZERO);

	cr_assert(v);
	return v;
}

static struct env start(void)
{
	struct env e = { .heap = heap_new(0, 8) };

	pin(0);
	e.a = nolock_heap_kmalloc(e.heap, sizeof(*e.a), GFP_KERNEL | __GFP_ZERO);
	e.hash = hash_create(e.heap, "hash_node", ALL_BITS);
	e.list = skip_create(e.heap);
	cr_assert(e.a && e.hash && e.list);
	e.a->hash = (__u64)e.hash;
	e.a->list = (__u64)e.list;
	queue_init(&e.a->queue, &event_new(&e)->node);
	for (unsigned int i = 0; i < NR_EX_SIDES; i++)
		e.a->side[i].rng = 88172645463325252ULL + i;
	nolock_heap_set_root(e.heap, e.a);
	e.s = examples_all_bpf__open();
	cr_assert(e.s);
	cr_assert_eq(nolock_bpf_attach_heap(e.s->obj, e.heap), 0);
	cr_assert_eq(examples_all_bpf__load(e.s), 0, "cannot load the programs");
	return e;
}

/* On whatever CPU is left, by itself. */
static void *other(void *arg)
{
	struct env *e = arg;

	for (unsigned int i = 0; i < TURNS; i++)
		ex_turn(e->a, SIDE_OTHER, EPOCH_PROCESS + SIDE_OTHER);
	return NULL;
}

/* The program and this thread by turns. Who frees in epochs is this thread alone. */
static void work(struct env *e)
{
	nl_u64 turns = BATCH;
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &turns, .ctx_size_in = sizeof(turns));
	pthread_attr_t attr;
	pthread_t thread;
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned int cpu = 0; cpu < nr_cpus(); cpu++)
		if (cpu || nr_cpus() == 1)
			CPU_SET(cpu, &set);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	cr_assert_eq(pthread_create(&thread, &attr, other, e), 0);
	for (unsigned int i = 0; i < TURNS; i += BATCH) {
		cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(e->s->progs.run), &run), 0);
		for (unsigned int k = 0; k < BATCH; k++)
			ex_turn(e->a, SIDE_THREAD, EPOCH_PROCESS + SIDE_THREAD);
		epoch_advance(&e->list->epoch);
	}
	pthread_join(thread, NULL);
}

static void finish(struct env *e, const char *what, bool nmi)
{
	struct ex_side sum = { 0 };
	struct hash_node found[ALL_KEYS];
	__u64 left = 0, nodes = 0, before = 0;
	struct queue_node *n;

	for (unsigned int i = 0; i < NR_EX_SIDES; i++) {
		const nl_u64 *from = (const nl_u64 *)&e->a->side[i];

		for (unsigned int k = 1; k < sizeof(sum) / 8; k++)
			((nl_u64 *)&sum)[k] += from[k];
	}
	figure("%s: %llu turns, %llu in NMI; given up: %llu of the table, %llu of the list; %llu "
	       "nodes read",
	       what, sum.turns, e->a->side[SIDE_NMI].turns, sum.hash_busy, sum.skip_busy, sum.read);
	cr_assert_eq(sum.wrong, 0, "%s: %llu times something impossible was seen", what, sum.wrong);
	cr_assert_eq(sum.nomem, 0);
	if (nmi)
		cr_assert_gt(e->a->side[SIDE_NMI].turns, 0, "%s: no NMI came", what);

	for (__u32 b = 0; b <= e->hash->mask; b++) {
		int nr = hash_read(e->hash, b, found, ALL_KEYS);

		cr_assert_geq(nr, 0, "%s: bucket %u is locked", what, b);
		for (int i = 0; i < nr; i++)
			left += found[i].value;
	}
	cr_assert_eq(sum.hash_in, sum.hash_out + left, "%s: %llu in, %llu out, %llu left", what,
		     sum.hash_in, sum.hash_out, left);

	left = 0;
	cr_assert(queue_trylock(&e->a->queue), "%s: the queue is locked", what);
	while ((n = queue_next(&e->a->queue))) {
		const struct ex_event *v = (const struct ex_event *)n;

		cr_assert_eq(v->seq, e->a->expect[v->side]++);
		queue_took(&e->a->queue, n);
		left++;
	}
	cr_assert_eq(sum.sent, sum.got + left);

	cr_assert_eq(e->list->lock, 0);
	for (skip_node_t *at = skip_first_from(e->list, 1); at; at = skip_next(at, 0), nodes++) {
		cr_assert_gt(at->key, before);
		before = at->key;
	}
	cr_assert_eq(nodes, e->list->nr);
	cr_assert_eq(sum.skip_in, sum.skip_out + nodes);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(epoch_advance(&e->list->epoch), 1, "%s: a reader is left", what);

	examples_all_bpf__destroy(e->s);
	hash_destroy(e->hash);
	skip_destroy(e->list);
	kfree((void *)e->a->queue.head);
	kfree(e->a);
	heap_whole(e->heap, 0, what);
	cr_assert_eq(nolock_heap_close(e->heap), 0);
}

Test(examples, together)
{
	struct env e = start();

	work(&e);
	finish(&e, "together", false);
}

/* As in test_nolock_nmi.c: a virtual machine may lose DR6, and an access comes as a SIGTRAP. */
static void stray_trap(int sig)
{
	(void)sig;
}

/* A breakpoint on one word, first for the program's accesses, then for this thread's. */
static void attacked(struct env *e, const void *word, const char *what)
{
	struct sigaction sa = { .sa_handler = stray_trap };
	char name[64];
	int fd;

	cr_assert_eq(sigaction(SIGTRAP, &sa, NULL), 0);
	for (unsigned int user = 0; user < 2; user++) {
		fd = user ? break_user(word, 8, e->s->progs.nmi) :
			    break_kernel(e->heap, word, 8, 0, e->s->progs.nmi);
		work(e);
		close(fd);
	}
	snprintf(name, sizeof(name), "NMI at %s", what);
	finish(e, name, true);
}

/* What the walks look at is bounded, and who would have to look further says so. */
Test(examples, long_bucket)
{
	struct nolock_heap *heap = heap_new(0, 8);
	hash_t *t = hash_create(heap, "hash_node", 0);
	__u64 value, nr = HASH_CHAIN + 1;

	cr_assert(t);
	for (__u64 key = 1; key <= nr; key++)
		cr_assert_eq(hash_add(t, key, key), 0);
	cr_assert_eq(hash_add(t, nr + 1, 1), E2BIG_HERE);
	cr_assert_eq(hash_add(t, 1, 1), E2BIG_HERE, "the last of the bucket twice");
	for (__u64 key = nr; key > 0; key--) {
		cr_assert_eq(hash_get(t, key, &value), 0);
		cr_assert_eq(value, key);
		cr_assert_eq(hash_take(t, key, &value), 0);
		cr_assert_eq(value, key);
		cr_assert_eq(hash_take(t, key, &value), ENOENT_HERE);
	}
	hash_destroy(t);
	heap_whole(heap, 0, "long bucket");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

Test(examples, nmi_hash)
{
	struct env e = start();

	attacked(&e, &e.hash->bucket[3], "a bucket");
}

Test(examples, nmi_queue_tail)
{
	struct env e = start();

	attacked(&e, &e.a->queue.tail, "the queue's tail");
}

Test(examples, nmi_queue_lock)
{
	struct env e = start();

	attacked(&e, &e.a->queue.lock, "the queue's lock");
}

Test(examples, nmi_list_lock)
{
	struct env e = start();

	attacked(&e, &e.list->lock, "the list's lock");
}

Test(examples, nmi_list_link)
{
	struct env e = start();

	attacked(&e, &skip_head(e.list)->next[0], "the list's first link");
}

Test(examples, nmi_epoch)
{
	struct env e = start();

	attacked(&e, &e.list->epoch.now, "the epoch");
}
