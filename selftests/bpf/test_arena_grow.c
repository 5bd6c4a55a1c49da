// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_arena_grow.c - the program that opens groups: alone, beside growing processes, killed, in want
 * of memory, on garbage, and for a process without any right.
 */
#define _GNU_SOURCE
#include <cap-ng.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "arena_help.h"
#include "core/grow.h"

TestSuite(arena_grow, .timeout = 120);

struct env {
	struct rig r;
	struct nolock_heap *heap;
	nl_heap_t *h;
	nl_u32 first; /* group */
};

static void start(struct env *e, unsigned int groups)
{
	int fd = heap_make(0, groups);

	e->heap = heap_map(fd, 0, 1);
	e->h = e->heap->h;
	e->first = e->h->first_chunk >> NL_GROUP_SHIFT;
	rig_new(&e->r, fd);
}

static int grow(struct env *e)
{
	return arena_grow(e->r.arena.grow);
}

/* Everything below the limit is open, whole and free: no group was lost, none opened twice. */
static void all_open(struct env *e)
{
	cr_assert_eq(e->h->cursor, e->h->limit);
	cr_assert_eq(e->h->nr_open, e->h->limit);
	cr_assert_eq(e->h->nr_left, 0);
	for (nl_u32 g = e->first; g < e->h->limit; g++) {
		nl_group_t *group = nl_group(e->h, g);

		cr_assert_eq(group->state, NL_GROUP_OPEN);
		cr_assert_eq(group->chunk_free, nl_group_chunks(e->h, g), "group %u: %llx", g,
			     (unsigned long long)group->chunk_free);
	}
	heap_whole(e->heap, 0, "all open");
}

static void pages_there(struct env *e, nl_u32 g, bool there)
{
	nl_u32 chunks = nl_chunks_at(e->h, g) / NL_PAGE, end = nl_chunks_at(e->h, g + 1) / NL_PAGE;
	nl_u32 meta = nl_groups_at(e->h, g) / NL_PAGE;

	cr_assert_eq(rig_there(&e->r, chunks, end - chunks), there ? end - chunks : 0,
		     "chunks of group %u", g);
	cr_assert_eq(rig_there(&e->r, meta, 10), there ? 10 : 0, "descriptors of group %u", g);
}

/* Hand all memory out, in objects that user space fills over their whole length. */
static void use_all(struct env *e)
{
	static void *obj[8192];
	unsigned int n = 0, chunks = nl_heap_free_chunks(e->heap);
	cpu_set_t before;

	/* On one CPU: another one's sheaf would keep what was taken there. */
	cr_assert_eq(sched_getaffinity(0, sizeof(before), &before), 0);
	pin(sched_getcpu());
	while (n < 8192 && (obj[n] = nolock_heap_kmalloc(e->heap, 32768, GFP_NOWAIT))) {
		memset(obj[n], (int)(n % 251), 32768);
		n++;
	}
	cr_assert_eq(n, 2 * chunks, "%u objects out of %u chunks", n, chunks);
	for (unsigned int i = 0; i < n; i++)
		for (unsigned int b = 0; b < 32768; b += 4096)
			cr_assert_eq(((unsigned char *)obj[i])[b], i % 251, "handed out twice");
	while (n)
		kfree(obj[--n]);
	cr_assert_eq(sched_setaffinity(0, sizeof(before), &before), 0);
	nl_heap_shrink(e->heap);
	cr_assert_eq(nl_heap_free_chunks(e->heap), chunks);
}

Test(arena_grow, to_the_limit)
{
	struct env e;

	start(&e, 5);
	for (nl_u32 g = e.first; g < e.h->limit; g++) {
		pages_there(&e, g, false);
		cr_assert_eq(grow(&e), 0);
		cr_assert_eq(e.h->nr_open, g + 1);
		pages_there(&e, g, true);
		cr_assert_eq(nl_group(e.h, g)->chunk_free, nl_group_chunks(e.h, g));
	}
	cr_assert_eq(grow(&e), -ENOSPC);
	cr_assert_eq(grow(&e), -ENOSPC);
	pages_there(&e, e.h->limit, false);
	all_open(&e);
	use_all(&e);
}

/* Pages of the next groups that somebody has touched before are no hindrance. */
Test(arena_grow, beside_touched_pages)
{
	struct env e;

	start(&e, 3);
	for (nl_u32 g = e.first; g < e.h->limit; g++)
		for (nl_u64 at = nl_chunks_at(e.h, g); at < nl_chunks_at(e.h, g + 1);
		     at += 7 * NL_PAGE)
			e.heap->base[at] = (char)g;
	(void)nl_load(&nl_group(e.h, e.first + 1)->slab[30].free[0]);
	for (nl_u32 g = e.first; g < e.h->limit; g++) {
		cr_assert_eq(grow(&e), 0);
		pages_there(&e, g, true);
	}
	cr_assert_eq(grow(&e), -ENOSPC);
	all_open(&e);
	use_all(&e);
}

static struct {
	nl_u32 go, opened;
} * shared;

static void share(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	cr_assert_neq(shared, MAP_FAILED);
}

/* A client that opens groups, one and two at a time, until there is none left. */
static pid_t growing_client(struct env *e, unsigned int client)
{
	struct nolock_heap *heap;
	nl_u32 n = 1, got;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The parent's mapping is not inherited. */
	heap = nl_heap_map(dup(e->r.fd), NL_HEAP_ARENA, arena_base(0), e->heap->size, client);
	if (!heap)
		_exit(1);
	while (!nl_load_acquire(&shared->go))
		;
	while ((got = nl_heap_grow(heap, n))) {
		nl_add(&shared->opened, got);
		n = 3 - n;
	}
	_exit(0);
}

static void *growing_thread(void *arg)
{
	struct env *e = arg;
	int err;

	while (!nl_load_acquire(&shared->go))
		;
	while (!(err = grow(e)))
		nl_add(&shared->opened, 1);
	return (void *)(long)err;
}

Test(arena_grow, beside_growing_clients)
{
	pthread_t thread[2];
	pid_t pid[2];
	struct env e;
	void *err;
	int status;

	share();
	start(&e, 40);
	for (unsigned int i = 0; i < 2; i++)
		pid[i] = growing_client(&e, 2 + i);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, growing_thread, &e), 0);
	nl_store_release(&shared->go, 1);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(pthread_join(thread[i], &err), 0);
		cr_assert_eq((long)err, -ENOSPC, "%s", strerror(-(int)(long)err));
		cr_assert_eq(waitpid(pid[i], &status, 0), pid[i]);
		cr_assert_eq(status, 0);
	}
	cr_assert_eq(shared->opened, e.h->limit - e.first);
	all_open(&e);
	for (nl_u32 g = e.first; g < e.h->limit; g++)
		pages_there(&e, g, true);
}

/* A process that asks for groups is killed: what the program had begun, it has ended. */
Test(arena_grow, killed)
{
	unsigned int rounds = 12, killed = 0;
	nl_u32 before;
	struct env e;
	pid_t pid;
	int status;

	share();
	start(&e, 60);
	for (unsigned int i = 0; i < rounds; i++) {
		shared->go = 0;
		pid = fork();
		cr_assert_geq(pid, 0);
		if (pid == 0) {
			shared->go = 1;
			while (!grow(&e))
				;
			_exit(0);
		}
		while (!nl_load_acquire(&shared->go))
			;
		usleep(500 * i);
		kill(pid, SIGKILL);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		killed += WIFSIGNALED(status);
		before = e.h->cursor;
		cr_assert_eq(e.h->nr_open, before, "group %u was drawn, and not opened",
			     before - 1);
		for (nl_u32 g = e.first; g < before; g++)
			cr_assert_eq(nl_group(e.h, g)->chunk_free, nl_group_chunks(e.h, g));
	}
	cr_assert_gt(killed, 0, "no process was killed");
	while (!grow(&e))
		;
	all_open(&e);
}

/* A page that cannot be had: an error, nothing is lost, and it works as soon as it can be had. */
Test(arena_grow, in_want_of_memory)
{
	nl_u32 page, g, where[3];
	struct env e;

	start(&e, 4);
	cr_assert_eq(grow(&e), 0);
	g = e.first + 1;
	where[0] = nl_chunks_at(e.h, g) / NL_PAGE + 777;
	where[1] = nl_groups_at(e.h, g) / NL_PAGE + 5;
	where[2] = nl_groups_at(e.h, g) / NL_PAGE;
	for (unsigned int i = 0; i < 3; i++) {
		page = where[i];
		if (i) /* What the round before has made present: there is one such group each. */
			page += (nl_groups_at(e.h, e.h->cursor) - nl_groups_at(e.h, g)) / NL_PAGE;
		rig_hold(&e.r, page, 1);
		cr_assert_eq(grow(&e), -ENOMEM);
		cr_assert_eq(e.h->cursor, e.first + 1 + i);
		cr_assert_eq(e.h->nr_open, e.first + 1 + i);
		heap_whole(e.heap, 0, "in want of memory");
		rig_release(&e.r, page, 1);
		cr_assert_eq(grow(&e), 0);
	}
	while (!grow(&e))
		;
	all_open(&e);
	use_all(&e);
}

/* A group that could not be opened while others drew further ones is opened by the next. */
Test(arena_grow, left_behind)
{
	nl_u32 g[3];
	struct env e;

	start(&e, 8);
	for (unsigned int i = 0; i < 3; i++)
		g[i] = nl_groups_draw(e.h, 1);
	nl_groups_undraw(e.h, g[0], 1);
	cr_assert_eq(e.h->nr_left, 1);
	nl_groups_undraw(e.h, g[1], 1);
	cr_assert_eq(e.h->nr_left, 2);
	nl_groups_undraw(e.h, g[2], 1);
	cr_assert_eq(e.h->nr_left, 2);
	cr_assert_eq(e.h->cursor, g[2]);
	/* Two by the program, then one by user space, which finds the cursor at the limit. */
	cr_assert_eq(grow(&e), 0);
	cr_assert_eq(e.h->nr_left, 1);
	cr_assert_eq(nl_group(e.h, g[0])->chunk_free, nl_group_chunks(e.h, g[0]));
	cr_assert_eq(nl_groups_draw(e.h, e.h->limit - g[2]), g[2]);
	cr_assert_eq(nl_heap_grow(e.heap, 5), 1);
	cr_assert_eq(e.h->nr_left, 0);
	cr_assert_eq(nl_group(e.h, g[1])->chunk_free, nl_group_chunks(e.h, g[1]));
	cr_assert_eq(grow(&e), -ENOSPC);
	cr_assert_eq(nl_heap_grow(e.heap, 1), 0);
	nl_groups_undraw(e.h, g[2], e.h->limit - g[2]);
	while (!grow(&e))
		;
	all_open(&e);
}

/* A repair opens what its drawer left, but not what a program is opening; and the other way round. */
Test(arena_grow, beside_a_repair)
{
	nl_u32 g[4];
	struct env e;

	start(&e, 6);
	for (unsigned int i = 0; i < 4; i++)
		g[i] = nl_groups_draw(e.h, 1);
	cr_assert(nl_group_claim(e.h, g[1], NL_GROUP_BPF));
	nl_heap_repair(e.heap, 9);
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(nl_group(e.h, g[i])->state, i == 1 ? NL_GROUP_BPF : NL_GROUP_OPEN);
		cr_assert_eq(nl_group(e.h, g[i])->chunk_free,
			     i == 1 ? 0 : nl_group_chunks(e.h, g[i]));
	}
	/* One that others have drawn past, and that the repair has opened, is not opened again. */
	nl_groups_undraw(e.h, g[2], 1);
	nl_group(e.h, g[2])->chunk_free = 0;
	cr_assert_eq(grow(&e), -ENOMEM);
	cr_assert_eq(nl_group(e.h, g[2])->chunk_free, 0);
	cr_assert_eq(e.h->nr_left, 0);
	nl_chunk_publish(e.h, g[2], nl_group_chunks(e.h, g[2]));
	/* The program gives up: it leaves the group as it was. */
	nl_store(&nl_group(e.h, g[1])->state, NL_GROUP_CLOSED);
	nl_groups_undraw(e.h, g[1], 1);
	rig_hold(&e.r, nl_chunks_at(e.h, g[1]) / NL_PAGE + 9, 1);
	cr_assert_eq(grow(&e), -ENOMEM);
	cr_assert_eq(nl_group(e.h, g[1])->state, NL_GROUP_CLOSED);
	cr_assert_eq(e.h->nr_left, 1);
	rig_release(&e.r, nl_chunks_at(e.h, g[1]) / NL_PAGE + 9, 1);
	while (!grow(&e))
		;
	all_open(&e);
	use_all(&e);
}

/* The program ends, and says that there is nothing, or whatever: but it ends. */
Test(arena_grow, garbage)
{
	unsigned int seed = 1, ended = 0;
	nl_u64 *word;
	struct rig r;
	struct env e;
	int err;

	rig_new(&r, arena_make(1));
	cr_assert_eq(arena_grow(r.arena.grow), -ENOSPC, "an arena without a heap");
	cr_assert_eq(rig_there(&r, 0, 20000), 0, "grown, or written to, without a heap");

	start(&e, 8);
	word = (nl_u64 *)(void *)e.h;
	for (unsigned int i = 0; i < 40; i++, ended++) {
		for (unsigned int w = 1; w < 50; w++)
			if (i < 20 || rand_r(&seed) % 3 == 0)
				word[w] = (nl_u64)rand_r(&seed) << (rand_r(&seed) % 32) >>
					  (i % 3 * 16);
		err = grow(&e);
		cr_assert(err <= 0 && err >= -ETIME, "%d", err);
	}
	cr_assert_eq(ended, 40);
}

static void drop_rights(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_change_id(65534, 65534, CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING))
		_exit(100);
}

/* Without rights nothing can be loaded; but who was given the program may run it. */
Test(arena_grow, without_rights)
{
	static struct arena mine;
	struct env e;
	int status;
	pid_t pid;

	if (geteuid())
		cr_skip_test("becomes another user");
	start(&e, 6);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		struct nolock_heap *heap;
		int err;

		drop_rights();
		err = arena_load(&mine, e.r.fd);
		/* 7.2 answers EACCES. */
		if ((err != -EPERM && err != -EACCES) || !strstr(mine.why, "CAP_BPF") ||
		    mine.grow >= 0)
			_exit(1);
		heap = nl_heap_map(dup(e.r.fd), NL_HEAP_ARENA, arena_base(0), e.heap->size, 2);
		if (!heap)
			_exit(2);
		if (arena_grow(mine.grow) == 0)
			_exit(3);
		if (nl_heap_grow(heap, 1) != 1)
			_exit(4);
		if (grow(&e))
			_exit(5);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 0, "step %d went wrong", WEXITSTATUS(status));
	cr_assert_eq(e.h->nr_open, e.first + 2);
	while (!grow(&e))
		;
	all_open(&e);
}
