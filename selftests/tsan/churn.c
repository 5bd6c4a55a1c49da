// SPDX-License-Identifier: GPL-2.0-only
/*
 * churn.c - for ThreadSanitizer: threads that allocate, write, hand over and free.
 *
 * A plain program, because the test framework does not run under TSan. TSan cannot see through
 * restartable sequences, so the program runs itself again with NOLOCK_RSEQ=0 if that is not set:
 * A-slots, barns and bitmaps serve everything. Exits 0 when nothing failed; TSan makes the exit
 * status non-zero on its own when it saw a race.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <nolock/heap.h>
#include <nolock/page.h>
#include <nolock/slab.h>
#include <nolock/stat.h>

enum { THREADS = 6, ROUNDS = 30000, SLOTS = 64, KEEP = 64 };

static void *slot[SLOTS]; /* objects handed over: by atomic exchange alone */
static struct kmem_cache *cache;

struct worker {
	pthread_t thread;
	unsigned int seed;
	unsigned long ops, failed, bad;
};

static unsigned int next(struct worker *w)
{
	w->seed = w->seed * 1664525u + 1013904223u;
	return w->seed >> 8;
}

/* Plain writes and reads of the whole object: a race on it is a race of the allocator. */
static void *get(struct worker *w)
{
	unsigned int size = 16 + next(w) % 500, what = next(w) % 8;
	unsigned int *p;

	switch (what) {
	case 0:
		size = 80;
		p = kmem_cache_alloc(cache, GFP_KERNEL);
		break;
	case 1:
		size = 80;
		p = kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE);
		break;
	case 2:
		p = kmalloc_nolock(size, 0, NUMA_NO_NODE);
		break;
	case 3:
		size = 4096;
		p = next(w) % 2 ? alloc_pages(GFP_KERNEL, 0) :
				  alloc_pages_nolock(0, NUMA_NO_NODE, 0);
		break;
	case 4:
		p = kmalloc_node(size, GFP_ATOMIC, 0);
		break;
	case 5:
		/* Moved or not, it is ours alone. */
		p = kmalloc(size / 2, GFP_NOWAIT);
		if (p)
			p = krealloc(p, size, GFP_KERNEL);
		break;
	case 6:
		size = next(w) % 50 ? 4096 : 150000;
		p = kzalloc(size, GFP_KERNEL);
		break;
	default:
		p = kmalloc(size, GFP_KERNEL);
	}
	w->ops++;
	if (!p) {
		w->failed++;
		return NULL;
	}
	p[0] = size;
	memset(p + 1, (int)(size & 0xff), size - 4);
	return p;
}

static void put(struct worker *w, void *obj)
{
	unsigned char *b = obj;
	unsigned int size;

	if (!b)
		return;
	memcpy(&size, b, 4);
	for (unsigned int i = 4; i < size && i < 4096; i++)
		if (b[i] != (size & 0xff)) {
			w->bad++;
			break;
		}
	w->ops++;
	if (next(w) & 1)
		kfree(obj);
	else
		kfree_nolock(obj);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	void *keep[KEEP] = { NULL };
	struct slab_sheaf *sheaf;

	for (int i = 0; i < ROUNDS; i++) {
		unsigned int k = next(w) % KEEP;

		if (next(w) % 3 == 0) {
			put(w, __atomic_exchange_n(&slot[k % SLOTS], get(w), __ATOMIC_ACQ_REL));
			continue;
		}
		if (next(w) % 200 == 1) {
			void *many[30];

			if (kmem_cache_alloc_bulk(cache, GFP_KERNEL, 30, many))
				kmem_cache_free_bulk(cache, 30, many);
			else
				w->failed++;
		}
		if (next(w) % 1000 == 0) {
			struct kmem_cache *own = kmem_cache_create("own", 200, NULL, 0);

			if (!own || kmem_cache_destroy(own))
				w->failed++;
		}
		if (next(w) % 200 == 0) {
			sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 1 + k);
			if (!sheaf) {
				w->failed++;
			} else {
				kmem_cache_free(cache,
						kmem_cache_alloc_from_sheaf(cache, 0, sheaf));
				if (kmem_cache_refill_sheaf(cache, GFP_KERNEL, &sheaf, 1 + k))
					w->failed++;
				kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
			}
		}
		put(w, keep[k]);
		keep[k] = get(w);
	}
	for (int k = 0; k < KEEP; k++)
		put(w, keep[k]);
	return NULL;
}

/*
 * Statistics are read often beside the destruction and creation of caches: they find an entry of the
 * table in every state of its life.
 */
#define LOOKS 8

/* Maintenance and readers beside the others: they stop nobody and are stopped by nobody. */
static volatile int running = 1;

static void *maintain(void *arg)
{
	struct worker *w = arg;
	struct nolock_cache_stat cs;
	struct nolock_heap_stat hs;

	while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
		nolock_heap_trim(nolock_heap_default());
		kmem_cache_shrink(cache);
		for (int look = 0; look < LOOKS; look++) {
			nolock_heap_stat(nolock_heap_default(), &hs);
			nolock_heap_kmem_cache_find(nolock_heap_default(), "there is none");
			for (unsigned int id = 0;
			     nolock_heap_cache_stat(nolock_heap_default(), id, &cs) != -ERANGE;
			     id++)
				;
		}
		w->ops++;
		usleep(1000);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static struct worker w[THREADS + 1];
	const char *rseq = getenv("NOLOCK_RSEQ");
	struct nolock_heap_report rep;
	unsigned long ops = 0, failed = 0, bad = 0;
	int rc;

	(void)argc;
	if (!rseq || strcmp(rseq, "0") != 0) {
		setenv("NOLOCK_RSEQ", "0", 1);
		execv("/proc/self/exe", argv);
		perror("run again with NOLOCK_RSEQ=0");
		return 1;
	}
	cache = kmem_cache_create("tsan", 80, NULL, 0);
	if (!cache || nolock_heap_populate(nolock_heap_default(), 8 << 20)) {
		perror("make a cache and set memory aside");
		return 1;
	}
	for (unsigned int i = 0; i <= THREADS; i++) {
		w[i].seed = i * 7919 + 1;
		if (pthread_create(&w[i].thread, NULL, i < THREADS ? work : maintain, &w[i])) {
			perror("pthread_create");
			return 1;
		}
	}
	for (unsigned int i = 0; i <= THREADS; i++) {
		if (i == THREADS)
			__atomic_store_n(&running, 0, __ATOMIC_RELEASE);
		pthread_join(w[i].thread, NULL);
		ops += w[i].ops;
		failed += w[i].failed;
		bad += w[i].bad;
	}
	for (int i = 0; i < SLOTS; i++)
		put(&w[0], __atomic_exchange_n(&slot[i], NULL, __ATOMIC_ACQ_REL));
	rc = nolock_heap_check(nolock_heap_default(), &rep);
	if (rc || rep.locks_held || rep.allocated || rep.large || rep.refused)
		printf("check: %d, %lu errors (%s), %lu locks held, %lu + %lu lost, %lu refused\n",
		       rc, rep.errors, rep.first_error, rep.locks_held, rep.allocated, rep.large,
		       rep.refused);
	printf("churn: %d threads, %lu operations, %lu trims beside them, %lu failures, "
	       "%lu damaged\n",
	       THREADS, ops, w[THREADS].ops, failed, bad);
	return rc || failed || bad || rep.locks_held || rep.allocated || rep.large || rep.refused ||
	       kmem_cache_destroy(cache);
}
