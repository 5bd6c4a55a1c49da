// SPDX-License-Identifier: GPL-2.0-only
/*
 * churn.c - for ThreadSanitizer: threads that call all of the API, write, hand over and free, on a
 * private heap and on a shared one.
 *
 * A plain program, because the test framework does not run under TSan. TSan cannot see through
 * restartable sequences, so the program runs itself again with NOLOCK_RSEQ=0 if that is not set:
 * A-slots, barns and bitmaps serve everything. Exits 0 when nothing failed; TSan makes the exit
 * status non-zero on its own when it saw a race.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <nolock/heap.h>
#include <nolock/page.h>
#include <nolock/rcu.h>
#include <nolock/slab.h>
#include <nolock/stat.h>
#include "../torture/shared.h"

enum { THREADS = 6, ROUNDS = 30000, SLOTS = 64, KEEP = 64, HEAPS = 2, PUBLISHED = 16 };

static void *slot[SLOTS]; /* objects handed over: by atomic exchange alone */
static struct nolock_heap *heap[HEAPS];
static struct kmem_cache *cache[HEAPS], *array[HEAPS], *typesafe;

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

/* An RCU that TSan understands: readers share a lock, and who had it alone saw them all out. */
static pthread_rwlock_t readers = PTHREAD_RWLOCK_INITIALIZER;
static unsigned long begun, over;
static void *published[PUBLISHED];

static void my_synchronize(void)
{
	pthread_rwlock_wrlock(&readers);
	pthread_rwlock_unlock(&readers);
}

static unsigned long my_start_poll(void)
{
	return __atomic_add_fetch(&begun, 1, __ATOMIC_ACQ_REL);
}

static int my_poll(unsigned long cookie)
{
	unsigned long was = __atomic_load_n(&over, __ATOMIC_ACQUIRE);

	if (was >= cookie)
		return 1;
	if (pthread_rwlock_trywrlock(&readers))
		return 0;
	pthread_rwlock_unlock(&readers);
	while (was < cookie && !__atomic_compare_exchange_n(&over, &was, cookie, false,
							    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
	return 1;
}

static const struct nolock_rcu_ops rcu = { .synchronize = my_synchronize,
					   .start_poll = my_start_poll,
					   .poll = my_poll };

static void fill(void *p, unsigned int size)
{
	memcpy(p, &size, sizeof(size));
	memset((char *)p + sizeof(size), (int)(size & 0xff), size - sizeof(size));
}

static void check(struct worker *w, const void *obj)
{
	const unsigned char *b = obj;
	unsigned int size;

	memcpy(&size, b, sizeof(size));
	for (unsigned int i = sizeof(size); i < size && i < 4096; i++)
		if (b[i] != (size & 0xff)) {
			w->bad++;
			break;
		}
}

/* Plain writes and reads of the whole object: a race on it is a race of the allocator. */
static void *get(struct worker *w)
{
	unsigned int size = 16 + next(w) % 500, what = next(w) % 16, k = next(w) % HEAPS;
	struct nolock_heap *h = heap[k];
	void *p;

	switch (what) {
	case 0:
		size = 80;
		p = kmem_cache_alloc(cache[k], GFP_KERNEL);
		break;
	case 1:
		size = 80;
		p = kmem_cache_alloc_nolock(cache[k], 0, NUMA_NO_NODE);
		break;
	case 2:
		p = nolock_heap_kmalloc_nolock(h, size, 0, NUMA_NO_NODE);
		break;
	case 3:
		size = 4096;
		p = next(w) % 2 ? nolock_heap_alloc_pages(h, GFP_KERNEL, next(w) % 2 * 4) :
				  nolock_heap_alloc_pages_nolock(h, 0, NUMA_NO_NODE, 0);
		break;
	case 4:
		p = nolock_heap_kmalloc_node(h, size, GFP_ATOMIC, 0);
		break;
	case 5:
		/* Moved or not, it is ours alone. */
		p = nolock_heap_kmalloc(h, size / 2, GFP_NOWAIT);
		if (p)
			p = nolock_heap_krealloc(h, p, size, GFP_KERNEL);
		break;
	case 6:
		size = next(w) % 50 ? 4096 : 150000;
		p = nolock_heap_kzalloc(h, size, GFP_KERNEL);
		if (p && next(w) % 4 == 0) {
			size += 100000;
			p = nolock_heap_krealloc(h, p, size, GFP_KERNEL);
		}
		break;
	case 7:
		size = 48;
		p = next(w) % 2 ? kmem_cache_alloc(array[k], GFP_KERNEL) :
				  kmem_cache_alloc_nolock(array[k], 0, NUMA_NO_NODE);
		break;
	case 8:
		p = kmalloc(size, GFP_KERNEL_ACCOUNT);
		break;
	case 9:
		p = kcalloc(2, (size + 1) / 2, GFP_KERNEL);
		break;
	case 10:
		p = kmalloc_nolock(size, __GFP_ZERO, NUMA_NO_NODE);
		break;
	default:
		p = kmalloc(size, GFP_KERNEL);
	}
	w->ops++;
	if (!p) {
		w->failed++;
		return NULL;
	}
	if (ksize(p) < size)
		w->bad++;
	fill(p, size);
	return p;
}

static void put(struct worker *w, void *obj)
{
	if (!obj)
		return;
	check(w, obj);
	w->ops++;
	switch (next(w) % 8) {
	case 0:
		w->failed += kfree_rcu(obj) != 0;
		break;
	case 1:
		w->failed += kfree_rcu_nolock(obj) != 0;
		break;
	case 2:
	case 3:
	case 4:
		kfree(obj);
		break;
	default:
		kfree_nolock(obj);
	}
}

/* Replace what readers may be reading; who reads it takes no lock against that. */
static void publish(struct worker *w)
{
	unsigned int k = next(w) % PUBLISHED, of = next(w) % HEAPS;
	void *p = kmem_cache_alloc(cache[of], GFP_KERNEL), *old;

	if (!p) {
		w->failed++;
		return;
	}
	fill(p, 80);
	old = __atomic_exchange_n(&published[k], p, __ATOMIC_ACQ_REL);
	if (!old)
		return;
	if (next(w) % 2)
		w->failed += kfree_rcu(old) != 0;
	else
		w->failed += kfree_rcu_nolock(old) != 0;
}

static void read_published(struct worker *w)
{
	pthread_rwlock_rdlock(&readers);
	for (int k = 0; k < PUBLISHED; k++) {
		void *p = __atomic_load_n(&published[k], __ATOMIC_ACQUIRE);

		if (p)
			check(w, p);
	}
	pthread_rwlock_unlock(&readers);
}

static void many(struct worker *w)
{
	struct kmem_cache *s = next(w) % 2 ? cache[next(w) % HEAPS] : array[next(w) % HEAPS];
	bool nolock = next(w) % 2;
	void *p[30];
	int n;

	n = nolock ? kmem_cache_alloc_bulk_nolock(s, 0, 30, p) :
		     kmem_cache_alloc_bulk(s, GFP_KERNEL, 30, p);
	if (n != 30) {
		w->failed++;
		return;
	}
	for (int i = 0; i < n; i++)
		fill(p[i], 40);
	if (nolock)
		kmem_cache_free_bulk_nolock(s, 30, p);
	else
		kmem_cache_free_bulk(s, 30, p);
}

static void prefill(struct worker *w, unsigned int size)
{
	struct kmem_cache *s = cache[next(w) % HEAPS];
	struct slab_sheaf *sheaf = next(w) % 2 ? kmem_cache_prefill_sheaf(s, GFP_KERNEL, size) :
						 kmem_cache_prefill_sheaf_nolock(s, 0, size);
	void *p;

	if (!sheaf) {
		w->failed++;
		return;
	}
	p = kmem_cache_alloc_from_sheaf(s, 0, sheaf);
	if (p)
		fill(p, 80);
	else
		w->failed++;
	kmem_cache_free(s, p);
	if (kmem_cache_refill_sheaf(s, GFP_KERNEL, &sheaf, size))
		w->failed++;
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
}

static void own_cache(struct worker *w)
{
	unsigned int k = next(w) % HEAPS;
	struct kmem_cache *own = nolock_heap_kmem_cache_create(heap[k], "own", 200, NULL, 0);
	void *p;

	if (!own) {
		w->failed++;
		return;
	}
	p = kmem_cache_zalloc(own, GFP_KERNEL);
	if (p)
		fill(p, 200);
	kmem_cache_free(own, p);
	if (kmem_cache_destroy(own))
		w->failed++;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	void *keep[KEEP] = { NULL };

	for (int i = 0; i < ROUNDS; i++) {
		unsigned int k = next(w) % KEEP, what = next(w) % 2000;

		if (next(w) % 3 == 0) {
			put(w, __atomic_exchange_n(&slot[k % SLOTS], get(w), __ATOMIC_ACQ_REL));
			continue;
		}
		if (what < 10)
			many(w);
		else if (what < 20)
			prefill(w, 1 + k);
		else if (what < 22)
			own_cache(w);
		else if (what < 60)
			publish(w);
		else if (what < 70)
			read_published(w);
		else if (what < 75)
			kmem_cache_prefill_percpu_array(array[k % HEAPS], 8, GFP_KERNEL);
		else if (what < 80)
			kmem_cache_free(typesafe, kmem_cache_alloc(typesafe, GFP_KERNEL));
		put(w, keep[k]);
		keep[k] = get(w);
	}
	for (int k = 0; k < KEEP; k++)
		put(w, keep[k]);
	return NULL;
}

/*
 * Statistics are read often beside the destruction and creation of caches: they find an entry of
 * the table in every state of its life.
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
		for (int k = 0; k < HEAPS; k++) {
			nolock_heap_trim(heap[k]);
			kmem_cache_shrink(cache[k]);
			kmem_cache_shrink(array[k]);
			if (nolock_heap_populate(heap[k], (6 + w->ops % 4) << 20))
				w->failed++;
			for (int look = 0; look < LOOKS; look++) {
				nolock_heap_stat(heap[k], &hs);
				nolock_heap_kmem_cache_find(heap[k], "there is none");
				for (unsigned int id = 0;
				     nolock_heap_cache_stat(heap[k], id, &cs) != -ERANGE; id++)
					;
			}
		}
		nolock_rcu_poll();
		if (w->ops % 8 == 0 && nolock_rcu_barrier())
			w->failed++;
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
	heap[0] = nolock_heap_default();
	heap[1] = shared_make((size_t)256 << 20);
	rc = nolock_rcu_register(&rcu);
	typesafe = kmem_cache_create("typesafe", 64, NULL, SLAB_TYPESAFE_BY_RCU);
	rc = rc || !typesafe;
	for (int k = 0; k < HEAPS; k++) {
		cache[k] = nolock_heap_kmem_cache_create(heap[k], "tsan", 80, NULL, 0);
		array[k] = nolock_heap_kmem_cache_create(heap[k], "array", 48, NULL, SLAB_NO_MERGE);
		rc = rc || !cache[k] || !array[k] || kmem_cache_setup_percpu_array(array[k], 32) ||
		     nolock_heap_populate(heap[k], 8 << 20);
	}
	if (rc) {
		fprintf(stderr, "heaps and caches could not be made, or no memory be set aside\n");
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
	for (int k = 0; k < PUBLISHED; k++)
		kfree(published[k]);
	rc = nolock_rcu_barrier();
	for (int k = 0; k < HEAPS; k++) {
		int err = nolock_heap_check(heap[k], &rep);

		if (err || rep.locks_held || rep.allocated || rep.large || rep.refused) {
			printf("check: %d, %lu errors (%s), %lu locks held, %lu + %lu lost, %lu "
			       "refused\n",
			       err, rep.errors, rep.first_error, rep.locks_held, rep.allocated,
			       rep.large, rep.refused);
			rc = 1;
		}
		rc |= kmem_cache_destroy(cache[k]) | kmem_cache_destroy(array[k]);
	}
	rc |= kmem_cache_destroy(typesafe);
	printf("churn: %d threads, %lu operations, %lu trims beside them, %lu failures, "
	       "%lu damaged\n",
	       THREADS, ops, w[THREADS].ops, failed, bad);
	return rc || failed || bad;
}
