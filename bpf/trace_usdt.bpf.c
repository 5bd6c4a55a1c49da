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

/*
 * Text of the process. Its page may not be there: then touch it, which may sleep, and read again.
 * User space makes the program sleepable for that.
 */
static __always_inline void nlt_utext(char *to, __u64 from)
{
	char byte;

	to[0] = 0;
	if (!from || bpf_probe_read_user_str(to, NLT_NAME, (void *)from) >= 0)
		return;
	if (bpf_copy_from_user(&byte, 1, (void *)from))
		return;
	bpf_copy_from_user(&byte, 1, (void *)(from + NLT_NAME - 1));
	if (bpf_probe_read_user_str(to, NLT_NAME, (void *)from) < 0)
		to[0] = 0;
}

SEC("usdt")
int nlt_usdt(struct pt_regs *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct nlt_state *st = nlt_get_state();
	struct nlt_cpu *c = nlt_get_cpu();
	__u32 kind = bpf_usdt_cookie(ctx);
	__u64 heap, second, third, text;
	struct nlt_event *e;
	char name[NLT_NAME] = {};

	barrier_var(
		kind); /* else both bounds become one comparison, which the verifier cannot use */
	if (!st || !c || kind >= NLT_NR_KINDS)
		return 0;
	__sync_fetch_and_add(&c->kinds[kind], 1);
	if (!st->stream)
		return 0;
	heap = nlt_uarg(ctx, 0);
	second = nlt_uarg(ctx, 1);
	third = nlt_uarg(ctx, 2);
	if (kind == NLT_U_ALLOC_FAIL || kind == NLT_U_HEAP_GROW)
		text = 0;
	else
		text = kind == NLT_U_FREE_REFUSED ? third : second;
	nlt_utext(name, text); /* before there is a record that the reader would have to wait for */
	if (st->by_cache && !nlt_name_matches(st, name))
		return 0;
	if (!nlt_wanted(st, c, kind, pid))
		return 0;
	e = nlt_reserve(c, kind);
	if (!e)
		return 0;
	__builtin_memcpy(e->cache, name, sizeof(name));
	e->heap = heap;
	switch (kind) {
	case NLT_U_SHEAF_REFILL:
	case NLT_U_SHEAF_FLUSH:
		e->bytes_req = third;
		break;
	case NLT_U_ALLOC_SLAB:
	case NLT_U_FREE_SLAB:
		e->ptr = third;
		break;
	case NLT_U_ALLOC_FAIL:
		e->bytes_req = second;
		e->bytes_alloc = third;
		break;
	case NLT_U_FREE_REFUSED:
		e->ptr = second;
		break;
	default:
		e->bytes_req = second;
	}
	nlt_submit(st, c, e);
	return 0;
}
