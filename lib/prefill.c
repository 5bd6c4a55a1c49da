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

/* Its number in the heap's table, or 0 for an oversize sheaf. */
static nl_u32 table_sheaf(struct nolock_heap *heap, const struct slab_sheaf *sheaf)
{
	nl_u64 off = (nl_u64)sheaf - (nl_u64)nl_sheaf(heap->h, 0);

	if (off / sizeof(struct nl_sheaf) < heap->h->nr_sheaves)
		return (nl_u32)(off / sizeof(struct nl_sheaf)) + 1;
	return 0;
}

static bool is_oversize(struct nolock_heap *heap, const struct slab_sheaf *sheaf)
{
	return nolock_heap_of(sheaf) == heap &&
	       nl_load(&((const struct oversize *)sheaf)->capacity);
}

/* Is it in a caller's hands, and of this cache? */
static bool is_prefilled(struct nolock_heap *heap, nl_u32 id, const struct slab_sheaf *sheaf)
{
	const struct nl_sheaf *s = (const struct nl_sheaf *)sheaf;

	if (!table_sheaf(heap, sheaf))
		return is_oversize(heap, sheaf);
	return (nl_load(&s->owner) & NL_PREFILLED) && nl_load(&s->cache) == id + 1;
}

static nl_slot_t *counters(struct nolock_heap *heap, nl_u32 id)
{
	return nl_aslot(heap->h, nl_cpu(heap), id);
}

/* Put what was taken from the sheaf so far on the books. */
static void settle(struct nolock_heap *heap, nl_u32 id, nl_sheaf_t *s)
{
	if (s->next <= s->size)
		return;
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

/* One object, of this cache and no larger bucket; or 0. */
static nl_u64 alloc_one(struct nolock_heap *heap, nl_u32 id, gfp_t gfp, bool nolock)
{
	nl_u64 obj;

	if (!nolock)
		return nl_alloc_object(heap, id, gfp, NUMA_NO_NODE);
	obj = nl_alloc_object_nolock(heap, id, NUMA_NO_NODE);
	if (obj && nl_cache_of(heap->h, obj) != (int)id) {
		kfree_nolock((void *)obj);
		return 0;
	}
	return obj;
}

/*
 * From slot to sheaf objects are in neither for a moment: a child of a fork() in another thread does not
 * have them. That is good enough for a private heap; a client of a shared one loses nothing, and fills
 * its sheaves from the slabs' words. A CPU's array is what its owner has put there, and stays; and a sheaf
 * of a heap of several nodes may have objects of another one than is asked for.
 */
static bool moves(const struct nolock_heap *heap, const nl_cache_t *c)
{
	return heap->type == NL_HEAP_PRIVATE && heap->h->nr_nodes == 1 &&
	       !(c->mode & NL_CACHE_ARRAY);
}

/* Objects that are at hand: from where allocations have theirs, or from the slabs. */
static nl_u32 fill_some(struct nolock_heap *heap, nl_u32 id, nl_u32 sheaf, nl_u32 size,
			nl_u32 flags)
{
	nl_sheaf_t *s = nl_sheaf(heap->h, sheaf - 1);
	nl_u32 got = 0;

	if (moves(heap, nl_cache(heap->h, id))) {
		got = (nl_u32)nl_alloc_some(heap, id, flags, (void **)s->obj + s->size,
					    size - s->size, s);
	}
	if (!got)
		got = nl_sheaf_fill(heap->h, sheaf, id, size, nl_who(heap),
				    flags | NL_NODE(nl_here(heap)));
	return got;
}

/* Fill a table sheaf up to size objects, growing the heap where allowed. */
static bool fill(struct nolock_heap *heap, nl_u32 id, nl_u32 sheaf, nl_u32 size, gfp_t gfp,
		 bool nolock)
{
	nl_sheaf_t *s = nl_sheaf(heap->h, sheaf - 1);
	nl_u32 flags = nl_core_flags(gfp, nolock);

	nl_depth++;
	nl_fork_check();
	settle(heap, id, s);
	while (s->size < size) {
		nl_u64 obj;

		if (fill_some(heap, id, sheaf, size, flags))
			continue;
		/* Sheaves, a fresh slab, or more heap, one object at a time. */
		obj = alloc_one(heap, id, gfp, nolock);
		if (!obj)
			break;
		nl_slot_count(counters(heap, id), NL_STAT_ALLOC_SLOWPATH, (nl_u64)-1);
		nl_store(&s->obj[s->size], obj);
		nl_sheaf_prefilled(s, s->size + 1u);
	}
	nl_store(&s->next, s->size);
	nl_depth--;
	return s->size >= size;
}

/* All or nothing: on failure the old one is as it was. */
static struct oversize *oversize_fill(struct kmem_cache *s, gfp_t gfp, struct oversize *from,
				      unsigned int size, bool nolock)
{
	struct nolock_heap *heap = nl_heap_of(s);
	struct oversize *o = from;
	nl_u32 had = from ? from->size : 0;
	size_t bytes = sizeof(*o) + size * sizeof(void *);
	int got = 0;

	gfp &= ~__GFP_ZERO; /* what is taken from a sheaf is zeroed then */
	if (!o || o->capacity < size) {
		o = nolock ? nolock_heap_kmalloc_nolock(heap, bytes, gfp, NUMA_NO_NODE) :
			     nolock_heap_kmalloc(heap, bytes, gfp);
		if (!o)
			return NULL;
		o->capacity = size;
		o->size = had;
		if (from)
			memcpy(o->objects, from->objects, had * sizeof(void *));
	}
	if (had >= size)
		return o;
	got = nolock ? kmem_cache_alloc_bulk_nolock(s, gfp, size - had, o->objects + had) :
		       kmem_cache_alloc_bulk(s, gfp, size - had, o->objects + had);
	o->size += (nl_u32)got;
	if (!got || (from && o != from))
		kfree_nolock(got ? from : o != from ? o : NULL);
	return got ? o : NULL;
}

static bool usable(struct kmem_cache *s, gfp_t gfp, gfp_t mask, unsigned int size)
{
	struct nolock_heap *heap = nl_heap_of(s);

	return heap && !(gfp & ~mask) && size && size <= OVERSIZE_MAX &&
	       nl_load(&((nl_cache_t *)s)->state) == NL_CACHE_LIVE;
}

/* This CPU's spare sheaf, if there is something in it, or 0. */
static nl_u32 take_spare(struct nolock_heap *heap, nl_u32 id, nl_u32 who)
{
	nl_slot_t *slot = nl_lock_slot(heap, id, who);
	nl_u32 sheaf;

	if (!slot)
		return 0;
	sheaf = slot->spare;
	if (sheaf && nl_sheaf(heap->h, sheaf - 1)->size) {
		nl_store(&nl_sheaf(heap->h, sheaf - 1)->owner, (nl_u64)who << 32);
		nl_store_release(&slot->spare, 0);
	} else {
		sheaf = 0;
	}
	nl_any_slot_unlock(slot);
	return sheaf;
}

/* A sheaf from the barn, or 0: a full one if there is any, but not for a @few objects. */
static nl_u32 take_from_barn(struct nolock_heap *heap, nl_u32 id, nl_u32 who, nl_u32 flags,
			     bool few)
{
	nl_barn_t *barn = &nl_cache(heap->h, id)->barn[nl_here(heap)];
	nl_u32 sheaf = 0, full = 0;

	if (((few || !nl_load(&barn->full.nr)) && !nl_load(&barn->empty.nr)) ||
	    !nl_barn_lock(barn, who, flags))
		return 0;
	if (!few)
		sheaf = full = nl_barn_pop(heap->h, &barn->full, who);
	if (!sheaf)
		sheaf = nl_barn_pop(heap->h, &barn->empty, who);
	nl_barn_unlock(barn);
	if (!few)
		nl_slot_count(counters(heap, id), full ? NL_STAT_BARN_GET : NL_STAT_BARN_GET_FAIL,
			      1);
	return sheaf;
}

/* Spare, barn, table; then filled up. Source: kmem_cache_prefill_sheaf() of slub.c. */
static struct slab_sheaf *prefill(struct kmem_cache *s, gfp_t gfp, unsigned int size, bool nolock)
{
	struct nolock_heap *heap = nl_heap_of(s);
	nl_u32 id, who, sheaf;
	nl_cache_t *c = (nl_cache_t *)s;
	nl_slot_t *count;
	nl_sheaf_t *t;
	bool few;

	if (!usable(s, gfp, nolock ? NOLOCK_GFP_NOLOCK_MASK : NOLOCK_GFP_MASK, size)) {
		errno = EINVAL;
		return NULL;
	}
	id = c->id;
	who = nl_who(heap);
	count = counters(heap, id);
	if (size > c->capacity || size > NL_SHEAF_MAX)
		goto oversize;
	/* Where objects can be moved, a sheaf of which less than half is asked for stays where it is. */
	few = moves(heap, c) && 2 * size < c->capacity;
	sheaf = few ? 0 : take_spare(heap, id, who);
	nl_slot_count(count, sheaf ? NL_STAT_PREFILL_FAST : NL_STAT_PREFILL_SLOW, 1);
	if (!sheaf)
		sheaf = take_from_barn(heap, id, who, nl_core_flags(gfp, nolock), few);
	if (!sheaf) {
		sheaf = nl_sheaf_get(heap->h, id, who);
		if (!sheaf)
			goto oversize;
		nl_slot_count(count, NL_STAT_SHEAF_ALLOC, 1);
	}
	t = nl_sheaf(heap->h, sheaf - 1);
	nl_store(&t->next, t->size);
	nl_store(&t->owner, (nl_u64)who << 32 | NL_PREFILLED);
	if (!fill(heap, id, sheaf, size, gfp, nolock)) {
		kmem_cache_return_sheaf(s, 0, (struct slab_sheaf *)t);
		return nl_alloc_failed(heap, id, (size_t)size * c->object_size, gfp, ENOMEM);
	}
	return (struct slab_sheaf *)t;
oversize:
	nl_slot_count(count, NL_STAT_PREFILL_OVERSIZE, 1);
	return (struct slab_sheaf *)oversize_fill(s, gfp, NULL, size, nolock);
}

struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *s, gfp_t gfp, unsigned int size)
{
	struct slab_sheaf *sheaf;

	nl_depth++;
	nl_fork_check();
	sheaf = prefill(s, gfp, size, false);
	nl_depth--;
	return sheaf;
}

struct slab_sheaf *kmem_cache_prefill_sheaf_nolock(struct kmem_cache *s, gfp_t gfp,
						   unsigned int size)
{
	struct slab_sheaf *sheaf;

	nl_depth++;
	nl_fork_check();
	sheaf = prefill(s, gfp, size, true);
	nl_depth--;
	return sheaf;
}

int kmem_cache_refill_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf **sheafp,
			    unsigned int size)
{
	struct nolock_heap *heap = nl_heap_of(s);
	struct slab_sheaf *bigger;
	nl_u32 sheaf, id, had;
	nl_sheaf_t *t;

	if (!sheafp || !*sheafp || !usable(s, gfp, NOLOCK_GFP_MASK, size) ||
	    !is_prefilled(heap, nl_cache_id(s), *sheafp))
		return -EINVAL;
	sheaf = table_sheaf(heap, *sheafp);
	if (!sheaf) {
		struct oversize *o = oversize_fill(s, gfp, (struct oversize *)*sheafp, size, false);

		if (!o)
			return -ENOMEM;
		*sheafp = (struct slab_sheaf *)o;
		return 0;
	}
	t = nl_sheaf(heap->h, sheaf - 1);
	if (!take_over(heap, t))
		return -EINVAL;
	id = nl_cache_id(s);
	if (size <= NL_SHEAF_MAX) {
		had = t->size;
		if (fill(heap, id, sheaf, size, gfp, false))
			return 0;
		nl_slot_count(counters(heap, id), NL_STAT_SHEAF_FLUSH,
			      nl_sheaf_flush(heap->h, sheaf, id, had, nl_who(heap)));
		nl_store(&t->next, had);
		nl_alloc_failed(heap, id, (size_t)(size - had) * kmem_cache_size(s), gfp, ENOMEM);
		return -ENOMEM;
	}
	bigger = (struct slab_sheaf *)oversize_fill(s, gfp, NULL, size, false);
	if (!bigger)
		return -ENOMEM;
	kmem_cache_return_sheaf(s, gfp, *sheafp);
	*sheafp = bigger;
	return 0;
}

/* The sheaf becomes this CPU's spare, if it has none. */
static bool give_as_spare(struct nolock_heap *heap, nl_u32 id, nl_u32 who, nl_u32 sheaf)
{
	nl_slot_t *slot = nl_lock_slot(heap, id, who);
	bool given = false;

	if (!slot)
		return false;
	if (!slot->spare) {
		nl_store(&slot->spare, sheaf);
		nl_store_release(&nl_sheaf(heap->h, sheaf - 1)->owner, NL_LISTED);
		given = true;
	}
	nl_any_slot_unlock(slot);
	return given;
}

static bool room_for(nl_barn_t *barn, nl_u32 size)
{
	return size ? nl_barn_room(barn) : nl_load(&barn->empty.nr) + 1 <= NL_BARN_MAX;
}

/* To the barn of its objects' node, if there is room; an empty one to this node's. */
static bool give_to_barn(struct nolock_heap *heap, nl_u32 id, nl_u32 who, nl_u32 flags,
			 nl_u32 sheaf, nl_u32 node)
{
	nl_barn_t *barn = &nl_cache(heap->h, id)->barn[node];
	nl_u32 size = nl_sheaf(heap->h, sheaf - 1)->size;
	bool room;

	if (!room_for(barn, size) || !nl_barn_lock(barn, who, flags))
		return false;
	room = room_for(barn, size);
	if (room)
		nl_barn_push(heap->h, size ? &barn->full : &barn->empty, sheaf);
	nl_barn_unlock(barn);
	if (room && size)
		nl_slot_count(counters(heap, id), NL_STAT_BARN_PUT, 1);
	return room;
}

/* Spare, barn, or flushed. Source: kmem_cache_return_sheaf() of slub.c. */
static void give_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = nl_heap_of(s);
	nl_u32 number, id, who, node;
	nl_sheaf_t *t;

	if (!heap || !sheaf)
		return;
	if (!is_prefilled(heap, nl_cache_id(s), sheaf)) {
		nl_free_refused(sheaf,
				"no prefilled sheaf of the cache, or it was returned already");
		return;
	}
	id = nl_cache_id(s);
	number = table_sheaf(heap, sheaf);
	if (!number) {
		struct oversize *o = (struct oversize *)sheaf;

		kmem_cache_free_bulk_nolock(s, o->size, o->objects);
		/* Returned once more before its memory is somebody else's, it is known to be gone. */
		nl_store(&o->capacity, 0);
		kfree_nolock(o);
		return;
	}
	who = nl_who(heap);
	t = nl_sheaf(heap->h, number - 1);
	if (!take_over(heap, t)) {
		nl_free_refused(sheaf, "no prefilled sheaf, or it was returned already");
		return;
	}
	node = t->size ? nl_node_of(heap->h, nl_group_at(heap->h, t->obj[0])) : nl_here(heap);
	settle(heap, id, t);
	/* In transit: from here on next is the barn's. */
	nl_store(&t->owner, (nl_u64)who << 32);
	nl_barrier();
	if (t->size <= nl_cache(heap->h, id)->capacity &&
	    !(nl_cache(heap->h, id)->mode & NL_CACHE_ARRAY)) {
		if (node == nl_here(heap) && give_as_spare(heap, id, who, number)) {
			nl_slot_count(counters(heap, id), NL_STAT_RETURN_FAST, 1);
			return;
		}
		if (give_to_barn(heap, id, who, nl_core_flags(gfp, false) & NL_SPIN, number,
				 node)) {
			nl_slot_count(counters(heap, id), NL_STAT_RETURN_SLOW, 1);
			return;
		}
	}
	nl_slot_count(counters(heap, id), NL_STAT_RETURN_SLOW, 1);
	if (t->size)
		nl_slot_count(counters(heap, id), NL_STAT_SHEAF_FLUSH,
			      nl_sheaf_flush(heap->h, number, id, 0, who));
	nl_slot_count(counters(heap, id), NL_STAT_SHEAF_FREE, 1);
	nl_sheaf_put(heap->h, number);
}

void kmem_cache_return_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	nl_depth++;
	nl_fork_check();
	give_sheaf(s, gfp, sheaf);
	nl_depth--;
}

/* The last object of a sheaf with that many, or 0. */
NL_INLINE nl_u64 pop(nl_sheaf_t *s)
{
	nl_u32 n = s->size;
	nl_u64 obj;

	if (nl_unlikely(n - 1 >= NL_SHEAF_MAX))
		return 0;
	obj = nl_load(&s->obj[n - 1]);
	nl_store(&s->size, (nl_u16)(n - 1));
	return obj;
}

static __attribute__((noinline)) void *from_sheaf_slow(struct kmem_cache *s, gfp_t gfp,
						       struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = nl_heap_of(s);
	nl_u64 obj = 0;

	if (!heap || !sheaf || (gfp & ~NOLOCK_GFP_MASK) ||
	    !is_prefilled(heap, nl_cache_id(s), sheaf)) {
		errno = EINVAL;
		return NULL;
	}
	if (table_sheaf(heap, sheaf)) {
		if (take_over(heap, (nl_sheaf_t *)sheaf))
			obj = pop((nl_sheaf_t *)sheaf);
	} else {
		struct oversize *o = (struct oversize *)sheaf;

		if (o->size)
			obj = (nl_u64)o->objects[--o->size];
	}
	if (obj && (gfp & __GFP_ZERO))
		memset((void *)obj, 0, kmem_cache_size(s));
	return (void *)obj;
}

/* Of the default heap, out of a sheaf of its table that this process has filled: here. */
void *kmem_cache_alloc_from_sheaf(struct kmem_cache *s, gfp_t gfp, struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = nl_load_acquire(&nl_default);
	nl_sheaf_t *t = (nl_sheaf_t *)sheaf;
	nl_u64 owner, obj;

	if (nl_unlikely((nl_u64)s - (nl_u64)heap->base >= heap->size) ||
	    nl_unlikely(gfp & ~(NOLOCK_GFP_MASK & ~__GFP_ZERO)) ||
	    nl_unlikely(!table_sheaf(heap, sheaf)))
		goto slow;
	owner = nl_load(&t->owner);
	if (nl_unlikely(!(owner & NL_PREFILLED)) ||
	    nl_unlikely(NL_OWNER_CLIENT(owner) != heap->client) ||
	    nl_unlikely(nl_load(&t->cache) != nl_cache_id(s) + 1))
		goto slow;
	obj = pop(t);
	if (nl_likely(obj))
		return (void *)obj;
slow:
	return from_sheaf_slow(s, gfp, sheaf);
}

unsigned int kmem_cache_sheaf_size(const struct slab_sheaf *sheaf)
{
	struct nolock_heap *heap = nl_heap_of(sheaf);

	if (!heap)
		return 0;
	return table_sheaf(heap, sheaf) ? ((const struct nl_sheaf *)sheaf)->size :
					  ((const struct oversize *)sheaf)->size;
}
