// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trapflag.c - a trap on every instruction of the main flow, and a handler at each that
 * allocates and frees from the same cache. The main flow must make progress, nothing may fail,
 * and the inventory must be whole. (The whole API that way: torture/test_stepped.c.)
 *
 * Every restartable sequence of the main flow aborts here, every cmpxchg may lose: what is left
 * is what the wait-free exits carry. A livelock is found by counting, not by a clock: an
 * operation that takes more than MAX_TRAPS traps is given up and reported.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include "util.h"

#if defined(__x86_64__)
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "internal.h"
#include "core/core.h"
#include "trap.h"

/*
 * Opening the heap and freeing a whole slab touch thousands of words; an ordinary operation takes
 * some hundred instructions.
 */
#define MAX_TRAPS 400000ul

enum { HOLD = 32 };

/* What the handler does at each instruction. */
enum attack {
	PAIR,	     /* allocates and frees */
	HOLDER,	     /* keeps HOLD objects across traps, frees the oldest */
	EXCHANGE,    /* frees what the main flow allocated, leaves its own for it */
	WORD,	     /* the last level alone: nl_slab_scan and nl_slab_put */
	WORD_HOLDER, /* the same, and keeps what it took for HOLD traps */
};

static struct {
	enum attack attack;
	struct kmem_cache *cache;
	nl_heap_t *h;
	nl_u32 id;
	size_t size;

	unsigned long traps, traps_this_op, most_traps, aborts;
	unsigned long ops, failed, bad, stuck;
	unsigned long main_ops, main_failed, empty;
	void *held[HOLD];
	unsigned int next;
	struct mailbox box;
	struct rng r;
} t;

static void *handler_alloc(void)
{
	void *p = t.cache ? kmem_cache_alloc_nolock(t.cache, 0, NUMA_NO_NODE) :
			    kmalloc_nolock(t.size, 0, NUMA_NO_NODE);

	t.ops++;
	if (!p) {
		t.failed++;
		return NULL;
	}
	stamp(p, (uint32_t)t.size, (uint32_t)t.traps);
	return p;
}

static void handler_free(void *p)
{
	if (!p)
		return;
	if (!stamp_check(p))
		t.bad++;
	t.ops++;
	kfree_nolock(p);
}

static void word_attack(void)
{
	nl_u64 obj, back;

	/* The holder takes at every other trap, and gives back one of HOLD traps ago. */
	if (t.attack == WORD_HOLDER && t.traps % 2) {
		back = (uintptr_t)t.held[t.next];
		t.held[t.next] = NULL;
	} else {
		back = obj = nl_slab_scan(t.h, t.id);
		if (!obj)
			t.empty++;
		if (t.attack == WORD_HOLDER) {
			t.held[t.next] = (void *)(uintptr_t)obj;
			t.next = (t.next + 1) % HOLD;
			back = 0;
		}
	}
	t.ops++;
	if (back && nl_slab_put(t.h, t.id, back))
		t.failed++;
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	int saved = errno;
	void *p;

	(void)sig;
	(void)si;
	t.traps++;
	if (trap_at_abort(trap_ip(context)))
		t.aborts++;
	if (++t.traps_this_op > MAX_TRAPS) {
		t.stuck++;
		trap_set_stepping(context, 0);
		return;
	}
	switch (t.attack) {
	case PAIR:
		p = handler_alloc();
		handler_free(p);
		break;
	case HOLDER:
		handler_free(t.held[t.next]);
		t.held[t.next] = handler_alloc();
		t.next = (t.next + 1) % HOLD;
		break;
	case EXCHANGE:
		handler_free(mailbox_swap(&t.box, (uint32_t)rng_next(&t.r), handler_alloc()));
		break;
	default:
		word_attack();
	}
	errno = saved;
}

static void begin(enum attack attack, struct kmem_cache *cache, size_t size)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };

	memset(&t, 0, sizeof(t));
	t.attack = attack;
	t.cache = cache;
	t.size = size;
	rng_init(&t.r, 5);
	if (nolock_heap_populate(nolock_heap_default(), 16 * MiB))
		t.failed++;
	sigaction(SIGTRAP, &sa, NULL);
}

/* One call under the trap flag; its traps are counted for the watchdog. */
#define STEPPED(call)                                                                              \
	do {                                                                                       \
		t.traps_this_op = 0;                                                               \
		trap_on();                                                                         \
		call;                                                                              \
		trap_off();                                                                        \
		if (t.traps_this_op > t.most_traps)                                                \
			t.most_traps = t.traps_this_op;                                            \
		t.main_ops++;                                                                      \
	} while (0)

static unsigned long end(const char *name)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_heap_report rep;
	unsigned long wrong;

	for (int i = 0; i < HOLD; i++)
		handler_free(t.held[i]);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		handler_free(mailbox_swap(&t.box, i, NULL));
	report("  %s: %lu operations stepped, %lu traps (most in one: %lu), %lu sections aborted, "
	       "%lu operations in handlers, failures: main %lu, handler %lu, damaged %lu, stuck %lu",
	       name, t.main_ops, t.traps, t.most_traps, t.aborts, t.ops, t.main_failed, t.failed,
	       t.bad, t.stuck);
	wrong = (unsigned long)check_whole(heap, &rep, name);
	if (rep.allocated + rep.large + rep.refused) {
		report("  %s: %lu objects lost, %lu large, %lu frees refused", name, rep.allocated,
		       rep.large, rep.refused);
		wrong++;
	}
	if (t.traps < t.main_ops * 10) {
		report("  %s: the trap flag was not in effect", name);
		wrong++;
	}
	return wrong + t.main_failed + t.failed + t.bad + t.stuck;
}

/* What main allocated, checked and passed on: to the handler in EXCHANGE, else kept and freed. */
static void main_put(void *p, size_t size, int how)
{
	void *other;

	if (!p) {
		t.main_failed++;
		return;
	}
	stamp(p, (uint32_t)size, (uint32_t)t.main_ops);
	other = p;
	if (t.attack == EXCHANGE && t.main_ops % 3)
		other = mailbox_swap(&t.box, (uint32_t)rng_next(&t.r), p);
	if (!other)
		return;
	if (!stamp_check(other))
		t.bad++;
	switch (how) {
	case 0:
		STEPPED(kfree(other));
		break;
	case 1:
		STEPPED(kfree_nolock(other));
		break;
	default:
		STEPPED(kmem_cache_free(t.cache, other));
	}
}

/*
 * A wave of @depth objects allocated, then freed: with a depth beyond the sheaves it goes through
 * refill, flush, barn and fresh chunks.
 */
static void waves(int how, int depth, int rounds)
{
	static void *obj[2048];

	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < depth; i++) {
			void *p;

			switch (how) {
			case 0:
				STEPPED(p = kmalloc(t.size, GFP_KERNEL));
				break;
			case 1:
				STEPPED(p = kmalloc_nolock(t.size, 0, NUMA_NO_NODE));
				break;
			case 2:
				STEPPED(p = kmem_cache_alloc(t.cache, GFP_KERNEL));
				break;
			default:
				STEPPED(p = kmem_cache_alloc_nolock(t.cache, 0, NUMA_NO_NODE));
			}
			if (p)
				stamp(p, (uint32_t)t.size, (uint32_t)i);
			obj[i] = p;
		}
		for (int i = 0; i < depth; i++) {
			if (!obj[i] || stamp_check(obj[i]) != t.size) {
				t.main_failed += !obj[i];
				t.bad += obj[i] != NULL;
				continue;
			}
			main_put(obj[i], t.size, how == 3 ? 1 : how);
		}
	}
}

/*
 * Sizes and sheaves such that DEPTH objects go through refill, flush, barn and fresh chunks. A
 * trap costs tens of microseconds in a virtual machine, and an instrumented library has several
 * times as many instructions: less of it is stepped there.
 */
#define DEPTH (UNDER_ASAN ? 30 : 60)

static unsigned long cascade(enum attack attack, unsigned int calls, const char *name)
{
	static const size_t sizes[] = { 2048, 1000, 320, 4096 };
	unsigned long wrong = 0;

	for (int how = 0; how < 4; how++) {
		struct kmem_cache_args args = { .sheaf_capacity = 6 };
		struct kmem_cache *cache = NULL;

		if (!(calls & 1u << how))
			continue;
		if (how >= 2) {
			cache = kmem_cache_create("trap", (unsigned int)sizes[how], &args, 0);
			if (!cache)
				return 1;
		}
		begin(attack, cache, sizes[how]);
		waves(how, DEPTH, 1);
		waves(how, 3, DEPTH / 6);
		wrong += end(name);
		if (cache && kmem_cache_destroy(cache))
			wrong++;
		/* Traps that reach no sequence would prove little. */
		if (rseq_in_use(nolock_heap_default()) && !t.aborts) {
			report("  %s: no sequence was aborted", name);
			wrong++;
		}
	}
	return wrong;
}

/* All four pairs of calls; for the other attacks one ordinary and one nolock pair. */
#define ALL_CALLS 15u

Test(trapflag, cascade_pair)
{
	cr_assert(rseq_in_use(nolock_heap_default()), "this machine has no rseq");
	cr_assert_eq(cascade(PAIR, ALL_CALLS, "cascade_pair"), 0);
}

Test(trapflag, cascade_holder, .description = "the handler keeps objects across traps")
{
	cr_assert_eq(cascade(HOLDER, 1u << 1 | 1u << 2, "cascade_holder"), 0);
}

Test(trapflag, cascade_exchange, .description = "the handler frees what the main flow allocated")
{
	cr_assert_eq(cascade(EXCHANGE, 1u << 0 | 1u << 3, "cascade_exchange"), 0);
}

/*
 * The last level alone, on one word: a cache of 64 objects a slab with one slab, and one object
 * of it allocated, so that the slab stays. The main flow's take must succeed each time, because
 * free bits are there and the handler gives back what it took; in the handler the word may truly
 * be empty: the main flow has all of it in its hand between two instructions.
 */
static unsigned long one_word(const char *name, enum attack attack, unsigned int free_bits)
{
	struct kmem_cache *s = kmem_cache_create("one-word", 1024, NULL, 0);
	void *first = s ? kmem_cache_alloc(s, GFP_KERNEL) : NULL;
	nl_u64 obj = 0, held[64] = { 0 };
	unsigned int main_holds = 0;
	unsigned long wrong = 0;
	int rc = 0;

	if (!first)
		return 1;
	begin(attack, s, 1024);
	t.h = nolock_heap_default()->h;
	t.id = NL_TAG_CACHE(
		*nl_tag(t.h, (nl_u32)(((uintptr_t)first - t.h->base) >> NL_CHUNK_SHIFT)));
	/* Out of the sheaves into the word. */
	kmem_cache_shrink(s);
	if (nl_cache(t.h, t.id)->words != 1 || nl_cache(t.h, t.id)->nr_slabs != 1) {
		report("  %s: not one slab of one word", name);
		return 1;
	}
	while (main_holds < 63 - free_bits) {
		held[main_holds] = nl_slab_scan(t.h, t.id);
		if (!held[main_holds++])
			return 2;
	}
	for (int i = 0; i < 4 * DEPTH; i++) {
		STEPPED(obj = nl_slab_scan(t.h, t.id));
		if (!obj) {
			t.main_failed++;
			continue;
		}
		STEPPED(rc = nl_slab_put(t.h, t.id, obj));
		t.main_failed += rc != 0;
	}
	for (int i = 0; i < HOLD; i++)
		if (t.held[i] && nl_slab_put(t.h, t.id, (uintptr_t)t.held[i]))
			t.failed++;
	memset(t.held, 0, sizeof(t.held));
	while (main_holds)
		if (nl_slab_put(t.h, t.id, held[--main_holds]))
			t.main_failed++;
	kmem_cache_free(s, first);
	report("  %s: the handler met the word empty %lu times", name, t.empty);
	wrong += end(name);
	if (kmem_cache_destroy(s))
		wrong++;
	return wrong;
}

Test(trapflag, one_word_many_bits)
{
	cr_assert_eq(one_word("one_word_many_bits", WORD, 63), 0);
}

Test(trapflag, one_word_one_bit)
{
	cr_assert_eq(one_word("one_word_one_bit", WORD, 1), 0);
}

Test(trapflag, one_word_held, .description = "each trap takes a bit or gives one back")
{
	cr_assert_eq(one_word("one_word_held", WORD_HOLDER, 63), 0);
}

/* Without rseq everything runs on A-slots: the same attacks, the same promises. */
JOB(no_rseq)
{
	unsigned long wrong = 0;

	if (rseq_in_use(nolock_heap_default())) {
		report("  NOLOCK_RSEQ=0 did not switch rseq off");
		return 1;
	}
	wrong += cascade(PAIR, ALL_CALLS, "no_rseq_pair");
	wrong += cascade(HOLDER, 1u << 1 | 1u << 2, "no_rseq_holder");
	wrong += cascade(EXCHANGE, 1u << 0 | 1u << 3, "no_rseq_exchange");
	return wrong != 0;
}

Test(trapflag, no_rseq)
{
	int status = job_run("no_rseq", "NOLOCK_RSEQ", "0");

	cr_assert_eq(status, 0, "the run without rseq ended with status %#x", status);
}

#else
Test(trapflag, other_machines, .description = "single-stepping from within is for x86-64 alone")
{
	cr_skip_test("no trap flag on this machine");
}
#endif
