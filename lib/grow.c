/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * grow.c - making more of a heap usable: opening groups, the nolock reserve, prefilled caches.
 *
 * Who opens which group is core/grow.h's; here is how its memory is made usable. A private heap's
 * is made accessible; a shared heap's is made present for everybody, so that BPF programs, for
 * which an absent page reads as 0 and drops what is written, never see one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include "internal.h"
#include "probes.h"
#include "core/grow.h"
#include "core/slot.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Make [from, to) of the heap, as offsets, usable. 0 or -ENOMEM. */
static int open_range(struct nolock_heap *heap, nl_u64 from, nl_u64 to)
{
	from = from / NL_PAGE * NL_PAGE;
	to = (to + NL_PAGE - 1) / NL_PAGE * NL_PAGE;
	if (heap->type == NL_HEAP_PRIVATE)
		return mprotect(heap->base + from, to - from, PROT_READ | PROT_WRITE) ? -ENOMEM : 0;
	return madvise(heap->base + from, to - from, MADV_POPULATE_WRITE) ? -ENOMEM : 0;
}

#define OPEN_TRIES 64

/*
 * The chunks from offset from up to to. Where they are not reserved, something else may have been
 * mapped there: -EEXIST.
 */
static int open_chunks(struct nolock_heap *heap, nl_u64 from, nl_u64 to, nl_u32 node)
{
	char *at = heap->base + from, *mem;

	/* Bound before they are populated, and after they are mapped. */
	if (!heap->lazy) {
		nl_node_bind(heap, at, to - from, node);
		return open_range(heap, from, to);
	}
	mem = mmap(at, to - from, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (mem == at) {
		nl_node_bind(heap, at, to - from, node);
		return 0;
	}
	if (mem == MAP_FAILED)
		return errno == EEXIST ? -EEXIST : -ENOMEM;
	/* A kernel that takes the address for a wish. */
	munmap(mem, to - from);
	return -EEXIST;
}

/* All that groups [g, g + n) need but their chunks: idempotent. 0 or -ENOMEM. */
static int open_metadata(struct nolock_heap *heap, nl_u32 g, nl_u32 n)
{
	nl_heap_t *h = heap->h;
	nl_u32 low = nl_load(&h->nr_open);

	/* Along with the metadata of groups below, whose openers are still at it. */
	if (low > g)
		low = g;
	if (open_range(heap, nl_tags_at(h, low), nl_tags_at(h, g + n)) ||
	    open_range(heap, nl_groups_at(h, low), nl_groups_at(h, g + n)))
		return -ENOMEM;
	return nl_rcu_open(heap, g, n);
}

/* The chunks are there: they are of this node from before anybody may have one. 0 or -ENOMEM. */
static int reach(struct nolock_heap *heap, nl_u32 g, nl_u32 n, nl_u32 node)
{
	nl_heap_t *h = heap->h;

	for (nl_u32 i = g; i < g + n; i++)
		if (nl_load(&nl_group(h, i)->state) != NL_GROUP_OPEN)
			nl_store(&nl_group(h, i)->node, node);
	if (nl_groups_reach(h, g, n))
		return -ENOMEM;
	nl_heap_refresh(heap);
	return 0;
}

/* Open groups [g, g + n), which are this caller's by the cursor. 0, -ENOMEM or -EEXIST. */
static int open_groups(struct nolock_heap *heap, nl_u32 g, nl_u32 n, nl_u32 node)
{
	nl_heap_t *h = heap->h;
	int err = open_metadata(heap, g, n);

	/* The chunks last: what is mapped cannot be mapped again. */
	if (!err)
		err = open_chunks(heap, nl_chunks_at(h, g), nl_chunks_at(h, g + n), node);
	return err ? err : reach(heap, g, n, node);
}

#define PART_LEAST 4u /* chunks */

/*
 * Too little memory is left for a whole group (RLIMIT_AS, RLIMIT_DATA): as many of its chunks as
 * there is memory for, by halves, but not fewer than least. The others stay closed for good, which
 * their tags say. The chunks opened.
 */
static nl_u64 open_part(struct nolock_heap *heap, nl_u32 g, nl_u32 least, nl_u32 node)
{
	nl_heap_t *h = heap->h;
	nl_u64 from = nl_chunks_at(h, g), all = nl_group_chunks(h, g);
	nl_u32 n = NL_GROUP_CHUNKS / 2, first = nl_lowest(all);

	if (heap->type != NL_HEAP_PRIVATE || least > n || open_metadata(heap, g, 1))
		return 0;
	if (least < PART_LEAST)
		least = PART_LEAST;
	for (; n >= least; n /= 2)
		if (first + n < NL_GROUP_CHUNKS &&
		    !open_chunks(heap, from, from + (nl_u64)n * NL_CHUNK_SIZE, node))
			break;
	if (n < least)
		return 0;
	for (nl_u32 i = first + n; i < NL_GROUP_CHUNKS; i++)
		nl_store(nl_tag(h, (g << NL_GROUP_SHIFT) + i), NL_TAG(NL_KIND_META, 0));
	if (reach(heap, g, 1, node))
		return 0;
	return (NL_BIT(n) - 1) << first;
}

static nl_u32 grow(struct nolock_heap *heap, nl_u32 groups, nl_u32 least, nl_u32 node)
{
	nl_heap_t *h = heap->h;
	nl_u32 left, g;
	nl_u64 part = 0;
	int err = -EEXIST;

	left = h->limit > nl_load(&h->cursor) ? h->limit - nl_load(&h->cursor) : 0;
	if (!left)
		left = nl_load(&h->nr_left) != 0;
	if (groups > left)
		groups = left;
	/* A group whose place is taken stays drawn, and closed. */
	for (nl_u32 i = 0; groups && i < OPEN_TRIES && err == -EEXIST; i++) {
		g = nl_groups_draw(h, groups);
		if (g == NL_NO_GROUP)
			return 0;
		err = open_groups(heap, g, groups, node);
		if (err == -ENOMEM && groups == 1)
			part = open_part(heap, g, least, node);
		if (err && !part && (err != -EEXIST || groups > 1))
			nl_groups_undraw(h, g, groups);
		if (groups > 1)
			break;
	}
	if (!groups || (err && !part))
		return 0;
	NL_PROBE2(heap_grow, h, groups);
	for (nl_u32 i = g; i < g + groups; i++)
		nl_chunk_publish(h, i, part ? part : nl_group_chunks(h, i));
	return groups;
}

nl_u32 nl_heap_grow(struct nolock_heap *heap, nl_u32 groups)
{
	return grow(heap, groups, 1, nl_here(heap));
}

nl_u32 nl_heap_grow_on(struct nolock_heap *heap, nl_u32 groups, nl_u32 node)
{
	return grow(heap, groups, 1, node);
}

nl_u32 nl_heap_grow_part(struct nolock_heap *heap, nl_u32 least, nl_u32 node)
{
	return grow(heap, 1, least, node);
}

/*
 * Groups that were drawn and are not open: their opener died, or is still at it. Opening one twice
 * does no harm: it sets bits of chunks once more, which their tags make good.
 */
void nl_heap_reopen(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 end = nl_load(&h->cursor);

	for (nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT; g < end && g < h->nr_groups; g++) {
		nl_u32 *state = &nl_group(h, g)->state;

		if (nl_load(state) == NL_GROUP_OPEN && g < nl_nr_open(h))
			continue;
		if (!nl_group_claim(h, g, NL_GROUP_REPAIR) && nl_load(state) == NL_GROUP_BPF)
			continue;
		if (open_groups(heap, g, 1, nl_node_of(h, g))) {
			nl_store(state, NL_GROUP_CLOSED);
			return;
		}
		nl_chunk_publish(h, g, nl_group_chunks(h, g));
	}
}

nl_u32 nl_heap_grow_step(const struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 open = nl_load(&h->nr_open) - (h->first_chunk >> NL_GROUP_SHIFT);

	/* What is opened in a shared heap is memory; in a private one, three system calls a time. */
	if (heap->type != NL_HEAP_PRIVATE || open < 8)
		return 1;
	return open / 8 < 16 ? open / 8 : 16;
}

/* Open groups for nr adjacent chunks; what is left over is handed out. A chunk number, or 0. */
nl_u32 nl_heap_grow_run(struct nolock_heap *heap, nl_u32 nr, nl_u32 node)
{
	nl_u32 n = (nr + NL_GROUP_CHUNKS - 1) / NL_GROUP_CHUNKS, chunk, end;
	nl_heap_t *h = heap->h;
	nl_u32 g;

	/* The first group of all is no whole one. */
	if (nl_load(&h->cursor) == h->first_chunk >> NL_GROUP_SHIFT)
		nl_heap_grow_on(heap, 1, node);
	g = nl_groups_draw(h, n);
	if (g == NL_NO_GROUP)
		return 0;
	if (open_groups(heap, g, n, node)) {
		nl_groups_undraw(h, g, n);
		return 0;
	}
	NL_PROBE2(heap_grow, h, n);
	chunk = g << NL_GROUP_SHIFT;
	end = (g + n) << NL_GROUP_SHIFT;
	if (chunk + nr < end)
		nl_chunk_publish(h, g + n - 1, ~0ULL << (nr % NL_GROUP_CHUNKS));
	return chunk;
}

nl_u64 nl_free_hints(nl_heap_t *h, nl_u32 word, nl_u32 node)
{
	nl_u64 hints = 0;

	if (node != NL_ANY_NODE)
		return nl_load(nl_group_free_map(h, node) + word);
	for (nl_u32 n = 0; n < nl_nr_nodes(h); n++)
		hints |= nl_load(nl_group_free_map(h, n) + word);
	return hints;
}

bool nl_heap_any_chunk(const struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 words = nl_group_words(h);

	/* A hint stays until somebody finds it to be wrong, so each is followed. */
	for (nl_u32 i = 0; i < words; i++)
		for (nl_u64 hints = nl_free_hints(h, i, NL_ANY_NODE); hints; hints &= hints - 1)
			if (nl_load(&nl_group(h, i * 64 + nl_lowest(hints))->chunk_free))
				return true;
	return false;
}

nl_u32 nl_heap_free_chunks(const struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 end = nl_load_acquire(&h->nr_open), free = 0;

	for (nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT; g < end && g < h->nr_groups; g++)
		free += (nl_u32)__builtin_popcountll(nl_load(&nl_group(h, g)->chunk_free));
	return free;
}

int nl_heap_topup(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 who = nl_who(heap);

	while (nl_load(&h->nr_reserve) < nl_load(&h->reserve_target)) {
		nl_u32 chunk = nl_chunk_near(h, NL_NODE(nl_here(heap)), who);
		nl_u32 g = chunk >> NL_GROUP_SHIFT;

		if (!chunk) {
			if (!nl_heap_grow(heap, 1))
				return -ENOMEM;
			continue;
		}
		/* Present: a page fault in a nolock call is no system call, but may fail. */
		if (madvise(heap->base + ((nl_u64)chunk << NL_CHUNK_SHIFT), NL_CHUNK_SIZE,
			    MADV_POPULATE_WRITE) &&
		    errno != EINVAL) {
			nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_FREE, 0));
			nl_chunk_give(h, g, NL_BIT(chunk));
			return -ENOMEM;
		}
		nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_FREE, 0));
		nl_word_give(&nl_group(h, g)->reserve, NL_BIT(chunk));
		nl_add(&h->nr_reserve, 1);
	}
	return 0;
}

int nolock_heap_populate(struct nolock_heap *heap, size_t bytes)
{
	nl_u64 chunks = (nl_u64)bytes / NL_CHUNK_SIZE + (bytes % NL_CHUNK_SIZE != 0);
	nl_heap_t *h;
	int err, saved = errno;

	if (!heap || heap->snapshot || chunks > NL_MAX_GROUPS * (nl_u64)NL_GROUP_CHUNKS)
		return -EINVAL;
	h = heap->h;
	nl_depth++;
	nl_fork_check();
	nl_store(&h->reserve_target, (nl_u32)chunks);
	/* Less than before: what is too much goes back to everybody. */
	for (nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT;
	     g < nl_load(&h->nr_open) && nl_load(&h->nr_reserve) > chunks;) {
		nl_u64 bit = nl_word_take(&nl_group(h, g)->reserve);

		if (!bit) {
			g++;
			continue;
		}
		nl_add(&h->nr_reserve, (nl_u32)-1);
		nl_chunk_give(h, g, bit);
	}
	err = nl_heap_topup(heap);
	nl_depth--;
	if (!err)
		errno = saved;
	return err;
}

/* Bytes free in the bitmaps of a cache, as far as they reach the amount asked for. */
static nl_u64 bytes_free(nl_heap_t *h, nl_u32 id, nl_u64 enough)
{
	nl_cache_t *c = nl_cache(h, id);
	nl_u32 end = nl_load_acquire(&h->nr_open);
	nl_u64 bytes = 0;

	for (nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT; g < end && bytes < enough; g++) {
		nl_u64 chunks = nl_load(&nl_group(h, g)->partial[id]);

		for (; chunks && bytes < enough; chunks &= chunks - 1) {
			nl_slab_t *slab = &nl_group(h, g)->slab[nl_lowest(chunks)];

			for (nl_u32 w = 0; w < c->words && w < NL_SLAB_WORDS; w++)
				bytes += (nl_u64)c->size *
					 (nl_u32)__builtin_popcountll(nl_load(&slab->free[w]));
		}
	}
	return bytes;
}

/*
 * A slab of a cache that a client may be destroying: counted before the state is looked at, as
 * kmem_cache_destroy() writes the state and then looks at the count. False: the cache is gone.
 */
static bool add_slab(nl_heap_t *h, nl_u32 id, nl_u32 flags, nl_u32 who, nl_u64 *obj)
{
	nl_cache_t *c = nl_cache(h, id);
	bool live;

	nl_add(&c->nr_slabs, 1);
	nl_mb();
	live = nl_load_acquire(&c->state) == NL_CACHE_LIVE;
	*obj = live ? nl_slab_new(h, id, flags, who, 0) : 0;
	nl_add(&c->nr_slabs, (nl_u32)-1);
	return live;
}

nl_u32 nl_heap_prefill(struct nolock_heap *heap, nl_u64 bytes)
{
	nl_heap_t *h = heap->h;
	nl_u32 who = nl_who(heap), made = 0;
	nl_u64 obj;

	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++) {
		if (nl_load(&nl_cache(h, id)->state) != NL_CACHE_LIVE)
			continue;
		/* Twice the memory for objects that few programs ask for: once they do. */
		if (id >= NL_NR_BUCKETS && id < NL_NR_KMALLOC &&
		    !nl_load(&nl_cache(h, id)->nr_slabs))
			continue;
		/* At most as many slabs as the watermark is long: the figures are racy. */
		for (nl_u64 tries = 0;
		     tries <= bytes >> NL_CHUNK_SHIFT && bytes_free(h, id, bytes) < bytes;
		     tries++) {
			if (!add_slab(h, id, NL_WHOLE | NL_NODE(nl_here(heap)), who, &obj))
				break;
			if (obj) {
				nl_slot_count(nl_aslot(h, nl_cpu(heap), id), NL_STAT_ALLOC_SLAB, 1);
				made++;
			} else if (!nl_heap_grow(heap, 1)) {
				return made;
			}
		}
	}
	return made;
}
