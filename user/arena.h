/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * arena.h - the BPF programs that set up and grow the arena of a shared heap (bpf/arena.bpf.c).
 *
 * nolockd loads them onto each arena and sets a new one up; a keeper, which has no right to use
 * BPF, runs the one that grows by its descriptor. Where they cannot be loaded, or fail, pages are
 * made present as everywhere else, by madvise(MADV_POPULATE_WRITE).
 */
#ifndef ARENA_H
#define ARENA_H

#include <stdbool.h>
#include <stdint.h>

struct arena {
	struct arena_bpf *progs; /* NULL: none */
	int grow;		 /* descriptor of the program that grows, or -1 */
	uint64_t size;		 /* of the arena, in bytes */
	char why[200];		 /* why there are none, or "" */
	bool any_context;	 /* programs that may not sleep may allocate pages, too */
	char why_not_any[200];	 /* why not, or "" */
};

/* arena_load - load the programs onto the arena. Returns 0; or a negative errno with a->why. */
int arena_load(struct arena *a, int map_fd);
void arena_unload(struct arena *a);

/*
 * arena_setup - make bytes [from, to) of an arena present, in whole pages that nobody uses yet
 * @made: bytes that were absent before are added to it; also in case of an error
 * Returns 0, -EINVAL (beyond the arena), -ENODEV (no programs), -ENOMEM, or another negative errno.
 */
int arena_setup(const struct arena *a, uint64_t from, uint64_t to, uint64_t *made);

/*
 * arena_grow - open the heap's next group; needs no right but the descriptor
 * @prog: arena.grow
 * Returns 0, -ENOSPC (the heap is as large as it may be), -ENOMEM, or another negative errno.
 */
int arena_grow(int prog);

#endif /* ARENA_H */
