// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * trace_fn.bpf.c - one function of the slab allocator by fentry or fexit.
 *
 * kmalloc_nolock and kfree_nolock fire no tracepoint, nor do the sheaves and barns. Which of those
 * functions a kernel has and allows to trace is known only when it is tried: so this object is
 * loaded once for each, with the function, the kind and the shape set before.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "trace.h"
#include "trace_emit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 nlt_kind;
const volatile bool nlt_arg_is_cache; /* the first argument is a struct kmem_cache */

static __always_inline int nlt_on_function(void *ctx, bool is_exit)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct nlt_state *st = nlt_get_state();
	struct nlt_cpu *c = nlt_get_cpu();
	struct nlt_event *e;
	__u32 kind = nlt_kind;
	__u64 first = 0, ret = 0;

	if (!st || !c || kind >= NLT_NR_KINDS)
		return 0;
	__sync_fetch_and_add(&c->kinds[kind], 1);
	if (!st->stream || st->by_cache > nlt_arg_is_cache || !nlt_wanted(st, c, kind, pid))
		return 0;
	e = nlt_reserve(c, kind);
	if (!e)
		return 0;
	bpf_get_func_arg(ctx, 0, &first);
	if (nlt_arg_is_cache) {
		struct kmem_cache *s = (struct kmem_cache *)first;

		if (bpf_probe_read_kernel_str(e->cache, sizeof(e->cache), BPF_CORE_READ(s, name)) <
		    0)
			e->cache[0] = 0;
		e->bytes_alloc = BPF_CORE_READ(s, size);
		if (st->by_cache && !nlt_name_matches(st, e->cache)) {
			bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
			return 0;
		}
	}
	if (kind == NLT_KMALLOC_NOLOCK)
		e->bytes_req = first;
	else
		e->ptr = first;
	if (is_exit && !bpf_get_func_ret(ctx, &ret)) {
		e->ret = ret;
		if (kind == NLT_KMALLOC_NOLOCK)
			e->ptr = ret;
	}
	nlt_submit(st, c, e);
	return 0;
}

SEC("?fentry")
int nlt_fn_entry(void *ctx)
{
	return nlt_on_function(ctx, false);
}

SEC("?fexit")
int nlt_fn_exit(void *ctx)
{
	return nlt_on_function(ctx, true);
}
