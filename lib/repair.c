/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * repair.c - taking back what a dead client held in a shared heap (promise P4); in a child after
 * fork(), what the parent's other threads held in the private ones; and what a thread held that has
 * left the allocator in the middle, and exits.
 *
 * Each of its locks is taken over by one cmpxchg from its owner word; a word that is marked as locked
 * keeps every sequence out, so an R-slot may be repaired from any CPU. What the lock protects is
 * then brought to a state in which every object is in one place, and the lock is released. Every
 * step can be done twice: a repairer that dies is repaired by the next one.
 */
#include "internal.h"
#include "core/core.h"
#include "core/run.h"
#include "core/slot.h"
#include "core/word.h"

/* No thread has this number, so that nobody takes itself for the repairer. */
static const nl_u32 repairer = NL_CLIENT_NOLOCKD << 16 | 0xffff;

/*
 * Whose: those of a client's threads whose numbers are below older, but for one (0: none), or one
 * alone (0: all of those); and are its prefilled sheaves gone?
 */
struct dead {
	nl_u32 client;
	nl_u32 older;
	nl_u32 alive;
	nl_u32 only;
	bool prefilled;
};

static bool is_dead_thread(const struct dead *dead, nl_u32 thread)
{
	return thread < dead->older && thread != dead->alive &&
	       (!dead->only || thread == dead->only);
}

static bool is_dead(const struct dead *dead, nl_u64 owner)
{
	return owner && NL_OWNER_CLIENT(owner) == dead->client &&
	       is_dead_thread(dead, NL_OWNER_WHO(owner) & 0xffff);
}

static bool is_dead_tag(const struct dead *dead, nl_u32 tag)
{
	return NL_TAG_KIND(tag) == NL_KIND_TRANSIT && tag >> 20 == (dead->client & 0xfff) &&
	       is_dead_thread(dead, tag & 0xffff);
}

/*
 * Had the holder the bits? None of them is set, and no scan took one. The word first: a scan that
 * took a bit has counted itself before (nl_slab_scan_chunk()), so who sees the word without the
 * bit sees the count. The other way round a scan would come between the two looks unseen.
 */
static bool in_its_hands(nl_slab_t *slab, nl_u32 word, nl_u64 mask)
{
	return !(nl_load_acquire(&slab->free[word]) & mask) &&
	       nl_load(&slab->scans) == nl_load(&slab->scan_begin);
}

/*
 * A slab whose lock's holder died. No other took bits from it since, but for scans, which count
 * themselves: then a word that is empty may have been emptied by one, and is left alone. Hints that
 * are missing then are set at the end.
 */
static void repair_slab(nl_heap_t *h, nl_u32 chunk)
{
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u64 intent = nl_load(&slab->intent), mask = nl_load(&slab->mask);
	nl_u32 word = NL_INTENT_WORD(intent), sheaf = NL_INTENT_SHEAF(intent);
	nl_u32 n = NL_INTENT_SIZE(intent), tag = nl_load(nl_tag(h, chunk));
	nl_u32 id = NL_TAG_CACHE(tag), per_slab = nl_cache(h, id)->per_slab;
	nl_sheaf_t *s = sheaf && sheaf <= h->nr_sheaves ? nl_sheaf(h, sheaf - 1) : NULL;

	if (NL_TAG_KIND(tag) != NL_KIND_SLAB || per_slab > NL_SLAB_WORDS * 64)
		intent = 0; /* a chunk that was being made or released: its tag is seen to */
	switch (NL_INTENT_OP(intent)) {
	case NL_INTENT_TAKE:
		/* The sheaf's size is raised last. */
		if (s && s->size == n && in_its_hands(slab, word, mask))
			nl_word_give(&slab->free[word], mask);
		break;
	case NL_INTENT_GIVE:
		if (!s || s->size <= n)
			break;
		if (in_its_hands(slab, word, mask))
			nl_word_give(&slab->free[word], mask);
		nl_store(&s->size, (nl_u16)n);
		break;
	case NL_INTENT_NEW:
		for (nl_u32 w = 0; w * 64 < per_slab; w++) {
			nl_u64 all = nl_slab_mask(per_slab, w);

			/* Object 0 has no bit until it is clear that nobody got it. */
			if (!w)
				all &= ~1ULL;
			if (in_its_hands(slab, w, all))
				nl_word_give(&slab->free[w], all);
		}
		if ((!s || s->size == n) && in_its_hands(slab, 0, 1))
			nl_word_give(&slab->free[0], 1);
		break;
	case NL_INTENT_RELEASE:
		if (in_its_hands(slab, word, nl_slab_mask(per_slab, word)))
			nl_word_give(&slab->free[word], nl_slab_mask(per_slab, word));
		while (word--) {
			nl_slab_intend(slab, NL_INTENT(NL_INTENT_RELEASE, word, 0, 0), 0);
			nl_word_give(&slab->free[word], nl_slab_mask(per_slab, word));
		}
		break;
	case NL_INTENT_PURGE:
		mask = nl_pages_mask(nl_cache(h, id), sheaf, word);
		if (in_its_hands(slab, word, mask))
			nl_word_give(&slab->free[word], mask);
		while (word--) {
			nl_slab_intend(slab, NL_INTENT(NL_INTENT_PURGE, word, sheaf, 0), 0);
			nl_word_give(&slab->free[word],
				     nl_pages_mask(nl_cache(h, id), sheaf, word));
		}
		break;
	}
	nl_slab_done(slab);
	nl_slab_unlock(slab);
}

/* Is it a chunk of the large object in front of it, by that one's number? It was being resized. */
static bool in_large(nl_heap_t *h, nl_u32 chunk)
{
	nl_u32 first = chunk;

	do
		first--;
	while (first > h->first_chunk && nl_load(nl_tag(h, first)) == NL_TAG(NL_KIND_BODY, 0));
	return first >= h->first_chunk && nl_load(nl_tag(h, first)) == NL_TAG(NL_KIND_LARGE, 0) &&
	       nl_slab(h, first)->nr_chunks > chunk - first;
}

/*
 * A chunk in the hands of the dead: the repairer's now, then free, and with it the chunks of a
 * large object behind it that was being made or freed.
 */
static void repair_chunk(nl_heap_t *h, nl_u32 chunk, nl_u32 tag, nl_u32 end)
{
	nl_u32 nr = 1;

	if (!nl_cas(nl_tag(h, chunk), tag, NL_TAG_TRANSIT(repairer)))
		return;
	if (in_large(h, chunk)) {
		nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_BODY, 0));
		return;
	}
	while (chunk + nr < end && nl_load(nl_tag(h, chunk + nr)) == NL_TAG(NL_KIND_BODY, 0))
		nr++;
	while (nr--) {
		nl_u32 c = chunk + nr;

		for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++)
			if (nl_load(&nl_slab(h, c)->free[w]))
				nl_store(&nl_slab(h, c)->free[w], 0);
		nl_store(&nl_slab(h, c)->summary, 0);
		nl_store_release(nl_tag(h, c), NL_TAG(NL_KIND_FREE, 0));
		nl_chunk_give(h, c >> NL_GROUP_SHIFT, NL_BIT(c));
	}
}

static void repair_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id)
{
	nl_u32 main = slot->main <= h->nr_sheaves ? slot->main : 0;
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word));
	nl_sheaf_t *s = main ? nl_sheaf(h, main - 1) : NULL;

	/* Detaching writes the sheaf's size before the word loses it, attaching the other way. */
	if (s && s->size > n && s->size <= NL_SHEAF_MAX)
		n = s->size;
	if (slot->spare == main || slot->spare > h->nr_sheaves)
		nl_store(&slot->spare, 0);
	if (s) {
		nl_store(&slot->stat[NL_STAT_IN],
			 slot->stat[NL_STAT_IN] + n - NL_WORD_SIZE(nl_load(&slot->word)));
		nl_store(&slot->objs, nl_sheaf_objs(h, main));
		nl_store(&slot->cap, nl_cache(h, id)->capacity < NL_SHEAF_MAX ?
					     nl_cache(h, id)->capacity :
					     NL_SHEAF_MAX);
		nl_store(&slot->word, (nl_load(&slot->word) & ~0x7fULL) | n);
		nl_store(&s->size, 0);
		nl_store(&s->owner, NL_LISTED);
	} else {
		nl_store(&slot->cap, 0);
		nl_store(&slot->objs, 0);
	}
	nl_any_slot_unlock(slot);
}

static nl_u32 list_length(nl_heap_t *h, nl_u32 sheaf)
{
	nl_u32 n = 0;

	for (; sheaf && sheaf <= h->nr_sheaves && n < h->nr_sheaves; n++)
		sheaf = nl_sheaf(h, sheaf - 1)->next;
	return n;
}

/* Recount a barn whose lists may be half changed: what cannot be reached is an orphan, later. */
static void repair_barn(nl_heap_t *h, nl_barn_t *barn)
{
	nl_store(&barn->full.nr, list_length(h, barn->full.first));
	nl_store(&barn->empty.nr, list_length(h, barn->empty.first));
	nl_barn_unlock(barn);
}

static bool takeover(nl_word_t *lock, const struct dead *dead)
{
	nl_u64 held = nl_load_acquire(lock);

	return is_dead(dead, held) && nl_cas(lock, held, NL_HELD(repairer));
}

/*
 * An R-slot's lock field is its holder's while the word is locked. In a private heap a shrinker of
 * another CPU locks the word first: until its name is in the field too, its number is in the word.
 * In a shared heap nobody has a number, whatever a client wrote there.
 */
static bool takeover_rslot(const struct nolock_heap *heap, nl_slot_t *slot, const struct dead *dead)
{
	nl_u64 word = nl_load_acquire(&slot->word);
	nl_u32 shrinker = NL_WORD_SHRINKER(word);

	if (!(word & NL_WORD_LOCKED))
		return false;
	if (!shrinker || heap->type != NL_HEAP_PRIVATE)
		return takeover(&slot->lock, dead);
	if (shrinker >= NL_SHRINKERS || !is_dead(dead, nl_load(&nl_shrinker[shrinker])))
		return false;
	nl_store(&slot->lock, NL_HELD(repairer));
	nl_barrier();
	nl_store(&slot->word, (word & ~NL_WORD_LOCK_MASK) | NL_WORD_LOCKED);
	return true;
}

static bool in_list(nl_heap_t *h, nl_u32 at, nl_u32 sheaf)
{
	for (nl_u32 n = 0; at && at <= h->nr_sheaves && n <= h->nr_sheaves; n++) {
		if (at == sheaf)
			return true;
		at = nl_load_acquire(&nl_sheaf(h, at - 1)->next);
	}
	return false;
}

/* Does any list still name the sheaf? */
static bool linked(nl_heap_t *h, nl_u32 id, nl_u32 sheaf)
{
	for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
		nl_slot_t *r = nl_rslot(h, cpu, id), *a = nl_aslot(h, cpu, id);

		if (nl_load_acquire(&r->main) == sheaf || nl_load_acquire(&r->spare) == sheaf ||
		    nl_load_acquire(&a->main) == sheaf || nl_load_acquire(&a->spare) == sheaf)
			return true;
	}
	for (nl_u32 node = 0; node < NL_MAX_NODES; node++) {
		nl_barn_t *barn = &nl_cache(h, id)->barn[node];

		if (in_list(h, nl_load_acquire(&barn->full.first), sheaf) ||
		    in_list(h, nl_load_acquire(&barn->empty.first), sheaf))
			return true;
	}
	return false;
}

/*
 * Sheaves that the dead had taken out of every list. Each is claimed by its owner field first, so
 * that the next repairer finds it should this one die; a sheaf that a list names after all, or
 * that somebody takes out of one meanwhile, which writes the owner before, is not an orphan.
 */
static void free_orphans(nl_heap_t *h, const struct dead *dead)
{
	const nl_u64 mine = (nl_u64)repairer << 32;

	for (nl_u32 index = 0; index < h->nr_sheaves; index++) {
		nl_sheaf_t *s = nl_sheaf(h, index);
		nl_u64 owner = nl_load(&s->owner);
		nl_u32 id = s->cache - 1u;

		if (!is_dead(dead, owner) || (!dead->prefilled && (owner & NL_PREFILLED)) ||
		    !nl_cas(&s->owner, owner, mine))
			continue;
		if (id < NL_MAX_CACHES) {
			if (linked(h, id, index + 1)) {
				(void)nl_cas(&s->owner, mine, NL_LISTED);
				continue;
			}
			if (nl_load_acquire(&s->owner) != mine)
				continue;
			/* What had been taken from it is its owner's, and not on the books yet. */
			if ((owner & NL_PREFILLED) && s->next > s->size)
				nl_slot_count(nl_aslot(h, 0, id), NL_STAT_ALLOC_SLOWPATH,
					      s->next - s->size);
			nl_sheaf_flush(h, index + 1, id, 0, repairer);
		}
		nl_sheaf_put(h, index + 1);
	}
}

/*
 * Bits and hints that somebody took, or was about to set, when he died: a chunk or a sheaf is free
 * by its tag or owner, and may have its bit set at any time. Hints likewise.
 */
static void set_lost_bits(nl_heap_t *h)
{
	nl_u32 end = nl_nr_open(h) << NL_GROUP_SHIFT;

	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_u32 g = chunk >> NL_GROUP_SHIFT, tag = nl_load(nl_tag(h, chunk));
		nl_group_t *group = nl_group(h, g);
		nl_u32 id = NL_TAG_CACHE(tag);

		if (nl_load(&group->state) != NL_GROUP_OPEN)
			continue;
		if (tag == NL_TAG(NL_KIND_FREE, 0) &&
		    !((nl_load(&group->chunk_free) | nl_load(&group->reserve)) & NL_BIT(chunk)))
			nl_chunk_give(h, g, NL_BIT(chunk));
		if (NL_TAG_KIND(tag) == NL_KIND_SLAB)
			for (nl_u32 w = 0; w < nl_cache(h, id)->words && w < NL_SLAB_WORDS; w++)
				if (nl_load(&nl_slab(h, chunk)->free[w]))
					nl_slab_hint(h, id, chunk, w);
		if (nl_load(&group->chunk_free))
			nl_hint_set(nl_group_free_map(h, nl_node_of(h, g)) + g / 64, NL_BIT(g));
	}
	nl_run_forget(h);
	for (nl_u32 index = 0; index < h->nr_sheaves; index++)
		if (!nl_load(&nl_sheaf(h, index)->owner) &&
		    !(nl_load(nl_sheaf_map(h) + index / 64) & NL_BIT(index)))
			nl_word_give(nl_sheaf_map(h) + index / 64, NL_BIT(index));
}

static nl_u32 repair(struct nolock_heap *heap, const struct dead *dead)
{
	nl_heap_t *h = heap->h;
	nl_u32 end = nl_nr_open(h) << NL_GROUP_SHIFT, locks = 0;

	/* Slabs first: they go by the sizes of sheaves that the slots' repair changes. */
	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_u32 tag = nl_load(nl_tag(h, chunk));

		if (takeover(&nl_slab(h, chunk)->lock, dead)) {
			repair_slab(h, chunk);
			locks++;
		}
		if (is_dead_tag(dead, tag))
			repair_chunk(h, chunk, tag, end);
	}
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++) {
		nl_cache_t *c = nl_cache(h, id);

		if (nl_load(&c->state) != NL_CACHE_LIVE)
			continue;
		for (nl_u32 node = 0; node < NL_MAX_NODES; node++) {
			if (takeover(&c->barn[node].lock, dead)) {
				repair_barn(h, &c->barn[node]);
				locks++;
			}
		}
		for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
			nl_slot_t *r = nl_rslot(h, cpu, id), *a = nl_aslot(h, cpu, id);

			if (takeover_rslot(heap, r, dead)) {
				repair_slot(h, r, id);
				locks++;
			}
			if (takeover(&a->lock, dead)) {
				repair_slot(h, a, id);
				locks++;
			}
		}
	}
	return locks;
}

/* The rest is for a heap that nobody else uses: what is in no list is nobody's. */
static void find_lost_sheaves(nl_heap_t *h)
{
	for (nl_u32 index = 0; index < h->nr_sheaves; index++) {
		nl_sheaf_t *s = nl_sheaf(h, index);
		nl_u32 id = s->cache - 1u;

		if (nl_load(nl_sheaf_map(h) + index / 64) & NL_BIT(index))
			continue;
		if (nl_load(&s->owner) & NL_PREFILLED) {
			/* A thread that is not here was filling it. */
			if (nl_load(&s->next) < s->size)
				nl_store(&s->next, s->size);
			continue;
		}
		if (id < NL_MAX_CACHES) {
			if (linked(h, id, index + 1))
				continue;
			nl_sheaf_flush(h, index + 1, id, 0, repairer);
		}
		nl_sheaf_put(h, index + 1);
	}
}

/*
 * Derive a counter again, unless somebody changes it meanwhile: then it is left to the next repair.
 * A thread that is just between a change and its count puts it off by one, until then.
 */
static void recount_to(nl_u32 *counter, nl_u32 before, nl_u32 counted)
{
	if (before != counted)
		(void)nl_cas(counter, before, counted);
}

static void recount(nl_heap_t *h)
{
	nl_u32 end = nl_nr_open(h) << NL_GROUP_SHIFT, large = 0, reserve = 0;
	nl_u32 was_large = nl_load(&h->nr_large), was_reserve = nl_load(&h->nr_reserve);
	nl_u32 was[NL_MAX_CACHES], slabs[NL_MAX_CACHES] = { 0 };

	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
		was[id] = nl_load(&nl_cache(h, id)->nr_slabs);
	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_u32 tag = nl_load(nl_tag(h, chunk));

		reserve += (nl_load(&nl_group(h, chunk >> NL_GROUP_SHIFT)->reserve) &
			    NL_BIT(chunk)) != 0;
		if (NL_TAG_KIND(tag) == NL_KIND_SLAB)
			slabs[NL_TAG_CACHE(tag)]++;
		large += NL_TAG_KIND(tag) == NL_KIND_LARGE;
	}
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
		recount_to(&nl_cache(h, id)->nr_slabs, was[id], slabs[id]);
	recount_to(&h->nr_reserve, was_reserve, reserve);
	recount_to(&h->nr_large, was_large, large);
}

nl_u32 nl_heap_repair(struct nolock_heap *heap, nl_u32 client)
{
	struct dead dead = { .client = client, .older = ~0u, .prefilled = true };
	nl_heap_t *h = heap->h;
	nl_u32 locks = repair(heap, &dead), threads = 0;

	free_orphans(h, &dead);
	for (nl_u32 id = NL_NR_KMALLOC; id < NL_MAX_CACHES; id++)
		if (nl_load(&nl_cache(h, id)->state) == NL_CACHE_BUSY_BY(client))
			nl_cache_forget(heap, id);
	if (heap->type != NL_HEAP_PRIVATE)
		nl_heap_reopen(heap);
	set_lost_bits(h);
	recount(h);
	if (client <= NL_MAX_CLIENTS)
		threads = nl_load(&h->client[client].threads);
	nl_add(&h->deaths, threads ? threads : 1);
	return locks;
}

/*
 * As a client that died, but its other threads are at work, and may have its prefilled sheaves, and be
 * making a cache or opening a group: what the thread had of the latter two stays as it is.
 */
nl_u32 nl_heap_repair_thread(struct nolock_heap *heap, nl_u32 thread)
{
	struct dead dead = { .client = heap->client, .older = ~0u, .only = thread };
	nl_u32 locks = repair(heap, &dead);

	free_orphans(heap->h, &dead);
	set_lost_bits(heap->h);
	recount(heap->h);
	nl_add(&heap->h->deaths, 1);
	return locks;
}

/*
 * The forking thread may have been inside the allocator itself (fork() in a handler): its locks
 * stay, and so do prefilled sheaves, which the child's memory may still name.
 */
nl_u32 nl_heap_repair_fork(struct nolock_heap *heap, nl_u32 older)
{
	struct dead dead = { .client = heap->client,
			     .older = older,
			     .alive = nl_who(heap) & 0xffff };
	nl_u32 locks = repair(heap, &dead);

	free_orphans(heap->h, &dead);
	nl_add(&heap->h->deaths, older);
	return locks;
}

void nl_heap_inventory(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;

	find_lost_sheaves(h);
	set_lost_bits(h);
	recount(h);
	nl_store(&h->large_frees, nl_load(&h->large_allocs) - nl_load(&h->nr_large));
	nl_store(&h->lost, nl_load(&h->lost) + (nl_u64)nl_heap_drift(heap));
}
