// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_grows.bpf.c - the programs of nolock_call.bpf.c, which grow the heap when it is used up.
 * Naming nolock_bpf_grow() has the build link them with libnolock-grow.bpf.o.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "nolock_call.bpf.c"

SEC("syscall") int grow(struct nolock_call *c)
{
	c->ret = nolock_bpf_grow();
	return 0;
}

/* Where nothing may sleep: size and number of the objects to be allocated. */
__u32 any_size, any_nr;

static __always_inline int take_any(void)
{
	__u32 n = nr_got, room = any_nr;

	nl_for(i, room) {
		__u64 obj = (__u64)kmalloc_nolock(any_size, 0, NUMA_NO_NODE);

		if (!obj)
			break;
		got[n & (CALL_GOT - 1)] = obj;
		n++;
	}
	nr_got = n;
	return 0;
}

SEC("?tc") int any_tc(struct __sk_buff *skb)
{
	return take_any();
}

SEC("?perf_event") int any_perf(struct bpf_perf_event_data *ctx)
{
	return take_any();
}
