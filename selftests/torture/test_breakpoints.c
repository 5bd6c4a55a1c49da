// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_breakpoints.c - a breakpoint at each instruction of the library that a workload of the whole
 * API executes, one at a time; its handler allocates, frees, and frees what the main flow
 * allocated.
 *
 * A first run is single-stepped, and each address executed inside the library is noted: that
 * gives the boundaries of instructions without a disassembler. A restartable sequence aborts
 * under the trap flag before its first instruction; so it is sent back there from its abort
 * label. By then the kernel has forgotten the sequence and it runs as plain code, which is sound
 * in a process of one thread. Then int3 is put on one instruction after the other while the same
 * work runs at full speed, in two ways:
 *   once	the breakpoint goes away at the first hit of each call, so that a restartable
 *		sequence is aborted once and completes at the second try;
 *   again	the instruction is stepped over and the breakpoint set again, so that the sequence
 *		is aborted until it gives up.
 * On the private heap and on a shared one. Each round begins with the same state of the decay, which
 * is due at each of its ticks: what runs does not depend on the clock. An instruction that was not
 * hit even so gets more rounds.
 *
 * All instructions with TORTURE_SECONDS=N, also on the private heap without rseq; else those of a
 * shorter workload, and as many of them, spread evenly, as some seconds allow.
 */
#define _GNU_SOURCE
#include <stdio.h>

#if defined(__x86_64__)
#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "internal.h"
#include "../lib/trap.h"
#include "again.h"
#include "api.h"
#include "row.h"
#include "shared.h"
#include "symbol.h"

#define MAX_SITES 65536
#define MORE_ROUNDS 3
#define INT3 0xcc

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
static struct api api;

static struct {
	enum { WARM, RECORD, ONCE, AGAIN } mode;
	struct site *site;
	bool armed, stepping_over;
	unsigned long hits, steps, strange;
} t;

static void patch(struct site *s, unsigned char byte)
{
	__atomic_store_n((unsigned char *)s->ip, byte, __ATOMIC_SEQ_CST);
	t.armed = byte == INT3;
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
		/* No hits: those of the heap before are not this one's. */
		sites[nr_sites++] = (struct site){ .ip = ip, .byte = *(unsigned char *)ip };
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
	const char *call = api.call;

	api_handler(&api, t.hits);
	api.call = call;
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	uintptr_t ip = trap_ip(context);
	int saved = errno;

	(void)sig;
	(void)si;
	if (t.mode == RECORD) {
		t.steps++;
		trap_hurry_string(context);
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
static DRIVER void arm(void)
{
	if (t.mode == RECORD)
		trap_on();
	else if (t.mode != WARM)
		patch(t.site, INT3);
}

static DRIVER void disarm(void)
{
	if (t.mode == RECORD)
		trap_off();
	else if (t.mode != WARM)
		patch(t.site, t.site->byte);
}

static bool round_of(void)
{
	struct nolock_heap *decaying = nolock_heap_default();

	nl_ticks = 0;
	decaying->decay_next = 0;
	decaying->decay_visits = decaying->decay_group = 0;
	api.failed = api.bad = 0;
	api.line = 0;
	if (!api_begin(&api))
		return false;
	api_work(&api);
	return api_end(&api) && !api.failed && !api.bad && !t.strange;
}

static int wrong(const char *what)
{
	char name[128] = "";

	if (t.site)
		symbol_name(name, sizeof(name), t.site->ip);
	printf("  %s, breakpoint at %s, mode %d, in %s: %lu calls failed, %lu objects damaged, "
	       "%lu strange traps; the first at api.c:%u\n",
	       what, name, t.mode, api.call ? api.call : "no call", api.failed, api.bad, t.strange,
	       api.line);
	return 1;
}

/* Returns 0 if nothing went wrong. */
static int torture(struct nolock_heap *heap, const char *name, bool all, unsigned long seconds)
{
	unsigned long live = 0, late = 0, tried = 0, aborts = 0, hits = 0, calls;
	struct nolock_heap_report rep, before;
	unsigned int step;
	uint64_t end;

	memset(&t, 0, sizeof(t));
	memset(&api, 0, sizeof(api));
	memset(table, 0, sizeof(table));
	nr_sites = 0;
	api.heap = heap;
	api.size = 320;
	api.depth = 60;
	api.brief = !all;
	api.rcu_polls = !rseq_in_use(nolock_heap_default());
	api.arm = arm;
	api.disarm = disarm;
	/*
	 * Once without steps: what only a heap's first use does is done. What an earlier part left
	 * would decay in the recording alone.
	 */
	nolock_heap_trim(nolock_heap_default());
	t.mode = WARM;
	if (!round_of())
		return wrong("the first round");
	t.mode = RECORD;
	if (!round_of() || nr_sites < 500 || check_whole(heap, &before, "after the recording"))
		return wrong("the recording");
	/* In an order that spreads them evenly: the step is a prime. */
	step = nr_sites % 7919 ? 7919 : 7907;
	end = now_ns() + seconds * 1000000000u;
	calls = api.calls;
	for (unsigned int i = 0; i < nr_sites && (all || i < 16 || now_ns() < end); i++) {
		t.site = &sites[(uint64_t)i * step % nr_sites];
		for (unsigned int more = 0; more <= MORE_ROUNDS && !t.site->hits; more++) {
			for (t.mode = ONCE; t.mode <= AGAIN; t.mode++)
				if (!round_of() ||
				    (i % 16 == 0 && check_whole(heap, NULL, "with a breakpoint")))
					return wrong("a round");
			late += more && t.site->hits;
		}
		tried++;
		live += t.site->hits > 0;
		aborts += t.site->aborts;
		hits += t.site->hits;
		if (!t.site->hits && env_number("NOLOCK_SHOW_MISSED", 0)) {
			char text[128];

			printf("    never hit: %s\n", symbol_name(text, sizeof(text), t.site->ip));
		}
	}
	if (check_whole(heap, &rep, "after all breakpoints"))
		return 1;
	printf("# breakpoints, %s: %u instructions executed, %lu tried, %lu hit live (%lu %%, %lu "
	       "of them later), %lu hits, %lu aborted sections, %lu calls (%lu destroyed late), 0 "
	       "failures\n",
	       name, nr_sites, tried, live, live * 100 / tried, late, hits, aborts,
	       api.calls - calls, api.late);
	row(name, api.calls - calls, hits, "breakpoints", api.failed + api.bad + t.strange);
	if (rep.allocated || rep.large || rep.refused) {
		printf("  %lu objects lost, %lu large, %lu frees refused\n", rep.allocated,
		       rep.large, rep.refused);
		return 1;
	}
	/* Some run only where the recording led: hints, other slots. */
	if (live * 100 < tried * 95) {
		printf("  too many were never hit\n");
		return 1;
	}
	if (api.calls == calls || !hits) {
		printf("  nothing was tried\n");
		return 1;
	}
	if (rseq_in_use(heap) && !aborts) {
		printf("  no sequence was aborted\n");
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	bool all = env_number("TORTURE_SECONDS", 0) != 0;
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	unsigned long seconds = UNDER_ASAN ? 8 : PLAIN_BUILD ? 4 : 1, tried = 1, failed = 0;
	struct nolock_heap *heap;

	symbol_text(&text_start, &text_end);
	if (!symbol_text_writable() || sigaction(SIGTRAP, &sa, NULL))
		return 2;
	/* The shortest that there is; the library reads it once. */
	setenv("NOLOCK_DECAY_MS", "1", 1);
	heap = nolock_heap_default();
	if (argc > 1)
		return rseq_in_use(heap) ? 20 : torture(heap, "no rseq", all, seconds);
	if (!rseq_in_use(heap) && built_with_rseq()) {
		printf("this machine has no rseq\n");
		return 1;
	}
	/* In a build for small machines test_stepped is short of the other one. */
	if (all || !SMALL_BUILD) {
		failed += (unsigned long)torture(heap, "private heap", all, seconds);
		tried++;
	}
	failed += (unsigned long)torture(shared_make(64 * MiB), "shared heap", all, seconds);
	if (PLAIN_BUILD && all) {
		failed += !run_without_rseq(argv[0], "no-rseq");
		tried++;
	}
	printf("%lu passed, %lu failed, 0 skipped\n", tried - failed, failed);
	return failed != 0;
}
#else
int main(void)
{
	printf("patching int3 is for x86-64 alone\n");
	return 77;
}
#endif
