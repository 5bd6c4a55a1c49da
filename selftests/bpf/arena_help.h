/* SPDX-License-Identifier: GPL-2.0-only */
/* arena_help.h - for the tests of the programs that set up and grow an arena. */
#ifndef ARENA_HELP_H
#define ARENA_HELP_H

#include "arena.h"
#include "nolock_help.h"

/* Programs under test, and those that look, on one arena. Tests fail if they cannot be loaded. */
struct rig {
	int fd;
	struct arena arena;
	struct arena_look_bpf *look;
};

void rig_new(struct rig *r, int fd);

/* How many pages of [first, first + nr) are present, as BPF sees it. */
nl_u32 rig_there(struct rig *r, nl_u32 first, nl_u32 nr);

/*
 * Make absent pages such that nobody can make them present, and undo it. Skips the test where the
 * kernel cannot.
 */
void rig_hold(struct rig *r, nl_u32 first, nl_u32 nr);
void rig_release(struct rig *r, nl_u32 first, nl_u32 nr);

#endif /* ARENA_HELP_H */
