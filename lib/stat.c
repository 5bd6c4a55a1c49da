/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* stat.c - a heap's figures: sums of plain counters, and of another process's by copying them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "internal.h"
#include "core/slot.h"
#include "core/word.h"

static const char *const names[NOLOCK_NR_STAT_ITEMS] = {
	[NOLOCK_ALLOC_FASTPATH] = "alloc_fastpath",
	[NOLOCK_ALLOC_SLOWPATH] = "alloc_slowpath",
	[NOLOCK_FREE_FASTPATH] = "free_fastpath",
	[NOLOCK_FREE_SLOWPATH] = "free_slowpath",
	[NOLOCK_ALLOC_SLAB] = "alloc_slab",
	[NOLOCK_FREE_SLAB] = "free_slab",
	[NOLOCK_SHEAF_FLUSH] = "sheaf_flush",
	[NOLOCK_SHEAF_REFILL] = "sheaf_refill",
	[NOLOCK_SHEAF_ALLOC] = "sheaf_alloc",
	[NOLOCK_SHEAF_FREE] = "sheaf_free",
	[NOLOCK_BARN_GET] = "barn_get",
	[NOLOCK_BARN_GET_FAIL] = "barn_get_fail",
	[NOLOCK_BARN_PUT] = "barn_put",
	[NOLOCK_BARN_PUT_FAIL] = "barn_put_fail",
	[NOLOCK_SHEAF_PREFILL_FAST] = "sheaf_prefill_fast",
	[NOLOCK_SHEAF_PREFILL_SLOW] = "sheaf_prefill_slow",
	[NOLOCK_SHEAF_PREFILL_OVERSIZE] = "sheaf_prefill_oversize",
	[NOLOCK_SHEAF_RETURN_FAST] = "sheaf_return_fast",
	[NOLOCK_SHEAF_RETURN_SLOW] = "sheaf_return_slow",
	[NOLOCK_SLOT_BUSY] = "slot_busy",
	[NOLOCK_ALLOC_NEXT_BUCKET] = "alloc_next_bucket",
	[NOLOCK_ALLOC_FAIL] = "alloc_fail",
	[NOLOCK_FREE_REFUSED] = "free_refused",
	[NOLOCK_ALLOC_CPU_CACHE] = "alloc_cpu_cache",
	[NOLOCK_FREE_CPU_CACHE] = "free_cpu_cache",
	[NOLOCK_ALLOC_NODE_MISMATCH] = "alloc_node_mismatch",
	[NOLOCK_FREE_RCU_SHEAF] = "free_rcu_sheaf",
	[NOLOCK_FREE_RCU_SHEAF_FAIL] = "free_rcu_sheaf_fail",
	[NOLOCK_SLOT_LOCK] = "slot_lock",
};

/* Which of a slot's counters is which item. */
static const struct {
	nl_u8 item, stat;
} counters[] = {
	{ NOLOCK_ALLOC_SLOWPATH, NL_STAT_ALLOC_SLOWPATH },
	{ NOLOCK_FREE_SLOWPATH, NL_STAT_FREE_SLOWPATH },
	{ NOLOCK_ALLOC_SLAB, NL_STAT_ALLOC_SLAB },
	{ NOLOCK_FREE_SLAB, NL_STAT_FREE_SLAB },
	{ NOLOCK_SHEAF_FLUSH, NL_STAT_SHEAF_FLUSH },
	{ NOLOCK_SHEAF_REFILL, NL_STAT_SHEAF_REFILL },
	{ NOLOCK_SHEAF_ALLOC, NL_STAT_SHEAF_ALLOC },
	{ NOLOCK_SHEAF_FREE, NL_STAT_SHEAF_FREE },
	{ NOLOCK_BARN_GET, NL_STAT_BARN_GET },
	{ NOLOCK_BARN_GET_FAIL, NL_STAT_BARN_GET_FAIL },
	{ NOLOCK_BARN_PUT, NL_STAT_BARN_PUT },
	{ NOLOCK_BARN_PUT_FAIL, NL_STAT_BARN_PUT_FAIL },
	{ NOLOCK_SHEAF_PREFILL_FAST, NL_STAT_PREFILL_FAST },
	{ NOLOCK_SHEAF_PREFILL_SLOW, NL_STAT_PREFILL_SLOW },
	{ NOLOCK_SHEAF_PREFILL_OVERSIZE, NL_STAT_PREFILL_OVERSIZE },
	{ NOLOCK_SHEAF_RETURN_FAST, NL_STAT_RETURN_FAST },
	{ NOLOCK_SHEAF_RETURN_SLOW, NL_STAT_RETURN_SLOW },
	{ NOLOCK_SLOT_BUSY, NL_STAT_BUSY },
	{ NOLOCK_ALLOC_NEXT_BUCKET, NL_STAT_NEXT_BUCKET },
	{ NOLOCK_ALLOC_FAIL, NL_STAT_ALLOC_FAIL },
	{ NOLOCK_FREE_REFUSED, NL_STAT_FREE_REFUSED },
	{ NOLOCK_ALLOC_NODE_MISMATCH, NL_STAT_NODE_MISMATCH },
	{ NOLOCK_SLOT_LOCK, NL_STAT_SLOT_LOCK },
};

const char *nolock_stat_name(enum nolock_stat_item item)
{
	return (unsigned int)item < NOLOCK_NR_STAT_ITEMS ? names[item] : NULL;
}

/* The header may be another process's, or damaged: bounds once more, from a copy. */
static int head_of(const struct nolock_heap *heap, struct nl_heap *copy)
{
	const char *why;

	memcpy(copy, heap->h, sizeof(*copy));
	return nl_heap_validate(copy, heap->snapshot ? copy->base : (nl_u64)heap->base,
				heap->snapshot ? copy->size : heap->size, &why);
}

/* After a repair has counted again, who was between a change and its count may take it below 0. */
static nl_u32 count_of(nl_u32 counter)
{
	return (int32_t)counter > 0 ? counter : 0;
}

int nolock_heap_stat(const struct nolock_heap *heap, struct nolock_heap_stat *st)
{
	struct nl_heap head;
	int err;

	memset(st, 0, sizeof(*st));
	if (!heap)
		return -EINVAL;
	err = head_of(heap, &head);
	if (err)
		return err;
	memcpy(st->name, head.name, sizeof(st->name));
	st->type = (enum nolock_heap_type)head.type;
	st->base = head.base;
	st->size = head.size;
	st->metadata = head.off_tag;
	st->nr_slots = head.nr_slots;
	st->large = count_of(head.nr_large);
	st->reserve_target = head.reserve_target;
	for (nl_u32 g = head.first_chunk >> NL_GROUP_SHIFT; g < head.nr_open; g++) {
		nl_group_t *group = nl_group(heap->h, g);
		nl_u32 start = g << NL_GROUP_SHIFT, end = start + NL_GROUP_CHUNKS;
		int reserve = __builtin_popcountll(nl_load(&group->reserve));

		if (nl_load(&group->state) != NL_GROUP_OPEN)
			continue;
		if (start < head.first_chunk)
			start = head.first_chunk;
		/* The end of a group of which there was room for a part. */
		while (end > start && nl_load(nl_tag(heap->h, end - 1)) == NL_TAG(NL_KIND_META, 0))
			end--;
		st->opened += (unsigned long)(end - start) << NL_CHUNK_SHIFT;
		st->metadata += sizeof(struct nl_group) + NL_GROUP_CHUNKS * sizeof(nl_u32);
		st->chunks_reserve += (unsigned long)reserve;
		st->chunks_free += (unsigned long)(reserve + __builtin_popcountll(
								     nl_load(&group->chunk_free)));
	}
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++) {
		struct nolock_cache_stat cs;

		if (nl_load(&nl_cache(heap->h, id)->state) != NL_CACHE_LIVE)
			continue;
		st->nr_caches++;
		if ((nl_load(&nl_cache(heap->h, id)->flags) & SLAB_ACCOUNT) &&
		    !nolock_heap_cache_stat(heap, id, &cs))
			st->accounted += cs.accounted;
	}
	for (nl_u32 chunk = head.first_chunk;
	     head.nr_large && chunk < head.nr_open << NL_GROUP_SHIFT; chunk++)
		if (NL_TAG_KIND(nl_load(nl_tag(heap->h, chunk))) == NL_KIND_LARGE &&
		    nl_load(&nl_slab(heap->h, chunk)->accounted))
			st->accounted += (unsigned long)nl_load(&nl_slab(heap->h, chunk)->nr_chunks)
					 << NL_CHUNK_SHIFT;
	for (nl_u32 i = 1; i <= NL_MAX_CLIENTS; i++)
		st->clients += head.client[i].pid != 0;
	return 0;
}

static void add_slot(const struct nolock_heap *heap, const struct nl_heap *head, nl_slot_t *slot,
		     struct nolock_cache_stat *st)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 n = NL_WORD_SIZE(word), spare = nl_load(&slot->spare);

	st->in_sheaves += n;
	st->sheaves += (nl_load(&slot->main) != 0) + (spare != 0);
	if (spare && spare <= head->nr_sheaves)
		st->in_sheaves += nl_load(&nl_sheaf(heap->h, spare - 1)->size);
	st->stat[NOLOCK_ALLOC_FASTPATH] += NL_WORD_ALLOCS(word);
	st->stat[NOLOCK_FREE_FASTPATH] += n + NL_WORD_ALLOCS(word) +
					  nl_load(&slot->stat[NL_STAT_OUT]) -
					  nl_load(&slot->stat[NL_STAT_IN]);
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		st->stat[counters[i].item] += nl_load(&slot->stat[counters[i].stat]);
}

/* Free objects in the slabs of a cache. */
static unsigned long free_in_slabs(const struct nolock_heap *heap, const struct nl_heap *head,
				   nl_u32 id, nl_u32 words)
{
	unsigned long n = 0;

	for (nl_u32 chunk = head->first_chunk; chunk < head->nr_open << NL_GROUP_SHIFT; chunk++) {
		if (nl_load(nl_tag(heap->h, chunk)) != NL_TAG(NL_KIND_SLAB, id))
			continue;
		for (nl_u32 w = 0; w < words && w < NL_SLAB_WORDS; w++)
			n += (unsigned long)__builtin_popcountll(
				nl_load(&nl_slab(heap->h, chunk)->free[w]));
	}
	return n;
}

int nolock_heap_cache_stat(const struct nolock_heap *heap, unsigned int id,
			   struct nolock_cache_stat *st)
{
	struct nl_cache entry;
	struct nl_heap head;
	nl_cache_t *c;
	int err;

	memset(st, 0, sizeof(*st));
	if (!heap)
		return -EINVAL;
	if (id >= NL_MAX_CACHES)
		return -ERANGE;
	err = head_of(heap, &head);
	if (err)
		return err;
	c = nl_cache(heap->h, id);
	if (!nl_cache_read(c, &entry))
		return -ENOENT;
	memcpy(st->name, entry.name, sizeof(st->name));
	st->id = id;
	st->object_size = entry.object_size;
	st->size = entry.size;
	st->objs_per_slab = entry.per_slab;
	st->sheaf_capacity = entry.capacity;
	st->flags = entry.flags;
	st->debug_errors = entry.bugs;
	st->slabs = count_of(nl_load(&c->nr_slabs));
	st->objects = st->slabs * entry.per_slab;
	for (nl_u32 cpu = 0; cpu < head.nr_slots; cpu++) {
		add_slot(heap, &head, nl_rslot(heap->h, cpu, id), st);
		add_slot(heap, &head, nl_aslot(heap->h, cpu, id), st);
	}
	st->stat[NOLOCK_FREE_RCU_SHEAF] = entry.rcu_sheaf;
	st->stat[NOLOCK_FREE_RCU_SHEAF_FAIL] = entry.rcu_sheaf_fail;
	if (entry.mode & NL_CACHE_ARRAY) {
		st->stat[NOLOCK_ALLOC_CPU_CACHE] = st->stat[NOLOCK_ALLOC_FASTPATH];
		st->stat[NOLOCK_FREE_CPU_CACHE] = st->stat[NOLOCK_FREE_FASTPATH];
		st->stat[NOLOCK_ALLOC_FASTPATH] = st->stat[NOLOCK_FREE_FASTPATH] = 0;
	}
	for (nl_u32 node = 0; node < head.nr_nodes; node++) {
		nl_u32 sheaf = nl_load(&c->barn[node].full.first);

		st->barn_full += nl_load(&c->barn[node].full.nr);
		st->barn_empty += nl_load(&c->barn[node].empty.nr);
		/* The list may change under the walk: bounded, and good enough for a figure. */
		for (nl_u32 n = 0; sheaf && sheaf <= head.nr_sheaves && n < head.nr_sheaves; n++) {
			st->in_sheaves += nl_load(&nl_sheaf(heap->h, sheaf - 1)->size);
			sheaf = nl_load(&nl_sheaf(heap->h, sheaf - 1)->next);
		}
	}
	st->sheaves += st->barn_full + st->barn_empty;
	if (st->slabs)
		st->in_slabs = free_in_slabs(heap, &head, id, entry.words);
	if (st->objects > st->in_sheaves + st->in_slabs)
		st->allocated = st->objects - st->in_sheaves - st->in_slabs;
	if (st->flags & SLAB_ACCOUNT)
		st->accounted = st->allocated * entry.size;
	return 0;
}

static bool read_remote(int pid, void *to, nl_u64 from, size_t n)
{
	while (n) {
		size_t step = n < (1u << 20) ? n : 1u << 20;
		struct iovec local = { to, step }, remote = { (void *)from, step };
		ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);

		if (got <= 0)
			return false;
		to = (char *)to + got;
		from += (nl_u64)got;
		n -= (size_t)got;
	}
	return true;
}

/* Copy the metadata of the heap whose header was read; a handle on the copy, or NULL. */
static struct nolock_heap *copy_remote(int pid, const struct nl_heap *head)
{
	nl_u64 end = (nl_u64)head->first_chunk << NL_CHUNK_SHIFT;
	nl_u32 first = head->first_chunk >> NL_GROUP_SHIFT;
	struct nolock_heap *heap;
	char *mem;

	mem = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	if (!read_remote(pid, mem, head->base, head->off_tag))
		goto unmap;
	memcpy(mem, head, sizeof(*head)); /* the one that was validated */
	if (head->nr_open > first) {
		nl_u64 tag = head->off_tag + (nl_u64)first * NL_GROUP_CHUNKS * sizeof(nl_u32);
		nl_u64 group = head->off_group + (nl_u64)first * sizeof(struct nl_group);

		if (!read_remote(pid, mem + tag, head->base + tag,
				 (size_t)(head->nr_open - first) * NL_GROUP_CHUNKS *
					 sizeof(nl_u32)) ||
		    !read_remote(pid, mem + group, head->base + group,
				 (size_t)(head->nr_open - first) * sizeof(struct nl_group)))
			goto unmap;
	}
	heap = nl_heap_snapshot(mem, end);
	if (heap)
		return heap;
unmap:
	munmap(mem, end);
	return NULL;
}

struct nolock_heap *nolock_heap_attach_pid(int pid)
{
	unsigned long from, to, best = 0;
	struct nolock_heap *heap = NULL;
	struct nl_heap head;
	const char *why;
	char line[512], path[64];
	int err = ENODEV;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps) {
		errno = errno == ENOENT ? ESRCH : errno == EACCES ? EPERM : errno;
		return NULL;
	}
	while (fgets(line, sizeof(line), maps)) {
		char prot[8];

		if (sscanf(line, "%lx-%lx %7s", &from, &to, prot) != 3 || prot[0] != 'r' ||
		    prot[1] != 'w' || from % NL_CHUNK_SIZE || to - from < sizeof(head))
			continue;
		if (!read_remote(pid, &head, from, sizeof(head))) {
			if (errno == EPERM)
				err = EPERM;
			continue;
		}
		if (head.magic != NL_MAGIC || head.type != NL_HEAP_PRIVATE)
			continue;
		if (nl_heap_validate(&head, from, head.size, &why)) {
			err = EPROTO;
			continue;
		}
		/* Of several private heaps the one with the most in it. */
		if (heap && head.nr_open <= best)
			continue;
		best = head.nr_open;
		if (heap)
			nolock_heap_close(heap);
		heap = copy_remote(pid, &head);
		if (!heap)
			err = errno;
	}
	fclose(maps);
	if (!heap)
		errno = err;
	return heap;
}
