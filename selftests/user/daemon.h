/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * daemon.h - running the real nolockd and nolock from tests, and leaving nothing behind: a test
 * that fails, crashes or is killed has its daemons ended and its pins and files removed by a
 * janitor process that it starts here.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <json-c/json.h>

#include "loop.h"

/* What a program wrote and how it ended. */
struct output {
	char out[1048576];
	char err[16384];
	int status; /* exit status, or 128 + signal */
};

/* What a program is to do without. */
#define WITHOUT_BPF 1u	   /* CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN */
#define WITHOUT_PERFMON 2u /* CAP_PERFMON and CAP_SYS_ADMIN */
#define WITHOUT_BTF 4u	   /* /sys/kernel/btf, in a mount namespace of its own */

struct daemon {
	pid_t pid;
	int out;	      /* read end of its stdout */
	unsigned int without; /* WITHOUT_* */
	char log[160];	      /* file of its stderr */
};

/* setup - call it first in every test: a directory of its own, its socket, the janitor. */
void setup(void);

/*
 * The directory, nolockd's socket in it, and a heap name that no other test has; nor has one that
 * name with a number from 2 to TEST_HEAPS behind it.
 */
#define TEST_HEAPS 10
const char *dir(void);
const char *sock(void);
const char *heap_name(void);
/* NAME:64M:2M */
const char *heap_arg(void);

/* fork(), and the child ends when the test does. */
pid_t test_fork(void);

/* build_path - where BUILD/NAME is. */
const char *build_path(const char *name);

/* Is this test root, with the right to use BPF? */
bool can_bpf(void);

/*
 * run_as - run a program and wait for it
 * @uid: the user to be, or 0
 * @without: WITHOUT_*, or 0
 * @argv: argv[0] is nolockd or nolock. nolockd is told the socket by NOLOCK_SOCKET.
 */
void run_as(struct output *o, uid_t uid, unsigned int without, const char *const argv[]);
#define RUN(o, ...) RUN_WITHOUT(o, 0, __VA_ARGS__)
#define RUN_WITHOUT(o, without, ...)                                                               \
	run_as((o), 0, (without), (const char *const[]){ __VA_ARGS__, NULL })

/* daemon_spawn - start nolockd, do not wait for its READY. */
void daemon_spawn(struct daemon *d, unsigned int without, const char *const argv[]);

/* The same; it is this process's tracee, stopped before it becomes nolockd. */
void daemon_spawn_traced(struct daemon *d, unsigned int without, const char *const argv[]);

/* daemon_ready - wait until it is ready; false when it ended instead. */
bool daemon_ready(struct daemon *d);

/* daemon_wait - wait for its end; its exit status, or 128 + signal. */
int daemon_wait(struct daemon *d);

/* What it has said on stderr so far. */
const char *daemon_said(const struct daemon *d);

/* Start nolockd with a heap of this test and the given options, and wait; asserts. */
#define START(d, ...) START_WITHOUT(d, 0, __VA_ARGS__)
#define START_WITHOUT(d, without, ...)                                                             \
	do {                                                                                       \
		daemon_spawn((d), (without),                                                       \
			     (const char *const[]){ "nolockd", __VA_ARGS__, NULL });               \
		cr_assert(daemon_ready(d), "nolockd did not start: %s", daemon_said(d));           \
	} while (0)

/* Stop it by SIGTERM and assert that it ended as it should, or with the given status. */
void daemon_stop(struct daemon *d);
void daemon_stop_with(struct daemon *d, int want);

/* What a nolockd that is to trace ends with here: 3 without the right to use BPF. */
int traced_status(void);

/* nolock status --json, parsed; asserts. */
json_object *get_status(void);

/* The first heap of a status, a number in it. */
json_object *first_heap(json_object *status);
unsigned long long number(json_object *o, const char *key);

/* The same number without the JSON; how many clients the first heap has. */
unsigned long long of_heap(const char *key);
size_t nr_clients(void);

/* nolock check says that the test's heap is whole; asserts. */
void check_whole(void);

/*
 * nothing_left - after a nolockd that ended well: no mount that was not there at the time of
 * remember_mounts(), no socket, and of the test's heap no pin, lock or successor; asserts
 */
void remember_mounts(void);
void nothing_left(void);

/* Skip a test that cannot do without an arena, or that takes nolockd's capabilities away. */
#define NEEDS_ARENA()                                                                              \
	do {                                                                                       \
		if (!can_bpf())                                                                    \
			cr_skip_test("an arena needs root and BPF");                               \
	} while (0)
#define NEEDS_CAPABILITIES()                                                                       \
	do {                                                                                       \
		if (geteuid())                                                                     \
			cr_skip_test("drops capabilities");                                        \
	} while (0)

/* How many lines a text has. */
int lines(const char *text);

/* Wait up to 20 s until a condition holds: for what has no event to wait for. */
#define EVENTUALLY(cond)                                                                           \
	({                                                                                         \
		unsigned long long end_ = now_ms() + 20000;                                        \
		bool held_;                                                                        \
		while (!(held_ = (cond)) && now_ms() < end_)                                       \
			usleep(10000);                                                             \
		held_;                                                                             \
	})

bool exists(const char *path);
/* The path of this test's pin, and whether it is there. */
const char *pin(void);

#endif /* DAEMON_H */
