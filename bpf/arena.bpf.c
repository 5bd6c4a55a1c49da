// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * arena.bpf.c - the programs that set up and grow the arena of a shared heap.
 *
 * What they do runs to its end whatever becomes of the process that asked for it: a group that a
 * program opens cannot be lost by a SIGKILL.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "core/chunk.h"

/* Replaced by the heap's own map before the load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, 1 << 10); /* BPF_F_MMAPABLE */
	__uint(max_entries, 1);
} nolock_heap SEC(".maps");

#include "arena_pages.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The header lies at offset 0. */
NL_INLINE nl_heap_t *the_heap(void)
{
	nl_u64 zero = 0;

	__asm__ volatile("" : "+r"(zero) : "r"(&nolock_heap));
	return (nl_heap_t *)zero;
}

/* Make pages present that nobody uses yet. */
SEC("syscall") int arena_setup(struct nla_setup *c)
{
	nl_u64 from = (nl_u64)c->first * NL_PAGE;
	int made = nla_present(from, from + (nl_u64)c->nr * NL_PAGE, 0);

	c->made = made < 0 ? 0 : made;
	c->err = made < 0 ? made : 0;
	return 0;
}

SEC("syscall") int arena_grow(struct nla_grow *c)
{
	int group = nla_grow(the_heap());

	c->group = group < 0 ? 0 : group;
	c->err = group < 0 ? group : 0;
	return 0;
}

/* The same where nothing may sleep: whether the kernel allows it, loading it tells. */
SEC("?raw_tp") int arena_grow_any(void *ctx)
{
	return nla_grow(the_heap());
}
