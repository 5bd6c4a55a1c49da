// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_call.bpf.c - single calls of the allocator on request, and many of them in a row.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "core/place.h"
#include "nolock_call.h"

/* Sizes that the compiler knows, each on its own. */
#define CONST_ALLOC(size)                                                                          \
	case size:                                                                                 \
		return (__u64)kmalloc_nolock(size, 0, NUMA_NO_NODE);
#define CONST_ZALLOC(size)                                                                         \
	case size:                                                                                 \
		return (__u64)kzalloc_nolock(size, 0, NUMA_NO_NODE);

static __noinline __u64 const_alloc(__u64 size)
{
	switch (size) {
		CALL_CONST_SIZES(CONST_ALLOC)
	}
	return 0;
}

static __noinline __u64 const_zalloc(__u64 size)
{
	switch (size) {
		CALL_CONST_SIZES(CONST_ZALLOC)
	}
	return 0;
}

SEC("syscall") int call(struct nolock_call *c)
{
	struct kmem_cache __arena *cache = (struct kmem_cache __arena *)c->arg;
	struct slab_sheaf __arena *sheaf = (struct slab_sheaf __arena *)c->obj;
	void __arena *__arena *array = (void __arena *__arena *)c->obj;
	void __arena *arg = (void __arena *)c->arg;
	__u64 ret = 0;

	switch (c->op) {
	case CALL_ALLOC:
		ret = (__u64)kmalloc_nolock(c->arg, c->flags, c->node);
		break;
	case CALL_ZALLOC:
		ret = (__u64)kzalloc_nolock(c->arg, c->flags, c->node);
		break;
	case CALL_FREE:
		kfree_nolock(arg);
		break;
	case CALL_CACHE_ALLOC:
		/* Constant flags and others: in line, and not. */
		ret = c->flags ? (__u64)kmem_cache_alloc_nolock(cache, c->flags, c->node) :
				 (__u64)kmem_cache_alloc_nolock(cache, 0, c->node);
		break;
	case CALL_CACHE_ZALLOC:
		ret = (__u64)kmem_cache_zalloc_nolock(cache, c->flags, c->node);
		break;
	case CALL_CACHE_FREE:
		kmem_cache_free_nolock(cache, (void __arena *)c->obj);
		break;
	case CALL_ALLOC_BULK:
		ret = kmem_cache_alloc_bulk_nolock(cache, c->flags, c->nr, array);
		break;
	case CALL_FREE_BULK:
		kmem_cache_free_bulk_nolock(cache, c->nr, array);
		break;
	case CALL_PREFILL:
		ret = (__u64)kmem_cache_prefill_sheaf_nolock(cache, c->flags, c->nr);
		break;
	case CALL_FROM_SHEAF:
		ret = (__u64)kmem_cache_alloc_from_sheaf(cache, c->flags, sheaf);
		break;
	case CALL_RETURN:
		kmem_cache_return_sheaf(cache, 0, sheaf);
		break;
	case CALL_SHEAF_SIZE:
		ret = kmem_cache_sheaf_size(sheaf);
		break;
	case CALL_ROOT:
		ret = (__u64)nolock_heap_root();
		break;
	case CALL_CONST_ALLOC:
		ret = const_alloc(c->arg);
		break;
	case CALL_CONST_ZALLOC:
		ret = const_zalloc(c->arg);
		break;
	}
	c->ret = ret;
	return 0;
}

__u64 got[CALL_GOT];
__u32 nr_got;

/* Allocate until NULL, or c->obj objects. */
SEC("syscall") int fill(struct nolock_call *c)
{
	__u32 n = nr_got, room = c->obj;

	nl_for(i, room) {
		__u64 obj = (__u64)kmalloc_nolock(c->arg, 0, NUMA_NO_NODE);

		if (!obj)
			break;
		got[n & (CALL_GOT - 1)] = obj;
		n++;
	}
	nr_got = n;
	return 0;
}

SEC("syscall") int empty(struct nolock_call *c)
{
	__u32 n = nr_got, room = c->obj;

	nl_for(i, room) {
		if (!n)
			break;
		n--;
		kfree_nolock((void __arena *)got[n & (CALL_GOT - 1)]);
	}
	nr_got = n;
	return 0;
}

/* The verifier's bill for a program of ordinary length: see the budget in test_nolock_types.c. */
SEC("syscall") int budget(struct nolock_call *c)
{
	void __arena *o0 = kmalloc_nolock(c->arg, 0, NUMA_NO_NODE);
	void __arena *o1 = kzalloc_nolock(c->arg + 16, 0, NUMA_NO_NODE);
	void __arena *o2 = kmalloc_nolock(c->arg + 32, 0, NUMA_NO_NODE);
	void __arena *o3 = kzalloc_nolock(c->arg + 48, 0, NUMA_NO_NODE);
	void __arena *o4 = kmalloc_nolock(c->arg + 64, 0, NUMA_NO_NODE);
	void __arena *o5 = kzalloc_nolock(c->arg + 80, 0, NUMA_NO_NODE);
	void __arena *o6 = kmalloc_nolock(c->arg + 96, 0, NUMA_NO_NODE);
	void __arena *o7 = kmalloc_nolock(c->arg + 112, 0, NUMA_NO_NODE);

	c->ret = o0 && o1 && o2 && o3 && o4 && o5 && o6 && o7;
	kfree_nolock(o7);
	kfree_nolock(o6);
	kfree_nolock(o5);
	kfree_nolock(o4);
	kfree_nolock(o3);
	kfree_nolock(o2);
	kfree_nolock(o1);
	kfree_nolock(o0);
	return 0;
}

/* One program for each further entry, called twice; all of a constant size in line. */
SEC("syscall") int budget_const(struct nolock_call *c)
{
	void __arena *o0 = kmalloc_nolock(64, 0, NUMA_NO_NODE);
	void __arena *o1 = kzalloc_nolock(128, 0, NUMA_NO_NODE);
	void __arena *o2 = kmalloc_nolock(256, 0, NUMA_NO_NODE);
	void __arena *o3 = kzalloc_nolock(512, 0, NUMA_NO_NODE);
	void __arena *o4 = kmalloc_nolock(16, 0, NUMA_NO_NODE);
	void __arena *o5 = kzalloc_nolock(32, 0, NUMA_NO_NODE);
	void __arena *o6 = kmalloc_nolock(1024, 0, NUMA_NO_NODE);
	void __arena *o7 = kmalloc_nolock(2048, 0, NUMA_NO_NODE);

	c->ret = o0 && o1 && o2 && o3 && o4 && o5 && o6 && o7;
	kfree_nolock(o7);
	kfree_nolock(o6);
	kfree_nolock(o5);
	kfree_nolock(o4);
	kfree_nolock(o3);
	kfree_nolock(o2);
	kfree_nolock(o1);
	kfree_nolock(o0);
	return 0;
}

SEC("syscall") int budget_cache(struct nolock_call *c)
{
	struct kmem_cache __arena *cache = (struct kmem_cache __arena *)c->arg;
	void __arena *o0 = kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE);
	void __arena *o1 = kmem_cache_zalloc_nolock(cache, 0, NUMA_NO_NODE);

	c->ret = o0 && o1;
	kmem_cache_free_nolock(cache, o0);
	kmem_cache_free_nolock(cache, o1);
	return 0;
}

SEC("syscall") int budget_bulk(struct nolock_call *c)
{
	struct kmem_cache __arena *cache = (struct kmem_cache __arena *)c->arg;
	void __arena *__arena *p = (void __arena *__arena *)c->obj;
	int ok = 0;

	if (kmem_cache_alloc_bulk_nolock(cache, 0, 100, p)) {
		kmem_cache_free_bulk_nolock(cache, 100, p);
		ok = 1;
	}
	if (kmem_cache_alloc_bulk_nolock(cache, __GFP_ZERO, 10, p))
		kmem_cache_free_bulk_nolock(cache, 10, p);
	else
		ok = 0;
	c->ret = ok;
	return 0;
}

SEC("syscall") int budget_sheaf(struct nolock_call *c)
{
	struct kmem_cache __arena *cache = (struct kmem_cache __arena *)c->arg;
	struct slab_sheaf __arena *s0 = kmem_cache_prefill_sheaf_nolock(cache, 0, 10);
	struct slab_sheaf __arena *s1 = kmem_cache_prefill_sheaf_nolock(cache, 0, 1000);
	void __arena *o0 = kmem_cache_alloc_from_sheaf(cache, 0, s0);
	void __arena *o1 = kmem_cache_alloc_from_sheaf(cache, __GFP_ZERO, s1);

	c->ret = o0 && o1 && kmem_cache_sheaf_size(s0) >= 9 && kmem_cache_sheaf_size(s1) == 999;
	kmem_cache_return_sheaf(cache, 0, s0);
	kmem_cache_return_sheaf(cache, 0, s1);
	kfree_nolock(o0);
	kfree_nolock(o1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
