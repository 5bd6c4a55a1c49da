/* SPDX-License-Identifier: GPL-2.0-only */
/* nolock_call.h - what test programs and nolock_call.bpf.c say to each other. */
#ifndef NOLOCK_CALL_H
#define NOLOCK_CALL_H

#include "core/place.h"

enum {
	CALL_ALLOC, /* arg: size */
	CALL_ZALLOC,
	CALL_FREE,	   /* arg: object */
	CALL_CACHE_ALLOC,  /* arg: cache */
	CALL_CACHE_FREE,   /* arg: cache, obj: object */
	CALL_CACHE_ZALLOC, /* arg: cache */
	CALL_ALLOC_BULK,   /* arg: cache, obj: array in the heap, nr */
	CALL_FREE_BULK,	   /* the same */
	CALL_PREFILL,	   /* arg: cache, nr */
	CALL_FROM_SHEAF,   /* arg: cache, obj: sheaf */
	CALL_RETURN,	   /* the same */
	CALL_SHEAF_SIZE,   /* obj: sheaf */
	CALL_ROOT,
	/* In line, of a constant size: arg is looked up in this list, or else 0. */
	CALL_CONST_ALLOC,
	CALL_CONST_ZALLOC,
};

#define CALL_CONST_SIZES(X) X(1) X(16) X(17) X(64) X(128) X(129) X(200) X(1024) X(4096) X(32768)

struct nolock_call {
	nl_u64 arg;
	nl_u64 obj;
	nl_u64 ret;
	nl_u32 op;
	nl_u32 flags;
	int node;
	nl_u32 nr;
};

/* Room for the objects of a fill. */
#define CALL_GOT (1u << 18)

#endif /* NOLOCK_CALL_H */
