// SPDX-License-Identifier: GPL-2.0-only
/*
 * row.c - one row of the table: a workload in one process for each allocator, in turns.
 *
 * A row is measured in several sittings, each with processes of its own: where a process has its
 * memory is luck, and belongs to the spread. In a sitting all allocators run one short round, then
 * the next, in reversed order every other time: being first is nobody's privilege. A sitting ends
 * when its share of the time is used up.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define MIN_ROUNDS 3 /* of a sitting */

#define PROGRAM_ROW(row_name, in_words, ...)                                                       \
	{                                                                                          \
		.name = row_name, .what = in_words, .unit = "process", .kind = ROW_PROGRAM,        \
		.threads = 1, .cpus = 1, .with = WITH(ENTRY_MALLOC), .units = 1, .argv = {         \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}

const struct row rows[] = {
#define LOAD_ROW(id, row_name, nr_threads, nr_cpus, nr_units, kib, most, entries, aimed,           \
		 what_unit, in_words)                                                              \
	{ .name = row_name,                                                                        \
	  .what = in_words,                                                                        \
	  .unit = what_unit,                                                                       \
	  .kind = ROW_LOAD,                                                                        \
	  .aim = aimed,                                                                            \
	  .workload = id,                                                                          \
	  .threads = nr_threads,                                                                   \
	  .cpus = nr_cpus,                                                                         \
	  .with = entries,                                                                         \
	  .units = nr_units,                                                                       \
	  .aside = kib,                                                                            \
	  .largest = most },
	WORKLOADS(LOAD_ROW)
#undef LOAD_ROW
		{ .name = "start",
		  .what = "a process that starts, allocates 100 objects and ends",
		  .unit = "process",
		  .kind = ROW_START,
		  .threads = 1,
		  .cpus = 1,
		  .with = WITH_ALL,
		  .units = 1,
		  .aside = 64,
		  .largest = 1024 },
	PROGRAM_ROW("cc1", "the C compiler on a file of libnolock", "@cc1", "-quiet", "-O2",
		    "@slab.i", "-o", "/dev/null"),
	PROGRAM_ROW("perl", "Perl counts, sorts and joins words", "perl", "@words.pl"),
	PROGRAM_ROW("sqlite3", "SQLite fills, indexes and queries a table in memory", "sqlite3",
		    "-batch", "-init", "@rows.sql", ":memory:", ".exit"),
};
const unsigned int nr_rows = sizeof(rows) / sizeof(*rows);

static bool takes_part(const struct row *row, const struct allocator *a, const struct found *f)
{
	if (!f->there || !(row->with & WITH(a->entry)))
		return false;
	if (row->kind == ROW_PROGRAM)
		return strncmp(a->calls, "malloc,", strlen("malloc,")) == 0;
	return !a->largest || row->largest <= a->largest;
}

/* Returns -1 if it is one of ours, after a message; a peer is left out. */
static int drop(struct result *res, unsigned int i, struct report *r, const char *why)
{
	res->of[i].ran = false;
	if (allocators[i].kind == KIND_OURS || allocators[i].kind == KIND_OTHER) {
		warnx("%s: %s %s", res->row->name, allocators[i].name, why);
		return -1;
	}
	report_skip(r, "%s: %s %s", res->row->name, allocators[i].name, why);
	return 0;
}

/* The k-th to go in this round. */
static unsigned int in_turn(unsigned int round, unsigned int k)
{
	return round % 2 ? nr_allocators - 1 - k : k;
}

/* What a round's time is divided by: nanoseconds of all CPUs in use, for each unit of all threads. */
static double share(const struct row *row, const struct options *o)
{
	unsigned int cpus = row->threads < o->nr_cpus ? row->threads : o->nr_cpus;
	unsigned int makers = row->workload == PRODCONS ? 1 :
			      row->workload == ASYM	? 3 :
							  row->threads;

	return (double)row->units * makers / cpus;
}

static int load_round(struct result *res, struct peer *peers, const struct options *o,
		      struct report *r)
{
	const struct row *row = res->row;
	struct work_request req = { WORK_RUN, row->workload, row->units };
	struct work_reply reply;
	const char *why;

	for (unsigned int k = 0; k < nr_allocators; k++) {
		unsigned int i = in_turn(res->nr, k);

		if (!res->of[i].ran)
			continue;
		if (peer_ask(&peers[i], &req, &reply, &why)) {
			if (drop(res, i, r, why))
				return -1;
			continue;
		}
		res->of[i].ns[res->nr] = (double)reply.ns / share(row, o);
	}
	res->nr++;
	return 0;
}

/* The last questions to the processes of a sitting. Who has no answer leaves no figure. */
static int ask_memory(struct result *res, struct peer *peers, struct report *r, bool last)
{
	struct work_request req = { WORK_PEAK, res->row->workload, res->row->units };
	struct work_reply reply;
	const char *why;

	for (unsigned int i = 0; i < nr_allocators; i++) {
		struct series *s = &res->of[i];

		if (!s->ran)
			continue;
		req.op = WORK_PEAK;
		if (peer_ask(&peers[i], &req, &reply, &why)) {
			if (drop(res, i, r, why))
				return -1;
			continue;
		}
		s->rss[res->nr_rss] = (double)reply.peak / (1 << 20);
		if (!last || allocators[i].kind != KIND_OURS)
			continue;
		req.op = WORK_COUNT;
		if (!peer_ask(&peers[i], &req, &reply, &why)) {
			s->counts = reply.counts;
			s->has_counts = true;
		}
		req.op = WORK_MAP;
		if (!peer_ask(&peers[i], &req, &reply, &why)) {
			s->map = reply.map;
			s->has_map = true;
		}
	}
	res->nr_rss++;
	return 0;
}

static int load_sitting(struct result *res, const struct options *o, const struct found *found,
			struct report *r, double seconds, bool last)
{
	struct peer peers[NR_ALLOCATORS_MAX];
	bool started[NR_ALLOCATORS_MAX] = { false };
	unsigned int most = (unsigned int)(o->rounds / o->sittings), before = res->nr;
	double end = seconds_now() + seconds;
	int bad = 0;

	for (unsigned int i = 0; i < nr_allocators; i++) {
		int error;

		if (!res->of[i].ran)
			continue;
		error = peer_start(&peers[i], &allocators[i], &found[i], o, res->row->aside);
		if (error)
			errx(1, "cannot start a process for %s: %s", allocators[i].name,
			     strerror(-error));
		started[i] = true;
	}
	do
		bad = load_round(res, peers, o, r);
	while (!bad && res->nr < before + (most > 0 ? most : 1) &&
	       (res->nr < before + MIN_ROUNDS || seconds_now() < end));
	if (!bad)
		bad = ask_memory(res, peers, r, last);
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (started[i])
			peer_stop(&peers[i]);
	return bad;
}

static int loads_run(struct result *res, const struct options *o, const struct found *found,
		     struct report *r, double seconds)
{
	for (unsigned int k = 0; k < o->sittings; k++)
		if (load_sitting(res, o, found, r, seconds / (double)o->sittings,
				 k + 1 == o->sittings))
			return -1;
	return 0;
}

/* Where a program is: a loader that is called by name looks for none. To be freed. */
static char *in_path(const char *name)
{
	const char *dirs = getenv("PATH");

	for (; dirs && *dirs; dirs += strcspn(dirs, ":"), dirs += *dirs == ':') {
		char *path;

		if (asprintf(&path, "%.*s/%s", (int)strcspn(dirs, ":"), dirs, name) < 0)
			errx(1, "out of memory");
		if (!access(path, X_OK))
			return path;
		free(path);
	}
	return NULL;
}

/* A program's arguments with the files beside this program in their places; -1: one is missing. */
static int find_args(const struct row *row, const char **argv, char **files, struct report *r)
{
	unsigned int n = 0;

	for (; n < ROW_ARGS && row->argv[n]; n++) {
		char name[64];

		argv[n] = row->argv[n];
		snprintf(name, sizeof(name), "programs/%s", row->argv[n] + 1);
		if (*row->argv[n] == '@')
			argv[n] = files[n] = beside(name);
		else if (!n)
			argv[n] = files[n] = in_path(row->argv[n]);
		else
			continue;
		if (!argv[n] || access(argv[n], R_OK)) {
			report_skip(r,
				    "%s: no %s: run it by make bench, which says what is missing",
				    row->name, row->argv[n] + (*row->argv[n] == '@'));
			return -1;
		}
	}
	argv[n] = NULL;
	return 0;
}

static void start_spawner(struct peer *spawner)
{
	int error = peer_spawner(spawner);

	if (error)
		errx(1, "cannot start a process: %s", strerror(-error));
}

static int spawns_run(struct result *res, const struct options *o, const struct found *found,
		      struct report *r, double seconds)
{
	const struct row *row = res->row;
	const char *argv[ROW_ARGS + 1] = { NULL };
	char *files[ROW_ARGS + 1] = { NULL }, entry[16];
	double end = seconds_now() + seconds;
	struct spawn_reply reply;
	struct peer spawner;
	int bad = 0;

	if (row->kind == ROW_PROGRAM && find_args(row, argv, files, r))
		goto out;
	start_spawner(&spawner);
	while (!bad && res->nr < o->rounds && (res->nr < MIN_ROUNDS || seconds_now() < end)) {
		for (unsigned int k = 0; k < nr_allocators && !bad; k++) {
			unsigned int i = in_turn(res->nr, k);
			const char *why;

			if (!res->of[i].ran)
				continue;
			if (row->kind == ROW_START)
				peer_tiny(&allocators[i], entry, sizeof(entry), argv);
			if (peer_spawn(&spawner, &found[i], argv, &reply, &why)) {
				bad = drop(res, i, r, why);
				if (spawner.failed) {
					peer_stop(&spawner);
					start_spawner(&spawner);
				}
				continue;
			}
			res->of[i].ns[res->nr] = (double)reply.cpu_ns;
			res->of[i].rss[res->nr] = (double)reply.peak / (1 << 20);
		}
		res->nr_rss = ++res->nr;
	}
	peer_stop(&spawner);
out:
	for (unsigned int i = 0; i <= ROW_ARGS; i++)
		free(files[i]);
	return bad;
}

static int fastest_peer(const struct result *res)
{
	double least = 0;
	int best = -1;

	for (unsigned int i = 0; i < nr_allocators; i++) {
		double median;

		if (!res->of[i].ran || allocators[i].kind == KIND_OURS ||
		    allocators[i].kind == KIND_OTHER)
			continue;
		median = spread_copy(res->of[i].ns, res->nr).median;
		if (best < 0 || median < least) {
			best = (int)i;
			least = median;
		}
	}
	return best;
}

int row_run(struct result *res, const struct row *row, const struct options *o,
	    const struct found *found, struct report *r, double seconds)
{
	int bad;

	memset(res, 0, sizeof(*res));
	res->row = row;
	res->best = -1;
	for (unsigned int i = 0; i < nr_allocators; i++) {
		struct series *s = &res->of[i];

		if (!takes_part(row, &allocators[i], &found[i]))
			continue;
		s->ran = true;
		s->ns = calloc(o->rounds + o->sittings, sizeof(*s->ns));
		s->rss = calloc(o->rounds + o->sittings, sizeof(*s->rss));
		if (!s->ns || !s->rss)
			errx(1, "out of memory");
	}
	bad = row->kind == ROW_LOAD ? loads_run(res, o, found, r, seconds) :
				      spawns_run(res, o, found, r, seconds);
	if (!bad)
		res->best = fastest_peer(res);
	return bad;
}

void result_free(struct result *res)
{
	for (unsigned int i = 0; i < nr_allocators; i++) {
		free(res->of[i].ns);
		free(res->of[i].rss);
	}
}
