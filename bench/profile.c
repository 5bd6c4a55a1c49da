// SPDX-License-Identifier: GPL-2.0-only
/*
 * profile.c - where the cycles of a row go: perf's software clock on a process that runs it, and
 * hardware counters where the machine has them.
 *
 * A process of its own for each allocator, after the row was measured: what perf costs is in no
 * figure. Profiled are ours and the fastest peer.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define SECONDS 2
#define LINES 12
#define EVENTS "cycles:u,instructions:u,cache-misses:u,branch-misses:u"

/* Does this command line, by the shell, end well? */
static bool works(const char *command)
{
	return system(command) == 0;
}

static pid_t perf_start(const char *how, int pid, const char *out)
{
	char command[1024];
	pid_t child = fork();

	if (child)
		return child;
	snprintf(command, sizeof(command), "exec perf %s -o '%s' -p %d >/dev/null 2>&1", how, out,
		 pid);
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

/* perf has attached when its file is there; on a busy machine that takes its time. */
static void wait_for(const char *path)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	struct stat st;

	for (int i = 0; i < 500 && (stat(path, &st) || !st.st_size); i++)
		nanosleep(&pause, NULL);
	nanosleep(&pause, NULL);
}

/* Rounds for so many seconds, at least one. Returns how many units, or 0. */
static double busy(struct peer *p, const struct row *row, double seconds)
{
	struct work_request req = { WORK_RUN, row->workload, row->units };
	double end = seconds_now() + seconds, units = 0;
	struct work_reply reply;
	const char *why;

	do {
		if (peer_ask(p, &req, &reply, &why))
			return 0;
		units += (double)row->units * row->threads;
	} while (seconds_now() < end);
	return units;
}

/* The first lines of perf's report, which is also left in a file. */
static void show(const char *data, const char *text)
{
	char command[2048], line[512];
	unsigned int n = 0;
	FILE *out;

	snprintf(command, sizeof(command),
		 "perf report -i '%s' --stdio -g none --no-children --percent-limit 0.5 "
		 "-s dso,symbol 2>/dev/null | grep -v '^#' | sed 's,[ -]*$,,' | grep . >'%s'",
		 data, text);
	if (!works(command))
		printf("    perf report has nothing to say\n");
	out = fopen(text, "re");
	while (out && n++ < LINES && fgets(line, sizeof(line), out)) {
		size_t len = strcspn(line, "\n");

		while (len && line[len - 1] == ' ')
			len--;
		printf("    %.*s\n", (int)len, line);
	}
	if (out)
		fclose(out);
}

static void count(struct peer *p, const struct row *row, const char *dir)
{
	char path[512], line[512];
	double units;
	FILE *f;
	pid_t perf;

	snprintf(path, sizeof(path), "%s/counters", dir);
	perf = perf_start("stat -x, -e " EVENTS, p->pid, path);
	if (perf < 0)
		return;
	units = busy(p, row, SECONDS);
	kill(perf, SIGINT);
	waitpid(perf, NULL, 0);
	f = fopen(path, "re");
	while (f && units > 0 && fgets(line, sizeof(line), f)) {
		char *name = strchr(line, ',');

		/* value,unit,event,... */
		name = name ? strchr(name + 1, ',') : NULL;
		if (name && atof(line) > 0)
			printf("    %.*s: %.2f a unit\n", (int)strcspn(name + 1, ","), name + 1,
			       atof(line) / units);
	}
	if (f)
		fclose(f);
	unlink(path);
}

static void profile_one(const struct result *res, unsigned int i, const struct options *o,
			const struct found *found, bool counters)
{
	char data[512], text[512];
	struct peer p;
	double units;
	pid_t perf;

	snprintf(data, sizeof(data), "%s/perf.data", o->profile);
	snprintf(text, sizeof(text), "%s/%s-%s.txt", o->profile, res->row->name,
		 allocators[i].name);
	if (peer_start(&p, &allocators[i], &found[i], o, res->row->aside))
		return;
	/* Once, so that the process is there and warm. */
	unlink(data);
	units = busy(&p, res->row, 0);
	perf = units > 0 ? perf_start("record -e cpu-clock:u -F 4000", p.pid, data) : -1;
	if (perf > 0) {
		wait_for(data);
		busy(&p, res->row, SECONDS);
		kill(perf, SIGINT);
		waitpid(perf, NULL, 0);
		printf("\n  %s: %s, samples of the clock, user side (all: %s)\n", res->row->name,
		       allocators[i].name, text);
		show(data, text);
		if (counters)
			count(&p, res->row, o->profile);
		unlink(data);
	}
	peer_stop(&p);
	fflush(stdout);
}

void profile_row(const struct result *res, const struct options *o, const struct found *found,
		 struct report *r)
{
	static bool looked, have_perf, have_counters;

	if (!looked) {
		looked = true;
		have_perf = works("perf record -e cpu-clock:u -o /dev/null true >/dev/null 2>&1");
		have_counters = have_perf && !works("perf stat -x, -e " EVENTS " true 2>&1 | "
						    "grep -q 'not supported'");
		if (!have_perf)
			report_skip(r, "profile: perf does not work here: install linux-perf, be "
				       "root");
		else if (!have_counters)
			report_skip(r, "profile: this machine has no hardware counters: no cycles, "
				       "no cache misses, no cache-line transfers (perf c2c)");
		if (mkdir(o->profile, 0755) && errno != EEXIST)
			err(1, "cannot make the directory %s", o->profile);
	}
	if (!have_perf || res->row->kind != ROW_LOAD)
		return;
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (res->of[i].ran && (allocators[i].kind == KIND_OURS || (int)i == res->best ||
				       allocators[i].kind == KIND_OTHER))
			profile_one(res, i, o, found, have_counters);
}
