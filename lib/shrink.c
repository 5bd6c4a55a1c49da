/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * shrink.c - giving back: sheaves into their slabs, empty slabs into the chunk bitmap, the pages of
 * free chunks, and free pages of slabs, to the system. Maintenance; never part of a nolock call.
 *
 * An A-slot is emptied under its lock, from any CPU; one that is biased, on its own. An R-slot may
 * only be touched from a sequence on its own CPU, or after all sequences of the process were restarted:
 * - private heap: mark the word as locked by cmpxchg, then membarrier(PRIVATE_EXPEDITED_RSEQ). A
 *   sequence that had read the word before is aborted by it, or has committed: then the mark is
 *   gone, and the slot is left alone.
 * - shared heap: another process's sequences cannot be aborted from here, so the thread visits
 *   each CPU and takes the locks there by sequences of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "internal.h"
#include "debug.h"
#include "rseq.h"
#include "core/core.h"
#include "core/run.h"
#include "core/slot.h"

/*
 * Numbers by which a call knows the words it marked from those of calls at the same time, in other
 * threads and further down its own stack. A bit of the map: the number is free. 0 is nobody's.
 */
nl_u64 nl_shrinker[NL_SHRINKERS];
static nl_u64 numbers = ~1ULL;

static nl_u32 number_take(const struct nolock_heap *heap)
{
	nl_u64 bit = nl_word_take(&numbers);
	nl_u32 number = bit ? nl_lowest(bit) : 0;

	if (number)
		nl_store(&nl_shrinker[number], NL_HELD(nl_who(heap)));
	return number;
}

static void number_give(nl_u32 number)
{
	nl_store(&nl_shrinker[number], 0);
	nl_word_give(&numbers, NL_BIT(number));
}

static nl_u32 number_thread(nl_u32 number)
{
	return NL_OWNER_WHO(nl_load(&nl_shrinker[number])) & 0xffff;
}

void nl_shrink_forget(nl_u32 from, nl_u32 to, nl_u32 alive)
{
	for (nl_u32 i = 1; i < NL_SHRINKERS; i++) {
		nl_u32 thread = number_thread(i);

		if (thread && thread >= from && thread < to && thread != alive)
			number_give(i);
	}
}

static bool restart_all_sequences(void)
{
	static int registered;

	if (!nl_load(&registered)) {
		if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0))
			return false;
		nl_store(&registered, 1);
	}
	return !syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, 0, 0);
}

void nl_shrink_settle(nl_u32 thread)
{
	for (nl_u32 i = 1; i < NL_SHRINKERS; i++)
		if (number_thread(i) == thread && !restart_all_sequences())
			nl_store(&nl_shrinker[i], NL_HELD(~0u));
}

/* With the slot's lock held: its sheaves go empty into the table. */
void nl_slot_empty(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who)
{
	nl_u32 spare = slot->spare, main = slot->main;

	if (spare) {
		nl_slot_count(slot, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, spare, id, 0, who));
		nl_store(&nl_sheaf(h, spare - 1)->owner, (nl_u64)who << 32);
		nl_store_release(&slot->spare, 0);
		nl_sheaf_put(h, spare);
		nl_slot_count(slot, NL_STAT_SHEAF_FREE, 1);
	}
	if (main) {
		nl_slot_detach(h, slot);
		nl_slot_count(slot, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, main, id, 0, who));
		nl_store(&nl_sheaf(h, main - 1)->owner, (nl_u64)who << 32);
		nl_store(&slot->cap, 0);
		nl_store_release(&slot->main, 0);
		nl_store(&slot->objs, 0);
		nl_sheaf_put(h, main);
		nl_slot_count(slot, NL_STAT_SHEAF_FREE, 1);
	}
}

static bool slot_used(const nl_slot_t *slot)
{
	return nl_load(&slot->main) || nl_load(&slot->spare);
}

static bool cache_live(nl_heap_t *h, nl_u32 id)
{
	return nl_load(&nl_cache(h, id)->state) == NL_CACHE_LIVE;
}

/* An R-slot's word, as it is while this call has locked it. */
#define MARK(number) (NL_WORD_LOCKED | (nl_u64)(number) << 8)

/*
 * Mark the word of another CPU's R-slot. A sequence that has read the word as it was before may
 * still store its own over the mark, so the slot is not ours before the barrier.
 */
static bool mark(nl_slot_t *slot, nl_u32 number)
{
	nl_u64 word = nl_load(&slot->word);

	return !(word & NL_WORD_LOCKED) && nl_cas(&slot->word, word, word | MARK(number));
}

/* The mark that is still there after the barrier has come to stay: the slot is locked, by who. */
static bool marked(nl_slot_t *slot, nl_u32 number, nl_u32 who)
{
	nl_u64 word = nl_load_acquire(&slot->word);

	if ((word & NL_WORD_LOCK_MASK) != MARK(number))
		return false;
	nl_store(&slot->lock, NL_HELD(who));
	nl_barrier(); /* a fork in between: the name before the number goes */
	nl_store(&slot->word, (word & ~NL_WORD_LOCK_MASK) | NL_WORD_LOCKED);
	return true;
}

/* The slots of the caches from one number up to another: all of them for one pair of barriers. */
static void empty_private_rslots(struct nolock_heap *heap, nl_u32 from, nl_u32 to)
{
	nl_u32 who = nl_who(heap), number;
	bool any = false;

	/* Without membarrier a mark could neither be trusted nor taken back. */
	if (!heap->rseq_slots || !restart_all_sequences())
		return;
	number = number_take(heap);
	if (!number)
		return; /* sixty others are at it */
	for (nl_u32 id = from; id < to; id++) {
		if (!cache_live(heap->h, id))
			continue;
		for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
			nl_slot_t *slot = nl_rslot(heap->h, cpu, id);

			if (slot_used(slot) && mark(slot, number))
				any = true;
		}
	}
	/*
	 * It worked a moment ago. If it does not now, the slots stay locked, by a number that is used
	 * for nothing else any more: A-slots serve.
	 */
	if (any && !restart_all_sequences())
		return;
	for (nl_u32 id = from; any && id < to; id++) {
		for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
			nl_slot_t *slot = nl_rslot(heap->h, cpu, id);

			if (!marked(slot, number, who))
				continue;
			nl_slot_empty(heap->h, slot, id, who);
			nl_rslot_unlock(slot);
		}
	}
	number_give(number);
}

static void empty_aslot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who)
{
	if (!slot_used(slot) || !nl_slot_trylock(slot, who))
		return;
	nl_slot_empty(h, slot, id, who);
	nl_slot_unlock(slot);
}

static void empty_here(struct nolock_heap *heap, nl_u32 cpu, nl_u32 id, nl_u32 who)
{
	nl_slot_t *a = nl_aslot(heap->h, cpu, id);
	nl_u64 res = NL_RSEQ_RETRY(heap, nl_rseq_lock_once(heap, (nl_u64)id << NL_SLOT_SHIFT,
							   NL_HELD(who)));

	if (NL_RSEQ_DONE(res)) {
		nl_slot_empty(heap->h, (nl_slot_t *)res, id, who);
		nl_rslot_unlock((nl_slot_t *)res);
	}
	/* Bound to this CPU, the thread needs no sequence to take a biased slot. */
	if (slot_used(a) && nl_cas(&a->lock, NL_BIASED(cpu), NL_HELD(who))) {
		nl_slot_empty(heap->h, a, id, who);
		nl_slot_unlock(a);
	}
}

/* One that has to be emptied on its CPU: an R-slot, where sections run, or a biased A-slot. */
static bool used_there(const struct nolock_heap *heap, nl_u32 cpu, nl_u32 id)
{
	nl_slot_t *a = nl_aslot(heap->h, cpu, id);

	return (heap->rseq_slots && slot_used(nl_rslot(heap->h, cpu, id))) ||
	       (slot_used(a) && nl_load(&a->lock) == NL_BIASED(cpu));
}

static void empty_shared_slots(struct nolock_heap *heap, nl_u32 from, nl_u32 to)
{
	nl_u32 who = nl_who(heap);
	cpu_set_t before, one;
	bool moved = false;

	if (sched_getaffinity(0, sizeof(before), &before))
		return;
	for (nl_u32 cpu = 0; cpu < heap->nr_slots && cpu < CPU_SETSIZE; cpu++) {
		bool there = false;

		for (nl_u32 id = from; id < to; id++) {
			if (!cache_live(heap->h, id) || !used_there(heap, cpu, id))
				continue;
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			if (!there && sched_setaffinity(0, sizeof(one), &one))
				break; /* not allowed there: its slots stay as they are */
			there = moved = true;
			empty_here(heap, cpu, id, who);
		}
	}
	if (moved)
		sched_setaffinity(0, sizeof(before), &before);
}

/* Full sheaves first. */
void nl_barn_flush(struct nolock_heap *heap, nl_u32 id, nl_u32 node, nl_u32 max)
{
	nl_heap_t *h = heap->h;
	nl_u32 who = nl_who(heap);
	nl_barn_t *barn = &nl_cache(h, id)->barn[node];
	nl_slot_t *slot = nl_aslot(h, nl_cpu(heap), id);

	/* Counts and lists of a shared heap may be anything; a sheaf is in one once. */
	if (max > h->nr_sheaves)
		max = h->nr_sheaves;
	for (nl_u32 i = 0; i < max; i++) {
		nl_u32 sheaf;

		if (!nl_barn_lock(barn, who, NL_SPIN))
			return;
		sheaf = nl_barn_pop(h, &barn->full, who);
		if (!sheaf)
			sheaf = nl_barn_pop(h, &barn->empty, who);
		nl_barn_unlock(barn);
		if (!sheaf)
			return;
		nl_slot_count(slot, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, sheaf, id, 0, who));
		nl_slot_count(slot, NL_STAT_SHEAF_FREE, 1);
		nl_sheaf_put(h, sheaf);
	}
}

static nl_u32 shrink(struct nolock_heap *heap, nl_u32 from, nl_u32 to)
{
	nl_heap_t *h = heap->h;
	nl_u32 who = nl_who(heap), end, freed = 0;

	if (heap->type == NL_HEAP_PRIVATE)
		empty_private_rslots(heap, from, to);
	else
		empty_shared_slots(heap, from, to);
	for (nl_u32 id = from; id < to; id++) {
		if (!cache_live(h, id))
			continue;
		for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++)
			empty_aslot(h, nl_aslot(h, cpu, id), id, who);
		/* What is there now, and not what others bring meanwhile. */
		for (nl_u32 node = 0; node < nl_nr_nodes(h); node++) {
			nl_barn_t *barn = &nl_cache(h, id)->barn[node];

			nl_barn_flush(heap, id, node,
				      nl_load(&barn->full.nr) + nl_load(&barn->empty.nr));
		}
	}
	end = nl_load_acquire(&h->nr_open) << NL_GROUP_SHIFT;
	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_u32 tag = nl_load(nl_tag(h, chunk)), id = NL_TAG_CACHE(tag);
		nl_cache_t *c = nl_cache(h, id);

		if (NL_TAG_KIND(tag) != NL_KIND_SLAB || id < from || id >= to ||
		    !nl_rcu_may_release(heap, c) || nl_slab_release(h, id, chunk, who))
			continue;
		nl_rcu_release(heap, chunk);
		nl_slot_count(nl_aslot(h, nl_cpu(heap), id), NL_STAT_FREE_SLAB, 1);
		freed++;
	}
	return freed;
}

static nl_u32 shrink_caches(struct nolock_heap *heap, nl_u32 from, nl_u32 to)
{
	nl_u32 freed;

	nl_depth++;
	nl_fork_check();
	nl_fork_inventory();
	freed = shrink(heap, from, to);
	nl_depth--;
	return freed;
}

nl_u32 nl_cache_shrink(struct nolock_heap *heap, nl_u32 id)
{
	return shrink_caches(heap, id, id + 1);
}

nl_u32 nl_heap_shrink(struct nolock_heap *heap)
{
	return shrink_caches(heap, 0, NL_MAX_CACHES);
}

/* Drop the pages of the chunks in the mask, run by run. Returns the mask of those it worked for. */
static nl_u64 drop_pages(struct nolock_heap *heap, nl_u32 group, nl_u64 mask)
{
	int advice = heap->type == NL_HEAP_PRIVATE ? MADV_DONTNEED : MADV_REMOVE;
	nl_u64 dropped = 0;

	while (mask) {
		nl_u32 bit = nl_lowest(mask), n;
		nl_u64 run = mask >> bit;

		n = ~run ? nl_lowest(~run) : 64;
		if (!madvise(heap->base + (((nl_u64)group << NL_GROUP_SHIFT) + bit) * NL_CHUNK_SIZE,
			     (size_t)n * NL_CHUNK_SIZE, advice))
			dropped |= (n == 64 ? ~0ULL : NL_BIT(n) - 1) << bit;
		if (bit + n == 64)
			break;
		mask &= ~0ULL << (bit + n);
	}
	return dropped;
}

/*
 * Drop the pages of those free chunks of a group that are dirty and in @mask. Returns how many. The
 * chunks stay dirty where the system refuses (locked pages): who clears memory goes by that.
 */
nl_u32 nl_group_purge(struct nolock_heap *heap, nl_u32 g, nl_u64 mask)
{
	nl_u32 who = nl_who(heap), first = g << NL_GROUP_SHIFT;
	nl_group_t *group = nl_group(heap->h, g);
	nl_u64 taken, dirty, dropped, ours = 0;

	if (!(nl_load(&group->dirty) & nl_load(&group->chunk_free) & mask))
		return 0;
	taken = nl_word_take_all(&group->chunk_free);
	dirty = taken & nl_load(&group->dirty) & mask;
	if (taken & ~dirty)
		nl_chunk_publish(heap->h, g, taken & ~dirty);
	/* Ours by their tags, so that nobody hands these chunks out meanwhile. */
	for (; dirty; dirty &= dirty - 1)
		if (nl_chunk_claim(heap->h, first + nl_lowest(dirty), who))
			ours |= dirty & -dirty;
	if (!ours)
		return 0;
	dropped = drop_pages(heap, g, ours);
	nl_and(&group->dirty, ~dropped);
	for (mask = ours; mask; mask &= mask - 1)
		nl_store_release(nl_tag(heap->h, first + nl_lowest(mask)), NL_TAG(NL_KIND_FREE, 0));
	nl_chunk_publish(heap->h, g, ours);
	return (nl_u32)__builtin_popcountll(dropped);
}

#define SLAB_PAGES (NL_CHUNK_SIZE / NL_PAGE)

/* The objects that lie in a page: [*first, *end). */
static void page_objects(const nl_cache_t *c, nl_u32 page, nl_u32 *first, nl_u32 *end)
{
	*first = nl_index(page * NL_PAGE, c->recip);
	*end = nl_index(page * NL_PAGE + NL_PAGE - 1, c->recip) + 1;
	if (*end > c->per_slab)
		*end = c->per_slab;
}

nl_u64 nl_pages_mask(const nl_cache_t *c, nl_u32 pages, nl_u32 word)
{
	nl_u32 first, end, low = word * 64;
	nl_u64 mask = 0;

	for (; pages; pages &= pages - 1) {
		page_objects(c, nl_lowest(pages), &first, &end);
		if (first < low)
			first = low;
		if (end > low + 64)
			end = low + 64;
		if (first < end)
			mask |= (end - first == 64 ? ~0ULL : NL_BIT(end - first) - 1) << first % 64;
	}
	return mask;
}

/* The pages of a slab that have objects, all of which are free. */
static nl_u32 pages_free(const nl_cache_t *c, nl_slab_t *slab)
{
	nl_u32 pages = 0, first, end;

	for (nl_u32 page = 0; page < SLAB_PAGES; page++) {
		page_objects(c, page, &first, &end);
		if (first >= end)
			break;
		for (; first < end && nl_load(&slab->free[first / 64]) & NL_BIT(first); first++)
			;
		if (first == end)
			pages |= 1u << page;
	}
	return pages;
}

/* Those of the pages that are present, as far as the system says so. */
static nl_u32 present_pages(char *slab, nl_u32 pages)
{
	unsigned char vec[SLAB_PAGES];

	if (mincore(slab, NL_CHUNK_SIZE, vec))
		return pages;
	for (nl_u32 page = 0; page < SLAB_PAGES; page++)
		if (!(vec[page] & 1))
			pages &= ~(1u << page);
	return pages;
}

/* Take bits, all of them or none. */
static bool take_mask(nl_word_t *word, nl_u64 mask)
{
	for (nl_u32 i = 0; i < NL_TRIES; i++) {
		nl_u64 old = nl_load(word);

		if ((old & mask) != mask)
			return false;
		if (nl_cas(word, old, old & ~mask))
			return true;
	}
	return false;
}

/*
 * Drop the pages of a slab all of whose objects are free: how many were present. Their bits are ours
 * meanwhile, and the intent says which, word by word, so that in a child after fork() a repair gives
 * those back that were taken.
 */
static nl_u32 purge_slab(struct nolock_heap *heap, nl_u32 chunk, nl_u32 id)
{
	char *mem = heap->base + ((nl_u64)chunk << NL_CHUNK_SHIFT);
	nl_slab_t *slab = nl_slab(heap->h, chunk);
	nl_cache_t *c = nl_cache(heap->h, id);
	nl_u32 pages = pages_free(c, slab), dropped = 0, n = 0;

	if (pages)
		pages = present_pages(mem, pages);
	if (!pages || !nl_slab_trylock(slab, nl_who(heap)))
		return 0;
	/* From here on scans alone take bits, and are counted. */
	pages = nl_load(nl_tag(heap->h, chunk)) == NL_TAG(NL_KIND_SLAB, id) ?
			pages & pages_free(c, slab) :
			0;
	for (; pages && n < c->words; n++) {
		nl_u64 mask = nl_pages_mask(c, pages, n);

		if (!mask)
			continue;
		nl_slab_intend(slab, NL_INTENT(NL_INTENT_PURGE, n, pages, 0), 0);
		if (!take_mask(&slab->free[n], mask))
			break;
	}
	for (nl_u32 left = n == c->words ? pages : 0; left;) {
		nl_u32 page = nl_lowest(left), run = nl_lowest(~(left >> page));

		if (!madvise(mem + page * NL_PAGE, (size_t)run * NL_PAGE, MADV_DONTNEED))
			dropped += run;
		left &= ~(((1u << run) - 1) << page);
	}
	while (pages && n--) {
		nl_u64 mask = nl_pages_mask(c, pages, n);

		if (!mask)
			continue;
		nl_slab_intend(slab, NL_INTENT(NL_INTENT_PURGE, n, pages, 0), 0);
		nl_word_give(&slab->free[n], mask);
		nl_slab_hint(heap->h, id, chunk, n);
	}
	nl_slab_done(slab);
	nl_slab_unlock(slab);
	return dropped;
}

/*
 * Of kmalloc's buckets alone: what a constructor, or readers by RCU, left in free objects has to
 * stay, and a cache that may be destroyed must not find its slabs locked. Nor is what debugging left
 * there ours.
 */
static bool may_purge(struct nolock_heap *heap, nl_u32 id)
{
	return id < NL_NR_KMALLOC && !nl_debugged(heap, id);
}

static size_t purge_slabs(struct nolock_heap *heap, nl_u32 g)
{
	nl_u32 first = g << NL_GROUP_SHIFT;
	size_t pages = 0;

	if (heap->type != NL_HEAP_PRIVATE || sysconf(_SC_PAGESIZE) != NL_PAGE)
		return 0;
	for (nl_u32 chunk = first; chunk < first + NL_GROUP_CHUNKS; chunk++) {
		nl_u32 tag = nl_load(nl_tag(heap->h, chunk));

		if (NL_TAG_KIND(tag) == NL_KIND_SLAB && may_purge(heap, NL_TAG_CACHE(tag)))
			pages += purge_slab(heap, chunk, NL_TAG_CACHE(tag));
	}
	return pages * NL_PAGE;
}

size_t nolock_heap_trim(struct nolock_heap *heap)
{
	size_t dropped = 0;
	nl_heap_t *h;

	if (!heap || heap->snapshot)
		return 0;
	h = heap->h;
	nl_depth++;
	/* Here, not at shrink_caches()'s depth, which looks like a call in a handler. */
	nl_fork_check();
	nl_fork_inventory();
	nl_heap_shrink(heap);
	nl_rcu_kick(heap);
	/* What is absent from an arena is lost on BPF programs: its chunks stay present. */
	if (heap->type == NL_HEAP_ARENA)
		goto out;
	for (nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT; g < nl_load_acquire(&h->nr_open); g++) {
		dropped += (size_t)nl_group_purge(heap, g, ~0ULL) << NL_CHUNK_SHIFT;
		dropped += purge_slabs(heap, g);
	}
	nl_run_forget(h);
out:
	nl_depth--;
	return dropped;
}
