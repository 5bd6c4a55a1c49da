/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memory.h - the memory object beneath a shared heap: a pinned bpf_arena, or a sealed memfd.
 *
 * Here nolockd finds the object of an earlier nolockd or makes a new one; what is in it is the
 * keeper's business. Each heap has a fixed address: BASE + slot * 8 GiB, apart from what the
 * sanitizers and the loader use.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include "arena.h"
#include "bpffs.h"
#include "spec.h"

#define MEMORY_BASE 0x567000000000ULL
#define MEMORY_STRIDE (8ULL << 30)
#define MEMORY_SLOTS 64u

struct memory {
	char name[NOLOCK_HEAP_NAME_MAX + 1];
	enum nolock_heap_type type;
	int fd;	  /* the map; of a memfd, the description that clients get, too */
	int lock; /* the heap's lock, or -1: held by nolockd alone, never handed out */
	uint64_t base;
	uint64_t size;
	bool adopted; /* made by an earlier nolockd: has a heap in it already */
	bool pinned;
	struct arena arena;  /* programs on it; none on a memfd */
	bool set_up;	     /* by one of them: what a new heap begins with is present */
	uint64_t by_program; /* bytes that it made present */
};

struct nl_shape;

/* memory_shape - the shape of the heap that belongs in it. */
void memory_shape(const struct memory *m, struct nl_shape *shape);

/* memory_chunks_ahead - chunks that are to be free at any time, opened ahead of demand. */
uint32_t memory_chunks_ahead(const struct memory *m);

/*
 * memory_open - find the heap's memory, or make it
 * @fresh: never adopt: an existing pin is dropped, and those who have it mapped keep the old one
 * Returns 0, or a negative errno after one line to the user.
 */
int memory_open(struct memory *m, const struct heap_spec *spec, bool fresh);

/*
 * memory_renew - make new memory of the same kind for a heap that is to be made anew
 * Its address is another, as long as @old is not closed. Nobody finds it before memory_replace().
 * Returns 0, or a negative errno, said to nobody.
 */
int memory_renew(struct memory *m, const struct memory *old, const struct heap_spec *spec);

/*
 * memory_replace - the new memory takes the old one's place: its lock, and its pin by one rename
 * The old one is there for as long as somebody has it, and nobody finds it any more. Returns 0, or a
 * negative errno, and all is as it was.
 */
int memory_replace(struct memory *m, struct memory *old, const struct access *access);

/* memory_publish - pin a new arena, now that a whole heap is in it. Never fails: says so. */
void memory_publish(struct memory *m, const struct access *access);

/* memory_close - let go of it; @destroy also removes the pin. */
void memory_close(struct memory *m, bool destroy);

#endif /* MEMORY_H */
