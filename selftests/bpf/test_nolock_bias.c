// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_bias.c - A-slots that are biased to their CPU's programs (core/slot.h): programs that
 * nothing preempts take them by a load and a store, others by cmpxchg, threads by a restartable
 * sequence, and an NMI comes at each access to the lock.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <linux/perf_event.h>
#include <unistd.h>
#include "core/slot.h"
#include "nolock_help.h"

#define SIZE 192u
enum { CPUS = 2, ROUNDS = 300, PERIOD_NS = 100000 };

static const char *const plain[] = { "work_tc", "work_nmi", NULL };
static const char *const preempted[] = { "work_syscall", NULL };

static bool preempt_rt(void)
{
	struct utsname u;

	return !uname(&u) && strstr(u.version, "PREEMPT_RT");
}

static struct kmem_cache *cache_new(struct nolock_heap *heap)
{
	struct kmem_cache_args args = { .sheaf_capacity = 8 };
	struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "biased", SIZE, &args, 0);

	cr_assert(s);
	return s;
}

static struct nolock_work *worker(struct nolock_heap *heap, struct kmem_cache *s, nl_u32 side,
				  struct nolock_mail *mail)
{
	struct nolock_work *w = work_new(heap, side, 16, 12);

	w->min_size = w->max_size = SIZE;
	w->cache = (nl_u64)s;
	w->mail = (nl_u64)mail;
	return w;
}

static nl_u64 *aslot_lock(struct nolock_heap *heap, struct kmem_cache *s, nl_u32 cpu)
{
	return &nl_aslot(heap->h, cpu, nl_cache_id(s))->lock;
}

/* What nolock_bpf_attach_heap() says of an object goes by all programs that are to be loaded. */
static nl_u32 said_of(struct nolock_heap *heap, const char *const *progs)
{
	struct nolock_work_bpf *s = work_open(progs);
	nl_u32 said;

	cr_assert_eq(nolock_bpf_attach_heap(s->obj, heap), 0);
	said = s->rodata->nolock_bpf_unpreempted;
	nolock_work_bpf__destroy(s);
	return said;
}

Test(nolock_bias, who_is_not_preempted)
{
	static const char *const all_plain[] = { "work_tc", "work_xdp", "work_perf", "work_nmi",
						 NULL };
	static const char *const others[] = { "work_syscall",	 "work_tp_btf", "work_raw_tp",
					      "work_tracepoint", "work_uprobe", "work_socket",
					      "work_iter" };
	struct nolock_heap *heap = heap_new(0, 1);

	cr_expect_eq(said_of(heap, all_plain), !preempt_rt());
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		const char *const mixed[] = { "work_tc", others[i], NULL };

		cr_expect_eq(said_of(heap, mixed), 0, "%s", others[i]);
	}
}

/* What a program leaves to be called later may be preempted, by whatever name it asks for that. */
Test(nolock_bias, who_is_called_later)
{
	static const char *const later[] = {
		"bpf_wq_init",
		"bpf_wq_init___old",
		"bpf_wq_set_callback_impl",
		"bpf_task_work_schedule_signal",
		"bpf_task_work_schedule_signal_impl",
		"bpf_task_work_schedule_resume_impl",
	};

	for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
		static const char *const tc[] = { "work_tc", NULL };
		struct nolock_work_bpf *s = work_open(tc);
		struct btf *btf;
		int proto;

		cr_expect_eq(nolock_bpf_is_unpreempted(s->obj), !preempt_rt());
		btf = bpf_object__btf(s->obj);
		proto = btf__add_func_proto(btf, 0);
		cr_assert_gt(proto, 0);
		cr_assert_gt(btf__add_func(btf, later[i], BTF_FUNC_EXTERN, proto), 0);
		cr_expect_eq(nolock_bpf_is_unpreempted(s->obj), 0, "%s", later[i]);
		nolock_work_bpf__destroy(s);
	}
}

/* Between the load and the store that take the lock, and after each: the same slot, by an NMI. */
static void nested(const char *const *progs, const char *what)
{
	struct nolock_heap *heap = heap_new(0, 4);
	struct kmem_cache *s = cache_new(heap);
	struct nolock_mail *mail = mail_new(heap);
	struct nolock_work *outer, *inner;
	struct nolock_work_bpf *bpf;
	int fd;

	pin(0);
	bpf = work_load(nolock_heap_fd(heap), progs);
	outer = worker(heap, s, SIDE_BPF, mail);
	inner = worker(heap, s, SIDE_INNER, mail);
	bpf->bss->work_of[TYPE_TC] = (nl_u64)outer;
	bpf->bss->work_on[0] = (nl_u64)inner;
	run_packet(bpf->progs.work_tc);
	cr_expect_eq(*aslot_lock(heap, s, 0), NL_BIASED(0), "%s: %#llx", what,
		     (unsigned long long)*aslot_lock(heap, s, 0));
	fd = break_kernel(heap, aslot_lock(heap, s, 0), 8, 0, bpf->progs.work_nmi);
	for (int i = 0; i < ROUNDS; i++)
		run_packet(bpf->progs.work_tc);
	close(fd);
	figure("%s: %llu breakpoints hit, %llu allocations within %llu", what,
	       (unsigned long long)bpf->bss->hits[0], (unsigned long long)inner->allocs,
	       (unsigned long long)outer->allocs);
	cr_expect_gt(bpf->bss->hits[0], ROUNDS);
	cr_expect_gt(inner->allocs, ROUNDS);
	work_good(outer, what);
	work_good(inner, what);
	cr_expect_eq(*aslot_lock(heap, s, 0), NL_BIASED(0));
	mail_drain(mail, outer);
	work_drain(outer);
	work_drain(inner);
	cr_expect_gt(kmem_cache_shrink(s), 0);
	heap_whole(heap, 3, what);
}

Test(nolock_bias, nested_without_atomics, .timeout = 120)
{
	nested(plain, "by load and store");
}

Test(nolock_bias, nested_with_atomics, .timeout = 120)
{
	static const char *const mixed[] = { "work_tc", "work_nmi", "work_syscall", NULL };

	nested(mixed, "by cmpxchg");
}

/* --- all at once, on each CPU --- */

static struct here {
	struct nolock_work_bpf *plain, *preempted;
	struct nolock_work *tc, *task, *user, *nmi;
	pthread_t thread[3];
	int clock, cpu;
} here[CPUS];
static int end, cpus;

static void *run_tc(void *arg)
{
	struct here *h = arg;

	pin(h->cpu);
	while (!nl_load(&end))
		run_packet(h->plain->progs.work_tc);
	return NULL;
}

static void *run_task(void *arg)
{
	struct here *h = arg;

	pin(h->cpu);
	while (!nl_load(&end))
		run_syscall(h->preempted->progs.work_syscall, h->task);
	return NULL;
}

static void *run_user(void *arg)
{
	struct here *h = arg;

	pin(h->cpu);
	while (!nl_load(&end))
		work_run(h->user);
	return NULL;
}

/* So that threads have nothing but the A-slots: their R-slots are held by nobody who lets go. */
static void hold_rslots(struct nolock_heap *heap, nl_u32 id, bool hold)
{
	for (nl_u32 cpu = 0; cpu < heap->nr_slots; cpu++) {
		nl_slot_t *slot = nl_rslot(heap->h, cpu, id);

		nl_store(&slot->lock, NL_HELD(nl_who(heap)));
		if (hold)
			nl_store(&slot->word, nl_load(&slot->word) | NL_WORD_LOCKED);
		else
			nl_rslot_unlock(slot);
	}
}

Test(nolock_bias, all_at_once, .timeout = 300)
{
	static void *(*const runs[])(void *) = { run_tc, run_task, run_user };
	struct nolock_heap *heap = heap_new(0, 8);
	struct kmem_cache *s = cache_new(heap);
	struct nolock_mail *mail = mail_new(heap);
	nl_u32 id = nl_cache_id(s), seen = 0;
	bool enough;

	cpus = sysconf(_SC_NPROCESSORS_ONLN) < CPUS ? 1 : CPUS;
	hold_rslots(heap, id, true);
	for (int cpu = 0; cpu < cpus; cpu++) {
		struct here *h = &here[cpu];

		h->cpu = cpu;
		h->plain = work_load(nolock_heap_fd(heap), plain);
		h->preempted = work_load(nolock_heap_fd(heap), preempted);
		h->tc = worker(heap, s, SIDE_BPF, mail);
		h->task = worker(heap, s, SIDE_PROCESS, mail);
		h->user = worker(heap, s, SIDE_USER, mail);
		h->nmi = worker(heap, s, SIDE_INNER, mail);
		h->plain->bss->work_of[TYPE_TC] = (nl_u64)h->tc;
		h->plain->bss->work_on[cpu] = (nl_u64)h->nmi;
	}
	for (int cpu = 0; cpu < cpus; cpu++) {
		here[cpu].clock = clock_open(cpu, PERIOD_NS, here[cpu].plain->progs.work_nmi);
		cr_assert_eq(ioctl(here[cpu].clock, PERF_EVENT_IOC_ENABLE, 0), 0);
		for (int i = 0; i < 3; i++)
			cr_assert_eq(
				pthread_create(&here[cpu].thread[i], NULL, runs[i], &here[cpu]), 0);
	}
	do {
		usleep(10000);
		enough = true;
		for (int cpu = 0; cpu < cpus; cpu++) {
			struct here *h = &here[cpu];

			enough = enough && nl_load(&h->tc->runs) > 10 * ROUNDS &&
				 nl_load(&h->task->runs) > 10 * ROUNDS &&
				 nl_load(&h->user->runs) > 10 * ROUNDS &&
				 nl_load(&h->nmi->runs) > ROUNDS;
			seen += nl_load(aslot_lock(heap, s, (nl_u32)cpu)) == NL_BIASED((nl_u32)cpu);
		}
	} while (!enough);
	nl_store(&end, 1);
	for (int cpu = 0; cpu < cpus; cpu++) {
		struct here *h = &here[cpu];

		for (int i = 0; i < 3; i++)
			pthread_join(h->thread[i], NULL);
		close(h->clock);
		figure("CPU %d: allocations: %llu not preempted, %llu preempted, %llu by a clock, "
		       "%llu in user space",
		       cpu, (unsigned long long)h->tc->allocs, (unsigned long long)h->task->allocs,
		       (unsigned long long)h->nmi->allocs, (unsigned long long)h->user->allocs);
	}
	figure("biased when looked at: %u times", seen);
	for (int cpu = 0; cpu < cpus; cpu++) {
		struct here *h = &here[cpu];

		work_good(h->tc, "tc");
		work_good(h->task, "syscall");
		work_good(h->user, "user");
		work_good(h->nmi, "clock");
		work_drain(h->tc);
		work_drain(h->task);
		work_drain(h->user);
		work_drain(h->nmi);
	}
	mail_drain(mail, here[0].user);
	cr_expect_gt(seen, 0);
	hold_rslots(heap, id, false);
	cr_expect_gt(kmem_cache_shrink(s), 0);
	heap_whole(heap, 1 + 4 * (unsigned long)cpus, "after all at once");
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

/* A client that cannot take slots back ends the bias; nothing else changes. */
Test(nolock_bias, ends_where_nobody_could_take)
{
	struct nolock_heap *heap = heap_new(0, 4);
	struct kmem_cache *s = cache_new(heap);
	struct nolock_work_bpf *bpf = work_load(nolock_heap_fd(heap), plain);

	pin(0);
	cr_expect_eq(heap->h->bias, heap->rseq_slots ? ~0ULL : 0);
	heap->h->bias = 0;
	bpf->bss->work_of[TYPE_TC] = (nl_u64)worker(heap, s, SIDE_BPF, NULL);
	for (int i = 0; i < 10; i++)
		run_packet(bpf->progs.work_tc);
	cr_expect_eq(*aslot_lock(heap, s, 0), 0);
	work_good((struct nolock_work *)bpf->bss->work_of[TYPE_TC], "unbiased");
	heap_whole(heap,
		   1 + ((struct nolock_work *)bpf->bss->work_of[TYPE_TC])->allocs -
			   ((struct nolock_work *)bpf->bss->work_of[TYPE_TC])->frees,
		   "unbiased");
}
