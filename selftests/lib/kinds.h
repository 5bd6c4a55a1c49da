/* SPDX-License-Identifier: GPL-2.0-only */
/* kinds.h - a heap of each kind, without nolockd: for tests of what must hold in all of them. */
#ifndef NOLOCK_SELFTESTS_KINDS_H
#define NOLOCK_SELFTESTS_KINDS_H

#include <nolock/heap.h>

extern const char *const heap_kinds[];
#define NR_HEAP_KINDS 3 /* enum nolock_heap_type */

/*
 * A heap of the kind and size (a multiple of 4 MiB), of one client, this process; closed by
 * nolock_heap_close(). The test fails if it cannot be made; NULL for an arena where this process
 * may not make one.
 */
struct nolock_heap *heap_of_kind(unsigned int kind, size_t size);

/* For each kind of heap that this process can have. */
#define for_each_kind(heap, size)                                                                  \
	for (unsigned int kind = 0; kind < NR_HEAP_KINDS; kind++)                                  \
		if (((heap) = heap_of_kind(kind, (size))))

#endif /* NOLOCK_SELFTESTS_KINDS_H */
