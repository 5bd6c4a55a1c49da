// SPDX-License-Identifier: GPL-2.0-only
/*
 * hash.c - reads, changes and empties the table that hash.bpf.c fills meanwhile.
 *
 *	cc hash.c -o hash $(pkg-config --cflags --libs nolock) -lbpf
 *	nolockd --heap=examples:64M --destroy-on-exit --pidfile=nolockd.pid --daemon
 *	./hash
 *
 * As root. It makes system calls while a timer interrupts it, adds to the same records itself,
 * reads them all without a lock, removes what it has read, and says whether all of it adds up.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <sys/syscall.h>
#include "hash.h"
#include "me.h"
#include "programs.h"
#include "timers.h"
#include "hash.skel.h"

#define ROUNDS 100
#define CALLS 1000ULL
#define MOST 256
/* Not a number of a system call. */
#define KEY_OURS 9999ULL

static void add_ours(hash_t *t, __u64 *lost)
{
	int e = hash_add(t, KEY_OURS, 1);

	if (e == ENOMEM_HERE && !hash_more(t))
		e = hash_add(t, KEY_OURS, 1);
	if (e)
		(*lost)++;
}

/* Take every record out of the table: calls, samples and our own are added up. */
static void harvest(hash_t *t, __u64 *calls, __u64 *samples, __u64 *ours)
{
	struct hash_node found[MOST];

	for (__u32 b = 0; b <= t->mask; b++) {
		int n = hash_read(t, b, found, MOST);

		for (int i = 0; i < n; i++) {
			__u64 value;

			/* It may be counted up between the reading and this: what is taken counts. */
			if (hash_take(t, found[i].key, &value))
				continue;
			if (found[i].key == KEY_OURS)
				*ours += value;
			else if (found[i].key == SYS_getppid)
				*calls += value;
			else if (found[i].key >> 32)
				*samples += value;
		}
	}
}

int main(int argc, char **argv)
{
	__u64 calls = 0, samples = 0, ours = 0, ours_lost = 0, lost, seen = 0, value;
	struct bpf_link *timers[MAX_TIMERS + 1];
	struct hash_bpf *skel;
	struct nolock_heap *heap;
	hash_t *t;

	skel = hash_bpf__open();
	if (!skel)
		err(1, "cannot open the programs");
	heap = open_heap(skel->obj, argc, argv);
	t = hash_create(heap, "hash_node", 10);
	if (!t)
		err(1, "cannot make the table");
	nolock_heap_set_root(heap, t);

	set_me(skel);
	skel->links.on_call = start_programs(skel->skeleton, heap, skel->progs.on_call);
	attach_timers(skel->progs.on_sample, timers);

	for (int round = 0; round < ROUNDS; round++) {
		for (__u64 i = 0; i < CALLS; i++) {
			syscall(SYS_getppid);
			add_ours(t, &ours_lost);
			/* Read while it is being changed: never torn, never going back. */
			if (hash_get(t, SYS_getppid, &value))
				continue;
			if (value < seen)
				errx(1, "the count went from %llu to %llu", seen, value);
			seen = value;
		}
		if (round % 10 == 9)
			harvest(t, &calls, &samples, &ours);
		seen = 0;
	}
	detach_timers(timers);
	hash_bpf__detach(skel);
	harvest(t, &calls, &samples, &ours);
	lost = skel->bss->lost_calls;
	printf("%llu system calls counted, %llu lost; %llu timer samples, %llu lost; %llu of our "
	       "own, %llu lost\n",
	       calls, lost, samples, (__u64)skel->bss->lost_samples, ours, ours_lost);
	hash_bpf__destroy(skel);
	hash_destroy(t);
	nolock_heap_set_root(heap, NULL);
	nolock_heap_close(heap);
	/* Lost calls may have been others than getppid(). */
	if (calls > ROUNDS * CALLS || calls + lost < ROUNDS * CALLS ||
	    ours + ours_lost != ROUNDS * CALLS)
		errx(1, "that does not add up to %llu", ROUNDS * CALLS);
	return 0;
}
