// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nolock_contexts.bpf.c - workers (nolock_work.h) in task, softirq, hardirq and NMI, all on one CPU and
 * of one cache, so that each interrupts the others. They count what they have interrupted, and where
 * each of their operations was served.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "nolock.bpf.h"
#include "core/layout.h"
#include "nolock_contexts.h"

/* Addresses of the contexts' workers; 0: do nothing. The CPU that they are on, and their cache. */
__u64 work_of[NR_CTX];
__u32 the_cpu;
__u64 the_cache;

/* Innermost context, and how often it was that when another one came. */
__u32 now_in;
__u64 inside[NR_CTX][NR_CTX];

/* Operations by context and level. */
__u64 served[NR_CTX][NR_AT];

/*
 * What operations have accounted for that are over: one that interrupts another is over before that
 * goes on, so what is left of a difference is one's own.
 */
struct levels accounted;

NL_INLINE void levels_now(struct levels *l)
{
	nl_heap_t *h = (nl_heap_t *)(__u64)nl_zero();
	nl_slot_t *slot = nl_aslot(h, the_cpu, ((nl_cache_t *)the_cache)->id);

	l->slow = slot->stat[NL_STAT_ALLOC_SLOWPATH] - accounted.slow;
	l->slab = slot->stat[NL_STAT_ALLOC_SLAB] - accounted.slab;
	l->lock = slot->stat[NL_STAT_SLOT_LOCK] - accounted.lock;
	l->put = slot->stat[NL_STAT_FREE_SLOWPATH] - accounted.put;
}

/* Count an operation that began then where it was served. */
NL_INLINE void count_since(const struct levels *then, int is_alloc)
{
	struct levels now;
	__u32 ctx = now_in, at;

	levels_now(&now);
	now.slow -= then->slow;
	now.slab -= then->slab;
	now.lock -= then->lock;
	now.put -= then->put;
	accounted.slow += now.slow;
	accounted.slab += now.slab;
	accounted.lock += now.lock;
	accounted.put += now.put;
	if (is_alloc)
		at = now.slow ? now.slab ? AT_CHUNK : AT_BITMAPS : now.lock ? AT_REFILL : AT_SLOT;
	else
		at = now.put ? AT_FREE_BITMAPS : now.lock ? AT_FREE_ROOM : AT_FREE_SLOT;
	if (ctx < NR_CTX)
		served[ctx][at]++;
}

/* In line: a program may call no deeper than 8 frames. */
NL_INLINE __u64 context_alloc(void)
{
	struct levels then;
	__u64 obj;

	levels_now(&then);
	obj = (__u64)kmem_cache_alloc_nolock((struct kmem_cache __arena *)the_cache, 0,
					     NUMA_NO_NODE);
	count_since(&then, 1);
	return obj;
}

NL_INLINE void context_free(__u64 obj)
{
	struct levels then;

	levels_now(&then);
	kfree_nolock((void __arena *)obj);
	count_since(&then, 0);
}

#define work_alloc(w, size) context_alloc()
#define work_free(obj) context_free(obj)

#include "nolock_side.h"

NL_INLINE int run_in(__u32 ctx)
{
	__u32 was = now_in;
	__u64 w;

	if (bpf_get_smp_processor_id() != the_cpu || was >= NR_CTX)
		return 0;
	w = work_of[ctx];
	if (!w)
		return 0;
	inside[was][ctx]++;
	now_in = ctx;
	work_run((work_t *)w);
	now_in = was;
	return 0;
}

SEC("syscall") int in_task(void *ctx)
{
	return run_in(CTX_TASK);
}

SEC("raw_tp/softirq_entry") int in_softirq(void *ctx)
{
	return run_in(CTX_SOFTIRQ);
}

SEC("raw_tp/hrtimer_expire_entry") int in_hardirq(void *ctx)
{
	return run_in(CTX_HARDIRQ);
}

SEC("perf_event") int on_clock(struct bpf_perf_event_data *ctx)
{
	return run_in(CTX_CLOCK);
}

__u64 hits;

SEC("perf_event") int in_nmi(struct bpf_perf_event_data *ctx)
{
	if (bpf_get_smp_processor_id() == the_cpu)
		hits++;
	return run_in(CTX_NMI);
}

/* A timer whose callback is a softirq's: there is one for as long as its period is not 0. */
struct timer {
	struct bpf_timer t;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct timer);
} timers SEC(".maps");
__u64 period;

static int again(void *map, __u32 *key, struct timer *timer)
{
	if (period)
		bpf_timer_start(&timer->t, period, 0);
	return 0;
}

SEC("syscall") int start_timer(void *ctx)
{
	__u32 key = 0;
	struct timer *timer = bpf_map_lookup_elem(&timers, &key);

	if (!timer)
		return 1;
	if (bpf_timer_init(&timer->t, &timers, 1 /* CLOCK_MONOTONIC */) ||
	    bpf_timer_set_callback(&timer->t, again))
		return 2;
	return bpf_timer_start(&timer->t, period, 0) ? 3 : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
