// SPDX-License-Identifier: GPL-2.0-only
/*
 * table.c - see table.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

struct table {
	unsigned int columns;
	unsigned int nr; /* cells, the heads included */
	unsigned int room;
	char **cells;
	const char *const *heads;
};

static void add(struct table *t, char *text)
{
	if (t->nr == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		t->cells = reallocarray(t->cells, t->room, sizeof(*t->cells));
	}
	if (!t->cells || !text)
		errx(2, "out of memory");
	t->cells[t->nr++] = text;
}

struct table *table_new(const char *const *heads)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		errx(2, "out of memory");
	t->heads = heads;
	for (; heads[t->columns]; t->columns++)
		add(t, strdup(heads[t->columns] + (*heads[t->columns] == '<')));
	return t;
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	add(t, text);
}

const char *short_count(char buf[SHORT_LEN], uint64_t n)
{
	static const char units[] = "KMGTPE";
	double value = n;
	int unit = -1;

	if (n < 10000) {
		snprintf(buf, SHORT_LEN, "%u", (unsigned int)n);
		return buf;
	}
	while (value >= 999.5) {
		value /= 1000;
		unit++;
	}
	snprintf(buf, SHORT_LEN, "%.*f%c", value < 99.95 ? 1 : 0, value, units[unit]);
	return buf;
}

const char *short_bytes(char buf[SHORT_LEN], uint64_t n)
{
	static const char units[] = "KMGTPE";
	double value = n;
	int unit = -1;

	if (n < 1024) {
		snprintf(buf, SHORT_LEN, "%u", (unsigned int)n);
		return buf;
	}
	while (value >= 1023.5 && unit < 5) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, SHORT_LEN, "%.*f%c", value < 99.95 && value != (uint64_t)value ? 1 : 0, value,
		 units[unit]);
	return buf;
}

void table_count(struct table *t, uint64_t n)
{
	char buf[SHORT_LEN];

	table_cell(t, "%s", short_count(buf, n));
}

void table_bytes(struct table *t, uint64_t n)
{
	char buf[SHORT_LEN];

	table_cell(t, "%s", short_bytes(buf, n));
}

void table_share(struct table *t, uint64_t part, uint64_t whole)
{
	if (!whole)
		table_cell(t, "-");
	else /* 100 only when it is all of it */
		table_cell(t, "%.1f",
			   part == whole	       ? 100.0 :
			   99.9 < 100.0 * part / whole ? 99.9 :
							 100.0 * part / whole);
}

void table_print(struct table *t)
{
	unsigned int i, c, *width = calloc(t->columns, sizeof(*width));

	if (!width)
		errx(2, "out of memory");
	for (i = 0; i < t->nr; i++)
		if (strlen(t->cells[i]) > width[i % t->columns])
			width[i % t->columns] = strlen(t->cells[i]);
	for (i = 0; i < t->nr; i++) {
		c = i % t->columns;
		if (c)
			putchar(' ');
		if (*t->heads[c] != '<')
			printf("%*s", (int)width[c], t->cells[i]);
		else if (c + 1 < t->columns)
			printf("%-*s", (int)width[c], t->cells[i]);
		else
			fputs(t->cells[i], stdout);
		if (c + 1 == t->columns)
			putchar('\n');
		free(t->cells[i]);
	}
	free(t->cells);
	free(width);
	free(t);
}
