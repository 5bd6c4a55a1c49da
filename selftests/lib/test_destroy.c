// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_destroy.c - a cache of a shared heap is destroyed while nolockd keeps slabs ready for it, and
 * another one of its number is made: no slab is left to a cache that is gone.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <criterion/criterion.h>
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
