/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * symbol.h - where in this program's text an address lies, in words.
 */
#ifndef NOLOCK_TORTURE_SYMBOL_H
#define NOLOCK_TORTURE_SYMBOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "function+0x12" into buf, or the bare address for what is not in this program. */
const char *symbol_name(char *buf, size_t len, uintptr_t ip);

/* "file.c:12 (inlined into file.c:90)", by addr2line, or "" where there is none. */
const char *symbol_line(char *buf, size_t len, uintptr_t ip);

/* This program's text: [*from, *to). */
void symbol_text(uintptr_t *from, uintptr_t *to);

/* Make that text writable, for breakpoints; false with a line that says why not. */
bool symbol_text_writable(void);

/* Where a function of this program begins, or 0. */
uintptr_t symbol_address(const char *name);

/* fn(name, arg) for each function that a shared object exports; false if it cannot be read. */
bool symbol_exports(const char *path, void (*fn)(const char *name, void *arg), void *arg);

#endif /* NOLOCK_TORTURE_SYMBOL_H */
