/* SPDX-License-Identifier: GPL-2.0-only */
/* plain.h - helpers that need neither a test framework nor the library: also for what is preloaded. */
#ifndef NOLOCK_SELFTESTS_PLAIN_H
#define NOLOCK_SELFTESTS_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define KiB ((size_t)1 << 10)
#define MiB ((size_t)1 << 20)
#define GiB ((size_t)1 << 30)

/* Fill and check any memory with a pattern that differs by seed and by offset. Handler. */
void pat_fill(void *p, size_t size, uint64_t seed);
bool pat_check(const void *p, size_t size, uint64_t seed);

/* Bytes of the process that are present (field 2 of /proc/self/statm); 0: unknown. Handler. */
size_t rss_bytes(void);

/* Nanoseconds of the monotonic clock: for ends of storms, never for a verdict. */
uint64_t now_ns(void);

#endif /* NOLOCK_SELFTESTS_PLAIN_H */
