// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_check.c - nolock_heap_check(): it agrees with a test's own books, and it finds damage.
 *
 * Each kind of damage is done on purpose through the structs of layout.h, must be reported, and
 * must be gone when it is undone. (Not damage: an object of a sheaf exchanged for an allocated
 * one, or a slot's word set back to before a pop. Both are states that the users could have made.) Then metadata is damaged at random: the check may say what it
 * likes, but has to come to an end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "core/slot.h"
#include "hold.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)

Test(check, agrees_with_own_books)
{
	enum { MAX = 6000, CACHES = 6 };
	struct nolock_heap *heap = nolock_heap_create(256 * MiB);
	static const unsigned int sizes[CACHES] = { 16, 40, 128, 700, 4096, 30000 };
	struct kmem_cache *s[CACHES];
	struct nolock_heap_report rep;
	static void *obj[MAX];
	static bool is_large[MAX];
	unsigned long live = 0, large = 0, allocs = 0, frees = 0, n = 0, checks = 0;
	struct rng r;

	cr_assert_not_null(heap);
	cr_assert_eq(nolock_heap_populate(heap, 8 * MiB), 0);
	for (int i = 0; i < CACHES; i++)
		cr_assert_not_null(
			s[i] = nolock_heap_kmem_cache_create(heap, "books", sizes[i], NULL, 0));
	for (int seed = 1; seed <= 8; seed++) {
		rng_init(&r, (uint64_t)seed);
		for (int i = 0; i < 20000; i++) {
			uint32_t what = rng_below(&r, 100);

			if (n < MAX && (n == 0 || what < 52)) {
				is_large[n] = false;
				if (what < 1) {
					obj[n] = nolock_heap_kmalloc(
						heap, 40000 + rng_below(&r, 200000), GFP_KERNEL);
					is_large[n] = true;
				} else if (what < 20) {
					obj[n] = nolock_heap_kmalloc_nolock(
						heap, 1 + rng_below(&r, 2000), 0, NUMA_NO_NODE);
				} else if (what < 30) {
					obj[n] = nolock_heap_kmalloc(heap, 1 + rng_below(&r, 3000),
								     GFP_ATOMIC);
				} else {
					obj[n] = kmem_cache_alloc(s[rng_below(&r, CACHES)],
								  GFP_KERNEL);
				}
				cr_assert_not_null(obj[n]);
				if (is_large[n++])
					large++;
				else
					live++;
				allocs++;
			} else {
				uint32_t k = rng_below(&r, (uint32_t)n);

				if (what & 1)
					kfree(obj[k]);
				else
					kfree_nolock(obj[k]);
				if (is_large[k])
					large--;
				else
					live--;
				obj[k] = obj[--n];
				is_large[k] = is_large[n];
				frees++;
			}
			if (i % 4999)
				continue;
			expect_whole(heap, &rep, "in a random workload");
			checks++;
			cr_assert_eq(rep.allocated, live, "%lu allocated, %lu live", rep.allocated,
				     live);
			cr_assert_eq(rep.large, large, "%lu large, %lu live", rep.large, large);
			cr_assert_eq(rep.allocs - rep.frees, live + large);
			cr_assert_eq(rep.allocs, allocs, "%lu allocations counted, %lu made",
				     rep.allocs, allocs);
			cr_assert_eq(rep.frees, frees);
			cr_assert_eq(rep.objects, rep.allocated + rep.in_slabs + rep.in_sheaves);
			cr_assert_eq(rep.chunks,
				     rep.chunks_free + rep.chunks_slab + rep.chunks_large);
			cr_assert_eq(rep.refused, 0);
			cr_assert_leq(rep.chunks_reserve, rep.chunks_free);
		}
	}
	cr_assert_eq(nolock_heap_check(heap, NULL), 0);
	while (n)
		kfree(obj[--n]);
	for (int i = 0; i < CACHES; i++)
		cr_assert_eq(kmem_cache_destroy(s[i]), 0);
	nolock_heap_trim(heap);
	expect_whole(heap, &rep, "after everything was freed");
	cr_assert_eq(rep.allocated + rep.large, 0);
	cr_assert_eq(rep.in_sheaves, 0);
	cr_assert_eq(rep.chunks_slab, 0, "%lu slabs left after trim", rep.chunks_slab);
	cr_assert_eq(nolock_heap_close(heap), 0);
	report("  agrees_with_own_books: %lu allocations, %lu checks", allocs, checks);
}

/* A heap with something in every place: slots, spare, barn, bitmaps, large, live. */
struct scene {
	struct nolock_heap *heap;
	nl_heap_t *h;
	struct kmem_cache *s;
	nl_u32 id;
	nl_cache_t *cache;
	nl_barn_t *barn;
	nl_slot_t *slot; /* with objects in main */
	nl_sheaf_t *main;
	nl_u32 main_size;
	void *live; /* allocated, in the scene's cache */
	void *large;
	nl_u32 chunk; /* of live */
};

static nl_u32 chunk_of(nl_heap_t *h, const void *p)
{
	return (nl_u32)(((uintptr_t)p - h->base) >> NL_CHUNK_SHIFT);
}

static void scene_make(struct scene *sc)
{
	struct kmem_cache_args args = { .sheaf_capacity = 25 };
	struct slab_sheaf *sheaf[2];
	enum { N = 2000 };
	static void *obj[N];

	/* All of it on one node. */
	cr_assert_eq(stay_on_nth(0), 0);
	sc->heap = nolock_heap_create(HEAP_SIZE);
	cr_assert_not_null(sc->heap);
	sc->h = sc->heap->h;
	sc->s = nolock_heap_kmem_cache_create(sc->heap, "scene", 320, &args, 0);
	cr_assert_not_null(sc->s);
	for (int i = 0; i < N; i++)
		cr_assert_not_null(obj[i] = kmem_cache_alloc(sc->s, GFP_KERNEL));
	for (int i = 1; i < N; i++)
		kmem_cache_free(sc->s, obj[i]);
	sc->live = obj[0];
	sc->large = nolock_heap_kmalloc(sc->heap, 300000, GFP_KERNEL);
	cr_assert_not_null(sc->large);
	sc->chunk = chunk_of(sc->h, sc->live);
	sc->id = NL_TAG_CACHE(*nl_tag(sc->h, sc->chunk));
	sc->cache = nl_cache(sc->h, sc->id);
	sc->barn = &sc->cache->barn[nl_here(sc->heap)];
	sc->slot = NULL;
	for (nl_u32 cpu = 0; cpu < sc->h->nr_slots && !sc->slot; cpu++)
		for (int kind = 0; kind < 2; kind++) {
			nl_slot_t *slot = kind ? nl_rslot(sc->h, cpu, sc->id) :
						 nl_aslot(sc->h, cpu, sc->id);

			if ((slot->word & 0xffff) >= 3)
				sc->slot = slot;
		}
	cr_assert_not_null(sc->slot, "no slot holds objects");
	sc->main = nl_sheaf(sc->h, sc->slot->main - 1);
	sc->main_size = (nl_u32)(sc->slot->word & 0xffff);
	/* A build without barns has their lists all the same. */
	for (int i = 0; !NL_BARN_MAX && i < 2; i++)
		cr_assert_not_null(sheaf[i] = kmem_cache_prefill_sheaf(sc->s, GFP_KERNEL, 25));
	for (int i = 0; !NL_BARN_MAX && i < 2; i++)
		nl_barn_push(sc->h, &sc->barn->full,
			     (nl_u32)((nl_sheaf_t *)sheaf[i] - nl_sheaf(sc->h, 0)) + 1);
	cr_assert_gt(sc->barn->full.nr, 1, "the barn holds no two full sheaves");
	expect_whole(sc->heap, NULL, "before any damage");
}

static unsigned long kinds, total_errors;

/* The damage is done: it must be seen, and be described. */
static void expect_damage(struct scene *sc, const char *what)
{
	struct nolock_heap_report rep;
	int rc = nolock_heap_check(sc->heap, &rep);

	cr_expect_eq(rc, -EUCLEAN, "%s: the check returned %d", what, rc);
	cr_expect_gt(rep.errors, 0, "%s: no error was counted", what);
	if (rc == -EUCLEAN)
		cr_expect_neq(rep.first_error[0], 0, "%s: nothing in words", what);
	cr_expect_not_null(memchr(rep.first_error, 0, sizeof(rep.first_error)));
	kinds++;
	total_errors += rep.errors;
}

#define DAMAGE(sc, what, lvalue, value)                                                            \
	do {                                                                                       \
		__typeof__(lvalue) *spot_ = &(lvalue), old_ = *spot_;                              \
                                                                                                   \
		*spot_ = (__typeof__(lvalue))(value);                                              \
		cr_assert_neq(*spot_, old_, what ": nothing was changed");                         \
		expect_damage(sc, what);                                                           \
		*spot_ = old_;                                                                     \
		expect_whole((sc)->heap, NULL, "after undoing: " what);                            \
	} while (0)

Test(check, finds_damage_of_slots_and_sheaves)
{
	struct scene sc;
	nl_barn_t *barn;
	nl_sheaf_t *full, *second;
	nl_word_t *map;
	nl_u32 at, spare;

	scene_make(&sc);
	barn = sc.barn;
	full = nl_sheaf(sc.h, barn->full.first - 1);
	second = nl_sheaf(sc.h, full->next - 1);
	map = nl_sheaf_map(sc.h);

	DAMAGE(&sc, "an object twice in one sheaf", sc.main->obj[0], sc.main->obj[1]);
	DAMAGE(&sc, "an object in two sheaves", full->obj[0], sc.main->obj[0]);
	DAMAGE(&sc, "a null object", sc.main->obj[0], 0);
	DAMAGE(&sc, "an interior pointer in a sheaf", sc.main->obj[0], sc.main->obj[0] + 16);
	DAMAGE(&sc, "a foreign pointer in a sheaf", sc.main->obj[0], (uintptr_t)&sc);
	DAMAGE(&sc, "a wild pointer in a sheaf", full->obj[0], 0xffff888012345678ull);
	DAMAGE(&sc, "a large object in a sheaf", full->obj[0], (uintptr_t)sc.large);
	DAMAGE(&sc, "metadata in a sheaf", full->obj[0], sc.h->base + 4096);
	DAMAGE(&sc, "a main sheaf larger than its capacity", sc.slot->word,
	       (sc.slot->word & ~0xffffull) | 0xffff);
	DAMAGE(&sc, "a main sheaf's number out of range", sc.slot->main, 0xfffffff0u);
	DAMAGE(&sc, "no main sheaf but objects", sc.slot->main, 0);
	DAMAGE(&sc, "a main sheaf that is also in the barn", sc.slot->main, barn->full.first);
	DAMAGE(&sc, "main's objects elsewhere", sc.slot->objs, sc.slot->objs + 8);
	DAMAGE(&sc, "main's capacity out of range", sc.slot->cap, 5000);
	spare = sc.slot->spare;
	DAMAGE(&sc, "a spare sheaf's number out of range", sc.slot->spare, sc.h->nr_sheaves + 1);
	DAMAGE(&sc, "a spare sheaf that is main too", sc.slot->spare, sc.slot->main);
	if (spare)
		DAMAGE(&sc, "a spare sheaf lost", sc.slot->spare, 0);
	DAMAGE(&sc, "a sheaf of another cache", full->cache, full->cache + 1);
	DAMAGE(&sc, "a sheaf of no cache", full->cache, 0);
	DAMAGE(&sc, "a barn's sheaf with a size out of range", full->size, NL_SHEAF_MAX + 1);
	DAMAGE(&sc, "a barn's sheaf with a size far out of range", full->size, 0xffff);
	DAMAGE(&sc, "one object less in a barn's sheaf", full->size, full->size - 1);
	DAMAGE(&sc, "a cycle of one in the barn", full->next, barn->full.first);
	DAMAGE(&sc, "a cycle of two in the barn", second->next, barn->full.first);
	DAMAGE(&sc, "a barn's list cut short", full->next, 0);
	DAMAGE(&sc, "a barn's link out of range", full->next, 0x7fffffff);
	DAMAGE(&sc, "a barn's head out of range", barn->full.first, sc.h->nr_sheaves + 1);
	DAMAGE(&sc, "a barn's head lost", barn->full.first, 0);
	DAMAGE(&sc, "a barn that counts one more", barn->full.nr, barn->full.nr + 1);
	DAMAGE(&sc, "a barn that counts one less", barn->full.nr, barn->full.nr - 1);
	DAMAGE(&sc, "a barn that counts millions", barn->empty.nr, 0xffffffffu);
	DAMAGE(&sc, "a full sheaf among the empty ones", barn->empty.first, barn->full.first);
	at = barn->full.first - 1;
	DAMAGE(&sc, "a sheaf in use marked free", map[at / 64], map[at / 64] | 1ull << (at % 64));
	/* A sheaf that is in use by nobody, but not free. */
	for (at = 0; at < sc.h->nr_sheaves; at++)
		if (map[at / 64] & 1ull << (at % 64))
			break;
	DAMAGE(&sc, "a sheaf lost", map[at / 64], map[at / 64] & ~(1ull << (at % 64)));
	report("  slots and sheaves: %lu kinds of damage, %lu errors reported", kinds,
	       total_errors);
}

/* A thread that dies, or a repair beside one that works, may leave a count off by one, 0 included. */
Test(check, counts_that_a_death_left_off)
{
	struct nolock_heap_stat st;
	struct scene sc;
	nl_u32 was;

	scene_make(&sc);
	kfree(sc.large);
	was = sc.h->nr_large;
	cr_assert_eq(was, 0);
	sc.h->nr_large = (nl_u32)-1;
	expect_damage(&sc, "a count of large objects below 0, and nobody died");
	sc.h->deaths++;
	expect_whole(sc.heap, NULL, "a count of large objects below 0");
	cr_expect_eq(nolock_heap_stat(sc.heap, &st), 0);
	cr_expect_eq(st.large, 0);
	sc.h->nr_large = (nl_u32)-3;
	expect_damage(&sc, "a count of large objects further below 0 than threads died");
}

Test(check, finds_damage_of_slabs_and_chunks)
{
	struct scene sc;
	nl_slab_t *slab;
	nl_group_t *group;
	nl_u32 idx, large, free_chunk = 0, word, other;
	nl_u64 bit;

	scene_make(&sc);
	slab = nl_slab(sc.h, sc.chunk);
	group = nl_group(sc.h, sc.chunk >> NL_GROUP_SHIFT);
	idx = nl_index((nl_u32)((uintptr_t)sc.live & (NL_CHUNK_SIZE - 1)), sc.cache->recip);
	bit = 1ull << (idx % 64);
	large = chunk_of(sc.h, sc.large);
	for (nl_u32 c = sc.h->first_chunk; c < sc.h->nr_open * NL_GROUP_CHUNKS; c++)
		if (*nl_tag(sc.h, c) == NL_TAG(NL_KIND_FREE, 0))
			free_chunk = c;
	cr_assert_neq(free_chunk, 0);
	other = sc.id ? sc.id - 1 : 1;

	DAMAGE(&sc, "an allocated object's bit set", slab->free[idx / 64],
	       slab->free[idx / 64] | bit);
	/* A free object's bit, of whatever slab of the cache. */
	for (nl_u32 c = sc.h->first_chunk; c < sc.h->nr_open * NL_GROUP_CHUNKS; c++)
		for (word = 0; word < sc.cache->words; word++) {
			nl_slab_t *any = nl_slab(sc.h, c);

			if (*nl_tag(sc.h, c) != NL_TAG(NL_KIND_SLAB, sc.id) || !any->free[word])
				continue;
			DAMAGE(&sc, "a free object's bit cleared", any->free[word],
			       any->free[word] & (any->free[word] - 1));
			DAMAGE(&sc, "all bits of a word cleared", any->free[word], 0);
			c = ~0u - 1;
			break;
		}
	DAMAGE(&sc, "a bit beyond the last object", slab->free[sc.cache->per_slab / 64],
	       slab->free[sc.cache->per_slab / 64] | 1ull << (sc.cache->per_slab % 64));
	DAMAGE(&sc, "bits of a word that the slab does not have", slab->free[NL_SLAB_WORDS - 1],
	       0xf0);
	DAMAGE(&sc, "a slab tagged free", *nl_tag(sc.h, sc.chunk), NL_TAG(NL_KIND_FREE, 0));
	DAMAGE(&sc, "a slab tagged as another cache's", *nl_tag(sc.h, sc.chunk),
	       NL_TAG(NL_KIND_SLAB, other));
	DAMAGE(&sc, "a slab tagged as a cache that is not there", *nl_tag(sc.h, sc.chunk),
	       NL_TAG(NL_KIND_SLAB, NL_MAX_CACHES - 1));
	DAMAGE(&sc, "a slab tagged with a cache out of range", *nl_tag(sc.h, sc.chunk),
	       NL_TAG(NL_KIND_SLAB, 0xffff));
	DAMAGE(&sc, "a slab tagged large", *nl_tag(sc.h, sc.chunk), NL_TAG(NL_KIND_LARGE, 0));
	DAMAGE(&sc, "a slab tagged as a large object's body", *nl_tag(sc.h, sc.chunk),
	       NL_TAG(NL_KIND_BODY, 0));
	DAMAGE(&sc, "a kind that does not exist", *nl_tag(sc.h, sc.chunk), NL_TAG(77, 0));
	DAMAGE(&sc, "a slab's chunk marked free", group->chunk_free,
	       group->chunk_free | 1ull << (sc.chunk % 64));
	DAMAGE(&sc, "a slab's chunk in the reserve", group->reserve,
	       group->reserve | 1ull << (sc.chunk % 64));
	group = nl_group(sc.h, free_chunk >> NL_GROUP_SHIFT);
	DAMAGE(&sc, "a free chunk lost", group->chunk_free,
	       group->chunk_free & ~(1ull << (free_chunk % 64)));
	DAMAGE(&sc, "a free chunk in the reserve too", group->reserve,
	       group->reserve | 1ull << (free_chunk % 64));
	DAMAGE(&sc, "bits in a free chunk's slab", nl_slab(sc.h, free_chunk)->free[0], 1);
	DAMAGE(&sc, "a free chunk tagged slab", *nl_tag(sc.h, free_chunk),
	       NL_TAG(NL_KIND_SLAB, sc.id));
	DAMAGE(&sc, "a body without a large object", *nl_tag(sc.h, free_chunk),
	       NL_TAG(NL_KIND_BODY, 0));
	DAMAGE(&sc, "a large object one chunk longer", nl_slab(sc.h, large)->nr_chunks,
	       nl_slab(sc.h, large)->nr_chunks + 1);
	DAMAGE(&sc, "a large object one chunk shorter", nl_slab(sc.h, large)->nr_chunks,
	       nl_slab(sc.h, large)->nr_chunks - 1);
	DAMAGE(&sc, "a large object of no chunk", nl_slab(sc.h, large)->nr_chunks, 0);
	DAMAGE(&sc, "a large object longer than the heap", nl_slab(sc.h, large)->nr_chunks,
	       0xffffffffu);
	DAMAGE(&sc, "a large object's head tagged free", *nl_tag(sc.h, large),
	       NL_TAG(NL_KIND_FREE, 0));
	DAMAGE(&sc, "a large object's body tagged free", *nl_tag(sc.h, large + 1),
	       NL_TAG(NL_KIND_FREE, 0));
	DAMAGE(&sc, "a large object's body tagged slab", *nl_tag(sc.h, large + 1),
	       NL_TAG(NL_KIND_SLAB, sc.id));
	DAMAGE(&sc, "one large object more", sc.h->nr_large, sc.h->nr_large + 1);
	DAMAGE(&sc, "a slab more than there are", sc.cache->nr_slabs, sc.cache->nr_slabs + 1);
	DAMAGE(&sc, "a reserve that is not there", sc.h->nr_reserve, sc.h->nr_reserve + 1);
	report("  slabs and chunks: %lu kinds of damage, %lu errors reported", kinds, total_errors);
}

Test(check, finds_damage_of_counters_and_caches)
{
	struct scene sc;
	nl_slot_t *aslot;

	scene_make(&sc);
	aslot = nl_aslot(sc.h, 0, sc.id);
	DAMAGE(&sc, "objects that came from nowhere", sc.slot->stat[NL_STAT_IN],
	       sc.slot->stat[NL_STAT_IN] + 1);
	DAMAGE(&sc, "objects that went nowhere", sc.slot->stat[NL_STAT_OUT],
	       sc.slot->stat[NL_STAT_OUT] + 7);
	DAMAGE(&sc, "a slow allocation more", aslot->stat[NL_STAT_ALLOC_SLOWPATH],
	       aslot->stat[NL_STAT_ALLOC_SLOWPATH] + 1);
	DAMAGE(&sc, "a slow free more", aslot->stat[NL_STAT_FREE_SLOWPATH],
	       aslot->stat[NL_STAT_FREE_SLOWPATH] + 1);
	DAMAGE(&sc, "a large allocation more", sc.h->large_allocs, sc.h->large_allocs + 1);
	DAMAGE(&sc, "a large free more", sc.h->large_frees, sc.h->large_frees + 1);
	DAMAGE(&sc, "objects of size 0", sc.cache->size, 0);
	DAMAGE(&sc, "objects of another size", sc.cache->size, 160);
	DAMAGE(&sc, "objects of a wild size", sc.cache->size, 0xffffffffu);
	DAMAGE(&sc, "a wrong reciprocal", sc.cache->recip, sc.cache->recip / 2);
	DAMAGE(&sc, "too many objects in a slab", sc.cache->per_slab, 100000);
	DAMAGE(&sc, "no object in a slab", sc.cache->per_slab, 0);
	DAMAGE(&sc, "too many words in a slab", sc.cache->words, 1000);
	DAMAGE(&sc, "a capacity beyond a sheaf", sc.cache->capacity, 1000);
	DAMAGE(&sc, "a live cache marked free", sc.cache->state, NL_CACHE_FREE);
	DAMAGE(&sc, "a state that does not exist", sc.cache->state, 99);
	report("  counters and caches: %lu kinds of damage, %lu errors reported", kinds,
	       total_errors);
}

Test(check, reports_held_locks)
{
	struct scene sc;
	struct nolock_heap_report rep;
	const nl_u64 holder = NL_OWNER(1, 0xfff0) | 1;

	scene_make(&sc);
	hold_aslot(nl_aslot(sc.h, 0, sc.id), holder);
	hold_rslot(nl_rslot(sc.h, 0, sc.id), holder);
	sc.barn->lock = holder;
	nolock_heap_check(sc.heap, &rep);
	cr_assert_eq(rep.locks_held, 3, "%lu locks found held", rep.locks_held);
	hold_aslot(nl_aslot(sc.h, 0, sc.id), 0);
	hold_rslot(nl_rslot(sc.h, 0, sc.id), 0);
	sc.barn->lock = 0;
	expect_whole(sc.heap, NULL, "after the locks were released");
}

/*
 * Random damage of everything behind the header, which the checker may believe in its own
 * process. It must end and not crash: each round in a child, whose copy of the heap is its own.
 */
Test(check, survives_random_damage)
{
	enum { ROUNDS = 40, EACH = 60 };
	struct scene sc;
	unsigned long found = 0;

	scene_make(&sc);
	for (int round = 0; round < ROUNDS; round++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0) {
			die_with_parent();
			nl_u64 meta = (nl_u64)sc.h->first_chunk << NL_CHUNK_SHIFT;
			struct nolock_heap_report rep;
			unsigned int seen = 0;
			struct rng r;

			rng_init(&r, (uint64_t)round + 1);
			/* What a child does at its first call comes before the damage. */
			if (nolock_heap_check(sc.heap, NULL))
				_exit(101);
			for (int i = 0; i < EACH; i++) {
				nl_u32 *at, spots = 1 + rng_below(&r, 5);

				while (spots--) {
					nl_u64 off;

					switch (rng_below(&r, 5)) {
					case 0: /* around what is in use */
						at = (nl_u32 *)sc.slot + rng_below(&r, 60);
						break;
					case 1:
						at = (nl_u32 *)sc.cache + rng_below(&r, 40);
						break;
					case 2:
						at = nl_tag(sc.h,
							    sc.h->first_chunk + rng_below(&r, 64));
						break;
					case 3:
						at = (nl_u32 *)nl_sheaf(sc.h, rng_below(&r, 20)) +
						     rng_below(&r, 30);
						break;
					default: /* anywhere that is opened */
						off = sc.h->off_cache +
						      rng_next(&r) %
							      (sc.h->off_tag - sc.h->off_cache);
						if (off >= meta)
							continue;
						at = (nl_u32 *)(sc.heap->base + (off & ~3ull));
					}
					*at = rng_below(&r, 3) ? (nl_u32)rng_next(&r) :
								 *at ^ 1u << rng_below(&r, 32);
				}
				seen += nolock_heap_check(sc.heap, &rep) == -EUCLEAN;
				if (!memchr(rep.first_error, 0, sizeof(rep.first_error)))
					_exit(100);
			}
			_exit(seen < 90 ? (int)seen : 90);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) <= 90,
			  "round %d: the check ended with status %#x", round, status);
		found += WEXITSTATUS(status) > 0;
	}
	cr_assert_geq(found, ROUNDS * 3 / 4, "damage was found in %lu of %d rounds", found, ROUNDS);
	expect_whole(sc.heap, NULL, "in the process that did no damage");
	report("  survives_random_damage: %d checks of damaged heaps, found in %lu of %d rounds",
	       ROUNDS * EACH, found, ROUNDS);
}
