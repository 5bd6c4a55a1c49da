// SPDX-License-Identifier: GPL-2.0-only
/*
 * pages.c - see pages.h.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "internal.h"
#include "pages.h"

bool pages_sync(char *to, const char *from, size_t start, size_t end)
{
	bool changed = false;

	for (size_t at = start; at < end;) {
		size_t n = NL_PAGE - at % NL_PAGE;

		if (n > end - at)
			n = end - at;
		if (memcmp(to + at, from + at, n)) {
			memcpy(to + at, from + at, n);
			changed = true;
		}
		at += n;
	}
	return changed;
}

bool pages_seen(pid_t pid, const void *base, size_t n, bool *seen)
{
	uint64_t entries[512];
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	f = fopen(path, "re");
	if (!f || fseek(f, (long)((uintptr_t)base / NL_PAGE * sizeof(entries[0])), SEEK_SET)) {
		perror(path);
		if (f)
			fclose(f);
		return false;
	}
	for (size_t at = 0; at < n;) {
		size_t room = sizeof(entries) / sizeof(entries[0]);
		size_t got = n - at < room ? n - at : room;

		if (fread(entries, sizeof(entries[0]), got, f) != got) {
			perror(path);
			fclose(f);
			return false;
		}
		for (size_t i = 0; i < got; i++, at++)
			seen[at] |= entries[i] >> 63;
	}
	fclose(f);
	return true;
}
