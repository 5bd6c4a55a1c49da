/* SPDX-License-Identifier: GPL-2.0-only */
/* arena_look.h - what tests and arena_look.bpf.c say to each other. */
#ifndef ARENA_LOOK_H
#define ARENA_LOOK_H

#include "core/place.h"

/* Pages of the arena, counted from its start. */
struct arena_look {
	nl_u32 first;
	nl_u32 nr;
	nl_u32 there; /* look: so many are present */
	int err;      /* hold */
};

#endif /* ARENA_LOOK_H */
