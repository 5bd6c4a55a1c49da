// SPDX-License-Identifier: GPL-2.0-only
/*
 * api.c - see api.h. The same calls in each run, on a cache that is fresh each time.
 */
#define _GNU_SOURCE
#include <string.h>
#include "internal.h"
#include "api.h"

enum { MOST = 512, BULK = 40 };

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

static DRIVER void got(struct api *a, void *p, size_t size)
{
	if (p)
		stamp(p, (uint32_t)size, (uint32_t)a->calls);
	else
		a->failed++;
}

static DRIVER void look(struct api *a, void *p)
{
	if (p && !stamp_check(p))
		a->bad++;
}

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
		switch (i % 4) {
		case 0:
			CALL(kfree_nolock(p));
			break;
		case 1:
			CALL(kfree(p));
			break;
		case 2:
			CALL(kmem_cache_free_bulk(own ? a->cache : NULL, p ? 1 : 0, &p));
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
	a->failed += n != BULK;
	if (n == BULK)
		CALL(kmem_cache_free_bulk(a->cache, BULK, obj));
	/* One of the table, then an oversize one. */
	for (unsigned int size = cap; size <= 2 * cap; size += cap) {
		CALL(sheaf = kmem_cache_prefill_sheaf(a->cache, GFP_KERNEL, size));
		if (!sheaf) {
			a->failed++;
			return;
		}
		CALL(left = kmem_cache_sheaf_size(sheaf));
		a->bad += left < size;
		GET(p, a->size, kmem_cache_alloc_from_sheaf(a->cache, __GFP_ZERO, sheaf));
		look(a, p);
		CALL(kmem_cache_free(a->cache, p));
		CALL(n = kmem_cache_refill_sheaf(a->cache, GFP_KERNEL, &sheaf, size + 2));
		a->failed += n != 0;
		CALL(kmem_cache_return_sheaf(a->cache, GFP_KERNEL, sheaf));
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
		a->failed++;
		q = p;
	}
	if (to >= from)
		look(a, q);
	CALL(kfree(q));
}

static DRIVER void of_any_heap(struct api *a)
{
	struct nolock_heap_stat hs;
	struct nolock_cache_stat cs;
	struct kmem_cache *s = NULL;
	size_t n;
	void *p;

	GET(p, 100, nolock_heap_kmalloc(a->heap, 100, GFP_KERNEL));
	CALL(n = ksize(p));
	a->bad += p && n < 100;
	resize(a, p, 100, 700);
	GET(p, 3000, nolock_heap_kmalloc(a->heap, 3000, GFP_NOWAIT));
	resize(a, p, 3000, 100);
	GET(p, 500, nolock_heap_kmalloc_nolock(a->heap, 500, __GFP_ZERO, NUMA_NO_NODE));
	CALL(kfree_nolock(p));
	GET(p, 150000, nolock_heap_kmalloc(a->heap, 150000, GFP_KERNEL));
	look(a, p);
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
	CALL(s = nolock_heap_kmem_cache_create(a->heap, "api-second", 300, NULL,
					       SLAB_HWCACHE_ALIGN));
	a->failed += !s;
	if (s) {
		GET(p, 300, kmem_cache_alloc(s, GFP_KERNEL));
		CALL(n = kmem_cache_size(s));
		a->bad += n != 300;
		CALL(kmem_cache_free(s, p));
		CALL(n = (size_t)kmem_cache_destroy(s));
		/* A slot of a shared heap whose section is aborted each time keeps its sheaves. */
		if (n && a->heap != nolock_heap_default()) {
			n = (size_t)kmem_cache_destroy(s);
			a->late++;
		}
		a->failed += n != 0;
	}
	CALL(a->failed += nolock_heap_kmem_cache_find(a->heap, "api") == NULL);
	CALL(a->failed += nolock_heap_of(a->cache) != a->heap);
	CALL(nolock_heap_set_root(a->heap, a));
	CALL(a->failed += nolock_heap_root(a->heap) != a);
	CALL(a->failed += nolock_heap_stat(a->heap, &hs) != 0);
	CALL(a->failed += nolock_heap_cache_stat(a->heap, ((struct nl_cache *)a->cache)->id, &cs) !=
			  0);
	CALL(kmem_cache_shrink(a->cache));
	CALL(a->failed += nolock_heap_populate(a->heap, 70 * (size_t)NL_CHUNK_SIZE) != 0);
	CALL(a->failed += nolock_heap_populate(a->heap, 64 * (size_t)NL_CHUNK_SIZE) != 0);
	CALL(nolock_heap_trim(a->heap));
}

/* Calls that know no heap but the process's own. */
static DRIVER void of_this_process(struct api *a)
{
	struct nolock_heap *h;
	volatile size_t some = 200;
	void *p;

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
	GET(p, 4096, alloc_pages(GFP_KERNEL, 0));
	CALL(free_pages(p, 0));
	GET(p, 4096, alloc_pages_nolock(0, NUMA_NO_NODE, 0));
	CALL(free_pages_nolock(p, 0));
	CALL(h = nolock_heap_create(8 * MiB));
	a->failed += !h;
	if (h) {
		CALL(p = nolock_heap_kmalloc(h, 40, GFP_KERNEL));
		a->failed += !p;
		CALL(kfree(p));
		CALL(nolock_heap_close(h));
	}
}

DRIVER bool api_begin(struct api *a)
{
	struct kmem_cache_args args = { .sheaf_capacity = 8 };

	if (nolock_heap_populate(a->heap, 64 * (size_t)NL_CHUNK_SIZE))
		return false;
	a->cache = nolock_heap_kmem_cache_create(a->heap, "api", a->size, &args, 0);
	return a->cache != NULL;
}

DRIVER void api_work(struct api *a)
{
	waves(a);
	many_at_once(a);
	of_any_heap(a);
	if (a->heap == nolock_heap_default())
		of_this_process(a);
	a->call = NULL;
}

DRIVER bool api_end(struct api *a)
{
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++) {
		void *p = mailbox_swap(&a->box, i, NULL);

		look(a, p);
		kfree(p);
	}
	return kmem_cache_destroy(a->cache) == 0;
}

DRIVER void api_handler(struct api *a, unsigned long seed)
{
	void *p, *q;

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
	/* Free what the main flow allocated, or another handler. */
	p = mailbox_swap(&a->box, (uint32_t)(seed / 2), p);
	look(a, p);
	kfree_nolock(p);
	q = kmem_cache_alloc_nolock(a->cache, 0, NUMA_NO_NODE);
	got(a, q, a->size);
	look(a, q);
	kfree_nolock(q);
}
