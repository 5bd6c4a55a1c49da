// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_instructions.c - a breakpoint at each instruction of the library, one at a time, whose
 * handler allocates and frees on the cache that the main flow is inside of.
 *
 * A first run is single-stepped, and each address executed inside the library is noted: that
 * gives the boundaries of instructions without a disassembler. A restartable sequence aborts
 * under the trap flag before its first instruction; so it is sent back there from its abort
 * label. By then the kernel has forgotten the sequence and it runs as plain code, which is sound
 * in a process of one thread. Then int3 is put on one instruction after the other while the same
 * work runs at full speed, in two ways:
 *   once	the breakpoint goes away at the first hit of each operation, so that a restartable
 *		sequence is aborted once and completes at the second try;
 *   again	the instruction is stepped over and the breakpoint set again, so that the sequence
 *		is aborted until it gives up.
 * A second process does the same without rseq, where the A-slots serve what the R-slots serve
 * here. All instructions are tried, one in five of a library that a sanitizer has made longer; NOLOCK_TORTURE=1 repeats it with more work and other sizes.
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
	enum { WARM, RECORD, ONCE, AGAIN } mode;
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
	if (t.mode == RECORD) {
		t.steps++;
		if (trap_at_abort(ip))
			enter_section(context, ip);
		else
			record(ip);
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
		if (t.mode == RECORD) {                                                            \
			trap_on();                                                                 \
			call;                                                                      \
			trap_off();                                                                \
		} else if (t.mode == WARM) {                                                       \
			call;                                                                      \
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

/* Returns what went wrong, 0 for nothing. */
static int torture(unsigned int size, unsigned int depth)
{
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long live = 0, tried = 0, aborts = 0, hits = 0, missed = 0;
	unsigned int step = UNDER_ASAN && !env_number("NOLOCK_TORTURE", 0) ? 5 : 1;
	struct nolock_heap_report rep;

	memset(sites, 0, sizeof(sites));
	memset(table, 0, sizeof(table));
	nr_sites = 0;
	/* Once without steps: what only a heap's first use does is done. */
	t.mode = WARM;
	if (!round_of(size, depth))
		return 1;
	t.mode = RECORD;
	if (!round_of(size, depth) || t.strange || nr_sites < 500 ||
	    check_whole(heap, NULL, "after the recording")) {
		report("  recording: %u instructions seen, %lu strange traps", nr_sites, t.strange);
		return 1;
	}
	for (int mode = ONCE; mode <= AGAIN; mode++)
		for (unsigned int i = 0; i < nr_sites; i += step) {
			t.mode = mode;
			t.site = &sites[i];
			if (!round_of(size, depth) || t.failed || t.bad || t.strange ||
			    (i % 16 == 0 && check_whole(heap, NULL, "with a breakpoint"))) {
				report("  breakpoint at +%#lx, mode %d: %lu allocations failed, "
				       "%lu objects damaged, %lu strange traps",
				       (unsigned long)(t.site->ip - text_start), mode, t.failed,
				       t.bad, t.strange);
				return 2;
			}
		}
	if (check_whole(heap, &rep, "after all breakpoints"))
		return 3;
	for (unsigned int i = 0; i < nr_sites; i += step) {
		tried++;
		live += sites[i].hits > 0;
		aborts += sites[i].aborts;
		hits += sites[i].hits;
		if (!sites[i].hits && missed++ < env_number("NOLOCK_SHOW_MISSED", 0))
			report("    never hit: +%#lx", sites[i].ip - text_start);
	}
	report("  %s, objects of %u bytes: %u instructions executed, %lu tried, %lu hit live "
	       "(%lu %%), %lu hits, %lu aborted sections, %lu operations, %lu failures, %lu damaged",
	       rseq_in_use(heap) ? "rseq" : "no rseq", size, nr_sites, tried, live,
	       live * 100 / tried, hits, aborts, t.ops, t.failed, t.bad);
	if (rep.allocated || rep.refused) {
		report("  %lu objects lost, %lu frees refused", rep.allocated, rep.refused);
		return 4;
	}
	/* Some run only where the recording's slower clock led: hints, other slots. */
	if (live * 100 < tried * 95)
		return 5;
	if (rseq_in_use(heap) && !aborts)
		return 6;
	return 0;
}

/* A visit of the decay falls into one run or another, by the clock. Read once, before any run. */
__attribute__((constructor)) static void no_decay(void)
{
	setenv("NOLOCK_DECAY_MS", "-1", 1);
}

static int begin(void)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	long page = sysconf(_SC_PAGESIZE);
	uintptr_t from, to;

	if (nolock_heap_populate(nolock_heap_default(), 4 * MiB))
		return 10;
	dl_iterate_phdr(find_text, (void *)(uintptr_t)&kmem_cache_alloc_nolock);
	if (!text_start)
		return 11;
	from = text_start & ~(uintptr_t)(page - 1);
	to = (text_end + (uintptr_t)page - 1) & ~(uintptr_t)(page - 1);
	if (mprotect((void *)from, to - from, PROT_READ | PROT_WRITE | PROT_EXEC))
		return 12;
	return sigaction(SIGTRAP, &sa, NULL) ? 13 : 0;
}

/* One size in every run; the others where somebody asked for torture. */
static int all_sizes(void)
{
	static const struct {
		unsigned int size, depth;
	} plan[] = { { 64, 120 }, { 2048, 40 }, { 16, 4000 }, { 320, 1000 }, { 24000, 200 } };
	bool full = env_number("NOLOCK_TORTURE", 0) != 0;
	int rc = begin();

	for (size_t i = 0; !rc && i < (full ? ARRAY_LEN(plan) : 1); i++)
		rc = torture(plan[i].size, plan[i].depth);
	return rc;
}

Test(instructions, every_instruction, .description = "a breakpoint at each, one at a time")
{
	int rc;

	cr_assert(rseq_in_use(nolock_heap_default()), "this machine has no rseq");
	rc = all_sizes();
	cr_assert_eq(rc, 0, "failed at step %d", rc);
}

JOB(without_rseq)
{
	return rseq_in_use(nolock_heap_default()) ? 20 : all_sizes();
}

Test(instructions, every_instruction_without_rseq)
{
	int status = job_run("without_rseq", "NOLOCK_RSEQ", "0");

	cr_assert_eq(status, 0, "the run without rseq ended with status %#x", status);
}
#else
Test(instructions, other_machines, .description = "patching int3 is for x86-64 alone")
{
	cr_skip_test("no int3 on this machine");
}
#endif
