/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stat_sort.h - what the tables of heaps and of the kernel's caches share: order and rates.
 */
#ifndef STAT_SORT_H
#define STAT_SORT_H

#include <json-c/json.h>

#include "table.h"

/* Sort an array of caches by a key: names upwards, numbers downwards; NULL leaves it. */
void stat_sort(json_object *caches, const char *key);

/* The cache in before's "caches" whose @id member is the same as c's, or NULL. */
json_object *stat_same(json_object *before, const json_object *c, const char *id);

/* A cell with c's counter, or with its rate since old. */
void stat_rate(struct table *t, const json_object *c, const json_object *old, const char *key,
	       double seconds);

#endif /* STAT_SORT_H */
