/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * check.c - nolock_heap_check(): every object is in exactly one place, and the books agree.
 *
 * Reads only, believes nothing: the header is copied and validated first, every index is compared
 * with its bound before it is followed, every list is walked no further than there are sheaves.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "internal.h"
#include "core/slot.h"
#include "core/word.h"

/*
 * What one dead thread can leave uncounted: a sheaf was on its way into a slot, or out of it. The
 * objects themselves are where they belong.
 */
#define DEATH_SLACK NL_SHEAF_MAX

struct check {
	nl_heap_t *h;
	struct nl_heap head; /* the validated copy: bounds come from here */
	struct nolock_heap_report *r;
	nl_u32 first; /* first chunk, and end of the open ones */
	nl_u32 end;
	nl_u64 *seen;	   /* NL_SLAB_WORDS for each chunk: objects met in sheaves */
	nl_u8 *sheaf_seen; /* one for each sheaf */
	size_t shadow_size;
	nl_u32 slabs[NL_MAX_CACHES];
	nl_u64 balance; /* allocations minus frees, by the counters */
	nl_u64 deaths;
};

static __attribute__((format(printf, 2, 3))) void error(struct check *ck, const char *fmt, ...)
{
	va_list args;

	if (!ck->r->errors++) {
		va_start(args, fmt);
		vsnprintf(ck->r->first_error, sizeof(ck->r->first_error), fmt, args);
		va_end(args);
	}
}

/* A count of 32 bits that each thread that died may have left one off, below 0 as well. */
static bool differ(struct check *ck, nl_u64 counter, nl_u64 counted)
{
	int64_t by = (int32_t)(nl_u32)(counter - counted);

	return (nl_u64)(by < 0 ? -by : by) > ck->deaths;
}

static bool cache_live(struct check *ck, nl_u32 id)
{
	return id < NL_MAX_CACHES && nl_cache(ck->h, id)->state == NL_CACHE_LIVE;
}

static bool cache_sane(struct check *ck, nl_u32 id)
{
	nl_cache_t *c = nl_cache(ck->h, id);
	struct nl_cache want = { 0 };

	if (c->size < NL_MIN_SIZE || c->size > NL_CHUNK_SIZE || c->object_size > c->size) {
		error(ck, "cache %u: object size %u of %u is out of range", id, c->object_size,
		      c->size);
		return false;
	}
	nl_cache_shape(&want, id, c->object_size, c->size);
	if (c->recip != want.recip || c->per_slab != want.per_slab || c->words != want.words ||
	    c->id != id || c->capacity > NL_SHEAF_MAX || c->next >= NL_MAX_CACHES) {
		error(ck, "cache %u: its constants do not fit its size %u", id, c->size);
		return false;
	}
	return true;
}

static nl_u64 word_mask(nl_u32 per_slab, nl_u32 word)
{
	if (per_slab <= word * 64)
		return 0;
	return per_slab - word * 64 >= 64 ? ~0ULL : NL_BIT(per_slab - word * 64) - 1;
}

static void check_slab(struct check *ck, nl_u32 chunk, nl_u32 id)
{
	nl_slab_t *slab = nl_slab(ck->h, chunk);
	nl_u32 free = 0;

	if (!cache_live(ck, id)) {
		error(ck, "chunk %u is a slab of cache %u, which does not exist", chunk, id);
		return;
	}
	for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++) {
		nl_u64 bits = nl_load(&slab->free[w]);

		if (bits & ~word_mask(nl_cache(ck->h, id)->per_slab, w))
			error(ck, "chunk %u: free bits beyond its last object, word %u", chunk, w);
		free += (nl_u32)__builtin_popcountll(bits);
	}
	ck->slabs[id]++;
	ck->r->chunks_slab++;
	ck->r->objects += nl_cache(ck->h, id)->per_slab;
	ck->r->in_slabs += free;
}

/* Chunk by chunk: free, slab or large, and nothing in between. */
static void check_chunks(struct check *ck)
{
	nl_heap_t *h = ck->h;
	nl_u32 body = 0; /* chunks of a large object still to come */

	for (nl_u32 chunk = ck->first; chunk < ck->end; chunk++) {
		nl_group_t *group = nl_group(h, chunk >> NL_GROUP_SHIFT);
		nl_u32 tag = nl_load(nl_tag(h, chunk));
		bool is_free = nl_load(&group->chunk_free) & NL_BIT(chunk);
		bool reserved = nl_load(&group->reserve) & NL_BIT(chunk);
		bool any = false;

		if (group->state != NL_GROUP_OPEN) {
			if (is_free || reserved || tag)
				error(ck, "chunk %u is in use, but its group is not open", chunk);
			continue;
		}
		if (tag == NL_TAG(NL_KIND_META, 0)) {
			if (is_free || reserved || body)
				error(ck, "chunk %u is in use, but was not opened", chunk);
			continue;
		}
		if (group->node >= ck->head.nr_nodes)
			error(ck, "chunk %u is on node %u, which does not exist", chunk,
			      group->node);
		ck->r->chunks++;
		/* After a repair a bit may be there once too often: the tag decides. */
		if (is_free && reserved && !ck->deaths)
			error(ck, "chunk %u is free twice", chunk);
		if ((is_free || reserved) && tag != NL_TAG(NL_KIND_FREE, 0) && !ck->deaths)
			error(ck, "chunk %u is free, but its tag is %#x", chunk, tag);
		if (!is_free && !reserved && tag == NL_TAG(NL_KIND_FREE, 0))
			error(ck, "chunk %u is lost: not free, tag %#x", chunk, tag);
		if (tag == NL_TAG(NL_KIND_FREE, 0))
			ck->r->chunks_free++;
		ck->r->chunks_reserve += reserved;
		if (nl_load(&nl_slab(h, chunk)->lock))
			ck->r->locks_held++;
		if (body && NL_TAG_KIND(tag) != NL_KIND_BODY)
			error(ck, "chunk %u: a large object ends too early", chunk);
		switch (NL_TAG_KIND(tag)) {
		case NL_KIND_SLAB:
			check_slab(ck, chunk, NL_TAG_CACHE(tag));
			break;
		case NL_KIND_LARGE:
			ck->r->chunks_large++;
			ck->r->large++;
			body = nl_slab(h, chunk)->nr_chunks;
			if (!body || body > ck->end - chunk) {
				error(ck, "chunk %u: a large object of %u chunks", chunk, body);
				body = 1;
			}
			break;
		case NL_KIND_BODY:
			ck->r->chunks_large++;
			if (!body)
				error(ck, "chunk %u belongs to no large object", chunk);
			break;
		case NL_KIND_WAIT:
			break;
		case NL_KIND_FREE:
			for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++)
				any |= nl_load(&nl_slab(h, chunk)->free[w]) != 0;
			if (any)
				error(ck, "chunk %u is free, but has free objects", chunk);
			break;
		case NL_KIND_TRANSIT:
			error(ck, "chunk %u is lost: in the hands of %#x", chunk, tag);
			break;
		default:
			error(ck, "chunk %u: unknown tag %#x", chunk, tag);
		}
		if (body)
			body--;
	}
	if (differ(ck, nl_load(&h->nr_reserve), ck->r->chunks_reserve))
		error(ck, "%lu chunks in the reserve, the counter says %u", ck->r->chunks_reserve,
		      nl_load(&h->nr_reserve));
	if (differ(ck, nl_load(&h->nr_large), ck->r->large))
		error(ck, "%lu large objects, the counter says %u", ck->r->large,
		      nl_load(&h->nr_large));
}

static void check_object(struct check *ck, nl_u32 id, nl_u32 sheaf, nl_u64 obj)
{
	nl_u64 chunk = (obj - ck->head.base) >> NL_CHUNK_SHIFT;
	nl_u64 *seen;
	nl_u32 idx;

	if (chunk < ck->first || chunk >= ck->end ||
	    nl_load(nl_tag(ck->h, (nl_u32)chunk)) != NL_TAG(NL_KIND_SLAB, id)) {
		error(ck, "sheaf %u of cache %u holds %#llx, which is not its object", sheaf, id,
		      (unsigned long long)obj);
		return;
	}
	idx = nl_slab_index(ck->h, id, obj);
	if (idx == ~0u) {
		error(ck, "sheaf %u of cache %u holds %#llx, inside an object", sheaf, id,
		      (unsigned long long)obj);
		return;
	}
	if (nl_load(&nl_slab(ck->h, (nl_u32)chunk)->free[idx / 64]) & NL_BIT(idx))
		error(ck, "object %#llx of cache %u is free in its slab and in sheaf %u",
		      (unsigned long long)obj, id, sheaf);
	seen = &ck->seen[(chunk - ck->first) * NL_SLAB_WORDS + idx / 64];
	if (*seen & NL_BIT(idx))
		error(ck, "object %#llx of cache %u is in two sheaves", (unsigned long long)obj,
		      id);
	*seen |= NL_BIT(idx);
}

/* A sheaf (index + 1) with n objects, met in a list of the cache. */
static bool check_sheaf(struct check *ck, nl_u32 id, nl_u32 sheaf, nl_u32 n, const char *where)
{
	nl_sheaf_t *s;

	if (!sheaf || sheaf > ck->head.nr_sheaves) {
		error(ck, "%s of cache %u: there is no sheaf %u", where, id, sheaf);
		return false;
	}
	s = nl_sheaf(ck->h, sheaf - 1);
	if (ck->sheaf_seen[sheaf - 1]++) {
		error(ck, "%s of cache %u: sheaf %u is in two places", where, id, sheaf);
		return false;
	}
	if (!ck->deaths && nl_load(nl_sheaf_map(ck->h) + (sheaf - 1) / 64) & NL_BIT(sheaf - 1))
		error(ck, "%s of cache %u: sheaf %u is in use and free", where, id, sheaf);
	if (s->cache != id + 1)
		error(ck, "%s of cache %u: sheaf %u is of cache %d", where, id, sheaf,
		      s->cache - 1);
	if (nl_load(&s->owner) != NL_LISTED && !(nl_load(&s->owner) & NL_PREFILLED))
		error(ck, "%s of cache %u: sheaf %u is %s", where, id, sheaf,
		      nl_load(&s->owner) ? "in transit" : "free");
	if (n > NL_SHEAF_MAX) {
		error(ck, "%s of cache %u: sheaf %u has %u objects", where, id, sheaf, n);
		return false;
	}
	for (nl_u32 i = 0; i < n; i++)
		check_object(ck, id, sheaf, nl_load(&s->obj[i]));
	ck->r->in_sheaves += n;
	return true;
}

static void check_slot(struct check *ck, nl_u32 id, nl_slot_t *slot, nl_u64 held, const char *where)
{
	nl_u64 word = nl_load(&slot->word);
	nl_u32 n = NL_WORD_SIZE(word);
	nl_u64 allocs, frees;

	if (held)
		ck->r->locks_held++;
	if (slot->cap > NL_SHEAF_MAX || n > slot->cap)
		error(ck, "%s of cache %u: %u objects in a sheaf for %u", where, id, n, slot->cap);
	if (slot->main) {
		check_sheaf(ck, id, slot->main, n, where);
		if (slot->main <= ck->head.nr_sheaves &&
		    slot->objs != ck->head.base + ck->head.off_sheaf +
					  (nl_u64)(slot->main - 1) * sizeof(struct nl_sheaf) +
					  offsetof(struct nl_sheaf, obj))
			error(ck, "%s of cache %u: its objects are not its sheaf's", where, id);
	} else if (n || slot->cap) {
		error(ck, "%s of cache %u: %u objects without a sheaf", where, id, n);
	}
	if (slot->spare && slot->spare <= ck->head.nr_sheaves)
		check_sheaf(ck, id, slot->spare, nl_sheaf(ck->h, slot->spare - 1)->size, where);
	else if (slot->spare)
		error(ck, "%s of cache %u: there is no sheaf %u", where, id, slot->spare);
	allocs = NL_WORD_ALLOCS(word);
	frees = n + allocs + slot->stat[NL_STAT_OUT] - slot->stat[NL_STAT_IN];
	allocs += slot->stat[NL_STAT_ALLOC_SLOWPATH];
	frees += slot->stat[NL_STAT_FREE_SLOWPATH];
	ck->r->allocs += allocs;
	ck->r->frees += frees;
	ck->r->refused += slot->stat[NL_STAT_FREE_REFUSED];
	ck->balance += allocs - frees;
}

static void check_list(struct check *ck, nl_u32 id, nl_u32 sheaf, nl_u32 nr, bool full)
{
	const char *where = full ? "full list of the barn" : "empty list of the barn";
	nl_u32 n = 0;

	for (; sheaf; n++) {
		nl_u32 size = sheaf <= ck->head.nr_sheaves ? nl_sheaf(ck->h, sheaf - 1)->size : 0;

		if (!check_sheaf(ck, id, sheaf, size, where))
			return;
		if (!full && size)
			error(ck, "%s of cache %u: sheaf %u has %u objects", where, id, sheaf,
			      size);
		sheaf = nl_sheaf(ck->h, sheaf - 1)->next;
	}
	if (n != nr)
		error(ck, "%s of cache %u: %u sheaves, the counter says %u", where, id, n, nr);
}

static void check_cache(struct check *ck, nl_u32 id)
{
	nl_cache_t *c = nl_cache(ck->h, id);

	if (!cache_live(ck, id) || !cache_sane(ck, id))
		return;
	if (differ(ck, c->nr_slabs, ck->slabs[id]))
		error(ck, "cache %u: %u slabs, the counter says %u", id, ck->slabs[id],
		      c->nr_slabs);
	for (nl_u32 cpu = 0; cpu < ck->head.nr_slots; cpu++) {
		nl_slot_t *r = nl_rslot(ck->h, cpu, id), *a = nl_aslot(ck->h, cpu, id);

		check_slot(ck, id, r, nl_load(&r->word) & NL_WORD_LOCKED, "R-slot");
		check_slot(ck, id, a, NL_IS_HELD(nl_load(&a->lock)), "A-slot");
	}
	for (nl_u32 node = 0; node < ck->head.nr_nodes; node++) {
		nl_barn_t *barn = &c->barn[node];

		if (nl_load(&barn->lock))
			ck->r->locks_held++;
		check_list(ck, id, barn->full.first, barn->full.nr, true);
		check_list(ck, id, barn->empty.first, barn->empty.nr, false);
	}
}

/* Sheaves that are in no list: free, or prefilled and in somebody's hands. */
static void check_loose_sheaves(struct check *ck)
{
	for (nl_u32 i = 0; i < ck->head.nr_sheaves; i++) {
		nl_sheaf_t *s = nl_sheaf(ck->h, i);

		if (ck->sheaf_seen[i] ||
		    (!nl_load(&s->owner) && (nl_load(nl_sheaf_map(ck->h) + i / 64) & NL_BIT(i))))
			continue;
		if (!(nl_load(&s->owner) & NL_PREFILLED) || !s->cache ||
		    !cache_live(ck, s->cache - 1u)) {
			error(ck, "sheaf %u is lost: in no list, and nobody's", i + 1);
			continue;
		}
		if (s->next < s->size)
			error(ck, "prefilled sheaf %u has %u objects of %u", i + 1, s->size,
			      s->next);
		/* Taken from it, and not on the books yet. */
		ck->r->allocs += s->next - s->size;
		ck->balance += s->next - s->size;
		check_sheaf(ck, s->cache - 1u, i + 1, s->size, "a prefilled sheaf");
	}
}

static int prepare(struct check *ck, struct nolock_heap *heap)
{
	const char *why;
	nl_u32 open;

	ck->h = heap->h;
	memcpy(&ck->head, heap->h, sizeof(ck->head));
	if (nl_heap_validate(&ck->head, (nl_u64)heap->base, heap->size, &why)) {
		error(ck, "the header is damaged: %s", why);
		return -EUCLEAN;
	}
	ck->deaths = ck->head.deaths;
	open = ck->head.nr_open;
	ck->first = ck->head.first_chunk;
	ck->end = open << NL_GROUP_SHIFT;
	if (ck->end < ck->first)
		ck->end = ck->first;
	ck->shadow_size = (size_t)(ck->end - ck->first) * NL_SLAB_WORDS * sizeof(nl_u64) +
			  ck->head.nr_sheaves + NL_PAGE;
	ck->seen = mmap(NULL, ck->shadow_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ck->seen == MAP_FAILED)
		return -ENOMEM;
	ck->sheaf_seen = (nl_u8 *)(ck->seen + (size_t)(ck->end - ck->first) * NL_SLAB_WORDS);
	return 0;
}

int nolock_heap_check(struct nolock_heap *heap, struct nolock_heap_report *report)
{
	struct nolock_heap_report local;
	struct check ck = { .r = report ? report : &local };
	nl_u64 expected;
	int64_t drift, slack;
	int err;

	memset(ck.r, 0, sizeof(*ck.r));
	if (!heap || heap->snapshot)
		return -EINVAL;
	nl_fork_check();
	nl_fork_inventory();
	err = prepare(&ck, heap);
	if (err)
		return err;
	check_chunks(&ck);
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
		check_cache(&ck, id);
	check_loose_sheaves(&ck);
	munmap(ck.seen, ck.shadow_size);
	ck.r->refused += ck.head.refused + ck.head.dropped;
	ck.r->debug_errors = ck.head.bugs;
	if (ck.r->in_slabs + ck.r->in_sheaves > ck.r->objects)
		error(&ck, "%lu objects, but %lu are free", ck.r->objects,
		      ck.r->in_slabs + ck.r->in_sheaves);
	else
		ck.r->allocated = ck.r->objects - ck.r->in_slabs - ck.r->in_sheaves;
	/* A free that a flush found to be bad had been counted as one. */
	expected = ck.balance + nl_load(&heap->h->dropped) + nl_load(&heap->h->lost);
	/*
	 * Who died between an operation and its count, or with a word of a slab in its hands, has
	 * taken that many objects along: they are its own, allocated.
	 */
	drift = (int64_t)(expected - ck.r->allocated);
	slack = (int64_t)(nl_load(&heap->h->deaths) * DEATH_SLACK);
	if (drift > slack || drift < -slack)
		error(&ck, "%lu objects in use, by the counters %lld", ck.r->allocated,
		      (long long)expected);
	if (differ(&ck, ck.head.large_allocs - ck.head.large_frees, ck.r->large))
		error(&ck, "%lu large objects in use, by the counters %lld", ck.r->large,
		      (long long)(ck.head.large_allocs - ck.head.large_frees));
	ck.r->allocs += ck.head.large_allocs;
	ck.r->frees += ck.head.large_frees;
	return ck.r->errors ? -EUCLEAN : 0;
}

static void drift_slot(nl_slot_t *slot, nl_u64 *balance, nl_u64 *held, nl_heap_t *h)
{
	nl_u32 n = NL_WORD_SIZE(nl_load(&slot->word));

	*balance += slot->stat[NL_STAT_IN] - slot->stat[NL_STAT_OUT] - n +
		    slot->stat[NL_STAT_ALLOC_SLOWPATH] - slot->stat[NL_STAT_FREE_SLOWPATH];
	*held += n;
	if (slot->spare && slot->spare <= h->nr_sheaves)
		*held += nl_sheaf(h, slot->spare - 1)->size;
}

/* No shadow, no message, no system call: the slow path of a child after fork() asks. */
int64_t nl_heap_drift(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 end = nl_load_acquire(&h->nr_open) << NL_GROUP_SHIFT;
	nl_u64 balance = 0, held = 0, objects = 0, free = 0;

	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++) {
		nl_cache_t *c = nl_cache(h, id);

		if (c->state != NL_CACHE_LIVE)
			continue;
		for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
			drift_slot(nl_rslot(h, cpu, id), &balance, &held, h);
			drift_slot(nl_aslot(h, cpu, id), &balance, &held, h);
		}
		for (nl_u32 node = 0; node < NL_MAX_NODES; node++)
			for (nl_u32 s = c->barn[node].full.first, n = 0; s && n < h->nr_sheaves;
			     n++) {
				held += nl_sheaf(h, s - 1)->size;
				s = nl_sheaf(h, s - 1)->next;
			}
	}
	for (nl_u32 index = 0; index < h->nr_sheaves; index++) {
		nl_sheaf_t *s = nl_sheaf(h, index);

		if (!(nl_load(&s->owner) & NL_PREFILLED))
			continue;
		held += s->size;
		balance += s->next - s->size;
	}
	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_u32 tag = nl_load(nl_tag(h, chunk));

		if (NL_TAG_KIND(tag) != NL_KIND_SLAB)
			continue;
		objects += nl_cache(h, NL_TAG_CACHE(tag))->per_slab;
		for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++)
			free += (nl_u32)__builtin_popcountll(nl_load(&nl_slab(h, chunk)->free[w]));
	}
	return (int64_t)(objects - free - held - balance - nl_load(&h->dropped) -
			 nl_load(&h->lost));
}
