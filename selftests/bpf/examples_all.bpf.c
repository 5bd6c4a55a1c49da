// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * examples_all.bpf.c - the structures of bpf/examples, used by a program, and in NMI context.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "examples_side.h"

struct args {
	__u64 turns;
};

SEC("syscall") int run(struct args *args)
{
	ex_all_t *a = (ex_all_t *)nolock_heap_root();
	__u32 cpu = bpf_get_smp_processor_id(), turns = args->turns;

	bounded(i, turns) {
		ex_turn(a, SIDE_PROGRAM, cpu % EPOCH_PROCESS);
	}
	return 0;
}

SEC("perf_event") int nmi(struct bpf_perf_event_data *ctx)
{
	ex_all_t *a = (ex_all_t *)nolock_heap_root();

	ex_turn(a, SIDE_NMI, bpf_get_smp_processor_id() % EPOCH_PROCESS);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
