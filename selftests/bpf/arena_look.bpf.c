// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * arena_look.bpf.c - which pages of an arena are present, and pages that nobody can make present.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "arena_look.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, 1 << 10); /* BPF_F_MMAPABLE */
	__uint(max_entries, 1);
} arena SEC(".maps");

/* The second is there from Linux 6.17 on. */
extern void bpf_arena_free_pages(void *map, void NLA *ptr, __u32 page_cnt) __ksym __weak;
extern int bpf_arena_reserve_pages(void *map, void NLA *ptr, __u32 page_cnt) __ksym __weak;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

typedef volatile nl_u64 NLA look_word_t;

/* A page is present if what is written to its last word can be read back. */
SEC("syscall") int look(struct arena_look *l)
{
	nl_u32 first = l->first, nr = l->nr, there = nl_zero();

	__asm__ volatile("" ::"r"(&arena));
	nl_for(i, nr) {
		look_word_t *word = (look_word_t *)((nl_u64)(first + i) * 4096 + 4088);
		nl_u64 before = *word;

		*word = 0x1234567812345678ULL;
		if (*word == 0x1234567812345678ULL)
			there++;
		*word = before;
	}
	l->there = there;
	return 0;
}

SEC("syscall") int hold(struct arena_look *l)
{
	void NLA *page = (void NLA *)(1ULL << 32 | (nl_u64)l->first * 4096);

	l->err = bpf_arena_reserve_pages(&arena, page, l->nr);
	return 0;
}

SEC("syscall") int release(struct arena_look *l)
{
	bpf_arena_free_pages(&arena, (void NLA *)(1ULL << 32 | (nl_u64)l->first * 4096), l->nr);
	return 0;
}
