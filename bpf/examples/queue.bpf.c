// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * queue.bpf.c - events to a process and commands from it, each a node that lives in the heap
 * (queue.h). Events come from a tracepoint and from a timer interrupt, which may come in the
 * middle of the former; each adds to the same queue without waiting. The process: queue.c.
 *
 *	clang-19 $(pkg-config --variable=bpfcflags nolock) $(pkg-config --cflags nolock) \
 *		-c queue.bpf.c -o queue.o
 *	bpftool gen object queue.bpf.o queue.o $(pkg-config --variable=bpfobject nolock)
 *	bpftool gen skeleton queue.bpf.o name queue_bpf >queue.skel.h
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <nolock/nolock.bpf.h>
#include "events.h"
#include "me.h"

#define COMMANDS_AT_ONCE 8

/* Sequence numbers, each written by one context: the process has one thread, a CPU one timer. */
__u64 calls, answers;
__u64 ticks[EVENT_CPUS];
/* Events for which there was no memory. */
__u64 lost;

static __always_inline queues_t *queues(void)
{
	return (queues_t *)nolock_heap_root();
}

static __always_inline int send(queues_t *q, __u32 kind, __u32 source, __u64 seq, __u64 value)
{
	event_t *e = kmalloc_nolock(sizeof(*e), 0, NUMA_NO_NODE);

	if (!e) {
		__sync_fetch_and_add(&lost, 1);
		return ENOMEM_HERE;
	}
	e->kind = kind;
	e->source = source;
	e->seq = seq;
	e->value = value;
	queue_add(&q->up, &e->node);
	return 0;
}

/* Commands that are there, some at a time: the rest is the next call's. */
static __always_inline void obey(queues_t *q)
{
	if (!queue_trylock(&q->down))
		return; /* somebody below us is at it */
	bounded(i, COMMANDS_AT_ONCE) {
		event_t *command = (event_t *)queue_next(&q->down);

		if (!command)
			break;
		send(q, ANSWER, 0, answers, command->value);
		answers++;
		queue_took(&q->down, &command->node);
	}
	queue_unlock(&q->down);
}

SEC("raw_tp/sys_enter")
int on_call(struct bpf_raw_tracepoint_args *ctx)
{
	queues_t *q = queues();

	if (!q || !is_me())
		return 0;
	send(q, FROM_CALL, 0, calls, ctx->args[1]);
	calls++;
	obey(q);
	return 0;
}

SEC("perf_event")
int on_timer(void *ctx)
{
	__u32 cpu = bpf_get_smp_processor_id();
	queues_t *q = queues();

	if (!q || !is_me() || cpu >= EVENT_CPUS)
		return 0;
	send(q, FROM_TIMER, cpu, ticks[cpu], cpu);
	ticks[cpu]++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
