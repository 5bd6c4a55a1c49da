/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * table.h - tables for people: columns as wide as what is in them, numbers to the right.
 */
#ifndef TABLE_H
#define TABLE_H

#include <stdint.h>

struct table;

/* @heads: the columns, ended by NULL; those that start with '<' are aligned to the left. */
struct table *table_new(const char *const *heads);

/* Add a cell to the last row; a row begins when the one before is full. */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A count, as short as four digits allow: 1234, 56.7K, 89.0M. */
void table_count(struct table *t, uint64_t n);
/* A size in bytes: 512, 64K, 4M, 1.5G. */
void table_bytes(struct table *t, uint64_t n);
/* The share of part in whole, or "-" of nothing. */
void table_share(struct table *t, uint64_t part, uint64_t whole);

/* Print it to stdout, and free it. */
void table_print(struct table *t);

/* The same short forms, for a line of text. The result lies in buf. */
#define SHORT_LEN 16
const char *short_count(char buf[SHORT_LEN], uint64_t n);
const char *short_bytes(char buf[SHORT_LEN], uint64_t n);

#endif /* TABLE_H */
