// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * scribble.bpf.c - a program that uses a heap whatever is written into it: every entry of the
 * allocator, objects of its own, and addresses that are nobody's.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "core/layout.h"
#include "scribble.h"

#define HELD 64
#define BULK 8

__u64 held[HELD];
__u32 got, failed;

/* Global: verified once, whatever it is called with. */
NL_FUNC int turn(__u32 r)
{
	struct kmem_cache __arena *cache;
	void __arena *__arena *array;
	struct slab_sheaf __arena *sheaf;
	__u64 obj;

	/* One of the first 64 caches, wherever the header says they are. */
	cache = (struct kmem_cache __arena *)nl_cache((nl_heap_t *)(__u64)nl_zero(), r & 63);
	switch (r >> 8 & 7) {
	case 0:
		obj = (__u64)kzalloc_nolock(16 + (r >> 16 & 4095), 0, NUMA_NO_NODE);
		break;
	case 1:
		obj = (__u64)kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE);
		break;
	case 2:
		array = kmalloc_nolock(BULK * 8, 0, NUMA_NO_NODE);
		obj = (__u64)array;
		if (array && kmem_cache_alloc_bulk_nolock(cache, 0, BULK, array))
			kmem_cache_free_bulk_nolock(cache, BULK, array);
		break;
	case 3:
		sheaf = kmem_cache_prefill_sheaf_nolock(cache, 0, 1 + (r >> 16 & 31));
		obj = (__u64)kmem_cache_alloc_from_sheaf(cache, 0, sheaf);
		kmem_cache_return_sheaf(cache, 0, sheaf);
		break;
	case 4:
		/* Not ours, or not an object at all. */
		kfree_nolock((void __arena *)(__u64)(r * 0x9e3779b1U));
		got++;
		return 0;
	default:
		obj = (__u64)kmalloc_nolock(16 + (r >> 16 & 511), 0, NUMA_NO_NODE);
	}
	if (obj)
		got++;
	else
		failed++;
	kfree_nolock((void __arena *)held[r >> 11 & (HELD - 1)]);
	held[r >> 11 & (HELD - 1)] = obj;
	return 0;
}

SEC("syscall") int storm(struct scribble *s)
{
	__u32 turns = s->turns, r = s->rng;

	nl_for(i, turns) {
		r ^= r << 13;
		r ^= r >> 17;
		r ^= r << 5;
		turn(s->sound && (r >> 8 & 7) == 4 ? r ^ 1 << 8 : r);
	}
	s->rng = r;
	s->got = got;
	s->failed = failed;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
