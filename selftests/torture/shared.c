// SPDX-License-Identifier: GPL-2.0-only
/*
 * shared.c - see shared.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/slot.h"
#include "core/word.h"
#include "rseq.h"
#include "shared.h"

bool built_with_rseq(void)
{
#ifdef NL_HAVE_RSEQ
	return true;
#else
	return false;
#endif
}

static void die(const char *what)
{
	fprintf(stderr, "shared heap: %s: %s\n", what, strerror(errno));
	_exit(2);
}

struct nolock_heap *shared_make(size_t size)
{
	struct nl_shape shape = { .type = NL_HEAP_MEMFD, .slot_by_cpu = 1 };
	int fd = memfd_create("torture", MFD_CLOEXEC);
	struct nolock_heap *heap;
	char *mem;

	if (fd < 0 || ftruncate(fd, (off_t)size))
		die("memfd");
	/* An address that is free, and aligned as nolockd's are. */
	mem = mmap(NULL, size + NL_GROUP_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		die("address space");
	munmap(mem, size + NL_GROUP_SIZE);
	mem += -(uintptr_t)mem % NL_GROUP_SIZE;
	shape.base = (nl_u64)(uintptr_t)mem;
	shape.size = size;
	shape.name = "torture";
	shape.nr_slots = nolock_heap_default()->nr_slots;
	shape.nr_nodes = nl_nodes(true);
	if (mmap(mem, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) != mem)
		die("map");
	if (nl_heap_format(mem, &shape)) {
		errno = EINVAL;
		die("format");
	}
	munmap(mem, size);
	heap = nl_heap_map(fd, NL_HEAP_MEMFD, shape.base, size, CLIENT_KEEPER);
	if (!heap)
		die("nl_heap_map");
	return heap;
}

struct nolock_heap *shared_join(struct nolock_heap *heap, nl_u32 client, bool rseq)
{
	nl_u64 base = (nl_u64)(uintptr_t)heap->base, size = heap->size;
	int fd = dup(heap->fd);

	/* The handle is the parent's, its memory was not inherited. */
	if (fd < 0 || nolock_heap_close(heap))
		die("leave the parent's heap");
	if (!rseq)
		setenv("NOLOCK_RSEQ", "0", 1);
	heap = nl_heap_map(fd, NL_HEAP_MEMFD, base, size, client);
	if (!heap)
		die("nl_heap_map in a client");
	return heap;
}

static nl_u64 *inv_word(const struct inventory *inv, nl_u32 chunk, nl_u32 idx)
{
	return &inv->map[(size_t)(chunk - inv->first) * NL_SLAB_WORDS + idx / 64];
}

static bool inv_fail(struct inventory *inv, const char *what, nl_u64 obj, nl_u32 id)
{
	if (!*inv->error)
		snprintf(inv->error, sizeof(inv->error), "%#llx of cache %u %s",
			 (unsigned long long)obj, id, what);
	return false;
}

static bool inv_free(struct inventory *inv, nl_heap_t *h, nl_u32 id, nl_u64 obj)
{
	nl_u64 chunk = (obj - h->base) >> NL_CHUNK_SHIFT, *word;
	nl_u32 idx;

	if (chunk < inv->first || chunk >= inv->end ||
	    nl_load(nl_tag(h, (nl_u32)chunk)) != NL_TAG(NL_KIND_SLAB, id))
		return inv_fail(inv, "is in a sheaf, but no object", obj, id);
	idx = nl_slab_index(h, id, obj);
	if (idx == ~0u)
		return inv_fail(inv, "is in a sheaf, but inside of an object", obj, id);
	word = inv_word(inv, (nl_u32)chunk, idx);
	if (*word & NL_BIT(idx))
		return inv_fail(inv, "is free in two places", obj, id);
	*word |= NL_BIT(idx);
	inv->free++;
	return true;
}

static void inv_sheaf(struct inventory *inv, nl_heap_t *h, nl_u32 id, nl_u32 sheaf, nl_u32 n)
{
	if (!sheaf || sheaf > h->nr_sheaves)
		return;
	for (nl_u32 i = 0; i < n && i < NL_SHEAF_MAX; i++)
		inv_free(inv, h, id, nl_load(&nl_sheaf(h, sheaf - 1)->obj[i]));
}

static void inv_slot(struct inventory *inv, nl_heap_t *h, nl_u32 id, nl_slot_t *slot)
{
	inv_sheaf(inv, h, id, slot->main, NL_WORD_SIZE(nl_load(&slot->word)));
	if (slot->spare && slot->spare <= h->nr_sheaves)
		inv_sheaf(inv, h, id, slot->spare, nl_sheaf(h, slot->spare - 1)->size);
}

static void inv_cache(struct inventory *inv, nl_heap_t *h, nl_u32 id)
{
	nl_u32 sheaf;

	for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
		inv_slot(inv, h, id, nl_rslot(h, cpu, id));
		inv_slot(inv, h, id, nl_aslot(h, cpu, id));
	}
	for (nl_u32 node = 0; node < NL_MAX_NODES; node++) {
		sheaf = nl_cache(h, id)->barn[node].full.first;
		for (nl_u32 n = 0; sheaf && sheaf <= h->nr_sheaves && n <= h->nr_sheaves; n++) {
			inv_sheaf(inv, h, id, sheaf, nl_sheaf(h, sheaf - 1)->size);
			sheaf = nl_sheaf(h, sheaf - 1)->next;
		}
	}
}

bool inventory_take(struct inventory *inv, struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;

	/* Memory of an earlier time is used again. */
	if (!inv->map) {
		inv->map = mmap(NULL, (heap->size >> NL_CHUNK_SHIFT) * NL_SLAB_WORDS * 8,
				PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (inv->map == MAP_FAILED)
			die("inventory");
	}
	*inv->error = 0;
	inv->objects = inv->free = inv->large = 0;
	inv->first = h->first_chunk;
	inv->end = nl_nr_open(h) << NL_GROUP_SHIFT;
	for (nl_u32 chunk = inv->first; chunk < inv->end; chunk++) {
		nl_u32 tag = nl_load(nl_tag(h, chunk)), id = NL_TAG_CACHE(tag);
		nl_u32 per_slab = nl_cache(h, id)->per_slab;

		if (nl_load(&nl_group(h, chunk >> NL_GROUP_SHIFT)->state) != NL_GROUP_OPEN)
			continue;
		inv->large += NL_TAG_KIND(tag) == NL_KIND_LARGE;
		if (NL_TAG_KIND(tag) != NL_KIND_SLAB)
			continue;
		inv->objects += per_slab;
		for (nl_u32 w = 0; w * 64 < per_slab; w++) {
			nl_u64 free = nl_load(&nl_slab(h, chunk)->free[w]);

			*inv_word(inv, chunk, w * 64) = free;
			inv->free += (nl_u32)__builtin_popcountll(free);
		}
	}
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
		if (nl_cache(h, id)->state == NL_CACHE_LIVE)
			inv_cache(inv, h, id);
	for (nl_u32 i = 0; i < h->nr_sheaves; i++) {
		nl_sheaf_t *s = nl_sheaf(h, i);

		/* A prefilled sheaf, in somebody's hands. */
		if ((nl_load(&s->owner) & NL_PREFILLED) && s->cache)
			inv_sheaf(inv, h, s->cache - 1u, i + 1, s->size);
	}
	return !*inv->error;
}

bool inventory_live(const struct inventory *inv, struct nolock_heap *heap, const void *p)
{
	nl_heap_t *h = heap->h;
	nl_u64 chunk = ((nl_u64)(uintptr_t)p - h->base) >> NL_CHUNK_SHIFT;
	nl_u32 tag, idx;

	if (chunk < inv->first || chunk >= inv->end)
		return false;
	tag = nl_load(nl_tag(h, (nl_u32)chunk));
	if (NL_TAG_KIND(tag) == NL_KIND_LARGE)
		return (uintptr_t)p % NL_CHUNK_SIZE == 0;
	if (NL_TAG_KIND(tag) != NL_KIND_SLAB)
		return false;
	idx = nl_slab_index(h, NL_TAG_CACHE(tag), (nl_u64)(uintptr_t)p);
	return idx != ~0u && !(*inv_word(inv, (nl_u32)chunk, idx) & NL_BIT(idx));
}

void inventory_each_live(const struct inventory *inv, struct nolock_heap *heap,
			 void (*fn)(void *obj, void *arg), void *arg)
{
	nl_heap_t *h = heap->h;

	for (nl_u32 chunk = inv->first; chunk < inv->end; chunk++) {
		nl_u32 tag = nl_load(nl_tag(h, chunk)), id = NL_TAG_CACHE(tag);

		if (NL_TAG_KIND(tag) == NL_KIND_LARGE)
			fn((void *)(uintptr_t)nl_object(h, chunk, 0, 0), arg);
		if (NL_TAG_KIND(tag) != NL_KIND_SLAB)
			continue;
		for (nl_u32 i = 0; i < nl_cache(h, id)->per_slab; i++)
			if (!(*inv_word(inv, chunk, i) & NL_BIT(i)))
				fn((void *)(uintptr_t)nl_object(h, chunk, i, nl_cache(h, id)->size),
				   arg);
	}
}
