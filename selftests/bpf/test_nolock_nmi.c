// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_nmi.c - allocation in NMI context, inside the critical sections of another program.
 *
 * A data breakpoint on a word of the allocator's own metadata runs a BPF program right after every
 * access to it; the kernel handles it as an NMI. That program allocates and frees from the same
 * cache, holds objects from one hit to the next, and exchanges objects with the program, or with
 * the user's code, that it has interrupted. Memory is left all the time: no allocation may fail.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/slot.h"
#include "nolock_help.h"

#define CPU 0
#define ROUNDS 20u
#define TOKEN 0x6e6f6c6f636b2122ULL

struct env {
	struct nolock_heap *heap;
	struct nolock_work_bpf *s;
	struct kmem_cache *cache;
	nl_u32 id;
	struct nolock_mail *mail;
	struct nolock_work *outer;
	struct nolock_work *inner;
	nl_u64 forth; /* objects of the outer one's that the inner one freed, and the reverse */
	nl_u64 back;
};

/* The words that are attacked, as addresses in user space, once the cache is warm. */
static nl_u32 slab_chunk(struct env *e)
{
	nl_heap_t *h = e->heap->h;

	for (nl_u32 c = h->first_chunk; c < h->nr_open << NL_GROUP_SHIFT; c++)
		if (*nl_tag(h, c) == NL_TAG(NL_KIND_SLAB, e->id))
			return c;
	cr_assert_fail("the cache has no slab");
	return 0;
}

static void *aslot_lock(struct env *e)
{
	return &nl_aslot(e->heap->h, CPU, e->id)->lock;
}

static void *aslot_word(struct env *e)
{
	return &nl_aslot(e->heap->h, CPU, e->id)->word;
}

static void *rslot_lock(struct env *e)
{
	return &nl_rslot(e->heap->h, CPU, e->id)->lock;
}

static void *rslot_word(struct env *e)
{
	return &nl_rslot(e->heap->h, CPU, e->id)->word;
}

static void *sheaf_entry(struct env *e)
{
	nl_u64 objs = nl_aslot(e->heap->h, CPU, e->id)->objs;

	return (void *)(objs ? objs : nl_rslot(e->heap->h, CPU, e->id)->objs);
}

static void *barn_lock(struct env *e)
{
	return &nl_cache(e->heap->h, e->id)->barn[nl_slot_node(e->heap->h, CPU)].lock;
}

static void *free_word(struct env *e)
{
	return &nl_slab(e->heap->h, slab_chunk(e))->free[0];
}

static void *summary(struct env *e)
{
	return &nl_slab(e->heap->h, slab_chunk(e))->summary;
}

static void *chunk_free(struct env *e)
{
	return &nl_group(e->heap->h, slab_chunk(e) >> NL_GROUP_SHIFT)->chunk_free;
}

static void *partial(struct env *e)
{
	return &nl_group(e->heap->h, slab_chunk(e) >> NL_GROUP_SHIFT)->partial[e->id];
}

static void *chunk_tag(struct env *e)
{
	return nl_tag(e->heap->h, slab_chunk(e));
}

static void *sheaf_map(struct env *e)
{
	return nl_sheaf_map(e->heap->h) + nl_load(&e->heap->h->sheaf_hint);
}

static struct env start(unsigned int size, unsigned int held, nl_u32 outer_side)
{
	static const char *const progs[] = { "work_syscall", "work_tc", "work_tp_btf", "work_nmi",
					     NULL };
	struct kmem_cache_args args = { .sheaf_capacity = 4 };
	struct env e = { .heap = heap_new(0, 8) };

	pin(CPU);
	e.s = work_load(nolock_heap_fd(e.heap), progs);
	e.s->bss->token = TOKEN;
	e.cache = nolock_heap_kmem_cache_create(e.heap, "attacked", size, &args, 0);
	cr_assert(e.cache);
	e.id = nl_cache_id(e.cache);
	e.mail = mail_new(e.heap);
	e.outer = work_new(e.heap, outer_side, 2 * held, held);
	e.inner = work_new(e.heap, SIDE_INNER, 4, held < 16 ? held : 16);
	e.outer->min_size = e.outer->max_size = e.inner->min_size = e.inner->max_size = size;
	e.outer->cache = e.inner->cache = (nl_u64)e.cache;
	e.outer->mail = e.inner->mail = (nl_u64)e.mail;
	return e;
}

static void finish(struct env *e)
{
	kfree(e->mail);
	kfree(e->outer);
	kfree(e->inner);
	cr_assert_eq(kmem_cache_destroy(e->cache), 0);
	heap_whole(e->heap, 0, "at the end");
}

static void run_outer(struct env *e, unsigned int type)
{
	memset(e->s->bss->work_of, 0, sizeof(e->s->bss->work_of));
	if (type < NR_TYPES)
		e->s->bss->work_of[type] = (nl_u64)e->outer;
	switch (type) {
	case TYPE_SYSCALL:
		run_syscall(e->s->progs.work_syscall, e->outer);
		break;
	case TYPE_TC:
		run_packet(e->s->progs.work_tc);
		break;
	case TYPE_TP_BTF:
		syscall(SYS_getppid, TOKEN);
		break;
	default: /* the user's own code */
		work_run(e->outer);
	}
}

/* The breakpoint is gone: everything back, counted, checked. Returns the hits. */
static nl_u64 settle(struct env *e, const char *what, const char *outer)
{
	nl_u64 hits = e->s->bss->hits[CPU];

	e->forth += e->inner->from[e->outer->side];
	e->back += e->outer->from[SIDE_INNER];
	e->s->bss->hits[CPU] = 0;
	e->s->bss->work_on[CPU] = 0;
	work_drain(e->outer);
	work_drain(e->inner);
	mail_drain(e->mail, e->outer);
	figure("%s in %s: %llu hits, outer %llu allocations, inner %llu, crossed %llu and %llu, "
	       "%llu failed, %llu damaged",
	       what, outer, (unsigned long long)hits, (unsigned long long)e->outer->allocs,
	       (unsigned long long)e->inner->allocs,
	       (unsigned long long)e->inner->from[e->outer->side],
	       (unsigned long long)e->outer->from[SIDE_INNER],
	       (unsigned long long)e->outer->fails + e->inner->fails,
	       (unsigned long long)e->outer->bad + e->inner->bad);
	work_good(e->outer, outer);
	cr_assert_gt(hits, 0, "%s in %s: the breakpoint never fired", what, outer);
	cr_assert_eq(e->inner->runs, hits, "%s in %s: %llu hits, but the program ran %llu times",
		     what, outer, (unsigned long long)hits, (unsigned long long)e->inner->runs);
	work_good(e->inner, "the NMI's program");
	cr_assert_eq(e->outer->allocs + e->inner->allocs, e->outer->frees + e->inner->frees);
	/* Alive: the mail and the two workers. */
	heap_whole(e->heap, 3, what);
	e->outer->runs = e->outer->allocs = e->outer->frees = 0;
	e->inner->runs = e->inner->allocs = e->inner->frees = 0;
	memset(e->inner->from, 0, sizeof(e->inner->from));
	memset(e->outer->from, 0, sizeof(e->outer->from));
	return hits;
}

static void crossed(const struct env *e)
{
	cr_assert_gt(e->forth, 0, "the NMI's program freed nothing of the interrupted one's");
	cr_assert_gt(e->back, 0, "the interrupted one freed nothing of the NMI's");
}

/* One word, attacked inside programs of three types. */
static void attack_kernel(const char *what, void *(*find)(struct env *), unsigned int len)
{
	static const unsigned int types[] = { TYPE_SYSCALL, TYPE_TC, TYPE_TP_BTF };
	static const char *const names[] = { "syscall", "tc", "tp_btf" };
	struct env e = start(4096, 96, SIDE_BPF);
	struct bpf_link *link = bpf_program__attach(e.s->progs.work_tp_btf);

	cr_assert(link, "%s", strerror(errno));
	/* The bulk forms and prefilled sheaves as well, on either side of the interrupt. */
	work_forms_of(e.outer, e.cache);
	work_forms_of(e.inner, e.cache);
	for (unsigned int t = 0; t < 3; t++) {
		int fd;

		run_outer(&e, types[t]);
		e.s->bss->work_on[CPU] = (nl_u64)e.inner;
		fd = break_kernel(e.heap, find(&e), len, CPU, e.s->progs.work_nmi);
		for (unsigned int i = 0; i < ROUNDS; i++) {
			run_outer(&e, types[t]);
			/* From user space, which the breakpoint does not see: chunks, sheaves and
			 * slabs go back, to be taken again. */
			work_drain(e.outer);
			kmem_cache_shrink(e.cache);
		}
		close(fd);
		settle(&e, what, names[t]);
	}
	crossed(&e);
	bpf_link__destroy(link);
	finish(&e);
}

#define KERNEL(word, len)                                                                          \
	Test(nolock_nmi, word, .timeout = 120)                                                     \
	{                                                                                          \
		attack_kernel(#word, word, len);                                                   \
	}

KERNEL(aslot_lock, 8)
KERNEL(aslot_word, 8)
KERNEL(sheaf_entry, 8)
KERNEL(barn_lock, 8)
KERNEL(free_word, 8)
KERNEL(summary, 8)
KERNEL(chunk_free, 8)
KERNEL(partial, 8)
KERNEL(chunk_tag, 4)
KERNEL(sheaf_map, 8)

/*
 * On a virtual machine a debug exception can come with DR6 empty. The kernel takes that for an
 * INT1 instruction of ours and sends a SIGTRAP: one access more that was interrupted, by a signal.
 */
static volatile unsigned int stray_traps;

static void stray_trap(int sig)
{
	(void)sig;
	stray_traps++;
}

/* The same words at their user address: inside the library's critical sections. */
static void attack_user(const char *what, void *(*find)(struct env *), unsigned int len, bool rseq)
{
	struct env e = start(4096, 96, SIDE_USER);
	struct sigaction sa = { .sa_handler = stray_trap };
	int tries = 0, fd;

	cr_assert_eq(sigaction(SIGTRAP, &sa, NULL), 0);

	if (!rseq)
		e.heap->rseq_slots = 0;
	/* Without rseq, a thread's A-slot goes by its number: stay on that CPU's. */
	cr_assert_lt(nl_cpu(e.heap), nr_cpus());
	run_outer(&e, NR_TYPES);
	run_syscall(e.s->progs.work_syscall, e.inner);
	e.inner->runs = 0;
	e.s->bss->work_on[CPU] = (nl_u64)e.inner;
	/* A chunk that was given back may not be taken again for long: then another one's word. */
	do {
		run_outer(&e, NR_TYPES);
		fd = break_user(find(&e), len, e.s->progs.work_nmi);
		for (unsigned int i = 0; i < ROUNDS; i++) {
			run_outer(&e, NR_TYPES);
			work_drain(e.outer);
			kmem_cache_shrink(e.cache);
			pin(CPU);
		}
		close(fd);
	} while (++tries < 10 && (!e.inner->from[e.outer->side] || !e.outer->from[SIDE_INNER]));
	settle(&e, what, rseq ? "user space" : "user space without rseq");
	if (stray_traps)
		figure("%s: %u accesses more were a SIGTRAP, and no hit", what, stray_traps);
	crossed(&e);
	finish(&e);
}

#define USER(word, len)                                                                            \
	Test(nolock_nmi_user, word, .timeout = 120)                                                \
	{                                                                                          \
		attack_user(#word, word, len, true);                                               \
	}
#define USER_ASLOT(word, len)                                                                      \
	Test(nolock_nmi_user, word##_without_rseq, .timeout = 120)                                 \
	{                                                                                          \
		attack_user(#word, word, len, false);                                              \
	}

USER(rslot_lock, 8)
USER(rslot_word, 8)
USER(sheaf_entry, 8)
USER(barn_lock, 8)
USER(free_word, 8)
USER(summary, 8)
USER(chunk_free, 8)
USER(partial, 8)
USER(chunk_tag, 4)
USER(sheaf_map, 8)
USER_ASLOT(sheaf_entry, 8)
USER_ASLOT(barn_lock, 8)
USER_ASLOT(free_word, 8)

/*
 * The last level alone: the A-slots are held all the time, as by somebody who was preempted, and
 * every operation of both is on one word of free bits, which is attacked at each access.
 */
Test(nolock_nmi, last_level_alone, .timeout = 120)
{
	struct env e = start(1024, 16, SIDE_BPF);
	int fd;

	run_outer(&e, TYPE_SYSCALL);
	work_drain(e.outer);
	kmem_cache_shrink(e.cache);
	for (unsigned int cpu = 0; cpu < nr_cpus(); cpu++)
		nl_store(&nl_aslot(e.heap->h, cpu, e.id)->lock, NL_OWNER(1, 0xfff0) | 1);
	e.outer->mail = 0;
	run_outer(&e, TYPE_SYSCALL);
	e.outer->mail = (nl_u64)e.mail;
	e.s->bss->work_on[CPU] = (nl_u64)e.inner;
	fd = break_kernel(e.heap, free_word(&e), 8, CPU, e.s->progs.work_nmi);
	for (unsigned int i = 0; i < 10 * ROUNDS; i++)
		run_outer(&e, TYPE_SYSCALL);
	close(fd);
	for (unsigned int cpu = 0; cpu < nr_cpus(); cpu++) {
		nl_slot_t *slot = nl_aslot(e.heap->h, cpu, e.id);

		cr_assert_eq(slot->lock, NL_OWNER(1, 0xfff0) | 1, "somebody let go of our lock");
		nl_store(&slot->lock, 0);
	}
	figure("last_level_alone: %u slabs", nl_cache(e.heap->h, e.id)->nr_slabs);
	settle(&e, "free_word", "syscall, A-slots held");
	crossed(&e);
	finish(&e);
}

/*
 * The same with no chunk to fall back on: one word is all that there is. What the interrupted
 * program holds in transit its interrupter cannot have, so that one may get NULL (P1); but it
 * never leaves anything in transit itself, so the interrupted one must always find a free bit.
 */
Test(nolock_nmi, one_word_is_all, .timeout = 120)
{
	struct env e = start(1024, 16, SIDE_BPF);
	nl_heap_t *h = e.heap->h;
	nl_u32 chunk, first = h->first_chunk >> NL_GROUP_SHIFT;
	nl_u64 chunks[64], failed;
	int fd;

	e.outer->mail = e.inner->mail = 0;
	/* One in turn taken and given: no hit leaves the word as it was, so no cmpxchg succeeds. */
	e.inner->nr_held = 1;
	e.inner->turns = 1;
	run_outer(&e, TYPE_SYSCALL);
	work_drain(e.outer);
	kmem_cache_shrink(e.cache);
	for (unsigned int cpu = 0; cpu < nr_cpus(); cpu++)
		nl_store(&nl_aslot(h, cpu, e.id)->lock, NL_OWNER(1, 0xfff0) | 1);
	run_outer(&e, TYPE_SYSCALL);
	cr_assert_eq(nl_cache(h, e.id)->nr_slabs, 1);
	chunk = slab_chunk(&e);
	cr_assert_leq(h->nr_open - first, 64);
	for (nl_u32 g = first; g < h->nr_open; g++)
		chunks[g - first] = nl_xchg(&nl_group(h, g)->chunk_free, 0);
	e.s->bss->work_on[CPU] = (nl_u64)e.inner;
	fd = break_kernel(e.heap, free_word(&e), 8, CPU, e.s->progs.work_nmi);
	for (unsigned int i = 0; i < 10 * ROUNDS; i++)
		run_outer(&e, TYPE_SYSCALL);
	close(fd);
	for (nl_u32 g = first; g < h->nr_open; g++)
		nl_chunk_publish(h, g, chunks[g - first]);
	for (unsigned int cpu = 0; cpu < nr_cpus(); cpu++)
		nl_store(&nl_aslot(h, cpu, e.id)->lock, 0);
	failed = e.inner->fails;
	figure("one_word_is_all: %llu hits, %llu allocations inside of %llu; %llu NULL there while "
	       "all bits were in transit",
	       (unsigned long long)e.inner->runs, (unsigned long long)e.inner->allocs,
	       (unsigned long long)e.outer->allocs, (unsigned long long)failed);
	cr_assert_eq(nl_cache(h, e.id)->nr_slabs, 1);
	cr_assert_eq(slab_chunk(&e), chunk);
	e.inner->fails = 0;
	settle(&e, "free_word", "syscall, nothing else left");
	finish(&e);
}
