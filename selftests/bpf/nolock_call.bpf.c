// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_call.bpf.c - single calls of the allocator on request, and many of them in a row.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "core/place.h"
#include "nolock_call.h"

SEC("syscall") int call(struct nolock_call *c)
{
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
		ret = (__u64)kmem_cache_alloc_nolock((struct kmem_cache __arena *)arg, c->flags,
						     c->node);
		break;
	case CALL_CACHE_FREE:
		kmem_cache_free_nolock((struct kmem_cache __arena *)arg, (void __arena *)c->obj);
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
