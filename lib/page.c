/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * page.c - pages: the caches of 4 to 32 KiB, which are aligned to their size, and chunk runs.
 *
 * The sheaves of those caches are page sheaves: per CPU, over a barn, with a trylock. A run of
 * chunks is aligned to 64 KiB.
 */
#include <errno.h>
#include <nolock/page.h>
#include "internal.h"

static size_t order_size(unsigned int order)
{
	if (order > NOLOCK_MAX_PAGE_ORDER) {
		errno = EINVAL;
		return 0;
	}
	return NOLOCK_PAGE_SIZE << order;
}

void *nolock_heap_alloc_pages(struct nolock_heap *heap, gfp_t gfp, unsigned int order)
{
	size_t size = order_size(order);

	return size ? nolock_heap_kmalloc(heap, size, gfp) : NULL;
}

void *nolock_heap_alloc_pages_nolock(struct nolock_heap *heap, gfp_t gfp, int node,
				     unsigned int order)
{
	size_t size = order_size(order);

	return size ? nolock_heap_kmalloc_nolock(heap, size, gfp, node) : NULL;
}

void *alloc_pages(gfp_t gfp, unsigned int order)
{
	return nolock_heap_alloc_pages(nl_default, gfp, order);
}

void *alloc_pages_nolock(gfp_t gfp, int node, unsigned int order)
{
	return nolock_heap_alloc_pages_nolock(nl_default, gfp, node, order);
}

void free_pages(void *pages, unsigned int order)
{
	(void)order; /* the object knows */
	kfree(pages);
}

void free_pages_nolock(void *pages, unsigned int order)
{
	(void)order;
	kfree_nolock(pages);
}
