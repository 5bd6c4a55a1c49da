// SPDX-License-Identifier: GPL-2.0-only
/*
 * load.c - see load.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

#define FILES 16
#define PIPES 8

static void files(const char *dir)
{
	char path[256], text[512];
	int i, fd;

	memset(text, 'x', sizeof(text));
	for (i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "%s/load-%d", dir, i);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			continue;
		if (write(fd, text, sizeof(text)) < 0 || lseek(fd, 0, SEEK_SET) < 0)
			warn("%s", path);
		close(fd);
	}
	for (i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "%s/load-%d", dir, i);
		unlink(path);
	}
}

static void pipes(void)
{
	int fd[PIPES][2], i, n = 0;
	char text[256] = "";

	for (n = 0; n < PIPES; n++)
		if (n % 2 ? pipe2(fd[n], O_CLOEXEC) :
			    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd[n]))
			break;
	for (i = 0; i < n; i++) {
		if (write(fd[i][1], text, sizeof(text)) == sizeof(text) &&
		    read(fd[i][0], text, sizeof(text)) != sizeof(text))
			warn("pipe");
		close(fd[i][0]);
		close(fd[i][1]);
	}
}

static void process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

int load_run(const char *dir, struct load_shared *shared)
{
	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
		files(dir);
		pipes();
		process();
		__atomic_fetch_add(&shared->rounds, 1, __ATOMIC_RELAXED);
		/* A load, not a siege: the others need the CPUs, too. */
		usleep(1000);
	}
	return 0;
}
