// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz_report.c - what nolockd reads from a keeper, which is not trusted either: it has looked into
 * a heap. In the keepers' place here is one that says what the input has.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon.h"
#include "fuzz.h"
#include "heaps.h"
#include "json.h"
#include "keeper.h"
#include "loop.h"
#include "wire.h"

/* The keeper's end of the pair comes to us through this one. */
static int here = -1, there = -1, keeper = -1;

/* Instead of keeper.c's. */
void keeper_run(const struct keeper_job *job)
{
	struct keeper_report ready = { .event = KEEPER_READY };
	char order[256];
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	wire_send(there, "", 1, job->sock, 0);
	wire_send(job->sock, &ready, sizeof(ready), -1, 0);
	close_range(3, (unsigned int)job->sock - 1, 0);
	close_range((unsigned int)job->sock + 1, ~0u, 0);
	/* As a keeper does, it ends with the pair. */
	while (wire_receive(job->sock, order, sizeof(order), &fd, 0) > 0)
		if (fd >= 0)
			close(fd);
	_exit(0);
}

static void take_keeper(void)
{
	char byte;
	int fd;

	while (wire_receive(here, &byte, 1, &fd, MSG_DONTWAIT) > 0) {
		if (keeper >= 0)
			close(keeper);
		keeper = fd;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char path[108];
	int pair[2];

	(void)argc;
	(void)argv;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		err(1, "socketpair");
	here = pair[0];
	there = pair[1];
	fuzz_daemon_start(path, sizeof(path));
	take_keeper();
	FUZZ_ASSERT(keeper >= 0);
	return 0;
}

static void serve(void)
{
	char order[256];
	int fd;

	for (int i = 0; i < 16; i++)
		FUZZ_ASSERT(!loop_once(0));
	while (keeper >= 0 && wire_receive(keeper, order, sizeof(order), &fd, MSG_DONTWAIT) > 0)
		if (fd >= 0)
			close(fd);
	heaps_tick();
	take_keeper();
	json_object_put(heaps_status());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct keeper_report r;

	/* Damaged by the last one's report, or its keeper was given up. */
	if (!heaps_find(FUZZ_HEAP) || heap_why(heaps_find(FUZZ_HEAP))) {
		heaps_stop();
		close(keeper);
		keeper = -1;
		fuzz_heap_start();
		take_keeper();
		FUZZ_ASSERT(keeper >= 0);
	}
	while (in.left) {
		unsigned int how = (unsigned int)input_number(&in, 1);
		size_t len = how & 1 ? sizeof(r) : input_number(&in, 1) % sizeof(r);

		input_bytes(&in, &r, sizeof(r));
		if (how & 2)
			r.event = how >> 4 & 7;
		/* Of the few numbers that there are. */
		if (how & 4)
			r.client %= 300;
		if (how & 8)
			r.pid = how & 0x80 ? getpid() : 1;
		if (len)
			wire_send(keeper, &r, len, -1, MSG_DONTWAIT);
		serve();
	}
	return 0;
}
