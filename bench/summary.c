// SPDX-License-Identifier: GPL-2.0-only
/*
 * summary.c - all rows at a glance: ours against the fastest peer of each row, geometric means,
 * and whether what was aimed at is reached.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "table.h"

#define AIM_GEOMETRIC 0.80
#define AIM_RSS 1.0
#define AIM_NOLOCK 1.05
#define AIM_PREFILLED 1.0
/* A peer counts as fast up to this many times the time of the fastest, in the geometric mean. */
#define FAST 1.5

static const double aims[NR_AIMS] = { [AIM_PAIR] = 0.85, [AIM_CROSS] = 0.75 };

struct all {
	const struct result *res;
	unsigned int nr;
	double ns[NR_ALLOCATORS_MAX];  /* geometric means over what the row's fastest peer took */
	double mib[NR_ALLOCATORS_MAX]; /* the same of peaks over the row's leanest peer */
	unsigned int rows[NR_ALLOCATORS_MAX];
	unsigned int most; /* rows that a peer can have taken part in */
	int fastest, leanest;
	json_object *targets;
};

static bool is_peer(unsigned int i)
{
	return allocators[i].kind == KIND_PEER || allocators[i].kind == KIND_SAFE;
}

static double ns_of(const struct result *res, unsigned int i)
{
	return spread_copy(res->of[i].ns, res->nr).median;
}

static double mib_of(const struct result *res, unsigned int i)
{
	return spread_copy(res->of[i].rss, res->nr_rss).median;
}

/* The row's peer with the least peak, or -1. */
static int leanest_of(const struct result *res)
{
	int lean = -1;

	for (unsigned int i = 0; i < nr_allocators; i++)
		if (res->of[i].ran && is_peer(i) &&
		    (lean < 0 || mib_of(res, i) < mib_of(res, (unsigned int)lean)))
			lean = (int)i;
	return lean;
}

static void means(struct all *a)
{
	for (unsigned int i = 0; i < nr_allocators; i++) {
		double ns = 0, mib = 0;

		for (unsigned int k = 0; k < a->nr; k++) {
			const struct result *res = &a->res[k];

			if (res->best < 0 || !res->of[i].ran)
				continue;
			ns += log(ns_of(res, i) / ns_of(res, (unsigned int)res->best));
			mib += log(mib_of(res, i) / mib_of(res, (unsigned int)leanest_of(res)));
			a->rows[i]++;
		}
		if (!a->rows[i])
			continue;
		a->ns[i] = exp(ns / a->rows[i]);
		a->mib[i] = exp(mib / a->rows[i]);
		if (is_peer(i) && a->rows[i] > a->most)
			a->most = a->rows[i];
	}
}

/* Among those that ran everything. */
static void choose(struct all *a)
{
	a->fastest = a->leanest = -1;
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (is_peer(i) && a->most && a->rows[i] == a->most &&
		    (a->fastest < 0 || a->ns[i] < a->ns[a->fastest]))
			a->fastest = (int)i;
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (is_peer(i) && a->most && a->rows[i] == a->most &&
		    a->ns[i] <= FAST * a->ns[a->fastest] &&
		    (a->leanest < 0 || a->mib[i] < a->mib[a->leanest]))
			a->leanest = (int)i;
}

/* The geometric mean of two allocators' ratios over the rows that both have; 0: none. */
static double mean_ratio(const struct all *a, unsigned int i, unsigned int j,
			 double (*of)(const struct result *, unsigned int))
{
	double sum = 0;
	unsigned int n = 0;

	for (unsigned int k = 0; k < a->nr; k++) {
		const struct result *res = &a->res[k];

		if (res->best < 0 || !res->of[i].ran || !res->of[j].ran)
			continue;
		sum += log(of(res, i) / of(res, j));
		n++;
	}
	return n ? exp(sum / n) : 0;
}

static void target(struct all *a, const char *what, double value, double limit)
{
	json_object *o = json_must(json_object_new_object());
	bool met = value <= limit;

	json_object_object_add(o, "what", json_text(what));
	json_object_object_add(o, "value", json_number(value));
	json_object_object_add(o, "at_most", json_number(limit));
	json_object_object_add(o, "met", json_must(json_object_new_boolean(met)));
	json_object_array_add(a->targets, o);
}

static void print_target(struct all *a, const char *what, double value, double limit)
{
	target(a, what, value, limit);
	printf("  %-66s %6.3f   at most %.2f   %s\n", what, value, limit,
	       value <= limit ? "met" : "NOT met");
}

/* Ours in a row against its fastest peer. Writes who meets the row's aim into met. */
static void our_cells(struct all *a, struct table *t, const struct result *res, char *met,
		      size_t len)
{
	double aim = aims[res->row->aim];
	unsigned int n = 0, ok = 0;
	const char *last = "";

	for (unsigned int i = 0; i < nr_allocators; i++) {
		struct spread s;
		char what[128];

		if (allocators[i].kind != KIND_OURS)
			continue;
		if (!res->of[i].ran) {
			table_cell(t, "-");
			continue;
		}
		s = spread_ratio(res->of[i].ns, res->of[res->best].ns, res->nr);
		table_cell(t, "%.2f (%.2f..%.2f)", s.median, s.q1, s.q3);
		if (!aim)
			continue;
		snprintf(what, sizeof(what), "%s: %s", res->row->name, allocators[i].name);
		target(a, what, s.median, aim);
		n++;
		if (s.median <= aim) {
			ok++;
			last = allocators[i].name;
		}
	}
	snprintf(met, len, "%s",
		 !n	 ? "-" :
		 ok == n ? "met" :
		 !ok	 ? "NOT met" :
		 ok == 1 ? last :
			   "some");
}

static void rss_cells(struct table *t, const struct all *a, const struct result *res)
{
	int lean = a->leanest >= 0 && res->of[a->leanest].ran ? a->leanest : leanest_of(res);
	double base = mib_of(res, (unsigned int)lean);

	table_cell(t, "%s", allocators[lean].name);
	table_cell(t, "%.1f", base);
	for (unsigned int i = 0; i < nr_allocators; i++) {
		struct spread s;

		if (allocators[i].kind != KIND_OURS)
			continue;
		if (!res->of[i].ran) {
			table_cell(t, "-");
			continue;
		}
		s = spread_copy(res->of[i].rss, res->nr_rss);
		table_cell(t, "%.2f (%.2f..%.2f)", s.median / base, s.min / base, s.max / base);
	}
}

static void print_rows(struct all *a)
{
	const char *heads[NR_ALLOCATORS_MAX + 8] = { "<", "<fastest peer", "" };
	const char *lean[NR_ALLOCATORS_MAX + 8] = { "<", "<leanest fast peer", "MiB" };
	unsigned int n = 3;
	struct table *t;

	for (unsigned int i = 0; i < nr_allocators; i++)
		if (allocators[i].kind == KIND_OURS) {
			heads[n] = allocators[i].name;
			lean[n++] = allocators[i].name;
		}
	heads[n++] = "at most";
	heads[n] = "<";
	t = table_new(heads);
	for (unsigned int k = 0; k < a->nr; k++) {
		const struct result *res = &a->res[k];
		char met[64];

		if (res->best < 0)
			continue;
		table_cell(t, "  %s", res->row->name);
		table_cell(t, "%s", allocators[res->best].name);
		time_cell(t, ns_of(res, (unsigned int)res->best));
		our_cells(a, t, res, met, sizeof(met));
		table_cell(t, res->row->aim ? "%.2f" : "-", aims[res->row->aim]);
		table_cell(t, "%s", met);
	}
	printf("\nTime, as a ratio to the row's fastest peer (quartiles)\n");
	table_print(t);
	t = table_new(lean);
	for (unsigned int k = 0; k < a->nr; k++) {
		if (a->res[k].best < 0)
			continue;
		table_cell(t, "  %s", a->res[k].row->name);
		rss_cells(t, a, &a->res[k]);
	}
	printf("\nPeak RSS, as a ratio to the leanest of the fast peers (range)\n");
	table_print(t);
}

static void print_means(const struct all *a)
{
	const char *heads[2 * NR_ALLOCATORS_MAX + 8] = { "<", "rows", "time", "peak" };
	char text[2][NR_ALLOCATORS_MAX][40];
	unsigned int n = 4;
	struct table *t;

	for (int memory = 0; memory < 2; memory++)
		for (unsigned int i = 0; i < nr_allocators; i++) {
			if (allocators[i].kind != KIND_OURS || !a->rows[i])
				continue;
			snprintf(text[memory][i], sizeof(text[memory][i]), "%s:%s",
				 allocators[i].name, memory ? " RSS" : "");
			heads[n++] = text[memory][i];
		}
	t = table_new(heads);
	for (unsigned int i = 0; i < nr_allocators; i++) {
		if (!a->rows[i])
			continue;
		table_cell(t, "  %s", allocators[i].name);
		table_cell(t, "%u", a->rows[i]);
		table_cell(t, "%.2f", a->ns[i]);
		table_cell(t, "%.2f", a->mib[i]);
		for (int memory = 0; memory < 2; memory++)
			for (unsigned int k = 0; k < nr_allocators; k++) {
				double m;

				if (allocators[k].kind != KIND_OURS || !a->rows[k])
					continue;
				m = mean_ratio(a, k, i, memory ? mib_of : ns_of);
				table_cell(t, m > 0 && k != i ? "%.2f" : "-", m);
			}
	}
	printf("\nGeometric means: times over the rows' fastest peers', peaks over the rows' leanest "
	       "peers'; and\nours over each, in the rows that both have\n");
	table_print(t);
}

/* kmalloc_nolock : kmalloc, calls alone: setting memory aside before them is a start-up cost. */
static void nolock_to_kmalloc(struct all *a, unsigned int nolock, unsigned int kmalloc)
{
	double worst = 0, sum = 0;
	unsigned int n = 0;
	const char *name = "";
	char what[128];

	for (unsigned int k = 0; k < a->nr; k++) {
		const struct result *res = &a->res[k];
		double ratio;

		if (res->row->kind != ROW_LOAD || !res->of[nolock].ran || !res->of[kmalloc].ran)
			continue;
		sum += log(ns_of(res, nolock) / ns_of(res, kmalloc));
		n++;
		ratio = spread_ratio(res->of[nolock].ns, res->of[kmalloc].ns, res->nr).median;
		if (ratio > worst) {
			worst = ratio;
			name = res->row->name;
		}
	}
	if (!(worst > 0))
		return;
	print_target(a, "kmalloc_nolock : kmalloc, geometric mean of the workloads", exp(sum / n),
		     AIM_NOLOCK);
	snprintf(what, sizeof(what), "kmalloc_nolock : kmalloc, highest row (%s)", name);
	print_target(a, what, worst, AIM_NOLOCK);
}

static void print_targets(struct all *a)
{
	int of[NR_ENTRIES];
	char what[128];

	memset(of, -1, sizeof(of));
	printf("\nWhat was aimed at, beside the rows\n");
	for (unsigned int i = 0; i < nr_allocators; i++) {
		if (allocators[i].kind == KIND_OURS || allocators[i].kind == KIND_OTHER)
			of[allocators[i].entry] = (int)i;
		if (allocators[i].kind != KIND_OURS || !a->rows[i] || a->fastest < 0)
			continue;
		snprintf(what, sizeof(what), "time, geometric mean: %s : %s", allocators[i].name,
			 allocators[a->fastest].name);
		print_target(a, what, mean_ratio(a, i, (unsigned int)a->fastest, ns_of),
			     AIM_GEOMETRIC);
		snprintf(what, sizeof(what), "peak RSS, geometric mean: %s : %s",
			 allocators[i].name, allocators[a->leanest].name);
		print_target(a, what, mean_ratio(a, i, (unsigned int)a->leanest, mib_of), AIM_RSS);
	}
	nolock_to_kmalloc(a, (unsigned int)of[ENTRY_NOLOCK], (unsigned int)of[ENTRY_KMALLOC]);
	for (unsigned int k = 0; k < a->nr; k++) {
		const struct result *res = &a->res[k];

		if (res->row->kind != ROW_LOAD || !(res->row->with & WITH(ENTRY_SHEAF)))
			continue;
		if (!res->of[of[ENTRY_SHEAF]].ran || !res->of[of[ENTRY_CACHE]].ran)
			continue;
		snprintf(what, sizeof(what), "%s: prefilled : ordinary", res->row->name);
		print_target(a, what,
			     spread_ratio(res->of[of[ENTRY_SHEAF]].ns, res->of[of[ENTRY_CACHE]].ns,
					  res->nr)
				     .median,
			     AIM_PREFILLED);
	}
}

/* A line for each row, a column for each allocator; what is missing is NaN. */
static void write_data(const struct all *a, const char *dir, const char *name, bool memory)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	if (!f)
		err(1, "cannot write %s", path);
	fprintf(f, "row");
	for (unsigned int i = 0; i < nr_allocators; i++)
		if (a->rows[i])
			fprintf(f, " %s", allocators[i].name);
	fprintf(f, "\n");
	for (unsigned int k = 0; k < a->nr; k++) {
		const struct result *res = &a->res[k];
		double base;

		if (res->best < 0)
			continue;
		base = memory ? mib_of(res, (unsigned int)leanest_of(res)) :
				ns_of(res, (unsigned int)res->best);
		fprintf(f, "%s", res->row->name);
		for (unsigned int i = 0; i < nr_allocators; i++) {
			if (!a->rows[i])
				continue;
			if (!res->of[i].ran)
				fprintf(f, " NaN");
			else
				fprintf(f, " %.4f", (memory ? mib_of : ns_of)(res, i) / base);
		}
		fprintf(f, "\n");
	}
	if (fclose(f))
		err(1, "cannot write %s", path);
}

void summary(struct report *r, const struct result *res, unsigned int nr, const char *dir)
{
	struct all a = { .res = res, .nr = nr };

	a.targets = json_must(json_object_new_array());
	json_object_object_add(report_root(r), "targets", a.targets);
	means(&a);
	choose(&a);
	if (a.fastest >= 0) {
		print_rows(&a);
		print_means(&a);
		if (dir) {
			write_data(&a, dir, "time.dat", false);
			write_data(&a, dir, "rss.dat", true);
		}
	}
	print_targets(&a);
	fflush(stdout);
}
