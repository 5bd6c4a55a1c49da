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

static bool is_among(const nl_word_t *objs, nl_u32 n, nl_u64 obj)
{
	for (nl_u32 i = 0; i < n; i++)
		if (nl_load(objs + i) == obj)
			return true;
	return false;
}

/*
 * The fast path found the slot by the tag of the pointer's chunk: its slab is the cache's, what is
 * not known is the place in it. Sizes that are a power of 2 fill a slab, and an object starts where
 * the size's lower bits are 0. No branch: a load and a few cycles for each object.
 */
static bool any_misplaced(const nl_word_t *objs, nl_u32 n, const nl_cache_t *c)
{
	nl_u32 recip = c->recip, size = c->size, end = c->per_slab * c->size, bad = 0;

	if (!(size & (size - 1)) && end == NL_CHUNK_SIZE) {
		for (nl_u32 i = 0; i < n; i++)
			bad |= (nl_u32)objs[i];
		return bad & (size - 1);
	}
	for (nl_u32 i = 0; i < n; i++)
		bad |= misplaced(objs[i], recip, size, end);
	return bad;
}

/*
 * Is any of the objects there twice, or the one that is about to follow them (0: none)? Each leaves
 * its number in a table, at a place that is its own among those of 2048 neighbours in memory, and
 * looks afterwards whether it is there still. If not, another object has overwritten it, or the
 * same one: then those after it are searched for it. The table is never cleared, as only places that were
 * written are read.
 */
#define TABLE_SHIFT 11
static inline nl_u32 place(nl_u64 obj)
{
	nl_u32 at = (nl_u32)(obj >> 3);

	return (at ^ at >> TABLE_SHIFT) & ((1u << TABLE_SHIFT) - 1);
}

static bool any_twice(const nl_word_t *objs, nl_u32 n, nl_u64 next)
{
	nl_u8 table[1 << TABLE_SHIFT];
	nl_u32 lost = 0;

	_Static_assert(NL_SHEAF_MAX < 255, "numbers are bytes");
	table[place(next)] = 255;
#pragma GCC unroll 4
	for (nl_u32 i = 0; i < n; i++)
		table[place(objs[i])] = (nl_u8)i;
#pragma GCC unroll 4
	for (nl_u32 i = 0; i < n; i++)
		lost |= table[place(objs[i])] ^ i;
	if (nl_likely(!lost && table[place(next)] == 255))
		return false;
	for (nl_u32 i = 0; i < n; i++)
		if (nl_unlikely(table[place(objs[i])] != i) &&
		    is_among(objs + i + 1, n - i - 1, objs[i]))
			return true;
	return table[place(next)] != 255 && is_among(objs, n, next);
}

/* Off the fast path's end: one at a time, what is bad or was met before. */
static __attribute__((cold)) void drop_bad(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 n)
{
	nl_word_t *objs = (nl_word_t *)slot->objs;

	for (nl_u32 i = 0; i < n;) {
		nl_u64 obj = nl_load(objs + i);

		if (nl_slab_index(h, id, obj) != ~0u && !is_among(objs, i, obj)) {
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

bool nl_harden_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u64 next)
{
	nl_word_t *objs = (nl_word_t *)slot->objs;
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word));

	if (!n || n > NL_SHEAF_MAX || !nl_hardened())
		return true;
	/* An array that is full stays where it is, and each free that bypasses it comes by here. */
	if (nl_likely(!any_misplaced(objs, n, nl_cache(h, id)) &&
		      ((nl_cache(h, id)->mode & NL_CACHE_ARRAY) || !any_twice(objs, n, next))))
		return true;
	drop_bad(h, slot, id, n);
	return !is_among(objs, NL_WORD_SIZE(nl_load(&slot->word)), next);
}
