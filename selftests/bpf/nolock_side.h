/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* nolock_side.h - the workers of nolock_work.h on the BPF side. After nolock.bpf.h. */
#ifndef NOLOCK_SIDE_H
#define NOLOCK_SIDE_H

/* Who looks more closely at what becomes of them has defined these two before. */
#ifndef work_free
#define work_free(obj) kfree_nolock((void __arena *)(obj))
#define work_alloc(w, size) bpf_work_alloc((w)->cache, (size))
#endif

#define work_alloc_bulk(cache, nr, p)                                                              \
	kmem_cache_alloc_bulk_nolock((struct kmem_cache __arena *)(cache), 0, (nr),                \
				     (void __arena *__arena *)(p))
#define work_free_bulk(cache, nr, p)                                                               \
	kmem_cache_free_bulk_nolock((struct kmem_cache __arena *)(cache), (nr),                    \
				    (void __arena *__arena *)(p))
#define work_prefill(cache, nr)                                                                    \
	((unsigned long long)kmem_cache_prefill_sheaf_nolock((struct kmem_cache __arena *)(cache), \
							     0, (nr)))
#define work_from_sheaf(cache, sheaf)                                                              \
	((unsigned long long)kmem_cache_alloc_from_sheaf((struct kmem_cache __arena *)(cache), 0,  \
							 (struct slab_sheaf __arena *)(sheaf)))
#define work_return(cache, sheaf)                                                                  \
	kmem_cache_return_sheaf((struct kmem_cache __arena *)(cache), 0,                           \
				(struct slab_sheaf __arena *)(sheaf))

static __always_inline unsigned long long bpf_work_alloc(unsigned long long cache, __u32 size)
{
	if (cache)
		return (unsigned long long)kmem_cache_alloc_nolock(
			(struct kmem_cache __arena *)cache, 0, NUMA_NO_NODE);
	return (unsigned long long)kmalloc_nolock(size, 0, NUMA_NO_NODE);
}

#include "core/layout.h"
#include "nolock_work.h"

#endif /* NOLOCK_SIDE_H */
