// SPDX-License-Identifier: GPL-2.0-only
/*
 * spec.c - see spec.h.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/layout.h"
#include "spec.h"

#define DEFAULT_SIZE (256ULL << 20)
#define MIN_SIZE (16ULL << 20)
#define MAX_SIZE (4ULL << 30) /* a bpf_arena's largest */

int spec_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	return errno || *value < min || *value > max ? -ERANGE : 0;
}

int spec_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMG";
	unsigned int shift = 0;
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return -EINVAL;
		shift = 10 * (unit - units + 1);
	}
	if (errno || *bytes > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes <<= shift;
	return 0;
}

bool spec_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > NOLOCK_HEAP_NAME_MAX || *name == '.')
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") ==
	       len;
}

int spec_heap(const char *text, struct heap_spec *spec, const char **why)
{
	char buf[128], *rest = buf, *name, *size, *populate;

	memset(spec, 0, sizeof(*spec));
	if (strlen(text) >= sizeof(buf)) {
		*why = "too long; write NAME[:SIZE[:POPULATE]]";
		return -EINVAL;
	}
	strcpy(buf, text);
	name = strsep(&rest, ":");
	size = strsep(&rest, ":");
	populate = strsep(&rest, ":");
	if (rest) {
		*why = "too many colons; write NAME[:SIZE[:POPULATE]]";
		return -EINVAL;
	}
	if (!spec_name_ok(name)) {
		*why = "a heap's name is 1 to 31 letters, digits, '-', '_' and '.', "
		       "and does not start with '.'";
		return -EINVAL;
	}
	strcpy(spec->name, name);
	spec->size = DEFAULT_SIZE;
	if (size) {
		spec->sized = true;
		if (spec_size(size, &spec->size) || spec->size < MIN_SIZE ||
		    spec->size > MAX_SIZE) {
			*why = "the size must be from 16M to 4G, as in demo:256M";
			return -EINVAL;
		}
		spec->size = (spec->size + NL_GROUP_SIZE - 1) & ~(NL_GROUP_SIZE - 1);
	}
	spec->populate = spec->size / 16;
	spec->populated = populate;
	if (populate && (spec_size(populate, &spec->populate) || spec->populate > spec->size / 2)) {
		*why = "POPULATE must be a size of at most half the heap, as in demo:256M:16M";
		return -EINVAL;
	}
	spec->populate = (spec->populate + NL_CHUNK_SIZE - 1) & ~(uint64_t)(NL_CHUNK_SIZE - 1);
	return 0;
}
