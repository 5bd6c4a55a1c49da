// SPDX-License-Identifier: GPL-2.0-only
/*
 * nolockd.c - see nolockd.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "nolockd.h"

static void become(const struct nolockd *d, bool bpf, int out)
{
	const char *build = getenv("NOLOCK_BUILD");
	char path[512], arg[64];

	snprintf(path, sizeof(path), "%s/user/nolockd", build && *build ? build : "build");
	snprintf(arg, sizeof(arg), "--heap=%s:64M", d->heap);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (!bpf) {
		/* What root gets at execve() is bounded by this. */
		prctl(PR_CAPBSET_DROP, CAP_BPF);
		prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN);
		prctl(PR_CAPBSET_DROP, CAP_PERFMON);
	}
	dup2(out, STDOUT_FILENO);
	execl(path, path, arg, "--no-trace", "--destroy-on-exit", "--quiet", (char *)NULL);
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	_exit(127);
}

int nolockd_start(struct nolockd *d, bool bpf)
{
	char text[128], sock[96];
	int out[2];
	ssize_t n;

	memset(d, 0, sizeof(*d));
	if (temp_dir(d->dir, "nolock-torture"))
		return -1;
	if (pipe(out)) {
		perror("pipe");
		rmdir(d->dir);
		return -1;
	}
	snprintf(d->heap, sizeof(d->heap), "t%d.%s", getpid(), d->dir + strlen(d->dir) - 6);
	snprintf(sock, sizeof(sock), "%s/nolockd.sock", d->dir);
	setenv("NOLOCK_SOCKET", sock, 1);
	fflush(NULL);
	d->pid = fork();
	if (!d->pid) {
		close(out[0]);
		become(d, bpf, out[1]);
	}
	close(out[1]);
	n = d->pid > 0 ? read(out[0], text, sizeof(text) - 1) : -1;
	close(out[0]);
	if (n > 0) {
		text[n] = 0;
		if (strstr(text, "READY "))
			return 0;
	}
	printf("nolockd did not start\n");
	if (d->pid > 0)
		nolockd_stop(d);
	return -1;
}

/* Field of /proc/PID/FILE, as text. */
static int slurp(char *buf, size_t len, pid_t pid, const char *file)
{
	char path[64];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "re");
	if (!f)
		return -1;
	n = fread(buf, 1, len - 1, f);
	buf[n] = 0;
	fclose(f);
	return n ? 0 : -1;
}

static bool stopped(pid_t pid)
{
	char text[512], *state;

	if (slurp(text, sizeof(text), pid, "stat"))
		return false;
	state = strrchr(text, ')');
	return state && state[2] == 'T';
}

/* Is a stopped process in a system call that waits for events? */
static bool waits(pid_t pid)
{
	static const long calls[] = {
#ifdef SYS_poll
		SYS_poll,
#endif
#ifdef SYS_epoll_wait
		SYS_epoll_wait,
#endif
		SYS_ppoll,	SYS_epoll_pwait, SYS_epoll_pwait2,    SYS_recvmsg,
		SYS_recvfrom,	SYS_read,	 SYS_restart_syscall,
	};
	char text[256], *end;
	long nr;

	if (slurp(text, sizeof(text), pid, "syscall"))
		return false;
	nr = strtol(text, &end, 10);
	for (size_t i = 0; end != text && i < sizeof(calls) / sizeof(calls[0]); i++)
		if (nr == calls[i])
			return true;
	return false;
}

int nolockd_rest(struct nolockd *d)
{
	char text[128], file[64];

	snprintf(file, sizeof(file), "task/%d/children", d->pid);
	if (slurp(text, sizeof(text), d->pid, file))
		return -1;
	d->keeper = (pid_t)strtol(text, NULL, 10);
	for (int tries = 0; d->keeper > 0 && tries < 100000; tries++) {
		if (kill(d->keeper, SIGSTOP))
			break;
		while (!stopped(d->keeper) && !kill(d->keeper, 0))
			usleep(20);
		if (waits(d->keeper))
			return 0;
		kill(d->keeper, SIGCONT);
		usleep(200);
	}
	return -1;
}

void nolockd_resume(struct nolockd *d)
{
	if (d->keeper > 0)
		kill(d->keeper, SIGCONT);
	d->keeper = 0;
}

int nolockd_stop(struct nolockd *d)
{
	char sock[96];
	int status = -1;

	kill(d->pid, SIGTERM);
	while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
		;
	snprintf(sock, sizeof(sock), "%s/nolockd.sock", d->dir);
	unlink(sock);
	rmdir(d->dir);
	return status;
}
