// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * maps.bpf.c - loops of the same shape on objects of a heap and on the kernel's hash maps: batches
 * of records that come and go, and a table of a million that stay.
 *
 * The table in the heap is that of bpf/examples/hash.h. Each loop does the turns that are asked
 * for, from a given number on, and says how many it did.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "examples/hash.h"
#include "hash_map.h"
#include "maps.h"

HASH_MAP(few, 2 * MAPS_BATCH, struct maps_value, 0);
HASH_MAP(few_lazy, 2 * MAPS_BATCH, struct maps_value, BPF_F_NO_PREALLOC);
HASH_MAP(many, MAPS_RECORDS, __u64, 0);
HASH_MAP(many_lazy, MAPS_RECORDS, __u64, BPF_F_NO_PREALLOC);

/* turns: batches, or records; batch: records of one; from, first: the first record's number. */
__u64 turns, batch, from, first;
__u64 done, failed, sum;
/* In the heap: pointers of a batch, the cache of its objects. The table is at its root. */
__u64 array, cache;

/* A program that does one step for each turn. */
#define PROGRAM(name)                                                                              \
	SEC("tc") int name(struct __sk_buff *skb)                                                  \
	{                                                                                          \
		__u64 n = turns, at;                                                               \
                                                                                                   \
		for (at = unknown_zero; at < n && may_go_on; at++)                                 \
			name##_step(at);                                                           \
		done = at;                                                                         \
		return TC_ACT_OK;                                                                  \
	}

#define STEP static __always_inline void
#define EACH(i, nr) for (__u64 i = unknown_zero; i < (nr) && may_go_on; i++)

STEP empty_step(__u64 at)
{
	__u64 nr = batch;

	EACH(i, nr)
		__asm__ volatile("" : "+r"(i));
}

STEP heap_fill_step(__u64 at)
{
	__u64 __arena *p = (__u64 __arena *)array;
	__u64 nr = batch;

	EACH(i, nr) {
		struct maps_value __arena *v = kmalloc_nolock(sizeof(*v), 0, NUMA_NO_NODE);

		if (v)
			*(volatile __u64 __arena *)&v->word[0] = i;
		else
			failed++;
		p[i] = (__u64)v;
	}
}

STEP heap_drain_step(__u64 at)
{
	__u64 __arena *p = (__u64 __arena *)array;
	__u64 nr = batch;

	EACH(k, nr)
		kfree_nolock((void __arena *)p[k]);
}

STEP batch_heap_step(__u64 at)
{
	heap_fill_step(at);
	heap_drain_step(at);
}

STEP batch_bulk_step(__u64 at)
{
	struct kmem_cache __arena *c = (struct kmem_cache __arena *)cache;
	void __arena *__arena *p = (void __arena *__arena *)array;
	__u64 nr = batch;

	if (!kmem_cache_alloc_bulk_nolock(c, 0, nr, p)) {
		failed++;
		return;
	}
	EACH(i, nr) {
		struct maps_value __arena *v = p[i];

		*(volatile __u64 __arena *)&v->word[0] = i;
	}
	kmem_cache_free_bulk_nolock(c, nr, p);
}

STEP fill_map(void *map)
{
	__u64 nr = batch;

	EACH(i, nr)
		failed += hash_map_update(map, first + i) != 0;
}

STEP drain_map(void *map)
{
	__u64 nr = batch;

	EACH(i, nr)
		failed += hash_map_delete(map, first + i) != 0;
}

STEP batch_of_map(void *map)
{
	fill_map(map);
	drain_map(map);
}

#define batch_map_step(at) batch_of_map(&few)
#define batch_lazy_step(at) batch_of_map(&few_lazy)
#define map_fill_step(at) fill_map(&few)
#define map_drain_step(at) drain_map(&few)
#define lazy_fill_step(at) fill_map(&few_lazy)
#define lazy_drain_step(at) drain_map(&few_lazy)

PROGRAM(empty)
PROGRAM(batch_heap)
PROGRAM(batch_bulk)
PROGRAM(batch_map)
PROGRAM(batch_lazy)
PROGRAM(heap_fill)
PROGRAM(heap_drain)
PROGRAM(map_fill)
PROGRAM(map_drain)
PROGRAM(lazy_fill)
PROGRAM(lazy_drain)

STEP table_insert_step(__u64 at)
{
	__u64 i = from + at;

	if (hash_add((hash_t *)nolock_heap_root(), MAPS_KEY(i), i + 1))
		failed++;
}

STEP table_lookup_step(__u64 at)
{
	__u64 value;

	if (hash_get((hash_t *)nolock_heap_root(), MAPS_KEY(from + at), &value))
		failed++;
	else
		sum += value;
}

STEP table_delete_step(__u64 at)
{
	if (hash_del((hash_t *)nolock_heap_root(), MAPS_KEY(from + at)))
		failed++;
}

STEP map_insert_one(void *map, __u64 i)
{
	__u64 key = MAPS_KEY(i), value = i + 1;

	if (bpf_map_update_elem(map, &key, &value, BPF_ANY))
		failed++;
}

STEP map_lookup_one(void *map, __u64 i)
{
	__u64 key = MAPS_KEY(i), *value = bpf_map_lookup_elem(map, &key);

	if (value)
		sum += *value;
	else
		failed++;
}

PROGRAM(table_insert)
PROGRAM(table_lookup)
PROGRAM(table_delete)

#define map_insert_step(at) map_insert_one(&many, from + (at))
#define map_lookup_step(at) map_lookup_one(&many, from + (at))
#define map_delete_step(at) (failed += hash_map_delete(&many, from + (at)) != 0)
PROGRAM(map_insert)
PROGRAM(map_lookup)
PROGRAM(map_delete)

#define lazy_insert_step(at) map_insert_one(&many_lazy, from + (at))
#define lazy_lookup_step(at) map_lookup_one(&many_lazy, from + (at))
#define lazy_delete_step(at) (failed += hash_map_delete(&many_lazy, from + (at)) != 0)
PROGRAM(lazy_insert)
PROGRAM(lazy_lookup)
PROGRAM(lazy_delete)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
