// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_slub_kunit.c - what the kernel's suite slub_kunit asserts of SLUB's debugging, of ours.
 *
 * The same damage and the same number of errors, reports and fixes counted one each. Where the
 * kernel damages a free pointer, which no object has here, the state of the object and the free
 * bit of its slab stand for it. Its tests of kmalloc() with a size of its own run in a second
 * process, whose kmalloc caches NOLOCK_DEBUG debugs. Its NMI is a signal handler.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <criterion/criterion.h>
#include <nolock/debug.h>
#include "internal.h"
#include "debug.h"
#include "core/word.h"
#include "util.h"

static unsigned long slab_errors(void)
{
	struct nolock_heap_report rep;

	nolock_heap_check(nolock_heap_default(), &rep);
	return rep.debug_errors;
}

/* Errors counted since the last look. */
static unsigned long new_errors(void)
{
	static unsigned long before;
	unsigned long now = slab_errors(), n = now - before;

	before = now;
	return n;
}

static struct kmem_cache *cache(const char *name, unsigned int size, slab_flags_t flags)
{
	struct kmem_cache *s = kmem_cache_create(name, size, NULL, flags);

	cr_assert_not_null(s, "%s: not created", name);
	return s;
}

Test(slub_kunit, clobber_zone)
{
	struct kmem_cache *s = cache("TestSlub_RZ_alloc", 64, SLAB_RED_ZONE);
	volatile char *p = kmem_cache_alloc(s, GFP_KERNEL);

	p[64] = 0x12;
	cr_expect_eq(nolock_cache_validate(s), 2);
	cr_expect_eq(new_errors(), 2);
	kmem_cache_free(s, (void *)p);
	cr_expect_eq(kmem_cache_destroy(s), 0);
	cr_expect_eq(new_errors(), 0);
}

/* next_pointer: the word of debugging that leads on from a free object is its state. */
Test(slub_kunit, next_pointer_is_the_state)
{
	struct kmem_cache *s = cache("TestSlub_state", 64, SLAB_POISON);
	char *p = kmem_cache_alloc(s, GFP_KERNEL);
	struct nl_record *r = (struct nl_record *)(p + 64);
	nl_u64 right;

	kmem_cache_free(s, p);
	right = r->state;
	cr_assert_eq(NL_STATE_KIND(right), NL_STATE_FREE);
	r->state = ~right;
	cr_expect_eq(nolock_cache_validate(s), 2);
	cr_expect_eq(NL_STATE_KIND(r->state), NL_STATE_FREE, "not mended");
	cr_expect_eq(nolock_cache_validate(s), 0);
	cr_expect_eq(new_errors(), 2);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

/* The bitmap is the free list: a lost object is found by the count of objects in use. */
Test(slub_kunit, next_pointer_is_the_bit)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct kmem_cache *s = cache("TestSlub_bit", 64, SLAB_POISON);
	char *p = kmem_cache_alloc(s, GFP_KERNEL);
	nl_u32 chunk = (nl_u32)((nl_u64)(p - heap->base) >> NL_CHUNK_SHIFT);
	nl_u32 idx = nl_slab_index(heap->h, nl_cache_id(s), (nl_u64)p);
	nl_u64 *word = &nl_slab(heap->h, chunk)->free[idx / 64];
	struct nolock_heap_report rep;

	kmem_cache_free(s, p);
	cr_assert(*word & NL_BIT(idx));
	*word &= ~NL_BIT(idx);
	cr_expect_eq(nolock_heap_check(heap, &rep), -EUCLEAN);
	cr_expect_eq(rep.errors, 1, "%lu: %s", rep.errors, rep.first_error);
	*word |= NL_BIT(idx);
	expect_whole(heap, &rep, "with the bit back");
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(slub_kunit, first_word)
{
	struct kmem_cache *s = cache("TestSlub_1th_word_free", 64, SLAB_POISON);
	volatile char *p = kmem_cache_alloc(s, GFP_KERNEL);

	kmem_cache_free(s, (void *)p);
	*p = 0x78;
	cr_expect_eq(nolock_cache_validate(s), 2);
	cr_expect_eq(new_errors(), 2);
	cr_expect_eq(kmem_cache_destroy(s), 0);
	cr_expect_eq(new_errors(), 0);
}

Test(slub_kunit, clobber_50th_byte)
{
	struct kmem_cache *s = cache("TestSlub_50th_word_free", 64, SLAB_POISON);
	volatile char *p = kmem_cache_alloc(s, GFP_KERNEL);

	kmem_cache_free(s, (void *)p);
	p[50] = (char)0x9a;
	cr_expect_eq(nolock_cache_validate(s), 2);
	cr_expect_eq(new_errors(), 2);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(slub_kunit, clobber_redzone_free)
{
	struct kmem_cache *s = cache("TestSlub_RZ_free", 64, SLAB_RED_ZONE);
	volatile char *p = kmem_cache_alloc(s, GFP_KERNEL);

	kmem_cache_free(s, (void *)p);
	p[64] = (char)0xab;
	cr_expect_eq(nolock_cache_validate(s), 2);
	cr_expect_eq(new_errors(), 2);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(slub_kunit, leak_destroy)
{
	struct kmem_cache *s = cache("TestSlub_leak_destroy", 64, SLAB_NO_MERGE);
	void *p = kmem_cache_alloc(s, GFP_KERNEL);

	cr_assert_not_null(p);
	cr_expect_eq(kmem_cache_destroy(s), -EBUSY);
	cr_expect_eq(new_errors(), 2);
	kmem_cache_free(s, p);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

/* In a job a failure is a line and a result. */
static int failures;

static void expect(bool ok, const char *what)
{
	if (!ok) {
		report("  %s", what);
		failures++;
	}
}

static struct kmem_cache *bucket(const char *name)
{
	return nolock_heap_kmem_cache_find(nolock_heap_default(), name);
}

static bool all(const unsigned char *p, size_t from, size_t to, unsigned char byte)
{
	for (; from < to; from++)
		if (p[from] != byte)
			return false;
	return true;
}

/* Not known to the compiler, so that kmalloc() and krealloc() are the functions. */
static volatile size_t size_of_18 = 18, size_of_60 = 60;

JOB(kmalloc_redzone_access)
{
	volatile unsigned char *p = kmalloc(size_of_18, GFP_KERNEL);

	p[18] = 0xab;
	p[19] = 0xab;
	expect(nolock_cache_validate(bucket("kmalloc-32")) == 2, "kmalloc_redzone_access: not 2");
	expect(new_errors() == 2, "kmalloc_redzone_access: not 2 in all");
	kfree((void *)p);
	expect(new_errors() == 0, "kmalloc_redzone_access: not mended");
	return failures;
}

JOB(krealloc_redzone_zeroing)
{
	/* The kernel begins with 48, which has a bucket of its own here. */
	unsigned char *p = kmalloc(size_of_60, GFP_KERNEL), *was = p;

	memset(p, 0xff, 60);
	p = krealloc(p, 40, GFP_KERNEL | __GFP_ZERO);
	expect(p == was && all(p, 40, 64, NL_RED_ACTIVE), "shrunk to 40: no red zone from there");
	expect(ksize(p) == 40, "shrunk to 40: ksize");
	p = krealloc(p, 56, GFP_KERNEL | __GFP_ZERO);
	expect(p == was && all(p, 40, 56, 0), "grown to 56: not zero");
	expect(all(p, 56, 64, NL_RED_ACTIVE), "grown to 56: no red zone from there");
	expect(nolock_cache_validate(bucket("kmalloc-64")) == 0, "kmalloc-64: errors");
	memset(p, 0xff, 56);
	p = krealloc(p, 112, GFP_KERNEL | __GFP_ZERO);
	expect(p && p != was && all(p, 0, 56, 0xff) && all(p, 56, 112, 0), "grown to 112: bytes");
	kfree(p);
	expect(new_errors() == 0, "krealloc_redzone_zeroing: errors");
	return failures;
}

Test(slub_kunit, kmalloc_redzone_access)
{
	cr_assert_eq(job_run("kmalloc_redzone_access", "NOLOCK_DEBUG", "zu,kmalloc-*"), 0);
}

Test(slub_kunit, krealloc_redzone_zeroing)
{
	cr_assert_eq(job_run("krealloc_redzone_zeroing", "NOLOCK_DEBUG", "zu,kmalloc-*"), 0);
}

/*
 * kmalloc_nolock_and_friends: allocations in an event of up to 100 kHz over ordinary ones of the
 * same bucket. test_p1.c has the kernel's other one, with every internal lock held.
 */
static volatile unsigned long callbacks, alloc_ok, alloc_fail;
static timer_t timer;
/* So long after the last one ended, so that the main flow gets on however slow it all is. */
static struct itimerspec soon;

static void event(int sig)
{
	void *p = kmalloc_nolock(32, callbacks & 1 ? 0 : __GFP_ACCOUNT, NUMA_NO_NODE);

	(void)sig;
	if (p)
		alloc_ok++;
	else
		alloc_fail++;
	kfree_nolock(p);
	callbacks++;
	timer_settime(timer, 0, &soon, NULL);
}

static int nolock_and_friends(const char *name, int iterations, long pause_ns)
{
	enum { OBJECTS = 1000 };
	static void *objects[OBJECTS];
	struct sigaction sa = { .sa_handler = event, .sa_flags = SA_RESTART };
	struct sigevent se = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };

	/* The kernel's test allows failures; with memory set aside there is no reason for one. */
	expect(nolock_heap_populate(nolock_heap_default(), MiB) == 0, "not populated");
	soon.it_value.tv_nsec = pause_ns;
	sigaction(SIGUSR1, &sa, NULL);
	if (timer_create(CLOCK_MONOTONIC, &se, &timer) || timer_settime(timer, 0, &soon, NULL))
		return 1;
	for (int i = 0; i < iterations; i++) {
		for (int j = 0; j < OBJECTS; j++) {
			objects[j] = kmalloc(32, i & 1 ? GFP_KERNEL : GFP_KERNEL_ACCOUNT);
			expect(objects[j], "kmalloc failed");
		}
		for (int j = 0; j < OBJECTS; j++)
			kfree(objects[j]);
	}
	/* At least one, however slow the machine. */
	raise(SIGUSR1);
	timer_delete(timer);
	report("  %s: %lu events, %lu allocated, %lu not", name, callbacks, alloc_ok, alloc_fail);
	expect(alloc_fail == 0, "an allocation failed");
	expect(new_errors() == 0, "errors");
	expect(check_whole(nolock_heap_default(), NULL, "after the events") == 0, "not whole");
	return failures;
}

JOB(nolock_debugged)
{
	return nolock_and_friends("kmalloc_nolock_and_friends, FZPU", 100, 100000);
}

Test(slub_kunit, kmalloc_nolock_and_friends)
{
	cr_assert_eq(nolock_and_friends("kmalloc_nolock_and_friends", 1000, 10000), 0);
	cr_assert_eq(job_run("nolock_debugged", "NOLOCK_DEBUG", "FZPU"), 0);
}
