// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_ksyms.c - names for kernel text addresses, out of /proc/kallsyms.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "trace_priv.h"

static int by_addr(const void *a, const void *b)
{
	const struct nl_ksym *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Room for one more of @size bytes each; doubles. */
static void *grow(void *p, size_t nr, size_t *room, size_t size)
{
	size_t want = *room ? *room * 2 : 65536;

	if (nr < *room)
		return p;
	p = realloc(p, want * size);
	if (p)
		*room = want;
	return p;
}

void nl_ksyms_load(struct nl_ksyms *k)
{
	size_t room = 0, text_room = 0, text_len = 0;
	char type, name[256];
	FILE *f;
	unsigned long long addr;
	char line[512];

	if (k->loaded)
		return;
	k->loaded = true;
	f = fopen("/proc/kallsyms", "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		size_t len;

		if (sscanf(line, "%llx %c %255s", &addr, &type, name) != 3 || !addr)
			continue;
		if (!strchr("tTwW", type))
			continue;
		len = strlen(name) + 1;
		while (text_len + len > text_room) {
			char *text = grow(k->text, text_room, &text_room, 1);

			if (!text)
				goto out;
			k->text = text;
		}
		if (k->nr == room) {
			struct nl_ksym *syms = grow(k->syms, k->nr, &room, sizeof(*syms));

			if (!syms)
				goto out;
			k->syms = syms;
		}
		memcpy(k->text + text_len, name, len);
		k->syms[k->nr++] = (struct nl_ksym){ addr, (uint32_t)text_len };
		text_len += len;
	}
out:
	fclose(f);
	if (k->nr)
		qsort(k->syms, k->nr, sizeof(*k->syms), by_addr);
}

void nl_ksyms_free(struct nl_ksyms *k)
{
	free(k->syms);
	free(k->text);
	memset(k, 0, sizeof(*k));
}

const char *nl_ksyms_find(const struct nl_ksyms *k, uint64_t addr, uint64_t *offset)
{
	size_t lo = 0, hi = k->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (k->syms[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* an address more than a megabyte after the last symbol below it is in none */
	if (!lo || addr - k->syms[lo - 1].addr >= (1u << 20))
		return NULL;
	*offset = addr - k->syms[lo - 1].addr;
	return k->text + k->syms[lo - 1].name;
}
