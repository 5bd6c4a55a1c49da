// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_work.bpf.c - workers (nolock_work.h) in programs of every type that can use an arena.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "nolock.bpf.h"
#include "nolock_side.h"

/* Addresses of workers, of each type and, for the NMI's program, of each CPU; 0: do nothing. */
__u64 work_of[NR_TYPES];
__u64 work_on[WORK_CPUS];
/* System calls with this first argument are meant for us. */
__u64 token;

static __always_inline int run_type(__u32 type)
{
	__u64 w = work_of[type];

	if (w)
		work_run((work_t *)w);
	return 0;
}

struct work_args {
	__u64 work;
};

/* Any number of these may run at once: each call brings its worker. */
SEC("syscall") int work_syscall(struct work_args *args)
{
	work_t *w = (work_t *)args->work;

	work_run(w);
	return 0;
}

/* Finds its worker by itself: the heap's root points to the address of it. */
SEC("syscall") int work_root(void *ctx)
{
	nl_heap_t *h = (nl_heap_t *)(__u64)nl_zero();
	nl_word_t *root = (nl_word_t *)h->root;

	if (root)
		work_run((work_t *)*root);
	return 0;
}

SEC("tc") int work_tc(struct __sk_buff *skb)
{
	return run_type(TYPE_TC);
}

SEC("xdp") int work_xdp(struct xdp_md *xdp)
{
	run_type(TYPE_XDP);
	return XDP_PASS;
}

static __always_inline int for_us(struct pt_regs *regs)
{
	return PT_REGS_PARM1_CORE_SYSCALL(regs) == token;
}

SEC("tp_btf/sys_enter") int work_tp_btf(__u64 *ctx)
{
	return for_us((struct pt_regs *)ctx[0]) ? run_type(TYPE_TP_BTF) : 0;
}

SEC("raw_tp/sys_enter") int work_raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	return for_us((struct pt_regs *)ctx->args[0]) ? run_type(TYPE_RAW_TP) : 0;
}

SEC("tracepoint/raw_syscalls/sys_enter")
int work_tracepoint(struct trace_event_raw_sys_enter *ctx)
{
	return ctx->args[0] == token ? run_type(TYPE_TRACEPOINT) : 0;
}

SEC("uprobe") int work_uprobe(struct pt_regs *regs)
{
	return run_type(TYPE_UPROBE);
}

SEC("uprobe.s") int work_uprobe_s(struct pt_regs *regs)
{
	return run_type(TYPE_UPROBE_S);
}

/* All of the packet may pass. */
SEC("socket") int work_socket(struct __sk_buff *skb)
{
	run_type(TYPE_SOCKET);
	return skb->len;
}

SEC("iter/bpf_map") int work_iter(struct bpf_iter__bpf_map *ctx)
{
	return ctx->map ? run_type(TYPE_ITER) : 0;
}

SEC("fentry/bpf_fentry_test1") int work_fentry(__u64 *ctx)
{
	return run_type(TYPE_FENTRY);
}

SEC("perf_event") int work_perf(struct bpf_perf_event_data *ctx)
{
	return run_type(TYPE_PERF_EVENT);
}

/* Events on data breakpoints and their hits, on each CPU. */
__u64 hits[WORK_CPUS];

SEC("perf_event") int work_nmi(struct bpf_perf_event_data *ctx)
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u64 w;

	if (cpu >= WORK_CPUS)
		return 0;
	hits[cpu]++;
	w = work_on[cpu];
	if (w)
		work_run((work_t *)w);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
