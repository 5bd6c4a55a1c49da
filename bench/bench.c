// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench.c - `make bench`: libnolock beside its peers, in ratios. It never passes or fails by time.
 *
 * For each workload every allocator gets a process; the processes take turns for --rounds short
 * rounds. The order is reversed every other round: being first is nobody's privilege.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <err.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "spec.h"

#define BPF_NAME "bpf"

struct options {
	uint64_t rounds;
	const char *filter;
	const char *json;
	const char *serve;
	const char *where;
};

static const struct argp_option argp_options[] = {
	{ "rounds", 'r', "N", 0, "Rounds of each workload (41)", 0 },
	{ "filter", 'f', "WORD", 0,
	  "Only workloads with WORD in their name: pair, lifo, fifo, churn, churn2, swap2, bpf, "
	  "bpf-batch, bpf-table",
	  0 },
	{ "json", 'j', "FILE", 0,
	  "Where the figures go as JSON (bench.json of $NOLOCK_BUILD, if that is set); \"\" for none",
	  0 },
	{ "serve", 's', "FD,ENTRY,CPU,CPU", OPTION_HIDDEN, "Be one of the processes", 0 },
	{ "where", 'w', "FD", OPTION_HIDDEN, "Tell where malloc() is", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'r':
		if (spec_number(arg, 1, BENCH_MAX_ROUNDS, &o->rounds))
			argp_failure(state, 2, 0, "--rounds=%s: give a number from 1 to %d", arg,
				     BENCH_MAX_ROUNDS);
		return 0;
	case 'f':
		o->filter = arg;
		return 0;
	case 'j':
		o->json = arg;
		return 0;
	case 's':
		o->serve = arg;
		return 0;
	case 'w':
		o->where = arg;
		return 0;
	case ARGP_KEY_ARG:
		argp_failure(state, 2, 0, "unexpected argument '%s': see --help", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.doc = "Times of libnolock and of other allocators, taken in turns, and their ratios.\v"
	       "A ratio below 1 says that kmalloc_nolock (or kmalloc) took less time than the "
	       "row's allocator. Medians of the rounds, with their quartiles.",
};

static _Noreturn void serve(const char *how)
{
	int fd, cpus[2];
	unsigned int entry;

	if (sscanf(how, "%d,%u,%d,%d", &fd, &entry, &cpus[0], &cpus[1]) != 4 || entry >= NR_ENTRIES)
		errx(2, "--serve=%s: not meant to be given by people", how);
	work_serve(fd, entry, cpus, 2);
}

/* Two CPUs to use, the highest of those allowed: interrupts tend to be at the lowest. */
static unsigned int choose_cpus(int cpus[2])
{
	unsigned int n = 0;
	cpu_set_t set;

	cpus[0] = cpus[1] = 0;
	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	for (int i = CPU_SETSIZE; i-- > 0 && n < 2;)
		if (CPU_ISSET(i, &set))
			cpus[n++] = i;
	return n ? n : 1;
}

static bool wanted(const struct options *o, const char *name)
{
	return !o->filter || strstr(name, o->filter);
}

/* All rounds of one workload. Returns 0, or -1 after a message. */
static int run_workload(struct report *r, const struct options *o, unsigned int nr,
			char *const *paths, const int *cpus, unsigned int nr_cpus)
{
	const struct workload *w = &workloads[nr];
	unsigned int n = nr_allocators;
	struct peer peers[n];
	double *ns[n];
	int bad = 0;

	for (unsigned int i = 0; i < n; i++) {
		int error;

		ns[i] = NULL;
		if (!paths[i])
			continue;
		error = peer_start(&peers[i], &allocators[i], paths[i], cpus, nr_cpus);
		if (error)
			errx(1, "cannot start a process for %s: %s", allocators[i].name,
			     strerror(-error));
		ns[i] = calloc(o->rounds, sizeof(*ns[i]));
		if (!ns[i])
			errx(1, "out of memory");
	}
	for (unsigned int round = 0; round < o->rounds && !bad; round++) {
		for (unsigned int k = 0; k < n && !bad; k++) {
			unsigned int i = round % 2 ? n - 1 - k : k;

			if (!ns[i])
				continue;
			ns[i][round] = peer_run(&peers[i], nr, w->pairs);
			if (ns[i][round] < 0) {
				warnx("%s stops at %s", w->name, allocators[i].name);
				bad = -1;
			}
		}
	}
	if (!bad)
		report_workload(r, w, ns, paths);
	for (unsigned int i = 0; i < n; i++) {
		if (ns[i])
			peer_stop(&peers[i]);
		free(ns[i]);
	}
	return bad;
}

/* One row of maps.c, on one CPU. */
static void run_maps(struct report *r, const struct options *o, unsigned int row, int cpu)
{
	const char *problem;
	cpu_set_t old, set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (!sched_getaffinity(0, sizeof(old), &old))
		sched_setaffinity(0, sizeof(set), &set);
	problem = maps_run(r, row, (unsigned int)o->rounds);
	sched_setaffinity(0, sizeof(old), &old);
	if (problem)
		report_skip(r, "%s: %s", maps_rows[row], problem);
}

static void run_bpf(struct report *r, const struct options *o, int cpu)
{
	double *ns[NR_BENCH_BPF];
	const char *problem;
	cpu_set_t old, set;

	for (unsigned int i = 0; i < NR_BENCH_BPF; i++) {
		ns[i] = calloc(o->rounds, sizeof(*ns[i]));
		if (!ns[i])
			errx(1, "out of memory");
	}
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (!sched_getaffinity(0, sizeof(old), &old))
		sched_setaffinity(0, sizeof(set), &set);
	problem = bpf_pairs(o->rounds, ns);
	sched_setaffinity(0, sizeof(old), &old);
	if (problem)
		report_skip(r, "%s: %s", BPF_NAME, problem);
	else
		report_bpf(r, ns);
	for (unsigned int i = 0; i < NR_BENCH_BPF; i++)
		free(ns[i]);
}

/* Where each allocator is; one line for each that is missing. */
static void find_allocators(struct report *r, char **paths)
{
	for (unsigned int i = 0; i < nr_allocators; i++) {
		const struct allocator *a = &allocators[i];

		paths[i] = peer_path(a);
		if (paths[i])
			continue;
		if (!a->package)
			errx(1,
			     "no %s beside this program: run it from the build directory that "
			     "make made",
			     a->soname[0]);
		report_skip(r, "%s: not installed: as root, apt-get install %s", a->name,
			    a->package);
	}
}

int main(int argc, char **argv)
{
	struct options o = { .rounds = 41 };
	const char *build = getenv("NOLOCK_BUILD");
	unsigned int nr_cpus, ran = 0;
	char *paths[nr_allocators], *json = NULL;
	struct report *r;
	int cpus[2], error, bad = 0;
	bool maps = false;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.where)
		peer_where(atoi(o.where));
	if (o.serve)
		serve(o.serve);
	if (build && !o.json && asprintf(&json, "%s/bench.json", build) < 0)
		errx(1, "out of memory");
	if (o.json && *o.json)
		json = strdup(o.json);
	for (unsigned int i = 0; i < nr_workloads; i++)
		ran += wanted(&o, workloads[i].name);
	for (unsigned int i = 0; i < NR_MAPS; i++)
		maps |= wanted(&o, maps_rows[i]);
	if (!ran && !maps && !wanted(&o, BPF_NAME))
		errx(2, "--filter=%s: no workload has that in its name; see --help", o.filter);

	nr_cpus = choose_cpus(cpus);
	r = report_new((unsigned int)o.rounds, cpus, nr_cpus);
	if (ran)
		find_allocators(r, paths);
	for (unsigned int i = 0; i < nr_workloads; i++) {
		if (!wanted(&o, workloads[i].name))
			continue;
		if (workloads[i].threads > nr_cpus)
			report_skip(r, "%s: needs %u CPUs, and may use 1", workloads[i].name,
				    workloads[i].threads);
		else if (run_workload(r, &o, i, paths, cpus, nr_cpus))
			bad = 1;
	}
	if (wanted(&o, BPF_NAME))
		run_bpf(r, &o, cpus[0]);
	for (unsigned int i = 0; i < NR_MAPS; i++)
		if (wanted(&o, maps_rows[i]))
			run_maps(r, &o, i, cpus[0]);
	for (unsigned int i = 0; ran && i < nr_allocators; i++)
		free(paths[i]);
	error = report_end(r, json);
	if (error)
		errx(1, "cannot write %s: %s", json, strerror(-error));
	if (json)
		printf("\nthe same figures as JSON: %s\n", json);
	free(json);
	return bad;
}
