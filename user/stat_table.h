/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stat_table.h - figures of heaps and of the kernel's caches, as JSON and from there as tables.
 *
 * The JSON is collected first and says all; a table picks from it, and shows rates where there is
 * an earlier JSON to compare with.
 */
#ifndef STAT_TABLE_H
#define STAT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <json-c/json.h>
#include <nolock/stat.h>

/* stat_collect_heap - a heap and an array "caches" of all its caches; a new object. */
json_object *stat_collect_heap(const struct nolock_heap *heap);

/* How to order caches in a table. */
struct stat_order {
	const char *key; /* of the JSON of a cache; NULL: as they come */
	bool all;	 /* caches that nothing uses, too */
	size_t most;	 /* so many rows at most, and no remark on the others; 0: all */
};

/* The keys that --sort takes, ended by NULL, and what a key of the list means in the JSON. */
extern const char *const stat_sort_keys[];

/*
 * stat_print_heap - a line about the heap, and a table of its caches
 * @before: the same heap @seconds ago, for rates; or NULL
 */
void stat_print_heap(json_object *heap, json_object *before, double seconds,
		     const struct stat_order *order);

/* stat_print_kernel - a table of the kernel's caches; arguments as above. */
void stat_print_kernel(json_object *kernel, json_object *before, double seconds,
		       const struct stat_order *order);

#endif /* STAT_TABLE_H */
