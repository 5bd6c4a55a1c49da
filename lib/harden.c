/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* harden.c - see harden.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include "harden.h"
#include "core/core.h"
#include "core/kmalloc.h"
#include "core/slot.h"

bool nl_hardened(void)
{
	static int known; /* 1 on, 2 off */
	const char *env;

	if (nl_unlikely(!nl_load(&known))) {
		env = secure_getenv("NOLOCK_HARDEN");
		nl_store(&known, env && !strcmp(env, "0") ? 2 : 1);
	}
	return nl_load(&known) == 1;
}

/* Is it where an object starts? Bit 31 is not set then, nor any other. */
static nl_u32 misplaced(nl_u64 obj, nl_u32 recip, nl_u32 size, nl_u32 end)
{
	nl_u32 off = (nl_u32)obj & (NL_CHUNK_SIZE - 1);

	return (nl_index(off, recip) * size - off) | (end - 1 - off) >> 31;
}

/*
 * The fast path found the slot by the tag of the pointer's chunk: its slab is the cache's, what is
 * not known is the place in it. No branch: this is a load and a few cycles for each object.
 */
static bool any_misplaced(const nl_word_t *objs, nl_u32 n, const nl_cache_t *c)
{
	nl_u32 recip = c->recip, size = c->size, end = c->per_slab * c->size, bad = 0;

	for (nl_u32 i = 0; i < n; i++)
		bad |= misplaced(objs[i], recip, size, end);
	return bad;
}

void nl_harden_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id)
{
	nl_word_t *objs = (nl_word_t *)slot->objs;
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word));

	if (!n || n > NL_SHEAF_MAX || !nl_hardened() ||
	    nl_likely(!any_misplaced(objs, n, nl_cache(h, id))))
		return;
	for (nl_u32 i = 0; i < n;) {
		if (nl_slab_index(h, id, nl_load(objs + i)) != ~0u) {
			i++;
			continue;
		}
		/* The last one takes its place: in both for a moment, never in none. */
		nl_store(objs + i, nl_load(objs + n - 1));
		nl_barrier();
		nl_store(&slot->stat[NL_STAT_OUT], slot->stat[NL_STAT_OUT] + 1);
		nl_store(&slot->word, nl_load(&slot->word) - 1);
		nl_add(&h->dropped, 1);
		n--;
	}
}
