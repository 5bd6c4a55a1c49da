// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_daemon.c - nolockd starts, stops, refuses what it must, and leaves nothing behind.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"

static struct output o;

TestSuite(daemon, .init = setup, .timeout = 120);

/* Children that a process has: of a nolockd, its keepers. */
static int children(pid_t pid)
{
	char path[64];
	int child, n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "r");
	cr_assert(f);
	while (fscanf(f, "%d", &child) == 1)
		n++;
	fclose(f);
	return n;
}

static void starts_and_stops(int sig)
{
	struct daemon d;

	START(&d, heap_arg(), "--destroy-on-exit");
	cr_assert(exists(sock()));
	cr_assert_eq(exists(pin()), can_bpf());
	cr_assert_eq(children(d.pid), 1);
	kill(d.pid, sig);
	cr_assert_eq(daemon_wait(&d), traced_status(), "%s", daemon_said(&d));
	cr_assert(!exists(sock()), "the socket is left behind");
	cr_assert(!exists(pin()), "the pin is left behind");
}

Test(daemon, sigterm)
{
	starts_and_stops(SIGTERM);
}

Test(daemon, sigint)
{
	starts_and_stops(SIGINT);
}

Test(daemon, without_a_heap)
{
	struct daemon d;

	START(&d, "--no-trace");
	RUN(&o, "nolock", "stat");
	cr_assert_eq(o.status, 2);
	cr_assert(strstr(o.err, "has no heap"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1);
	daemon_stop(&d);
}

Test(daemon, keeps_the_pin_by_default)
{
	struct daemon d;

	if (!can_bpf())
		cr_skip_test("pins need root and BPF");
	START(&d, heap_arg(), "--no-trace");
	daemon_stop(&d);
	cr_assert(exists(pin()));
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	cr_assert(strstr(daemon_said(&d), "adopted"), "%s", daemon_said(&d));
	daemon_stop(&d);
	cr_assert(!exists(pin()));
}

Test(daemon, second_one_on_the_socket_is_refused)
{
	struct daemon d;

	START(&d, "--no-trace");
	RUN(&o, "nolockd", "--no-trace");
	cr_assert_eq(o.status, 1);
	cr_assert(strstr(o.err, "another nolockd serves"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	json_object_put(get_status());
	daemon_stop(&d);
}

Test(daemon, second_one_on_the_heap_is_refused)
{
	struct daemon d;
	char other[128];

	if (!can_bpf())
		cr_skip_test("pins need root and BPF");
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	snprintf(other, sizeof(other), "--socket=%s/other.sock", dir());
	RUN(&o, "nolockd", "--no-trace", heap_arg(), other);
	cr_assert_eq(o.status, 1);
	cr_assert(strstr(o.err, "another nolockd keeps it"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert(!exists(other + strlen("--socket=")), "its socket is left behind");
	RUN(&o, "nolock", "check", "--heap", heap_name());
	cr_assert_eq(o.status, 0, "%s", o.err);
	daemon_stop(&d);
}

Test(daemon, stale_socket_is_replaced)
{
	struct daemon d;

	START(&d, "--no-trace");
	kill(d.pid, SIGKILL);
	cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
	cr_assert(exists(sock()));
	START(&d, "--no-trace");
	json_object_put(get_status());
	daemon_stop(&d);
	cr_assert(!exists(sock()));
}

/* Keepers end with a nolockd that is killed, but not before: they have its socket for a moment. */
Test(daemon, socket_of_a_killed_ones_keeper_is_replaced)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct daemon d;
	int status;
	pid_t pid;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", sock());
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1))
			_exit(1);
		/* Until nolockd has found that somebody answers; for a minute, if the test fails. */
		if (!fork()) {
			alarm(60);
			accept(fd, NULL, NULL);
		}
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	START(&d, "--no-trace");
	json_object_put(get_status());
	daemon_stop(&d);
}

Test(daemon, a_file_in_the_sockets_place_is_left_alone)
{
	FILE *f = fopen(sock(), "w");

	cr_assert(f && fputs("precious", f) > 0 && !fclose(f));
	RUN(&o, "nolockd", "--no-trace");
	cr_assert_eq(o.status, 1);
	cr_assert(strstr(o.err, "is no socket"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert(exists(sock()));
}

Test(daemon, makes_and_removes_its_directory)
{
	char path[128], arg[144];
	struct daemon d;

	snprintf(path, sizeof(path), "%s/made", dir());
	snprintf(arg, sizeof(arg), "--socket=%s/n.sock", path);
	START(&d, "--no-trace", arg);
	cr_assert(exists(path));
	daemon_stop(&d);
	cr_assert(!exists(path));
}

Test(daemon, unwritable_directory)
{
	RUN(&o, "nolockd", "--no-trace", "--socket=/proc/nolockd.sock");
	cr_assert_eq(o.status, 1);
	cr_assert(strstr(o.err, "--socket=PATH"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	RUN(&o, "nolockd", "--no-trace", "--socket=/nonexistent/directory/n.sock");
	cr_assert_eq(o.status, 1);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
}

Test(daemon, another_user_in_roots_directory)
{
	char arg[144];

	if (geteuid())
		cr_skip_test("becomes another user");
	snprintf(arg, sizeof(arg), "--socket=%s/n.sock", dir());
	run_as(&o, 65534, 0, (const char *const[]){ "nolockd", "--no-trace", arg, NULL });
	cr_assert_eq(o.status, 1, "%s", o.err);
	cr_assert(strstr(o.err, "Permission denied"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
}

Test(daemon, access_by_others)
{
	static const char *const stat[] = { "nolock", "stat", NULL };
	static const char *const kernel[] = { "nolock", "stat", "--kernel", NULL };
	static const char *const trace[] = { "nolock", "trace", "--duration=1", NULL };
	struct daemon d;

	if (geteuid())
		cr_skip_test("becomes another user");
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	run_as(&o, 65534, 0, stat);
	cr_assert_eq(o.status, 2);
	cr_assert(strstr(o.err, "may not use nolockd's socket"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	daemon_stop(&d);

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit", "--group=65534", "--mode=660");
	run_as(&o, 65534, 0, stat);
	cr_assert_eq(o.status, 0, "%s", o.err);
	cr_assert(strstr(o.out, heap_name()), "%s", o.out);
	/* The kernel's and everybody's events are for root alone. */
	run_as(&o, 65534, 0, kernel);
	cr_assert_eq(o.status, 2);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	run_as(&o, 65534, 0, trace);
	cr_assert_eq(o.status, 2);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	daemon_stop(&d);
}

Test(daemon, pin_has_the_access_asked_for)
{
	struct daemon d;
	struct stat st;

	if (!can_bpf())
		cr_skip_test("pins need root and BPF");
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit", "--owner=65534", "--mode=640");
	cr_assert(!stat(pin(), &st));
	cr_assert_eq(st.st_uid, 65534);
	cr_assert_eq(st.st_mode & 0777, 0640);
	cr_assert(!stat(sock(), &st));
	cr_assert_eq(st.st_uid, 65534);
	cr_assert_eq(st.st_mode & 0777, 0640);
	daemon_stop(&d);
}

Test(daemon, pidfile)
{
	char path[128], arg[144];
	struct daemon d;
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/pidfile", dir());
	snprintf(arg, sizeof(arg), "--pidfile=%s", path);
	START(&d, "--no-trace", arg);
	f = fopen(path, "r");
	cr_assert(f && fscanf(f, "%d", &pid) == 1);
	fclose(f);
	cr_assert_eq(pid, d.pid);
	daemon_stop(&d);
	cr_assert(!exists(path));
	RUN(&o, "nolockd", "--no-trace", "--pidfile=/proc/nolockd.pid");
	cr_assert_eq(o.status, 1);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert(!exists(sock()));
}

Test(daemon, background)
{
	char path[128], arg[144], gone[32];
	int pid = 0;
	FILE *f;

	/* A name that the test's janitor finds, should the test fail. */
	snprintf(path, sizeof(path), "%s/pid.63", dir());
	snprintf(arg, sizeof(arg), "--pidfile=%s", path);
	RUN(&o, "nolockd", heap_arg(), "--no-trace", "--daemon", "--destroy-on-exit", arg);
	cr_assert_eq(o.status, 0, "%s", o.err);
	json_object_put(get_status());
	f = fopen(path, "r");
	cr_assert(f && fscanf(f, "%d", &pid) == 1);
	fclose(f);
	/* What fails in the background is the caller's to know. */
	RUN(&o, "nolockd", "--no-trace", "--daemon");
	cr_assert_eq(o.status, 1);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert(!kill(pid, SIGTERM));
	snprintf(gone, sizeof(gone), "/proc/%d/stat", pid);
	cr_assert(EVENTUALLY(!exists(sock()) && !exists(path)));
	cr_assert(EVENTUALLY(!exists(pin())));
}

Test(daemon, tells_the_service_manager)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct daemon d;
	char text[64];
	ssize_t n;
	int fd;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", dir());
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert(fd >= 0 && !bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	setenv("NOTIFY_SOCKET", addr.sun_path, 1);
	START(&d, "--no-trace");
	n = recv(fd, text, sizeof(text) - 1, 0);
	cr_assert(n > 0);
	text[n] = 0;
	cr_assert_str_eq(text, "READY=1");
	daemon_stop(&d);
	n = recv(fd, text, sizeof(text) - 1, 0);
	cr_assert(n > 0);
	text[n] = 0;
	cr_assert_str_eq(text, "STOPPING=1");
	close(fd);
}

Test(daemon, check_config_does_nothing)
{
	RUN(&o, "nolockd", heap_arg(), "--check-config");
	cr_assert_eq(o.status, 0);
	cr_assert(!exists(sock()));
	cr_assert(!exists(pin()));
	RUN(&o, "nolockd", "--heap=..", "--check-config");
	cr_assert_eq(o.status, 2);
}

Test(daemon, drops_what_it_no_longer_needs)
{
	unsigned long long caps = ~0ULL;
	char path[64], line[256];
	struct daemon d;
	FILE *f;

	if (!can_bpf())
		cr_skip_test("has no capabilities to drop");
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	snprintf(path, sizeof(path), "/proc/%d/status", d.pid);
	f = fopen(path, "r");
	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "CapEff: %llx", &caps);
	fclose(f);
	cr_assert_eq(caps & (1ULL << 1 | 1ULL << 12 | 1ULL << 16 | 1ULL << 19), 0,
		     "DAC_OVERRIDE, NET_ADMIN, SYS_MODULE or SYS_PTRACE is left: %llx", caps);
	/* The keeper has none at all. */
	snprintf(path, sizeof(path), "/proc/%llu/status",
		 number(first_heap(get_status()), "keeper"));
	f = fopen(path, "r");
	cr_assert(f);
	caps = ~0ULL;
	while (fgets(line, sizeof(line), f))
		sscanf(line, "CapPrm: %llx", &caps);
	fclose(f);
	cr_assert_eq(caps, 0);
	daemon_stop(&d);
}
