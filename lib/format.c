/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* format.c - where everything lies in a new heap, its kmalloc caches, and is a header sane? */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "internal.h"
#include "debug.h"
#include "core/kmalloc.h"

static nl_u64 round_up(nl_u64 value, nl_u64 to)
{
	return (value + to - 1) / to * to;
}

int nl_heap_lay_out(struct nl_heap *h, const struct nl_shape *shape)
{
	nl_u64 off, groups = shape->size / NL_GROUP_SIZE, sheaves, end;

	if (!groups || groups > NL_MAX_GROUPS || shape->size % NL_GROUP_SIZE || !shape->nr_slots ||
	    !shape->nr_nodes || shape->nr_nodes > NL_MAX_NODES || shape->base % NL_CHUNK_SIZE)
		return -EINVAL;
	memset(h, 0, sizeof(*h));
	h->version = NL_VERSION;
	h->type = shape->type;
	h->base = shape->base;
	h->size = shape->size;
	h->nr_groups = (nl_u32)groups;
	h->limit = h->nr_groups;
	h->nr_slots = shape->nr_slots;
	h->nr_nodes = shape->nr_nodes;
	h->slot_by_cpu = shape->slot_by_cpu;
	if (shape->name)
		strncpy(h->name, shape->name, NL_NAME - 1);

	sheaves = NL_SHEAVES((nl_u64)h->nr_slots);
	if (h->type == NL_HEAP_PRIVATE)
		sheaves += NL_SHEAVES_DEEP;
	if (sheaves > shape->size / (16 * sizeof(struct nl_sheaf)))
		sheaves = shape->size / (16 * sizeof(struct nl_sheaf));
	h->nr_sheaves = (nl_u32)round_up(sheaves ? sheaves : 1, 64);

	off = round_up(sizeof(struct nl_heap), NL_PAGE);
	h->off_cache = off;
	off += NL_MAX_CACHES * sizeof(struct nl_cache);
	h->off_rslot = off = round_up(off, NL_PAGE);
	off += (nl_u64)h->nr_slots * NL_MAX_CACHES * sizeof(struct nl_slot);
	h->off_aslot = off;
	off += (nl_u64)h->nr_slots * NL_MAX_CACHES * sizeof(struct nl_slot);
	h->off_node = off;
	off = round_up(off + h->nr_slots, 64);
	h->off_smap = off;
	off = round_up(off + h->nr_sheaves / 8, 64);
	h->off_sheaf = off = round_up(off, sizeof(struct nl_sheaf));
	off += (nl_u64)h->nr_sheaves * sizeof(struct nl_sheaf);
	h->off_gfree = off;
	off += (h->nr_nodes + 1) * ((groups + 63) / 64 * 8);
	h->off_gpart = off = round_up(off, 64);
	off += (nl_u64)h->nr_nodes * NL_MAX_CACHES * ((groups + 63) / 64) * 8;
	h->off_tag = off = round_up(off, NL_PAGE);
	off += groups * NL_GROUP_CHUNKS * sizeof(nl_u32);
	h->off_group = off = round_up(off, NL_PAGE);
	end = off + groups * sizeof(struct nl_group);
	if (end + 2 * NL_CHUNK_SIZE > shape->size)
		return -EINVAL;
	/* At least a page between metadata and objects that nobody can touch, where one can be. */
	if (shape->type == NL_HEAP_PRIVATE)
		end += NL_CHUNK_SIZE;
	h->first_chunk = (nl_u32)(round_up(end, NL_CHUNK_SIZE) >> NL_CHUNK_SHIFT);
	h->bias = h->type == NL_HEAP_ARENA ? ~0ULL : 0;
	h->cursor = h->nr_open = h->first_chunk >> NL_GROUP_SHIFT;
	return 0;
}

nl_u64 nl_heap_fixed_size(const struct nl_shape *shape)
{
	struct nl_heap h;

	return nl_heap_lay_out(&h, shape) ? 0 : h.off_tag;
}

/* A budget of bytes a sheaf: 8 KiB of small objects, and never fewer than 4 large ones. */
nl_u32 nl_default_capacity(nl_u32 size)
{
	nl_u32 objects = (size > 512 ? NL_SHEAF_BYTES_BIG : NL_SHEAF_BYTES) / size;

	if (objects > NL_SHEAF_MOST)
		return NL_SHEAF_MOST;
	return objects < NL_SHEAF_LEAST ? NL_SHEAF_LEAST : objects;
}

void nl_cache_shape(struct nl_cache *c, nl_u32 id, nl_u32 object_size, nl_u32 size)
{
	c->id = id;
	c->next = id;
	c->object_size = object_size;
	c->size = size;
	c->recip = (nl_u32)(((1ULL << 32) + size - 1) / size);
	c->per_slab = NL_CHUNK_SIZE / size;
	if (c->per_slab > NL_SLAB_WORDS * 64)
		c->per_slab = NL_SLAB_WORDS * 64;
	c->words = (c->per_slab + 63) / 64;
	c->capacity = nl_default_capacity(size);
}

int nl_heap_format(void *mem, const struct nl_shape *shape)
{
	struct nl_heap *h = mem, header;
	int err = nl_heap_lay_out(&header, shape);

	if (err)
		return err;
	*h = header;
	for (nl_u32 id = 0; id < NL_NR_KMALLOC; id++) {
		struct nl_cache *c = nl_cache(h, id);
		bool accounted = id >= NL_NR_BUCKETS;
		nl_u32 size = nl_kmalloc_size(id % NL_NR_BUCKETS), digits = 0;
		char *p = c->name, text[8];

		nl_cache_shape(c, id, size, size);
		c->align = size & -size;
		if ((id + 1) % NL_NR_BUCKETS)
			c->next = id + 1;
		if (accounted)
			c->flags = SLAB_ACCOUNT;
		p = stpcpy(p, accounted ? "kmalloc-cg-" : "kmalloc-");
		for (; size; size /= 10)
			text[digits++] = (char)('0' + size % 10);
		while (digits)
			*p++ = text[--digits];
		if (h->type == NL_HEAP_PRIVATE)
			nl_debug_cache(c, nl_debug_flags(c->name));
		c->state = NL_CACHE_LIVE;
	}
	for (nl_u32 w = 0; w < h->nr_sheaves / 64; w++)
		nl_sheaf_map(h)[w] = ~0ULL;
	for (nl_u32 cpu = 0; h->nr_nodes > 1 && cpu < h->nr_slots; cpu++)
		nl_at(h, h->off_node)[cpu] = (char)(nl_node_of_cpu(cpu) % h->nr_nodes);
	/* Whoever finds the magic finds a heap. */
	nl_store_release(&h->magic, NL_MAGIC);
	return 0;
}

#define LAID_OUT(field)                                                                            \
	{                                                                                          \
		offsetof(struct nl_heap, field), sizeof(((struct nl_heap *)0)->field),             \
			"its " #field " is not what its layout makes it"                           \
	}

static const struct {
	size_t off, size;
	const char *why;
} fields[] = {
	LAID_OUT(nr_groups), LAID_OUT(first_chunk), LAID_OUT(nr_sheaves), LAID_OUT(off_cache),
	LAID_OUT(off_rslot), LAID_OUT(off_aslot),   LAID_OUT(off_node),	  LAID_OUT(off_smap),
	LAID_OUT(off_sheaf), LAID_OUT(off_gfree),   LAID_OUT(off_gpart),  LAID_OUT(off_tag),
	LAID_OUT(off_group),
};

int nl_heap_validate(const struct nl_heap *copy, nl_u64 base, nl_u64 size, const char **why)
{
	struct nl_heap want;
	struct nl_shape shape = {
		.base = base,
		.size = size,
		.type = copy->type,
		.nr_slots = copy->nr_slots,
		.nr_nodes = copy->nr_nodes,
		.slot_by_cpu = copy->slot_by_cpu,
	};

	*why = "it has no nolock magic number";
	if (copy->magic != NL_MAGIC)
		return -EUCLEAN;
	*why = "it was made by another version of nolock";
	if (copy->version != NL_VERSION)
		return -EPROTO;
	*why = "its type is unknown";
	if (copy->type > NL_HEAP_ARENA)
		return -EUCLEAN;
	*why = "its base or size is not that of its memory";
	if (copy->base != base || copy->size != size)
		return -EUCLEAN;
	*why = "its nr_slots is out of range";
	if (!copy->nr_slots || copy->nr_slots > 65536)
		return -EUCLEAN;
	*why = "its nr_nodes is out of range";
	if (!copy->nr_nodes || copy->nr_nodes > NL_MAX_NODES)
		return -EUCLEAN;
	*why = "its slot_by_cpu is not that of a shared heap";
	if (copy->slot_by_cpu > 1 || (copy->type != NL_HEAP_PRIVATE && !copy->slot_by_cpu))
		return -EUCLEAN;
	*why = "its layout does not fit its size";
	if (nl_heap_lay_out(&want, &shape))
		return -EUCLEAN;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		*why = fields[i].why;
		if (memcmp((const char *)copy + fields[i].off, (const char *)&want + fields[i].off,
			   fields[i].size))
			return -EUCLEAN;
	}
	*why = "its limit is out of range";
	if (copy->limit > copy->nr_groups)
		return -EUCLEAN;
	*why = "its nr_open is out of range";
	if (copy->nr_open > copy->nr_groups || copy->nr_open < want.nr_open)
		return -EUCLEAN;
	*why = "its name is not a string";
	if (!memchr(copy->name, 0, sizeof(copy->name)))
		return -EUCLEAN;
	*why = NULL;
	return 0;
}
