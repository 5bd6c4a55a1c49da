/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* arena_call.h - what the programs of arena.bpf.c are called with, and what they answer. */
#ifndef NLA_ARENA_CALL_H
#define NLA_ARENA_CALL_H

#include "core/place.h"

/* Errors, as negative errno. ETIME: a program may loop for a quarter of a second. */
#define NLA_ENOMEM (-12)
#define NLA_ENOSPC (-28)
#define NLA_ETIME (-62)

/* Of arena_setup: pages of the arena, counted from its start. */
struct nla_setup {
	nl_u32 first;
	nl_u32 nr;
	nl_u32 made; /* so many were not there before */
	int err;     /* 0, NLA_ENOMEM or NLA_ETIME */
};

/* Of arena_grow. */
struct nla_grow {
	nl_u32 group; /* the one that was opened */
	int err;      /* 0, NLA_ENOSPC (the heap's limit), NLA_ENOMEM or NLA_ETIME */
};

#endif /* NLA_ARENA_CALL_H */
