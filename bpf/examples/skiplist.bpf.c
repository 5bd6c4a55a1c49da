// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * skiplist.bpf.c - deadlines in order, in a list that lives in the heap (skiplist.h): a tracepoint
 * gives each system call of a process a deadline, the process adds and cancels others, and a timer
 * interrupt, which may come in the middle of either, takes out those that are over. The process:
 * skiplist.c.
 *
 *	clang-19 $(pkg-config --variable=bpfcflags nolock) $(pkg-config --cflags nolock) \
 *		-c skiplist.bpf.c -o skiplist.o
 *	bpftool gen object skiplist.bpf.o skiplist.o $(pkg-config --variable=bpfobject nolock)
 *	bpftool gen skeleton skiplist.bpf.o name skiplist_bpf >skiplist.skel.h
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <nolock/nolock.bpf.h>
#include "skiplist.h"
#include "me.h"

#define AT_ONCE 256

/* How long a system call is given. */
const volatile __u64 allowed_ns = 2000000;

__u64 added, not_added, expired, early, next_deadline;

SEC("raw_tp/sys_enter")
int on_call(struct bpf_raw_tracepoint_args *ctx)
{
	skiplist_t *l = (skiplist_t *)nolock_heap_root();

	if (!l || !is_me())
		return 0;
	/* Odd: no key of the process's own. */
	if (skip_add(l, (bpf_ktime_get_ns() + allowed_ns) | 1, ctx->args[1]))
		__sync_fetch_and_add(&not_added, 1);
	else
		__sync_fetch_and_add(&added, 1);
	return 0;
}

SEC("perf_event")
int on_timer(void *ctx)
{
	skiplist_t *l = (skiplist_t *)nolock_heap_root();
	__u32 cpu = bpf_get_smp_processor_id();
	skip_node_t *next;
	int epoch;

	if (!l || !is_me())
		return 0;
	bounded(i, AT_ONCE) {
		__u64 now = bpf_ktime_get_ns(), key = skip_take_first(l, now);

		if (!key)
			break;
		if (key > now)
			__sync_fetch_and_add(&early, 1);
		__sync_fetch_and_add(&expired, 1);
	}
	/* And what comes next, read as a process would: the programs of a CPU share its slot. */
	epoch = epoch_enter(&l->epoch, cpu % EPOCH_PROCESS);
	if (epoch < 0)
		return 0;
	next = skip_first_from(l, 1);
	next_deadline = next ? next->key : 0;
	epoch_exit(&l->epoch, cpu % EPOCH_PROCESS, epoch);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
