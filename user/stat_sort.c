// SPDX-License-Identifier: GPL-2.0-only
/*
 * stat_sort.c - see stat_sort.h.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "stat_sort.h"
#include "stat_table.h"

const char *const stat_sort_keys[] = { "name",	 "size",  "objects", "used",
				       "allocs", "frees", "fails",   NULL };

/* Words for people, and the member of a heap's or else of the kernel's caches that they mean. */
static const struct {
	const char *key, *member[2];
} members[] = {
	{ "size", { "object_size" } },
	{ "used", { "allocated", "objects" } },
	{ "fails", { "alloc_fail", "fails" } },
};

static const char *sort_member;

static int compare(const void *a, const void *b)
{
	const json_object *x = *(json_object *const *)a, *y = *(json_object *const *)b;
	uint64_t m, n;

	if (!strcmp(sort_member, "name"))
		return strcmp(json_text(x, "name"), json_text(y, "name"));
	m = json_u64(x, sort_member);
	n = json_u64(y, sort_member);
	if (m != n)
		return m < n ? 1 : -1;
	return strcmp(json_text(x, "name"), json_text(y, "name"));
}

void stat_sort(json_object *caches, const char *key)
{
	json_object *first = json_object_array_get_idx(caches, 0);
	unsigned int i;

	if (!key || !first)
		return;
	sort_member = key;
	for (i = 0; i < sizeof(members) / sizeof(*members); i++) {
		if (strcmp(members[i].key, key))
			continue;
		sort_member = members[i].member[0];
		if (members[i].member[1] && !json_object_object_get_ex(first, sort_member, NULL))
			sort_member = members[i].member[1];
	}
	json_object_array_sort(caches, compare);
}

json_object *stat_same(json_object *before, const json_object *c, const char *id)
{
	json_object *caches, *want, *have, *other;
	size_t i, n;

	if (!before || !json_object_object_get_ex(before, "caches", &caches) ||
	    !json_object_object_get_ex(c, id, &want))
		return NULL;
	n = json_object_array_length(caches);
	for (i = 0; i < n; i++) {
		other = json_object_array_get_idx(caches, i);
		if (json_object_object_get_ex(other, id, &have) && json_object_equal(want, have))
			return other;
	}
	return NULL;
}

void stat_rate(struct table *t, const json_object *c, const json_object *old, const char *key,
	       double seconds)
{
	uint64_t now = json_u64(c, key), then = old ? json_u64(old, key) : 0;

	if (!old)
		table_count(t, now);
	else
		table_count(t, now > then ? (uint64_t)((now - then) / seconds + 0.5) : 0);
}
