/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * spec.h - what people write on command lines: sizes, heap names, --heap NAME[:SIZE[:POPULATE]].
 */
#ifndef SPEC_H
#define SPEC_H

#include <stdbool.h>
#include <stdint.h>
#include <nolock/heap.h>

struct heap_spec {
	char name[NOLOCK_HEAP_NAME_MAX + 1];
	uint64_t size;	   /* bytes, a multiple of 4 MiB */
	uint64_t populate; /* bytes, a multiple of 64 KiB */
	bool sized;	   /* the size was given, not the default */
	bool populated;	   /* as was this */
};

/* A size: digits and an optional K, M or G (of 1024). Returns 0, -EINVAL or -ERANGE. */
int spec_size(const char *text, uint64_t *bytes);

/* A decimal number from min to max. Returns 0, -EINVAL or -ERANGE. */
int spec_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);

/* Is this the name of a shared heap? */
bool spec_name_ok(const char *name);

/* A --heap argument. Returns 0 or -EINVAL with *why, a message for people. */
int spec_heap(const char *text, struct heap_spec *spec, const char **why);

#endif /* SPEC_H */
