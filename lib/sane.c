/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * sane.c - nl_heap_sane(): what holds in a shared heap at any time, also in the middle of everybody's
 * operations (promise P5).
 *
 * nolock_heap_check() asks whether every object is in one place, which has an answer at a quiescent
 * point alone. Here each word is looked at by itself: is it one that some step of some protocol may
 * have written? What a client has overwritten is found by that, not what it has forged.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "internal.h"
#include "core/grow.h"
#include "core/kmalloc.h"
#include "core/slot.h"

struct sane {
	nl_heap_t *h;
	const struct nl_heap *head; /* bounds come from here */
	char *why;
	size_t size;
};

static int bad(const struct sane *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(const struct sane *s, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(s->why, s->size, fmt, args);
	va_end(args);
	return -EUCLEAN;
}

#define CONSTANT(field)                                                                            \
	{                                                                                          \
#field, offsetof(struct nl_heap, field), sizeof(((struct nl_heap *)0)->field)      \
	}

static const struct {
	const char *name;
	size_t off, size;
} constants[] = {
	CONSTANT(magic),     CONSTANT(version),	   CONSTANT(type),	  CONSTANT(base),
	CONSTANT(size),	     CONSTANT(nr_groups),  CONSTANT(first_chunk), CONSTANT(nr_slots),
	CONSTANT(nr_nodes),  CONSTANT(nr_sheaves), CONSTANT(slot_by_cpu), CONSTANT(off_cache),
	CONSTANT(off_rslot), CONSTANT(off_aslot),  CONSTANT(off_smap),	  CONSTANT(off_sheaf),
	CONSTANT(off_gfree), CONSTANT(off_gpart),  CONSTANT(off_tag),	  CONSTANT(off_group),
	CONSTANT(name),	     CONSTANT(off_node),   CONSTANT(limit),
};

static int sane_constants(const struct sane *s)
{
	for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
		for (size_t at = 0; at < constants[i].size; at += sizeof(nl_u32)) {
			const char *now = (const char *)s->h + constants[i].off + at;
			const char *was = (const char *)s->head + constants[i].off + at;

			if (nl_load((const nl_u32 *)now) != *(const nl_u32 *)was)
				return bad(s, "its header's %s was overwritten", constants[i].name);
		}
	return 0;
}

/* A count that atomic additions keep: those of operations under way may come in any order. */
static bool count_ok(nl_u32 n, nl_u32 most)
{
	return (nl_u32)(n + NL_MAX_CLIENTS) <= most + 2 * NL_MAX_CLIENTS;
}

static int sane_header(const struct sane *s)
{
	const struct nl_heap *head = s->head;
	nl_u32 chunks = head->nr_groups * NL_GROUP_CHUNKS;
	nl_u32 least = head->first_chunk >> NL_GROUP_SHIFT, n;
	nl_u64 bias;

	n = nl_load(&s->h->cursor);
	if (n < least || n > head->nr_groups)
		return bad(s, "its header's cursor is %u, of %u groups", n, head->nr_groups);
	n = nl_load(&s->h->nr_open);
	if (n < least || n > head->nr_groups)
		return bad(s, "its header's nr_open is %u, of %u groups", n, head->nr_groups);
	n = nl_load(&s->h->nr_left);
	if (!count_ok(n, head->nr_groups))
		return bad(s, "its header's nr_left is %u, of %u groups", n, head->nr_groups);
	n = nl_load(&s->h->nr_reserve);
	if (!count_ok(n, chunks))
		return bad(s, "its header's nr_reserve is %u, of %u chunks", n, chunks);
	n = nl_load(&s->h->nr_large);
	if (!count_ok(n, chunks))
		return bad(s, "its header's nr_large is %u, of %u chunks", n, chunks);
	n = nl_load(&s->h->reserve_target);
	if (n > NL_MAX_GROUPS * NL_GROUP_CHUNKS)
		return bad(s, "its header's reserve_target is %u chunks", n);
	bias = nl_load(&s->h->bias);
	if (bias && (bias != ~0ULL || head->type != NL_HEAP_ARENA))
		return bad(s, "its header's bias is %#llx", (unsigned long long)bias);
	n = nl_load(&s->h->sheaf_hint);
	if (n > head->nr_sheaves / 64)
		return bad(s, "its header's sheaf_hint is %u, of %u words", n,
			   head->nr_sheaves / 64);
	/* A private heap's alone; see sane_barn() and sane_chunk() too. */
	if (nl_load(&s->h->deep))
		return bad(s, "its header's deep is %#llx, in a shared heap",
			   (unsigned long long)nl_load(&s->h->deep));
	return 0;
}

/* 0, or a client and its thread; in the low half what the lock's kind has there. */
static bool owner_ok(nl_u64 owner, nl_u64 low)
{
	nl_u32 client = NL_OWNER_CLIENT(owner);

	return (owner & 0xffffffff) == low &&
	       ((client && client <= NL_MAX_CLIENTS) || client >= NL_CLIENT_NOLOCKD);
}

static int sane_lock(const struct sane *s, nl_u64 lock, const char *whose, nl_u32 nr)
{
	if (lock && !owner_ok(lock, 1))
		return bad(s, "%s %u: its lock is %#llx, which is nobody's", whose, nr,
			   (unsigned long long)lock);
	return 0;
}

static int sane_barn(const struct sane *s, nl_barn_t *barn, nl_u32 id)
{
	const nl_barn_list_t *lists[] = { &barn->full, &barn->empty };
	int err = sane_lock(s, nl_load(&barn->lock), "barn of cache", id);

	for (nl_u32 i = 0; i < 2 && !err; i++) {
		nl_u32 first = nl_load(&lists[i]->first), nr = nl_load(&lists[i]->nr);

		if (first > s->head->nr_sheaves || nr > s->head->nr_sheaves)
			err = bad(s, "barn of cache %u: its %s list is of %u sheaves from %u on",
				  id, i ? "empty" : "full", nr, first);
	}
	if (!err && (nl_load(&barn->deep) || nl_load(&barn->flushed)))
		err = bad(s, "barn of cache %u: it is deeper than a shared heap's", id);
	return err;
}

static int sane_cache(const struct sane *s, nl_u32 id)
{
	nl_cache_t *c = (nl_cache_t *)((char *)s->h + s->head->off_cache) + id;
	nl_u32 state = nl_load(&c->state);
	struct nl_cache copy, want = { 0 };
	int err = 0;

	if ((state & 0xff) > NL_CACHE_LIVE || (id < NL_NR_KMALLOC && state != NL_CACHE_LIVE) ||
	    (state != NL_CACHE_LIVE && (state & 0xff) != NL_CACHE_BUSY && state >> 8))
		return bad(s, "cache %u: its state is %#x", id, state);
	if (!nl_cache_read(c, &copy))
		return 0;
	if (copy.size < NL_MIN_SIZE || copy.size > NL_CHUNK_SIZE || copy.object_size > copy.size)
		return bad(s, "cache %u: its object size is %u of %u", id, copy.object_size,
			   copy.size);
	nl_cache_shape(&want, id, copy.object_size, copy.size);
	if (id < NL_NR_KMALLOC &&
	    (copy.size != nl_kmalloc_size(id % NL_NR_BUCKETS) || copy.capacity != want.capacity))
		return bad(s, "cache %u: its size is %u, in sheaves of %u", id, copy.size,
			   copy.capacity);
	if (id < NL_NR_KMALLOC && (id + 1) % NL_NR_BUCKETS)
		want.next = id + 1;
	if (copy.recip != want.recip || copy.per_slab != want.per_slab ||
	    copy.words != want.words || copy.id != id || copy.capacity > NL_SHEAF_MAX ||
	    copy.next != want.next || copy.left || copy.ctor)
		return bad(s, "cache %u: its constants do not fit its size %u", id, copy.size);
	if (!copy.align || copy.align & (copy.align - 1) || copy.align > NL_CHUNK_SIZE ||
	    copy.mode & ~NL_CACHE_ARRAY)
		return bad(s, "cache %u: its alignment is %u, its mode %#x", id, copy.align,
			   copy.mode);
	if (!count_ok(copy.nr_slabs, s->head->nr_groups * NL_GROUP_CHUNKS))
		return bad(s, "cache %u: it has %u slabs", id, copy.nr_slabs);
	for (nl_u32 node = 0; node < NL_MAX_NODES && !err; node++)
		err = sane_barn(s, &c->barn[node], id);
	return err;
}

static int sane_slot(const struct sane *s, nl_slot_t *slot, const char *kind, nl_u32 cpu, nl_u32 id)
{
	nl_u64 word = nl_load(&slot->word), objs = nl_load(&slot->objs);
	nl_u64 at = objs - s->head->base - s->head->off_sheaf - offsetof(struct nl_sheaf, obj);
	nl_u32 main = nl_load(&slot->main), spare = nl_load(&slot->spare),
	       cap = nl_load(&slot->cap);
	nl_u64 lock = nl_load(&slot->lock);

	if (lock && !owner_ok(lock, 1) && !(*kind == 'R' && owner_ok(lock & ~0xffffffffULL, 0)) &&
	    !(*kind == 'A' && NL_FREED(lock) == NL_BIASED(cpu)))
		return bad(s, "%s-slot %u of cache %u: its lock is %#llx, which is nobody's", kind,
			   cpu, id, (unsigned long long)lock);
	if (NL_WORD_SIZE(word) > NL_SHEAF_MAX || word & 0x80)
		return bad(s, "%s-slot %u of cache %u: its word is %#llx", kind, cpu, id,
			   (unsigned long long)word);
	if (cap > NL_SHEAF_MAX)
		return bad(s, "%s-slot %u of cache %u: its main sheaf holds %u objects", kind, cpu,
			   id, cap);
	if (objs &&
	    (at % sizeof(struct nl_sheaf) || at / sizeof(struct nl_sheaf) >= s->head->nr_sheaves))
		return bad(s, "%s-slot %u of cache %u: its objects are at %#llx", kind, cpu, id,
			   (unsigned long long)objs);
	if (main > s->head->nr_sheaves || spare > s->head->nr_sheaves)
		return bad(s, "%s-slot %u of cache %u: its sheaves are %u and %u, of %u", kind, cpu,
			   id, main, spare, s->head->nr_sheaves);
	return 0;
}

static int sane_slots(const struct sane *s, nl_u32 cpu)
{
	nl_u64 row = (nl_u64)cpu * NL_MAX_CACHES * sizeof(struct nl_slot);
	nl_slot_t *r = (nl_slot_t *)((char *)s->h + s->head->off_rslot + row);
	nl_slot_t *a = (nl_slot_t *)((char *)s->h + s->head->off_aslot + row);
	const nl_u8 *node = (const nl_u8 *)s->h + s->head->off_node + cpu;
	int err = 0;

	if (nl_load(node) >= s->head->nr_nodes)
		return bad(s, "CPU %u is on node %u, of %u", cpu, nl_load(node), s->head->nr_nodes);
	for (nl_u32 id = 0; id < NL_MAX_CACHES && !err; id++) {
		err = sane_slot(s, r + id, "R", cpu, id);
		if (!err)
			err = sane_slot(s, a + id, "A", cpu, id);
	}
	return err;
}

static int sane_sheaf(const struct sane *s, nl_u32 index)
{
	nl_sheaf_t *sh = (nl_sheaf_t *)((char *)s->h + s->head->off_sheaf) + index;
	nl_u64 owner = nl_load(&sh->owner), from, to;
	nl_u32 next = nl_load(&sh->next), cache = nl_load(&sh->cache), size = nl_load(&sh->size);

	if (owner && owner != NL_LISTED && !owner_ok(owner, 0) && !owner_ok(owner, NL_PREFILLED))
		return bad(s, "sheaf %u: its owner is %#llx, which is nobody", index + 1,
			   (unsigned long long)owner);
	if (cache > NL_MAX_CACHES)
		return bad(s, "sheaf %u: it is of cache %d", index + 1, (int)cache - 1);
	if (size > NL_SHEAF_MAX)
		return bad(s, "sheaf %u: its size is %u", index + 1, size);
	/* Of a prefilled one, how many objects it had. */
	if (next > s->head->nr_sheaves && next > NL_SHEAF_MAX)
		return bad(s, "sheaf %u: its next is %u, of %u", index + 1, next,
			   s->head->nr_sheaves);
	/* What it had before is there still. */
	from = s->head->base + ((nl_u64)s->head->first_chunk << NL_CHUNK_SHIFT);
	to = s->head->base + s->head->size;
	for (nl_u32 i = 0; i < NL_SHEAF_MAX; i++) {
		nl_u64 obj = nl_load(&sh->obj[i]);

		if (obj && (obj < from || obj >= to))
			return bad(s, "sheaf %u: object %u is at %#llx, outside the heap",
				   index + 1, i, (unsigned long long)obj);
	}
	return 0;
}

/* What the tag says of a chunk, if it still says so afterwards. */
static int sane_chunk(const struct sane *s, nl_u32 chunk, nl_slab_t *slab)
{
	nl_tag_t *at = (nl_tag_t *)((char *)s->h + s->head->off_tag) + chunk;
	nl_u32 tag = nl_load_acquire(at), id = NL_TAG_CACHE(tag), n;
	nl_u32 end = s->head->nr_groups * NL_GROUP_CHUNKS;
	nl_cache_t *c = (nl_cache_t *)((char *)s->h + s->head->off_cache) + id % NL_MAX_CACHES;
	struct nl_cache copy;
	nl_u64 intent = nl_load(&slab->intent), beyond;
	int err = sane_lock(s, nl_load(&slab->lock), "chunk", chunk);

	if (err)
		return err;
	if (NL_INTENT_OP(intent) >= NL_INTENT_PURGE)
		return bad(s, "chunk %u: its intent is %#llx", chunk, (unsigned long long)intent);
	switch (NL_TAG_KIND(tag)) {
	case NL_KIND_SLAB:
		if (tag != NL_TAG(NL_KIND_SLAB, id) || id >= NL_MAX_CACHES)
			break;
		if (!nl_cache_read(c, &copy))
			return 0;
		for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++) {
			beyond = nl_load_acquire(&slab->free[w]) & ~nl_slab_mask(copy.per_slab, w);
			if (beyond && nl_load(at) == tag && nl_load(&c->size) == copy.size)
				return bad(s, "chunk %u: free bits beyond its last object, word %u",
					   chunk, w);
		}
		return 0;
	case NL_KIND_LARGE:
		n = nl_load(&slab->nr_chunks);
		if (tag != NL_TAG(NL_KIND_LARGE, 0))
			break;
		if ((n && n <= end - chunk) || nl_load(at) != tag)
			return 0;
		return bad(s, "chunk %u: a large object of %u chunks", chunk, n);
	case NL_KIND_TRANSIT:
		n = tag >> 20;
		if (n && (n <= NL_MAX_CLIENTS || n >= (NL_CLIENT_NOLOCKD & 0xfff)))
			return 0;
		break;
	case NL_KIND_FREE:
	case NL_KIND_META:
	case NL_KIND_BODY:
		if (tag == NL_TAG(NL_TAG_KIND(tag), 0))
			return 0;
		break;
	}
	return bad(s, "chunk %u: its tag is %#x", chunk, tag);
}

static int sane_group(const struct sane *s, nl_u32 g)
{
	nl_group_t *group = (nl_group_t *)((char *)s->h + s->head->off_group) + g;
	nl_u64 chunks = nl_group_chunks((nl_heap_t *)s->head, g);
	nl_u32 state = nl_load(&group->state), node = nl_load(&group->node);
	int err = 0;

	if (state > NL_GROUP_REPAIR)
		return bad(s, "group %u: its state is %u", g, state);
	if (node >= s->head->nr_nodes)
		return bad(s, "group %u: its node is %u, of %u", g, node, s->head->nr_nodes);
	if (state != NL_GROUP_OPEN)
		return 0;
	if ((nl_load(&group->chunk_free) | nl_load(&group->reserve)) & ~chunks)
		return bad(s, "group %u: chunks of the metadata are free", g);
	for (nl_u32 i = 0; i < NL_GROUP_CHUNKS && !err; i++)
		if (chunks & NL_BIT(i))
			err = sane_chunk(s, g * NL_GROUP_CHUNKS + i, &group->slab[i]);
	return err;
}

/* Is a bit of a map over groups set that is not below n? */
static bool beyond(nl_u64 bits, nl_u32 word, nl_u32 n)
{
	return word * 64 >= n ? bits != 0 : n - word * 64 < 64 && bits >> (n - word * 64);
}

/*
 * Hints lead to open groups alone: each is set after nr_open was raised, so the map is read first. A
 * group that was left behind is no open one.
 */
static int sane_hints(const struct sane *s)
{
	const struct nl_heap *head = s->head;
	nl_u32 words = (head->nr_groups + 63) / 64, maps = head->nr_nodes * (NL_MAX_CACHES + 1) + 1;
	const nl_word_t *map = (nl_word_t *)((char *)s->h + head->off_gfree);

	for (nl_u32 i = 0; i < maps; i++) {
		bool left = i == head->nr_nodes;

		if (i == head->nr_nodes + 1)
			map = (nl_word_t *)((char *)s->h + head->off_gpart);
		for (nl_u32 w = 0; w < words; w++, map++) {
			nl_u64 bits = nl_load_acquire(map);

			if (!beyond(bits, w, left ? head->nr_groups : nl_load(&s->h->nr_open)))
				continue;
			if (i > head->nr_nodes)
				return bad(s,
					   "cache %u: its hints lead to groups that are not open",
					   (i - head->nr_nodes - 1) % NL_MAX_CACHES);
			return bad(s, "its map of groups %s",
				   left ? "left behind has some that do not exist" :
					  "with free chunks has some that are not open");
		}
	}
	return 0;
}

/* Part `part` of `parts` of the numbers below n: from here on. */
static nl_u32 from_of(nl_u32 n, nl_u32 part, nl_u32 parts)
{
	return (nl_u32)((nl_u64)n * part / parts);
}

int nl_heap_sane(struct nolock_heap *heap, const struct nl_heap *head, nl_u32 part, nl_u32 parts,
		 char *why, size_t size)
{
	const struct sane s = { .h = heap->h, .head = head, .why = why, .size = size };
	nl_u32 open, i;
	int err;

	err = sane_constants(&s);
	if (!err)
		err = sane_header(&s);
	if (!err)
		err = sane_hints(&s);
	for (i = 0; i < NL_MAX_CACHES && !err; i++)
		err = sane_cache(&s, i);
	for (i = from_of(head->nr_slots, part, parts);
	     i < from_of(head->nr_slots, part + 1, parts) && !err; i++)
		err = sane_slots(&s, i);
	for (i = from_of(head->nr_sheaves, part, parts);
	     i < from_of(head->nr_sheaves, part + 1, parts) && !err; i++)
		err = sane_sheaf(&s, i);
	/* Judged above: what lies below it is present. */
	open = nl_load_acquire(&heap->h->nr_open);
	if (open > head->nr_groups)
		open = head->nr_groups;
	for (i = from_of(open, part, parts); i < from_of(open, part + 1, parts) && !err; i++)
		if (i >= head->first_chunk >> NL_GROUP_SHIFT)
			err = sane_group(&s, i);
	return err;
}
