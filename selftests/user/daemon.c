// SPDX-License-Identifier: GPL-2.0-only
/*
 * daemon.c - see daemon.h.
 */
#define _GNU_SOURCE
#include <cap-ng.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpffs.h"
#include "daemon.h"
#include "temp.h"

/* The janitor waits for the end of this pipe: no other process may keep it open. */
static int alive_fd = -1;

static char the_dir[TEMP_DIR_LEN], the_sock[96], the_heap[32], the_arg[64];
static unsigned int nr_logs;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

/* End what was started: each daemon has left its number in a file of the directory. */
static void end_daemons(void)
{
	char path[128], comm[32] = "";
	unsigned int i;
	FILE *f;
	int pid;

	for (i = 0; i < 1024; i++) {
		snprintf(path, sizeof(path), "%s/pid.%u", the_dir, i);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%d", &pid) == 1) {
			char name[64];
			FILE *c;

			snprintf(name, sizeof(name), "/proc/%d/comm", pid);
			c = fopen(name, "r");
			if (c && fgets(comm, sizeof(comm), c) && !strcmp(comm, "nolockd\n"))
				kill(pid, SIGKILL);
			if (c)
				fclose(c);
		}
		fclose(f);
	}
	usleep(100000);
}

/* Live until the test is gone, then clean up after it. */
static void janitor(int alive)
{
	struct pollfd pfd = { .fd = alive, .events = POLLIN };
	char lock[PATH_MAX], name[48];
	int i;

	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
	end_daemons();
	for (i = 1; i <= TEST_HEAPS; i++) {
		snprintf(name, sizeof(name), i > 1 ? "%s%d" : "%s", the_heap, i);
		unlink(bpffs_path(name));
		snprintf(lock, sizeof(lock), "%s:lock", bpffs_path(name));
		rmdir(lock);
	}
	bpffs_cleanup();
	nftw(the_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

void setup(void)
{
	int alive[2], null;

	cr_assert_eq(temp_dir(the_dir, "nolock-test"), 0);
	chmod(the_dir, 0755);
	snprintf(the_sock, sizeof(the_sock), "%s/nolockd.sock", the_dir);
	snprintf(the_heap, sizeof(the_heap), "t%d.%s", getpid(), the_dir + strlen(the_dir) - 6);
	snprintf(the_arg, sizeof(the_arg), "--heap=%s:64M:2M", the_heap);
	setenv("NOLOCK_SOCKET", the_sock, 1);
	signal(SIGPIPE, SIG_IGN);
	cr_assert(!pipe2(alive, O_CLOEXEC));
	if (fork() == 0) {
		/* The test's own output must end when the test does. */
		null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		close(alive[1]);
		if (alive[0] != 3)
			dup2(alive[0], 3);
		close_range(4, ~0U, 0);
		janitor(3);
	}
	close(alive[0]);
	alive_fd = alive[1];
}

pid_t test_fork(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (alive_fd >= 0)
			close(alive_fd);
		alive_fd = -1;
	}
	return pid;
}

const char *dir(void)
{
	return the_dir;
}

const char *sock(void)
{
	return the_sock;
}

const char *heap_name(void)
{
	return the_heap;
}

const char *heap_arg(void)
{
	return the_arg;
}

const char *pin(void)
{
	return bpffs_path(the_heap);
}

bool exists(const char *path)
{
	return !access(path, F_OK);
}

const char *build_path(const char *name)
{
	const char *build = getenv("NOLOCK_BUILD");
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", build && *build ? build : "build", name);
	return path;
}

bool can_bpf(void)
{
	return geteuid() == 0 && !capng_get_caps_process() &&
	       capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
}

/* In the child: become the program. */
static void become(uid_t uid, unsigned int without, const char *const argv[])
{
	char name[64];

	/* The real path first: another user may not get to the build directory's parents. */
	int fd;

	snprintf(name, sizeof(name), "user/%s", argv[0]);
	fd = open(build_path(name), O_RDONLY | O_CLOEXEC);
	signal(SIGPIPE, SIG_DFL);
	if ((without & WITHOUT_BTF) &&
	    (unshare(CLONE_NEWNS) || mount("none", "/sys", NULL, MS_REC | MS_PRIVATE, NULL) ||
	     mount("none", "/sys/kernel/btf", "tmpfs", 0, NULL)))
		_exit(124);
	if (without & (WITHOUT_BPF | WITHOUT_PERFMON)) {
		/* The effective user stays root, who would get everything back at execve(). */
		capng_get_caps_process();
		capng_updatev(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET,
			      CAP_SYS_ADMIN, CAP_PERFMON, without & WITHOUT_BPF ? CAP_BPF : -1, -1);
		capng_apply(CAPNG_SELECT_BOTH);
	}
	if (uid && (setgid(uid) || setuid(uid)))
		_exit(125);
	fexecve(fd, (char *const *)argv, environ);
	fprintf(stderr, "%s: %s\n", name, strerror(errno));
	_exit(126);
}

static void slurp(int fd, char *buf, size_t len)
{
	size_t have = 0;
	ssize_t n;

	lseek(fd, 0, SEEK_SET);
	while (have < len - 1 && (n = read(fd, buf + have, len - 1 - have)) > 0)
		have += n;
	buf[have] = 0;
	close(fd);
}

static int temporary(void)
{
	int fd = memfd_create("output", MFD_CLOEXEC);

	cr_assert(fd >= 0, "memfd_create: %s", strerror(errno));
	return fd;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void run_as(struct output *o, uid_t uid, unsigned int without, const char *const argv[])
{
	int out = temporary(), err = temporary();
	pid_t pid = test_fork();

	if (pid == 0) {
		dup2(out, 1);
		dup2(err, 2);
		become(uid, without, argv);
	}
	o->status = wait_for(pid);
	slurp(out, o->out, sizeof(o->out));
	slurp(err, o->err, sizeof(o->err));
}

static void spawn(struct daemon *d, unsigned int without, const char *const argv[], bool traced)
{
	int out[2], err;
	char path[96];
	FILE *f;

	snprintf(d->log, sizeof(d->log), "%s/log.%u", the_dir, nr_logs);
	err = open(d->log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert(err >= 0 && !pipe2(out, O_CLOEXEC));
	d->without = without;
	d->pid = test_fork();
	if (d->pid == 0) {
		dup2(out[1], 1);
		dup2(err, 2);
		if (traced && (ptrace(PTRACE_TRACEME, 0, 0, 0) || raise(SIGSTOP)))
			_exit(123);
		become(0, without, argv);
	}
	snprintf(path, sizeof(path), "%s/pid.%u", the_dir, nr_logs++);
	f = fopen(path, "w");
	cr_assert(f);
	fprintf(f, "%d\n", d->pid);
	fclose(f);
	close(out[1]);
	close(err);
	d->out = out[0];
}

void daemon_spawn(struct daemon *d, unsigned int without, const char *const argv[])
{
	spawn(d, without, argv, false);
}

void daemon_spawn_traced(struct daemon *d, unsigned int without, const char *const argv[])
{
	spawn(d, without, argv, true);
}

bool daemon_ready(struct daemon *d)
{
	char text[256];
	ssize_t n;

	n = read(d->out, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = 0;
	return strstr(text, "READY ");
}

int daemon_wait(struct daemon *d)
{
	int status = wait_for(d->pid);

	close(d->out);
	d->pid = 0;
	return status;
}

const char *daemon_said(const struct daemon *d)
{
	static char text[65536];
	int fd = open(d->log, O_RDONLY | O_CLOEXEC);

	*text = 0;
	if (fd >= 0)
		slurp(fd, text, sizeof(text));
	return text;
}

void daemon_stop_with(struct daemon *d, int want)
{
	int status;

	kill(d->pid, SIGTERM);
	status = daemon_wait(d);
	cr_assert_eq(status, want, "nolockd ended with %d: %s", status, daemon_said(d));
}

int traced_status(void)
{
	return can_bpf() ? 0 : 3;
}

void daemon_stop(struct daemon *d)
{
	bool off = strstr(daemon_said(d), "tracing: off");

	daemon_stop_with(d, off && d->without ? 3 : off ? traced_status() : 0);
}

json_object *get_status(void)
{
	static struct output o;
	json_object *status;

	RUN(&o, "nolock", "status", "--json");
	cr_assert_eq(o.status, 0, "nolock status: %d, %s", o.status, o.err);
	status = json_tokener_parse(o.out);
	cr_assert(status, "no JSON: %s", o.out);
	return status;
}

json_object *first_heap(json_object *status)
{
	json_object *list = json_object_object_get(status, "heaps");

	cr_assert(list && json_object_array_length(list) > 0);
	return json_object_array_get_idx(list, 0);
}

unsigned long long number(json_object *o, const char *key)
{
	json_object *v;

	cr_assert(json_object_object_get_ex(o, key, &v), "no member %s", key);
	return json_object_get_uint64(v);
}

unsigned long long of_heap(const char *key)
{
	json_object *status = get_status();
	unsigned long long n = number(first_heap(status), key);

	json_object_put(status);
	return n;
}

size_t nr_clients(void)
{
	json_object *status = get_status();
	size_t n = json_object_array_length(json_object_object_get(first_heap(status), "clients"));

	json_object_put(status);
	return n;
}

void check_whole(void)
{
	static struct output o;

	RUN(&o, "nolock", "check", "--heap", heap_name());
	cr_assert_eq(o.status, 0, "%d: %s%s", o.status, o.out, o.err);
}

static char mounts_before[65536];

static void read_mounts(char *text, size_t size)
{
	FILE *f = fopen("/proc/self/mounts", "r");
	size_t n = f ? fread(text, 1, size - 1, f) : 0;

	text[n] = 0;
	if (f)
		fclose(f);
}

void remember_mounts(void)
{
	read_mounts(mounts_before, sizeof(mounts_before));
}

static bool same_mounts(void)
{
	static char mounts[65536];

	read_mounts(mounts, sizeof(mounts));
	return !strcmp(mounts, mounts_before);
}

void nothing_left(void)
{
	static const char *const behind[] = { "", ":lock", ":new" };
	char path[256];

	cr_assert(EVENTUALLY(same_mounts()), "a mount is left behind");
	cr_assert(!exists(sock()), "the socket is left behind");
	for (size_t i = 0; i < sizeof(behind) / sizeof(*behind); i++) {
		snprintf(path, sizeof(path), "%s%s", pin(), behind[i]);
		cr_assert(!exists(path), "%s is left behind", path);
	}
}

int lines(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}
