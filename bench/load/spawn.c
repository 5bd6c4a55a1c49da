// SPDX-License-Identifier: GPL-2.0-only
/*
 * spawn.c - runs programs and says what they took.
 *
 * The kernel counts what a process was before it executed a program into the program's peak RSS.
 * So programs are started from here, where that is little, and not from the benchmark.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

#define MAX_ARGS 32

static _Noreturn void become(const char *preload, char **argv)
{
	int null = open("/dev/null", O_RDWR);

	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	/* One that hangs: the benchmark kills the spawner, and is to be rid of both. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (*preload)
		setenv("LD_PRELOAD", preload, 1);
	else
		unsetenv("LD_PRELOAD");
	execvp(argv[0], argv);
	_exit(127);
}

static uint64_t ns_of(const struct timeval *t)
{
	return ((uint64_t)t->tv_sec * 1000000 + (uint64_t)t->tv_usec) * 1000;
}

void spawn_serve(int fd)
{
	static char text[SPAWN_MAX + 1];
	struct spawn_reply reply;
	ssize_t len;

	come_first();
	while ((len = read(fd, text, SPAWN_MAX)) > 0) {
		char *argv[MAX_ARGS + 1] = { NULL };
		unsigned int argc = 0;
		struct rusage used;
		pid_t pid;

		text[len] = 0;
		for (char *p = text + strlen(text) + 1; p < text + len && argc < MAX_ARGS;
		     p += strlen(p) + 1)
			argv[argc++] = p;
		memset(&reply, 0, sizeof(reply));
		reply.status = -1;
		pid = argc ? fork() : -1;
		if (!pid)
			become(text, argv);
		if (pid > 0 && wait4(pid, &reply.status, 0, &used) == pid) {
			reply.cpu_ns = ns_of(&used.ru_utime) + ns_of(&used.ru_stime);
			reply.peak = (uint64_t)used.ru_maxrss << 10;
		}
		if (write(fd, &reply, sizeof(reply)) != sizeof(reply))
			break;
	}
	exit(0);
}
