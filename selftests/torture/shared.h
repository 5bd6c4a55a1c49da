/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * shared.h - a shared heap without nolockd: a memfd that this process formats and repairs itself,
 * and an inventory of it that is taken apart from the library's own check.
 */
#ifndef NOLOCK_TORTURE_SHARED_H
#define NOLOCK_TORTURE_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "internal.h"

/* Client numbers: who repairs and survives, whose locks are held by hand, and the first other. */
enum { CLIENT_KEEPER = 1, CLIENT_HOLDER = 2, CLIENT_FIRST = 3 };

/* Builds for small machines and without restartable sequences repeat a part, at less length. */
#if defined(NOLOCK_TINY) || defined(NOLOCK_NO_RSEQ)
#define PLAIN_BUILD 0
#else
#define PLAIN_BUILD 1
#endif

#ifdef NOLOCK_TINY
#define SMALL_BUILD 1
#else
#define SMALL_BUILD 0
#endif

/* Has this build restartable sequences? */
bool built_with_rseq(void);

/* shared_make - a new heap of size bytes (a multiple of 4 MiB), mapped here; exits on failure. */
struct nolock_heap *shared_make(size_t size);

/*
 * shared_join - in a child: the parent's heap becomes this process's own, as the given client
 * With rseq false its A-slots alone are used. Exits on failure.
 */
struct nolock_heap *shared_join(struct nolock_heap *heap, nl_u32 client, bool rseq);

/* Where every object of the slabs is. */
struct inventory {
	unsigned long objects; /* in all slabs */
	unsigned long free;    /* of them in bitmaps and sheaves */
	unsigned long large;   /* large objects */
	nl_u32 first, end;     /* chunks */
	nl_u64 *map;	       /* NL_SLAB_WORDS a chunk: a bit for each free object */
	char error[160];       /* the first object in two places, if any */
};

/*
 * inventory_take - take stock of a heap at rest; false with inv->error if it does not add up
 * The map is made once and stays: start with a zeroed struct, and keep to one heap.
 */
bool inventory_take(struct inventory *inv, struct nolock_heap *heap);

/* Is this an object that is in use? */
bool inventory_live(const struct inventory *inv, struct nolock_heap *heap, const void *p);
/* Call fn for each object in use, large ones too. */
void inventory_each_live(const struct inventory *inv, struct nolock_heap *heap,
			 void (*fn)(void *obj, void *arg), void *arg);

#endif /* NOLOCK_TORTURE_SHARED_H */
