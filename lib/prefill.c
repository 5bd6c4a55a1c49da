/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * prefill.c - prefilled sheaves: objects set aside for a caller that cannot fail later.
 *
 * A sheaf of the table while the size fits its NL_SHEAF_MAX; its owner field names the caller, so
 * that the check and a repair know whose it is. Objects taken from it are counted when it is
 * refilled or returned: next holds how many there were. Beyond that size an oversize sheaf is an
 * array from kmalloc(), and its objects are ordinary allocations.
 */
#include <errno.h>
#include <string.h>
#include "internal.h"
#include "core/core.h"
#include "core/kmalloc.h"
#include "core/slot.h"

#define OVERSIZE_MAX 4096u

struct oversize {
	nl_u32 size;
	nl_u32 capacity;
	void *objects[];
};

static struct nolock_heap *heap_of(const void *p)
{
	return p ? nolock_heap_of(p) : NULL;
}

/* Its number in the heap's table, or 0 for an oversize sheaf. */
static nl_u32 table_sheaf(struct nolock_heap *heap, const struct slab_sheaf *sheaf)
{
	nl_u64 off = (nl_u64)sheaf - (nl_u64)nl_sheaf(heap->h, 0);

	if (off / sizeof(struct nl_sheaf) < heap->h->nr_sheaves)
		return (nl_u32)(off / sizeof(struct nl_sheaf)) + 1;
	return 0;
}

static nl_slot_t *counters(struct nolock_heap *heap, nl_u32 id)
{
	return nl_aslot(heap->h, nl_cpu(heap), id);
}

/* Put what was taken from the sheaf so far on the books. */
static void settle(struct nolock_heap *heap, nl_u32 id, nl_sheaf_t *s)
{
	nl_slot_count(counters(heap, id), NL_STAT_ALLOC_SLOWPATH, s->next - s->size);
	nl_store(&s->next, s->size);
}

/*
 * Whoever uses a sheaf owns it: a repair takes what its owner had. One that a program or another
 * process filled changes hands by a cmpxchg, which decides between us and that repair.
 */
static bool take_over(struct nolock_heap *heap, nl_sheaf_t *s)
{
	nl_u64 owner = nl_load(&s->owner);

	if (!(owner & NL_PREFILLED))
		return false;
	return NL_OWNER_CLIENT(owner) == heap->client ||
	       nl_cas(&s->owner, owner, (nl_u64)nl_who(heap) << 32 | NL_PREFILLED);
}

/* Fill a table sheaf up to size objects from the slabs, growing the heap where allowed. */
static bool fill(struct nolock_heap *heap, nl_u32 id, nl_u32 sheaf, nl_u32 size, gfp_t gfp)
{
	nl_sheaf_t *s = nl_sheaf(heap->h, sheaf - 1);
	nl_u32 who = nl_who(heap);

	nl_depth++;
	nl_fork_check();
	settle(heap, id, s);
	while (s->size < size) {
		nl_u64 obj;

		if (nl_sheaf_fill(heap->h, sheaf, id, size, who))
			continue;
		/* Sheaves, a fresh slab, or more heap, one object at a time. */
		obj = nl_alloc_object(heap, id, gfp);
		if (!obj)
			break;
		nl_slot_count(counters(heap, id), NL_STAT_ALLOC_SLOWPATH, (nl_u64)-1);
		nl_store(&s->obj[s->size], obj);
		nl_store(&s->size, (nl_u16)(s->size + 1));
	}
	nl_store(&s->next, s->size);
	nl_depth--;
	return s->size >= size;
}

static struct oversize *oversize_fill(struct kmem_cache *s, gfp_t gfp, struct oversize *from,
				      unsigned int size)
{
	struct nolock_heap *heap = heap_of(s);
	struct oversize *o = from;
	nl_u32 had = from ? from->size : 0;

	if (!o || o->capacity < size) {
		o = nolock_heap_kmalloc(heap, sizeof(*o) + size * sizeof(void *), gfp);
		if (!o)
			return NULL;
		o->capacity = size;
		o->size = had;
		if (from)
			memcpy(o->objects, from->objects, had * sizeof(void *));
	}
	while (o->size < size) {
		void *p = kmem_cache_alloc(s, gfp);

		if (!p) {
			while (o->size > had)
				kmem_cache_free(s, o->objects[--o->size]);
			if (o != from)
				kfree(o);
			return NULL;
		}
		o->objects[o->size++] = p;
	}
	if (from && o != from)
		kfree(from);
	return o;
}

static bool usable(struct kmem_cache *s, gfp_t gfp, unsigned int size)
{
	struct nolock_heap *heap = heap_of(s);

	return heap && !(gfp & ~NOLOCK_GFP_MASK) && size && size <= OVERSIZE_MAX &&
	       nl_load(&((nl_cache_t *)s)->state) == NL_CACHE_LIVE;
}

static struct slab_sheaf *prefill(struct kmem_cache *s, gfp_t gfp, unsigned int size)
{
	struct nolock_heap *heap = heap_of(s);
	nl_u32 id, who, sheaf = 0;
	nl_cache_t *c = (nl_cache_t *)s;
	nl_barn_t *barn;
	nl_slot_t *count;

	if (!usable(s, gfp, size)) {
		errno = EINVAL;
		return NULL;
	}
	id = c->id;
	who = nl_who(heap);
	barn = &c->barn[0];
	count = counters(heap, id);
	if (size > c->capacity || size > NL_SHEAF_MAX)
		goto oversize;
	if (nl_load(&barn->full.nr) && nl_barn_lock(barn, who, NL_SPIN)) {
		sheaf = nl_barn_pop(heap->h, &barn->full, who);
		nl_barn_unlock(barn);
	}
	if (sheaf && nl_sheaf(heap->h, sheaf - 1)->size >= size)
		nl_slot_count(count, NL_STAT_PREFILL_FAST, 1);
	else
		nl_slot_count(count, NL_STAT_PREFILL_SLOW, 1);
	if (!sheaf) {
		sheaf = nl_sheaf_get(heap->h, id, who);
		if (!sheaf)
			goto oversize;
		nl_slot_count(count, NL_STAT_SHEAF_ALLOC, 1);
	}
	nl_store(&nl_sheaf(heap->h, sheaf - 1)->next, nl_sheaf(heap->h, sheaf - 1)->size);
	nl_store(&nl_sheaf(heap->h, sheaf - 1)->owner, (nl_u64)who << 32 | NL_PREFILLED);
	if (!fill(heap, id, sheaf, size, gfp)) {
		kmem_cache_return_sheaf(s, gfp, (struct slab_sheaf *)nl_sheaf(heap->h, sheaf - 1));
		errno = ENOMEM;
		return NULL;
	}
	return (struct slab_sheaf *)nl_sheaf(heap->h, sheaf - 1);
oversize:
	nl_slot_count(count, NL_STAT_PREFILL_OVERSIZE, 1);
	return (struct slab_sheaf *)oversize_fill(s, gfp, NULL, size);
}

struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *s, gfp_t gfp, unsigned int size)
{
	struct slab_sheaf *sheaf;

	nl_depth++;
	nl_fork_check();
	sheaf = prefill(s, gfp, size);
	nl_depth--;
	return sheaf;
}

int kmem_cache_refill_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf **sheafp,
			    unsigned int size)
{
	struct nolock_heap *heap = heap_of(s);
	struct slab_sheaf *bigger;
	nl_u32 sheaf;

	if (!sheafp || !*sheafp || !usable(s, gfp, size))
		return -EINVAL;
	sheaf = table_sheaf(heap, *sheafp);
	if (!sheaf) {
		struct oversize *o = oversize_fill(s, gfp, (struct oversize *)*sheafp, size);

		if (!o)
			return -ENOMEM;
		*sheafp = (struct slab_sheaf *)o;
		return 0;
	}
	if (!take_over(heap, nl_sheaf(heap->h, sheaf - 1)))
		return -EINVAL;
	if (size <= NL_SHEAF_MAX)
		return fill(heap, nl_cache_id(s), sheaf, size, gfp) ? 0 : -ENOMEM;
	bigger = (struct slab_sheaf *)oversize_fill(s, gfp, NULL, size);
	if (!bigger)
		return -ENOMEM;
	kmem_cache_return_sheaf(s, gfp, *sheafp);
	*sheafp = bigger;
	return 0;
}

static void give_sheaf(struct kmem_cache *s, struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = heap_of(s);
	nl_u32 number, id, who;
	nl_barn_t *barn;
	nl_sheaf_t *t;
	bool kept = false;

	if (!heap || !sheaf)
		return;
	id = nl_cache_id(s);
	number = table_sheaf(heap, sheaf);
	if (!number) {
		struct oversize *o = (struct oversize *)sheaf;

		while (o->size)
			kmem_cache_free(s, o->objects[--o->size]);
		kfree(o);
		return;
	}
	who = nl_who(heap);
	barn = &nl_cache(heap->h, id)->barn[0];
	t = nl_sheaf(heap->h, number - 1);
	if (!take_over(heap, t)) {
		nl_free_refused(sheaf, "no prefilled sheaf, or it was returned already");
		return;
	}
	settle(heap, id, t);
	if (t->size && t->size <= nl_cache(heap->h, id)->capacity &&
	    nl_barn_lock(barn, who, NL_SPIN)) {
		if (barn->full.nr < NL_BARN_MAX) {
			nl_barn_push(heap->h, &barn->full, number);
			kept = true;
		}
		nl_barn_unlock(barn);
	}
	nl_slot_count(counters(heap, id), kept ? NL_STAT_RETURN_FAST : NL_STAT_RETURN_SLOW, 1);
	if (kept)
		return;
	nl_slot_count(counters(heap, id), NL_STAT_SHEAF_FLUSH,
		      nl_sheaf_flush(heap->h, number, id, 0, who));
	nl_slot_count(counters(heap, id), NL_STAT_SHEAF_FREE, 1);
	nl_sheaf_put(heap->h, number);
}

void kmem_cache_return_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	(void)gfp;
	nl_depth++;
	nl_fork_check();
	give_sheaf(s, sheaf);
	nl_depth--;
}

void *kmem_cache_alloc_from_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = heap_of(s);
	nl_u64 obj;

	if (!heap || !sheaf || (gfp & ~NOLOCK_GFP_MASK)) {
		errno = EINVAL;
		return NULL;
	}
	if (table_sheaf(heap, sheaf)) {
		nl_sheaf_t *t = (nl_sheaf_t *)sheaf;
		nl_u32 n = t->size;

		if (!n || !take_over(heap, t))
			return NULL;
		obj = nl_load(&t->obj[n - 1]);
		nl_store(&t->size, (nl_u16)(n - 1));
	} else {
		struct oversize *o = (struct oversize *)sheaf;

		if (!o->size)
			return NULL;
		obj = (nl_u64)o->objects[--o->size];
	}
	if ((gfp & __GFP_ZERO))
		memset((void *)obj, 0, kmem_cache_size(s));
	return (void *)obj;
}

unsigned int kmem_cache_sheaf_size(const struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = heap_of(sheaf);

	if (!heap)
		return 0;
	return table_sheaf(heap, sheaf) ? ((const struct nl_sheaf *)sheaf)->size :
					  ((const struct oversize *)sheaf)->size;
}
