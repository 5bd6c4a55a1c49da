// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_garbage.c - a heap whose metadata is garbage, at random and aimed: programs that
 * allocate from it and free to it end, the kernel has nothing to complain about, and a whole heap
 * beside it serves on.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "nolock_help.h"

static nl_u64 rng_state;

static nl_u64 rnd(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

/* A number that a loop bound, an index or a size would not like. */
static nl_u64 nasty(void)
{
	static const nl_u64 some[] = { 0,	   1,	       2,
				       63,	   64,	       65,
				       0xffff,	   0x10000,    0x7fffffff,
				       0x80000000, 0xffffffff, 1ULL << 32,
				       ~0ULL,	   1ULL << 63, 0x567000000000ULL };

	return rnd() & 1 ? some[rnd() % (sizeof(some) / sizeof(some[0]))] : rnd();
}

struct heap_copy {
	char *at;
	char *saved;
	size_t size; /* of all metadata that is present */
	struct nl_heap head;
};

static void spoil(const struct heap_copy *c, nl_u64 from, nl_u64 to, bool nasty_words)
{
	for (nl_u64 off = from; off + 8 <= to && off + 8 <= c->size; off += 8) {
		nl_u64 word = nasty_words ? nasty() : rnd();

		memcpy(c->at + off, &word, sizeof(word));
	}
}

static void everything(const struct heap_copy *c)
{
	spoil(c, 0, c->size, false);
	/* Or no CPU would have a slot, and nothing would be tried. */
	((struct nl_heap *)c->at)->nr_slots = 1u << 31;
}

static void everything_nasty(const struct heap_copy *c)
{
	spoil(c, 0, c->size, true);
	((struct nl_heap *)c->at)->nr_slots = 1u << 31;
}

static void header(const struct heap_copy *c)
{
	spoil(c, offsetof(struct nl_heap, nr_groups), offsetof(struct nl_heap, client), true);
	((struct nl_heap *)c->at)->nr_slots = 1u << 31;
}

/* All offsets are right, all counters are not. */
static void counters(const struct heap_copy *c)
{
	spoil(c, offsetof(struct nl_heap, cursor), offsetof(struct nl_heap, client), true);
	((struct nl_heap *)c->at)->nr_open = ~0u;
	((struct nl_heap *)c->at)->nr_sheaves = (nl_u32)nasty();
}

static void caches(const struct heap_copy *c)
{
	spoil(c, c->head.off_cache, c->head.off_rslot, true);
}

/* Slots that name any sheaf, hold any number of objects anywhere, and are not locked. */
static void slots(const struct heap_copy *c)
{
	spoil(c, c->head.off_aslot, c->head.off_smap, true);
	for (nl_u64 off = c->head.off_aslot; off < c->head.off_smap; off += sizeof(struct nl_slot))
		((struct nl_slot *)(c->at + off))->lock = 0;
}

static void sheaves(const struct heap_copy *c)
{
	spoil(c, c->head.off_smap, c->head.off_gfree, true);
}

static void bitmaps(const struct heap_copy *c)
{
	spoil(c, c->head.off_gfree, c->head.off_tag, false);
	spoil(c, c->head.off_group, c->size, false);
}

static void tags(const struct heap_copy *c)
{
	spoil(c, c->head.off_tag, c->head.off_group, true);
}

/* The longest way round: every hint leads on, every tag fits, and no bit is set anywhere. */
static void wild_goose_chase(const struct heap_copy *c)
{
	struct nl_heap *h = (struct nl_heap *)c->at;

	h->nr_open = NL_MAX_GROUPS;
	h->first_chunk = 0;
	memset(c->at + c->head.off_gfree, 0xff, c->head.off_tag - c->head.off_gfree);
	for (nl_u64 off = c->head.off_tag; off + 4 <= c->head.off_group; off += 4)
		*(nl_u32 *)(c->at + off) = NL_TAG(NL_KIND_SLAB, 3);
	for (nl_u64 off = c->head.off_group; off < c->size; off += sizeof(struct nl_group)) {
		struct nl_group *g = (struct nl_group *)(c->at + off);

		memset(g, 0, sizeof(*g));
		memset(g->partial, 0xff, sizeof(g->partial));
		for (unsigned int i = 0; i < NL_GROUP_CHUNKS; i++)
			g->slab[i].summary = ~0ULL;
	}
}

/* Sheaf lists that run in circles, and slots that share one sheaf. */
static void circles(const struct heap_copy *c)
{
	for (unsigned int i = 0; i < c->head.nr_sheaves; i++) {
		struct nl_sheaf *s = (struct nl_sheaf *)(c->at + c->head.off_sheaf) + i;

		s->next = i + 1;
		s->size = (nl_u16)(rnd() & 1 ? 0 : 126);
		s->cache = 4;
		for (unsigned int k = 0; k < NL_SHEAF_MAX; k++)
			s->obj[k] = c->head.base + (rnd() & 0x7fffff0);
	}
	for (nl_u64 off = c->head.off_aslot; off < c->head.off_smap;
	     off += sizeof(struct nl_slot)) {
		struct nl_slot *s = (struct nl_slot *)(c->at + off);

		s->main = s->spare = 1;
		s->objs = (nl_u64)(c->at + c->head.off_sheaf + 16);
		s->cap = 126;
		s->word = rnd() & 1 ? 0 : 126;
		s->lock = 0;
	}
	for (unsigned int id = 0; id < NL_MAX_CACHES; id++) {
		struct nl_barn *b = &((struct nl_cache *)(c->at + c->head.off_cache))[id].barn[0];

		b->full.first = b->empty.first = 1;
		b->full.nr = b->empty.nr = (nl_u32)rnd();
	}
}

static const struct {
	const char *name;
	void (*spoil)(const struct heap_copy *c);
	unsigned int seeds;
} kinds[] = {
	{ "everything at random", everything, 4 },
	{ "everything, nasty numbers", everything_nasty, 4 },
	{ "header", header, 6 },
	{ "counters", counters, 3 },
	{ "caches", caches, 6 },
	{ "slots", slots, 6 },
	{ "sheaves", sheaves, 6 },
	{ "bitmaps", bitmaps, 6 },
	{ "tags", tags, 6 },
	{ "wild goose chase", wild_goose_chase, 1 },
	{ "circles", circles, 4 },
};

/*
 * Heaps of each kind at most, from the environment: kernels that write a stack trace into the BPF
 * program's stream for each fault in an arena take minutes for all of them under emulation.
 */
static unsigned int heaps_at_most(void)
{
	const char *text = getenv("NOLOCK_GARBAGE_HEAPS");
	char *end = "";
	unsigned long most = text ? strtoul(text, &end, 10) : UINT_MAX;

	cr_assert(!*end && most > 0 && most <= UINT_MAX, "NOLOCK_GARBAGE_HEAPS=%s: want 1 or more",
		  text);
	return (unsigned int)most;
}

static nl_u64 now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (nl_u64)ts.tv_sec * 1000000 + (nl_u64)ts.tv_nsec / 1000;
}

/* The same of the bulk forms and of sheaves: real ones, and what may be taken for one. */
static void ask_forms(struct nolock_call_bpf *s, const struct heap_copy *c, nl_u32 nr)
{
	char *cache = c->at + c->head.off_cache + (rnd() & 63) * sizeof(struct nl_cache);
	char *array = c->at + c->size - 8 * 4096;
	nl_u64 sheaf;

	nr = nr % 4096 + 1;
	call_with(s, CALL_ALLOC_BULK, cache, array, nr, rnd() & 1 ? __GFP_ZERO : 0);
	call_with(s, CALL_FREE_BULK, cache, array, nr, 0);
	call_with(s, CALL_FREE_BULK, cache, (void *)nasty(), nr, 0);
	sheaf = call_with(s, CALL_PREFILL, cache, NULL, nr, 0);
	for (unsigned int i = 0; i < 4; i++) {
		call_with(s, CALL_FROM_SHEAF, cache, (void *)sheaf, 0, __GFP_ZERO);
		call_with(s, CALL_SHEAF_SIZE, NULL, (void *)sheaf, 0, 0);
		call_with(s, CALL_RETURN, cache, (void *)sheaf, 0, 0);
		sheaf = i == 2 ? nasty() :
				 c->head.base + c->head.off_sheaf +
					 (rnd() & 0xff) * sizeof(struct nl_sheaf);
	}
}

/* What a program may ask for, sense or none. */
static void ask(struct nolock_call_bpf *s, const struct heap_copy *c, nl_u64 *longest)
{
	static const unsigned int sizes[] = { 1, 64, 100, 1000, 4096, 32768 };

	for (unsigned int i = 0; i < 12; i++) {
		nl_u64 start = now_us(), took, obj;

		obj = call1(s, rnd() & 1 ? CALL_ALLOC : CALL_ZALLOC, sizes[i % 6], 0, NUMA_NO_NODE);
		call1(s, CALL_FREE, rnd() & 1 ? obj : c->head.base + (rnd() & 0x3ffffff), 0, 0);
		call1(s, CALL_FREE, nasty(), 0, 0);
		obj = call1(s, CALL_CACHE_ALLOC,
			    c->head.base + c->head.off_cache +
				    (rnd() & 63) * sizeof(struct nl_cache),
			    0, NUMA_NO_NODE);
		call1(s, CALL_FREE, obj, 0, 0);
		call1(s, CALL_CACHE_ALLOC, nasty(), __GFP_ZERO, NUMA_NO_NODE);
		ask_forms(s, c, sizes[i % 6]);
		took = now_us() - start;
		if (took > *longest)
			*longest = took;
	}
}

/* What the kernel has to say since the given moment of its log: no line of it is a complaint. */
static void kernel_is_well(int kmsg)
{
	static const char *const complaints[] = { "BUG",	"WARNING",
						  "Oops",	"protection fault",
						  "stall",	"lockup",
						  "Call Trace", "KASAN" };
	char line[8192];
	ssize_t n;

	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		line[n] = 0;
		for (unsigned int i = 0; i < sizeof(complaints) / sizeof(complaints[0]); i++)
			cr_assert_null(strstr(line, complaints[i]), "the kernel says: %s", line);
	}
	cr_assert_eq(errno, EAGAIN);
}

Test(nolock_garbage, programs_end_and_the_kernel_lives, .timeout = 580)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct nolock_heap *heap = heap_new(0, 4), *whole = heap_new(1, 4);
	struct nolock_call_bpf *s, *beside;
	struct heap_copy c = { .at = heap->base };
	unsigned int trials = 0, most = heaps_at_most();

	cr_assert_geq(kmsg, 0, "/dev/kmsg: %s", strerror(errno));
	cr_assert_geq(lseek(kmsg, 0, SEEK_END), 0);
	memcpy(&c.head, heap->h, sizeof(c.head));
	c.size = c.head.off_group + (nl_u64)c.head.nr_open * sizeof(struct nl_group);
	c.saved = malloc(c.size);
	cr_assert(c.saved);
	pin(0);
	s = call_load(nolock_heap_fd(heap));
	beside = call_load(nolock_heap_fd(whole));
	/* In use, with sheaves and slabs, before it is spoilt. */
	for (unsigned int size = 16; size <= 32768; size *= 2)
		cr_assert(call1(s, CALL_ALLOC, size, 0, NUMA_NO_NODE));
	memcpy(c.saved, c.at, c.size);
	for (unsigned int k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		unsigned int seeds = kinds[k].seeds < most ? kinds[k].seeds : most;
		nl_u64 longest = 0;

		for (unsigned int seed = 1; seed <= seeds; seed++, trials++) {
			nl_u64 obj;

			memcpy(c.at, c.saved, c.size);
			rng_state = (seed + 1) * 0x9e3779b97f4a7c15ULL + k;
			kinds[k].spoil(&c);
			ask(s, &c, &longest);
			obj = call1(beside, CALL_ALLOC, 64, 0, NUMA_NO_NODE);
			cr_assert(obj);
			call1(beside, CALL_FREE, obj, 0, 0);
		}
		figure("%s: %u heaps, 264 calls on each, the longest 22 took %llu us",
		       kinds[k].name, seeds, (unsigned long long)longest);
	}
	heap_whole(whole, 0, "the heap beside it");
	/* With its metadata as they were, the heap serves again. */
	memcpy(c.at, c.saved, c.size);
	cr_assert(call1(s, CALL_ALLOC, 64, 0, NUMA_NO_NODE));
	heap_whole(heap, 13, "the heap restored");
	kernel_is_well(kmsg);
	figure("garbage: %u heaps, the kernel has not complained", trials);
	close(kmsg);
	free(c.saved);
}
