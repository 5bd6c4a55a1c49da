// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/* kmalloc.c - what the kmalloc family has beside kmalloc(): arrays, zeroed ones, other heaps. */
#include <errno.h>
#include "internal.h"

/* n * size, or SIZE_MAX, which no heap can hold: the allocation fails with ENOMEM. */
static size_t array_size(size_t n, size_t size)
{
	size_t bytes;

	return __builtin_mul_overflow(n, size, &bytes) ? SIZE_MAX : bytes;
}

void *nolock_heap_kzalloc(struct nolock_heap *heap, size_t size, gfp_t gfp)
{
	return nolock_heap_kmalloc(heap, size, gfp | __GFP_ZERO);
}

void *nolock_heap_kmalloc_array(struct nolock_heap *heap, size_t n, size_t size, gfp_t gfp)
{
	return nolock_heap_kmalloc(heap, array_size(n, size), gfp);
}

void *nolock_heap_kcalloc(struct nolock_heap *heap, size_t n, size_t size, gfp_t gfp)
{
	return nolock_heap_kmalloc(heap, array_size(n, size), gfp | __GFP_ZERO);
}

void *nolock_heap_krealloc(struct nolock_heap *heap, const void *p, size_t new_size, gfp_t gfp)
{
	if (!heap) {
		errno = EINVAL;
		return NULL;
	}
	if (new_size && ZERO_OR_NULL_PTR(p))
		return nolock_heap_kmalloc(heap, new_size, gfp);
	return krealloc(p, new_size, gfp);
}

void *nolock_heap_krealloc_array(struct nolock_heap *heap, void *p, size_t n, size_t size,
				 gfp_t gfp)
{
	return nolock_heap_krealloc(heap, p, array_size(n, size), gfp);
}

void *kmalloc_array(size_t n, size_t size, gfp_t gfp)
{
	return nolock_heap_kmalloc_array(nl_default, n, size, gfp);
}

void *kcalloc(size_t n, size_t size, gfp_t gfp)
{
	return nolock_heap_kcalloc(nl_default, n, size, gfp);
}

void *krealloc_array(void *p, size_t n, size_t size, gfp_t gfp)
{
	return krealloc(p, array_size(n, size), gfp);
}
