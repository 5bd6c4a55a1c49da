// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * work.bpf.c - the demo's BPF programs: objects of the shared heap, allocated at every kernel
 * kmem_cache_alloc event that is sampled, and in NMI context.
 *
 * The second program runs on a data breakpoint on the lock word of an A-slot: the kernel handles
 * that as an NMI, in the middle of the first program's critical section, at each access to it.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "nolock.bpf.h"
#include "work.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Of libnolock.bpf.o; named here for its address. */
extern struct {
	__uint(type, 33);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
} nolock_heap SEC(".maps");

const volatile __u32 sample = 1;

struct work_side task, nmi;
__u64 kernel_base;
volatile __u64 map_address;

#define count(counter) ((void)__sync_fetch_and_add(&(counter), 1))

/* An object of a size from a round of them; 64 comes most often, for the breakpoint's sake. */
static __always_inline __u32 size_of(__u64 turn)
{
	return turn & 1 ? 64 : 16u << ((turn >> 1) % 8);
}

/* As in handlers.c: what a word of the object holds depends on the object, its size, its place. */
static __always_inline void stamp(__u64 addr, __u32 size)
{
	__u64 __arena *word = (__u64 __arena *)addr;
	__u32 i;

	for (i = 0; i < WORK_WORDS; i++) {
		if (i >= size / 8)
			break;
		word[i] = work_word(addr, size, i);
	}
}

static __always_inline int intact(__u64 addr)
{
	__u64 __arena *word = (__u64 __arena *)addr;
	__u32 size = (word[0] ^ addr) >> 48;
	__u32 i;

	if (size < 16 || size > 2048)
		return 0;
	for (i = 0; i < WORK_WORDS; i++) {
		if (i >= size / 8)
			break;
		if (word[i] != work_word(addr, size, i))
			return 0;
	}
	return 1;
}

/* Allocate one, leave it to a later event, and free what an earlier one has left. */
static __always_inline void turn_over(struct work_side *side)
{
	__u32 cpu = bpf_get_smp_processor_id() % WORK_CPUS, size;
	__u64 turn = __sync_fetch_and_add(&side->turn, 1), addr, old;

	count(side->events);
	size = size_of(turn);
	addr = (__u64)kmalloc_nolock(size, 0, NUMA_NO_NODE);
	if (!addr) {
		count(side->failures);
		return;
	}
	count(side->allocs);
	stamp(addr, size);
	old = __sync_lock_test_and_set(&side->held[cpu][turn % WORK_HELD], addr);
	if (!old)
		return;
	if (!intact(old))
		count(side->corruptions);
	kfree_nolock((void __arena *)old);
	count(side->frees);
}

__u64 seen;

SEC("tp_btf/kmem_cache_alloc")
int on_alloc(void *ctx)
{
	if (__sync_fetch_and_add(&seen, 1) % sample == 0)
		turn_over(&task);
	return 0;
}

SEC("perf_event")
int on_breakpoint(void *ctx)
{
	turn_over(&nmi);
	return 0;
}

/* Where the kernel has the arena: for the breakpoint's address. */
SEC("syscall")
int find_heap(void *ctx)
{
	struct bpf_arena *arena;

	/* No arithmetic on a map's address, says the verifier; from memory it is a number. */
	map_address = (__u64)&nolock_heap;
	arena = (struct bpf_arena *)map_address;
	kernel_base = (__u64)BPF_CORE_READ(arena, kern_vm, addr);
	return 0;
}
