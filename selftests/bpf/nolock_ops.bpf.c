// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_ops.bpf.c - a worker in a struct_ops program: a TCP congestion control that never slows
 * down, and allocates whenever something was acknowledged.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "nolock_side.h"

__u64 work_of;

/* What is used of the kernel's; libbpf finds the members by name. */
struct tcp_congestion_ops {
	__u32 (*ssthresh)(void *sk);
	void (*cong_avoid)(void *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(void *sk);
	char name[16];
};

SEC("struct_ops/ssthresh") __u32 ops_ssthresh(__u64 *ctx)
{
	return 1u << 30;
}

SEC("struct_ops/cong_avoid") void ops_cong_avoid(__u64 *ctx)
{
	if (work_of)
		work_run((work_t *)work_of);
}

SEC("struct_ops/undo_cwnd") __u32 ops_undo_cwnd(__u64 *ctx)
{
	return 10;
}

SEC(".struct_ops")
struct tcp_congestion_ops nolock_tcp = {
	.ssthresh = (void *)ops_ssthresh,
	.cong_avoid = (void *)ops_cong_avoid,
	.undo_cwnd = (void *)ops_undo_cwnd,
	.name = "nolock_test",
};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
