// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_instructions.c - a breakpoint at each instruction of the library, one at a time, whose
 * handler allocates and frees on the cache that the main flow is inside of.
 *
 * A first run is single-stepped, and each address executed inside the library is noted: that
 * gives the boundaries of instructions without a disassembler. A restartable sequence aborts
 * under the trap flag before its first instruction; so a second run sends it back there from its
 * abort label. By then the kernel has forgotten the sequence and it runs as plain code, which
 * is sound in a process of one thread. Then int3 is put on one instruction after the other while
 * the same work runs at full speed, in two ways:
 *   once	the breakpoint goes away at the first hit of each operation, so that a restartable
 *		sequence is aborted once and completes at the second try;
 *   again	the instruction is stepped over and the breakpoint set again, so that the sequence
 *		is aborted until it gives up.
 * All instructions are tried; NOLOCK_TORTURE=1 repeats it with more work and other sizes.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include "util.h"

#if defined(__x86_64__)
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"
#include "trap.h"

#define MAX_SITES 65536
#define INT3 0xcc

/* The test's own code lies in sections of its own, to be told from the library's. */
#define DRIVER __attribute__((noinline, section("driver_text")))
extern const char __start_driver_text[], __stop_driver_text[];

/* The descriptors of all restartable sequences, as the linker has gathered them. */
struct section {
	uint32_t version, flags;
	uint64_t start, length, abort;
};
extern struct section *__start___rseq_cs_ptr_array[] __attribute__((weak));
extern struct section *__stop___rseq_cs_ptr_array[] __attribute__((weak));

struct site {
	uintptr_t ip;
	unsigned long hits, aborts;
	unsigned char byte; /* what was there */
};

static struct site sites[MAX_SITES];
static unsigned int nr_sites;
static uintptr_t table[MAX_SITES * 4]; /* addresses seen, by hash */
static uintptr_t text_start, text_end;

static struct {
	enum { RECORD, RECORD_SECTIONS, ONCE, AGAIN } mode;
	struct site *site;
	bool armed, stepping_over;
	struct kmem_cache *cache;
	unsigned int size;
	void *held[4];
	unsigned int next;
	unsigned long hits, ops, failed, bad, steps, strange;
} t;

static void patch(struct site *s, unsigned char byte)
{
	__atomic_store_n((unsigned char *)s->ip, byte, __ATOMIC_SEQ_CST);
	t.armed = byte == INT3;
}

/* The text of the object that the library's code is in: this binary, or libnolock.so. */
static int find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
	uintptr_t want = (uintptr_t)arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + ph->p_vaddr;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		if (want >= at && want < at + ph->p_memsz) {
			text_start = at;
			text_end = at + ph->p_memsz;
			return 1;
		}
	}
	return 0;
}

static void record(uintptr_t ip)
{
	uint32_t h = (uint32_t)((ip * 0x9e3779b97f4a7c15ULL) >> 40);

	if (ip < text_start || ip >= text_end)
		return;
	if (ip >= (uintptr_t)__start_driver_text && ip < (uintptr_t)__stop_driver_text)
		return;
	for (;; h++) {
		uintptr_t *slot = &table[h % ARRAY_LEN(table)];

		if (*slot == ip)
			return;
		if (*slot)
			continue;
		if (nr_sites == MAX_SITES) {
			t.strange++;
			return;
		}
		*slot = ip;
		sites[nr_sites].ip = ip;
		sites[nr_sites].byte = *(unsigned char *)ip;
		nr_sites++;
		return;
	}
}

/* The trap came before the section's first instruction: all registers are as they were there. */
static void enter_section(void *context, uintptr_t abort)
{
	for (struct section **s = __start___rseq_cs_ptr_array; s < __stop___rseq_cs_ptr_array; s++)
		if ((*s)->abort == abort) {
			trap_set_ip(context, (*s)->start);
			record((*s)->start);
			return;
		}
	t.strange++;
}

static void in_handler(void)
{
	void *p = kmem_cache_alloc_nolock(t.cache, 0, NUMA_NO_NODE);
	void *old = t.held[t.next];

	t.ops += 2;
	if (p)
		stamp(p, t.size, (uint32_t)t.ops);
	else
		t.failed++;
	t.held[t.next] = p;
	t.next = (t.next + 1) % ARRAY_LEN(t.held);
	if (old && !stamp_check(old))
		t.bad++;
	kfree_nolock(old);
	p = kmem_cache_alloc_nolock(t.cache, 0, NUMA_NO_NODE);
	if (!p)
		t.failed++;
	kmem_cache_free_nolock(t.cache, p);
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	uintptr_t ip = trap_ip(context);
	int saved = errno;

	(void)sig;
	(void)si;
	if (t.mode <= RECORD_SECTIONS) {
		t.steps++;
		record(ip);
		if (t.mode == RECORD_SECTIONS && trap_at_abort(ip))
			enter_section(context, ip);
		return;
	}
	if (t.stepping_over) {
		/* The step ended; in a sequence it ended at the abort label. */
		t.stepping_over = false;
		trap_set_stepping(context, 0);
		if (trap_at_abort(ip))
			t.site->aborts++;
		in_handler();
		patch(t.site, INT3);
	} else if (t.armed) {
		/* The handler runs the same code: the breakpoint is out of its way first. */
		patch(t.site, t.site->byte);
		t.site->hits++;
		t.hits++;
		if (ip == t.site->ip + 1) {
			trap_set_ip(context, t.site->ip);
			if (t.mode == AGAIN) {
				t.stepping_over = true;
				trap_set_stepping(context, 1);
			}
		} else if (trap_at_abort(ip)) {
			/* int3 inside a sequence: the kernel has moved us to the abort label. */
			t.site->aborts++;
			if (t.mode == AGAIN) {
				in_handler();
				patch(t.site, INT3);
				errno = saved;
				return;
			}
		} else {
			t.strange++;
		}
		in_handler();
	} else {
		t.strange++;
	}
	errno = saved;
}

/* Before each call the breakpoint is set (again), or the trap flag. */
#define CALL(call)                                                                                 \
	do {                                                                                       \
		if (t.mode <= RECORD_SECTIONS) {                                                   \
			trap_on();                                                                 \
			call;                                                                      \
			trap_off();                                                                \
		} else {                                                                           \
			patch(t.site, INT3);                                                       \
			call;                                                                      \
			patch(t.site, t.site->byte);                                               \
		}                                                                                  \
		t.ops++;                                                                           \
	} while (0)

/*
 * Work that goes through every level: sheaves, spare, barn, refill, flush, fresh and next-bucket
 * chunks, bulk, prefilled sheaves. The same calls in each run.
 */
static DRIVER void work(unsigned int depth)
{
	static void *obj[4096];
	struct slab_sheaf *sheaf;
	void *p;
	int n;

	for (unsigned int i = 0; i < depth; i++) {
		switch (i % 4) {
		case 0:
			CALL(p = kmem_cache_alloc(t.cache, GFP_KERNEL));
			break;
		case 1:
			CALL(p = kmem_cache_alloc_nolock(t.cache, 0, NUMA_NO_NODE));
			break;
		case 2:
			CALL(p = kmem_cache_zalloc(t.cache, GFP_ATOMIC));
			break;
		default:
			CALL(p = kmem_cache_alloc_nolock(t.cache, __GFP_ZERO, 0));
		}
		if (p)
			stamp(p, t.size, i);
		else
			t.failed++;
		obj[i] = p;
	}
	for (unsigned int i = 0; i < depth; i++) {
		p = obj[i];
		if (!p)
			continue;
		if (!stamp_check(p))
			t.bad++;
		switch (i % 4) {
		case 0:
			CALL(kfree_nolock(p));
			break;
		case 1:
			CALL(kmem_cache_free(t.cache, p));
			break;
		case 2:
			CALL(kfree(p));
			break;
		default:
			CALL(kmem_cache_free_nolock(t.cache, p));
		}
	}
	CALL(n = kmem_cache_alloc_bulk(t.cache, GFP_KERNEL, 50, obj));
	if (n == 50)
		CALL(kmem_cache_free_bulk(t.cache, 50, obj));
	else
		t.failed++;
	CALL(sheaf = kmem_cache_prefill_sheaf(t.cache, GFP_KERNEL, 20));
	if (!sheaf) {
		t.failed++;
		return;
	}
	CALL(p = kmem_cache_alloc_from_sheaf(t.cache, 0, sheaf));
	if (p)
		CALL(kfree_nolock(p));
	CALL(n = kmem_cache_refill_sheaf(t.cache, GFP_KERNEL, &sheaf, 25));
	t.failed += n != 0;
	CALL(kmem_cache_return_sheaf(t.cache, GFP_KERNEL, sheaf));
	CALL(p = kmalloc_nolock(t.size, 0, NUMA_NO_NODE));
	if (p)
		CALL(kfree_nolock(p));
	else
		t.failed++;
	CALL(p = kmalloc(t.size, GFP_KERNEL));
	if (p)
		CALL(p = krealloc(p, t.size * 3, GFP_KERNEL));
	if (p)
		CALL(kfree(p));
	else
		t.failed++;
	CALL(p = kmalloc(100000, GFP_KERNEL));
	if (p)
		CALL(kfree(p));
	else
		t.failed++;
	CALL(p = alloc_pages_nolock(0, NUMA_NO_NODE, 0));
	if (p)
		CALL(free_pages_nolock(p, 0));
	else
		t.failed++;
	CALL(kmem_cache_shrink(t.cache));
}

/* A cache that is fresh each time takes the same way each time. */
static bool round_of(unsigned int size, unsigned int depth)
{
	struct kmem_cache_args args = { .sheaf_capacity = 16 };

	t.size = size;
	t.cache = kmem_cache_create("instructions", size, &args, 0);
	if (!t.cache)
		return false;
	work(depth);
	for (unsigned int i = 0; i < ARRAY_LEN(t.held); i++) {
		kfree(t.held[i]);
		t.held[i] = NULL;
	}
	return kmem_cache_destroy(t.cache) == 0;
}

static void torture(unsigned int size, unsigned int depth)
{
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long live = 0, aborts = 0, hits = 0;
	struct nolock_heap_report rep;
	unsigned int recorded;

	t.mode = RECORD;
	cr_assert(round_of(size, depth));
	t.mode = RECORD_SECTIONS;
	cr_assert(round_of(size, depth));
	cr_assert_eq(t.strange, 0, "an abort label belongs to no sequence");
	cr_assert_gt(nr_sites, 500, "only %u instructions were seen", nr_sites);
	expect_whole(heap, NULL, "after the recording");
	recorded = nr_sites;
	for (int mode = ONCE; mode <= AGAIN; mode++)
		for (unsigned int i = 0; i < recorded; i++) {
			t.mode = mode;
			t.site = &sites[i];
			cr_assert(round_of(size, depth), "the breakpoint at +%#lx",
				  (unsigned long)(t.site->ip - text_start));
			cr_assert_eq(t.failed, 0, "the breakpoint at +%#lx: %lu allocations failed",
				     (unsigned long)(t.site->ip - text_start), t.failed);
			cr_assert_eq(t.bad, 0, "the breakpoint at +%#lx: %lu objects damaged",
				     (unsigned long)(t.site->ip - text_start), t.bad);
			if (i % 16 == 0)
				expect_whole(heap, NULL, "with a breakpoint in the library");
		}
	expect_whole(heap, &rep, "after all breakpoints");
	cr_assert_eq(rep.allocated, 0, "%lu objects lost", rep.allocated);
	cr_assert_eq(rep.refused, 0);
	for (unsigned int i = 0; i < recorded; i++) {
		live += sites[i].hits > 0;
		aborts += sites[i].aborts;
		hits += sites[i].hits;
	}
	report("  objects of %u bytes: %u instructions executed, %lu hit live (%lu %%), %lu hits, "
	       "%lu aborted sections, %lu operations, %lu failures, %lu damaged, %lu strange traps",
	       size, recorded, live, live * 100 / recorded, hits, aborts, t.ops, t.failed, t.bad,
	       t.strange);
	/* Some instructions run only when an interrupter was there before: not in every run. */
	cr_assert_geq(live * 100, recorded * 90ul, "%lu of %u instructions were hit", live,
		      recorded);
	cr_assert_gt(aborts, 0, "no section was ever aborted");
	cr_assert_eq(t.strange, 0, "%lu traps were not the breakpoint's", t.strange);
}

static void begin(void)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	long page = sysconf(_SC_PAGESIZE);
	uintptr_t from, to;

	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), 4 * MiB), 0);
	dl_iterate_phdr(find_text, (void *)(uintptr_t)&kmem_cache_alloc_nolock);
	cr_assert_neq(text_start, 0, "the library's text was not found");
	from = text_start & ~(uintptr_t)(page - 1);
	to = (text_end + (uintptr_t)page - 1) & ~(uintptr_t)(page - 1);
	cr_assert_eq(mprotect((void *)from, to - from, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
	sigaction(SIGTRAP, &sa, NULL);
}

Test(instructions, every_instruction, .description = "a breakpoint at each, one at a time")
{
	begin();
	torture(64, 120);
}

Test(instructions, torture, .description = "the same with more work: NOLOCK_TORTURE=1 for all")
{
	static const struct {
		unsigned int size, depth;
	} plan[] = { { 2048, 40 }, { 16, 4000 }, { 320, 1000 }, { 24000, 200 } };
	bool full = env_number("NOLOCK_TORTURE", 0) != 0;

	begin();
	for (size_t i = 0; i < (full ? ARRAY_LEN(plan) : 1); i++) {
		memset(sites, 0, sizeof(sites));
		memset(table, 0, sizeof(table));
		nr_sites = 0;
		torture(plan[i].size, plan[i].depth);
	}
}
#else
Test(instructions, other_machines, .description = "patching int3 is for x86-64 alone")
{
	cr_skip_test("no int3 on this machine");
}
#endif
