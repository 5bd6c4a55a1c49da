// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_debug.c - debugged caches: NOLOCK_DEBUG, what each letter finds, what the reports say, and
 * that nothing is reported where nothing is wrong, with threads, handlers and validations at work.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <nolock/debug.h>
#include "internal.h"
#include "debug.h"
#include "forbid.h"
#include "kinds.h"
#include "trap.h"
#include "util.h"

#define FZPU (SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER)

static unsigned long debug_errors(void)
{
	struct nolock_heap_report rep;

	nolock_heap_check(nolock_heap_default(), &rep);
	return rep.debug_errors;
}

/* --- what goes to stderr --- */

static int old_stderr, caught_fd = -1;
static char caught[1 << 16];

static void catch (void)
{
	fflush(stderr);
	old_stderr = dup(STDERR_FILENO);
	caught_fd = memfd_create("stderr", MFD_CLOEXEC);
	dup2(caught_fd, STDERR_FILENO);
}

static const char *release(void)
{
	ssize_t n;

	fflush(stderr);
	n = pread(caught_fd, caught, sizeof(caught) - 1, 0);
	caught[n > 0 ? n : 0] = 0;
	dup2(old_stderr, STDERR_FILENO);
	close(old_stderr);
	close(caught_fd);
	return caught;
}

#define expect_text(what)                                                                          \
	cr_expect(strstr(caught, what), "no \"%s\" in the report:\n%s", what, caught)
#define expect_no_text(what)                                                                       \
	cr_expect(!strstr(caught, what), "\"%s\" in the report:\n%s", what, caught)

static void expect_address(const void *p)
{
	char text[32];

	snprintf(text, sizeof(text), "0x%lx", (unsigned long)p);
	expect_text(text);
}

static struct kmem_cache *cache(const char *name, unsigned int size, slab_flags_t flags)
{
	struct kmem_cache *s = kmem_cache_create(name, size, NULL, flags);

	cr_assert_not_null(s, "%s: %s", name, strerror(errno));
	return s;
}

static struct nl_record *record(struct kmem_cache *s, const void *p)
{
	const struct nl_cache *c = (const struct nl_cache *)s;
	nl_u32 off = (c->object_size + 7) / 8 * 8;

	if ((c->flags & SLAB_RED_ZONE) && off == c->object_size)
		off += 8;
	return (struct nl_record *)((char *)p + off);
}

/* --- NOLOCK_DEBUG --- */

static const struct {
	const char *option, *name, *letters, *said;
} options[] = {
	{ "", "kmalloc-64", "", "" },
	{ "FZPU", "kmalloc-64", "FZPU", "" },
	{ "FZPU", "mine", "FZPU", "" },
	{ "fzPut", "mine", "FZPUT", "" },
	{ "Z", "kmalloc-32768", "Z", "" },
	{ "F,mine", "mine", "F", "" },
	{ "F,mine", "kmalloc-64", "", "no cache of this name was made: mine\n" },
	{ "F,mine", "mine2", "", "no cache of this name was made: mine\n" },
	{ "F,mine*", "mine2", "F", "" },
	{ ",mine", "mine", "FZPU", "" },
	{ "P,other,mine", "mine", "P", "no cache of this name was made: other\n" },
	{ "FZ,kmalloc-*", "kmalloc-1024", "FZ", "" },
	{ "FZ,kmalloc-*", "mine", "", "" },
	/* The first block that names it, else the last that names none. */
	{ "F;Z,mine;P,mine", "mine", "Z", "" },
	{ "F;Z,mine;U", "kmalloc-64", "U", "no cache of this name was made: mine\n" },
	{ "FZPU;-,kmalloc-64", "kmalloc-64", "", "" },
	{ "FZPU;-,kmalloc-64", "kmalloc-80", "FZPU", "" },
	{ "-", "mine", "", "" },
	{ "OF", "mine", "F", "" },
	{ ";;F;;", "mine", "F", "" },
	{ "FxZ", "mine", "FZ", "'x' is no option" },
	{ "1", "mine", "", "'1' is no option" },
	{ "A", "mine", "", "'A' is no option" },
	{ "FxyxZ1", "mine", "FZ", "'xy1' are no options" },
	{ "FZ, mine", "mine", "FZ", "" },
	{ " F Z , other ,  mine ", "mine", "FZ", "no cache of this name was made: other\n" },
	{ "F,mime;Z,kmalloc-65,kmalloc-64;P,no*", "mine", "",
	  "no cache of this name was made: mime, kmalloc-65, no*\n" },
};

static nl_u32 flags_of(const char *letters)
{
	nl_u32 flags = 0;

	for (; *letters; letters++)
		flags |= *letters == 'F' ? SLAB_CONSISTENCY_CHECKS :
			 *letters == 'Z' ? SLAB_RED_ZONE :
			 *letters == 'P' ? SLAB_POISON :
			 *letters == 'U' ? SLAB_STORE_USER :
					   SLAB_TRACE;
	return flags;
}

/* Which row: in the environment. The cache's flags, its sheaves, and a pair of calls. */
JOB(options)
{
	unsigned long row = env_number("NOLOCK_TEST_ROW", 1) - 1;
	nl_u32 want = flags_of(options[row].letters), flags;
	struct kmem_cache *s;
	void *p;

	s = nolock_heap_kmem_cache_find(nolock_heap_default(), options[row].name);
	if (!s)
		s = kmem_cache_create(options[row].name, 100, NULL, 0);
	flags = ((struct nl_cache *)s)->flags & NL_DEBUG_FLAGS;
	if (flags != want || (((struct nl_cache *)s)->capacity == 0) != (want != 0)) {
		report("  row %lu, %s: flags %#x, not %#x", row, options[row].option, flags, want);
		return 1;
	}
	p = kmem_cache_alloc(s, GFP_KERNEL);
	memset(p, 1, kmem_cache_size(s));
	kmem_cache_free(s, p);
	return nolock_cache_validate(s) != (want ? 0 : -EINVAL) || debug_errors();
}

Test(debug, options)
{
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		char row[16];
		int status;

		snprintf(row, sizeof(row), "%zu", i + 1);
		setenv("NOLOCK_TEST_ROW", row, 1);
		catch ();
		status = job_run("options", "NOLOCK_DEBUG", options[i].option);
		release();
		cr_expect_eq(status, 0, "NOLOCK_DEBUG=%s: status %#x", options[i].option, status);
		if (*options[i].said)
			expect_text(options[i].said);
		else
			expect_no_text("NOLOCK_DEBUG");
		if (strchr(options[i].letters, 'T')) {
			expect_text("TRACE mine alloc 0x");
			expect_text("TRACE mine free 0x");
		}
	}
}

/* --- layouts --- */

static const unsigned int sizes[] = { 1, 7, 8, 15, 16, 24, 64, 100, 250, 1000, 4096, 5000, 32768 };
static const unsigned int aligns[] = { 0, 8, 64, 4096, 65536 };

Test(debug, every_flag_size_and_alignment)
{
	unsigned long caches = 0;

	for (nl_u32 mix = 1; mix < 16; mix++)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			for (size_t a = 0; a < ARRAY_LEN(aligns); a++) {
				struct kmem_cache_args args = { .align = aligns[a] };
				nl_u32 flags = (mix & 1 ? SLAB_CONSISTENCY_CHECKS : 0) |
					       (mix & 2 ? SLAB_RED_ZONE : 0) |
					       (mix & 4 ? SLAB_POISON : 0) |
					       (mix & 8 ? SLAB_STORE_USER : 0);
				struct kmem_cache *s;
				char *p[5];

				s = kmem_cache_create("mix", sizes[i], &args, flags);
				cr_assert_not_null(s);
				for (int k = 0; k < 5; k++) {
					p[k] = kmem_cache_alloc(s, GFP_KERNEL);
					cr_assert_not_null(p[k]);
					cr_assert_eq((uintptr_t)p[k] % (aligns[a] ? aligns[a] : 8),
						     0);
					cr_assert_eq(ksize(p[k]), sizes[i]);
					pat_fill(p[k], sizes[i], (uint64_t)k);
				}
				cr_assert_eq(nolock_cache_validate(s), 0);
				for (int k = 0; k < 5; k++) {
					cr_assert(pat_check(p[k], sizes[i], (uint64_t)k));
					if (k & 1)
						kfree_nolock(p[k]);
					else
						kmem_cache_free(s, p[k]);
				}
				cr_assert_eq(nolock_cache_validate(s), 0,
					     "size %u align %u flags %#x", sizes[i], aligns[a],
					     flags);
				cr_assert_eq(kmem_cache_destroy(s), 0);
				caches++;
			}
	cr_assert_eq(debug_errors(), 0);
	expect_whole(nolock_heap_default(), NULL, "after all layouts");
	report("  every_flag_size_and_alignment: %lu caches", caches);
}

JOB(kmalloc_sizes)
{
	struct nolock_heap *heap = nolock_heap_default();
	unsigned long n = 0;

	for (size_t size = 1; size <= 40000; size += size < 300 ? 1 : size / 7) {
		char *p = size & 1 ? kmalloc(size, GFP_KERNEL) :
				     kmalloc_nolock(size, 0, NUMA_NO_NODE);
		char *z = kzalloc(size, GFP_KERNEL);

		if (!p)
			p = kmalloc(size, GFP_KERNEL);
		if (!p || !z || (size <= NL_MAX_SIZE && ksize(p) != size))
			return 1;
		/* A power of two, and what the buckets' alignment promises. */
		if (size <= NL_MAX_SIZE && !(size & (size - 1)) && (uintptr_t)p % size)
			return 2;
		for (size_t i = 0; i < size; i++)
			if (z[i])
				return 3;
		pat_fill(p, size, size);
		p = krealloc(p, size + 9, GFP_KERNEL);
		if (!p || !pat_check(p, size, size))
			return 4;
		memset(p, 0, size + 9);
		kfree(p);
		kfree(z);
		n++;
	}
	for (nl_u32 id = 0; id < NL_NR_KMALLOC; id++)
		if (nolock_cache_validate((struct kmem_cache *)nl_cache(heap->h, id)))
			return 5;
	nolock_heap_trim(heap);
	report("  kmalloc_sizes: %lu sizes", n);
	return check_whole(heap, NULL, "after all sizes") || debug_errors();
}

Test(debug, kmalloc_sizes)
{
	int status = job_run("kmalloc_sizes", "NOLOCK_DEBUG", "FZPU");

	cr_assert_eq(status, 0, "status %#x", status);
}

/* --- what is found, and what is said --- */

static __attribute__((noinline)) void *allocate_here(struct kmem_cache *s)
{
	void *p = kmem_cache_alloc(s, GFP_KERNEL);

	__asm__ volatile("" : "+r"(p));
	return p;
}

static __attribute__((noinline)) void free_here(struct kmem_cache *s, void *p)
{
	kmem_cache_free(s, p);
	__asm__ volatile("");
}

Test(debug, overflow)
{
	struct kmem_cache *s = cache("overflow", 100, FZPU);
	volatile char *p = allocate_here(s);
	char text[64];

	p[100] = 1;
	p[-1] = 2;
	catch ();
	free_here(s, (void *)p);
	release();
	expect_text("BUG overflow: Left Redzone overwritten");
	expect_text("BUG overflow: Right Redzone overwritten");
	expect_text("First byte 0x1 instead of 0xcc");
	expect_text("First byte 0x2 instead of 0xcc");
	expect_text("FIX overflow: Restoring Right Redzone");
	expect_text("Allocated by pid=");
	expect_text("Found by pid=");
	snprintf(text, sizeof(text), "pid=%d tid=%d", getpid(), getpid());
	expect_text(text);
	expect_address((const void *)(p + 100));
	/* The bytes themselves, and the object's, which nobody has written yet. */
	expect_text("cc 02  ");
	expect_text("5a 5a 5a");
	cr_expect_eq(debug_errors(), 4);
	cr_expect_eq(nolock_cache_validate(s), 0, "not mended");
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(debug, use_after_free_found_by_allocation)
{
	struct kmem_cache *s = cache("uaf", 64, FZPU);
	volatile char *p = allocate_here(s);
	struct nolock_heap_report rep;
	void *q[200];

	free_here(s, (void *)p);
	p[7] = 'x';
	catch ();
	for (int i = 0; i < 200; i++) {
		q[i] = kmem_cache_alloc(s, GFP_KERNEL);
		cr_expect_neq(q[i], (void *)p, "a damaged object is handed out");
	}
	release();
	expect_text("BUG uaf: Poison overwritten");
	expect_text("First byte 0x78 instead of 0x6b");
	expect_text("Freed by pid=");
	expect_text("kept out of use");
	cr_expect_eq(debug_errors(), 3);
	for (int i = 0; i < 200; i++)
		kmem_cache_free(s, q[i]);
	expect_whole(nolock_heap_default(), &rep, "with an object kept");
	cr_expect_eq(rep.allocated, 1);
	/* What is kept does not keep the cache. */
	cr_expect_eq(kmem_cache_destroy(s), 0);
	expect_whole(nolock_heap_default(), &rep, "without it");
	cr_expect_eq(rep.allocated, 0);
}

Test(debug, use_after_free_found_when_the_slab_goes)
{
	struct kmem_cache *s = cache("gone", 64, SLAB_POISON);
	volatile char *p = kmem_cache_alloc(s, GFP_KERNEL);

	kmem_cache_free(s, (void *)p);
	p[63] = 1;
	catch ();
	cr_expect_eq(kmem_cache_shrink(s), 1);
	release();
	expect_text("BUG gone: End Poison overwritten");
	cr_expect_eq(debug_errors(), 2);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(debug, padding)
{
	struct kmem_cache *s = cache("padding", 1000, SLAB_POISON);
	char *p = kmem_cache_alloc(s, GFP_KERNEL);
	char *chunk = (char *)((uintptr_t)p & ~(uintptr_t)(NL_CHUNK_SIZE - 1));

	chunk[NL_CHUNK_SIZE - 1] = 0;
	catch ();
	cr_expect_eq(nolock_cache_validate(s), 2);
	release();
	expect_text("BUG padding: Slab padding overwritten");
	kmem_cache_free(s, p);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

static void twice(const char *name, slab_flags_t flags)
{
	struct kmem_cache *s = cache(name, 64, flags);
	void *p = allocate_here(s), *other = allocate_here(s);
	struct nolock_heap_report rep;

	free_here(s, p);
	catch ();
	free_here(s, p);
	kfree_nolock((char *)other + 1);
	kfree((char *)other + 63);
	release();
	expect_text("is free already");
	expect_text("where no object starts");
	expect_address(p);
	if (flags & SLAB_STORE_USER)
		expect_text("Freed by pid=");
	else
		expect_no_text("Freed by pid=");
	cr_expect_eq(debug_errors(), 3, "%s", name);
	expect_whole(nolock_heap_default(), &rep, "after bad frees");
	cr_expect_eq(rep.refused, 3);
	cr_expect_eq(rep.allocated, 1);
	kmem_cache_free(s, other);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(debug, bad_frees)
{
	twice("all", FZPU);
}

Test(debug, bad_frees_without_a_zone)
{
	twice("checked", SLAB_CONSISTENCY_CHECKS);
}

Test(debug, foreign_and_wrong_cache)
{
	struct kmem_cache *s = cache("one", 64, FZPU), *t = cache("two", 64, 0);
	void *p = kmem_cache_alloc(s, GFP_KERNEL), *q = kmem_cache_alloc(t, GFP_KERNEL);
	int local;

	catch ();
	kfree(&local);
	kmem_cache_free(t, p);
	kmem_cache_free(s, q);
	release();
	expect_text("BUG nolock: Invalid free of 0x");
	expect_text("no heap's");
	expect_text("Wrong slab cache: freed to two, but object is from one");
	expect_text("Wrong slab cache: freed to one, but object is from two");
	cr_expect_eq(debug_errors(), 3);
	cr_expect_eq(kmem_cache_destroy(s), 0);
	cr_expect_eq(kmem_cache_destroy(t), 0);
}

/* Is one of the addresses in the first bytes of the function? */
static bool through(const struct nl_track *t, void *function)
{
	for (int i = 0; i < NL_TRACK_DEPTH; i++)
		if (t->addr[i] - (nl_u64)function < 128)
			return true;
	return false;
}

static void *thread_frees(void *p)
{
	static _Thread_local pid_t tid;

	free_here((struct kmem_cache *)((void **)p)[0], ((void **)p)[1]);
	tid = gettid();
	return (void *)(uintptr_t)tid;
}

Test(debug, tracks)
{
	struct kmem_cache *s = cache("tracks", 64, SLAB_STORE_USER);
	void *p = allocate_here(s), *arg[2] = { s, p }, *tid;
	struct nl_record *r = record(s, p);
	pthread_t thread;
	int status;
	pid_t pid;

	cr_expect_eq(r->alloc.pid, (nl_u32)getpid());
	cr_expect_eq(r->alloc.tid, (nl_u32)gettid());
	cr_expect(through(&r->alloc, (void *)allocate_here), "the stack misses its function");
	cr_expect_eq(r->free.when, 0);
	pthread_create(&thread, NULL, thread_frees, arg);
	pthread_join(thread, &tid);
	cr_expect_eq(r->free.pid, (nl_u32)getpid());
	cr_expect_eq(r->free.tid, (nl_u32)(uintptr_t)tid);
	cr_expect(through(&r->free, (void *)free_here));
	cr_expect(through(&r->free, (void *)thread_frees));
	cr_expect_geq(r->free.when, r->alloc.when);
	/* A child has its own numbers, from its first call on. */
	pid = fork();
	if (pid == 0) {
		p = allocate_here(s);
		r = record(s, p);
		_exit(r->alloc.pid != (nl_u32)getpid() || r->alloc.tid != (nl_u32)gettid());
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

JOB(aborts)
{
	struct kmem_cache *s = kmem_cache_create("aborts", 64, NULL, SLAB_RED_ZONE);
	volatile char *p = kmem_cache_alloc(s, GFP_KERNEL);

	p[64] = 0;
	kmem_cache_free(s, (void *)p);
	return 0;
}

Test(debug, abort_after_a_report)
{
	int status;

	catch ();
	status = job_run("aborts", "NOLOCK_DEBUG_ABORT", "1");
	release();
	expect_text("BUG aborts: Right Redzone overwritten");
	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x", status);
	catch ();
	status = job_run("aborts", "NOLOCK_DEBUG_ABORT", "0");
	release();
	cr_expect_eq(status, 0);
}

/* --- what else a cache can do --- */

static unsigned long built;

static void ctor(void *p)
{
	memset(p, 0x42, 64);
	built++;
}

Test(debug, constructor)
{
	struct kmem_cache_args args = { .ctor = ctor };
	struct kmem_cache *s = kmem_cache_create("ctor", 64, &args, FZPU);
	unsigned char *p[64];

	cr_assert_not_null(s);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 64; i++) {
			p[i] = kmem_cache_alloc(s, GFP_KERNEL);
			for (int k = 0; k < 64; k++)
				cr_assert_eq(p[i][k], 0x42, "byte %d: %#x", k, p[i][k]);
		}
		for (int i = 0; i < 64; i++)
			kmem_cache_free(s, p[i]);
	}
	cr_expect_eq(nolock_cache_validate(s), 0);
	cr_expect_eq(built, (unsigned long)((struct nl_cache *)s)->nr_slabs *
				    ((struct nl_cache *)s)->per_slab);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(debug, bulk_sheaves_and_zero)
{
	struct kmem_cache *s = cache("bulk", 200, FZPU);
	struct nolock_cache_stat st;
	struct slab_sheaf *sheaf;
	void *p[40];
	char *z;

	cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, 40, p), 40);
	for (int i = 0; i < 40; i++)
		memset(p[i], i, 200);
	cr_assert_eq(nolock_heap_cache_stat(nolock_heap_default(), nl_cache_id(s), &st), 0);
	cr_expect_eq(st.flags & FZPU, FZPU);
	cr_expect_eq(st.sheaf_capacity, 0);
	cr_expect_eq(st.allocated, 40);
	cr_expect_eq(st.stat[NOLOCK_ALLOC_FASTPATH], 0);
	kmem_cache_free_bulk(s, 40, p);
	sheaf = kmem_cache_prefill_sheaf(s, GFP_KERNEL, 10);
	cr_assert_not_null(sheaf);
	for (int i = 0; i < 10; i++) {
		cr_assert_not_null(p[i] = kmem_cache_alloc_from_sheaf(s, GFP_KERNEL, sheaf));
		memset(p[i], i, 200);
	}
	cr_assert_null(kmem_cache_alloc_from_sheaf(s, GFP_KERNEL, sheaf));
	kmem_cache_return_sheaf(s, GFP_KERNEL, sheaf);
	kmem_cache_free_bulk(s, 10, p);
	z = kmem_cache_zalloc(s, GFP_KERNEL);
	for (int i = 0; i < 200; i++)
		cr_assert_eq(z[i], 0);
	kmem_cache_free(s, z);
	cr_expect_eq(nolock_cache_validate(s), 0);
	cr_expect_eq(kmem_cache_destroy(s), 0);
}

Test(debug, not_in_shared_heaps)
{
	struct nolock_heap *heap = heap_of_kind(NOLOCK_HEAP_MEMFD, 64 * MiB);

	errno = 0;
	cr_expect_null(nolock_heap_kmem_cache_create(heap, "no", 64, NULL, SLAB_POISON));
	cr_expect_eq(errno, EINVAL);
	cr_expect_not_null(nolock_heap_kmem_cache_create(heap, "yes", 64, NULL, 0));
	/* Damaged: flags of a shared heap mean nothing here. */
	nl_cache(heap->h, 3)->flags |= FZPU;
	kfree(nolock_heap_kmalloc(heap, 64, GFP_KERNEL));
	expect_whole(heap, NULL, "a shared heap");
	cr_assert_eq(nolock_heap_close(heap), 0);
}

/* --- any context --- */

static struct kmem_cache *hot;

/* What a handler or a system call filter is put around. Returns how much failed. */
static unsigned long nolock_work(int rounds)
{
	unsigned long bad = 0;
	char *p[16];

	for (int r = 0; r < rounds; r++) {
		for (int i = 0; i < 16; i++) {
			p[i] = kmem_cache_alloc_nolock(hot, i & 1 ? __GFP_ZERO : 0, NUMA_NO_NODE);
			bad += !p[i];
			if (p[i])
				memset(p[i], r, 64);
		}
		for (int i = 0; i < 16; i++)
			kfree_nolock(p[i]);
	}
	return bad;
}

Test(debug, no_system_call)
{
	int status;
	pid_t pid;

	hot = cache("hot", 64, FZPU);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), MiB), 0);
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		nolock_work(1);
		if (forbid_system_calls())
			_exit(2);
		/* Not _exit(): ASan has a system call made before a call that does not return. */
		syscall(__NR_exit_group, nolock_work(2000) != 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "a system call was made: status %#x", status);
}

static volatile unsigned long handled, handler_bad;

static void handler(int sig)
{
	(void)sig;
	handler_bad += nolock_work(1);
	handled++;
}

#if defined(__x86_64__)
static int step_every, steps;
static volatile bool stepped_enough;

static void stepped(int sig, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	/* Not inside trap_off(), whose stack no unwinder knows. */
	if (++steps % step_every == 0 && !stepped_enough)
		handler(sig);
}

/* The whole of an allocation and a free, interrupted at each instruction, or at some of them. */
static void step_through(slab_flags_t flags, int every)
{
	struct sigaction sa = { .sa_sigaction = stepped, .sa_flags = SA_SIGINFO };
	void *p;

	step_every = every;
	hot = cache("stepped", 64, flags);
	cr_assert_eq(nolock_heap_populate(nolock_heap_default(), MiB), 0);
	sigaction(SIGTRAP, &sa, NULL);
	nolock_work(4);
	for (int i = 0; i < 4; i++) {
		stepped_enough = false;
		trap_on();
		p = kmem_cache_alloc_nolock(hot, 0, NUMA_NO_NODE);
		kfree_nolock(p);
		stepped_enough = true;
		trap_off();
		cr_assert_not_null(p);
	}
	cr_assert_gt(handled, 0);
	cr_assert_eq(handler_bad, 0);
	cr_assert_eq(nolock_cache_validate(hot), 0);
	cr_assert_eq(debug_errors(), 0);
	expect_whole(nolock_heap_default(), NULL, "after single steps");
	report("  single steps, flags %#x: %d, %lu handlers", flags, steps, handled);
}

Test(debug, every_instruction)
{
	step_through(FZPU & ~SLAB_STORE_USER, 1);
}

Test(debug, some_instructions_of_a_stack_walk)
{
	step_through(FZPU, 211);
}
#endif

static void handler_finds(int sig)
{
	(void)sig;
	kfree_nolock(record(hot, NULL)); /* nonsense */
	for (int i = 0; i < 2; i++)
		kfree_nolock((void *)handled);
}

Test(debug, report_in_a_handler)
{
	static char stack[16384];
	struct sigaction sa = { .sa_handler = handler_finds, .sa_flags = SA_ONSTACK };
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };

	hot = cache("handler", 64, FZPU);
	handled = (unsigned long)kmem_cache_alloc(hot, GFP_KERNEL);
	cr_assert_eq(sigaltstack(&ss, NULL), 0);
	sigaction(SIGUSR1, &sa, NULL);
	catch ();
	raise(SIGUSR1);
	release();
	expect_text("BUG nolock: Invalid free");
	expect_text("BUG handler: Object");
	expect_text("is free already");
	cr_expect_eq(debug_errors(), 2);
	cr_expect_eq(kmem_cache_destroy(hot), 0);
}

/* --- at once --- */

static struct mailbox box;
static volatile int stop;
static unsigned long damages;

/* Objects go from hand to hand; with damage, some are written behind before they are freed. */
static void *storm_thread(void *arg)
{
	unsigned long seed = (unsigned long)arg, damaged = 0;
	struct rng r;

	rng_init(&r, seed);
	for (int i = 0; i < 6000; i++) {
		char *p = kmem_cache_alloc(hot, i & 1 ? GFP_KERNEL : GFP_NOWAIT);

		if (!p)
			continue;
		stamp(p, 64, (uint32_t)rng_next(&r));
		p = mailbox_swap(&box, rng_below(&r, MAILBOX_SLOTS), p);
		if (!p)
			continue;
		if (stamp_check(p) != 64)
			__atomic_fetch_add(&handler_bad, 1, __ATOMIC_RELAXED);
		if (damages && rng_below(&r, 40) == 0) {
			((volatile char *)p)[64 + rng_below(&r, 8)] = 1;
			damaged++;
		}
		if (i & 2)
			kfree_nolock(p);
		else
			kmem_cache_free(hot, p);
		if (rng_below(&r, 16) == 0)
			raise(SIGUSR1);
	}
	return (void *)damaged;
}

static void *validator(void *arg)
{
	unsigned long *rounds = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		int found = nolock_cache_validate(hot);

		/* A slab's lock may belong to a thread that does not run at the moment. */
		if (found < 0 && found != -EBUSY)
			return (void *)1;
		++*rounds;
	}
	return NULL;
}

static void storm(const char *name, bool with_damage)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	unsigned long rounds = 0, damaged = 0;
	pthread_t thread[3], checker;
	struct nolock_heap_report rep;
	void *ret;

	hot = cache(name, 64, FZPU);
	damages = with_damage;
	sigaction(SIGUSR1, &sa, NULL);
	catch ();
	cr_assert_eq(pthread_create(&checker, NULL, validator, &rounds), 0);
	for (unsigned long i = 0; i < ARRAY_LEN(thread); i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, storm_thread, (void *)(i + 1)), 0);
	for (size_t i = 0; i < ARRAY_LEN(thread); i++) {
		pthread_join(thread[i], &ret);
		damaged += (unsigned long)ret;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(checker, &ret);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		kfree(mailbox_swap(&box, i, NULL));
	release();
	cr_expect_eq(ret, NULL, "a validation failed");
	cr_expect_eq(handler_bad, 0);
	cr_expect_eq(nolock_cache_validate(hot), 0);
	expect_whole(nolock_heap_default(), &rep, name);
	/* Each damage is one report and one fix, whoever finds it; nothing else is reported. */
	cr_expect_eq(rep.debug_errors, 2 * damaged, "%s: %lu errors of %lu damages:\n%.2000s", name,
		     rep.debug_errors, damaged, caught);
	cr_expect_eq(rep.allocated, 0);
	cr_expect_eq(kmem_cache_destroy(hot), 0);
	report("  %s: %lu validations, %lu handlers, %lu damages", name, rounds, handled, damaged);
}

Test(debug, storm)
{
	storm("storm", false);
}

Test(debug, storm_with_damage)
{
	storm("damage", true);
}

Test(debug, second_free_at_once, .description = "of two frees at once one is the second")
{
	struct kmem_cache *s = cache("race", 64, FZPU);
	unsigned long rounds = 400;
	pthread_t thread[2];

	catch ();
	for (unsigned long i = 0; i < rounds; i++) {
		void *p = kmem_cache_alloc(s, GFP_KERNEL);

		for (int k = 0; k < 2; k++)
			pthread_create(&thread[k], NULL, (void *(*)(void *))(uintptr_t)kfree, p);
		for (int k = 0; k < 2; k++)
			pthread_join(thread[k], NULL);
	}
	release();
	cr_expect_eq(debug_errors(), rounds);
	expect_whole(nolock_heap_default(), NULL, "after the races");
	cr_expect_eq(kmem_cache_destroy(s), 0);
}
