/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * page.h - whole pages: 4 KiB << order bytes, aligned to their size up to 64 KiB.
 *
 * Orders 0 to 3 come from the page-sized caches (sheaves, barns and slab bitmaps as for any
 * object); order 4 and more are runs of 64 KiB chunks. Pages may also be freed with kfree().
 */
#ifndef NOLOCK_PAGE_H
#define NOLOCK_PAGE_H

#include <nolock/slab.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NOLOCK_PAGE_SHIFT 12
#define NOLOCK_PAGE_SIZE (1UL << NOLOCK_PAGE_SHIFT)
/* Largest order of the page calls, as Linux's MAX_PAGE_ORDER: 4 MiB. */
#define NOLOCK_MAX_PAGE_ORDER 10

/*
 * alloc_pages - allocate 1 << order pages
 * @order: 0 to NOLOCK_MAX_PAGE_ORDER, others fail with EINVAL
 * Returns the address or NULL. Contexts and errors as kmalloc(). Source: alloc_pages().
 */
NOLOCK_API void *alloc_pages(gfp_t gfp, unsigned int order);

/* free_pages - free what alloc_pages() or alloc_pages_nolock() returned; NULL is ignored. */
NOLOCK_API void free_pages(void *pages, unsigned int order);

/*
 * alloc_pages_nolock - as alloc_pages(), from any context, wait-free
 * @node: a NUMA node or NUMA_NO_NODE. Flags as kmalloc_nolock(). Source: alloc_pages_nolock().
 */
NOLOCK_API void *alloc_pages_nolock(gfp_t gfp, int node, unsigned int order);

/* free_pages_nolock - as free_pages(), from any context, wait-free; cannot fail. */
NOLOCK_API void free_pages_nolock(void *pages, unsigned int order);

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_PAGE_H */
