// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_help.c - known work in a child process, and counting of streamed events.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "trace_help.h"

static void stay_on_this_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void trace_open_files(unsigned int n)
{
	while (n--) {
		int fd = open("/dev/null", O_RDONLY);

		if (fd < 0)
			_exit(1);
		close(fd);
	}
}

void trace_open_pipes(unsigned int n)
{
	int fd[2];

	while (n--) {
		if (pipe(fd))
			_exit(1);
		close(fd[0]);
		close(fd[1]);
	}
}

void trace_child_start(struct trace_child *c, void (*work)(unsigned int n), unsigned int n)
{
	int go[2];

	cr_assert_eq(pipe2(go, O_CLOEXEC), 0);
	fflush(NULL);
	c->pid = fork();
	cr_assert_geq(c->pid, 0);
	if (!c->pid) {
		char byte;

		close(go[1]);
		stay_on_this_cpu();
		if (read(go[0], &byte, 1) != 1)
			_exit(2);
		work(n);
		_exit(0);
	}
	close(go[0]);
	c->go = go[1];
}

void trace_child_run(struct trace_child *c)
{
	int status;

	cr_assert_eq(write(c->go, "", 1), 1);
	cr_assert_eq(waitpid(c->pid, &status, 0), c->pid);
	close(c->go);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "the child failed: %x", status);
}

struct nl_trace *trace_open(unsigned int what, unsigned int ring_bytes)
{
	struct nl_trace_opts opts = {
		.sz = sizeof(opts),
		.what = what,
		.ring_bytes = ring_bytes,
	};
	struct nl_trace *t = nl_trace_open(&opts);

	cr_assert(t);
	cr_assert_null(nl_trace_error(t), "%s", nl_trace_error(t));
	nl_trace_attach(t);
	return t;
}

int trace_note(void *arg, const struct nlt_event *e)
{
	struct trace_seen *s = arg;

	s->nr++;
	if (e->kind < NLT_NR_KINDS)
		s->kinds[e->kind]++;
	if (s->pid && (pid_t)e->pid != s->pid)
		s->wrong_pid++;
	if (s->cache && strcmp(e->cache, s->cache))
		s->wrong_cache++;
	if (e->cpu < 1024) {
		if (e->ns < s->last_ns[e->cpu])
			s->out_of_order++;
		s->last_ns[e->cpu] = e->ns;
	}
	s->last = *e;
	return 0;
}

const struct nl_trace_prog *trace_find(const struct nl_trace *t, const char *target)
{
	unsigned int i;

	for (i = 0; i < nl_trace_nr_progs(t); i++)
		if (!strcmp(nl_trace_prog(t, i)->target, target))
			return nl_trace_prog(t, i);
	return NULL;
}
