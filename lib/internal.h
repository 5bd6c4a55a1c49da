/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * internal.h - the parts of libnolock below the public API, for lib/ itself, nolockd and tests.
 *
 * Not installed. nolockd and the tests link the static library.
 */
#ifndef NL_INTERNAL_H
#define NL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <nolock/slab.h>
#include <nolock/heap.h>
#include <nolock/stat.h>
#include <nolock/page.h>
#include "core/layout.h"

#define NL_HIDDEN __attribute__((visibility("hidden")))

/* A heap as one process sees it. */
struct nolock_heap {
	char *base;
	nl_u64 size;
	nl_heap_t *h;	      /* == base */
	nl_slot_t *rslots;    /* NULL: R-slots are not used (no rseq, switched off) */
	nl_u32 nr_slots;
	nl_u32 slot_off;      /* where in struct rseq the slot index is: cpu_id or mm_cid */
	nl_u32 client;
	nl_u32 type;
	int fd;		      /* of the shared memory, or -1 */
	int conn;	      /* connection to nolockd, or -1 */
	int refs;
	bool snapshot;	      /* a copy of another process's metadata */
	char name[NL_NAME];
};

/* heap.c */

/* Bytes of metadata before the group table, and of the whole fixed part, for a heap's shape. */
struct nl_shape {
	nl_u64 base;
	nl_u64 size; /* multiple of NL_GROUP_SIZE */
	nl_u32 type;
	nl_u32 nr_slots;
	nl_u32 nr_nodes;
	nl_u32 slot_by_cpu;
	const char *name;
};

/*
 * nl_heap_format - make a heap in memory that is all zero
 * The first nl_heap_fixed_size() bytes must be present (arena: populated).
 * Returns 0 or -EINVAL (too small or too large for its metadata).
 */
NL_HIDDEN int nl_heap_format(void *mem, const struct nl_shape *shape);
NL_HIDDEN nl_u64 nl_heap_fixed_size(const struct nl_shape *shape);

/*
 * nl_heap_validate - is this a sane header? Reads a private copy: never the shared memory itself.
 * Returns 0, -EPROTO (another version) or -EUCLEAN; *why says what is wrong.
 */
NL_HIDDEN int nl_heap_validate(const struct nl_heap *copy, nl_u64 base, nl_u64 size,
			       const char **why);

/*
 * nl_heap_map - map a shared heap and make a handle
 * @fd: arena map or memfd; the handle owns it from here on, on success
 * Returns the handle or NULL with errno as nolock_heap_open().
 */
NL_HIDDEN struct nolock_heap *nl_heap_map(int fd, nl_u32 type, nl_u64 base, nl_u64 size,
					  nl_u32 client);

/*
 * nl_heap_grow - open up to @groups more groups of 4 MiB and hand their chunks out
 * Private: mprotect. Arena and memfd: MADV_POPULATE_WRITE. Any process that has the heap may.
 * Returns how many were opened.
 */
NL_HIDDEN nl_u32 nl_heap_grow(struct nolock_heap *heap, nl_u32 groups);

/* nl_heap_free_chunks - free chunks, the reserve not counted (racy). */
NL_HIDDEN nl_u32 nl_heap_free_chunks(const struct nolock_heap *heap);

/*
 * nl_heap_prefill - give every kmalloc cache slabs until at least @bytes are free in its bitmaps
 * Returns the number of slabs made.
 */
NL_HIDDEN nl_u32 nl_heap_prefill(struct nolock_heap *heap, nl_u64 bytes);

/*
 * nl_heap_repair - take back what a dead client held (P4)
 * @client: its index. Takes over its locks, finishes or undoes what it was about to do, flushes
 * the sheaves it had taken out of all lists. Returns the number of locks taken over.
 */
NL_HIDDEN nl_u32 nl_heap_repair(struct nolock_heap *heap, nl_u32 client);

/* client.c: one request to nolockd. Returns the connection or -1 with errno. */
struct nl_request;
struct nl_reply;
NL_HIDDEN int nl_client_call(const struct nl_request *req, struct nl_reply *rep, int *fd);

#endif /* NL_INTERNAL_H */
