/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* kmalloc.h - from a size to its bucket and back, and from a pointer to its cache. */
#ifndef NL_CORE_KMALLOC_H
#define NL_CORE_KMALLOC_H

#include "layout.h"

/* The kmalloc bucket of a size from 1 to NL_MAX_SIZE: 16 apart up to 128, then 4 a doubling. */
NL_INLINE nl_u32 nl_kmalloc_index(nl_u32 size)
{
	nl_u32 top, shift;

	if (size <= 128)
		return size ? (size - 1) / 16 : 0;
	top = 31u - (nl_u32)__builtin_clz(size - 1);
	shift = top - 2;
	return 8 + (top - 7) * 4 + (((size - 1) >> shift) & 3);
}

/* The cache of the bucket: accounted objects have their own, as kmalloc-cg-* of slab_common.c. */
NL_INLINE nl_u32 nl_kmalloc_cache(nl_u32 size, int accounted)
{
	return nl_kmalloc_index(size) + (accounted ? NL_NR_BUCKETS : 0);
}

NL_INLINE nl_u32 nl_kmalloc_size(nl_u32 index)
{
	nl_u32 top;

	if (index < 8)
		return (index + 1) * 16;
	top = 7 + (index - 8) / 4;
	return (1u << top) + (((index - 8) % 4 + 1) << (top - 2));
}

/* A pointer's cache, for a slab object: id, or -1. */
NL_INLINE int nl_cache_of(nl_heap_t *h, nl_u64 obj)
{
	nl_u64 chunk = (obj - h->base) >> NL_CHUNK_SHIFT;
	nl_u32 tag;

	if (!nl_chunk_ok(h, chunk))
		return -1;
	tag = nl_load(nl_tag(h, (nl_u32)chunk));
	return NL_TAG_KIND(tag) == NL_KIND_SLAB ? (int)NL_TAG_CACHE(tag) : -1;
}

#endif /* NL_CORE_KMALLOC_H */
