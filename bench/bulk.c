// SPDX-License-Identifier: GPL-2.0-only
/*
 * bulk.c - kmem_cache_alloc_bulk() and kmem_cache_free_bulk() against a loop of single calls, on
 * the private heap: ns for one allocation and free of an object. Both take turns; medians.
 */
#include <nolock/slab.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

#define ROUNDS 51
#define PAIRS 200000 /* of one round */
#define MAX_BATCH 512

static void *p[MAX_BATCH];

static void loop_of_singles(struct kmem_cache *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		p[i] = kmem_cache_alloc(s, GFP_KERNEL);
	for (unsigned int i = 0; i < n; i++)
		kmem_cache_free(s, p[i]);
}

static void bulk(struct kmem_cache *s, unsigned int n)
{
	if (kmem_cache_alloc_bulk(s, GFP_KERNEL, n, p))
		kmem_cache_free_bulk(s, n, p);
}

static double measure(void (*run)(struct kmem_cache *, unsigned int), struct kmem_cache *s,
		      unsigned int n)
{
	unsigned int turns = PAIRS / n;
	double start = seconds_now();

	for (unsigned int i = 0; i < turns; i++)
		run(s, n);
	return (seconds_now() - start) * 1e9 / ((double)turns * n);
}

int main(void)
{
	static const unsigned int sizes[] = { 64, 256, 4096 }, batches[] = { 16, 64, 512 };

	printf("bulk: ns for one allocation and free (median of %d rounds)\n", ROUNDS);
	printf("%8s %8s %10s %10s %8s\n", "size", "batch", "loop", "bulk", "ratio");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct kmem_cache *s = kmem_cache_create("bench-bulk", sizes[i], NULL, 0);

		if (!s) {
			perror("bulk: kmem_cache_create");
			return 1;
		}
		for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++) {
			double loop[ROUNDS], all[ROUNDS], single, whole;

			for (int r = 0; r < ROUNDS; r++) {
				loop[r] = measure(loop_of_singles, s, batches[b]);
				all[r] = measure(bulk, s, batches[b]);
			}
			single = spread_of(loop, ROUNDS).median;
			whole = spread_of(all, ROUNDS).median;
			printf("%8u %8u %10.2f %10.2f %8.2f\n", sizes[i], batches[b], single, whole,
			       whole / single);
		}
		if (kmem_cache_destroy(s))
			return 1;
	}
	return 0;
}
