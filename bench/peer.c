// SPDX-License-Identifier: GPL-2.0-only
/*
 * peer.c - one process for each allocator, all of one program.
 *
 * An allocator that replaces malloc is used by its users in one of two ways: linked, or by
 * LD_PRELOAD; both end in the same symbol at the head of the search order, and in initial-exec
 * TLS. dlopen() would be a third that nobody uses, with slower TLS for some and no TLS space for
 * others. So each allocator, libnolock.so among them, is preloaded into a process of its own, and
 * the processes take turns on one CPU: A B C, C B A, ... within milliseconds, so that a change of
 * the machine's speed meets all of them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define KMALLOC_SO "libnolock.so.0"

const struct allocator allocators[] = {
	{ "kmalloc_nolock", NULL, { KMALLOC_SO }, ENTRY_NOLOCK },
	{ "tcmalloc",
	  "libtcmalloc-minimal4",
	  { "libtcmalloc_minimal.so.4", "libtcmalloc.so.4" },
	  ENTRY_MALLOC },
	{ "kmalloc", NULL, { KMALLOC_SO }, ENTRY_KMALLOC },
	{ "glibc", NULL, { NULL }, ENTRY_MALLOC },
	{ "jemalloc", "libjemalloc2", { "libjemalloc.so.2" }, ENTRY_MALLOC },
	{ "mimalloc", "libmimalloc2.0", { "libmimalloc.so.2" }, ENTRY_MALLOC },
};
const unsigned int nr_allocators = sizeof(allocators) / sizeof(*allocators);

/* build/bench/bench, seen from which the library is ../lib. */
static char *our_library(void)
{
	char self[PATH_MAX], path[2 * PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return NULL;
	self[n] = 0;
	slash = strrchr(self, '/');
	if (!slash)
		return NULL;
	*slash = 0;
	snprintf(path, sizeof(path), "%s/../lib/%s", self, KMALLOC_SO);
	return realpath(path, NULL);
}

/* Close-on-exec is for all ends but the new process's own: EOF must mean that we are gone. */
static _Noreturn void become(int fd, const char *arg, const char *preload)
{
	/* No peer outlives the one who asks it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fcntl(fd, F_SETFD, 0);
	if (*preload)
		setenv("LD_PRELOAD", preload, 1);
	else
		unsetenv("LD_PRELOAD");
	execl("/proc/self/exe", "bench", arg, NULL);
	err(1, "bench: cannot start a process");
}

void peer_where(int fd)
{
	Dl_info info;
	void *p = dlsym(RTLD_DEFAULT, "malloc");

	if (p && dladdr(p, &info) && write(fd, info.dli_fname, strlen(info.dli_fname)) > 0)
		exit(0);
	exit(1);
}

/* Where the loader finds it, asked as it will be used. */
static char *find(const char *soname)
{
	char path[PATH_MAX] = "", arg[32];
	int fds[2], null;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return NULL;
	pid = fork();
	if (!pid) {
		/* The loader complains about what it does not find; we do so in our own words. */
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		dup2(null, STDERR_FILENO);
		snprintf(arg, sizeof(arg), "--where=%d", fds[1]);
		become(fds[1], arg, soname);
	}
	close(fds[1]);
	while (pid > 0 && (n = read(fds[0], path + len, sizeof(path) - 1 - len)) > 0)
		len += (size_t)n;
	close(fds[0]);
	if (pid < 0 || waitpid(pid, NULL, 0) < 0 || !len)
		return NULL;
	/* Not there: malloc is the C library's. */
	if (strncmp(basename(path), soname, strlen(soname)))
		return NULL;
	return strdup(path);
}

char *peer_path(const struct allocator *a)
{
	char *path = NULL;

	if (!a->soname[0])
		return strdup("");
	if (a->entry != ENTRY_MALLOC)
		return our_library();
	for (int i = 0; i < 2 && a->soname[i] && !path; i++)
		path = find(a->soname[i]);
	return path;
}

int peer_start(struct peer *p, const struct allocator *a, const char *path, const int *cpus,
	       unsigned int nr_cpus)
{
	char arg[64];
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	p->pid = fork();
	if (p->pid < 0) {
		int error = -errno;

		close(fds[0]);
		close(fds[1]);
		return error;
	}
	if (!p->pid) {
		snprintf(arg, sizeof(arg), "--serve=%d,%d,%d,%d", fds[1], (int)a->entry, cpus[0],
			 cpus[nr_cpus > 1]);
		become(fds[1], arg, path);
	}
	close(fds[1]);
	p->fd = fds[0];
	return 0;
}

double peer_run(struct peer *p, unsigned int workload, uint64_t pairs)
{
	struct work_request req = { .workload = workload, .pairs = pairs };
	struct work_reply reply;

	if (send(p->fd, &req, sizeof(req), MSG_NOSIGNAL) != sizeof(req) ||
	    recv(p->fd, &reply, sizeof(reply), 0) != sizeof(reply)) {
		warnx("bench: a process of the workload %s ended early", workloads[workload].name);
		return -1;
	}
	if (reply.failed) {
		warnx("bench: %llu allocations of the workload %s failed",
		      (unsigned long long)reply.failed, workloads[workload].name);
		return -1;
	}
	return (double)reply.ns / (double)pairs;
}

void peer_stop(struct peer *p)
{
	close(p->fd);
	waitpid(p->pid, NULL, 0);
}
