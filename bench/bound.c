// SPDX-License-Identifier: GPL-2.0-only
/*
 * bound.c - what a pair of 64 B costs, part by part: those of an allocator are put together one by one,
 * in the same loop, up to kmalloc() and kfree().
 *
 * - nothing: an address from a counter; a free that does nothing. What every allocator pays.
 * - list: a thread's free list through the objects, of one size alone.
 * - list, page: of the size's own list, and a free that asks its page's head for size and thread, as
 *   mimalloc and rpmalloc do.
 * - array, tag: a thread's array of addresses instead, and a free that asks a table for any address,
 *   as libnolock does, but without what makes it safe.
 * - nolock: kmalloc() and kfree(). What it has more than the last: restartable sequences on the CPU's
 *   slot; a free that goes on by the tag of the one before, while the last has to wait for its table;
 *   with more objects than fit in a slot, sheaves that come and go, looked through for doubles.
 *
 * The first four are no allocators: they have as many objects as the loop needs, and no way out; and
 * no signal handler may come between their loads and their stores.
 */
#define _GNU_SOURCE
#include <nolock/slab.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define ROUNDS 51
#define PAIRS 200000 /* of one round */
#define SIZE 64
#define MOST 1000
#define NOINLINE __attribute__((noinline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Pages of 64 KiB with a head, as peers have them; and tags for the same memory. */
#define PAGE_SHIFT 16
#define PAGE_SIZE (1ULL << PAGE_SHIFT)
#define NR_PAGES 4
#define NR_CLASSES 64

struct heap;
struct page {
	struct heap *owner;
	uint32_t class;
};

struct heap {
	void *list[NR_CLASSES];
	struct {
		uint32_t nr, cap;
		void **obj;
	} array[NR_CLASSES];
};

static __thread struct heap *self;
static struct heap the_heap;
static char *memory;
static uint64_t memory_span;
static uint32_t *tags;
static void *array_of[2 * MOST];
static __thread void *one_list;
static __thread uint64_t counter;

static NOINLINE void *nothing_alloc(size_t size)
{
	return memory + (NR_PAGES - 1) * PAGE_SIZE + (1 + counter++ % 512) * size;
}

static NOINLINE void nothing_free(void *p)
{
	(void)p;
}

static NOINLINE void *list_alloc(size_t size)
{
	void **p = one_list;

	(void)size;
	if (UNLIKELY(!p))
		abort();
	one_list = *p;
	return p;
}

static NOINLINE void list_free(void *p)
{
	*(void **)p = one_list;
	one_list = p;
}

static NOINLINE void *page_alloc(size_t size)
{
	void **list, **p;

	if (UNLIKELY(size > 1024 - 16))
		abort();
	list = &self->list[(size + 15) / 16];
	p = *list;
	if (UNLIKELY(!p))
		abort();
	*list = *p;
	return p;
}

static NOINLINE void page_free(void *p)
{
	struct page *page = (struct page *)((uintptr_t)p & ~(PAGE_SIZE - 1));
	void **list;

	if (UNLIKELY(!p || page->owner != self))
		abort();
	list = &page->owner->list[page->class];
	*(void **)p = *list;
	*list = p;
}

static NOINLINE void *array_alloc(size_t size)
{
	uint32_t class, nr;

	if (UNLIKELY(size > 1024 - 16))
		abort();
	class = (uint32_t)(size + 15) / 16;
	nr = self->array[class].nr;
	if (UNLIKELY(!nr))
		abort();
	self->array[class].nr = nr - 1;
	return self->array[class].obj[nr - 1];
}

static NOINLINE void array_free(void *p)
{
	uint64_t at = (uint64_t)((char *)p - memory);
	uint32_t class, nr;

	if (UNLIKELY(at >= memory_span))
		abort();
	class = tags[at >> PAGE_SHIFT];
	nr = self->array[class].nr;
	if (UNLIKELY(nr >= self->array[class].cap))
		abort();
	self->array[class].obj[nr] = p;
	self->array[class].nr = nr + 1;
}

/* The calls go through memory, as those of a shared library do. */
static struct way {
	const char *name;
	void *(*alloc)(size_t size);
	void (*free)(void *p);
} ways[] = {
	{ "nothing", nothing_alloc, nothing_free },  { "list", list_alloc, list_free },
	{ "list, page", page_alloc, page_free },     { "array, tag", array_alloc, array_free },
	{ "nolock", NULL, (void (*)(void *))kfree },
};
#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

static void prepare(void)
{
	uint32_t class = (SIZE + 15) / 16;

	memory = aligned_alloc(PAGE_SIZE, NR_PAGES * PAGE_SIZE);
	tags = calloc(NR_PAGES, sizeof(*tags));
	if (!memory || !tags) {
		perror("bound");
		exit(1);
	}
	memset(memory, 0, NR_PAGES * PAGE_SIZE);
	memory_span = NR_PAGES * PAGE_SIZE;
	self = &the_heap;
	self->array[class].obj = array_of;
	self->array[class].cap = 2 * MOST;
	for (unsigned int i = 0; i < NR_PAGES; i++) {
		char *page = memory + i * PAGE_SIZE;

		*(struct page *)page = (struct page){ .owner = self, .class = class };
		tags[i] = class;
		/* The first half to both lists, in turn; the second to the array. */
		for (size_t at = SIZE; at + SIZE <= PAGE_SIZE; at += SIZE) {
			if (i >= NR_PAGES / 2) {
				if (self->array[class].nr < MOST)
					array_free(page + at);
			} else if (i) {
				list_free(page + at);
			} else {
				page_free(page + at);
			}
		}
	}
}

/* Of kmalloc() with a constant size a part is in line, as its users have it. */
static inline __attribute__((always_inline)) void loop(const struct way *w, bool nolock,
						       unsigned int batch)
{
	static void *p[MOST];

	for (unsigned int done = 0; done < PAIRS; done += batch) {
		for (unsigned int i = 0; i < batch; i++) {
			p[i] = nolock ? kmalloc(SIZE, GFP_KERNEL) : w->alloc(SIZE);
			if (UNLIKELY(!p[i]))
				abort();
			*(volatile uint64_t *)p[i] = SIZE;
		}
		for (unsigned int i = batch; i-- > 0;)
			w->free(p[i]);
	}
}

static NOINLINE void loop_of(const struct way *w, unsigned int batch)
{
	/* Which of both is asked once: a loop has calls of one kind. */
	if (w->alloc)
		loop(w, false, batch);
	else
		loop(w, true, batch);
}

int main(void)
{
	static const unsigned int batches[] = { 1, 10, 1000 };
	static double ns[NR_WAYS][ROUNDS], ratio[NR_WAYS][ROUNDS];

	prepare();
	printf("bound: ns for a pair of 64 B, last first, and its share of nolock's (medians of %d "
	       "rounds)\n%8s",
	       ROUNDS, "batch");
	for (size_t w = 0; w < NR_WAYS; w++)
		printf("  %18s", ways[w].name);
	putchar('\n');
	for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++) {
		for (int r = -1; r < ROUNDS; r++) {
			double t[NR_WAYS];

			for (size_t w = 0; w < NR_WAYS; w++) {
				double start = seconds_now();

				loop_of(&ways[w], batches[b]);
				t[w] = (seconds_now() - start) * 1e9 / PAIRS;
			}
			for (size_t w = 0; r >= 0 && w < NR_WAYS; w++) {
				ns[w][r] = t[w];
				ratio[w][r] = t[w] / t[NR_WAYS - 1];
			}
		}
		printf("%8u", batches[b]);
		for (size_t w = 0; w < NR_WAYS; w++)
			printf("      %6.2f  (%4.2f)", spread_of(ns[w], ROUNDS).median,
			       spread_of(ratio[w], ROUNDS).median);
		putchar('\n');
	}
	return 0;
}
