// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench.c - `make bench`: libnolock beside its peers, in ratios. It never passes or fails by time.
 *
 * The rows are in row.c. What is measured once and not in turns comes after them: BPF, and what
 * becomes of memory that was freed.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <err.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"
#include "spec.h"

#define BPF_NAME "bpf"
#define DECAY_NAME "decay"
/* A row that is measured alone needs no more than this. */
#define ROW_SECONDS 12.0
#define BPF_ROUNDS 41u

static const struct argp_option argp_options[] = {
	{ "rounds", 'r', "N", 0, "Rounds of a row, at most (100)", 0 },
	{ "sittings", 's', "N", 0, "Sittings of a row, each with new processes (5)", 0 },
	{ "seconds", 't', "N", 0, "How long all rows together may take, about (600)", 0 },
	{ "filter", 'f', "WORD,...", 0,
	  "Only rows of that name, or with that in their name where none has it; see --list", 0 },
	{ "list", 'l', NULL, 0, "Print the rows, and end", 0 },
	{ "profile", 'p', NULL, 0, "Profile each workload by perf's software clock as well", 0 },
	{ "json", 'j', "FILE", 0,
	  "Where the figures go as JSON (bench.json of $NOLOCK_BUILD, if that is set); \"\" for none",
	  0 },
	{ 0 },
};

static void list(void)
{
	for (unsigned int i = 0; i < nr_rows; i++)
		printf("%-12s %s\n", rows[i].name, rows[i].what);
	printf("%-12s %s\n", BPF_NAME, "one object of 64 B, freed at once, in a BPF program");
	printf("%-12s %s\n", DECAY_NAME, "what becomes of 64 MiB that were freed");
	for (unsigned int i = 0; i < NR_MAPS; i++)
		printf("%-12s %s\n", maps_rows[i].name, maps_rows[i].what);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'r':
		if (spec_number(arg, 1, BENCH_MAX_ROUNDS, &o->rounds))
			argp_failure(state, 2, 0, "--rounds=%s: give a number from 1 to %d", arg,
				     BENCH_MAX_ROUNDS);
		return 0;
	case 's':
		if (spec_number(arg, 1, BENCH_MAX_SITTINGS, &o->sittings))
			argp_failure(state, 2, 0, "--sittings=%s: give a number from 1 to %d", arg,
				     BENCH_MAX_SITTINGS);
		return 0;
	case 't':
		if (spec_number(arg, 1, 100000, &o->seconds))
			argp_failure(state, 2, 0, "--seconds=%s: give a number from 1 to 100000",
				     arg);
		return 0;
	case 'f':
		o->filter = arg;
		return 0;
	case 'l':
		list();
		exit(0);
	case 'p':
		o->profile = "";
		return 0;
	case 'j':
		o->json = arg;
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
	.doc = "Times and peak RSS of libnolock and of other allocators, taken in turns, and their "
	       "ratios.\v"
	       "A ratio below 1 says that the column's allocator took less than the row's. Medians "
	       "of the rounds, with their quartiles.",
};

/* The CPUs to use, from the highest of those allowed: interrupts tend to be at the lowest. */
static void choose_cpus(struct options *o)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		CPU_ZERO(&set);
	for (int i = CPU_SETSIZE; i-- > 0 && o->nr_cpus < BENCH_MAX_CPUS;)
		if (CPU_ISSET(i, &set))
			o->cpus[o->nr_cpus++] = i;
	if (!o->nr_cpus)
		o->nr_cpus = 1;
}

static bool named(const char *name, const char *word, size_t len)
{
	return strlen(name) == len && !strncmp(name, word, len);
}

/* The names of all rows, up to NULL. */
static const char *row_name(unsigned int i)
{
	if (i < nr_rows)
		return rows[i].name;
	i -= nr_rows;
	if (i < NR_MAPS)
		return maps_rows[i].name;
	i -= NR_MAPS;
	return i == 0 ? BPF_NAME : i == 1 ? DECAY_NAME : NULL;
}

/* Is there a row of just this name? */
static bool is_name(const char *word, size_t len)
{
	const char *name;

	for (unsigned int i = 0; (name = row_name(i)); i++)
		if (named(name, word, len))
			return true;
	return false;
}

static bool word_wants(const char *word, size_t len, const char *name)
{
	return is_name(word, len) ? named(name, word, len) :
				    memmem(name, strlen(name), word, len) != NULL;
}

static bool wanted(const struct options *o, const char *name)
{
	const char *word = o->filter;

	if (!word || !*word)
		return true;
	for (;;) {
		size_t len = strcspn(word, ",");

		if (len && word_wants(word, len, name))
			return true;
		if (!word[len])
			return false;
		word += len + 1;
	}
}

/* Each word of the filter is to choose something, or this is the end. */
static void check_filter(const char *filter)
{
	size_t len;

	for (const char *word = filter; word && *word; word += len + (word[len] == ',')) {
		unsigned int i = 0;

		len = strcspn(word, ",");
		while (row_name(i) && !(len && word_wants(word, len, row_name(i))))
			i++;
		if (!row_name(i))
			errx(2, "--filter=%s: no row has '%.*s' in its name; see --list", filter,
			     (int)len, word);
	}
}

static bool enough_cpus(const struct options *o, const struct row *row)
{
	return row->cpus <= o->nr_cpus;
}

/* To one CPU, and back to those that were allowed before. */
static void pin(const struct options *o, cpu_set_t *old)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(o->cpus[0], &set);
	if (sched_getaffinity(0, sizeof(*old), old))
		*old = set;
	sched_setaffinity(0, sizeof(set), &set);
}

static void unpin(const cpu_set_t *old)
{
	sched_setaffinity(0, sizeof(*old), old);
}

static unsigned int bpf_rounds(const struct options *o)
{
	return o->rounds < BPF_ROUNDS ? (unsigned int)o->rounds : BPF_ROUNDS;
}

static void run_bpf(struct report *r, const struct options *o)
{
	unsigned int rounds = bpf_rounds(o);
	double *ns[NR_BENCH_BPF];
	const char *problem;
	cpu_set_t old;

	for (unsigned int i = 0; i < NR_BENCH_BPF; i++) {
		ns[i] = calloc(rounds, sizeof(*ns[i]));
		if (!ns[i])
			errx(1, "out of memory");
	}
	pin(o, &old);
	problem = bpf_pairs(rounds, ns);
	unpin(&old);
	if (problem)
		report_skip(r, "%s: %s", BPF_NAME, problem);
	else
		report_bpf(r, rounds, ns);
	for (unsigned int i = 0; i < NR_BENCH_BPF; i++)
		free(ns[i]);
}

/* One row of maps.c, on one CPU unless it says otherwise. */
static void run_maps(struct report *r, const struct options *o, unsigned int row)
{
	const char *problem;
	cpu_set_t old;

	pin(o, &old);
	problem = maps_run(r, row, bpf_rounds(o), o);
	unpin(&old);
	if (problem)
		report_skip(r, "%s: %s", maps_rows[row].name, problem);
}

/* One line for each allocator that is missing. */
static void find_allocators(struct report *r, struct found *found)
{
	peers_find(found);
	for (unsigned int i = 0; i < nr_allocators; i++) {
		if (found[i].there)
			continue;
		if (allocators[i].kind != KIND_PEER && allocators[i].kind != KIND_SAFE &&
		    allocators[i].entry != ENTRY_MALLOC)
			errx(1, "%s: %s: run it from the build directory that make made",
			     allocators[i].name, found[i].why);
		report_skip(r, "%s: %s", allocators[i].name, found[i].why);
	}
}

/* Returns 1 if one of ours failed. */
static int run_rows(struct report *r, const struct options *o, const struct found *found,
		    const char *dir)
{
	struct result *res = calloc(nr_rows, sizeof(*res));
	unsigned int nr = 0, left = 0;
	double seconds;
	int bad = 0;

	if (!res)
		errx(1, "out of memory");
	for (unsigned int i = 0; i < nr_rows; i++)
		left += wanted(o, rows[i].name) && enough_cpus(o, &rows[i]);
	seconds = (double)o->seconds / (left ? left : 1);
	if (seconds > ROW_SECONDS)
		seconds = ROW_SECONDS;
	for (unsigned int i = 0; i < nr_rows; i++) {
		if (!wanted(o, rows[i].name))
			continue;
		if (!enough_cpus(o, &rows[i])) {
			report_skip(r, "%s: needs %u CPUs, and may use %u", rows[i].name,
				    rows[i].cpus, o->nr_cpus);
			continue;
		}
		if (row_run(&res[nr], &rows[i], o, found, r, seconds)) {
			result_free(&res[nr]);
			bad = 1;
			continue;
		}
		if (!res[nr].nr) {
			result_free(&res[nr]);
			continue;
		}
		report_row(r, &res[nr], found);
		if (o->profile)
			profile_row(&res[nr], o, found, r);
		nr++;
	}
	if (nr) {
		report_levels(res, nr);
		report_memory(res, nr);
		summary(r, res, nr, dir);
	}
	for (unsigned int i = 0; i < nr; i++)
		result_free(&res[i]);
	free(res);
	return bad;
}

static char *in(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		errx(1, "out of memory");
	return path;
}

int main(int argc, char **argv)
{
	struct options o = { .rounds = 100, .sittings = 5, .seconds = 600 };
	const char *build = getenv("NOLOCK_BUILD");
	struct found found[NR_ALLOCATORS_MAX];
	struct decay decay[NR_ALLOCATORS_MAX];
	char *json = NULL, *profile = NULL, *dir = NULL;
	bool any = false;
	struct report *r;
	int error, bad = 0;

	argp_err_exit_status = 2;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	check_filter(o.filter);
	if (o.rounds < o.sittings)
		o.sittings = o.rounds;
	for (unsigned int i = 0; i < nr_rows; i++)
		any |= wanted(&o, rows[i].name);
	if (build) {
		dir = in(build, "bench");
		if (!o.json)
			json = in(build, "bench.json");
	}
	if (o.json && *o.json)
		json = strdup(o.json);
	if (o.profile)
		o.profile = profile = build ? in(build, "bench/profile") : beside("profile");

	choose_cpus(&o);
	r = report_new(&o);
	if (any || wanted(&o, DECAY_NAME))
		find_allocators(r, found);
	if (any)
		bad = run_rows(r, &o, found, dir);
	if (wanted(&o, DECAY_NAME)) {
		if (decay_run(decay, &o, found, r))
			bad = 1;
		report_decay(r, decay);
	}
	if (wanted(&o, BPF_NAME))
		run_bpf(r, &o);
	for (unsigned int i = 0; i < NR_MAPS; i++)
		if (wanted(&o, maps_rows[i].name))
			run_maps(r, &o, i);
	error = report_end(r, json);
	if (error)
		errx(1, "cannot write %s: %s", json, strerror(-error));
	if (json)
		printf("\nthe same figures as JSON: %s\n", json);
	free(json);
	free(profile);
	free(dir);
	return bad;
}
