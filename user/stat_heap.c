// SPDX-License-Identifier: GPL-2.0-only
/*
 * stat_heap.c - see stat_table.h: heaps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "stat_sort.h"
#include "stat_table.h"
#include "table.h"

json_object *stat_collect_heap(const struct nolock_heap *heap)
{
	json_object *o, *list = json_object_new_array(), *c;
	struct nolock_heap_stat hs = { 0 };
	struct nolock_cache_stat cs;
	unsigned int id;
	int err;

	nolock_heap_stat(heap, &hs);
	o = json_of_heap(&hs);
	for (id = 0; (err = nolock_heap_cache_stat(heap, id, &cs)) != -ERANGE; id++) {
		if (err)
			continue;
		c = json_of_cache(&cs);
		json_put_u64(c, "allocs",
			     cs.stat[NOLOCK_ALLOC_FASTPATH] + cs.stat[NOLOCK_ALLOC_CPU_CACHE] +
				     cs.stat[NOLOCK_ALLOC_SLOWPATH]);
		json_put_u64(c, "frees",
			     cs.stat[NOLOCK_FREE_FASTPATH] + cs.stat[NOLOCK_FREE_CPU_CACHE] +
				     cs.stat[NOLOCK_FREE_SLOWPATH]);
		json_object_array_add(list, c);
	}
	json_object_object_add(o, "caches", list);
	return o;
}

static void print_summary(json_object *o)
{
	char size[SHORT_LEN], opened[SHORT_LEN], meta[SHORT_LEN], free[SHORT_LEN];
	char kept[SHORT_LEN], target[SHORT_LEN], accounted[SHORT_LEN];
	const char *name = json_text(o, "name");

	printf("heap %s: %s, %s at %#llx, %s opened (%s of it metadata), %s free, %s of %s set "
	       "aside, %llu large objects, %s accounted",
	       *name ? name : "(private)", json_text(o, "type"),
	       short_bytes(size, json_u64(o, "size")), (unsigned long long)json_u64(o, "base"),
	       short_bytes(opened, json_u64(o, "opened")),
	       short_bytes(meta, json_u64(o, "metadata")),
	       short_bytes(free, json_u64(o, "chunks_free") << 16),
	       short_bytes(kept, json_u64(o, "chunks_reserve") << 16),
	       short_bytes(target, json_u64(o, "reserve_target") << 16),
	       (unsigned long long)json_u64(o, "large"),
	       short_bytes(accounted, json_u64(o, "accounted")));
	if (strcmp(json_text(o, "type"), "private"))
		printf(", %llu clients", (unsigned long long)json_u64(o, "clients"));
	putchar('\n');
}

static bool in_use(const json_object *c)
{
	return json_u64(c, "allocs") || json_u64(c, "frees") || json_u64(c, "allocated") ||
	       json_u64(c, "alloc_fail") || json_u64(c, "free_refused");
}

static void add_row(struct table *t, json_object *c, json_object *old, double seconds)
{
	const char *debug = json_text(c, "debug");

	table_cell(t, *debug ? "%s [%s]" : "%s", json_text(c, "name"), debug);
	table_count(t, json_u64(c, "object_size"));
	table_count(t, json_u64(c, "objects"));
	table_count(t, json_u64(c, "allocated"));
	table_count(t, json_u64(c, "in_sheaves"));
	table_count(t, json_u64(c, "sheaves"));
	table_cell(t, "%llu/%llu", (unsigned long long)json_u64(c, "barn_full"),
		   (unsigned long long)json_u64(c, "barn_empty"));
	stat_rate(t, c, old, "allocs", seconds);
	table_share(t, json_u64(c, "alloc_fastpath") + json_u64(c, "alloc_cpu_cache"),
		    json_u64(c, "allocs"));
	stat_rate(t, c, old, "frees", seconds);
	table_share(t, json_u64(c, "free_fastpath") + json_u64(c, "free_cpu_cache"),
		    json_u64(c, "frees"));
	table_count(t, json_u64(c, "slot_busy"));
	table_count(t, json_u64(c, "alloc_next_bucket"));
	table_count(t, json_u64(c, "alloc_fail"));
	table_count(t, json_u64(c, "free_refused"));
}

void stat_print_heap(json_object *heap, json_object *before, double seconds,
		     const struct stat_order *order)
{
	static const char *const heads[] = { "<CACHE",	 "SIZE",    "OBJECTS", "USED",
					     "IN-SHEAF", "SHEAVES", "BARN",    "ALLOCS",
					     "FAST%",	 "FREES",   "FAST%",   "BUSY",
					     "NEXT",	 "FAIL",    "REFUSED", NULL };
	static const char *const rates[] = { "<CACHE",	 "SIZE",    "OBJECTS", "USED",
					     "IN-SHEAF", "SHEAVES", "BARN",    "ALLOC/s",
					     "FAST%",	 "FREE/s",  "FAST%",   "BUSY",
					     "NEXT",	 "FAIL",    "REFUSED", NULL };
	json_object *caches = json_object_object_get(heap, "caches"), *c;
	size_t i, n, hidden = 0, shown = 0;
	struct table *t;

	print_summary(heap);
	stat_sort(caches, order->key);
	n = json_object_array_length(caches);
	t = table_new(before ? rates : heads);
	for (i = 0; i < n; i++) {
		c = json_object_array_get_idx(caches, i);
		if (!order->all && !in_use(c)) {
			hidden++;
		} else if (!order->most || shown < order->most) {
			add_row(t, c, stat_same(before, c, "id"), seconds);
			shown++;
		}
	}
	table_print(t);
	if (hidden && !order->most)
		printf("(%zu caches that nobody has used are left out: --all)\n", hidden);
}
