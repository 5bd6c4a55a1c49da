// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_rcu.c - kfree_rcu() and SLAB_TYPESAFE_BY_RCU on an RCU whose grace periods this suite begins
 * and ends: nothing is used again before its grace period is over, all of it is afterwards.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <nolock/rcu.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

#define HEAP_SIZE (16 * MiB)

/* A grace period is over when the test says so. */
static unsigned long begun, over, synchronized;
static struct nolock_rcu_head *head;
static void (*callback)(struct nolock_rcu_head *head);
static bool synchronize_allowed;

static void my_synchronize(void)
{
	cr_assert(synchronize_allowed, "synchronize() inside of a read-side section");
	synchronized++;
	over = ++begun;
}

static unsigned long my_start_poll(void)
{
	return ++begun;
}

static int my_poll(unsigned long cookie)
{
	return over >= cookie;
}

static void my_call(struct nolock_rcu_head *h, void (*func)(struct nolock_rcu_head *))
{
	cr_assert_null(callback, "two calls at a time");
	head = h;
	callback = func;
}

static const struct nolock_rcu_ops by_poll = { .synchronize = my_synchronize,
					       .start_poll = my_start_poll,
					       .poll = my_poll };
static const struct nolock_rcu_ops by_call = { .synchronize = my_synchronize, .call = my_call };
static const struct nolock_rcu_ops *const flavours[] = { &by_poll, &by_call };

/* All grace periods that were begun are over now, those that this makes begin not. */
static void grace_period(void)
{
	void (*func)(struct nolock_rcu_head *) = callback;

	over = begun;
	callback = NULL;
	if (func)
		func(head);
}

static void stat_of(struct kmem_cache *s, struct nolock_cache_stat *st)
{
	cr_assert_eq(nolock_heap_cache_stat(nolock_heap_of(s), nl_cache_id(s), st), 0);
}

Test(rcu, refused)
{
	static const struct nolock_rcu_ops bad[] = {
		{ 0 },
		{ .call = my_call },
		{ .synchronize = my_synchronize },
		{ .synchronize = my_synchronize, .start_poll = my_start_poll },
		{ .synchronize = my_synchronize, .poll = my_poll },
		{ .synchronize = my_synchronize, .call = my_call, .poll = my_poll },
		{ .synchronize = my_synchronize,
		  .call = my_call,
		  .start_poll = my_start_poll,
		  .poll = my_poll },
	};
	struct nolock_heap_report rep;
	char *p = kmalloc(64, GFP_KERNEL), *large = kmalloc(100000, GFP_KERNEL);
	struct kmem_cache *s;

	/* Without an RCU the object stays the caller's. */
	cr_assert_eq(kfree_rcu(p), -EOPNOTSUPP);
	cr_assert_eq(kfree_rcu_nolock(p), -EOPNOTSUPP);
	errno = 0;
	cr_assert_null(kmem_cache_create("typesafe", 64, NULL, SLAB_TYPESAFE_BY_RCU));
	cr_assert_eq(errno, EOPNOTSUPP);
	cr_assert_eq(nolock_rcu_poll(), 0);
	cr_assert_eq(nolock_rcu_barrier(), 0);
	cr_assert_eq(nolock_rcu_register(NULL), -EINVAL);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_eq(nolock_rcu_register(&bad[i]), -EINVAL, "case %zu", i);
	cr_assert_eq(nolock_rcu_register(&by_poll), 0);
	cr_assert_eq(nolock_rcu_register(&by_poll), -EBUSY);
	synchronize_allowed = true;

	cr_assert_eq(kfree_rcu(NULL), 0);
	cr_assert_eq(kfree_rcu(ZERO_SIZE_PTR), 0);
	cr_assert_eq(kfree_rcu(p + 8), -EINVAL);
	cr_assert_eq(kfree_rcu_nolock(large + 16), -EINVAL);
	cr_assert_eq(kfree_rcu_nolock(large + 65536), -EINVAL);
	cr_assert_eq(kfree_rcu(&rep), -EINVAL);
	cr_assert_eq(kfree_rcu(nolock_heap_default()->base), -EINVAL);
	cr_assert_eq(kfree_rcu(large + 32 * MiB), -EINVAL);
	cr_assert_eq(kfree_rcu(large), 0);
	cr_assert_eq(kfree_rcu_nolock(large), -EINVAL, "twice");
	s = kmem_cache_create("other", 64, NULL, 0);
	cr_assert_eq(kmem_cache_free_rcu(s, p), 0, "to its own cache");
	cr_assert_eq(nolock_rcu_poll(), 2);
	cr_assert_eq(nolock_rcu_barrier(), 0);
	cr_assert_eq(nolock_rcu_poll(), 0);
	expect_whole(nolock_heap_default(), &rep, "after refused frees");
	cr_assert_eq(rep.allocated + rep.large, 0);
	cr_assert_eq(rep.refused, 8, "%lu", rep.refused);
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

/* Every object of a full heap is marked; what an allocation returns says where it comes from. */
static void nothing_before_its_time(const struct nolock_rcu_ops *ops)
{
	static const unsigned int sizes[] = { 16, 64, 1000, 32768, 100000 };
	static void *p[1 << 20];
	struct nolock_heap *heap;
	unsigned long total = 0;

	cr_assert_eq(nolock_rcu_register(ops), 0);
	for_each_kind(heap, HEAP_SIZE)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			struct nolock_heap_report rep;
			unsigned int size = sizes[i];
			size_t n = 0, again;
			void *q;

			while (n < ARRAY_LEN(p) &&
			       (q = nolock_heap_kmalloc(heap, size, GFP_KERNEL | __GFP_NOWARN))) {
				stamp(q, size, (uint32_t)n);
				p[n++] = q;
			}
			cr_assert_gt(n, 60);
			/* A reader is inside now: nothing may be freed, nothing may block. */
			synchronize_allowed = false;
			for (size_t k = 0; k < n; k += 2)
				cr_assert_eq(k & 2 ? kfree_rcu(p[k]) : kfree_rcu_nolock(p[k]), 0);
			cr_assert_eq(nolock_rcu_poll(), (n + 1) / 2);
			cr_assert_null(nolock_heap_kmalloc(heap, size, GFP_KERNEL | __GFP_NOWARN));
			cr_assert_null(nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE));
			if (size <= 32768)
				cr_assert_null(nolock_heap_kmalloc(heap, 65000,
								   GFP_KERNEL | __GFP_NOWARN));
			cr_assert_eq(nolock_rcu_poll(), (n + 1) / 2);
			for (size_t k = 0; k < n; k++)
				cr_assert_eq(stamp_check(p[k]), size, "%s: object %zu of %u bytes",
					     heap_kinds[kind], k, size);
			expect_whole(heap, &rep, "with objects that wait");
			/* What came after a grace period began waits for the next one. */
			for (int round = 0; round < 8 && nolock_rcu_poll(); round++)
				grace_period();
			cr_assert_eq(nolock_rcu_poll(), 0, "%lu still wait", nolock_rcu_poll());
			for (again = 0; again < (n + 1) / 2; again++) {
				q = nolock_heap_kmalloc(heap, size, GFP_KERNEL | __GFP_NOWARN);
				cr_assert_not_null(q, "%s: %zu of %zu objects of %u bytes",
						   heap_kinds[kind], again, (n + 1) / 2, size);
				stamp(q, size, 0);
			}
			for (size_t k = 0; k < n; k++) {
				cr_assert_eq(stamp_check(p[k]), size);
				kfree(p[k]);
			}
			expect_whole(heap, &rep, "after a grace period");
			cr_assert_eq(rep.allocated + rep.large, 0);
			cr_assert_eq(rep.refused, 0);
			nolock_heap_trim(heap);
			total += n;
			if (i + 1 == ARRAY_LEN(sizes)) {
				synchronize_allowed = true;
				cr_assert_eq(nolock_heap_close(heap), 0);
			}
		}
	report("  nothing_before_its_time, by %s: %lu objects", ops->call ? "call" : "poll", total);
}

Test(rcu, nothing_before_its_time_by_poll)
{
	nothing_before_its_time(&by_poll);
}

Test(rcu, nothing_before_its_time_by_call)
{
	nothing_before_its_time(&by_call);
}

/* An object that is queued while a grace period runs is not over with it. */
Test(rcu, late_comers)
{
	for (size_t f = 0; f < ARRAY_LEN(flavours); f++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			struct kmem_cache *s;
			void *a, *b;

			cr_assert_eq(nolock_rcu_register(flavours[f]), 0);
			s = kmem_cache_create("late", 1000, NULL, 0);
			a = kmem_cache_alloc(s, GFP_KERNEL);
			b = kmem_cache_alloc(s, GFP_KERNEL);
			cr_assert_eq(kfree_rcu(a), 0);
			cr_assert_eq(nolock_rcu_poll(), 1); /* it begins for a */
			cr_assert_eq(kfree_rcu(b), 0);
			grace_period();
			cr_assert_eq(nolock_rcu_poll(), 1, "b has its own");
			grace_period();
			cr_assert_eq(nolock_rcu_poll(), 0);
			synchronize_allowed = true;
			cr_assert_eq(kmem_cache_destroy(s), 0);
			_exit(0);
		}
		cr_assert_gt(pid, 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0);
	}
}

Test(rcu, sheaves_go_to_the_barn)
{
	struct kmem_cache_args args = { .sheaf_capacity = 32 };
	struct nolock_cache_stat st;
	struct kmem_cache *s;
	void *p[96];

	cr_assert_eq(nolock_rcu_register(&by_poll), 0);
	s = kmem_cache_create("barn", 64, &args, 0);
	for (int i = 0; i < 96; i++)
		p[i] = kmem_cache_alloc(s, GFP_KERNEL);
	for (int i = 0; i < 96; i++)
		cr_assert_eq(kmem_cache_free_rcu(s, p[i]), 0);
	stat_of(s, &st);
	cr_assert_eq(st.stat[NOLOCK_FREE_RCU_SHEAF] + st.stat[NOLOCK_FREE_RCU_SHEAF_FAIL], 96);
	cr_assert_geq(st.stat[NOLOCK_FREE_RCU_SHEAF], 32);
	cr_assert_eq(st.barn_full, 0);
	for (int round = 0; round < 4 && nolock_rcu_poll(); round++)
		grace_period();
	cr_assert_eq(nolock_rcu_poll(), 0);
	stat_of(s, &st);
	if (NL_BARN_MAX)
		cr_assert_geq(st.barn_full, 1);
	cr_assert_eq(st.allocated, 0);
	expect_whole(nolock_heap_default(), NULL, "after sheaves");
	synchronize_allowed = true;
	cr_assert_eq(kmem_cache_destroy(s), 0);
}

/* Destroying waits for what is on its way, and only then. */
Test(rcu, destroy_waits)
{
	struct kmem_cache *s;

	cr_assert_eq(nolock_rcu_register(&by_call), 0);
	synchronize_allowed = true;
	for (int nolock = 0; nolock < 2; nolock++) {
		unsigned long before = synchronized;

		s = kmem_cache_create("destroy", 100, NULL, 0);
		for (int i = 0; i < 1000; i++) {
			void *p = kmem_cache_alloc(s, GFP_KERNEL);

			cr_assert_eq(nolock ? kmem_cache_free_rcu_nolock(s, p) :
					      kmem_cache_free_rcu(s, p),
				     0);
		}
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_gt(synchronized, before);
		before = synchronized;
		s = kmem_cache_create("destroy", 100, NULL, 0);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(synchronized, before, "nothing waited");
	}
	expect_whole(nolock_heap_default(), NULL, "after destroy");
}

/* With every lock held, all is noted as bits; nothing is lost and nothing fails. */
Test(rcu, behind_locks)
{
	enum { N = 30000 };
	static void *p[N];
	struct nolock_heap_report rep;
	struct nolock_cache_stat st;
	struct kmem_cache *s, *t;

	cr_assert_eq(nolock_rcu_register(&by_poll), 0);
	s = kmem_cache_create("locked", 48, NULL, 0);
	t = kmem_cache_create("unlocked", 48, NULL, 0);
	/* More than 64 sheaves of a CPU wait at a time: the rest are bits. */
	for (int i = 0; i < N; i++)
		cr_assert_not_null(p[i] = kmem_cache_alloc(s, GFP_KERNEL));
	for (int i = 0; i < N; i++)
		cr_assert_eq(kmem_cache_free_rcu_nolock(s, p[i]), 0);
	stat_of(s, &st);
	cr_assert_gt(st.stat[NOLOCK_FREE_RCU_SHEAF_FAIL], 0);
	cr_assert_gt(st.stat[NOLOCK_FREE_RCU_SHEAF], 0);
	cr_assert_eq(st.stat[NOLOCK_FREE_RCU_SHEAF] + st.stat[NOLOCK_FREE_RCU_SHEAF_FAIL], N);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(kfree_rcu_nolock(kmem_cache_alloc(t, GFP_KERNEL)), 0);
	cr_assert_eq(nolock_rcu_poll(), N + 100);
	for (int round = 0; round < 8 && nolock_rcu_poll(); round++)
		grace_period();
	expect_whole(nolock_heap_default(), &rep, "after bits");
	cr_assert_eq(rep.allocated, 0);
	synchronize_allowed = true;
	cr_assert_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(kmem_cache_destroy(t), 0);
}

/* Objects may be read, and are objects of the cache, for as long as a reader may have them. */
Test(rcu, typesafe_slabs_wait)
{
	enum { N = 5000 };
	static char *p[N];
	struct nolock_cache_stat st;
	struct nolock_heap_report rep;
	struct nolock_heap *heap;

	cr_assert_eq(nolock_rcu_register(&by_call), 0);
	for_each_kind(heap, HEAP_SIZE) {
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "typesafe", 1024, NULL,
								     SLAB_TYPESAFE_BY_RCU);
		nl_u32 tag;
		int given;

		cr_assert_not_null(s);
		for (int i = 0; i < N; i++) {
			cr_assert_not_null(p[i] = kmem_cache_alloc(s, GFP_KERNEL));
			memset(p[i], i, 1024);
		}
		for (int i = 0; i < N; i++)
			kmem_cache_free(s, p[i]);
		stat_of(s, &st);
		/* A reader is inside: the pages stay, and what they hold. */
		synchronize_allowed = false;
		given = kmem_cache_shrink(s);
		nolock_heap_trim(heap);
		tag = nl_load(nl_tag(heap->h, (nl_u32)((p[0] - heap->base) >> NL_CHUNK_SHIFT)));
		for (int i = 0; i < N; i++)
			cr_assert_eq(p[i][1023], (char)i);
		expect_whole(heap, &rep, "with slabs that wait");
		if (kind == NOLOCK_HEAP_PRIVATE) {
			cr_assert_eq((unsigned long)given, st.slabs);
			cr_assert_eq(NL_TAG_KIND(tag), NL_KIND_WAIT);
			cr_assert_eq(nolock_rcu_poll(), st.slabs);
			cr_assert_lt(rep.chunks_free + st.slabs, rep.chunks + 1);
		} else {
			cr_assert_eq(given, 0, "others may read");
		}
		for (int round = 0; round < 8 && nolock_rcu_poll(); round++)
			grace_period();
		synchronize_allowed = true;
		expect_whole(heap, &rep, "after their grace period");
		if (kind == NOLOCK_HEAP_PRIVATE)
			cr_assert_eq(rep.chunks_free, rep.chunks);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		nolock_rcu_barrier();
		expect_whole(heap, &rep, "after destroy");
		cr_assert_eq(rep.chunks_free, rep.chunks);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* A shared heap is closed: what waits in it is freed first. */
Test(rcu, close_waits)
{
	struct nolock_heap_report rep;
	struct nolock_heap *heap, *other;
	int fd;

	cr_assert_eq(nolock_rcu_register(&by_poll), 0);
	synchronize_allowed = true;
	heap = heap_of_kind(NOLOCK_HEAP_MEMFD, HEAP_SIZE);
	fd = dup(nolock_heap_fd(heap));
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(kfree_rcu(nolock_heap_kmalloc(heap, 100, GFP_KERNEL)), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
	cr_assert_gt(synchronized, 0);
	other = nl_heap_map(fd, NL_HEAP_MEMFD, 0x567000000000ULL + NOLOCK_HEAP_MEMFD * (8ULL << 30),
			    HEAP_SIZE, 2);
	cr_assert_not_null(other);
	expect_whole(other, &rep, "as the next process finds it");
	cr_assert_eq(rep.allocated, 0);
	cr_assert_eq(nolock_heap_close(other), 0);
}

/* In a child, what waits there is its own, and another thread's lock is nobody's. */
static volatile int in_lock, release;

static void locked_synchronize(void)
{
	over = ++begun;
}

static unsigned long locked_start_poll(void)
{
	/* Called under the CPU's lock: the fork comes now. */
	in_lock = 1;
	while (!release)
		usleep(1000);
	return ++begun;
}

static const struct nolock_rcu_ops locked = { .synchronize = locked_synchronize,
					      .start_poll = locked_start_poll,
					      .poll = my_poll };

static void *poller(void *arg)
{
	nolock_rcu_poll();
	return arg;
}

Test(rcu, fork_under_lock)
{
	struct nolock_heap_report rep;
	pthread_t thread;
	int status;
	pid_t pid;

	cr_assert_eq(nolock_rcu_register(&locked), 0);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(kfree_rcu_nolock(kmalloc(64, GFP_KERNEL)), 0);
	cr_assert_eq(pthread_create(&thread, NULL, poller, NULL), 0);
	while (!in_lock)
		usleep(1000);
	pid = fork();
	if (!pid) {
		int err;

		release = 1;
		for (int i = 0; i < 1000; i++)
			if (kfree_rcu(kmalloc(64, GFP_KERNEL)))
				_exit(1);
		err = nolock_rcu_barrier();
		_exit(err						       ? 2 :
		      nolock_rcu_poll()					       ? 3 :
		      check_whole(nolock_heap_default(), &rep, "in the child") ? 4 :
		      rep.allocated					       ? 5 :
										 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	release = 1;
	pthread_join(thread, NULL);
	cr_assert_eq(status, 0, "the child: %#x", status);
	cr_assert_eq(nolock_rcu_barrier(), 0);
	expect_whole(nolock_heap_default(), &rep, "in the parent");
	cr_assert_eq(rep.allocated, 0);
}
