// SPDX-License-Identifier: GPL-2.0-only
/*
 * again.c - see again.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "again.h"
#include "../lib/util.h"

bool run_without_rseq(const char *name, const char *arg)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		die_with_parent();
		setenv("NOLOCK_RSEQ", "0", 1);
		execl("/proc/self/exe", name, arg, (char *)NULL);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		printf("the run without rseq ended with status %#x\n", status);
	return !status;
}
