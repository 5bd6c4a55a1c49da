// SPDX-License-Identifier: GPL-2.0-only
/*
 * api.c - see api.h. The same calls in each run, on caches that are fresh each time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <nolock/debug.h>
#include <nolock/rcu.h>
#include "internal.h"
#include "api.h"

enum { MOST = 512, BULK = 40, FEW = 5, MAX_WAITING = 30 };

/*
 * An RCU without readers: a grace period is over when the workload says so, or by synchronize().
 * In this one thread it runs callbacks outside of all calls, as an RCU's own thread would.
 */
static struct {
	struct nolock_rcu_head *head;
	void (*func)(struct nolock_rcu_head *head);
	unsigned long begun, over;
	unsigned int waiting; /* freed by handlers since the last grace period */
} rcu;

static DRIVER void rcu_synchronize(void)
{
	rcu.over = ++rcu.begun;
}

static DRIVER void rcu_call(struct nolock_rcu_head *head,
			    void (*func)(struct nolock_rcu_head *head))
{
	/* The library promises one at a time. */
	if (rcu.func)
		abort();
	rcu.head = head;
	rcu.func = func;
}

static DRIVER unsigned long rcu_start_poll(void)
{
	return ++rcu.begun;
}

static DRIVER int rcu_poll(unsigned long cookie)
{
	return rcu.over >= cookie;
}

static const struct nolock_rcu_ops rcu_by_call = { .synchronize = rcu_synchronize,
						   .call = rcu_call };
static const struct nolock_rcu_ops rcu_by_poll = { .synchronize = rcu_synchronize,
						   .start_poll = rcu_start_poll,
						   .poll = rcu_poll };

static DRIVER void grace_period(void)
{
	void (*func)(struct nolock_rcu_head * head) = rcu.func;

	rcu.over = rcu.begun;
	rcu.waiting = 0;
	rcu.func = NULL;
	if (func)
		func(rcu.head);
}

/* Count what must not be, and where it was first. */
#define WRONG(count_, cond_)                                                                       \
	do {                                                                                       \
		if (cond_)                                                                         \
			wrong_at(a, &a->count_, __LINE__);                                         \
	} while (0)

#define CALL(call_)                                                                                \
	do {                                                                                       \
		a->call = #call_;                                                                  \
		a->arm();                                                                          \
		call_;                                                                             \
		a->disarm();                                                                       \
		a->calls++;                                                                        \
	} while (0)

/* A call that must give an object, which then gets its contents. */
#define GET(p, size_, call_)                                                                       \
	do {                                                                                       \
		CALL((p) = (call_));                                                               \
		got(a, p, size_);                                                                  \
	} while (0)

static DRIVER void wrong_at(struct api *a, unsigned long *count, unsigned int line)
{
	++*count;
	if (!a->line)
		a->line = line;
}

static DRIVER void got_at(struct api *a, void *p, size_t size, unsigned int line)
{
	if (p)
		stamp(p, (uint32_t)size, (uint32_t)a->calls);
	else
		wrong_at(a, &a->failed, line);
}

static DRIVER void look_at(struct api *a, void *p, unsigned int line)
{
	if (p && !stamp_check(p))
		wrong_at(a, &a->bad, line);
}

#define got(a, p, size) got_at(a, p, size, __LINE__)
#define look(a, p) look_at(a, p, __LINE__)

/* Objects of the cache, by each call in turn; a third goes to handlers, for what they left. */
static DRIVER void waves(struct api *a)
{
	static void *obj[MOST];
	unsigned int n = a->depth < MOST ? a->depth : MOST;

	for (unsigned int i = 0; i < n; i++) {
		switch (i % 5) {
		case 0:
			GET(obj[i], a->size, kmem_cache_alloc(a->cache, GFP_KERNEL));
			break;
		case 1:
			GET(obj[i], a->size, kmem_cache_alloc_nolock(a->cache, 0, NUMA_NO_NODE));
			break;
		case 2:
			GET(obj[i], a->size, kmem_cache_zalloc(a->cache, GFP_ATOMIC));
			break;
		case 3:
			GET(obj[i], a->size, kmem_cache_alloc_node(a->cache, GFP_NOWAIT, 0));
			break;
		default:
			GET(obj[i], a->size, kmem_cache_alloc_nolock(a->cache, __GFP_ZERO, 0));
		}
		if (i % 3 == 0)
			obj[i] = mailbox_swap(&a->box, i, obj[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		void *p = obj[i];
		/* What a handler left may be a bucket's. */
		bool own = i % 3;

		look(a, p);
		switch (i % 5) {
		case 0:
			CALL(kfree_nolock(p));
			break;
		case 1:
			CALL(kfree(p));
			break;
		case 2:
			CALL(kmem_cache_free_bulk(own ? a->cache : NULL, p ? 1 : 0, &p));
			break;
		case 3:
			CALL(WRONG(failed, kfree_rcu_nolock(p) != 0));
			break;
		default:
			if (own)
				CALL(kmem_cache_free_nolock(a->cache, p));
			else
				CALL(kfree(p));
		}
	}
}

static DRIVER void many_at_once(struct api *a)
{
	unsigned int cap = ((struct nl_cache *)a->cache)->capacity, left;
	struct slab_sheaf *sheaf;
	void *obj[BULK], *p;
	int n;

	CALL(n = kmem_cache_alloc_bulk(a->cache, GFP_KERNEL, BULK, obj));
	WRONG(failed, n != BULK);
	if (n == BULK)
		CALL(kmem_cache_free_bulk(a->cache, BULK, obj));
	CALL(n = kmem_cache_alloc_bulk_nolock(a->cache, __GFP_ZERO, BULK, obj));
	WRONG(failed, n != BULK);
	if (n == BULK)
		CALL(kmem_cache_free_bulk_nolock(a->cache, BULK, obj));
	/* One of the table, then an oversize one; the same by the nolock call. */
	for (unsigned int i = 0; i < 4; i++) {
		unsigned int size = i % 2 ? 2 * cap : cap;

		if (i < 2)
			CALL(sheaf = kmem_cache_prefill_sheaf(a->cache, GFP_KERNEL, size));
		else
			CALL(sheaf = kmem_cache_prefill_sheaf_nolock(a->cache, 0, size));
		if (!sheaf) {
			WRONG(failed, true);
			return;
		}
		CALL(left = kmem_cache_sheaf_size(sheaf));
		WRONG(bad, left < size);
		GET(p, a->size, kmem_cache_alloc_from_sheaf(a->cache, __GFP_ZERO, sheaf));
		look(a, p);
		CALL(kmem_cache_free(a->cache, p));
		CALL(n = kmem_cache_refill_sheaf(a->cache, i < 2 ? GFP_KERNEL : GFP_ATOMIC, &sheaf,
						 size + 2));
		WRONG(failed, n != 0);
		CALL(kmem_cache_return_sheaf(a->cache, i < 2 ? GFP_KERNEL : 0, sheaf));
	}
}

/* Move an object, up and down. */
static DRIVER void resize(struct api *a, void *p, size_t from, size_t to)
{
	void *q;

	if (!p)
		return;
	look(a, p);
	CALL(q = krealloc(p, to, GFP_KERNEL | __GFP_ZERO));
	if (!q) {
		WRONG(failed, true);
		q = p;
	}
	WRONG(bad, !stamp_begins(q, to < from ? to : from));
	CALL(kfree(q));
}

static DRIVER struct kmem_cache *create(struct api *a, unsigned int size,
					const struct kmem_cache_args *args, slab_flags_t flags)
{
	struct kmem_cache *s;

	CALL(s = nolock_heap_kmem_cache_create(a->heap, "api-second", size, args, flags));
	WRONG(failed, !s);
	a->also = s;
	return s;
}

static DRIVER void destroy(struct api *a, struct kmem_cache *s)
{
	int n;

	a->also = NULL;
	CALL(n = kmem_cache_destroy(s));
	/* A slot of a shared heap whose section is aborted each time keeps its sheaves. */
	if (n && a->heap != nolock_heap_default()) {
		n = kmem_cache_destroy(s);
		a->late++;
	}
	WRONG(failed, n != 0);
}

/* Some objects of a cache that is not there for long, which handlers use meanwhile. */
static DRIVER void use(struct api *a, struct kmem_cache *s, unsigned int size, size_t align)
{
	void *obj[FEW], *p;

	for (unsigned int i = 0; i < FEW; i++) {
		if (i % 2)
			GET(obj[i], size, kmem_cache_alloc(s, GFP_KERNEL));
		else
			GET(obj[i], size, kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
		WRONG(bad, (uintptr_t)obj[i] % align != 0);
	}
	for (unsigned int i = 0; i < FEW; i++) {
		look(a, obj[i]);
		if (i % 2)
			CALL(kmem_cache_free(s, obj[i]));
		else
			CALL(kmem_cache_free_nolock(s, obj[i]));
	}
	CALL(p = kmem_cache_zalloc(s, GFP_KERNEL));
	WRONG(failed, !p);
	for (unsigned int i = 0; p && i < size; i++)
		WRONG(bad, ((char *)p)[i] != 0);
	CALL(kfree(p));
}

static DRIVER void construct(void *p)
{
	memset(p, 0xc7, 60);
}

static DRIVER bool constructed(const unsigned char *p)
{
	for (unsigned int i = 0; i < 60; i++)
		if (p[i] != 0xc7)
			return false;
	return true;
}

/* Each kind of cache there is. */
static DRIVER void of_other_caches(struct api *a)
{
	bool private = nolock_heap_type(a->heap) == NOLOCK_HEAP_PRIVATE;
	struct kmem_cache_args aligned = { .align = 256 }, made = { .ctor = construct };
	struct kmem_cache *s;
	size_t n;
	int err;
	void *p;

	s = create(a, 300, NULL, SLAB_HWCACHE_ALIGN | SLAB_ACCOUNT);
	if (s) {
		CALL(n = kmem_cache_size(s));
		WRONG(bad, n != 300);
		use(a, s, 300, 64);
		destroy(a, s);
	}
	s = create(a, 40, &aligned, SLAB_NO_MERGE);
	if (s) {
		use(a, s, 40, 256);
		destroy(a, s);
	}
	s = create(a, 200, NULL, SLAB_NO_MERGE);
	if (s) {
		a->also = NULL; /* not yet: what was allocated from cannot become one */
		CALL(err = kmem_cache_setup_percpu_array(s, 8));
		WRONG(failed, err != 0);
		a->also = s;
		CALL(err = kmem_cache_prefill_percpu_array(s, 6, GFP_KERNEL));
		WRONG(failed, err != 0);
		use(a, s, 200, 8);
		CALL(err = kmem_cache_prefill_percpu_array(s, 8, GFP_ATOMIC));
		WRONG(failed, err != 0);
		CALL(kmem_cache_shrink(s));
		destroy(a, s);
	}
	s = create(a, 80, NULL, SLAB_TYPESAFE_BY_RCU);
	if (s) {
		use(a, s, 80, 8);
		CALL(kmem_cache_shrink(s));
		CALL(grace_period());
		destroy(a, s);
	}
	if (!private)
		return;
	s = create(a, 60, &made, 0);
	if (s) {
		for (unsigned int i = 0; i < FEW; i++) {
			CALL(p = kmem_cache_alloc(s, GFP_KERNEL));
			WRONG(failed, !p);
			WRONG(bad, p && !constructed(p));
			CALL(kmem_cache_free(s, p));
		}
		destroy(a, s);
	}
	s = create(a, 3000, NULL, SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE);
	if (s) {
		use(a, s, 3000, 8);
		CALL(err = nolock_cache_validate(s));
		WRONG(bad, err != 0);
		GET(p, 3000, kmem_cache_alloc(s, GFP_KERNEL));
		CALL(n = ksize(p));
		WRONG(bad, n != 3000);
		CALL(WRONG(failed, kfree_rcu(p) != 0));
		destroy(a, s);
	}
	/* Poison is a slab's 64 KiB, backtrace() many instructions: no handler takes part. */
	s = a->brief ? NULL : create(a, 9000, NULL, SLAB_POISON | SLAB_STORE_USER);
	if (s) {
		a->also = NULL;
		GET(p, 9000, kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
		CALL(kmem_cache_free_nolock(s, p));
		destroy(a, s);
	}
}

/* Not touched and nobody else's until the grace period is over. */
static DRIVER void later(struct api *a)
{
	unsigned long n;
	void *p, *q, *r;

	GET(p, a->size, kmem_cache_alloc(a->cache, GFP_KERNEL));
	CALL(WRONG(failed, kmem_cache_free_rcu(a->cache, p) != 0));
	GET(r, a->size, kmem_cache_alloc(a->cache, GFP_KERNEL));
	CALL(WRONG(failed, kmem_cache_free_rcu_nolock(a->cache, r) != 0));
	GET(q, a->size, kmem_cache_alloc(a->cache, GFP_KERNEL));
	WRONG(bad, q && (q == p || q == r));
	look(a, p);
	look(a, r);
	CALL(kfree(q));
	GET(p, 100000, nolock_heap_kmalloc(a->heap, 100000, GFP_KERNEL));
	CALL(WRONG(failed, kfree_rcu(p) != 0));
	GET(r, 500, nolock_heap_kmalloc(a->heap, 500, GFP_KERNEL));
	CALL(WRONG(failed, kfree_rcu_nolock(r) != 0));
	CALL(n = nolock_rcu_poll());
	WRONG(bad, n < 4);
	look(a, p);
	look(a, r);
	CALL(grace_period());
	if (!a->brief)
		CALL(WRONG(failed, nolock_rcu_barrier() != 0));
}

/* A large object grows and shrinks: in its place, and, from a MiB on, by its page tables. */
static DRIVER void large(struct api *a)
{
	bool private = nolock_heap_type(a->heap) == NOLOCK_HEAP_PRIVATE;
	void *p, *q, *next;

	GET(p, 1000, nolock_heap_kmalloc(a->heap, 150000, GFP_KERNEL));
	look(a, p);
	CALL(q = krealloc(p, 280000, GFP_KERNEL));
	WRONG(failed, !q);
	p = q ? q : p;
	look(a, p);
	CALL(q = krealloc(p, 70000, GFP_NOWAIT));
	WRONG(failed, !q);
	p = q ? q : p;
	look(a, p);
	/* Down to a bucket. */
	CALL(q = krealloc(p, 2000, GFP_KERNEL));
	WRONG(failed, !q);
	p = q ? q : p;
	look(a, p);
	CALL(kfree(p));
	if (!private)
		return;
	GET(p, 1000, nolock_heap_kmalloc(a->heap, 5 * MiB / 4, GFP_KERNEL));
	CALL(next = nolock_heap_kmalloc(a->heap, 70000, GFP_KERNEL));
	CALL(q = krealloc(p, 5 * MiB / 2, GFP_KERNEL));
	WRONG(failed, !q || !next);
	p = q ? q : p;
	look(a, p);
	CALL(kfree(p));
	CALL(kfree(next));
}

static DRIVER void of_any_heap(struct api *a)
{
	struct nolock_heap_stat hs;
	struct nolock_cache_stat cs;
	unsigned int layout;
	const char *name;
	size_t n;
	void *p, *q;
	int fd;

	GET(p, 100, nolock_heap_kmalloc(a->heap, 100, GFP_KERNEL));
	CALL(n = ksize(p));
	WRONG(bad, p && n < 100);
	resize(a, p, 100, 700);
	GET(p, 3000, nolock_heap_kmalloc(a->heap, 3000, GFP_NOWAIT));
	resize(a, p, 3000, 100);
	GET(p, 500, nolock_heap_kmalloc_nolock(a->heap, 500, __GFP_ZERO, NUMA_NO_NODE));
	CALL(kfree_nolock(p));
	GET(p, 30, nolock_heap_kzalloc(a->heap, 30, GFP_KERNEL_ACCOUNT));
	CALL(q = nolock_heap_krealloc(a->heap, p, 90, GFP_KERNEL_ACCOUNT | __GFP_ZERO));
	WRONG(failed, !q);
	p = q ? q : p;
	look(a, p);
	CALL(q = nolock_heap_krealloc_array(a->heap, p, 12, 20, GFP_ATOMIC));
	WRONG(failed, !q);
	p = q ? q : p;
	look(a, p);
	CALL(kfree(p));
	GET(p, 48, nolock_heap_kmalloc_node(a->heap, 48, GFP_KERNEL, 0));
	CALL(kfree(p));
	GET(p, 480, nolock_heap_kmalloc_array(a->heap, 4, 120, GFP_KERNEL));
	CALL(kfree(p));
	GET(p, 640, nolock_heap_kcalloc(a->heap, 40, 16, GFP_NOWAIT));
	CALL(kfree(p));
	CALL(p = nolock_heap_kmalloc_nolock(a->heap, 70000, 0, NUMA_NO_NODE));
	CALL(kfree_nolock(p)); /* a large one may not be there */
	for (unsigned int order = 0; order < 6; order += 4) {
		GET(p, 4096, nolock_heap_alloc_pages(a->heap, GFP_KERNEL, order));
		look(a, p);
		CALL(free_pages(p, order));
	}
	GET(p, 4096, nolock_heap_alloc_pages_nolock(a->heap, 0, NUMA_NO_NODE, 1));
	CALL(free_pages_nolock(p, 1));
	CALL(WRONG(failed, nolock_heap_kmem_cache_find(a->heap, "api") == NULL));
	CALL(WRONG(failed, nolock_heap_of(a->cache) != a->heap));
	CALL(WRONG(failed, nolock_heap_type(a->heap) != (enum nolock_heap_type)a->heap->type));
	CALL(name = nolock_heap_name(a->heap));
	WRONG(failed, !name);
	CALL(fd = nolock_heap_fd(a->heap));
	WRONG(failed, (fd < 0) != (a->heap->type == NL_HEAP_PRIVATE));
	CALL(layout = nolock_heap_layout(a->heap));
	WRONG(failed, layout != NL_VERSION);
	CALL(name = nolock_stat_name(NOLOCK_ALLOC_FASTPATH));
	WRONG(failed, !name);
	CALL(nolock_heap_set_root(a->heap, a));
	CALL(WRONG(failed, nolock_heap_root(a->heap) != a));
	if (!a->brief)
		CALL(WRONG(failed, nolock_heap_stat(a->heap, &hs) != 0));
	CALL(WRONG(failed,
		   nolock_heap_cache_stat(a->heap, ((struct nl_cache *)a->cache)->id, &cs) != 0));
	CALL(kmem_cache_shrink(a->cache));
	CALL(WRONG(failed, nolock_heap_populate(a->heap, 70 * (size_t)NL_CHUNK_SIZE) != 0));
	CALL(WRONG(failed, nolock_heap_populate(a->heap, 64 * (size_t)NL_CHUNK_SIZE) != 0));
	CALL(nolock_heap_trim(a->heap));
}

/* Calls that know no heap but the process's own. */
static DRIVER void of_this_process(struct api *a)
{
	volatile size_t some = 200;
	struct nolock_heap *h;
	struct kmem_cache *s;
	void *p, *q;

	CALL(h = nolock_heap_default());
	WRONG(failed, h != a->heap);
	GET(p, 64, kmalloc(64, GFP_KERNEL));
	CALL(kfree(p));
	GET(p, 64, kmalloc_nolock(64, 0, NUMA_NO_NODE));
	CALL(kfree_nolock(p));
	GET(p, some, kmalloc(some, GFP_KERNEL));
	CALL(kfree(p));
	GET(p, some, kmalloc_nolock(some, __GFP_ZERO, NUMA_NO_NODE));
	CALL(kfree_nolock(p));
	GET(p, some, kzalloc(some, GFP_ATOMIC));
	CALL(kfree(p));
	GET(p, some, kmalloc_node(some, GFP_KERNEL, 0));
	CALL(kfree(p));
	/* What kmalloc() of a constant size calls when this CPU's sheaf has nothing for it. */
	GET(p, 96, nolock_bucket_alloc(nolock_bucket(96)));
	CALL(kfree(p));
	GET(p, 96, nolock_bucket_alloc_nolock(nolock_bucket(96)));
	CALL(kfree_nolock(p));
	GET(p, some, kmalloc_array(some, 1, GFP_KERNEL));
	CALL(kfree(p));
	GET(p, some, kcalloc(10, some / 10, GFP_KERNEL));
	CALL(q = krealloc_array(p, 4, some, GFP_KERNEL));
	WRONG(failed, !q);
	p = q ? q : p;
	look(a, p);
	CALL(kfree(p));
	CALL(s = kmem_cache_create("api-third", 24, NULL, SLAB_PANIC));
	GET(p, 24, kmem_cache_alloc(s, GFP_KERNEL));
	CALL(kmem_cache_free(s, p));
	CALL(WRONG(failed, kmem_cache_destroy(s) != 0));
	GET(p, 4096, alloc_pages(GFP_KERNEL, 0));
	CALL(free_pages(p, 0));
	GET(p, 4096, alloc_pages_nolock(0, NUMA_NO_NODE, 0));
	CALL(free_pages_nolock(p, 0));
	CALL(h = nolock_heap_create(8 * MiB));
	WRONG(failed, !h);
	if (h) {
		CALL(p = nolock_heap_kmalloc(h, 40, GFP_KERNEL));
		WRONG(failed, !p);
		CALL(kfree(p));
		CALL(p = nolock_heap_kmalloc(h, 40, GFP_KERNEL));
		CALL(kfree_rcu(p)); /* goes with its heap */
		CALL(WRONG(failed, nolock_heap_close(h) != 0));
	}
	if (!a->brief) {
		CALL(h = nolock_heap_attach_pid((int)getpid()));
		WRONG(failed, !h);
		if (h)
			CALL(nolock_heap_close(h));
	}
	/* That there is a nolockd, test_storms and test_kill_random see to. */
	CALL(h = nolock_heap_open("."));
	WRONG(failed, h || errno != EINVAL);
}

DRIVER bool api_begin(struct api *a)
{
	struct kmem_cache_args args = { .sheaf_capacity = 8 };

	if (nolock_heap_populate(a->heap, 64 * (size_t)NL_CHUNK_SIZE) ||
	    nolock_heap_populate(nolock_heap_default(), 64 * (size_t)NL_CHUNK_SIZE))
		return false;
	a->cache = nolock_heap_kmem_cache_create(a->heap, "api", a->size, &args, 0);
	return a->cache != NULL;
}

DRIVER void api_work(struct api *a)
{
	int err;

	CALL(err = nolock_rcu_register(a->rcu_polls ? &rcu_by_poll : &rcu_by_call));
	WRONG(failed, err && err != -EBUSY);
	waves(a);
	many_at_once(a);
	later(a);
	of_other_caches(a);
	large(a);
	of_any_heap(a);
	if (a->heap == nolock_heap_default())
		of_this_process(a);
	a->call = NULL;
}

DRIVER bool api_end(struct api *a)
{
	int err;

	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++) {
		void *p = mailbox_swap(&a->box, i, NULL);

		look(a, p);
		kfree(p);
	}
	err = nolock_rcu_barrier();
	grace_period();
	return !err && kmem_cache_destroy(a->cache) == 0;
}

/* A few at once, and a sheaf of them. */
static DRIVER void handle_many(struct api *a, unsigned long seed)
{
	struct slab_sheaf *sheaf;
	void *obj[FEW];
	int n;

	if (seed % 2) {
		n = kmem_cache_alloc_bulk_nolock(a->cache, 0, FEW, obj);
		WRONG(failed, n != FEW);
		if (n == FEW)
			kmem_cache_free_bulk_nolock(a->cache, FEW, obj);
		return;
	}
	sheaf = kmem_cache_prefill_sheaf_nolock(a->cache, 0, seed % 32 ? FEW : 20);
	if (!sheaf) {
		WRONG(failed, true);
		return;
	}
	obj[0] = kmem_cache_alloc_from_sheaf(a->cache, 0, sheaf);
	got(a, obj[0], a->size);
	WRONG(failed, kmem_cache_sheaf_size(sheaf) < FEW - 1);
	if (seed % 64 == 0)
		WRONG(failed, kmem_cache_refill_sheaf(a->cache, GFP_ATOMIC, &sheaf, 22) != 0);
	kmem_cache_return_sheaf(a->cache, 0, sheaf);
	look(a, obj[0]);
	kmem_cache_free_nolock(a->cache, obj[0]);
}

/* Of the heap, of the process's own, and of the cache that the workload has just now. */
static DRIVER void handle_other(struct api *a, unsigned long seed)
{
	struct kmem_cache *s = a->also;
	volatile size_t some = 160;
	void *p;

	switch (seed % 6) {
	case 0:
		p = kmalloc_nolock(48, 0, NUMA_NO_NODE);
		break;
	case 1:
		p = kmalloc_nolock(some, __GFP_ZERO, NUMA_NO_NODE);
		break;
	case 2:
		p = alloc_pages_nolock(0, NUMA_NO_NODE, 0);
		got(a, p, 4096);
		free_pages_nolock(p, 0);
		return;
	case 3:
		p = nolock_heap_alloc_pages_nolock(a->heap, 0, NUMA_NO_NODE, 1);
		break;
	case 4:
		p = nolock_bucket_alloc_nolock(nolock_bucket(96));
		break;
	default:
		p = s ? kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE) :
			nolock_heap_kmalloc_nolock(a->heap, 40, 0, NUMA_NO_NODE);
		if (!p || ksize(p) < 24)
			WRONG(failed, true);
		if (s)
			kmem_cache_free_nolock(s, p);
		else
			kfree_nolock(p);
		return;
	}
	got(a, p, 40);
	look(a, p);
	kfree_nolock(p);
}

/* Free what the main flow allocated, or another handler. */
static DRIVER void handle_free(struct api *a, void *p, unsigned long seed)
{
	look(a, p);
	if (!p || seed % 8 || rcu.waiting >= MAX_WAITING) {
		kfree_nolock(p);
		return;
	}
	/* Not while the workload registers the RCU. */
	if (kfree_rcu_nolock(p) == -EOPNOTSUPP)
		kfree_nolock(p);
	else
		rcu.waiting++;
}

/*
 * As BPF programs leave a shared heap's A-slots (core/slot.h): free, and theirs until somebody on their
 * CPU takes them. From 0 to that is what a program of that CPU does at any time; not on a heap that has
 * a client without sequences.
 */
static DRIVER void leave_biased(struct api *a)
{
	nl_u32 id = ((struct nl_cache *)a->cache)->id;

	if (a->heap->type == NL_HEAP_PRIVATE || !a->heap->rseq_slots)
		return;
	for (nl_u32 cpu = 0; cpu < a->heap->nr_slots; cpu++)
		(void)nl_cas(&nl_aslot(a->heap->h, cpu, id)->lock, 0, NL_BIASED(cpu));
}

DRIVER void api_handler(struct api *a, unsigned long seed)
{
	void *p;

	leave_biased(a);
	switch (seed % 4) {
	case 0:
		p = nolock_heap_kmalloc_nolock(a->heap, a->size, 0, NUMA_NO_NODE);
		break;
	case 1:
		p = kmem_cache_alloc(a->cache, GFP_ATOMIC);
		break;
	default:
		p = kmem_cache_alloc_nolock(a->cache, 0, NUMA_NO_NODE);
	}
	got(a, p, a->size);
	handle_free(a, mailbox_swap(&a->box, (uint32_t)(seed / 2), p), seed);
	if (seed % 3 == 0) {
		handle_many(a, seed / 3);
	} else if (seed % 3 == 1) {
		handle_other(a, seed / 3);
	} else {
		p = kmem_cache_alloc_nolock(a->cache, 0, NUMA_NO_NODE);
		got(a, p, a->size);
		look(a, p);
		if (rcu.waiting >= MAX_WAITING || seed % 5)
			kfree_nolock(p);
		else if (kmem_cache_free_rcu_nolock(a->cache, p) == -EOPNOTSUPP)
			kfree_nolock(p);
		else
			rcu.waiting++;
	}
}
