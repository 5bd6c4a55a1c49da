// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_p1.c - a held lock alone never makes kmalloc_nolock fail.
 *
 * Each lock in turn, and all at once, is held by somebody who never lets go: its word is set by
 * hand. Then kmalloc_nolock is called until NULL, and must have given at least as many objects
 * as fit into what nolock_heap_populate() set aside, each of them once; every one of them can be
 * freed while the locks are still held. On heaps of each kind.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "hold.h"
#include "kinds.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)
#define RESERVE 48 /* chunks */
/* Behind slab locks every object is found by a scan of all that is open: fewer of them will do. */
#define RESERVE_SCANNED 8
#define HEAP_SCANNED (28 * MiB)
/* Nobody's: a thread that this process does not have. */
#define HOLDER (NL_OWNER(1, 0xfff0) | 7)

enum {
	HOLD_NONE = 0,
	HOLD_RSLOTS = 1,
	HOLD_ASLOTS = 2,
	HOLD_BARNS = 4,
	HOLD_SLABS = 8, /* of all chunks that are opened, whatever they are */
	HOLD_ALL = 15,
};

/* Hold, or release, the locks of cache @id, or of all caches. Returns how many. */
static unsigned long hold(nl_heap_t *h, nl_u32 id, unsigned int which, bool all_caches, nl_u64 word)
{
	unsigned long n = 0;

	for (nl_u32 chunk = h->first_chunk;
	     (which & HOLD_SLABS) && chunk < nl_nr_open(h) << NL_GROUP_SHIFT; chunk++) {
		nl_slab(h, chunk)->lock = word;
		n++;
	}
	for (nl_u32 c = 0; c < NL_MAX_CACHES; c++) {
		if ((c != id && !all_caches) || nl_cache(h, c)->state != NL_CACHE_LIVE)
			continue;
		for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
			if (which & HOLD_RSLOTS) {
				hold_rslot(nl_rslot(h, cpu, c), word);
				n++;
			}
			if (which & HOLD_ASLOTS) {
				hold_aslot(nl_aslot(h, cpu, c), word);
				n++;
			}
		}
		if (which & HOLD_BARNS)
			for (nl_u32 node = 0; node < h->nr_nodes; node++) {
				nl_cache(h, c)->barn[node].lock = word;
				n++;
			}
	}
	return n;
}

static int by_address(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return x < y ? -1 : x > y;
}

struct outcome {
	unsigned long got, locks, least;
};

/*
 * @warm: objects went through the sheaves before the locks were taken, as in a program's life;
 * what is in a sheaf under a held lock is out of reach, what is in bitmaps and chunks is not.
 */
static void run_on(struct nolock_heap *heap, const char *name, unsigned int size,
		   unsigned int which, bool all_caches, bool warm, bool ordinary_fill,
		   struct outcome *out)
{
	static uintptr_t obj[HEAP_SIZE / 16];
	struct nolock_heap_report rep;
	const unsigned long reserve = which & HOLD_SLABS ? RESERVE_SCANNED : RESERVE;
	unsigned long n = 0, least;
	struct nolock_heap_stat st;
	nl_u32 id;
	void *p, *chain = NULL;

	cr_assert_eq(stay_on((unsigned int)sched_getcpu()), 0);
	cr_assert_not_null(heap);
	cr_assert_eq(nolock_heap_populate(heap, reserve * NL_CHUNK_SIZE), 0);
	if (warm) {
		unsigned long some = size < 5000 ? 3000 : 16 * MiB / size;

		for (unsigned long i = 0; i < some; i++) {
			obj[i] = (uintptr_t)nolock_heap_kmalloc(heap, size, GFP_KERNEL);
			cr_assert_neq(obj[i], 0);
		}
		for (unsigned long i = 0; i < some; i++)
			kfree((void *)obj[i]);
	}
	/* With the rest of the heap in use, the reserve is all there is. */
	while (ordinary_fill && (p = nolock_heap_kmalloc(heap, 32768, GFP_KERNEL | __GFP_NOWARN))) {
		*(void **)p = chain;
		chain = p;
	}
	cr_assert_eq(nolock_heap_stat(heap, &st), 0);
	cr_assert_geq(st.chunks_reserve, reserve, "%s: the reserve is %lu chunks", name,
		      st.chunks_reserve);
	p = nolock_heap_kmalloc(heap, size, GFP_ATOMIC);
	cr_assert_not_null(p);
	id = NL_TAG_CACHE(
		*nl_tag(heap->h, (nl_u32)(((uintptr_t)p - heap->h->base) >> NL_CHUNK_SHIFT)));
	kfree(p);

	out->locks = hold(heap->h, id, which, all_caches, HOLDER);
	while (n < ARRAY_LEN(obj) &&
	       (p = nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE))) {
		*(uintptr_t *)p = n ^ 0x5a5a;
		((uintptr_t *)p)[1] = (uintptr_t)p;
		obj[n++] = (uintptr_t)p;
	}
	cr_assert_eq(errno, ENOMEM);
	/* The one chunk that the probe above may have made a slab of cannot be held back. */
	least = (reserve - 1) * (unsigned long)nl_cache(heap->h, id)->per_slab;
	cr_assert_geq(n, least, "%s: %lu objects of %u bytes, %lu were set aside", name, n, size,
		      least);
	for (unsigned long i = 0; i < n; i++) {
		cr_assert_eq(*(uintptr_t *)obj[i], i ^ 0x5a5a, "%s: an object was given twice",
			     name);
		cr_assert_eq(((uintptr_t *)obj[i])[1], obj[i]);
	}
	/*
	 * All can be freed with the locks still held, and had again: on one CPU, since what lies in
	 * the sheaves of another is out of reach there.
	 */
	for (unsigned long i = 0; i < n; i++)
		kfree_nolock((void *)obj[i]);
	for (unsigned long i = 0; i < n; i++) {
		p = nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE);
		cr_assert_not_null(p, "%s: %lu of %lu freed objects came back", name, i, n);
		obj[i] = (uintptr_t)p;
	}
	qsort(obj, n, sizeof(obj[0]), by_address);
	for (unsigned long i = 1; i < n; i++)
		cr_assert_neq(obj[i], obj[i - 1], "%s: an object was given twice", name);
	for (unsigned long i = 0; i < n; i++)
		kfree_nolock((void *)obj[i]);
	nolock_heap_check(heap, &rep);
	cr_assert_eq(rep.errors, 0, "%s: with the locks held: %s", name, rep.first_error);
	cr_assert_eq(rep.locks_held, out->locks, "%s: %lu locks seen held of %lu", name,
		     rep.locks_held, out->locks);

	hold(heap->h, id, which, all_caches, 0);
	while (chain) {
		p = *(void **)chain;
		kfree(chain);
		chain = p;
	}
	expect_whole(heap, &rep, name);
	cr_assert_eq(rep.allocated, 0, "%s: %lu objects lost", name, rep.allocated);
	cr_assert_eq(rep.refused, 0);
	cr_assert_eq(nolock_heap_close(heap), 0);
	out->got = n;
	out->least = least;
}

static size_t heap_size(unsigned int which)
{
	return which & HOLD_SLABS ? HEAP_SCANNED : HEAP_SIZE;
}

static void run(const char *name, unsigned int size, unsigned int which, bool all_caches, bool warm,
		bool ordinary_fill, struct outcome *out)
{
	run_on(nolock_heap_create(heap_size(which)), name, size, which, all_caches, warm,
	       ordinary_fill, out);
}

static const unsigned int sizes[] = { 16, 64, 100, 1024, 4096, 20000, 32768 };

static void each_size(const char *name, unsigned int which, bool all_caches)
{
	struct outcome free_run, full, held;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (int warm = 0; warm < 2; warm++) {
			run("nothing held", sizes[i], HOLD_NONE, false, warm, true, &free_run);
			run(name, sizes[i], which, all_caches, warm, true, &full);
			run(name, sizes[i], which, all_caches, warm, false, &held);
			cr_assert_gt(held.locks, 0);
			report("  %s, %s: %u bytes: %lu locks held: %lu objects (%lu set aside; %lu "
			       "with none held)",
			       name, warm ? "warm" : "cold", sizes[i], full.locks, full.got,
			       full.least, free_run.got);
		}
}

Test(p1, rslots_held)
{
	each_size("rslots_held", HOLD_RSLOTS, false);
}

Test(p1, aslots_held)
{
	each_size("aslots_held", HOLD_ASLOTS, false);
}

Test(p1, barns_held)
{
	each_size("barns_held", HOLD_BARNS, false);
}

Test(p1, slots_held)
{
	each_size("slots_held", HOLD_RSLOTS | HOLD_ASLOTS, false);
}

Test(p1, slabs_held)
{
	each_size("slabs_held", HOLD_SLABS, false);
}

Test(p1, everything_held_of_all_caches)
{
	each_size("everything_held", HOLD_ALL, true);
}

Test(p1, on_each_kind_of_heap)
{
	static const struct {
		const char *name;
		unsigned int which;
		bool all_caches;
	} held[] = {
		{ "R-slots", HOLD_RSLOTS, false }, { "A-slots", HOLD_ASLOTS, false },
		{ "barns", HOLD_BARNS, false },	   { "slabs", HOLD_SLABS, false },
		{ "all", HOLD_ALL, true },
	};
	static const unsigned int some[] = { 64, 1024, 20000 };
	struct nolock_heap *heap;
	struct outcome out;

	for (size_t k = 0; k < ARRAY_LEN(held); k++)
		for (size_t i = 0; i < ARRAY_LEN(some); i++)
			for_each_kind(heap, heap_size(held[k].which)) {
				run_on(heap, held[k].name, some[i], held[k].which,
				       held[k].all_caches, i % 2, true, &out);
				report("  %s heap, %s held: %u bytes: %lu locks: %lu objects (%lu "
				       "set aside)",
				       heap_kinds[kind], held[k].name, some[i], out.locks, out.got,
				       out.least);
			}
}

/* One lock word at a time, every one that there is for a cache and the next larger bucket. */
Test(p1, each_lock_alone)
{
	struct nolock_heap *heap = nolock_heap_create(HEAP_SIZE);
	nl_heap_t *h;
	static void *obj[4096];
	unsigned long words = 0;

	cr_assert_not_null(heap);
	h = heap->h;
	cr_assert_eq(nolock_heap_populate(heap, 4 * MiB), 0);
	for (nl_u32 id = 0; id < NL_NR_KMALLOC; id++)
		for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
			nl_slot_t *r = nl_rslot(h, cpu, id);
			nl_u64 *lock[3] = { &r->lock, &nl_aslot(h, cpu, id)->lock,
					    &nl_cache(h, id)->barn[cpu % h->nr_nodes].lock };

			for (int k = 0; k < 3; k++) {
				nl_u32 size = nl_cache(h, id)->object_size, n = 300;

				if (size * n > 2 * MiB)
					n = (nl_u32)(2 * MiB / size);
				if (k)
					*lock[k] = HOLDER;
				else
					hold_rslot(r, HOLDER);
				for (nl_u32 i = 0; i < n; i++) {
					obj[i] = nolock_heap_kmalloc_nolock(heap, size, 0,
									    NUMA_NO_NODE);
					cr_assert_not_null(obj[i], "cache %u, lock %d", id, k);
					pat_fill(obj[i], size, i);
				}
				for (nl_u32 i = 0; i < n; i++) {
					cr_assert(pat_check(obj[i], size, i));
					kfree_nolock(obj[i]);
				}
				cr_assert_eq(*lock[k], HOLDER, "a held lock was taken");
				if (k)
					*lock[k] = 0;
				else
					hold_rslot(r, 0);
				words++;
			}
			/* What the sheaves and slabs of this cache keep is not for the next one. */
			nolock_heap_trim(heap);
			cr_assert_eq(nolock_heap_populate(heap, 4 * MiB), 0);
			expect_whole(heap, NULL, "after one held lock");
		}
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  each_lock_alone: %lu lock words held in turn", words);
}
