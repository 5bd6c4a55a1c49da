// SPDX-License-Identifier: GPL-2.0-only
/*
 * workloads.c - the workloads.
 *
 * Each is written once and instantiated for each way to call an allocator, so that the loops around
 * the calls are the same instructions. Each object is written to once, as an object is. At the
 * moment when a workload holds most, it lets the memory be looked at, in a round that is not timed.
 */
#define _GNU_SOURCE
#ifndef __clang__
/* All loops alike: where one falls by chance is worth several per cent of a pair. */
#pragma GCC optimize("align-functions=64", "align-loops=64")
#endif
#include <err.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "process.h"

/* It is preloaded where it is measured; the program that is measured in is the same for all. */
#pragma weak nolock_thread

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* kmalloc() and kmalloc_nolock() as nolock/slab.h has them: in line where the size is a constant. */
ALWAYS_INLINE void *get_kmalloc(size_t size)
{
	void *p;

	if (!__builtin_constant_p(size))
		return (call.kmalloc)(size, GFP_KERNEL);
	p = nolock_pop(nolock_bucket(size));
	return __builtin_expect(p != NULL, 1) ? p : call.bucket_alloc(nolock_bucket(size));
}

ALWAYS_INLINE void *get_kmalloc_nolock(size_t size)
{
	void *p;

	if (!__builtin_constant_p(size))
		return (call.kmalloc_nolock)(size, 0, NUMA_NO_NODE);
	p = nolock_pop(nolock_bucket(size));
	return __builtin_expect(p != NULL, 1) ? p : call.bucket_alloc_nolock(nolock_bucket(size));
}

ALWAYS_INLINE void *get(struct worker *w, enum entry e, size_t size)
{
	uint64_t *p;

	switch (e) {
	case ENTRY_NOLOCK:
		p = get_kmalloc_nolock(size);
		break;
	case ENTRY_KMALLOC:
		p = get_kmalloc(size);
		break;
	default:
		p = call.malloc(size);
	}
	if (__builtin_expect(!p, 0))
		w->failed++;
	else
		*(volatile uint64_t *)p = size;
	return p;
}

ALWAYS_INLINE void put(enum entry e, void *p)
{
	switch (e) {
	case ENTRY_NOLOCK:
		call.kfree_nolock(p);
		break;
	case ENTRY_KMALLOC:
		call.kfree(p);
		break;
	default:
		call.free(p);
	}
}

/* Who has no realloc does what its users do: allocate, copy, free. */
ALWAYS_INLINE void *resize(struct worker *w, enum entry e, void *p, size_t old, size_t size)
{
	void *q;

	if (e == ENTRY_KMALLOC)
		q = call.krealloc(p, size, GFP_KERNEL);
	else if (e == ENTRY_MALLOC && call.realloc)
		q = call.realloc(p, size);
	else {
		q = get(w, e, size);
		if (q) {
			memcpy(q, p, old < size ? old : size);
			put(e, p);
		}
		return q ? q : p;
	}
	if (__builtin_expect(!q, 0)) {
		w->failed++;
		return p;
	}
	return q;
}

/* With all threads at rest: the memory as it is now. */
static __attribute__((noinline)) void peak(struct worker *w)
{
	meet();
	if (w->nr == 0)
		memory_map(w->map);
	meet();
}

ALWAYS_INLINE void do_pair(struct worker *w, enum entry e, size_t size)
{
	for (uint64_t i = 0; i < w->units; i++)
		put(e, get(w, e, size));
	if (w->map) {
		void *p = get(w, e, size);

		peak(w);
		put(e, p);
	}
}

enum batch_order { LIFO, FIFO, RAND };

ALWAYS_INLINE void do_batch(struct worker *w, enum entry e, unsigned int n, enum batch_order how)
{
	for (uint64_t done = 0; done < w->units; done += n) {
		for (unsigned int i = 0; i < n; i++)
			w->objs[i] = get(w, e, 64);
		if (w->map && !done)
			peak(w);
		if (how == LIFO)
			for (unsigned int i = n; i-- > 0;)
				put(e, w->objs[i]);
		else
			for (unsigned int i = 0; i < n; i++)
				put(e, w->objs[how == FIFO ? i : order[i]]);
	}
}

/* xorshift64: cheap, and the same sequence for every allocator. */
ALWAYS_INLINE uint64_t next_random(struct worker *w)
{
	uint64_t x = w->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return w->random = x;
}

ALWAYS_INLINE void seed(struct worker *w, unsigned int nr)
{
	w->random = 0x9e3779b97f4a7c15ULL + nr;
}

/* From 16 to 1024, small ones as often as large ones: a random power, then within it. */
ALWAYS_INLINE size_t random_size(uint64_t r)
{
	unsigned int power = 4 + (r & 0xffff) * 6 / 0x10000;

	return (1U << power) + ((r >> 16 & 0xffff) << power) / 0x10000;
}

ALWAYS_INLINE void replace(struct worker *w, enum entry e, unsigned int slots, uint64_t times)
{
	for (uint64_t i = 0; i < times; i++) {
		uint64_t r = next_random(w);
		unsigned int slot = (r >> 32) * slots >> 32;

		if (w->objs[slot])
			put(e, w->objs[slot]);
		w->objs[slot] = get(w, e, random_size(r));
	}
}

ALWAYS_INLINE void get_all(struct worker *w, enum entry e, unsigned int slots)
{
	for (unsigned int i = 0; i < slots; i++)
		w->objs[i] = get(w, e, random_size(next_random(w)));
}

ALWAYS_INLINE void put_all(struct worker *w, enum entry e, unsigned int slots)
{
	for (unsigned int i = 0; i < slots; i++)
		if (w->objs[i])
			put(e, w->objs[i]);
}

ALWAYS_INLINE void do_churn(struct worker *w, enum entry e, unsigned int slots)
{
	memset(w->objs, 0, slots * sizeof(*w->objs));
	seed(w, w->nr);
	replace(w, e, slots, w->units);
	if (w->map)
		peak(w);
	put_all(w, e, slots);
}

/* With more threads than CPUs: all of them hold their objects before one goes on. */
ALWAYS_INLINE void do_crowd(struct worker *w, enum entry e, unsigned int slots)
{
	seed(w, w->nr);
	get_all(w, e, slots);
	meet();
	replace(w, e, slots, w->units - slots);
	if (w->map)
		peak(w);
	meet();
	put_all(w, e, slots);
}

#define SWAP_BATCH 1000

ALWAYS_INLINE void do_swap(struct worker *w, enum entry e)
{
	struct worker *other = &workers[!w->nr];

	for (uint64_t done = 0; done < w->units; done += SWAP_BATCH) {
		for (int i = 0; i < SWAP_BATCH; i++)
			w->objs[i] = get(w, e, 64);
		meet();
		if (w->map && !done)
			peak(w);
		for (int i = 0; i < SWAP_BATCH; i++)
			put(e, other->objs[i]);
		meet();
	}
}

/* Objects on their way from one thread to another. Each side keeps what it saw of the other's. */
#define RING 1024
static struct ring {
	_Alignas(128) uint64_t head; /* of the thread that fills it */
	uint64_t tail_seen;
	_Alignas(128) uint64_t tail; /* of the other */
	uint64_t head_seen;
	_Alignas(128) void *obj[RING];
} rings[3];

ALWAYS_INLINE void ring_push(struct ring *r, void *p)
{
	uint64_t head = r->head;
	unsigned int turns = 0;

	while (head - r->tail_seen == RING) {
		/* Acquire: the slot was read before it is written again. */
		r->tail_seen = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);
		if (head - r->tail_seen == RING)
			wait_a_turn(&turns);
	}
	r->obj[head % RING] = p;
	/* Release: the object and the slot before the head. */
	__atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
}

/* Is there one? */
ALWAYS_INLINE bool ring_pop(struct ring *r, void **p)
{
	uint64_t tail = r->tail;

	if (tail == r->head_seen) {
		r->head_seen = __atomic_load_n(&r->head, __ATOMIC_ACQUIRE);
		if (tail == r->head_seen)
			return false;
	}
	*p = r->obj[tail % RING];
	__atomic_store_n(&r->tail, tail + 1, __ATOMIC_RELEASE);
	return true;
}

ALWAYS_INLINE void drain(enum entry e, unsigned int nr, uint64_t units)
{
	unsigned int turns = 0;

	while (units) {
		uint64_t before = units;
		void *p;

		for (unsigned int i = 0; i < nr; i++)
			for (int burst = 0; burst < 64 && ring_pop(&rings[i], &p); burst++) {
				put(e, p);
				units--;
			}
		if (before == units)
			wait_a_turn(&turns);
	}
}

ALWAYS_INLINE void do_prodcons(struct worker *w, enum entry e)
{
	if (w->nr == 0)
		for (uint64_t i = 0; i < w->units; i++)
			ring_push(&rings[0], get(w, e, 64));
	else
		drain(e, 1, w->units);
	if (w->map)
		peak(w);
}

/* Thread 3 frees what the others allocate. */
ALWAYS_INLINE void do_asym(struct worker *w, enum entry e)
{
	seed(w, w->nr);
	if (w->nr < 3)
		for (uint64_t i = 0; i < w->units; i++)
			ring_push(&rings[w->nr], get(w, e, random_size(next_random(w))));
	else
		drain(e, 3, 3 * w->units);
	if (w->map)
		peak(w);
}

/* A generation replaces for a while; its objects stay, and the next one goes on with them. */
#define SERVER_OBJS 1000
#define SERVER_TURNS 10000

struct generation {
	struct worker *w;
	uint64_t turns;
};

ALWAYS_INLINE void live(struct generation *g, enum entry e)
{
	replace(g->w, e, SERVER_OBJS, g->turns);
}

static void *live_nolock(void *g)
{
	live(g, ENTRY_NOLOCK);
	return NULL;
}

static void *live_kmalloc(void *g)
{
	live(g, ENTRY_KMALLOC);
	return NULL;
}

static void *live_malloc(void *g)
{
	live(g, ENTRY_MALLOC);
	return NULL;
}

ALWAYS_INLINE void do_server(struct worker *w, enum entry e)
{
	memset(w->objs, 0, SERVER_OBJS * sizeof(*w->objs));
	seed(w, w->nr);
	for (uint64_t done = 0; done < w->units; done += SERVER_TURNS) {
		struct generation g = { w, SERVER_TURNS };
		pthread_t thread;
		int error;

		if (w->units - done < SERVER_TURNS)
			g.turns = w->units - done;
		error = pthread_create(&thread, NULL,
				       e == ENTRY_NOLOCK  ? live_nolock :
				       e == ENTRY_KMALLOC ? live_kmalloc :
							    live_malloc,
				       &g);
		if (error)
			errx(1, "bench: cannot start a thread: %s", strerror(error));
		pthread_join(thread, NULL);
	}
	if (w->map)
		peak(w);
	put_all(w, e, SERVER_OBJS);
}

/* In turns: no vector has the place behind it to itself. The first word that is new is written. */
#define GROW_VECTORS 100
#define GROW_FROM 16
#define GROW_TO 24576

ALWAYS_INLINE void do_grow(struct worker *w, enum entry e)
{
	uint64_t done = 0;

	while (done < w->units) {
		for (int i = 0; i < GROW_VECTORS; i++)
			w->objs[i] = get(w, e, GROW_FROM);
		for (size_t old = GROW_FROM, size; (size = old + old / 2) <= GROW_TO; old = size)
			for (int i = 0; i < GROW_VECTORS; i++, done++) {
				char *p = resize(w, e, w->objs[i], old, size);

				*(volatile char *)(p + old) = 1;
				w->objs[i] = p;
			}
		if (w->map)
			peak(w);
		for (int i = 0; i < GROW_VECTORS; i++)
			put(e, w->objs[i]);
	}
}

#define BIG_FROM (64 << 10)
#define BIG_TO (19 << 20)

ALWAYS_INLINE void do_growbig(struct worker *w, enum entry e)
{
	for (uint64_t done = 0; done < w->units; done++) {
		size_t old = BIG_FROM, size;
		char *p = get(w, e, old);

		if (!p)
			return;
		memset(p, 1, old);
		for (; (size = old + old / 2) <= BIG_TO; old = size, done++) {
			char *q = resize(w, e, p, old, size);

			if (w->failed)
				break;
			p = q;
			memset(p + old, 1, size - old);
		}
		if (w->map)
			peak(w);
		put(e, p);
	}
}

#define LARGE_OBJS 64
#define LARGE_MIN (64 << 10)
#define LARGE_MAX (1 << 20)
#define PAGE 4096

ALWAYS_INLINE void do_large(struct worker *w, enum entry e)
{
	memset(w->objs, 0, LARGE_OBJS * sizeof(*w->objs));
	seed(w, w->nr);
	for (uint64_t i = 0; i < w->units; i++) {
		uint64_t r = next_random(w);
		unsigned int slot = (r >> 32) % LARGE_OBJS;
		size_t size = LARGE_MIN + (r & 0xffffffff) % (LARGE_MAX - LARGE_MIN + 1);
		volatile char *p;

		if (w->objs[slot])
			put(e, w->objs[slot]);
		p = w->objs[slot] = get(w, e, size);
		for (size_t at = 0; p && at < size; at += PAGE)
			p[at] = 1;
	}
	if (w->map)
		peak(w);
	put_all(w, e, LARGE_OBJS);
}

/*
 * The sheaves of a round are filled first, then emptied in a row, then the objects are freed; an
 * ordinary allocator does the middle part alone.
 */
#define SHEAVES 64
#define SHEAF_OBJS 32

ALWAYS_INLINE void do_prefill(struct worker *w, enum entry e, bool all)
{
	struct slab_sheaf *sheaf[SHEAVES];

	w->own_ns = 0;
	for (uint64_t done = 0; done < w->units; done += SHEAVES * SHEAF_OBJS) {
		void **obj = w->objs;
		uint64_t whole = cpu_now(), start;

		for (int i = 0; e == ENTRY_SHEAF && i < SHEAVES; i++) {
			sheaf[i] = call.prefill(call.cache, GFP_KERNEL, SHEAF_OBJS);
			if (!sheaf[i])
				errx(1, "bench: cannot prefill a sheaf");
		}
		start = cpu_now();
		for (int i = 0; i < SHEAVES; i++)
			for (int k = 0; k < SHEAF_OBJS; k++) {
				uint64_t *p =
					e == ENTRY_SHEAF ?
						call.from_sheaf(call.cache, GFP_KERNEL, sheaf[i]) :
						call.cache_alloc(call.cache, GFP_KERNEL);

				if (__builtin_expect(!p, 0))
					w->failed++;
				else
					*(volatile uint64_t *)p = done;
				*obj++ = p;
			}
		if (!all)
			w->own_ns += cpu_now() - start;
		for (int i = 0; e == ENTRY_SHEAF && i < SHEAVES; i++)
			call.return_sheaf(call.cache, GFP_KERNEL, sheaf[i]);
		if (w->map && !done)
			peak(w);
		while (obj-- > w->objs)
			call.cache_free(call.cache, *obj);
		if (all)
			w->own_ns += cpu_now() - whole;
	}
}

#define INSTANCE(id, name, ...)                                                                    \
	static void id##_##name(struct worker *w)                                                  \
	{                                                                                          \
		const enum entry e = ENTRY_##name;                                                 \
		__VA_ARGS__;                                                                       \
	}
#define INSTANCES(id, ...)                                                                         \
	INSTANCE(id, NOLOCK, __VA_ARGS__)                                                          \
	INSTANCE(id, KMALLOC, __VA_ARGS__)                                                         \
	INSTANCE(id, MALLOC, __VA_ARGS__)
#define RUNS(id) [id] = { id##_NOLOCK, id##_KMALLOC, id##_MALLOC }

INSTANCES(PAIR16, do_pair(w, e, 16))
INSTANCES(PAIR64, do_pair(w, e, 64))
INSTANCES(PAIR256, do_pair(w, e, 256))
INSTANCES(PAIR1024, do_pair(w, e, 1024))
INSTANCES(LIFO10, do_batch(w, e, 10, LIFO))
INSTANCES(LIFO1000, do_batch(w, e, 1000, LIFO))
INSTANCES(LIFO100K, do_batch(w, e, 100000, LIFO))
INSTANCES(FIFO10, do_batch(w, e, 10, FIFO))
INSTANCES(FIFO1000, do_batch(w, e, 1000, FIFO))
INSTANCES(FIFO100K, do_batch(w, e, 100000, FIFO))
INSTANCES(RAND10, do_batch(w, e, 10, RAND))
INSTANCES(RAND1000, do_batch(w, e, 1000, RAND))
INSTANCES(RAND100K, do_batch(w, e, 100000, RAND))
INSTANCES(CHURN, do_churn(w, e, 1000))
INSTANCES(CHURN64, do_crowd(w, e, 500))
INSTANCES(ASYM, do_asym(w, e))
INSTANCES(SWAP2, do_swap(w, e))
INSTANCES(PRODCONS, do_prodcons(w, e))
INSTANCES(SERVER, do_server(w, e))
INSTANCES(GROW, do_grow(w, e))
INSTANCE(GROWBIG, KMALLOC, do_growbig(w, e))
INSTANCE(GROWBIG, MALLOC, do_growbig(w, e))
INSTANCE(LARGE, KMALLOC, do_large(w, e))
INSTANCE(LARGE, MALLOC, do_large(w, e))
INSTANCE(PREFILL, CACHE, do_prefill(w, e, false))
INSTANCE(PREFILL, SHEAF, do_prefill(w, e, false))
INSTANCE(PREFILLED, CACHE, do_prefill(w, e, true))
INSTANCE(PREFILLED, SHEAF, do_prefill(w, e, true))

#define CHURNS                                                                                     \
	{                                                                                          \
		CHURN_NOLOCK, CHURN_KMALLOC, CHURN_MALLOC                                          \
	}

void (*const loads[NR_WORKLOADS][NR_ENTRIES])(struct worker *w) = {
	RUNS(PAIR16),
	RUNS(PAIR64),
	RUNS(PAIR256),
	RUNS(PAIR1024),
	RUNS(LIFO10),
	RUNS(LIFO1000),
	RUNS(LIFO100K),
	RUNS(FIFO10),
	RUNS(FIFO1000),
	RUNS(FIFO100K),
	RUNS(RAND10),
	RUNS(RAND1000),
	RUNS(RAND100K),
	RUNS(CHURN),
	[CHURN2] = CHURNS,
	[CHURN4] = CHURNS,
	[CHURN8] = CHURNS,
	[CHURN16] = CHURNS,
	RUNS(CHURN64),
	RUNS(ASYM),
	RUNS(SWAP2),
	RUNS(PRODCONS),
	RUNS(SERVER),
	RUNS(GROW),
	[GROWBIG] = { [ENTRY_KMALLOC] = GROWBIG_KMALLOC, [ENTRY_MALLOC] = GROWBIG_MALLOC },
	[LARGE] = { [ENTRY_KMALLOC] = LARGE_KMALLOC, [ENTRY_MALLOC] = LARGE_MALLOC },
	[PREFILL] = { [ENTRY_CACHE] = PREFILL_CACHE, [ENTRY_SHEAF] = PREFILL_SHEAF },
	[PREFILLED] = { [ENTRY_CACHE] = PREFILLED_CACHE, [ENTRY_SHEAF] = PREFILLED_SHEAF },
};

uint32_t order[MAX_OBJS];

void loads_prepare(unsigned int workload)
{
	unsigned int n = workload == RAND10 ? 10 : workload == RAND1000 ? 1000 : MAX_OBJS;
	struct worker w;

	if (workload != RAND10 && workload != RAND1000 && workload != RAND100K)
		return;
	seed(&w, 0);
	for (unsigned int i = 0; i < n; i++)
		order[i] = i;
	for (unsigned int i = n; i-- > 1;) {
		unsigned int k = (next_random(&w) >> 32) * (i + 1) >> 32;
		uint32_t swap = order[i];

		order[i] = order[k];
		order[k] = swap;
	}
}

/* The two that are not timed: any way of calling will do. */
void load_burst(struct worker *w, uint64_t bytes)
{
	size_t room = bytes / 16 * sizeof(void *), n = 0;
	void **obj = mmap(NULL, room, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (obj == MAP_FAILED)
		err(1, "bench: no memory");
	seed(w, 0);
	while (bytes > 1024) {
		size_t size = random_size(next_random(w));
		char *p = get(w, entry, size);

		if (!p)
			break;
		memset(p, 1, size);
		bytes -= size;
		obj[n++] = p;
	}
	for (size_t i = 0; i < n; i++)
		put(entry, obj[i]);
	munmap(obj, room);
}

void load_tick(struct worker *w)
{
	memset(w->objs, 0, 100 * sizeof(*w->objs));
	replace(w, entry, 100, 1000);
	put_all(w, entry, 100);
}
