// SPDX-License-Identifier: GPL-2.0-only
/*
 * json.c - see json.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>

#include "json.h"

void json_put_u64(json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_uint64(value));
}

void json_put_text(json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

void json_put_bool(json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

uint64_t json_u64(const json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_uint64(v) : 0;
}

const char *json_text(const json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_string(v) : "";
}

const char *heap_type_name(enum nolock_heap_type type)
{
	switch (type) {
	case NOLOCK_HEAP_PRIVATE:
		return "private";
	case NOLOCK_HEAP_MEMFD:
		return "memfd";
	case NOLOCK_HEAP_ARENA:
		return "arena";
	case NOLOCK_HEAP_NONE:
		break;
	}
	return "unknown";
}

json_object *json_of_report(const char *heap, const struct nolock_heap_report *rep, bool whole)
{
	json_object *o = json_object_new_object();

	json_put_text(o, "heap", heap);
	json_put_bool(o, "whole", whole);
	json_put_u64(o, "errors", rep->errors);
	json_put_text(o, "first_error", rep->first_error);
	json_put_u64(o, "chunks", rep->chunks);
	json_put_u64(o, "chunks_free", rep->chunks_free);
	json_put_u64(o, "chunks_reserve", rep->chunks_reserve);
	json_put_u64(o, "chunks_slab", rep->chunks_slab);
	json_put_u64(o, "chunks_large", rep->chunks_large);
	json_put_u64(o, "objects", rep->objects);
	json_put_u64(o, "in_slabs", rep->in_slabs);
	json_put_u64(o, "in_sheaves", rep->in_sheaves);
	json_put_u64(o, "allocated", rep->allocated);
	json_put_u64(o, "large", rep->large);
	json_put_u64(o, "allocs", rep->allocs);
	json_put_u64(o, "frees", rep->frees);
	json_put_u64(o, "refused", rep->refused);
	json_put_u64(o, "locks_held", rep->locks_held);
	return o;
}

json_object *json_of_heap(const struct nolock_heap_stat *st)
{
	json_object *o = json_object_new_object();

	json_put_text(o, "name", st->name);
	json_put_text(o, "type", heap_type_name(st->type));
	json_put_u64(o, "base", st->base);
	json_put_u64(o, "size", st->size);
	json_put_u64(o, "opened", st->opened);
	json_put_u64(o, "metadata", st->metadata);
	json_put_u64(o, "chunks_free", st->chunks_free);
	json_put_u64(o, "chunks_reserve", st->chunks_reserve);
	json_put_u64(o, "reserve_target", st->reserve_target);
	json_put_u64(o, "nr_caches", st->nr_caches);
	json_put_u64(o, "nr_slots", st->nr_slots);
	json_put_u64(o, "clients", st->clients);
	json_put_u64(o, "large", st->large);
	json_put_u64(o, "accounted", st->accounted);
	return o;
}

/* The options of NOLOCK_DEBUG that a cache has. */
static const char *debug_letters(unsigned int flags, char letters[8])
{
	char *p = letters;

	if (flags & SLAB_CONSISTENCY_CHECKS)
		*p++ = 'F';
	if (flags & SLAB_RED_ZONE)
		*p++ = 'Z';
	if (flags & SLAB_POISON)
		*p++ = 'P';
	if (flags & SLAB_STORE_USER)
		*p++ = 'U';
	if (flags & SLAB_TRACE)
		*p++ = 'T';
	*p = 0;
	return letters;
}

json_object *json_of_cache(const struct nolock_cache_stat *st)
{
	json_object *o = json_object_new_object();
	char letters[8];
	int i;

	json_put_text(o, "name", st->name);
	json_put_u64(o, "id", st->id);
	json_put_u64(o, "object_size", st->object_size);
	json_put_u64(o, "size", st->size);
	json_put_u64(o, "objs_per_slab", st->objs_per_slab);
	json_put_u64(o, "sheaf_capacity", st->sheaf_capacity);
	json_put_text(o, "debug", debug_letters(st->flags, letters));
	json_put_u64(o, "debug_errors", st->debug_errors);
	json_put_u64(o, "slabs", st->slabs);
	json_put_u64(o, "objects", st->objects);
	json_put_u64(o, "in_sheaves", st->in_sheaves);
	json_put_u64(o, "in_slabs", st->in_slabs);
	json_put_u64(o, "allocated", st->allocated);
	json_put_u64(o, "accounted", st->accounted);
	json_put_u64(o, "sheaves", st->sheaves);
	json_put_u64(o, "barn_full", st->barn_full);
	json_put_u64(o, "barn_empty", st->barn_empty);
	for (i = 0; i < NOLOCK_NR_STAT_ITEMS; i++)
		json_put_u64(o, nolock_stat_name(i), st->stat[i]);
	return o;
}

int json_print_line(json_object *o)
{
	if (puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN)) < 0 || fflush(stdout))
		return -errno;
	return 0;
}
