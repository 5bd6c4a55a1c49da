/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* probes.c - the semaphores of the USDT probes: the kernel counts attached tracers in them. */
#include "probes.h"

#ifndef NL_NO_PROBES
#define NL_DEFINE(name)                                                                            \
	volatile unsigned short NL_SEMAPHORE(name) __attribute__((section(".probes")))

NL_DEFINE(sheaf_refill);
NL_DEFINE(sheaf_flush);
NL_DEFINE(alloc_slab);
NL_DEFINE(free_slab);
NL_DEFINE(alloc_fail);
NL_DEFINE(free_refused);
NL_DEFINE(heap_grow);
#endif
