// SPDX-License-Identifier: GPL-2.0-only
/*
 * stat_kernel.c - see stat_table.h: the kernel's caches. What a kernel did not show is a '-'.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "stat_sort.h"
#include "stat_table.h"
#include "table.h"

static void print_summary(json_object *o, json_object *before, double seconds)
{
	json_object *events = json_object_object_get(o, "events"), *old;
	uint64_t seen = json_u64(events, "seen");
	char buf[SHORT_LEN], rate[SHORT_LEN];

	printf("kernel: %zu caches by %s",
	       json_object_array_length(json_object_object_get(o, "caches")),
	       json_text(o, "source"));
	if (!seen) {
		printf(", no events: nolockd does not trace\n");
		return;
	}
	printf(", %s events seen", short_count(buf, seen));
	if (before && json_object_object_get_ex(before, "events", &old))
		printf(" (%s/s)",
		       short_count(rate, (uint64_t)((seen - json_u64(old, "seen")) / seconds)));
	printf(", %s lost\n", short_count(buf, json_u64(events, "lost")));
}

/* A cell with the sum of members, or '-' when the kernel showed none of them. */
static void add_sum(struct table *t, const json_object *c, const char *a, const char *b)
{
	if (json_object_object_get_ex(c, a, NULL))
		table_count(t, json_u64(c, a) + (b ? json_u64(c, b) : 0));
	else
		table_cell(t, "-");
}

static void add_row(struct table *t, const json_object *c, json_object *old, double seconds)
{
	table_cell(t, "%s", json_text(c, "name"));
	table_count(t, json_u64(c, "object_size"));
	add_sum(t, c, "objects", NULL);
	add_sum(t, c, "slabs", NULL);
	add_sum(t, c, "partial", NULL);
	add_sum(t, c, "sheaf_capacity", NULL);
	add_sum(t, c, "main_objs", "spare_objs");
	if (json_object_object_get_ex(c, "barn_full", NULL))
		table_cell(t, "%llu/%llu", (unsigned long long)json_u64(c, "barn_full"),
			   (unsigned long long)json_u64(c, "barn_empty"));
	else
		table_cell(t, "-");
	if (!json_object_object_get_ex(c, "allocs", NULL)) {
		table_cell(t, "-");
		table_cell(t, "-");
		table_cell(t, "-");
		return;
	}
	stat_rate(t, c, old, "allocs", seconds);
	stat_rate(t, c, old, "frees", seconds);
	table_count(t, json_u64(c, "fails"));
}

void stat_print_kernel(json_object *kernel, json_object *before, double seconds,
		       const struct stat_order *order)
{
	static const char *const heads[] = { "<CACHE",	"SIZE",	 "OBJECTS",  "SLABS",
					     "PARTIAL", "SHEAF", "IN-SHEAF", "BARN",
					     "ALLOCS",	"FREES", "FAILS",    NULL };
	static const char *const rates[] = { "<CACHE",	"SIZE",	  "OBJECTS",  "SLABS",
					     "PARTIAL", "SHEAF",  "IN-SHEAF", "BARN",
					     "ALLOC/s", "FREE/s", "FAILS",    NULL };
	json_object *caches = json_object_object_get(kernel, "caches"), *c;
	size_t i, n, hidden = 0, shown = 0;
	struct table *t;

	print_summary(kernel, before, seconds);
	stat_sort(caches, order->key);
	n = json_object_array_length(caches);
	t = table_new(before ? rates : heads);
	for (i = 0; i < n; i++) {
		c = json_object_array_get_idx(caches, i);
		if (!order->all && !json_u64(c, "objects") && !json_u64(c, "allocs")) {
			hidden++;
		} else if (!order->most || shown < order->most) {
			add_row(t, c, stat_same(before, c, "name"), seconds);
			shown++;
		}
	}
	table_print(t);
	if (hidden && !order->most)
		printf("(%zu caches that nobody has used are left out: --all)\n", hidden);
}
