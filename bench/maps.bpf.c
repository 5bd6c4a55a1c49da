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
#include "maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * MAPS_BATCH);
	__type(key, __u64);
	__type(value, struct maps_value);
} few SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * MAPS_BATCH);
	__type(key, __u64);
	__type(value, struct maps_value);
} few_lazy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAPS_RECORDS);
	__type(key, __u64);
	__type(value, __u64);
} many SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAPS_RECORDS);
	__type(key, __u64);
	__type(value, __u64);
} many_lazy SEC(".maps");

/* turns: batches, or records; batch: records of one; from: the first record's number. */
__u64 turns, batch, from;
__u64 done, failed, sum;
/* In the heap: pointers of a batch, the cache of its objects, the table. */
__u64 array, cache, table;

#define LOOP(body)                                                                                 \
	__u64 n = turns, nr = batch, first = from, at = unknown_zero;                              \
                                                                                                   \
	(void)nr;                                                                                  \
	for (; at < n && may_go_on; at++) {                                                        \
		body                                                                               \
	}                                                                                          \
	done = at;                                                                                 \
	(void)first;                                                                               \
	return TC_ACT_OK;

#define EACH(i) for (__u64 i = unknown_zero; i < nr && may_go_on; i++)

SEC("tc") int empty(struct __sk_buff *skb)
{
	LOOP(EACH(i) { __asm__ volatile("" : "+r"(i)); })
}

SEC("tc") int batch_heap(struct __sk_buff *skb)
{
	__u64 __arena *p = (__u64 __arena *)array;

	LOOP(
		EACH(i) {
			struct maps_value __arena *v =
				kmalloc_nolock(sizeof(*v), 0, NUMA_NO_NODE);

			if (v)
				*(volatile __u64 __arena *)&v->word[0] = i;
			else
				failed++;
			p[i] = (__u64)v;
		}
		EACH(k) {
			kfree_nolock((void __arena *)p[k]);
		})
}

SEC("tc") int batch_bulk(struct __sk_buff *skb)
{
	struct kmem_cache __arena *c = (struct kmem_cache __arena *)cache;
	void __arena *__arena *p = (void __arena *__arena *)array;

	LOOP(
		if (kmem_cache_alloc_bulk_nolock(c, 0, nr, p)) {
			EACH(i) {
				struct maps_value __arena *v = p[i];

				*(volatile __u64 __arena *)&v->word[0] = i;
			}
			kmem_cache_free_bulk_nolock(c, nr, p);
		} else {
			failed++;
		})
}

#define BATCH_MAP(name, map)                                                                       \
	SEC("tc") int name(struct __sk_buff *skb)                                                  \
	{                                                                                          \
		struct maps_value v = {};                                                          \
                                                                                                   \
		LOOP(                                                                              \
			EACH(i) {                                                                  \
				__u64 key = MAPS_KEY(i);                                           \
                                                                                                   \
				v.word[0] = i;                                                     \
				if (bpf_map_update_elem(&map, &key, &v, BPF_ANY))                  \
					failed++;                                                  \
			}                                                                          \
			EACH(k) {                                                                  \
				__u64 key = MAPS_KEY(k);                                           \
                                                                                                   \
				if (bpf_map_delete_elem(&map, &key))                               \
					failed++;                                                  \
			})                                                                         \
	}

BATCH_MAP(batch_map, few)
BATCH_MAP(batch_lazy, few_lazy)

SEC("tc") int table_insert(struct __sk_buff *skb)
{
	hash_t *t = (hash_t *)table;

	LOOP(
		if (hash_add(t, MAPS_KEY(first + at), first + at + 1))
			failed++;
	)
}

SEC("tc") int table_lookup(struct __sk_buff *skb)
{
	hash_t *t = (hash_t *)table;
	__u64 value = 0;

	LOOP(
		if (hash_get(t, MAPS_KEY(first + at), &value))
			failed++;
		else
			sum += value;
	)
}

SEC("tc") int table_delete(struct __sk_buff *skb)
{
	hash_t *t = (hash_t *)table;

	LOOP(
		if (hash_del(t, MAPS_KEY(first + at)))
			failed++;
	)
}

#define TABLE_MAP(name, map)                                                                       \
	SEC("tc") int name##_insert(struct __sk_buff *skb)                                         \
	{                                                                                          \
		LOOP(                                                                              \
			__u64 key = MAPS_KEY(first + at), value = first + at + 1;                  \
			if (bpf_map_update_elem(&map, &key, &value, BPF_ANY))                      \
				failed++;                                                          \
		)                                                                                  \
	}                                                                                          \
	SEC("tc") int name##_lookup(struct __sk_buff *skb)                                         \
	{                                                                                          \
		LOOP(                                                                              \
			__u64 key = MAPS_KEY(first + at);                                          \
			__u64 *value = bpf_map_lookup_elem(&map, &key);                            \
			if (value)                                                                 \
				sum += *value;                                                     \
			else                                                                       \
				failed++;                                                          \
		)                                                                                  \
	}                                                                                          \
	SEC("tc") int name##_delete(struct __sk_buff *skb)                                         \
	{                                                                                          \
		LOOP(                                                                              \
			__u64 key = MAPS_KEY(first + at);                                          \
			if (bpf_map_delete_elem(&map, &key))                                       \
				failed++;                                                          \
		)                                                                                  \
	}

TABLE_MAP(map, many)
TABLE_MAP(lazy, many_lazy)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
