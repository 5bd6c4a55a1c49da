/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * repair.c - taking back what a dead client held in a shared heap (promise P4), and, in a child
 * after fork(), what the parent's other threads held in the private ones.
 *
 * Each of its locks is taken over by one cmpxchg from its owner word; a lock word that is not 0
 * keeps every sequence out, so an R-slot may be repaired from any CPU. What the lock protects is
 * then brought to a state in which every object is in one place, and the lock is released. Every
 * step can be done twice: a repairer that dies is repaired by the next one.
 */
#include "internal.h"
#include "core/core.h"
#include "core/slot.h"
#include "core/word.h"

static const nl_u32 repairer = NL_CLIENT_NOLOCKD << 16;

/*
 * Whose: those of a client's threads whose numbers are below older, but for one (0: none); and are
 * its prefilled sheaves gone?
 */
struct dead {
	nl_u32 client;
	nl_u32 older;
	nl_u32 alive;
	bool prefilled;
};

static bool is_dead(const struct dead *dead, nl_u64 owner)
{
	nl_u32 thread = NL_OWNER_WHO(owner) & 0xffff;

	return owner && NL_OWNER_CLIENT(owner) == dead->client && thread < dead->older &&
	       thread != dead->alive;
}

static bool in_sheaf(nl_sheaf_t *s, nl_u32 n, nl_u64 obj)
{
	for (nl_u32 i = 0; i < n && i < NL_SHEAF_MAX; i++)
		if (nl_load(&s->obj[i]) == obj)
			return true;
	return false;
}

/* The bits of a word had been taken: those that did not reach the sheaf go back. */
static void finish_take(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_sheaf_t *s, nl_u32 n)
{
	nl_u64 intent = nl_load(&slot->intent[0]), mask = nl_load(&slot->intent[1]);
	nl_u32 chunk = (nl_u32)(NL_INTENT_ARG(intent) >> 6), word = (nl_u32)intent & 63;
	nl_u64 back = 0;

	if (NL_INTENT_OP(intent) != NL_INTENT_TAKE)
		return;
	if (nl_chunk_ok(h, chunk) && nl_load(nl_tag(h, chunk)) == NL_TAG(NL_KIND_SLAB, id)) {
		nl_u32 size = nl_cache(h, id)->size;

		for (; mask; mask &= mask - 1) {
			nl_u32 bit = nl_lowest(mask);

			if (!s || !in_sheaf(s, n, nl_object(h, chunk, word * 64 + bit, size)))
				back |= NL_BIT(bit);
		}
		if (back)
			nl_slab_give(h, id, chunk, word, back);
	}
	nl_store(&slot->intent[1], 0);
	nl_store(&slot->intent[0], 0);
}

static void repair_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id)
{
	nl_u32 main = slot->main <= h->nr_sheaves ? slot->main : 0;
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word));
	nl_sheaf_t *s = main ? nl_sheaf(h, main - 1) : NULL;

	/* Detaching writes the sheaf's size before the word loses it, attaching the other way. */
	if (s && s->size > n && s->size <= NL_SHEAF_MAX)
		n = s->size;
	finish_take(h, slot, id, s, n);
	if (slot->spare == main || slot->spare > h->nr_sheaves)
		nl_store(&slot->spare, 0);
	if (s) {
		nl_store(&slot->stat[NL_STAT_IN],
			 slot->stat[NL_STAT_IN] + n - NL_WORD_SIZE(nl_load(&slot->word)));
		nl_store(&slot->objs, nl_sheaf_objs(h, main));
		nl_store(&slot->word, (nl_load(&slot->word) & ~0xffffULL) | n);
		nl_store(&s->size, 0);
	}
	nl_slot_unlock(slot);
}

/* Recount a barn whose lists may be half changed: what cannot be reached is an orphan, later. */
static void repair_barn(nl_heap_t *h, nl_barn_t *barn)
{
	nl_u32 full = 0, empty = 0;

	for (nl_u32 i = barn->full; i && i <= h->nr_sheaves && full < h->nr_sheaves; full++)
		i = nl_sheaf(h, i - 1)->next;
	for (nl_u32 i = barn->empty; i && i <= h->nr_sheaves && empty < h->nr_sheaves; empty++)
		i = nl_sheaf(h, i - 1)->next;
	nl_store(&barn->nr_full, full);
	nl_store(&barn->nr_empty, empty);
	nl_barn_unlock(barn);
}

static bool takeover(nl_word_t *lock, const struct dead *dead)
{
	nl_u64 held = nl_load_acquire(lock);

	return is_dead(dead, held) && nl_cas(lock, held, ((nl_u64)repairer << 32) | 1);
}

/* Does any list still name the sheaf? */
static bool linked(nl_heap_t *h, nl_u32 id, nl_u32 sheaf)
{
	nl_barn_t *barn = &nl_cache(h, id)->barn[0];
	nl_u32 n = 0;

	for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
		nl_slot_t *r = nl_rslot(h, cpu, id), *a = nl_aslot(h, cpu, id);

		if (r->main == sheaf || r->spare == sheaf || a->main == sheaf || a->spare == sheaf)
			return true;
	}
	for (nl_u32 i = barn->full; i && i <= h->nr_sheaves && n <= h->nr_sheaves; n++) {
		if (i == sheaf)
			return true;
		i = nl_sheaf(h, i - 1)->next;
	}
	n = 0;
	for (nl_u32 i = barn->empty; i && i <= h->nr_sheaves && n <= h->nr_sheaves; n++) {
		if (i == sheaf)
			return true;
		i = nl_sheaf(h, i - 1)->next;
	}
	return false;
}

/*
 * Sheaves that the dead had taken out of every list. Each is claimed by its owner field first, so
 * that the next repairer finds it should this one die; a sheaf that a list names after all, or
 * that somebody takes out of one meanwhile, which writes the owner, is not an orphan.
 */
static void free_orphans(nl_heap_t *h, const struct dead *dead)
{
	const nl_u64 mine = (nl_u64)repairer << 32;

	for (nl_u32 index = 0; index < h->nr_sheaves; index++) {
		nl_sheaf_t *s = nl_sheaf(h, index);
		nl_u64 owner = nl_load(&s->owner);
		nl_u32 id = s->cache - 1u;

		if (!is_dead(dead, owner) || id >= NL_MAX_CACHES ||
		    (!dead->prefilled && (owner & NL_PREFILLED)))
			continue;
		if ((nl_load(nl_sheaf_map(h) + index / 64) & NL_BIT(index)) ||
		    !nl_cas(&s->owner, owner, mine))
			continue;
		if (linked(h, id, index + 1)) {
			(void)nl_cas(&s->owner, mine, 0);
			continue;
		}
		if (nl_load(&s->owner) != mine)
			continue;
		nl_sheaf_flush(h, index + 1, id, 0);
		nl_store(&s->owner, 0);
		nl_sheaf_put(h, index + 1);
	}
}

static nl_u32 repair(struct nolock_heap *heap, const struct dead *dead)
{
	nl_heap_t *h = heap->h;
	nl_u32 locks = 0;

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
			nl_slot_t *slots[2] = { nl_rslot(h, cpu, id), nl_aslot(h, cpu, id) };

			for (int i = 0; i < 2; i++) {
				if (takeover(&slots[i]->lock, dead)) {
					repair_slot(h, slots[i], id);
					locks++;
				}
			}
		}
	}
	free_orphans(h, dead);
	nl_add(&h->deaths, 1);
	return locks;
}

/* The rest is for a heap that nobody else uses: what is in no list is nobody's. */
static void find_lost_sheaves(nl_heap_t *h)
{
	for (nl_u32 index = 0; index < h->nr_sheaves; index++) {
		nl_sheaf_t *s = nl_sheaf(h, index);
		nl_u32 id = s->cache - 1u;

		if ((nl_load(nl_sheaf_map(h) + index / 64) & NL_BIT(index)) ||
		    (nl_load(&s->owner) & NL_PREFILLED))
			continue;
		if (id < NL_MAX_CACHES) {
			if (linked(h, id, index + 1))
				continue;
			nl_sheaf_flush(h, index + 1, id, 0);
		}
		nl_sheaf_put(h, index + 1);
	}
}

static void find_lost_chunks(nl_heap_t *h)
{
	nl_u32 end = nl_nr_open(h) << NL_GROUP_SHIFT, body = 0, large = 0;
	nl_u32 slabs[NL_MAX_CACHES] = { 0 };
	nl_u32 reserve = 0;

	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_group_t *group = nl_group(h, chunk >> NL_GROUP_SHIFT);
		nl_u32 tag = nl_load(nl_tag(h, chunk));
		nl_u64 known = nl_load(&group->chunk_free) | nl_load(&group->reserve);

		if (group->state != NL_GROUP_OPEN)
			continue;
		reserve += (nl_load(&group->reserve) & NL_BIT(chunk)) != 0;
		if (NL_TAG_KIND(tag) == NL_KIND_SLAB) {
			slabs[NL_TAG_CACHE(tag)]++;
			continue;
		}
		if (NL_TAG_KIND(tag) == NL_KIND_LARGE) {
			large++;
			body = nl_slab(h, chunk)->nr_chunks;
		} else if (NL_TAG_KIND(tag) == NL_KIND_BODY && !body) {
			/* A large object that was being made, or freed. */
			nl_store(nl_tag(h, chunk), NL_TAG(NL_KIND_FREE, 0));
			tag = 0;
		}
		if (body)
			body--;
		else if (NL_TAG_KIND(tag) == NL_KIND_FREE && !(known & NL_BIT(chunk)))
			nl_chunk_give(h, chunk >> NL_GROUP_SHIFT, NL_BIT(chunk));
	}
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
		nl_store(&nl_cache(h, id)->nr_slabs, slabs[id]);
	nl_store(&h->nr_reserve, reserve);
	nl_store(&h->nr_large, large);
	nl_store(&h->large_frees, nl_load(&h->large_allocs) - large);
}

nl_u32 nl_heap_repair(struct nolock_heap *heap, nl_u32 client)
{
	struct dead dead = { .client = client, .older = ~0u, .prefilled = true };

	return repair(heap, &dead);
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

	return repair(heap, &dead);
}

void nl_heap_inventory(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;

	find_lost_sheaves(h);
	find_lost_chunks(h);
	nl_store(&h->lost, nl_load(&h->lost) + (nl_u64)nl_heap_drift(heap));
}
