// SPDX-License-Identifier: GPL-2.0-only
/*
 * skiplist.c - adds deadlines to the list of skiplist.bpf.c, cancels some, and reads it in order.
 *
 *	cc skiplist.c -o skiplist $(pkg-config --cflags --libs nolock) -lbpf -lpthread
 *	nolockd --heap=examples:64M --destroy-on-exit --pidfile=nolockd.pid --daemon
 *	./skiplist
 *
 * As root. A second thread reads all the time, without a lock, and the first one begins a new epoch
 * now and then, so that what was removed is freed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "skiplist.h"
#include "me.h"
#include "programs.h"
#include "timers.h"
#include "skiplist.skel.h"

#define ROUNDS 200
#define AT_ONCE 100
#define MOST 100000
#define READER EPOCH_PROCESS

static skiplist_t *list;
static int stop;
static __u64 readings, nodes_read;

static __u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (__u64)t.tv_sec * 1000000000 + (__u64)t.tv_nsec;
}

/* From the first to the last: in order, whatever is added and removed meanwhile. */
static void *reader(void *arg)
{
	while (!load(&stop)) {
		int epoch = epoch_enter(&list->epoch, READER);
		__u64 before = 0, n = 0;
		skip_node_t *at;

		if (epoch < 0)
			continue;
		for (at = skip_first_from(list, 1); at && n < MOST; at = skip_next(at, 0), n++) {
			__u64 key = load(&at->key);

			if (key <= before)
				errx(1, "%llu after %llu", key, before);
			before = key;
		}
		epoch_exit(&list->epoch, READER, epoch);
		nodes_read += n;
		readings++;
		usleep(100);
	}
	return arg;
}

int main(int argc, char **argv)
{
	struct bpf_link *timers[MAX_TIMERS + 1];
	__u64 added = 0, cancelled = 0, not_added = 0, epochs = 0, left, keys[AT_ONCE];
	struct skiplist_bpf *skel;
	struct nolock_heap *heap;
	pthread_t thread;

	skel = skiplist_bpf__open();
	if (!skel)
		err(1, "cannot open the programs");
	heap = open_heap(skel->obj, argc, argv);
	list = skip_create(heap);
	if (!list)
		err(1, "cannot make the list");
	nolock_heap_set_root(heap, list);

	set_me(skel);
	skel->links.on_call = start_programs(skel->skeleton, heap, skel->progs.on_call);
	attach_timers(skel->progs.on_timer, timers);
	if (pthread_create(&thread, NULL, reader, NULL))
		errx(1, "no thread");

	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < AT_ONCE; i++) {
			/* Even: no key of the program's. Some are far enough away to be cancelled. */
			keys[i] = (now_ns() + (i & 1 ? 1000000 : 1000000000000ULL)) & ~1ULL;
			if (skip_add(list, keys[i], (__u64)i)) {
				keys[i] = 0;
				not_added++;
			} else {
				added++;
			}
			syscall(SYS_getppid);
		}
		for (int i = 0; i < AT_ONCE; i++)
			if (keys[i] && !skip_del(list, keys[i]))
				cancelled++;
		epochs += (unsigned int)epoch_advance(&list->epoch);
	}
	/* Running, without a system call: until the timers have taken out all, or for some seconds. */
	for (__u64 end = now_ns() + 5000000000ULL; load(&list->nr) && now_ns() < end;)
		epochs += (unsigned int)epoch_advance(&list->epoch);
	store(&stop, 1);
	pthread_join(thread, NULL);
	detach_timers(timers);
	skiplist_bpf__detach(skel);
	left = list->nr;
	printf("%llu deadlines of system calls, %llu of our own; %llu over, %llu cancelled, %llu "
	       "left; %llu given up\n",
	       (__u64)skel->bss->added, added, (__u64)skel->bss->expired, cancelled, left,
	       (__u64)skel->bss->not_added + not_added);
	printf("%llu readings of %llu nodes, %llu epochs; limbo is %s\n", readings, nodes_read,
	       epochs, list->limbo_first ? "not empty" : "empty");
	if (skel->bss->early)
		errx(1, "%llu were taken out too early", (__u64)skel->bss->early);
	if (skel->bss->added + added != skel->bss->expired + cancelled + left)
		errx(1, "that does not add up");
	skiplist_bpf__destroy(skel);
	nolock_heap_set_root(heap, NULL);
	skip_destroy(list);
	nolock_heap_close(heap);
	return 0;
}
