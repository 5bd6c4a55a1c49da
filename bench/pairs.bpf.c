// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * pairs.bpf.c - loops of the same shape: nothing, kmalloc_nolock() and kfree_nolock(), bpf_obj_new()
 * and bpf_obj_drop(), update and delete of a hash map, preallocated and not; of 64 bytes each.
 *
 * The programs are of one type and run in one context, and each object is written to once.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "nolock.bpf.h"
#include "examples/both.h"
#include "hash_map.h"

struct node {
	__u64 word[8];
};

/* kfuncs of the kernel's helpers.c; the meta argument is the verifier's. */
extern void *bpf_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *p, void *meta) __ksym;

HASH_MAP(few, 2 * MAPS_BATCH, struct maps_value, 0);
HASH_MAP(few_lazy, 2 * MAPS_BATCH, struct maps_value, BPF_F_NO_PREALLOC);

__u64 turns, failed, done;

SEC("tc")
int empty(struct __sk_buff *skb)
{
	__u64 i, n = turns;

	for (i = unknown_zero; i < n && may_go_on; i++)
		__asm__ volatile("" : "+r"(i));
	done = i;
	return TC_ACT_OK;
}

SEC("tc")
int nolock(struct __sk_buff *skb)
{
	__u64 i, n = turns;

	for (i = unknown_zero; i < n && may_go_on; i++) {
		__u64 __arena *p = kmalloc_nolock(sizeof(struct node), 0, NUMA_NO_NODE);

		if (!p) {
			failed++;
			continue;
		}
		*(volatile __u64 __arena *)p = i;
		kfree_nolock(p);
	}
	done = i;
	return TC_ACT_OK;
}

SEC("tc")
int obj(struct __sk_buff *skb)
{
	__u64 i, n = turns;

	for (i = unknown_zero; i < n && may_go_on; i++) {
		struct node *p = bpf_obj_new_impl(bpf_core_type_id_local(struct node), NULL);

		if (!p) {
			failed++;
			continue;
		}
		*(volatile __u64 *)&p->word[0] = i;
		bpf_obj_drop_impl(p, NULL);
	}
	done = i;
	return TC_ACT_OK;
}

#define MAP_PROGRAM(name, map)                                                                     \
	SEC("tc") int name(struct __sk_buff *skb)                                                  \
	{                                                                                          \
		__u64 i, n = turns;                                                                \
                                                                                                   \
		for (i = unknown_zero; i < n && may_go_on; i++) {                                  \
			failed += hash_map_update(&(map), i) != 0;                                 \
			failed += hash_map_delete(&(map), i) != 0;                                 \
		}                                                                                  \
		done = i;                                                                          \
		return TC_ACT_OK;                                                                  \
	}

MAP_PROGRAM(hash, few)
MAP_PROGRAM(hash_lazy, few_lazy)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
