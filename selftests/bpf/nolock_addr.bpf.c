// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_addr.bpf.c - where the kernel has an arena's memory mapped: what data breakpoints need.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, 1 << 10); /* BPF_F_MMAPABLE */
	__uint(max_entries, 1);
} arena SEC(".maps");

__u64 kernel_address;

SEC("syscall") int find_kernel_address(void *ctx)
{
	struct bpf_arena *a = (struct bpf_arena *)&arena;

	/* The verifier lets a program read its map's own struct, by plain loads at fixed offsets. */
	struct vm_struct *vm = a->kern_vm;

	kernel_address = (__u64)BPF_CORE_READ(vm, addr);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
