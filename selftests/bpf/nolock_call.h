/* SPDX-License-Identifier: GPL-2.0-only */
/* nolock_call.h - what test programs and nolock_call.bpf.c say to each other. */
#ifndef NOLOCK_CALL_H
#define NOLOCK_CALL_H

#include "core/place.h"

enum {
	CALL_ALLOC, /* arg: size */
	CALL_ZALLOC,
	CALL_FREE,	  /* arg: object */
	CALL_CACHE_ALLOC, /* arg: cache */
	CALL_CACHE_FREE,  /* arg: cache, obj: object */
};

struct nolock_call {
	nl_u64 arg;
	nl_u64 obj;
	nl_u64 ret;
	nl_u32 op;
	nl_u32 flags;
	int node;
	nl_u32 pad;
};

/* Room for the objects of a fill. */
#define CALL_GOT (1u << 18)

#endif /* NOLOCK_CALL_H */
