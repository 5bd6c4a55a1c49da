// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_destroy.c - a cache of a shared heap is destroyed while nolockd keeps slabs ready for it, and
 * another one of its number is made: no slab is left to a cache that is gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"

/* As nolockd's keeper, but without a pause. */
static int stop;
static unsigned long passes;

static void *look_after(void *heap)
{
	while (!nl_load(&stop)) {
		nl_heap_prefill(heap, 4096);
		nl_add(&passes, 1);
	}
	return NULL;
}

Test(destroy, while_slabs_are_made)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, 64 * MiB);
	unsigned int busy = 0;
	pthread_t keeper;

	cr_assert_eq(pthread_create(&keeper, NULL, look_after, heap), 0);
	for (unsigned int i = 0; i < 1000; i++) {
		unsigned long since = nl_load(&passes);
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "short", 16u << i % 8,
								     NULL, SLAB_NO_MERGE);

		cr_assert(s);
		/* It is given slabs, unless one is there that its predecessor has left. */
		while (!nl_load(&((nl_cache_t *)s)->nr_slabs) && nl_load(&passes) < since + 2000)
			sched_yield();
		cr_assert_gt(nl_load(&((nl_cache_t *)s)->nr_slabs), 0, "turn %u", i);
		while (kmem_cache_destroy(s)) {
			busy++;
			sched_yield();
		}
	}
	nl_store(&stop, 1);
	pthread_join(keeper, NULL);
	report("  not destroyed at once: %u times", busy);
	for (nl_u32 id = NL_NR_KMALLOC; id < NL_MAX_CACHES; id++)
		cr_expect_eq(nl_load(&nl_cache(heap->h, id)->nr_slabs), 0, "cache %u", id);
	expect_whole(heap, NULL, "at last");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

/* A slab that is counted before the cache is looked at may be so while another cache is made of the number. */
Test(destroy, a_count_under_way_is_kept)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, 64 * MiB);
	struct kmem_cache *s =
		nolock_heap_kmem_cache_create(heap, "first", 64, NULL, SLAB_NO_MERGE);
	nl_cache_t *c = (nl_cache_t *)s;

	cr_assert_eq(kmem_cache_destroy(s), 0);
	nl_add(&c->nr_slabs, 1);
	s = nolock_heap_kmem_cache_create(heap, "second", 128, NULL, SLAB_NO_MERGE);
	cr_assert_eq(s, (struct kmem_cache *)c);
	nl_add(&c->nr_slabs, (nl_u32)-1);
	cr_expect_eq(nl_load(&c->nr_slabs), 0);
	expect_whole(heap, NULL, "after the count");
	cr_expect_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
}

/* A slab under way for good, as of one that gives slabs again and again: no word of objects in use. */
Test(destroy, while_a_slab_is_under_way, .init = cr_redirect_stderr)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, 64 * MiB);
	struct kmem_cache *s =
		nolock_heap_kmem_cache_create(heap, "given", 64, NULL, SLAB_NO_MERGE);
	nl_cache_t *c = (nl_cache_t *)s;

	nl_add(&c->nr_slabs, 1);
	cr_expect_eq(kmem_cache_destroy(s), -EBUSY);
	nl_add(&c->nr_slabs, (nl_u32)-1);
	cr_expect_eq(kmem_cache_destroy(s), 0);
	fflush(stderr);
	cr_expect_stderr_eq_str(
		"nolock: cache 'given' is not destroyed: no object is in use, but its "
		"slabs come and go; try again\n");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

/* A slab that somebody is just adding or giving back has none in use, whatever its bits are. */
Test(destroy, slabs_in_hands_do_not_count)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, 64 * MiB);
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "held", 64, NULL, SLAB_NO_MERGE);
	nl_cache_t *c = (nl_cache_t *)s;
	void *p = kmem_cache_alloc(s, GFP_KERNEL);
	nl_slab_t *slab = nl_slab(heap->h, (nl_u32)(((nl_u64)p - heap->h->base) >> NL_CHUNK_SHIFT));

	cr_assert_gt(nl_objects_left(heap->h, c), 0);
	nl_store(&slab->lock, NL_HELD(nl_who(heap)));
	cr_expect_eq(nl_objects_left(heap->h, c), 0);
	nl_store(&slab->lock, 0);
	kmem_cache_free(s, p);
	cr_expect_eq(kmem_cache_destroy(s), 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
}
