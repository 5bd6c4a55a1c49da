/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * trace_emit.h - BPF side only: the maps of the tracing programs, and how an event gets into the
 * stream. User space makes the maps and puts the same ones into every object.
 */
#ifndef NLT_TRACE_EMIT_H
#define NLT_TRACE_EMIT_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "trace.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlt_state);
} nlt_state SEC(".maps");

/* NLT_ROWS for CPU 0, then NLT_ROWS for CPU 1, ... */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlt_row);
} nlt_rows SEC(".maps");

/* NLT_ROWS: events that interrupted the first program of their tracepoint. Atomic additions. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlt_row);
} nlt_nested SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlt_cpu);
} nlt_cpus SEC(".maps");

/* Processes whose events stay out of the stream: those that read it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u8);
} nlt_quiet SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} nlt_ring SEC(".maps");

static __always_inline struct nlt_state *nlt_get_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&nlt_state, &zero);
}

static __always_inline struct nlt_cpu *nlt_get_cpu(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&nlt_cpus, &cpu);
}

/* Does anybody want an event of this kind from this process? Takes no lock. */
static __always_inline bool nlt_wanted(struct nlt_state *st, struct nlt_cpu *c, __u32 kind,
				       __u32 pid)
{
	if (!(st->kinds & (1ull << kind)))
		return false;
	if (st->want_pid && st->want_pid != pid)
		return false;
	if (bpf_map_lookup_elem(&nlt_quiet, &pid))
		return false;
	if (st->sample > 1 && c->tick++ % st->sample)
		return false;
	return true;
}

/* Room for an event in the ring, or NULL; a full ring is counted. */
static __always_inline struct nlt_event *nlt_reserve(struct nlt_cpu *c, __u32 kind)
{
	struct nlt_event *e = bpf_ringbuf_reserve(&nlt_ring, sizeof(*e), 0);
	__u64 id = bpf_get_current_pid_tgid();

	if (!e) {
		__sync_fetch_and_add(&c->ring_lost, 1);
		return NULL;
	}
	e->ns = bpf_ktime_get_ns();
	e->kind = kind;
	e->cpu = bpf_get_smp_processor_id();
	e->pid = id >> 32;
	e->tid = (__u32)id;
	e->ptr = 0;
	e->call_site = 0;
	e->bytes_req = 0;
	e->bytes_alloc = 0;
	e->heap = 0;
	e->ret = 0;
	if (bpf_get_current_comm(e->comm, sizeof(e->comm)))
		e->comm[0] = 0;
	e->cache[0] = 0;
	return e;
}

/*
 * A wake-up for each event would cost more than the event: wake the reader only when much waits;
 * it looks by itself at short intervals.
 */
static __always_inline void nlt_submit(struct nlt_state *st, struct nlt_cpu *c, struct nlt_event *e)
{
	__u64 waiting = bpf_ringbuf_query(&nlt_ring, BPF_RB_AVAIL_DATA);

	__sync_fetch_and_add(&c->streamed, 1);
	bpf_ringbuf_submit(e, waiting >= st->wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* Does a cache's name match the stream's filter: a whole name, or a prefix and '*'? */
static __always_inline bool nlt_name_matches(const struct nlt_state *st, const char *name)
{
	int i;

	for (i = 0; i < NLT_NAME; i++) {
		char want = st->cache[i];

		if (want == '*')
			return true;
		if (want != name[i])
			return false;
		if (!want)
			return true;
	}
	return true;
}

#endif /* NLT_TRACE_EMIT_H */
