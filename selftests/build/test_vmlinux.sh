#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# vmlinux.h: what is committed works with libbpf's headers, and can be made again here.

set -u
cd "$(dirname "$0")/../.." || exit 1
gen=${NOLOCK_BUILD:-build}/scripts/vmlinux
btf=/sys/kernel/btf/vmlinux
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. selftests/verdict.sh

# A program of each kind that nolock has, against the vmlinux.h of a directory.
compiles()
{
	cat >"$tmp/x.bpf.c" <<-'END'
	#include "vmlinux.h"
	#include <bpf/bpf_helpers.h>
	#include <bpf/bpf_tracing.h>
	#include <bpf/bpf_core_read.h>
	#include <bpf/usdt.bpf.h>

	struct {
		__uint(type, BPF_MAP_TYPE_ARENA);
		__uint(map_flags, BPF_F_MMAPABLE);
		__uint(max_entries, 16);
	} arena SEC(".maps");

	char LICENSE[] SEC("license") = "GPL";
	long seen;

	SEC("tp_btf/kmem_cache_alloc")
	int BPF_PROG(on_alloc, unsigned long ip, const void *p, struct kmem_cache *s)
	{
		seen += s->object_size + BPF_CORE_READ(s, size);
		return 0;
	}

	SEC("iter/kmem_cache")
	int on_cache(struct bpf_iter__kmem_cache *ctx)
	{
		return ctx->s ? bpf_seq_write(ctx->meta->seq, &ctx->s->size, sizeof(ctx->s->size)) : 0;
	}

	SEC("perf_event")
	int on_event(struct bpf_perf_event_data *ctx)
	{
		seen += ctx->addr + PT_REGS_IP(&ctx->regs);
		return 0;
	}

	SEC("usdt")
	int BPF_USDT(on_probe, void *heap, long nr)
	{
		seen += nr;
		return 0;
	}
	END
	clang-19 -target bpf -mcpu=v4 -O2 -g -Wall -Werror "-D__TARGET_ARCH_$arch" -I"$1" \
		-idirafter "/usr/include/$(uname -m)-linux-gnu" -c "$tmp/x.bpf.c" -o "$tmp/x.o" \
		>"$tmp/out" 2>&1
}

# The generator refuses, in one line with these words, and writes nothing of use.
refuses()
{
	local name=$1 words=$2
	shift 2
	! "$@" >/dev/null 2>"$tmp/out" && [ "$(wc -l <"$tmp/out")" -eq 1 ] &&
		grep -qF -- "$words" "$tmp/out"
	verdict "$name" $?
}

case $(uname -m) in x86_64) arch=x86 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
compiles .
verdict "the committed vmlinux.h with libbpf's headers" $?
[ "$(wc -l <vmlinux.h)" -lt 6000 ]
verdict "the committed vmlinux.h holds what the programs need, not the whole kernel" $?
refuses "no such BTF" "no BTF in $tmp/none" "$gen" "$tmp/none" vmlinux.roots
refuses "not BTF" "no BTF in vmlinux.roots" "$gen" vmlinux.roots vmlinux.roots

if [ -r $btf ]; then
	mkdir "$tmp/new"
	"$gen" $btf vmlinux.roots >"$tmp/new/vmlinux.h" 2>"$tmp/out"
	verdict "made again from this kernel's BTF" $?
	compiles "$tmp/new"
	verdict "the new vmlinux.h with libbpf's headers" $?
	echo 'struct no_such_type' >"$tmp/roots"
	refuses "a type that the kernel lacks" "roots:1: this BTF has no struct no_such_type" \
		"$gen" $btf "$tmp/roots"
	printf '\n# x\nclass page\n' >"$tmp/roots"
	refuses "a kind that is none" "roots:3: unknown kind 'class'" "$gen" $btf "$tmp/roots"
	echo 'struct' >"$tmp/roots"
	refuses "a kind without a name" "roots:1: want a kind and a name" "$gen" $btf "$tmp/roots"
	refuses "no list" "cannot open $tmp/none" "$gen" $btf "$tmp/none"
	printf '?struct no_such_type\nstruct list_head\n' >"$tmp/roots"
	"$gen" $btf "$tmp/roots" 2>"$tmp/out" | grep -q '^struct list_head {'
	verdict "an optional type" $?
else
	echo "skipped: this kernel has no BTF in $btf"
	skipped=1
fi

total
