// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz_server.c - what nolockd reads from its socket. The real server serves a real heap to this
 * process; an input is one connection's packets, with descriptors beside them or not.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"
#include "fuzz.h"
#include "heaps.h"
#include "loop.h"
#include "proto.h"
#include "server.h"
#include "wire.h"

static struct sockaddr_un addr = { .sun_family = AF_UNIX };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_daemon_start(addr.sun_path, sizeof(addr.sun_path));
	return 0;
}

/* Until nothing is left to do. */
static void serve(void)
{
	for (int i = 0; i < 16; i++)
		FUZZ_ASSERT(!loop_once(0));
	heaps_tick();
	server_tick();
	FUZZ_ASSERT(heaps_find(FUZZ_HEAP));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	char packet[512], answer[1024];
	int conn, fd;

	conn = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	FUZZ_ASSERT(conn >= 0);
	FUZZ_ASSERT(!connect(conn, (struct sockaddr *)&addr, sizeof(addr)));
	while (in.left) {
		unsigned int how = (unsigned int)input_number(&in, 1);
		struct nl_request *req = (struct nl_request *)packet;
		size_t len = how & 1 ? sizeof(*req) : input_number(&in, 1) * 2;

		input_bytes(&in, packet, len);
		/* Most that is of any use is a request. */
		if (how & 2) {
			req->magic = NL_PROTO_MAGIC;
			req->version = NL_PROTO_VERSION;
			req->op = how >> 5;
		}
		if (how & 4)
			strcpy(req->name, FUZZ_HEAP);
		fd = how & 8 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
		wire_send(conn, packet, len, fd, MSG_DONTWAIT);
		if (fd >= 0)
			close(fd);
		if (how & 16)
			serve();
		while (wire_receive(conn, answer, sizeof(answer), &fd, MSG_DONTWAIT) > 0)
			if (fd >= 0)
				close(fd);
	}
	serve();
	close(conn);
	serve();
	return 0;
}
