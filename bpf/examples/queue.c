// SPDX-License-Identifier: GPL-2.0-only
/*
 * queue.c - takes the events of queue.bpf.c, sends it commands, and waits for their answers.
 *
 *	cc queue.c -o queue $(pkg-config --cflags --libs nolock) -lbpf
 *	nolockd --heap=examples:64M --destroy-on-exit --pidfile=nolockd.pid --daemon
 *	./queue
 *
 * As root. Each event's memory was allocated by a program and is freed here, each command's the
 * other way round. No ring of fixed size, no copy, no wake-up: a process that has time looks.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "events.h"
#include "me.h"
#include "programs.h"
#include "timers.h"
#include "queue.skel.h"

#define ROUNDS 2000
#define COMMANDS 10ULL

static __u64 next_seq[KINDS][EVENT_CPUS], got[KINDS];

/* All that is there. Returns how many. */
static int take_all(queues_t *q)
{
	struct queue_node *n;
	int nr = 0;

	if (!queue_trylock(&q->up))
		return 0;
	while ((n = queue_next(&q->up))) {
		const struct event *e = (const struct event *)n;

		if (e->kind >= KINDS || e->source >= EVENT_CPUS)
			errx(1, "an event of kind %u from %u", e->kind, e->source);
		/* Every source's own events are all there, in order, but for those that were lost. */
		if (e->seq < next_seq[e->kind][e->source])
			errx(1, "event %llu of kind %u after %llu", e->seq, e->kind,
			     next_seq[e->kind][e->source]);
		if (e->kind == ANSWER && e->value != got[ANSWER])
			errx(1, "an answer to %llu, not %llu", e->value, got[ANSWER]);
		next_seq[e->kind][e->source] = e->seq + 1;
		got[e->kind]++;
		queue_took(&q->up, n);
		nr++;
	}
	queue_unlock(&q->up);
	return nr;
}

static void order(struct nolock_heap *heap, queues_t *q, __u64 number)
{
	struct event *e = nolock_heap_kmalloc(heap, sizeof(*e), GFP_KERNEL);

	if (!e)
		err(1, "a command");
	e->value = number;
	queue_add(&q->down, &e->node);
}

static void make_queue(struct nolock_heap *heap, queue_t *q)
{
	struct event *stub = nolock_heap_kmalloc(heap, sizeof(*stub), GFP_KERNEL);

	if (!stub)
		err(1, "cannot make the queues");
	queue_init(q, &stub->node);
}

int main(int argc, char **argv)
{
	struct bpf_link *timers[MAX_TIMERS + 1];
	struct queue_bpf *skel;
	struct nolock_heap *heap;
	__u64 sent = 0, sources = 0;
	queues_t *q;

	skel = queue_bpf__open();
	if (!skel)
		err(1, "cannot open the programs");
	heap = open_heap(skel->obj, argc, argv);
	q = nolock_heap_kmalloc(heap, sizeof(*q), GFP_KERNEL);
	if (!q)
		err(1, "cannot make the queues");
	make_queue(heap, &q->up);
	make_queue(heap, &q->down);
	nolock_heap_set_root(heap, q);

	set_me(skel);
	skel->links.on_call = start_programs(skel->skeleton, heap, skel->progs.on_call);
	attach_timers(skel->progs.on_timer, timers);

	for (int round = 0; round < ROUNDS; round++) {
		for (__u64 i = 0; i < COMMANDS; i++)
			order(heap, q, sent++);
		for (int i = 0; i < 100; i++)
			syscall(SYS_getppid);
		take_all(q);
	}
	/* Each system call takes some commands along. */
	for (int i = 0; i < ROUNDS && got[ANSWER] < sent; i++) {
		syscall(SYS_getppid);
		take_all(q);
	}
	detach_timers(timers);
	queue_bpf__detach(skel);
	take_all(q);
	for (int cpu = 0; cpu < EVENT_CPUS; cpu++)
		sources += skel->bss->ticks[cpu];
	sources += skel->bss->calls + skel->bss->answers;
	printf("%llu system calls, %llu timer interrupts, %llu commands of %llu answered; %llu lost\n",
	       got[FROM_CALL], got[FROM_TIMER], got[ANSWER], sent, (__u64)skel->bss->lost);
	if (got[FROM_CALL] + got[FROM_TIMER] + got[ANSWER] + skel->bss->lost != sources ||
	    (got[ANSWER] != sent && !skel->bss->lost))
		errx(1, "that does not add up");
	queue_bpf__destroy(skel);
	nolock_heap_set_root(heap, NULL);
	/* What was taken last is still the first. */
	kfree((void *)q->up.head);
	kfree((void *)q->down.head);
	kfree(q);
	nolock_heap_close(heap);
	return 0;
}
