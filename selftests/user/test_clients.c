// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_clients.c - processes come and go, die, lie and scribble: nolockd and the heap go on.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <nolock/heap.h>

#include "client.h"
#include "daemon.h"
#include "proto.h"

static struct output o;

TestSuite(clients, .init = setup, .timeout = 120);

Test(clients, come_and_go)
{
	struct client c[3];
	struct daemon d;
	int i;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	for (i = 0; i < 3; i++) {
		client_start(&c[i], heap_name());
		DO(&c[i], 'a');
	}
	cr_assert_eq(nr_clients(), 3);
	for (i = 0; i < 3; i++) {
		DO(&c[i], 'f');
		client_kill(&c[i]);
	}
	cr_assert(EVENTUALLY(nr_clients() == 0));
	check_whole();
	daemon_stop(&d);
}

Test(clients, close_and_open_again)
{
	struct client c;
	struct daemon d;
	int i;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	client_start(&c, heap_name());
	/* More often than there are indices. */
	for (i = 0; i < 300; i++) {
		DO(&c, 'c');
		DO(&c, 'o');
	}
	DO(&c, 'a');
	DO(&c, 'f');
	cr_assert(EVENTUALLY(nr_clients() == 1));
	DO(&c, 'c');
	cr_assert(EVENTUALLY(nr_clients() == 0), "a close is not noticed while the process lives");
	client_kill(&c);
	check_whole();
	daemon_stop(&d);
}

/* A process that closes all its descriptors still has the heap: it is no dead client. */
Test(clients, without_descriptors)
{
	struct client c;
	struct daemon d;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	client_start(&c, heap_name());
	DO(&c, 'a');
	DO(&c, 'd');
	/* Its answer comes when nolockd and the keeper have done all that was asked before. */
	check_whole();
	cr_assert_eq(nr_clients(), 1);
	DO(&c, 'v');
	DO(&c, 'f');
	client_kill(&c);
	cr_assert(EVENTUALLY(nr_clients() == 0), "its end is not noticed");
	check_whole();
	daemon_stop(&d);
}

/* SIGKILL in the middle of whatever it is: the others go on, and the inventory is whole. */
Test(clients, killed_in_a_storm)
{
	struct client victim, other;
	struct daemon d;
	int i;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	client_start(&other, heap_name());
	for (i = 0; i < 40; i++) {
		client_start(&victim, heap_name());
		DO(&victim, 's');
		usleep(3000 + i * 200);
		client_kill(&victim);
		DO(&other, 'a');
		DO(&other, 'f');
	}
	cr_assert(EVENTUALLY(nr_clients() == 1));
	cr_assert_eq(of_heap("clients_gone"), 40);
	check_whole();
	client_kill(&other);
	daemon_stop(&d);
	cr_log_info("40 clients killed");
}

Test(clients, as_many_as_there_can_be)
{
	struct daemon d;
	int conn[257], error, i;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	for (i = 0; i < 257; i++) {
		conn[i] = dial_heap(&error);
		cr_assert_geq(conn[i], 0, "%s", strerror(errno));
		cr_assert_eq(error, i < 256 ? 0 : EUSERS, "client %d: %d", i, error);
	}
	errno = 0;
	cr_assert_null(nolock_heap_open(heap_name()));
	cr_assert_eq(errno, EUSERS);
	cr_assert(close_heap(conn[0]));
	cr_assert(EVENTUALLY(nolock_heap_open(heap_name())));
	daemon_stop(&d);
}

Test(clients, open_errors)
{
	struct daemon d;

	errno = 0;
	cr_assert_null(nolock_heap_open(heap_name()));
	cr_assert_eq(errno, ECONNREFUSED, "%s", strerror(errno));
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	errno = 0;
	cr_assert_null(nolock_heap_open("no-such-heap"));
	cr_assert_eq(errno, ENOENT, "%s", strerror(errno));
	errno = 0;
	cr_assert_null(nolock_heap_open("a/b"));
	cr_assert_eq(errno, EINVAL, "%s", strerror(errno));
	daemon_stop(&d);
}

/* A client that overwrites the header ends the service of that heap, and nothing else (P5). */
Test(clients, scribbler)
{
	char arg[64], name[40];
	struct client c;
	struct daemon d;

	snprintf(name, sizeof(name), "%s2", heap_name());
	snprintf(arg, sizeof(arg), "--heap=%s:16M:0", name);
	START(&d, heap_arg(), arg, "--no-trace");
	client_start(&c, heap_name());
	DO(&c, 'a');
	DO(&c, 'g');
	cr_assert(EVENTUALLY(strstr(daemon_said(&d), "overwritten")), "%s", daemon_said(&d));
	RUN(&o, "nolock", "check", "--heap", heap_name());
	cr_assert_eq(o.status, 2, "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	RUN(&o, "nolock", "check", "--heap", name);
	cr_assert_eq(o.status, 0, "%s", o.err);
	errno = 0;
	cr_assert_null(nolock_heap_open(heap_name()));
	cr_assert_eq(errno, EUCLEAN, "%s", strerror(errno));
	client_kill(&c);
	/* Both pins stay: this one was not to be destroyed. */
	daemon_stop(&d);
	START(&d, arg, "--no-trace", "--destroy-on-exit");
	daemon_stop(&d);
}

/* A keeper that is killed is replaced; the heap is adopted like that of an earlier nolockd. */
Test(clients, keeper_killed)
{
	struct client c;
	struct daemon d;
	pid_t keeper;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	client_start(&c, heap_name());
	DO(&c, 'a');
	keeper = of_heap("keeper");
	cr_assert(!kill(keeper, SIGKILL));
	cr_assert(EVENTUALLY(of_heap("keeper_restarts") == 1));
	cr_assert(EVENTUALLY(of_heap("keeper") != (unsigned int)keeper));
	cr_assert_eq(nr_clients(), 1);
	DO(&c, 'f');
	check_whole();
	client_kill(&c);
	cr_assert(EVENTUALLY(nr_clients() == 0));
	daemon_stop(&d);
}

/* What no client says: each gets an error or the end of the connection, and nolockd goes on. */
Test(clients, garbage_on_the_socket)
{
	struct nl_request req = { 0 };
	struct nl_reply rep;
	struct daemon d;
	char noise[4096];
	int fd, i;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	for (i = 0; i < 200; i++) {
		size_t len = i * 19 % sizeof(noise) + 1;

		memset(noise, i, sizeof(noise));
		fd = dial();
		cr_assert_geq(fd, 0, "%s", strerror(errno));
		cr_assert(send(fd, noise, len, MSG_NOSIGNAL) > 0);
		cr_assert_eq(recv(fd, &rep, sizeof(rep), 0), sizeof(rep));
		cr_assert_eq(rep.error, EPROTO);
		cr_assert_eq(recv(fd, &rep, sizeof(rep), 0), 0);
		close(fd);
	}
	for (i = 0; i < 64; i++) {
		req.magic = NL_PROTO_MAGIC;
		req.version = NL_PROTO_VERSION + (i == 1);
		req.op = i;
		memset(req.name, 0xff, sizeof(req.name)); /* unterminated */
		fd = dial();
		cr_assert_geq(fd, 0, "%s", strerror(errno));
		cr_assert_eq(send(fd, &req, sizeof(req), MSG_NOSIGNAL), sizeof(req));
		cr_assert_eq(recv(fd, &rep, sizeof(rep), 0), sizeof(rep));
		if (i != NL_OP_STATUS && i != NL_OP_KERNEL)
			cr_assert_neq(rep.error, 0, "operation %d", i);
		close(fd);
	}
	/* Somebody who asks for a lot and reads nothing of it. */
	for (i = 0; i < 32; i++) {
		req.version = NL_PROTO_VERSION;
		req.op = NL_OP_STATUS;
		fd = dial();
		cr_assert_geq(fd, 0, "%s", strerror(errno));
		cr_assert_eq(send(fd, &req, sizeof(req), MSG_NOSIGNAL), sizeof(req));
	}
	check_whole();
	daemon_stop(&d);
}
