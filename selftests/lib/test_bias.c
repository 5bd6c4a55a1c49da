// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_bias.c - A-slots of a shared heap that BPF programs have left biased to their CPU: who takes
 * them, who does not, and that it is a lock. The programs are those of test_nolock_bias.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"
#include "util.h"
#include "core/core.h"
#include "core/slot.h"

enum { WHO = 1u << 16 | 7, TURNS = 200000, THREADS = 4 };

/* Two, where there are two. */
static unsigned int cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
}

static bool has_rseq(void)
{
	return rseq_in_use(nolock_heap_default());
}

/* One try may be aborted by an interrupt that takes the CPU away. */
static int take(nl_slot_t *slot)
{
	for (int i = 0; i < 100; i++)
		if (nl_slot_trylock(slot, WHO))
			return 1;
	return 0;
}

Test(bias, taken_on_its_cpu_alone)
{
	nl_slot_t slot = { .lock = NL_BIASED(0) };

	cr_assert_eq(stay_on(0), 0);
	if (!has_rseq()) {
		cr_expect_eq(take(&slot), 0);
		cr_expect_eq(slot.lock, NL_BIASED(0));
		return;
	}
	cr_assert(take(&slot));
	cr_expect_eq(slot.lock, NL_HELD(WHO));
	cr_expect_not(take(&slot), "held");
	nl_slot_unlock(&slot);
	cr_expect_eq(slot.lock, 0, "no longer biased");
	/* Another CPU's, or what no program writes. */
	slot.lock = NL_BIASED(1);
	cr_expect_not(take(&slot));
	slot.lock = NL_BIASED(0) | 1;
	cr_expect_not(take(&slot), "held by a program");
	slot.lock = NL_BIASED(0) ^ 1ULL << 52;
	cr_expect_not(take(&slot));
	slot.lock = 2;
	cr_expect_not(take(&slot));
}

/* Where sequences are switched off, no other way is taken. */
JOB(without_rseq)
{
	nl_slot_t slot = { .lock = NL_BIASED(0) };

	cr_assert_eq(stay_on(0), 0);
	return has_rseq() || take(&slot) || slot.lock != NL_BIASED(0);
}

Test(bias, not_taken_without_rseq)
{
	cr_expect_eq(job_run("without_rseq", "NOLOCK_RSEQ", "0"), 0);
}

/* Threads on two CPUs, and what programs do: bias it whenever it is free. */
static struct {
	nl_slot_t slot;
	unsigned long turns;
	unsigned long taken[THREADS], biased;
	int end;
} shared;

static void *contend(void *arg)
{
	unsigned long n = (unsigned long)arg;

	cr_assert_eq(stay_on((unsigned int)n % cpus()), 0);
	while (!nl_load(&shared.end)) {
		if (!nl_slot_trylock(&shared.slot, WHO + (nl_u32)n))
			continue;
		nl_store(&shared.turns, nl_load(&shared.turns) + 1);
		shared.taken[n]++;
		nl_slot_unlock(&shared.slot);
		/* Without sequences nobody could take it back. */
		if (has_rseq() &&
		    nl_cas(&shared.slot.lock, 0, NL_BIASED((n + shared.taken[n]) % cpus())))
			nl_add(&shared.biased, 1);
	}
	return NULL;
}

Test(bias, is_a_lock)
{
	pthread_t t[THREADS];
	unsigned long sum = 0;

	for (unsigned long i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, contend, (void *)i), 0);
	while (nl_load(&shared.turns) < TURNS)
		usleep(1000);
	nl_store(&shared.end, 1);
	for (unsigned long i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		sum += shared.taken[i];
	}
	report("  taken %lu times, biased %lu times", sum, shared.biased);
	cr_expect_eq(sum, shared.turns);
}

/* Whoever shrinks or destroys a cache goes to the CPUs whose slots are biased. */
Test(bias, shrink_empties_them)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, 16 * MiB);
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "left", 64, NULL, 0);
	nl_u32 id = nl_cache_id(s), n = 0, slots;
	void *p[40];

	cr_assert(s);
	kmem_cache_free(s, kmem_cache_alloc(s, GFP_KERNEL)); /* memory is opened */
	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
		nl_slot_t *slot = nl_aslot(heap->h, cpu, id);
		nl_u32 who = nl_who(heap);

		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			cr_assert(p[i] = (void *)nl_alloc(heap->h, id, cpu, who, 0));
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			cr_assert_eq(nl_free(heap->h, id, cpu, who, (nl_u64)p[i]), 0);
		n += NL_WORD_SIZE(slot->word);
		slot->lock = NL_BIASED(cpu);
	}
	cr_assert_gt(n, 0);
	expect_whole(heap, NULL, "biased");
	/* A process may have no sequences; or not see how many CPUs there are, and have no R-slots. */
	slots = heap->rseq_slots;
	nl_store(&heap->rseq_slots, 0);
	kmem_cache_shrink(s);
	nl_store(&heap->rseq_slots, slots);
	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
		cr_expect_eq(nl_aslot(heap->h, cpu, id)->main, 0, "CPU %u", cpu);
		nl_aslot(heap->h, cpu, id)->lock = NL_BIASED(cpu);
	}
	kmem_cache_shrink(s);
	cr_expect_eq(kmem_cache_destroy(s), 0);
	/* Whoever destroys it is on another CPU than most: what is biased stays so. */
	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++)
		cr_expect_eq(nl_aslot(heap->h, cpu, id)->lock, NL_BIASED(cpu), "CPU %u", cpu);
	expect_whole(heap, NULL, "after that");
}
