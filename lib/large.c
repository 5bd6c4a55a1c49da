/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * large.c - objects of more than KMALLOC_MAX_CACHE_SIZE bytes: runs of whole chunks.
 *
 * A run is claimed out of the chunk bitmap word by word, each by one cmpxchg that clears exactly
 * the bits wanted, then chunk by chunk by its tag; when one fails, what was claimed goes back and
 * the search goes on behind it. Its first chunk says TRANSIT until all others say BODY, so that
 * whoever finds a part of a run finds whose it is in front of it. Freeing is nl_large_free() in
 * core/chunk.h, which a BPF program can do as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "internal.h"
#include "core/core.h"
#include "core/run.h"
#include "core/word.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* Restarts of a search that lost a word of its run to somebody else. */
#define RUN_RESTARTS 8

/* From here on an object moves by its page tables, as often as mappings may be split for it. */
#define MOVE_PAGES (16 * NL_CHUNK_SIZE)
#define MOVES_MAX 8192

/* Give chunks back that are the caller's by their tags, or by the first one's, from their end. */
static void unclaim(nl_heap_t *h, nl_u32 chunk, nl_u32 nr,
		    int (*give)(nl_heap_t *h, nl_u32 group, nl_u64 mask))
{
	nl_u64 mask = 0;

	while (nr--) {
		nl_u32 c = chunk + nr;

		nl_store_release(nl_tag(h, c), NL_TAG(NL_KIND_FREE, 0));
		mask |= NL_BIT(c);
		if (c % NL_GROUP_CHUNKS && nr)
			continue;
		give(h, c >> NL_GROUP_SHIFT, mask);
		mask = 0;
	}
}

/* With the bits in hand, or fresh groups: make the chunks the caller's, all or none. */
static bool claim_tags(nl_heap_t *h, nl_u32 chunk, nl_u32 nr, nl_u32 who)
{
	for (nl_u32 i = 0; i < nr; i++) {
		if (nl_chunk_claim(h, chunk + i, who))
			continue;
		/* That one was not free: a bit too many. Those behind it get theirs back. */
		for (nl_u32 c = chunk + i + 1; c < chunk + nr; c++)
			nl_chunk_give(h, c >> NL_GROUP_SHIFT, NL_BIT(c));
		unclaim(h, chunk, i, nl_chunk_give);
		return false;
	}
	return true;
}

/* Clear bits [chunk, chunk + nr) of the chunk bitmap: all or none. */
static bool claim(nl_heap_t *h, nl_u32 chunk, nl_u32 nr, nl_u32 who)
{
	nl_u32 done = 0;

	while (done < nr) {
		nl_u32 c = chunk + done, bit = c & (NL_GROUP_CHUNKS - 1);
		nl_u32 n = NL_GROUP_CHUNKS - bit < nr - done ? NL_GROUP_CHUNKS - bit : nr - done;
		nl_u64 mask = (n == 64 ? ~0ULL : NL_BIT(n) - 1) << bit;
		nl_word_t *word = &nl_group(h, c >> NL_GROUP_SHIFT)->chunk_free;
		bool got = false;

		for (nl_u32 i = 0; i < NL_TRIES && !got; i++) {
			nl_u64 old = nl_load(word);

			if ((old & mask) != mask)
				break;
			got = nl_cas(word, old, old & ~mask);
		}
		if (!got)
			break;
		done += n;
	}
	if (done == nr)
		return claim_tags(h, chunk, nr, who);
	for (nl_u32 i = 0; i < done; i++)
		nl_chunk_give(h, (chunk + i) >> NL_GROUP_SHIFT, NL_BIT(chunk + i));
	return false;
}

/*
 * First fit over those open groups that have free chunks, of a node or of all, by the hints of
 * chunk.h: most of a large heap has none. A chunk number or 0; *begins is the group below which no
 * such run begins.
 */
static nl_u32 search(nl_heap_t *h, nl_u32 group, nl_u32 nr, nl_u32 who, nl_u32 node, nl_u32 *begins)
{
	nl_u32 start = group << NL_GROUP_SHIFT, restarts = 0, seen = 0;
	nl_u32 known = nr < NL_RUN_MAX ? nr : NL_RUN_MAX;

	if (start < h->first_chunk)
		start = h->first_chunk;
	*begins = nl_nr_open(h);
again:
	for (nl_u32 c = start, run = 0, end = nl_nr_open(h) << NL_GROUP_SHIFT; c < end;) {
		nl_u32 g = c >> NL_GROUP_SHIFT, bit = c & (NL_GROUP_CHUNKS - 1);
		nl_u64 hints = nl_free_hints(h, g / 64, node) >> g % 64, word;
		nl_u32 ones, zeros;

		if (!(hints & 1)) {
			run = 0;
			g += hints ? nl_lowest(hints) : 64 - g % 64;
			c = g << NL_GROUP_SHIFT;
			continue;
		}
		word = nl_load(&nl_group(h, g)->chunk_free);
		if (!word) {
			nl_word_t *map = nl_group_free_map(h, nl_node_of(h, g)) + g / 64;

			nl_hint_clear(map, NL_BIT(g));
			if (nl_load(&nl_group(h, g)->chunk_free))
				nl_hint_set(map, NL_BIT(g));
		}
		word >>= bit;
		if (!word) {
			run = 0;
			c += NL_GROUP_CHUNKS - bit;
			continue;
		}
		zeros = nl_lowest(word);
		if (zeros) {
			run = 0;
			c += zeros;
			continue;
		}
		ones = ~word ? nl_lowest(~word) : 64;
		if (ones > NL_GROUP_CHUNKS - bit)
			ones = NL_GROUP_CHUNKS - bit;
		if (run + ones >= known && !seen) {
			seen = 1;
			*begins = (c - run) >> NL_GROUP_SHIFT;
		}
		if (run + ones >= nr) {
			nl_u32 first = c - run;

			if (claim(h, first, nr, who))
				return first;
			if (++restarts > RUN_RESTARTS)
				return 0;
			start = c + 1;
			goto again;
		}
		run += ones;
		c += ones;
	}
	return 0;
}

/* Nothing begins below that group: who gives a run there after this counts himself, or sees it. */
static void raise_from(nl_heap_t *h, nl_u32 *from, nl_u32 old, nl_u32 group, nl_u32 gives)
{
	for (nl_u32 i = 0;; i++) {
		nl_u32 top = nl_load(&h->run_top);

		if (top >= group || nl_cas(&h->run_top, top, group))
			break;
		if (i == NL_TRIES)
			return;
	}
	if (!nl_cas(from, old, group))
		return;
	nl_mb(); /* pairs with the one in nl_run_given() */
	if (nl_load(&h->run_gives) != gives)
		nl_run_lower(from, old);
}

/*
 * A run, from where the first of that length may begin (run.h), so that an allocation costs
 * nothing that grows with the heap; or, if that must not be believed, from the heap's start. A
 * shared heap's users on the BPF side do not say where they give; it is small. Nor is it known of
 * each node by itself.
 */
static nl_u32 find_run(nl_heap_t *h, nl_u32 nr, nl_u32 who, nl_u32 node, bool believe)
{
	nl_u32 *from = &h->run_from[nr < NL_RUN_MAX ? nr : NL_RUN_MAX];
	nl_u32 gives = nl_load_acquire(&h->run_gives), old, begins, chunk;

	if (!believe || h->type != NL_HEAP_PRIVATE || h->nr_nodes > 1)
		return search(h, 0, nr, who, node, &begins);
	old = nl_load(from);
	chunk = search(h, old, nr, who, node, &begins);
	if (begins > old)
		raise_from(h, from, old, begins, gives);
	return chunk;
}

/* Chunks [chunk, chunk + nr) are the caller's by their tags: make them an object. */
static void *make_large(nl_heap_t *h, nl_u32 chunk, nl_u32 nr, size_t size, gfp_t gfp)
{
	nl_slab_t *slab = nl_slab(h, chunk);

	nl_store(&slab->nr_chunks, nr);
	nl_store(&slab->size, size);
	nl_store(&slab->accounted, (gfp & __GFP_ACCOUNT) != 0);
	for (nl_u32 i = 1; i < nr; i++)
		nl_store(nl_tag(h, chunk + i), NL_TAG(NL_KIND_BODY, 0));
	nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_LARGE, 0));
	nl_add(&h->nr_large, 1);
	nl_add(&h->large_allocs, 1);
	return (void *)nl_object(h, chunk, 0, 0);
}

static nl_u32 chunks_of(nl_heap_t *h, size_t size)
{
	if (size > h->size)
		return 0;
	return (nl_u32)((size + NL_CHUNK_SIZE - 1) >> NL_CHUNK_SHIFT);
}

/*
 * The groups that nobody has opened are too few for the run, but the free chunks before them may
 * make up for it: open as many as that takes. Were any opened?
 */
static bool grow_last(struct nolock_heap *heap, nl_u32 nr, nl_u32 node)
{
	nl_heap_t *h = heap->h;
	nl_u32 open = nl_nr_open(h), left = h->limit - nl_load(&h->cursor), tail = 0;

	for (nl_u32 g = open; g-- > h->first_chunk >> NL_GROUP_SHIFT && tail < nr;) {
		nl_u64 free = nl_load(&nl_group(h, g)->chunk_free);

		tail += ~free ? 63u - nl_highest(~free) : 64u;
		if (~free)
			break;
	}
	if (h->limit < nl_load(&h->cursor) || tail >= nr ||
	    (nl_u64)left * NL_GROUP_CHUNKS < nr - tail)
		return false;
	return nl_heap_grow_on(heap, (nr - tail + NL_GROUP_CHUNKS - 1) / NL_GROUP_CHUNKS, node) !=
	       0;
}

/* A run that is the caller's by its chunks' tags: a chunk number or 0. */
static nl_u32 get_run(struct nolock_heap *heap, nl_u32 nr, gfp_t gfp, int node, nl_u32 who)
{
	nl_heap_t *h = heap->h;
	nl_u32 near = node == NUMA_NO_NODE ? nl_here(heap) : (nl_u32)node;
	nl_u32 rest = gfp & __GFP_THISNODE ? near : NL_ANY_NODE;
	nl_u32 chunk = find_run(h, nr, who, near, true);

	if (!chunk && gfpflags_allow_blocking(gfp)) {
		/* A repair may have thought that nobody cared for these groups: others, then. */
		do
			chunk = nl_heap_grow_run(heap, nr, near);
		while (chunk && !claim_tags(h, chunk, nr, who));
		if (!chunk && grow_last(heap, nr, near))
			chunk = find_run(h, nr, who, rest, true);
		if (!chunk && nr < NL_GROUP_CHUNKS && nl_heap_grow_part(heap, nr, near))
			chunk = find_run(h, nr, who, rest, true);
		if (!chunk && nl_heap_shrink(heap))
			chunk = find_run(h, nr, who, rest, true);
	}
	return chunk ? chunk : find_run(h, nr, who, rest, false);
}

void *nl_large_alloc(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	nl_heap_t *h = heap->h;
	nl_u32 nr = chunks_of(h, size), who = nl_who(heap), chunk;
	void *p;

	if (!nr)
		return NULL;
	nl_depth++;
	nl_fork_check();
	chunk = get_run(heap, nr, gfp, node, who);
	p = chunk ? make_large(h, chunk, nr, size, gfp) : NULL;
	nl_depth--;
	if (gfpflags_allow_blocking(gfp))
		nl_decay_tick(heap);
	return p;
}

void *nl_large_alloc_nolock(struct nolock_heap *heap, size_t size, gfp_t gfp, int node)
{
	nl_heap_t *h = heap->h;
	nl_u32 nr = chunks_of(h, size), who = nl_who(heap), chunk;
	nl_u32 near = node == NUMA_NO_NODE ? nl_here(heap) : (nl_u32)node;
	void *p;

	nl_depth++;
	nl_fork_check();
	chunk = nr ? find_run(h, nr, who, near, true) : 0;
	if (!chunk && nr)
		chunk = find_run(h, nr, who, NL_ANY_NODE, false);
	if (!chunk && nr == 1)
		chunk = nl_chunk_scan(h, NL_RESERVE, who);
	p = chunk ? make_large(h, chunk, nr, size, gfp) : NULL;
	nl_depth--;
	return p;
}

/* A run that has the alignment somewhere in it; what is left on both sides goes back untouched. */
void *nl_large_alloc_aligned(struct nolock_heap *heap, size_t size, size_t align)
{
	nl_heap_t *h = heap->h;
	nl_u32 nr = chunks_of(h, size ? size : 1), who = nl_who(heap), run, chunk, skip;
	void *p = NULL;

	if (!nr || align > h->size)
		return NULL;
	nl_depth++;
	nl_fork_check();
	nl_fork_inventory();
	run = nr + (nl_u32)(align >> NL_CHUNK_SHIFT) - 1;
	chunk = get_run(heap, run, GFP_KERNEL, NUMA_NO_NODE, who);
	if (chunk) {
		skip = (nl_u32)((-nl_object(h, chunk, 0, 0) & (align - 1)) >> NL_CHUNK_SHIFT);
		unclaim(h, chunk, skip, nl_chunk_publish);
		unclaim(h, chunk + skip + nr, run - skip - nr, nl_chunk_publish);
		p = make_large(h, chunk + skip, nr, size, 0);
	}
	nl_depth--;
	nl_decay_tick(heap);
	return p;
}

/* From here on memory is set to zero by dropping its pages. */
#define CLEAR_PAGES (16 * NL_CHUNK_SIZE)

static void clear(char *p, size_t size, bool drop)
{
	int err = errno;

	/* The system may refuse: locked pages. */
	if (drop && size >= CLEAR_PAGES && !madvise(p, size, MADV_DONTNEED))
		return;
	errno = err;
	memset(p, 0, size);
}

/*
 * A chunk whose dirty bit is not set has not been written to since its pages were all zero. Of one
 * that is dirty few pages may be present: many of them in a row are dropped, not touched.
 */
void nl_large_clear(struct nolock_heap *heap, void *p, size_t size, gfp_t gfp)
{
	nl_u32 chunk = (nl_u32)(((nl_u64)p - (nl_u64)heap->base) >> NL_CHUNK_SHIFT);
	bool drop = heap->type == NL_HEAP_PRIVATE && gfpflags_allow_blocking(gfp);
	size_t from = 0;

	for (size_t at = 0; at < size; at += NL_CHUNK_SIZE, chunk++) {
		if (nl_load(&nl_group(heap->h, chunk >> NL_GROUP_SHIFT)->dirty) & NL_BIT(chunk))
			continue;
		clear((char *)p + from, at - from, drop);
		from = at + NL_CHUNK_SIZE;
	}
	if (from < size)
		clear((char *)p + from, size - from, drop);
}

static bool run_free(nl_heap_t *h, nl_u32 chunk, nl_u32 end)
{
	for (; chunk < end; chunk++)
		if (!(nl_load(&nl_group(h, chunk >> NL_GROUP_SHIFT)->chunk_free) & NL_BIT(chunk)))
			return false;
	return true;
}

/* The chunks behind an object, opened if it is the last of the heap: true if they are the caller's. */
static bool claim_behind(struct nolock_heap *heap, nl_u32 chunk, nl_u32 nr, nl_u32 who)
{
	nl_heap_t *h = heap->h;
	nl_u32 open = nl_nr_open(h) << NL_GROUP_SHIFT;

	if (chunk + nr > open) {
		if (!run_free(h, chunk, open))
			return false;
		nl_heap_grow_on(heap, (chunk + nr - open + NL_GROUP_CHUNKS - 1) >> NL_GROUP_SHIFT,
				nl_node_of(h, (chunk - 1) >> NL_GROUP_SHIFT));
		if (chunk + nr > nl_nr_open(h) << NL_GROUP_SHIFT)
			return false;
	}
	return claim(h, chunk, nr, who);
}

/*
 * The first of the chunks that come or go says TRANSIT from before nr_chunks changes until after it:
 * who takes over from a dead thread then knows from nr_chunks whether they belong to the object.
 * Room that a move has left behind the object stays while the object grows.
 */
bool nl_large_resize(struct nolock_heap *heap, void *p, size_t size)
{
	nl_heap_t *h = heap->h;
	nl_u32 chunk = (nl_u32)(((nl_u64)p - (nl_u64)heap->base) >> NL_CHUNK_SHIFT);
	nl_u32 nr = chunks_of(h, size), who = nl_who(heap);
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u32 have = slab->nr_chunks;
	bool done = nr <= have;

	if (!nr)
		return false;
	nl_depth++;
	nl_fork_check();
	nl_fork_inventory();
	if (nr > have && claim_behind(heap, chunk + have, nr - have, who)) {
		for (nl_u32 i = have + 1; i < nr; i++)
			nl_store(nl_tag(h, chunk + i), NL_TAG(NL_KIND_BODY, 0));
		nl_store_release(&slab->nr_chunks, nr);
		nl_store_release(nl_tag(h, chunk + have), NL_TAG(NL_KIND_BODY, 0));
		done = true;
	} else if (nr < have && size < slab->size) {
		nl_store(nl_tag(h, chunk + nr), NL_TAG_TRANSIT(who));
		nl_store_release(&slab->nr_chunks, nr);
		unclaim(h, chunk + nr, have - nr, nl_chunk_give);
	}
	if (done)
		nl_store(&slab->size, size);
	nl_depth--;
	return done;
}

/*
 * Exchange the pages of two runs of this process: those of @to are lost, those of @from absent from
 * then on. The kernel may have unmapped the target when it fails (a limit on address space), and
 * another thread may have mapped something there since: then the target is not ours any more.
 */
static bool move_pages(void *to, void *from, size_t size, bool *lost)
{
	static nl_u32 moves;

	*lost = false;
	if (nl_load(&moves) >= MOVES_MAX)
		return false;
	if (mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to) {
		nl_add(&moves, 1);
		return true;
	}
	nl_store(&moves, MOVES_MAX);
	/* EINVAL: a kernel that has no such call, which looks at nothing before it says so. */
	if (errno != EINVAL)
		*lost = mmap(to, size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != to;
	return false;
}

/* To a place with room to grow by a quarter, which is address space alone until it is touched. */
void *nl_large_move(struct nolock_heap *heap, void *p, size_t size)
{
	nl_heap_t *h = heap->h;
	nl_u32 from = (nl_u32)(((nl_u64)p - (nl_u64)heap->base) >> NL_CHUNK_SHIFT);
	size_t old = (size_t)nl_slab(h, from)->nr_chunks << NL_CHUNK_SHIFT;
	bool lost = false;
	void *to;

	for (int i = 0; i < 2; i++) {
		to = size > old && !i ?
			     nl_large_alloc(heap, size + size / 4, GFP_KERNEL, NUMA_NO_NODE) :
			     NULL;
		if (!to)
			to = nl_large_alloc(heap, size, GFP_KERNEL, NUMA_NO_NODE);
		if (!to)
			return NULL;
		if (old > size)
			old = (size + NL_CHUNK_SIZE - 1) / NL_CHUNK_SIZE * NL_CHUNK_SIZE;
		nl_slab(h, (nl_u32)(((nl_u64)to - (nl_u64)heap->base) >> NL_CHUNK_SHIFT))->size =
			size;
		if (old >= MOVE_PAGES && move_pages(to, p, old, &lost))
			break;
		if (!lost) {
			memcpy(to, p, old < size ? old : size);
			break;
		}
		/* The first target stays allocated for good. */
	}
	kfree(p);
	return to;
}
