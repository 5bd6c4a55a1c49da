// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * trace_usdt.bpf.c - the probes of libnolock, provider "nolock", wherever the library is used.
 *
 * One program serves all of them: the cookie of an attachment is the kind of its probe.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/usdt.bpf.h>
#include "trace.h"
#include "trace_emit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u64 nlt_uarg(struct pt_regs *ctx, __u64 n)
{
	long v = 0;

	return bpf_usdt_arg(ctx, n, &v) ? 0 : (__u64)v;
}

SEC("usdt")
int nlt_usdt(struct pt_regs *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct nlt_state *st = nlt_get_state();
	struct nlt_cpu *c = nlt_get_cpu();
	__u32 kind = bpf_usdt_cookie(ctx);
	__u64 text = 0, second;
	struct nlt_event *e;

	if (!st || !c || kind < NLT_FN_END || kind >= NLT_NR_KINDS)
		return 0;
	__sync_fetch_and_add(&c->kinds[kind], 1);
	if (!st->stream || !nlt_wanted(st, c, kind, pid))
		return 0;
	e = nlt_reserve(c, kind);
	if (!e)
		return 0;
	e->heap = nlt_uarg(ctx, 0);
	second = nlt_uarg(ctx, 1);
	switch (kind) {
	case NLT_U_SHEAF_REFILL:
	case NLT_U_SHEAF_FLUSH:
		text = second;
		e->bytes_req = nlt_uarg(ctx, 2);
		break;
	case NLT_U_ALLOC_SLAB:
	case NLT_U_FREE_SLAB:
		text = second;
		e->ptr = nlt_uarg(ctx, 2);
		break;
	case NLT_U_ALLOC_FAIL:
		e->bytes_req = second;
		e->bytes_alloc = nlt_uarg(ctx, 2);
		break;
	case NLT_U_FREE_REFUSED:
		e->ptr = second;
		text = nlt_uarg(ctx, 2);
		break;
	default:
		e->bytes_req = second;
	}
	if (text && bpf_probe_read_user_str(e->cache, sizeof(e->cache), (void *)text) < 0)
		e->cache[0] = 0;
	if (st->by_cache && !nlt_name_matches(st, e->cache)) {
		bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
		return 0;
	}
	nlt_submit(st, c, e);
	return 0;
}
