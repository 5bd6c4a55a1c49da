// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * nolock_grow.bpf.c - growing a heap from a BPF program: becomes libnolock-grow.bpf.o.
 *
 * An object of its own, because a kernel before 7.0 loads no program that may not sleep with a call
 * of bpf_arena_alloc_pages() anywhere in it, and no kernel one without a licence that goes with the
 * GPL.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "core/core.h"

/* Of libnolock.bpf.o, as nl_chunk_publish() is. */
extern struct {
	__uint(type, 33);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
} nolock_heap SEC(".maps");

#include "arena_pages.h"

__attribute__((noinline)) int nolock_bpf_grow(void)
{
	nl_u64 zero = 0;

	__asm__ volatile("" : "+r"(zero) : "r"(&nolock_heap));
	return nla_grow((nl_heap_t *)zero) >= 0;
}
