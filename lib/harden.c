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

/* Which objects of a sheaf were seen, by address: half full at most. */
#define SEEN 256u
_Static_assert(SEEN >= 2 * NL_SHEAF_MAX, "a search ends at a free place");

static bool seen_before(nl_u8 *seen, const nl_word_t *objs, nl_u32 i)
{
	nl_u64 obj = nl_load(objs + i);
	nl_u32 at = (nl_u32)((obj >> 3) * 0x9e3779b97f4a7c15ULL >> 56);

	for (; seen[at]; at = (at + 1) % SEEN)
		if (nl_load(objs + seen[at] - 1) == obj)
			return true;
	seen[at] = (nl_u8)(i + 1);
	return false;
}

void nl_harden_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id)
{
	nl_word_t *objs = (nl_word_t *)slot->objs;
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word));
	nl_u8 seen[SEEN] = { 0 };

	if (!n || n > NL_SHEAF_MAX || !nl_hardened())
		return;
	for (nl_u32 i = 0; i < n;) {
		nl_u64 obj = nl_load(objs + i);

		if (nl_likely(nl_cache_of(h, obj) == (int)id && nl_slab_index(h, id, obj) != ~0u &&
			      !seen_before(seen, objs, i))) {
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
