/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* entry.h - what the files of the drop-in malloc share. */
#ifndef NL_MALLOC_ENTRY_H
#define NL_MALLOC_ENTRY_H

#include <stddef.h>
#include "internal.h"

/* Exported without a version, so that it serves references to any version of the C library's. */
#define NL_ENTRY __attribute__((visibility("default")))

/*
 * malloc.c: report a pointer that was refused, in one line on stderr, and abort; with
 * NOLOCK_MALLOC_CHECK=0 return. Any context.
 */
NL_HIDDEN void nl_malloc_bad(const char *call, const void *p, const char *why);

/* malloc.c: bytes that may be written at p; 0 if it is no object, and *why says so. Any context. */
NL_HIDDEN size_t nl_malloc_size(const void *p, const char **why);

#endif /* NL_MALLOC_ENTRY_H */
