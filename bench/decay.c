// SPDX-License-Identifier: GPL-2.0-only
/*
 * decay.c - what becomes of memory that was freed.
 *
 * Each allocator's process allocates 64 MiB of 16 to 1024 bytes, writes to all of it, and frees
 * it. From then on it allocates a little ten times a second, as a program does that has nothing to
 * do, and its RSS is looked at. At last it is told to give back what it can.
 */
#define _GNU_SOURCE
#include <err.h>
#include <string.h>
#include <time.h>

#include "bench.h"

#define BURST (64ULL << 20)
#define MIB (1 << 20)
#define TICKS_A_SECOND 10

const double decay_at[DECAY_SAMPLES] = { 0, 0.5, 1, 2, 5, 10, 12 };

static int ask(struct peer *peers, unsigned int i, struct decay *d, uint32_t op,
	       struct work_reply *reply, struct report *r)
{
	struct work_request req = { .op = op, .units = BURST };
	const char *why;

	if (!d[i].ran || !peer_ask(&peers[i], &req, reply, &why))
		return 0;
	d[i].ran = false;
	report_skip(r, "decay: %s %s", allocators[i].name, why);
	return allocators[i].kind == KIND_OURS ? -1 : 0;
}

static int ask_all(struct peer *peers, struct decay *d, uint32_t op, unsigned int sample,
		   struct report *r)
{
	struct work_reply reply = { 0 };
	int bad = 0;

	for (unsigned int i = 0; i < nr_allocators; i++) {
		bad |= ask(peers, i, d, op, &reply, r);
		if (!d[i].ran)
			continue;
		if (op == WORK_BURST)
			d[i].peak = (double)reply.peak / MIB;
		if (op == WORK_TRIM)
			d[i].trimmed = (double)reply.rss / MIB;
		else if (sample < DECAY_SAMPLES)
			d[i].rss[sample] = (double)reply.rss / MIB;
	}
	return bad;
}

int decay_run(struct decay *d, const struct options *o, const struct found *found, struct report *r)
{
	const struct timespec pause = { .tv_nsec = 1000000000 / TICKS_A_SECOND };
	struct peer peers[NR_ALLOCATORS_MAX];
	bool started[NR_ALLOCATORS_MAX] = { false };
	unsigned int sample = 1, ticks = 0;
	int bad;

	memset(d, 0, nr_allocators * sizeof(*d));
	for (unsigned int i = 0; i < nr_allocators; i++) {
		int error;

		if (!found[i].there || allocators[i].kind == KIND_OTHER)
			continue;
		error = peer_start(&peers[i], &allocators[i], &found[i], o, 96 << 10);
		if (error)
			errx(1, "cannot start a process for %s: %s", allocators[i].name,
			     strerror(-error));
		started[i] = d[i].ran = true;
	}
	bad = ask_all(peers, d, WORK_BURST, 0, r);
	while (sample < DECAY_SAMPLES && !bad) {
		bool due = ++ticks >= decay_at[sample] * TICKS_A_SECOND;

		nanosleep(&pause, NULL);
		bad = ask_all(peers, d, WORK_TICK, due ? sample : DECAY_SAMPLES, r);
		sample += due;
	}
	if (!bad)
		bad = ask_all(peers, d, WORK_TRIM, DECAY_SAMPLES, r);
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (started[i])
			peer_stop(&peers[i]);
	return bad;
}
