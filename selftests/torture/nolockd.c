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
	strcpy(d->dir, "/tmp/nolock-torture-XXXXXX");
	if (!mkdtemp(d->dir) || pipe(out)) {
		perror(d->dir);
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
