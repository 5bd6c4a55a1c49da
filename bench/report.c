// SPDX-License-Identifier: GPL-2.0-only
/*
 * report.c - the tables for people, and the same figures as JSON.
 *
 * A ratio is taken within each round, where both sides ran milliseconds apart, and the median of
 * the rounds is what counts; the quartiles beside it say how much it is worth.
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

struct report {
	unsigned int rounds;
	json_object *root;
	json_object *workloads;
	json_object *skipped;
	double *scratch;
};

static json_object *must(json_object *o)
{
	if (!o)
		errx(2, "out of memory");
	return o;
}

static json_object *text(const char *s)
{
	return must(json_object_new_string(s));
}

/* Three decimals: what a median of noisy rounds is good for. */
static json_object *number(double value)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%.3f", value);
	return must(json_object_new_double_s(value, digits));
}

static json_object *spread_json(const struct spread *s)
{
	json_object *o = must(json_object_new_object());

	json_object_object_add(o, "min", number(s->min));
	json_object_object_add(o, "q1", number(s->q1));
	json_object_object_add(o, "median", number(s->median));
	json_object_object_add(o, "q3", number(s->q3));
	json_object_object_add(o, "max", number(s->max));
	return o;
}

/* The CPU's name, as /proc/cpuinfo has it on x86. */
static void add_machine(json_object *root, const int *cpus, unsigned int nr_cpus)
{
	json_object *list = must(json_object_new_array());
	struct utsname uts;
	char line[256];
	FILE *f;

	if (!uname(&uts)) {
		json_object_object_add(root, "kernel", text(uts.release));
		json_object_object_add(root, "machine", text(uts.machine));
	}
	f = fopen("/proc/cpuinfo", "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) || !colon)
			continue;
		line[strcspn(line, "\n")] = 0;
		json_object_object_add(root, "cpu", text(colon + 2));
		break;
	}
	if (f)
		fclose(f);
	for (unsigned int i = 0; i < nr_cpus; i++)
		json_object_array_add(list, must(json_object_new_int(cpus[i])));
	json_object_object_add(root, "pinned_to", list);
}

struct report *report_new(unsigned int rounds, const int *cpus, unsigned int nr_cpus)
{
	struct report *r = calloc(1, sizeof(*r));

	if (!r)
		errx(2, "out of memory");
	r->rounds = rounds;
	r->scratch = calloc(rounds, sizeof(*r->scratch));
	if (!r->scratch)
		errx(2, "out of memory");
	r->root = must(json_object_new_object());
	r->workloads = must(json_object_new_array());
	r->skipped = must(json_object_new_array());
	add_machine(r->root, cpus, nr_cpus);
	json_object_object_add(r->root, "rounds", must(json_object_new_int((int)rounds)));
	json_object_object_add(r->root, "unit",
			       text("ns for one allocation and its free; ratios of such"));
	json_object_object_add(r->root, "workloads", r->workloads);
	json_object_object_add(r->root, "skipped", r->skipped);
	return r;
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
	json_object_array_add(r->skipped, text(line));
	free(line);
}

static struct spread of_rounds(struct report *r, const double *ns)
{
	memcpy(r->scratch, ns, r->rounds * sizeof(*ns));
	return spread_of(r->scratch, r->rounds);
}

static struct spread of_ratios(struct report *r, const double *ours, const double *theirs)
{
	for (unsigned int i = 0; i < r->rounds; i++)
		r->scratch[i] = theirs[i] > 0 ? ours[i] / theirs[i] : 0;
	return spread_of(r->scratch, r->rounds);
}

static void spread_cells(struct table *t, const struct spread *s, int decimals)
{
	table_cell(t, "%.*f", decimals, s->median);
	table_cell(t, "%.*f..%.*f", decimals, s->q1, decimals, s->q3);
}

/* The row's allocator as the base of a ratio of one of ours; "-" for itself or a missing one. */
static void ratio_cells(struct report *r, struct table *t, json_object *row, const char *name,
			const double *ours, const double *theirs)
{
	char key[64];
	struct spread s;

	if (!ours || ours == theirs) {
		table_cell(t, "-");
		table_cell(t, "-");
		return;
	}
	s = of_ratios(r, ours, theirs);
	spread_cells(t, &s, 2);
	snprintf(key, sizeof(key), "%s_ratio", name);
	json_object_object_add(row, key, spread_json(&s));
}

static const double *times_of(double *const *ns, enum entry entry)
{
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (allocators[i].entry == entry)
			return ns[i];
	return NULL;
}

void report_workload(struct report *r, const struct workload *w, double *const *ns,
		     char *const *paths)
{
	static const char *const heads[] = {
		"<",	     "ns/pair",	 "quartiles", "kmalloc_nolock:",
		"quartiles", "kmalloc:", "quartiles", NULL
	};
	struct table *t = table_new(heads);
	json_object *o = must(json_object_new_object()), *rows = must(json_object_new_array());

	json_object_object_add(o, "name", text(w->name));
	json_object_object_add(o, "what", text(w->what));
	json_object_object_add(o, "threads", must(json_object_new_int((int)w->threads)));
	json_object_object_add(o, "pairs", must(json_object_new_int64((int64_t)w->pairs)));
	json_object_object_add(o, "allocators", rows);
	json_object_array_add(r->workloads, o);
	for (unsigned int i = 0; i < nr_allocators; i++) {
		json_object *row;
		struct spread s;

		if (!ns[i])
			continue;
		row = must(json_object_new_object());
		s = of_rounds(r, ns[i]);
		json_object_object_add(row, "name", text(allocators[i].name));
		json_object_object_add(row, "library", text(*paths[i] ? paths[i] : "libc"));
		json_object_object_add(row, "ns", spread_json(&s));
		table_cell(t, "  %s", allocators[i].name);
		spread_cells(t, &s, 2);
		ratio_cells(r, t, row, "kmalloc_nolock", times_of(ns, ENTRY_NOLOCK), ns[i]);
		ratio_cells(r, t, row, "kmalloc", times_of(ns, ENTRY_KMALLOC), ns[i]);
		json_object_array_add(rows, row);
	}
	printf("\n%s: %s, %u thread%s\n", w->name, w->what, w->threads, w->threads > 1 ? "s" : "");
	table_print(t);
	fflush(stdout);
}

void report_bpf(struct report *r, double *const ns[NR_BENCH_BPF])
{
	static const char *const heads[] = { "<", "ns/turn", "quartiles", "less the loop", NULL };
	static const char *const names[NR_BENCH_BPF] = {
		[BENCH_BPF_EMPTY] = "empty",
		[BENCH_BPF_NOLOCK] = "kmalloc_nolock",
		[BENCH_BPF_OBJ] = "bpf_obj_new",
	};
	struct table *t = table_new(heads);
	json_object *o = must(json_object_new_object());
	const double *empty = ns[BENCH_BPF_EMPTY];
	struct spread s, net;

	for (unsigned int i = 0; i < NR_BENCH_BPF; i++) {
		json_object *row = must(json_object_new_object());

		s = of_rounds(r, ns[i]);
		for (unsigned int k = 0; k < r->rounds; k++)
			r->scratch[k] = ns[i][k] - empty[k];
		net = spread_of(r->scratch, r->rounds);
		json_object_object_add(row, "ns", spread_json(&s));
		json_object_object_add(row, "ns_less_loop", spread_json(&net));
		json_object_object_add(o, names[i], row);
		table_cell(t, "  %s", names[i]);
		spread_cells(t, &s, 1);
		table_cell(t, i == BENCH_BPF_EMPTY ? "-" : "%.1f", net.median);
	}
	for (unsigned int k = 0; k < r->rounds; k++)
		r->scratch[k] =
			(ns[BENCH_BPF_NOLOCK][k] - empty[k]) / (ns[BENCH_BPF_OBJ][k] - empty[k]);
	s = spread_of(r->scratch, r->rounds);
	json_object_object_add(o, "ratio", spread_json(&s));
	json_object_object_add(r->root, "bpf", o);
	printf("\nbpf: one object of 64 B, freed at once, in a BPF program (tc), 1 thread\n");
	table_print(t);
	printf("  kmalloc_nolock : bpf_obj_new, less the loop: %.3f (quartiles %.3f..%.3f), 1/%.0f\n",
	       s.median, s.q1, s.q3, s.median > 0 ? 1 / s.median : 0);
	fflush(stdout);
}

json_object *report_root(struct report *r)
{
	return r->root;
}

int report_end(struct report *r, const char *json)
{
	int error = 0;

	if (json && json_object_to_file_ext(json, r->root,
					    JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
						    JSON_C_TO_STRING_NOSLASHESCAPE))
		error = errno ? -errno : -EIO;
	json_object_put(r->root);
	free(r->scratch);
	free(r);
	return error;
}
