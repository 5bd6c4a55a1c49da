// SPDX-License-Identifier: GPL-2.0-only
/*
 * report.c - the tables for people, and the same figures as JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <err.h>
#include <sys/utsname.h>

#include "bench.h"
#include "table.h"

#ifdef __clang__
#define COMPILER __VERSION__ /* names itself */
#else
#define COMPILER "gcc " __VERSION__
#endif

struct report {
	json_object *root;
	json_object *rows;
	json_object *skipped;
};

json_object *json_must(json_object *o)
{
	if (!o)
		errx(2, "out of memory");
	return o;
}

json_object *json_text(const char *s)
{
	return json_must(json_object_new_string(s));
}

/* Three decimals: what a median of noisy rounds is good for. */
json_object *json_number(double value)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%.3f", value);
	return json_must(json_object_new_double_s(value, digits));
}

json_object *json_spread(const struct spread *s)
{
	json_object *o = json_must(json_object_new_object());

	json_object_object_add(o, "min", json_number(s->min));
	json_object_object_add(o, "q1", json_number(s->q1));
	json_object_object_add(o, "median", json_number(s->median));
	json_object_object_add(o, "q3", json_number(s->q3));
	json_object_object_add(o, "max", json_number(s->max));
	return o;
}

static json_object *whole(uint64_t n)
{
	return json_must(json_object_new_int64((int64_t)n));
}

/* What follows @key and one of @marks in the first line of a file that starts with it, or "?". */
static void line_of(const char *path, const char *key, const char *marks, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");
	char line[256];

	snprintf(buf, len, "?");
	while (f && fgets(line, sizeof(line), f)) {
		char *value = line + strcspn(line, marks);

		if (strncmp(line, key, strlen(key)) || !*value)
			continue;
		value += 1 + strspn(value + 1, " \"");
		snprintf(buf, len, "%.*s", (int)strcspn(value, "\"\n"), value);
		break;
	}
	if (f)
		fclose(f);
}

/* What was measured, and on what: on any other the figures are others. */
static void add_machine(json_object *root, const struct options *opt)
{
	json_object *list = json_must(json_object_new_array());
	const char *commit = getenv("NOLOCK_COMMIT");
	char cpu[128], release[128];
	struct utsname uts;

	if (uname(&uts))
		memset(&uts, 0, sizeof(uts));
	line_of("/proc/cpuinfo", "model name", ":", cpu, sizeof(cpu));
	line_of("/etc/os-release", "PRETTY_NAME", "=", release, sizeof(release));
	commit = commit && *commit ? commit : "unknown";
	json_object_object_add(root, "commit", json_text(commit));
	json_object_object_add(root, "cpu", json_text(cpu));
	json_object_object_add(root, "machine", json_text(uts.machine));
	json_object_object_add(root, "kernel", json_text(uts.release));
	json_object_object_add(root, "release", json_text(release));
	json_object_object_add(root, "compiler", json_text(COMPILER));
	for (unsigned int i = 0; i < opt->nr_cpus; i++)
		json_object_array_add(list, json_must(json_object_new_int(opt->cpus[i])));
	json_object_object_add(root, "cpus", list);
	printf("machine: %s (%s), %u CPUs, Linux %s, %s, %s, commit %s\n", cpu, uts.machine,
	       opt->nr_cpus, uts.release, release, COMPILER, commit);
}

struct report *report_new(const struct options *o)
{
	struct report *r = calloc(1, sizeof(*r));

	if (!r)
		errx(2, "out of memory");
	r->root = json_must(json_object_new_object());
	r->rows = json_must(json_object_new_array());
	r->skipped = json_must(json_object_new_array());
	add_machine(r->root, o);
	json_object_object_add(r->root, "rows", r->rows);
	json_object_object_add(r->root, "skipped", r->skipped);
	return r;
}

json_object *report_root(struct report *r)
{
	return r->root;
}

void report_skip(struct report *r, const char *fmt, ...)
{
	char *line = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&line, fmt, ap) < 0)
		errx(2, "out of memory");
	va_end(ap);
	printf("skipped: %s\n", line);
	fflush(stdout);
	json_object_array_add(r->skipped, json_text(line));
	free(line);
}

/* What a time is shown in, and how many digits after the point say something. */
static double unit_of(double ns, const char **name, int *digits)
{
	double unit = ns < 1e4 ? 1 : ns < 1e7 ? 1e3 : 1e6;

	*name = unit < 10 ? "ns" : unit < 1e4 ? "us" : "ms";
	*digits = ns / unit < 100 ? 2 : 1;
	return unit;
}

void time_cell(struct table *t, double ns)
{
	const char *name;
	int digits;
	double unit = unit_of(ns, &name, &digits);

	table_cell(t, "%.*f %s", digits, ns / unit, name);
}

static void time_cells(struct table *t, const struct spread *s)
{
	const char *name;
	int digits;
	double unit = unit_of(s->median, &name, &digits);

	time_cell(t, s->median);
	table_cell(t, "%.*f..%.*f", digits, s->q1 / unit, digits, s->q3 / unit);
}

static void ratio_cells(struct table *t, json_object *o, const char *name, const double *ours,
			const double *theirs, unsigned int n)
{
	char key[64];
	struct spread s;

	if (ours == theirs) {
		table_cell(t, "-");
		table_cell(t, "-");
		return;
	}
	s = spread_ratio(ours, theirs, n);
	table_cell(t, "%.2f", s.median);
	table_cell(t, "%.2f..%.2f", s.q1, s.q3);
	snprintf(key, sizeof(key), "%s_ratio", name);
	json_object_object_add(o, key, json_spread(&s));
}

static json_object *counts_json(const struct work_counts *c)
{
	json_object *o = json_must(json_object_new_object());

#define ADD(field) json_object_object_add(o, #field, whole(c->field))
	ADD(allocs);
	ADD(frees);
	ADD(a_allocs);
	ADD(a_frees);
	ADD(slow_allocs);
	ADD(slow_frees);
	ADD(next_bucket);
	ADD(refilled);
	ADD(flushed);
	ADD(from_barn);
	ADD(slot_locks);
	ADD(barn_locks);
	ADD(slab_visits);
	ADD(busy);
	ADD(slabs_made);
	ADD(slabs_freed);
#undef ADD
	return o;
}

static json_object *map_json(const struct work_map *m)
{
	json_object *o = json_must(json_object_new_object());

#define ADD(field) json_object_object_add(o, #field, whole(m->field))
	ADD(objects);
	ADD(large);
	ADD(slots);
	ADD(barns);
	ADD(slabs);
	ADD(tails);
	ADD(slabs_absent);
	ADD(large_absent);
	ADD(free_present);
	ADD(metadata);
	ADD(present);
	ADD(rss);
#undef ADD
	return o;
}

/* Which of ours an allocator is compared to: the two that the row has, or the first two. */
static void pick_ours(const struct result *res, int ours[2])
{
	unsigned int n = 0;

	ours[0] = ours[1] = -1;
	for (unsigned int i = 0; i < nr_allocators && n < 2; i++)
		if (res->of[i].ran &&
		    (allocators[i].kind == KIND_OURS || allocators[i].kind == KIND_OTHER))
			ours[n++] = (int)i;
}

void report_row(struct report *r, const struct result *res, const struct found *found)
{
	const struct row *row = res->row;
	char unit[32], head[2][40];
	const char *heads[] = { "<",	 unit,	      "quartiles", "peak MiB",	"range",
				head[0], "quartiles", NULL,	   "quartiles", NULL };
	json_object *o = json_must(json_object_new_object()),
		    *list = json_must(json_object_new_array());
	struct table *t;
	int ours[2];

	pick_ours(res, ours);
	snprintf(unit, sizeof(unit), "%s %s", strchr("aeiou", *row->unit) ? "an" : "a", row->unit);
	for (int k = 0; k < 2; k++)
		snprintf(head[k], sizeof(head[k]),
			 "%s:", ours[k] < 0 ? "-" : allocators[ours[k]].name);
	if (ours[0] < 0)
		heads[5] = NULL;
	heads[7] = ours[1] < 0 ? NULL : head[1];
	t = table_new(heads);
	json_object_object_add(o, "name", json_text(row->name));
	json_object_object_add(o, "what", json_text(row->what));
	json_object_object_add(o, "unit", json_text(row->unit));
	json_object_object_add(o, "threads", whole(row->threads));
	json_object_object_add(o, "units", whole(row->units));
	json_object_object_add(o, "rounds", whole(res->nr));
	if (res->best >= 0)
		json_object_object_add(o, "fastest_peer", json_text(allocators[res->best].name));
	json_object_object_add(o, "allocators", list);
	json_object_array_add(r->rows, o);
	for (unsigned int i = 0; i < nr_allocators; i++) {
		const struct series *s = &res->of[i];
		json_object *cell;
		struct spread ns, rss;

		if (!s->ran)
			continue;
		cell = json_must(json_object_new_object());
		ns = spread_copy(s->ns, res->nr);
		rss = spread_copy(s->rss, res->nr_rss);
		json_object_object_add(cell, "name", json_text(allocators[i].name));
		json_object_object_add(cell, "library",
				       json_text(*found[i].path ? basename(found[i].path) :
								  "the C library"));
		json_object_object_add(cell, "ns", json_spread(&ns));
		json_object_object_add(cell, "peak_rss_mib", json_spread(&rss));
		table_cell(t, "  %s", allocators[i].name);
		time_cells(t, &ns);
		table_cell(t, "%.1f", rss.median);
		table_cell(t, "%.1f..%.1f", rss.min, rss.max);
		for (int k = 0; k < 2 && ours[k] >= 0; k++)
			ratio_cells(t, cell, allocators[ours[k]].name, res->of[ours[k]].ns, s->ns,
				    res->nr);
		if (s->has_counts)
			json_object_object_add(cell, "counts", counts_json(&s->counts));
		if (s->has_map)
			json_object_object_add(cell, "map", map_json(&s->map));
		json_object_array_add(list, cell);
	}
	printf("\n%s: %s, %u thread%s, %u rounds\n", row->name, row->what, row->threads,
	       row->threads > 1 ? "s" : "", res->nr);
	table_print(t);
	fflush(stdout);
}

static double per(uint64_t part, uint64_t total, double scale)
{
	return total ? (double)part * scale / (double)total : 0;
}

/* Of fewer allocations than this, what filled the first sheaves would be most. */
#define MIN_ALLOCS 10000

/* An allocation out of a sheaf was served by whatever had filled the sheaf. */
static void level_cells(struct table *t, const struct work_counts *c)
{
	uint64_t ops = c->allocs + c->frees;
	double slabs = per(c->refilled, c->allocs, 100), barn = per(c->from_barn, c->allocs, 100);
	double bits = per(c->slow_allocs, c->allocs, 100), own = 100 - slabs - barn - bits;

	table_cell(t, "%.2f", own > 0 ? own : 0);
	table_cell(t, "%.2f", barn);
	table_cell(t, "%.2f", slabs);
	table_cell(t, "%.2f", bits);
	table_cell(t, "%.2f", per(c->a_allocs, c->allocs, 100));
	table_cell(t, "%.2f", per(c->slow_frees, c->frees, 100));
	table_cell(t, "%.2f", per(c->slot_locks, ops, 1000));
	table_cell(t, "%.2f", per(c->barn_locks, ops, 1000));
	table_cell(t, "%.2f", per(c->slab_visits, ops, 1000));
	table_cell(t, "%.2f", per(c->busy, ops, 1000));
}

void report_levels(const struct result *res, unsigned int nr)
{
	static const char *const heads[] = {
		"<",	      "<",	    "freed here",  "barn %",
		"slabs %",    "bitmap %",   "A-slot %",	   "free: bitmap %",
		"slot locks", "barn locks", "slab visits", "busy",
		NULL
	};
	struct table *t = NULL;

	for (unsigned int k = 0; k < nr; k++)
		for (unsigned int i = 0; i < nr_allocators; i++) {
			const struct series *s = &res[k].of[i];

			if (!s->ran || !s->has_counts || s->counts.allocs < MIN_ALLOCS)
				continue;
			if (!t)
				t = table_new(heads);
			table_cell(t, "  %s", res[k].row->name);
			table_cell(t, "%s", allocators[i].name);
			level_cells(t, &s->counts);
		}
	if (!t)
		return;
	printf("\nWhich level served: of 100 allocations, those of objects that had been freed "
	       "to the same\nslot, that came in a sheaf of the barn, that were taken from slabs "
	       "in whole words, that were\ntaken from a bitmap one by one; those by an A-slot; "
	       "of 100 frees, those into a bitmap. Of\n1000 operations, those that locked a "
	       "slot, exchanged a sheaf with the barn, went to the slabs,\nfound a lock "
	       "taken. Large objects go past all of them.\n");
	table_print(t);
	fflush(stdout);
}

static void mib_cell(struct table *t, uint64_t bytes)
{
	table_cell(t, "%.2f", (double)bytes / (1 << 20));
}

void report_memory(const struct result *res, unsigned int nr)
{
	static const char *const heads[] = { "<",	 "<",	  "objects", "large",  "slots",
					     "barns",	 "slabs", "tails",   "absent", "unused",
					     "metadata", "heap",  "RSS",     NULL };
	struct table *t = NULL;

	for (unsigned int k = 0; k < nr; k++)
		for (unsigned int i = 0; i < nr_allocators; i++) {
			const struct series *s = &res[k].of[i];
			const struct work_map *m = &s->map;

			if (!s->ran || !s->has_map || !m->present)
				continue;
			if (!t)
				t = table_new(heads);
			table_cell(t, "  %s", res[k].row->name);
			table_cell(t, "%s", allocators[i].name);
			mib_cell(t, m->objects);
			mib_cell(t, m->large);
			mib_cell(t, m->slots);
			mib_cell(t, m->barns);
			mib_cell(t, m->slabs);
			mib_cell(t, m->tails);
			mib_cell(t, m->slabs_absent + m->large_absent);
			mib_cell(t, m->free_present);
			mib_cell(t, m->metadata);
			mib_cell(t, m->present);
			mib_cell(t, m->rss);
		}
	if (!t)
		return;
	printf("\nMemory when a workload holds most, MiB: objects in use, large ones; free "
	       "objects in slots, in\nbarns and in slabs; tails of slabs; of all these, pages "
	       "that are not there; free chunks'\npages that are (populated but unused); "
	       "metadata's. The heap is objects to tails, less absent,\nplus the next two.\n");
	table_print(t);
	fflush(stdout);
}

void report_decay(struct report *r, const struct decay *d)
{
	const char *heads[DECAY_SAMPLES + 4] = { "<", "peak" };
	char text[DECAY_SAMPLES][16];
	json_object *o = json_must(json_object_new_object());
	struct table *t;

	for (unsigned int k = 0; k < DECAY_SAMPLES; k++) {
		snprintf(text[k], sizeof(text[k]), "%g s", decay_at[k]);
		heads[k + 2] = text[k];
	}
	heads[DECAY_SAMPLES + 2] = "asked to";
	t = table_new(heads);
	for (unsigned int i = 0; i < nr_allocators; i++) {
		json_object *list;

		if (!d[i].ran)
			continue;
		list = json_must(json_object_new_array());
		table_cell(t, "  %s", allocators[i].name);
		table_cell(t, "%.1f", d[i].peak);
		json_object_array_add(list, json_number(d[i].peak));
		for (unsigned int k = 0; k < DECAY_SAMPLES; k++) {
			table_cell(t, "%.1f", d[i].rss[k]);
			json_object_array_add(list, json_number(d[i].rss[k]));
		}
		table_cell(t, "%.1f", d[i].trimmed);
		json_object_array_add(list, json_number(d[i].trimmed));
		json_object_object_add(o, allocators[i].name, list);
	}
	json_object_object_add(r->root, "decay_mib", o);
	printf("\ndecay: RSS in MiB after 64 MiB of 16 to 1024 B were freed, while little is "
	       "allocated;\nthen after what the allocator has for being asked to give back\n");
	table_print(t);
	fflush(stdout);
}

void report_bpf(struct report *r, unsigned int rounds, double *const ns[NR_BENCH_BPF])
{
	static const char *const heads[] = {
		"<",	     "ns/turn", "quartiles", "less the loop", "kmalloc_nolock : it",
		"quartiles", "",	NULL
	};
	static const char *const names[NR_BENCH_BPF] = {
		[BENCH_BPF_EMPTY] = "empty",
		[BENCH_BPF_NOLOCK] = "kmalloc_nolock",
		[BENCH_BPF_OBJ] = "bpf_obj_new",
		[BENCH_BPF_HASH] = "hash map",
		[BENCH_BPF_LAZY] = "hash map, not preallocated",
	};
	struct table *t = table_new(heads);
	json_object *o = json_must(json_object_new_object());
	double *net[NR_BENCH_BPF];
	struct spread s, less, ratio;

	for (unsigned int i = 0; i < NR_BENCH_BPF; i++) {
		json_object *row = json_must(json_object_new_object());

		net[i] = calloc(rounds, sizeof(*net[i]));
		if (!net[i])
			errx(2, "out of memory");
		for (unsigned int k = 0; k < rounds; k++)
			net[i][k] = ns[i][k] - ns[BENCH_BPF_EMPTY][k];
		s = spread_copy(ns[i], rounds);
		less = spread_copy(net[i], rounds);
		json_object_object_add(row, "ns", json_spread(&s));
		json_object_object_add(row, "ns_less_loop", json_spread(&less));
		json_object_object_add(o, names[i], row);
		ratio = (struct spread){ 0 };
		if (i > BENCH_BPF_NOLOCK) {
			ratio = spread_ratio(net[BENCH_BPF_NOLOCK], net[i], rounds);
			json_object_object_add(row, "ratio", json_spread(&ratio));
		}
		table_cell(t, "  %s", names[i]);
		table_cell(t, "%.1f", s.median);
		table_cell(t, "%.1f..%.1f", s.q1, s.q3);
		table_cell(t, i == BENCH_BPF_EMPTY ? "-" : "%.1f", less.median);
		table_cell(t, ratio.median > 0 ? "%.3f" : "-", ratio.median);
		table_cell(t, ratio.median > 0 ? "%.3f..%.3f" : "-", ratio.q1, ratio.q3);
		table_cell(t, ratio.median > 0 ? "1/%.1f" : "-", 1 / ratio.median);
	}
	for (unsigned int i = 0; i < NR_BENCH_BPF; i++)
		free(net[i]);
	json_object_object_add(r->root, "bpf", o);
	printf("\nbpf: one object of 64 B, freed at once, in a BPF program (tc), 1 thread; ratios less "
	       "the loop\n");
	table_print(t);
	fflush(stdout);
}

int report_end(struct report *r, const char *json)
{
	int error = 0;

	if (json && json_object_to_file_ext(json, r->root,
					    JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
						    JSON_C_TO_STRING_NOSLASHESCAPE))
		error = errno ? -errno : -EIO;
	json_object_put(r->root);
	free(r);
	return error;
}
