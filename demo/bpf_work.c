// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf_work.c - see bpf_work.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <nolock/bpf.h>
#include <nolock/stat.h>

#include "bpf_work.h"
#include "internal.h"
#include "work.h"
#include "work.skel.h"

/* One kernel event of so many. */
#define SAMPLE 16
/* The cache whose A-slots have the breakpoints: half of the programs' objects are of it. */
#define NMI_CACHE "kmalloc-64"
/* What the verifier's guard before an arena's kernel mapping takes. */
#define ARENA_GUARD 32768

struct bpf_work {
	struct work_bpf *skel;
	struct nolock_heap *heap;
	struct bpf_link *nmi[WORK_CPUS];
	char no_nmi[128];
	bool finished;
};

static char why_text[256];

/* What libbpf says when a load fails is for those who debug it; here one line has to do. */
static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
	return 0;
}

static int nmi_cache_id(const struct nolock_heap *heap)
{
	struct nolock_cache_stat st;
	unsigned int id;
	int err;

	for (id = 0; (err = nolock_heap_cache_stat(heap, id, &st)) != -ERANGE; id++)
		if (!err && !strcmp(st.name, NMI_CACHE))
			return id;
	return -1;
}

/* A breakpoint on every access of a CPU to an address of the kernel's. */
static int breakpoint(__u64 addr, int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_RW,
		.bp_addr = addr,
		.bp_len = HW_BREAKPOINT_LEN_8,
		.sample_period = 1,
		.pinned = 1,
	};

	return syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
}

/* On each CPU: a breakpoint on the lock word of its A-slot. */
static void start_nmi(struct bpf_work *w)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int id = nmi_cache_id(w->heap), cpus = libbpf_num_possible_cpus(), cpu, fd, n = 0;
	__u64 lock;

	if (bpf_prog_test_run_opts(bpf_program__fd(w->skel->progs.find_heap), &opts) ||
	    !w->skel->bss->kernel_base || id < 0) {
		snprintf(w->no_nmi, sizeof(w->no_nmi),
			 "cannot find the heap's place in the kernel");
		return;
	}
	for (cpu = 0; cpu < cpus && cpu < WORK_CPUS; cpu++) {
		lock = (__u64)&nl_aslot(w->heap->h, cpu, id)->lock;
		fd = breakpoint(w->skel->bss->kernel_base + ARENA_GUARD + (__u32)lock, cpu);
		if (fd < 0) {
			snprintf(w->no_nmi, sizeof(w->no_nmi), "no data breakpoint on CPU %d: %s",
				 cpu, strerror(errno));
			continue;
		}
		w->nmi[cpu] = bpf_program__attach_perf_event(w->skel->progs.on_breakpoint, fd);
		if (!w->nmi[cpu]) {
			snprintf(w->no_nmi, sizeof(w->no_nmi), "no program on a breakpoint: %s",
				 strerror(errno));
			close(fd);
			continue;
		}
		n++;
	}
	/* A CPU that is offline has none; it is enough that there are some. */
	if (n)
		*w->no_nmi = 0;
}

struct bpf_work *bpf_work_start(struct nolock_heap *heap, const char **why)
{
	libbpf_print_fn_t print = libbpf_set_print(quiet);
	struct bpf_work *w = calloc(1, sizeof(*w));
	const char *step = "opened";
	int err = -ENOMEM;

	*why = why_text;
	if (!w)
		goto fail;
	w->heap = heap;
	w->skel = work_bpf__open();
	if (!w->skel) {
		err = -errno;
		goto fail;
	}
	w->skel->rodata->sample = SAMPLE;
	step = "given the heap";
	err = nolock_bpf_attach_heap(w->skel->obj, heap);
	if (err)
		goto fail;
	step = "loaded";
	err = work_bpf__load(w->skel);
	if (err)
		goto fail;
	/* The breakpoints first, so that they see the first event already. */
	start_nmi(w);
	step = "attached";
	w->skel->links.on_alloc = bpf_program__attach(w->skel->progs.on_alloc);
	if (!w->skel->links.on_alloc) {
		err = -errno;
		goto fail;
	}
	libbpf_set_print(print);
	return w;
fail:
	snprintf(why_text, sizeof(why_text), "its programs cannot be %s: %s", step,
		 access("/sys/kernel/btf/vmlinux", R_OK) ? "the kernel has no BTF" :
							   strerror(-err));
	libbpf_set_print(print);
	bpf_work_free(w);
	return NULL;
}

const char *bpf_work_no_nmi(const struct bpf_work *w)
{
	return *w->no_nmi ? w->no_nmi : NULL;
}

void bpf_work_counts(const struct bpf_work *w, struct bpf_work_counts *c)
{
	const struct work_side *task = &w->skel->bss->task, *nmi = &w->skel->bss->nmi;

	c->events = task->events;
	c->allocs = task->allocs;
	c->frees = task->frees;
	c->failures = task->failures;
	c->corruptions = task->corruptions + nmi->corruptions;
	c->nmi_hits = nmi->events;
	c->nmi_allocs = nmi->allocs;
	c->nmi_frees = nmi->frees;
	c->nmi_failures = nmi->failures;
}

static bool intact(const unsigned long long *word)
{
	unsigned int size = (word[0] ^ (unsigned long long)word) >> 48, i;

	for (i = 0; i < WORK_WORDS && i < size / 8; i++)
		if (word[i] != work_word((unsigned long long)word, size, i))
			return false;
	return i > 0;
}

/* What a side still held is freed here: from BPF to user space, in a plain kfree(). */
static void free_held(struct work_side *side)
{
	int cpu, i;

	for (cpu = 0; cpu < WORK_CPUS; cpu++) {
		for (i = 0; i < WORK_HELD; i++) {
			unsigned long long *p = (unsigned long long *)side->held[cpu][i];

			if (!p)
				continue;
			if (!intact(p))
				side->corruptions++;
			kfree(p);
			side->held[cpu][i] = 0;
			side->frees++;
		}
	}
}

void bpf_work_finish(struct bpf_work *w, struct bpf_work_counts *counts)
{
	int cpu;

	if (!w->finished) {
		bpf_link__destroy(w->skel->links.on_alloc);
		w->skel->links.on_alloc = NULL;
		for (cpu = 0; cpu < WORK_CPUS; cpu++)
			bpf_link__destroy(w->nmi[cpu]);
		/* A program that is on its way ends at once: it neither sleeps nor is preempted. */
		usleep(10000);
		free_held(&w->skel->bss->task);
		free_held(&w->skel->bss->nmi);
		w->finished = true;
	}
	bpf_work_counts(w, counts);
}

void bpf_work_free(struct bpf_work *w)
{
	struct bpf_work_counts counts;

	if (!w)
		return;
	if (w->skel && w->skel->bss && w->skel->links.on_alloc)
		bpf_work_finish(w, &counts);
	work_bpf__destroy(w->skel);
	free(w);
}
