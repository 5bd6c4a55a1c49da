/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * json.h - the library's figures as JSON objects, with the names of stat.h and heap.h.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <json-c/json.h>
#include <nolock/stat.h>

/* Each returns a new object. */
json_object *json_of_report(const char *heap, const struct nolock_heap_report *rep, bool whole);
json_object *json_of_heap(const struct nolock_heap_stat *st);
json_object *json_of_cache(const struct nolock_cache_stat *st);

const char *heap_type_name(enum nolock_heap_type type);

/* Add a number, a string, a truth value. */
void json_put_u64(json_object *o, const char *key, uint64_t value);
void json_put_text(json_object *o, const char *key, const char *value);
void json_put_bool(json_object *o, const char *key, bool value);

/* Read a number, a string; 0 and "" when it is not there. */
uint64_t json_u64(const json_object *o, const char *key);
const char *json_text(const json_object *o, const char *key);

/* Print an object as one line, at once. Returns 0, or a negative errno (-EPIPE: nobody reads). */
int json_print_line(json_object *o);

#endif /* JSON_H */
