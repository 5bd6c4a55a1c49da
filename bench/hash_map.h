/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* hash_map.h - the kernel's hash maps in the benchmark's BPF programs: how one is made and used. */
#ifndef BENCH_HASH_MAP_H
#define BENCH_HASH_MAP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

#define HASH_MAP(name, entries, value_type, flags)                                                 \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__uint(map_flags, flags);                                                          \
		__uint(max_entries, entries);                                                      \
		__type(key, __u64);                                                                \
		__type(value, value_type);                                                         \
	} name SEC(".maps")

/* A record that comes, or goes. 0, or a negative errno. */
static __always_inline long hash_map_update(void *map, __u64 i)
{
	struct maps_value v = { .word[0] = i };
	__u64 key = MAPS_KEY(i);

	return bpf_map_update_elem(map, &key, &v, BPF_ANY);
}

static __always_inline long hash_map_delete(void *map, __u64 i)
{
	__u64 key = MAPS_KEY(i);

	return bpf_map_delete_elem(map, &key);
}

#endif /* BENCH_HASH_MAP_H */
