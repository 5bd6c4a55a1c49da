// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_contexts.c - one CPU, one cache, four contexts that interrupt each other: a program in a
 * task, in softirqs, in timer interrupts, and in an NMI at each access to one word: of each lock, and
 * of what slots, sheaves, the barn, slabs and chunks share, in turn; then each word of the last level
 * alone, with all slots held, and those of the reserve, with no other chunk free. Memory is left all
 * the time: no allocation may fail. (Growth is test_arena_grow's.) What ran where, and at which level
 * it was served, is said in the end.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/slot.h"
#include "nolock_contexts.h"
#include "nolock_contexts.skel.h"
#include "nolock_help.h"

#define CPU 0
#define ROUNDS 4u
#define SIZE 4096u
#define PERIOD_NS 200000

static const char *const names[NR_CTX] = { "-", "task", "softirq", "hardirq", "perf clock", "NMI" };

static struct nolock_heap *heap;
static struct nolock_contexts_bpf *s;
static struct kmem_cache *cache;
static nl_u32 id;
static struct nolock_mail *mail;
static struct nolock_work *work[NR_CTX];
static struct bpf_link *links[2];
static int clock_fd;
static nl_u64 inside[NR_CTX][NR_CTX], served[NR_CTX][NR_AT];
static unsigned long long all_hits;
/* Bytes: the free chunks lie in the reserve, where a program finds them by the last scan alone. */
static size_t set_aside;

static nl_u32 run_prog(struct bpf_program *p)
{
	LIBBPF_OPTS(bpf_test_run_opts, run);

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &run), 0);
	return run.retval;
}

static void begin(void)
{
	struct kmem_cache_args args = { .sheaf_capacity = 4 };

	heap = heap_new(0, 8);
	pin(CPU);
	s = nolock_contexts_bpf__open();
	cr_assert(s);
	cr_assert_eq(bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(heap)), 0);
	cr_assert_eq(nolock_contexts_bpf__load(s), 0, "cannot load the programs");
	cache = nolock_heap_kmem_cache_create(heap, "attacked", SIZE, &args, 0);
	cr_assert(cache);
	id = nl_cache_id(cache);
	mail = mail_new(heap);
	for (unsigned int i = CTX_TASK; i < NR_CTX; i++) {
		/* The task's fills and empties sheaves, barn and slabs; the others' are short. */
		work[i] = work_new(heap, i == CTX_TASK ? SIDE_BPF : SIDE_INNER,
				   i == CTX_TASK ? 200 : 4, i == CTX_TASK ? 100 : 8);
		work[i]->min_size = work[i]->max_size = SIZE;
		work[i]->cache = (nl_u64)cache;
		work[i]->mail = (nl_u64)mail;
	}
	s->bss->the_cache = (nl_u64)cache;
	s->bss->the_cpu = CPU;
	links[0] = bpf_program__attach(s->progs.in_softirq);
	links[1] = bpf_program__attach(s->progs.in_hardirq);
	cr_assert(links[0] && links[1], "%s", strerror(errno));
	clock_fd = clock_open(CPU, PERIOD_NS, s->progs.on_clock);
	s->bss->period = PERIOD_NS;
	cr_assert_eq(run_prog(s->progs.start_timer), 0);
}

/* From here on all of them are at work, or none is. */
static void all_work(bool on)
{
	if (!on)
		cr_assert_eq(ioctl(clock_fd, PERF_EVENT_IOC_DISABLE, 0), 0);
	for (unsigned int i = CTX_TASK; i < NR_CTX; i++)
		nl_store(&s->bss->work_of[i], on ? (nl_u64)work[i] : 0);
	if (on)
		cr_assert_eq(ioctl(clock_fd, PERF_EVENT_IOC_ENABLE, 0), 0);
}

static void round_of_all(void)
{
	all_work(true);
	cr_assert_eq(run_prog(s->progs.in_task), 0);
	all_work(false);
}

/* From user space, which the breakpoint does not see: all goes back, to be taken again. */
static void give_back(void)
{
	for (unsigned int i = CTX_TASK; i < NR_CTX; i++)
		work_drain(work[i]);
	kmem_cache_shrink(cache);
	/* What there is, which may be less. */
	if (set_aside)
		nolock_heap_populate(heap, set_aside);
}

static void settle(const char *what)
{
	nl_u64 allocs = 0, frees = 0, fails = 0, bad = 0;

	give_back();
	mail_drain(mail, work[CTX_TASK]);
	for (unsigned int i = CTX_TASK; i < NR_CTX; i++) {
		allocs += work[i]->allocs;
		frees += work[i]->frees;
		fails += work[i]->fails;
		bad += work[i]->bad;
	}
	cr_assert_eq(fails, 0, "%s: %llu of %llu allocations failed", what,
		     (unsigned long long)fails, (unsigned long long)allocs);
	cr_assert_eq(bad, 0, "%s: %llu objects damaged", what, (unsigned long long)bad);
	cr_assert_eq(allocs, frees, "%s: %llu allocations, %llu frees", what,
		     (unsigned long long)allocs, (unsigned long long)frees);
	/* Alive: the mail and the workers. */
	heap_whole(heap, NR_CTX, what);
}

static void end(void)
{
	s->bss->period = 0;
	memcpy(inside, (void *)s->bss->inside, sizeof(inside));
	memcpy(served, (void *)s->bss->served, sizeof(served));
	bpf_link__destroy(links[0]);
	bpf_link__destroy(links[1]);
	close(clock_fd);
	nolock_contexts_bpf__destroy(s);
	for (unsigned int i = CTX_TASK; i < NR_CTX; i++)
		kfree(work[i]);
	kfree(mail);
	cr_assert_eq(kmem_cache_destroy(cache), 0);
	heap_whole(heap, 0, "at the end");
}

static void summary(const char *what)
{
	static const char *const levels[NR_AT] = { "slot",	  "refill",	 "bitmaps",
						   "fresh chunk", "freed: slot", "room made",
						   "bitmaps" };
	char line[512];

	figure("%s: %llu breakpoints hit", what, all_hits);
	for (unsigned int c = CTX_TASK; c < NR_CTX; c++) {
		int n = snprintf(line, sizeof(line), "%s:", names[c]);

		for (unsigned int k = 0; k < NR_AT; k++)
			n += snprintf(line + n, sizeof(line) - (size_t)n, "%s %s %llu",
				      k ? "," : "", levels[k], (unsigned long long)served[c][k]);
		for (unsigned int k = CTX_TASK; k < NR_CTX; k++)
			if (inside[k][c])
				n += snprintf(line + n, sizeof(line) - (size_t)n,
					      "; %llu times in %s",
					      (unsigned long long)inside[k][c], names[k]);
		figure("%s", line);
	}
}

/* Each of these must have come, each inside of those further out. */
static void nested(void)
{
	cr_assert_gt(inside[CTX_TASK][CTX_SOFTIRQ], 0, "no softirq in the task's program");
	cr_assert_gt(inside[CTX_TASK][CTX_HARDIRQ], 0, "no interrupt in the task's program");
	cr_assert_gt(inside[CTX_TASK][CTX_CLOCK], 0, "no perf clock in the task's program");
	cr_assert_gt(inside[CTX_TASK][CTX_NMI], 0, "no NMI in the task's program");
	cr_assert_gt(inside[CTX_SOFTIRQ][CTX_NMI], 0, "no NMI in a softirq's program");
	cr_assert_gt(inside[CTX_HARDIRQ][CTX_NMI], 0, "no NMI in an interrupt's program");
}

/* --- the words --- */

/* One of the slabs, by turns: some stay, as an object in the mail is theirs; some are where no other is. */
static nl_u32 slab_chunk(unsigned int turn)
{
	nl_heap_t *h = heap->h;
	nl_u32 all[256], n = 0;

	for (nl_u32 c = h->first_chunk; c < h->nr_open << NL_GROUP_SHIFT && n < 256; c++)
		if (*nl_tag(h, c) == NL_TAG(NL_KIND_SLAB, id))
			all[n++] = c;
	cr_assert_gt(n, 0, "the cache has no slab");
	return all[turn % n];
}

#define MAX_WORDS 40
#define NR_RESERVE_WORDS 2u

struct word {
	const char *name;
	void *at;
	unsigned int len;
};

/* Once the cache is warm. What is of 4 bytes and not aligned to 8 goes with its neighbour. */
static unsigned int find_words(struct word *w, unsigned int turn)
{
	nl_heap_t *h = heap->h;
	nl_slot_t *a = nl_aslot(h, CPU, id);
	nl_u32 chunk = slab_chunk(turn), g = chunk >> NL_GROUP_SHIFT, node = nl_slot_node(h, CPU);
	nl_barn_t *barn = &nl_cache(h, id)->barn[node];
	nl_sheaf_t *sheaf = nl_sheaf(h, (a->main ? a->main : 1) - 1);
	nl_slab_t *slab = nl_slab(h, chunk);
	unsigned int n = 0;

#define WORD(lvalue, bytes) w[n++] = (struct word){ #lvalue, (void *)&(lvalue), bytes }
	WORD(a->lock, 8);
	WORD(a->word, 8);
	WORD(a->objs, 8);
	WORD(a->cap, 8);
	WORD(a->spare, 8);
	WORD(sheaf->next, 8);
	WORD(sheaf->owner, 8);
	WORD(sheaf->obj[0], 8);
	WORD(barn->lock, 8);
	WORD(barn->full, 8);
	WORD(barn->empty, 8);
	WORD(slab->free[0], 8);
	WORD(slab->summary, 8);
	WORD(slab->lock, 8);
	WORD(slab->intent, 8);
	WORD(slab->mask, 8);
	WORD(*nl_tag(h, chunk), 4);
	WORD(nl_group(h, g)->chunk_free, 8);
	WORD(nl_group(h, g)->partial[id], 8);
	WORD(nl_group_free_map(h, node)[g / 64], 8);
	WORD(nl_group_part_map(h, node, id)[g / 64], 8);
	WORD(nl_sheaf_map(h)[nl_load(&h->sheaf_hint)], 8);
	WORD(h->sheaf_hint, 4);
	WORD(nl_cache(h, id)->nr_slabs, 4);
	WORD(nl_cache(h, id)->state, 4);
	WORD(h->nr_open, 4);
	/* The last NR_RESERVE_WORDS: touched only while no other chunk is free. */
	WORD(nl_group(h, g)->reserve, 8);
	WORD(h->nr_reserve, 4);
#undef WORD
	return n;
}

static void hold_slots(nl_u64 held)
{
	for (unsigned int cpu = 0; cpu < nr_cpus(); cpu++)
		nl_store(&nl_aslot(heap->h, cpu, id)->lock, held);
}

/* Operations that a slot has served so far. */
static nl_u64 by_slots(void)
{
	nl_u64 n = 0;

	for (unsigned int c = CTX_TASK; c < NR_CTX; c++)
		n += s->bss->served[c][AT_SLOT] + s->bss->served[c][AT_REFILL] +
		     s->bss->served[c][AT_FREE_SLOT] + s->bss->served[c][AT_FREE_ROOM];
	return n;
}

/* Few accesses to a word may mean that another one of its kind was used: then to that one, too. */
#define ENOUGH 20u
#define TRIES 30u

/* An NMI at each access to the nth word, with all slots held by the given one, or by nobody. */
static void attack(unsigned int n, nl_u64 held)
{
	struct word words[MAX_WORDS];
	nl_u64 before = s->bss->hits;
	unsigned int turn = 0;

	do {
		nl_u64 slots;
		int fd;

		round_of_all();
		slots = by_slots();
		find_words(words, turn);
		hold_slots(held);
		fd = break_kernel(heap, words[n].at, words[n].len, CPU, s->progs.in_nmi);
		for (unsigned int i = 0; i < ROUNDS; i++) {
			round_of_all();
			give_back();
		}
		close(fd);
		for (unsigned int cpu = 0; held && cpu < nr_cpus(); cpu++)
			cr_assert_eq(nl_aslot(heap->h, cpu, id)->lock, held,
				     "somebody let go of our lock");
		cr_assert(!held || by_slots() == slots, "%s: a slot that is held has served",
			  words[n].name);
		hold_slots(0);
		settle(words[n].name);
	} while (s->bss->hits - before < ENOUGH && turn++ < TRIES);
	cr_assert_gt(s->bss->hits, before, "%s: the breakpoint never fired", words[n].name);
	all_hits += s->bss->hits - before;
}

Test(nolock_contexts, each_word, .timeout = 300)
{
	struct word words[MAX_WORDS];
	unsigned int n;

	begin();
	round_of_all();
	n = find_words(words, 0) - NR_RESERVE_WORDS;
	for (unsigned int i = 0; i < n; i++)
		attack(i, 0);
	figure("%u words", n);
	end();
	summary("each word");
	nested();
}

/* Under attack all slots are held, as by somebody who was preempted: slabs and chunks serve alone. */
Test(nolock_contexts, last_level_alone, .timeout = 300)
{
	static const char *const last[] = { "slab->free[0]",
					    "slab->summary",
					    "slab->lock",
					    "*nl_tag(h, chunk)",
					    "nl_group(h, g)->chunk_free",
					    "nl_group(h, g)->partial[id]",
					    "nl_group_free_map(h, node)[g / 64]",
					    "nl_group_part_map(h, node, id)[g / 64]" };
	struct word words[MAX_WORDS];
	unsigned int n, found = 0;

	begin();
	round_of_all();
	n = find_words(words, 0);
	for (unsigned int k = 0; k < sizeof(last) / sizeof(last[0]); k++)
		for (unsigned int i = 0; i < n; i++) {
			if (strcmp(words[i].name, last[k]))
				continue;
			found++;
			attack(i, NL_OWNER(1, 0xfff0) | 1);
		}
	cr_assert_eq(found, sizeof(last) / sizeof(last[0]));
	end();
	summary("the last level alone");
	nested();
}

Test(nolock_contexts, reserve_alone, .timeout = 300)
{
	struct nolock_heap_report r;
	struct word words[MAX_WORDS];
	unsigned int n;

	begin();
	cr_assert_eq(nolock_heap_check(heap, &r), 0);
	set_aside = r.chunks_free * (size_t)NL_CHUNK_SIZE;
	cr_assert_eq(nolock_heap_populate(heap, set_aside), 0);
	round_of_all();
	n = find_words(words, 0);
	for (unsigned int i = n - NR_RESERVE_WORDS; i < n; i++)
		attack(i, 0);
	cr_assert_gt(heap->h->nr_reserve, 0);
	end();
	summary("the reserve");
}
