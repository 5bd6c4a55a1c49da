// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * hash.bpf.c - counts what a process does, in a table that lives in the heap (hash.h): each of its
 * system calls by number, at the tracepoint; and where it is found by a timer interrupt, which may
 * come in the middle of the former. The process beside it: hash.c.
 *
 *	clang-19 $(pkg-config --variable=bpfcflags nolock) $(pkg-config --cflags nolock) \
 *		-c hash.bpf.c -o hash.o
 *	bpftool gen object hash.bpf.o hash.o $(pkg-config --variable=bpfobject nolock)
 *	bpftool gen skeleton hash.bpf.o name hash_bpf >hash.skel.h
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <nolock/nolock.bpf.h>
#include "hash.h"
#include "me.h"

/* Keys beyond all system calls. */
#define KEY_SAMPLES (1ULL << 32)

/* Events that could not be counted: the bucket was being changed below us, or no memory. */
__u64 lost_calls, lost_samples;

static __always_inline int count(__u64 key)
{
	/* The table is where the process has put it: at the heap's root. */
	hash_t *t = (hash_t *)nolock_heap_root();

	return t ? hash_add(t, key, 1) : ENOENT_HERE;
}

SEC("raw_tp/sys_enter")
int on_call(struct bpf_raw_tracepoint_args *ctx)
{
	if (!is_me())
		return 0;
	if (count(ctx->args[1]))
		__sync_fetch_and_add(&lost_calls, 1);
	return 0;
}

SEC("perf_event")
int on_sample(void *ctx)
{
	if (!is_me())
		return 0;
	if (count(KEY_SAMPLES + bpf_get_smp_processor_id()))
		__sync_fetch_and_add(&lost_samples, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
