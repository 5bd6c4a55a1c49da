// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_kill_random.c - death at random moments (promises P3 and P4).
 *
 * Several clients of one shared heap, of several threads each, allocate, free, hand objects over
 * to each other, shrink and trim, end threads, and fork. One after the other gets SIGKILL, with
 * others stopped in the middle of something now and then, and is repaired while the rest goes on:
 * by this process, or by a real nolockd, of a memfd or an arena. After each kill the others come
 * to rest between two calls, and all must add up: nolock_heap_check() is content, each object that
 * anybody has is in use, once, with its contents, and nothing else is but what each dead thread's
 * last call may have made. What the dead had is freed; then exactly the others' is in use.
 *
 * Each thread keeps a book of what it has, in memory that outlives it, written before and after
 * each call.
 *
 *   test_kill_random [here|memfd|arena]
 *
 * Builds for small machines and without restartable sequences have the first form alone.
 * Kills: a few hundred; TORTURE_SECONDS=N goes on for so long, with 10000 at least.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "nolockd.h"
#include "row.h"
#include "shared.h"
#include "../lib/util.h"

enum { CLIENTS = 3, THREADS = 3, KEEP = 40, MAIL = 32, HEAP_SIZE = 64 << 20, NONE = ~0u };

/* What a thread is doing between two calls: nothing. */
enum { IDLE, ALLOC, FREE, GIVE, OTHER };
/* Does it take part? Written by itself, ABSENT by whoever sees that it is gone. */
enum { ABSENT, RUNNING, PARKED };

struct book {
	int state, doing;
	unsigned int slot;	/* FREE, GIVE: obj[slot] may be anybody's by now */
	unsigned int in_flight; /* objects that the call may have made and not handed out */
	unsigned long ops, forks;
	unsigned long failed, bad; /* allocations without memory; damaged objects */
	void *obj[KEEP];
};

struct shared {
	int pause, quit;
	void *mail[MAIL];
	unsigned long child_failed;
	int child_status;
	struct {
		nl_u32 number; /* as the heap knows it; 0 until it has opened it */
		struct book thread[THREADS];
	} client[CLIENTS];
};

enum form { HERE, MEMFD, ARENA };

static struct shared *sh;
static struct nolock_heap *heap;
static struct nolockd daemon_;
static enum form form;
static struct inventory inv;
static struct nolock_heap_report rep;
static pid_t pids[CLIENTS];
static unsigned long kills, checks, stops, failures, total_ops, total_forks;
static unsigned long fork_failures;

/* --- the clients --- */

static const unsigned int sizes[] = { 16,  16,	 48,   64,   100,  256,	 320,
				      700, 1024, 2048, 5000, 8192, 30000 };

static unsigned int some_size(struct rng *r)
{
	if (rng_below(r, 100) == 0)
		return 40000 + rng_below(r, 200000);
	return sizes[rng_below(r, ARRAY_LEN(sizes))];
}

#define STORE(where, value) __atomic_store_n(&(where), (value), __ATOMIC_SEQ_CST)
#define LOAD(where) __atomic_load_n(&(where), __ATOMIC_SEQ_CST)

static void begin(struct book *b, int doing, unsigned int slot, unsigned int in_flight)
{
	b->slot = slot;
	b->in_flight = in_flight;
	STORE(b->doing, doing);
}

static void end(struct book *b)
{
	STORE(b->doing, IDLE);
	b->ops++;
}

/* Into the book only once it has its contents. */
static void keep(struct book *b, unsigned int k, void *p, unsigned int size, struct rng *r)
{
	if (p)
		stamp(p, size, (uint32_t)rng_next(r));
	else
		b->failed++;
	STORE(b->obj[k], p);
}

static void one_alloc(struct book *b, unsigned int k, struct kmem_cache *s, struct rng *r)
{
	unsigned int size = some_size(r);
	void *p;

	begin(b, ALLOC, NONE, 1);
	switch (rng_below(r, 4)) {
	case 0:
		size = kmem_cache_size(s);
		p = kmem_cache_alloc(s, GFP_KERNEL);
		break;
	case 1:
		size = kmem_cache_size(s);
		p = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE);
		break;
	case 2:
		if (size <= KMALLOC_MAX_CACHE_SIZE) {
			p = nolock_heap_kmalloc_nolock(heap, size, 0, NUMA_NO_NODE);
			break;
		}
		/* A large one without growing may well not be there. */
		/* fallthrough */
	default:
		p = nolock_heap_kmalloc(heap, size, GFP_KERNEL);
	}
	keep(b, k, p, size, r);
	end(b);
}

static void one_free(struct book *b, unsigned int k, struct rng *r)
{
	void *p = b->obj[k];

	if (!stamp_check(p))
		b->bad++;
	begin(b, FREE, k, 0);
	if (rng_below(r, 2))
		kfree(p);
	else
		kfree_nolock(p);
	STORE(b->obj[k], NULL);
	end(b);
}

/* To whoever takes it, against what is there. */
static void one_gift(struct book *b, unsigned int k, struct rng *r)
{
	void *p = b->obj[k];

	begin(b, GIVE, k, 1);
	p = __atomic_exchange_n(&sh->mail[rng_below(r, MAIL)], p, __ATOMIC_SEQ_CST);
	STORE(b->obj[k], p);
	end(b);
}

static void one_sheaf(struct book *b, struct kmem_cache *s, struct rng *r)
{
	unsigned int n = 1 + rng_below(r, 12);
	struct slab_sheaf *sheaf;

	/* An oversize one is made of objects; and so is any when the short table of TINY has none left. */
	begin(b, OTHER, NONE, n > 8 || !NL_BARN_MAX ? 2 * n + 2 : 1);
	sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, n);
	if (!sheaf) {
		b->failed++;
		end(b);
		return;
	}
	for (unsigned int k = 0; k < KEEP; k++)
		if (!b->obj[k] && kmem_cache_sheaf_size(sheaf))
			keep(b, k, kmem_cache_alloc_from_sheaf(s, 0, sheaf), kmem_cache_size(s), r);
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	end(b);
}

static void one_bulk(struct book *b, struct kmem_cache *s)
{
	void *p[16];

	begin(b, OTHER, NONE, ARRAY_LEN(p));
	if (kmem_cache_alloc_bulk(s, GFP_KERNEL, ARRAY_LEN(p), p))
		kmem_cache_free_bulk(s, ARRAY_LEN(p), p);
	else
		b->failed++;
	end(b);
}

static void maintain(struct book *b, struct kmem_cache *s, struct rng *r)
{
	begin(b, OTHER, NONE, 0);
	switch (rng_below(r, 4)) {
	case 0:
		nolock_heap_trim(heap);
		break;
	case 1:
		b->failed += nolock_heap_populate(heap, (8 + rng_below(r, 64)) * NL_CHUNK_SIZE) !=
			     0;
		break;
	default:
		kmem_cache_shrink(s);
	}
	end(b);
}

/* The private heap, which threads use as well: a child has it as it was. */
static void *private[16];

static void use_private(struct rng *r)
{
	kfree(__atomic_exchange_n(&private[rng_below(r, ARRAY_LEN(private))],
				  kmalloc(some_size(r), GFP_KERNEL), __ATOMIC_ACQ_REL));
}

static void fork_here(struct book *b, struct rng *r)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 0; i < 50; i++)
			use_private(r);
		_exit(check_whole(nolock_heap_default(), NULL, "in a child") ? 1 : 0);
	}
	b->forks++;
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status) {
		STORE(sh->child_status, status);
		__atomic_add_fetch(&sh->child_failed, 1, __ATOMIC_RELAXED);
	}
}

/* Between two calls: rest while the judge looks. */
static void rest(struct book *b)
{
	while (LOAD(sh->pause)) {
		STORE(b->state, PARKED);
		usleep(100);
		STORE(b->state, RUNNING);
	}
}

struct worker {
	struct book *book;
	uint64_t seed;
	bool main;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct kmem_cache *s = nolock_heap_kmem_cache_find(heap, "random");
	struct book *b = w->book;
	struct rng r;

	rng_init(&r, w->seed);
	if (!s)
		_exit(5);
	STORE(b->state, RUNNING);
	for (;;) {
		uint32_t what = rng_below(&r, 4000), k = rng_below(&r, KEEP);

		rest(b);
		if (LOAD(sh->quit))
			break;
		if (what < 2)
			fork_here(b, &r);
		else if (what < 8)
			maintain(b, s, &r);
		else if (what < 40)
			one_sheaf(b, s, &r);
		else if (what >= 42 && what < 60)
			one_bulk(b, s);
		else if (what < 42 && !w->main)
			break;
		else if (what < 400)
			use_private(&r);
		else if (!b->obj[k])
			one_alloc(b, k, s, &r);
		else if (what < 1000)
			one_gift(b, k, &r);
		else
			one_free(b, k, &r);
	}
	STORE(b->state, ABSENT);
	return NULL;
}

/* Ends only by being killed, or when all is over. */
static void be_client(unsigned int nr, uint64_t seed)
{
	struct worker w[THREADS];
	pthread_t thread[THREADS];
	struct rng r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rng_init(&r, seed);
	if (form == HERE)
		heap = shared_join(heap, CLIENT_FIRST + nr, rng_below(&r, 4) != 0);
	else
		heap = nolock_heap_open(daemon_.heap);
	if (!heap)
		_exit(4);
	STORE(sh->client[nr].number, heap->client);
	for (unsigned int i = 0; i < THREADS; i++)
		w[i] = (struct worker){ &sh->client[nr].thread[i], rng_next(&r), i == 0 };
	for (unsigned int i = 1; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, work, &w[i]))
			_exit(6);
	/* Threads come and go: the next one goes on with the book of the one before. */
	for (unsigned int i = 1; !LOAD(sh->quit); i = i % (THREADS - 1) + 1) {
		if (pthread_tryjoin_np(thread[i], NULL)) {
			usleep(500);
			continue;
		}
		w[i].seed = rng_next(&r);
		if (pthread_create(&thread[i], NULL, work, &w[i]))
			_exit(6);
	}
	for (unsigned int i = 1; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	_exit(0);
}

/* --- the judge --- */

static void start_client(unsigned int nr, struct rng *r)
{
	struct nl_client *c = &heap->h->client[CLIENT_FIRST + nr];
	uint64_t seed = rng_next(r);

	memset(&sh->client[nr], 0, sizeof(sh->client[nr]));
	if (form == HERE) {
		/* As nolockd does for a new client. */
		nl_store(&c->threads, 0);
		nl_store(&c->pid, 1);
	}
	fflush(stdout);
	pids[nr] = fork();
	if (!pids[nr])
		be_client(nr, seed);
	if (pids[nr] < 0) {
		perror("fork");
		exit(2);
	}
}

/* Something that must happen, however long it takes: what has not after minutes never will. */
static bool eventually(bool (*happened)(unsigned int nr), unsigned int nr, const char *what)
{
	for (unsigned long i = 0; !happened(nr); i++) {
		usleep(i < 100 ? 50 : 1000);
		if (i > 180000) {
			printf("  it never happened: %s\n", what);
			return false;
		}
	}
	return true;
}

/* A client that nobody has killed, and its status. */
static int ended, ended_status;

static bool all_rest(unsigned int nr)
{
	(void)nr;
	for (unsigned int c = 0; c < CLIENTS; c++)
		if (pids[c] && waitpid(pids[c], &ended_status, WNOHANG) == pids[c]) {
			pids[c] = 0;
			ended = (int)c + 1;
		}
	for (unsigned int c = 0; c < CLIENTS && !ended; c++)
		for (unsigned int t = 0; t < THREADS; t++)
			if (pids[c] && LOAD(sh->client[c].thread[t].state) == RUNNING)
				return false;
	return true;
}

/* The number may serve the next client already. */
static nl_u32 dead_pid;

static bool repaired(unsigned int number)
{
	return nl_load_acquire(&heap->h->client[number].pid) != dead_pid;
}

struct owned {
	void *p;
	bool dead;
};
static struct owned owned[CLIENTS * THREADS * KEEP + MAIL];
static unsigned int nr_owned;

static int by_address(const void *a, const void *b)
{
	const struct owned *x = a, *y = b;

	return x->p < y->p ? -1 : x->p > y->p;
}

static struct owned *find_owned(void *p)
{
	struct owned key = { .p = p };

	return bsearch(&key, owned, nr_owned, sizeof(owned[0]), by_address);
}

static void free_if_nobodys(void *p, void *arg)
{
	const struct owned *o = find_owned(p);

	(void)arg;
	if (!o || o->dead)
		kfree(p);
}

static const char *const doings[] = { "nothing", "an allocation", "a free", "a gift",
				      "another call" };

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		snprintf(what, len, __VA_ARGS__);                                                  \
		return false;                                                                      \
	} while (0)

static bool is_dead(unsigned int c)
{
	return !pids[c];
}

/* All are dead or at rest. */
static bool judge(char *what, size_t len)
{
	unsigned long in_flight = 0, maybe = 0, in_use, alive = 0;
	void *unclear[CLIENTS * THREADS];
	unsigned int nr_unclear = 0;
	int rc;

	checks++;
	rc = nolock_heap_check(heap, &rep);
	if (rc || rep.errors)
		FAIL("check: %s", rep.first_error);
	if (rep.locks_held)
		FAIL("%lu locks are held", rep.locks_held);
	if (rep.refused)
		FAIL("%lu frees were refused", rep.refused);
	if (!inventory_take(&inv, heap))
		FAIL("inventory: %s", inv.error);
	nr_owned = 0;
	for (unsigned int c = 0; c < CLIENTS; c++)
		for (unsigned int t = 0; t < THREADS; t++) {
			struct book *b = &sh->client[c].thread[t];

			if (b->bad)
				FAIL("client %u found %lu objects damaged", c, b->bad);
			if (b->failed)
				FAIL("client %u: %lu allocations failed", c, b->failed);
			if (b->doing != IDLE && !is_dead(c))
				FAIL("client %u is alive, at rest, and in %s", c, doings[b->doing]);
			if (b->doing != IDLE)
				in_flight += b->in_flight;
			for (unsigned int k = 0; k < KEEP; k++) {
				if (!b->obj[k])
					continue;
				if (b->doing != IDLE && k == b->slot)
					unclear[nr_unclear++] = b->obj[k];
				else
					owned[nr_owned++] = (struct owned){ b->obj[k], is_dead(c) };
			}
		}
	for (unsigned int i = 0; i < MAIL; i++)
		if (sh->mail[i])
			owned[nr_owned++] = (struct owned){ sh->mail[i], false };
	qsort(owned, nr_owned, sizeof(owned[0]), by_address);
	for (unsigned int i = 0; i < nr_owned; i++) {
		if (i && owned[i].p == owned[i - 1].p)
			FAIL("%p is there twice", owned[i].p);
		if (!inventory_live(&inv, heap, owned[i].p))
			FAIL("%p is somebody's, but free", owned[i].p);
		if (!stamp_check(owned[i].p))
			FAIL("%p is damaged", owned[i].p);
		alive += !owned[i].dead;
	}
	for (unsigned int i = 0; i < nr_unclear; i++)
		maybe += !find_owned(unclear[i]) && inventory_live(&inv, heap, unclear[i]);
	in_use = inv.objects - inv.free + inv.large;
	if (in_use < nr_owned || in_use > nr_owned + maybe + in_flight)
		FAIL("%lu objects in use, %u are somebody's, %lu may be, %lu in flight", in_use,
		     nr_owned, maybe, in_flight);
	inventory_each_live(&inv, heap, free_if_nobodys, NULL);
	if (!inventory_take(&inv, heap))
		FAIL("inventory, after the dead's were freed: %s", inv.error);
	in_use = inv.objects - inv.free + inv.large;
	if (in_use != alive)
		FAIL("%lu objects in use, the living have %lu", in_use, alive);
	fork_failures += sh->child_failed;
	if (sh->child_failed)
		FAIL("%lu children of fork failed, status %#x", sh->child_failed, sh->child_status);
	return true;
}

static void failed(const char *what)
{
	if (failures++ < 20)
		printf("  kill %lu: %s\n", kills, what);
	fflush(stdout);
}

/* Kill one, with another stopped in the middle of something now and then, and take stock. */
static bool kill_one(struct rng *r)
{
	unsigned int victim = rng_below(r, CLIENTS), other = rng_below(r, CLIENTS);
	nl_u32 number = LOAD(sh->client[victim].number);
	bool stop = other != victim && rng_below(r, 3) == 0, ok;
	int status = 0;
	char what[200] = "";

	if (stop) {
		stops++;
		kill(pids[other], SIGSTOP);
	}
	kill(pids[victim], SIGKILL);
	while (waitpid(pids[victim], &status, 0) < 0 && errno == EINTR)
		;
	if (status != SIGKILL) {
		ended = (int)victim + 1;
		ended_status = status;
	}
	dead_pid = (nl_u32)pids[victim];
	kills++;
	if (form == HERE)
		nl_heap_repair(heap, CLIENT_FIRST + victim);
	else if (number && !eventually(repaired, number, "nolockd repairs the dead"))
		return false;
	if (stop)
		kill(pids[other], SIGCONT);
	pids[victim] = 0;
	for (unsigned int t = 0; t < THREADS; t++) {
		total_ops += sh->client[victim].thread[t].ops;
		total_forks += sh->client[victim].thread[t].forks;
	}
	STORE(sh->pause, 1);
	ok = eventually(all_rest, 0, "the living come to rest");
	if (!ok)
		snprintf(what, sizeof(what), "somebody is stuck");
	if (ended) {
		snprintf(what, sizeof(what), "client %d has ended by itself: %#x", ended - 1,
			 ended_status);
		ok = false;
	}
	if (ok && form != HERE && nolockd_rest(&daemon_)) {
		snprintf(what, sizeof(what), "nolockd's keeper is gone, or never rests");
		ok = false;
	}
	ok = ok && judge(what, sizeof(what));
	if (form != HERE)
		nolockd_resume(&daemon_);
	if (!ok) {
		for (unsigned int t = 0; t < THREADS; t++)
			if (sh->client[victim].thread[t].doing != IDLE)
				snprintf(what + strlen(what), sizeof(what) - strlen(what),
					 "; the dead was in %s",
					 doings[sh->client[victim].thread[t].doing]);
		failed(what);
	}
	if (ok)
		start_client(victim, r);
	STORE(sh->pause, 0);
	return ok;
}

/* All end in peace, and what is left is freed: the heap must be empty. */
static bool finish(void)
{
	bool ok = true;

	STORE(sh->quit, 1);
	for (unsigned int c = 0; c < CLIENTS; c++) {
		int status = 0;

		if (!pids[c])
			continue;
		while (waitpid(pids[c], &status, 0) < 0 && errno == EINTR)
			;
		if (status) {
			printf("  a client ended with status %#x\n", status);
			ok = false;
		}
		dead_pid = (nl_u32)pids[c];
		if (form == HERE)
			nl_heap_repair(heap, CLIENT_FIRST + c);
		else
			ok &= eventually(repaired, sh->client[c].number, "nolockd sees the end");
		pids[c] = 0;
		for (unsigned int t = 0; t < THREADS; t++) {
			total_ops += sh->client[c].thread[t].ops;
			total_forks += sh->client[c].thread[t].forks;
		}
	}
	if (!inventory_take(&inv, heap))
		return false;
	nr_owned = 0;
	inventory_each_live(&inv, heap, free_if_nobodys, NULL);
	nolock_heap_populate(heap, 0);
	nl_heap_shrink(heap);
	if (nolock_heap_check(heap, &rep) || rep.allocated || rep.large || rep.in_sheaves ||
	    rep.refused || rep.locks_held) {
		printf("  at the end: %lu objects, %lu large, %lu in sheaves, %lu refused, %lu "
		       "locks, %s\n",
		       rep.allocated, rep.large, rep.in_sheaves, rep.refused, rep.locks_held,
		       rep.first_error);
		ok = false;
	}
	return ok;
}

static void kill_all(void)
{
	for (unsigned int c = 0; c < CLIENTS; c++) {
		if (!pids[c])
			continue;
		kill(pids[c], SIGKILL);
		while (waitpid(pids[c], NULL, 0) < 0 && errno == EINTR)
			;
		pids[c] = 0;
	}
}

/* One heap's life: so many kills, or until something is wrong. */
static bool heap_life(unsigned long want, uint64_t until, struct rng *r)
{
	struct kmem_cache_args args = { .sheaf_capacity = 8 };
	unsigned long n = 0;
	bool ok;

	ended = 0;
	memset(sh, 0, sizeof(*sh));
	if (inv.map)
		munmap(inv.map, (HEAP_SIZE >> NL_CHUNK_SHIFT) * NL_SLAB_WORDS * 8);
	memset(&inv, 0, sizeof(inv));
	heap = form == HERE ? shared_make(HEAP_SIZE) : nolock_heap_open(daemon_.heap);
	if (!heap ||
	    (!nolock_heap_kmem_cache_find(heap, "random") &&
	     !nolock_heap_kmem_cache_create(heap, "random", 320, &args, 0)) ||
	    /* Nolock calls have nothing to open it with. */
	    nolock_heap_populate(heap, NL_GROUP_SIZE)) {
		perror("the heap");
		return false;
	}
	for (unsigned int c = 0; c < CLIENTS; c++)
		start_client(c, r);
	do {
		usleep(rng_below(r, 4) ? rng_below(r, 2000) : rng_below(r, 20000));
		ok = kill_one(r);
		n++;
	} while (ok && (n < want || now_ns() < until));
	if (ok)
		ok = finish();
	kill_all();
	nolock_heap_close(heap);
	return ok;
}

static const struct {
	const char *name;
	enum form form;
} forms[] = { { "here", HERE }, { "memfd", MEMFD }, { "arena", ARENA } };

static bool run_form(enum form f, unsigned long want, unsigned long seconds)
{
	unsigned long before = kills, bad = failures, lives = 0;
	uint64_t until = now_ns() + seconds * 1000000000u;
	bool ok = true, life;
	struct rng r;

	rng_init(&r, env_number("TORTURE_SEED", 1));
	form = f;
	if (f != HERE && nolockd_start(&daemon_, f == ARENA))
		return false;
	/* After damage, a new heap: with nolockd one is enough. */
	do {
		life = heap_life(want > kills - before ? want - (kills - before) : 1, until, &r);
		ok &= life;
		lives++;
	} while (f == HERE && lives < 10 && !life && (kills - before < want || now_ns() < until));
	if (f != HERE) {
		int status = nolockd_stop(&daemon_);

		if (status) {
			printf("  nolockd ended with status %#x\n", status);
			ok = false;
		}
	}
	printf("%s: %lu kills, %lu with damage\n", forms[f].name, kills - before, failures - bad);
	fflush(stdout);
	return ok;
}

int main(int argc, char **argv)
{
	unsigned long seconds = env_number("TORTURE_SECONDS", 0), passed = 0, tried = 0;
	unsigned long kills_here = seconds ? 10000 : 300, kills_daemon = seconds ? 500 : 60;

	signal(SIGPIPE, SIG_IGN);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	for (int i = 0; i < 3; i++) {
		if (argc > 1 ? strcmp(argv[1], forms[i].name) != 0 : !PLAIN_BUILD && i)
			continue;
		tried++;
		passed += run_form(forms[i].form, i ? kills_daemon : kills_here,
				   seconds * (i ? 2 : 6) / 10);
	}
	printf("# kill_random: %lu kills (%lu with others stopped), %lu checks, %lu operations, "
	       "%lu forks, %lu failures\n",
	       kills, stops, checks, total_ops, total_forks, failures);
	row("death at random moments", total_ops, kills, "kills", failures);
	row("fork of threads at work", total_ops, total_forks, "forks", fork_failures);
	printf("%lu passed, %lu failed, 0 skipped\n", passed, tried - passed);
	return !tried || passed != tried;
}
