/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * harden.h - what is looked at twice although no correct program needs it: NOLOCK_HARDEN=0 is off.
 *
 * Beside it, always: a double free is found where an object reaches its slab, a pointer into no
 * object wherever a free takes a slow path, and no metadata lie between objects.
 */
#ifndef NL_HARDEN_H
#define NL_HARDEN_H

#include "internal.h"

/* Bytes at each end of a private heap that nobody can touch; 0 when it is off. */
#define NL_GUARD ((nl_u64)NL_CHUNK_SIZE)

/* Is it on? Any context. */
NL_HIDDEN bool nl_hardened(void);

/*
 * A slot's main sheaf is full, and about to leave it, with the slot's lock held: pointers into the
 * middle of an object are dropped and counted before another CPU can get them. The fast path, which
 * looks at no pointer's place in its slab, had put them there. Wait-free.
 */
NL_HIDDEN void nl_harden_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id);

#endif /* NL_HARDEN_H */
