// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_killed.c - nolockd and clients die by SIGKILL, at every step that leaves a trace.
 *
 * Between two system calls that change something outside of its own memory nolockd may die anywhere:
 * what it leaves is the same. So it is traced, and killed right after each of these calls in turn,
 * when it starts, adopts a heap, makes one anew, repairs and stops. The next one then starts on what
 * is left, serves, and leaves nothing behind when it ends.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nolock/heap.h>

#include "bpffs.h"
#include "client.h"
#include "daemon.h"

static struct output o;

/* Mounts of its own where a bpffs is: no other nolockd's comes or goes among them. */
static void begin(void)
{
	cr_assert(geteuid() || (!unshare(CLONE_NEWNS) &&
				!mount("none", "/sys", NULL, MS_REC | MS_PRIVATE, NULL)),
		  "%s", strerror(errno));
	remember_mounts();
	setup();
}

TestSuite(killed, .init = begin, .timeout = 300);

/* Does the call change what others see, or what is left when its caller is gone? */
static bool leaves_a_trace(const struct __ptrace_syscall_info *info)
{
	switch (info->entry.nr) {
	case SYS_bpf:
		return info->entry.args[0] == BPF_OBJ_PIN ||
		       info->entry.args[0] == BPF_MAP_CREATE ||
		       info->entry.args[0] == BPF_PROG_TEST_RUN;
	case SYS_openat:
		return info->entry.args[2] & O_CREAT;
#ifdef SYS_mkdir
	case SYS_mkdir:
	case SYS_rmdir:
	case SYS_unlink:
	case SYS_rename:
	case SYS_chmod:
	case SYS_chown:
	case SYS_fork:
	case SYS_vfork:
#endif
	case SYS_mkdirat:
	case SYS_unlinkat:
	case SYS_renameat:
	case SYS_renameat2:
	case SYS_fchmodat:
	case SYS_fchownat:
	case SYS_clone:
	case SYS_clone3:
	case SYS_bind:
	case SYS_listen:
	case SYS_mount:
	case SYS_umount2:
	case SYS_flock:
	case SYS_memfd_create:
	case SYS_ftruncate:
	case SYS_fcntl:
	case SYS_pwrite64:
	case SYS_write:
	case SYS_sendmsg:
	case SYS_sendto:
	case SYS_kill:
		return true;
	}
	return false;
}

/* When there is nothing more to be killed at. */
enum phase {
	UNTIL_READY,
	UNTIL_REPLACED, /* the heap's name means another, and who asked for that was answered */
	WHILE_IT_SERVES,
	UNTIL_THE_END,
};

static bool is_over(enum phase phase, const struct __ptrace_syscall_info *info, bool *replaced)
{
	switch (phase) {
	case UNTIL_READY:
		return info->entry.nr == SYS_write && info->entry.args[0] == 1;
	case UNTIL_REPLACED:
		if (*replaced && info->entry.nr == SYS_sendmsg)
			return true;
		*replaced |= info->entry.nr == SYS_renameat || info->entry.nr == SYS_renameat2 ||
			     info->entry.nr == SYS_pwrite64;
#ifdef SYS_rename
		*replaced |= info->entry.nr == SYS_rename;
#endif
		return false;
	case WHILE_IT_SERVES:
	case UNTIL_THE_END:
		break;
	}
	return false;
}

/*
 * Let the tracee go on until the nth call that leaves a trace has returned, and kill it there. False
 * if the phase ends before: it is let go, or has ended.
 */
static bool kill_at(pid_t pid, enum phase phase, unsigned int n)
{
	struct __ptrace_syscall_info info;
	bool traces = false, replaced = false, over = false;
	unsigned int nr = 0;
	int status;

	for (;;) {
		int sig = 0;

		if (ptrace(PTRACE_SYSCALL, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid)
			return false;
		if (!WIFSTOPPED(status)) {
			cr_assert_eq(phase, UNTIL_THE_END, "nolockd ended by itself: %#x", status);
			return false;
		}
		if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
			/* Its own signals, but not the stops of tracing. */
			if (!(status >> 16) && WSTOPSIG(status) != SIGTRAP)
				sig = WSTOPSIG(status);
			if (sig && ptrace(PTRACE_SYSCALL, pid, 0, sig))
				return false;
			if (sig && waitpid(pid, &status, __WALL) != pid)
				return false;
			if (sig && !WIFSTOPPED(status))
				return false;
			if (!sig || WSTOPSIG(status) != (SIGTRAP | 0x80))
				continue;
		}
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0)
			return false;
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
			traces = leaves_a_trace(&info);
			over = is_over(phase, &info, &replaced);
			continue;
		}
		if (traces && nr++ == n)
			break;
		if (over) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			return false;
		}
	}
	kill(pid, SIGKILL);
	return true;
}

#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)

/* Trace one that runs. */
static void seize(const struct daemon *d)
{
	int status;

	cr_assert(!ptrace(PTRACE_SEIZE, d->pid, 0, OPTIONS), "%s", strerror(errno));
	cr_assert(!ptrace(PTRACE_INTERRUPT, d->pid, 0, 0));
	cr_assert_eq(waitpid(d->pid, &status, __WALL), d->pid);
}

/* Start one, and kill it at its nth step. False: it is ready. */
static bool start_and_kill(struct daemon *d, unsigned int without, const char *const argv[],
			   unsigned int n)
{
	int status;

	daemon_spawn_traced(d, without, argv);
	cr_assert_eq(waitpid(d->pid, &status, __WALL), d->pid);
	cr_assert(WIFSTOPPED(status));
	cr_assert(!ptrace(PTRACE_SETOPTIONS, d->pid, 0, OPTIONS));
	if (!kill_at(d->pid, UNTIL_READY, n)) {
		cr_assert(daemon_ready(d), "%s", daemon_said(d));
		return false;
	}
	cr_assert_eq(daemon_wait(d), 128 + SIGKILL);
	return true;
}

/* Arenas of this test that the kernel still has. */
static unsigned int nr_arenas(void)
{
	char want[BPF_OBJ_NAME_LEN];
	unsigned int n = 0;
	__u32 id = 0;

	snprintf(want, sizeof(want), "nl_%.12s", heap_name());
	for (char *p = want; *p; p++)
		if (*p == '.')
			*p = '_';
	while (can_bpf() && !bpf_map_get_next_id(id, &id)) {
		struct bpf_map_info info = { 0 };
		__u32 len = sizeof(info);
		int fd = bpf_map_get_fd_by_id(id);

		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len)) {
			for (char *p = info.name; *p; p++)
				if (*p == '.')
					*p = '_';
			n += info.type == BPFFS_MAP_TYPE_ARENA && !strcmp(info.name, want);
		}
		if (fd >= 0)
			close(fd);
	}
	return n;
}

/* After a nolockd that ended well: nothing of its own or of the killed. */
static void none_left(void)
{
	nothing_left();
	cr_assert(EVENTUALLY(nr_arenas() == 0), "an arena is left behind");
}

static const char *args(const char *const **argv, bool destroy)
{
	static const char *list[5];

	list[0] = "nolockd";
	list[1] = heap_arg();
	list[2] = "--no-trace";
	list[3] = destroy ? "--destroy-on-exit" : NULL;
	*argv = list;
	return list[1];
}

static void starts(unsigned int without)
{
	const char *const *argv;
	struct daemon d;
	unsigned int n;

	args(&argv, true);
	for (n = 0; start_and_kill(&d, without, argv, n); n++) {
		START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
		heap_serves();
		cr_assert(EVENTUALLY(nr_arenas() == (can_bpf() && !without)));
		daemon_stop(&d);
		none_left();
	}
	daemon_stop(&d);
	none_left();
	cr_assert_gt(n, 5);
	printf("# killed: nolockd at %u steps of its start%s\n", n, without ? ", without BPF" : "");
}

Test(killed, when_it_starts)
{
	starts(0);
}

Test(killed, when_it_starts_without_bpf)
{
	NEEDS_CAPABILITIES();
	starts(WITHOUT_BPF);
}

/* It adopts a heap in which a client has objects and another one is at work. */
static void adopts(unsigned int without)
{
	struct client c, busy;
	const char *const *argv;
	struct daemon d;
	unsigned int n;

	args(&argv, true);
	START_WITHOUT(&d, without, heap_arg(), "--no-trace");
	client_start(&c, heap_name());
	client_start(&busy, heap_name());
	DO(&c, 'a');
	DO(&busy, 's');
	for (n = 0;; n++) {
		kill(d.pid, SIGKILL);
		cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
		/* While nobody keeps the heap: the next one has its locks to take over. */
		if (n % 4 == 1) {
			client_kill(&busy);
			if (!start_and_kill(&d, without, argv, n))
				break;
			START_WITHOUT(&d, without, heap_arg(), "--no-trace");
			client_start(&busy, heap_name());
			DO(&busy, 's');
		} else {
			if (!start_and_kill(&d, without, argv, n))
				break;
			DO(&c, 'v');
			START_WITHOUT(&d, without, heap_arg(), "--no-trace");
		}
		cr_assert(strstr(daemon_said(&d), "adopted"), "%s", daemon_said(&d));
		DO(&c, 'v');
	}
	if (n % 4 != 1)
		client_kill(&busy);
	cr_assert(EVENTUALLY(nr_clients() == 1));
	DO(&c, 'v');
	DO(&c, 'f');
	heap_serves();
	client_kill(&c);
	daemon_stop(&d);
	none_left();
	cr_assert_gt(n, 5);
	printf("# killed: nolockd at %u steps of an adoption%s\n", n,
	       without ? ", without BPF" : "");
}

Test(killed, when_it_adopts)
{
	NEEDS_ARENA();
	adopts(0);
}

Test(killed, when_it_adopts_without_bpf)
{
	NEEDS_CAPABILITIES();
	adopts(WITHOUT_BPF);
}

static void stops(bool destroy)
{
	struct daemon d;
	unsigned int n;

	for (n = 0;; n++) {
		const char *const *argv;

		args(&argv, destroy);
		daemon_spawn(&d, 0, argv);
		cr_assert(daemon_ready(&d), "%s", daemon_said(&d));
		heap_serves();
		seize(&d);
		kill(d.pid, SIGTERM);
		if (!kill_at(d.pid, UNTIL_THE_END, n))
			break;
		cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
		START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
		heap_serves();
		daemon_stop(&d);
		none_left();
	}
	if (!destroy) {
		START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
		daemon_stop(&d);
	}
	none_left();
	cr_assert_gt(n, 2);
	printf("# killed: nolockd at %u steps of its end\n", n);
}

Test(killed, when_it_stops)
{
	stops(true);
	stops(false);
}

/* A heap is made anew: its name means the old one or the new one, whole, at every step. */
static void made_anew(unsigned int without)
{
	struct client c;
	struct daemon d;
	unsigned int n, olds = 0, news = 0;
	int status;
	pid_t asker;
	bool killed;

	for (n = 0, killed = true; killed; n++) {
		START_WITHOUT(&d, without, heap_arg(), "--no-trace");
		client_start(&c, heap_name());
		DO(&c, 'a');
		seize(&d);
		asker = test_fork();
		if (asker == 0) {
			RUN(&o, "nolock", "rebuild", "--force", "--heap", heap_name());
			_exit(o.status);
		}
		killed = kill_at(d.pid, UNTIL_REPLACED, n);
		if (killed)
			cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
		cr_assert_eq(waitpid(asker, &status, 0), asker);
		cr_assert(killed || !status, "nolock rebuild: %#x", status);
		DO(&c, 'v');
		if (killed) {
			START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
			if (nr_clients())
				olds++;
			else
				news++;
		}
		DO(&c, 'v');
		heap_serves();
		DO(&c, 'f');
		client_kill(&c);
		if (!killed) {
			/* It would stay. */
			kill(d.pid, SIGKILL);
			daemon_wait(&d);
			START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
		}
		daemon_stop(&d);
		none_left();
	}
	cr_assert_gt(olds, 0);
	cr_assert_gt(news, 0);
	printf("# killed: nolockd at %u steps of a heap made anew%s: %u old, %u new\n", n - 1,
	       without ? ", without BPF" : "", olds, news);
}

Test(killed, when_it_makes_a_heap_anew)
{
	NEEDS_ARENA();
	made_anew(0);
}

Test(killed, when_it_makes_a_heap_anew_without_bpf)
{
	NEEDS_CAPABILITIES();
	made_anew(WITHOUT_BPF);
}

/* It dies as it has the keeper repair what a client held, which died in a storm; the next one does it. */
static void repairs(unsigned int without)
{
	enum { VICTIMS = 8 };
	struct client c, busy;
	struct daemon d;

	START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
	client_start(&c, heap_name());
	DO(&c, 'a');
	for (unsigned int i = 0; i < VICTIMS; i++) {
		client_start(&busy, heap_name());
		DO(&busy, 's');
		usleep(1000 + i * 150);
		seize(&d);
		client_kill(&busy);
		/* After the order to the keeper, or what it does next. */
		cr_assert(kill_at(d.pid, WHILE_IT_SERVES, i % 2));
		cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
		START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
		cr_assert(strstr(daemon_said(&d), "adopted"), "%s", daemon_said(&d));
		cr_assert(EVENTUALLY(nr_clients() == 1));
		DO(&c, 'v');
		heap_serves();
	}
	DO(&c, 'f');
	client_kill(&c);
	daemon_stop(&d);
	none_left();
	printf("# killed: nolockd as it had %u clients repaired%s\n", (unsigned int)VICTIMS,
	       without ? ", without BPF" : "");
}

Test(killed, when_it_repairs)
{
	NEEDS_ARENA();
	repairs(0);
}

Test(killed, when_it_repairs_without_bpf)
{
	NEEDS_CAPABILITIES();
	repairs(WITHOUT_BPF);
}

/* --- clients --- */

/*
 * Clients are stopped wherever they are, go on for some instructions, and are killed there, while a
 * program is at work: it is never kept from that, and nolockd notices, repairs, and says so.
 */
Test(killed, clients_between_two_instructions)
{
	enum { VICTIMS = 60 };
	unsigned long long before, now, longest = 0;
	struct program p;
	struct client c;
	struct daemon d;
	int status;

	NEEDS_ARENA();
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	program_start(&p);
	for (unsigned int i = 0; i < VICTIMS; i++) {
		client_start(&c, heap_name());
		DO(&c, 's');
		usleep(1000 + i * 50);
		cr_assert(!ptrace(PTRACE_SEIZE, c.pid, 0, PTRACE_O_EXITKILL));
		cr_assert(!ptrace(PTRACE_INTERRUPT, c.pid, 0, 0));
		cr_assert_eq(waitpid(c.pid, &status, __WALL), c.pid);
		for (unsigned int k = 0; k < i * 7 % 400; k++) {
			cr_assert(!ptrace(PTRACE_SINGLESTEP, c.pid, 0, 0));
			cr_assert_eq(waitpid(c.pid, &status, __WALL), c.pid);
		}
		before = now_ms();
		client_kill(&c);
		cr_assert(EVENTUALLY(of_heap("clients_gone") == i + 1));
		now = now_ms() - before;
		longest = now > longest ? now : longest;
		program_goes_on(&p);
	}
	check_whole();
	cr_assert(!of_heap("locks_repaired") || strstr(daemon_said(&d), "locks: repaired"), "%s",
		  daemon_said(&d));
	printf("# killed: %u clients inside a call or between two, %llu locks taken over, at most %llu "
	       "ms until it was all repaired; the program ran on, %u allocations of it failed\n",
	       VICTIMS, of_heap("locks_repaired"), longest, p.book->failed);
	program_stop(&p);
	cr_assert(EVENTUALLY(of_heap("clients_gone") == VICTIMS + 1));
	daemon_stop(&d);
}
