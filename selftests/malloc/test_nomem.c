// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nomem.c - the drop-in when the system has no memory: calls fail with ENOMEM, and nothing
 * else happens.
 *
 * The Nth call by which the library gets memory fails, that one alone or all from it on, while a
 * child allocates by every function that there is. N goes up until none is left to fail: by larger
 * and larger steps, but with TORTURE_SECONDS set by ones, as long as its share of those seconds
 * lasts. As soon as there is memory again, everything succeeds; what was allocated keeps its
 * contents all along; the heap is whole at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include "../lib/nomem.h"
#include "../torture/row.h"
#include "dropin.h"

enum { OBJECTS = 600 };

static unsigned long refused;

/* With sure, there is memory. */
static void *got(void *p, size_t size, bool sure, const char *call)
{
	if (p) {
		CHECK(malloc_usable_size(p) >= size, "%s", call);
		pat_fill(p, size, size);
		return p;
	}
	CHECK(!sure, "%s of %zu bytes failed though there is memory", call, size);
	CHECK(errno == ENOMEM, "%s: errno %d", call, errno);
	CHECK(injected, "%s failed though nothing did before", call);
	__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void *allocate(unsigned int i, size_t size, bool sure)
{
	void *p = NULL;
	int err;

	errno = 0;
	switch (i % 7) {
	case 0:
		return got(malloc(size), size, sure, "malloc");
	case 1:
		p = calloc(1, size);
		CHECK(!p || (!*(char *)p && !memcmp(p, (char *)p + 1, size - 1)), "calloc");
		return got(p, size, sure, "calloc");
	case 2:
		return got(memalign(256, size), size, sure, "memalign");
	case 3:
		err = posix_memalign(&p, 4096, size);
		CHECK(!err || err == ENOMEM, "posix_memalign: %d", err);
		errno = err;
		return got(err ? NULL : p, size, sure, "posix_memalign");
	case 4:
		return got(aligned_alloc(64, size), size, sure, "aligned_alloc");
	case 5:
		return got(reallocarray(NULL, size, 1), size, sure, "reallocarray");
	default:
		return got(realloc(NULL, size), size, sure, "realloc");
	}
}

static void use(bool sure)
{
	static const size_t sizes[] = { 1, 40, 700, 4096, 20000, 32768, 70000, 300000, 3 * MiB };
	size_t have[OBJECTS];
	void *obj[OBJECTS];

	for (unsigned int i = 0; i < OBJECTS; i++) {
		size_t size = sizes[i % ARRAY_LEN(sizes)];

		if (size > MiB && i > 100)
			size = 100;
		have[i] = size;
		obj[i] = allocate(i, size, sure);
	}
	/* What cannot be resized stays as it is. */
	for (unsigned int i = 0; i < OBJECTS; i += 3) {
		size_t size = have[i] * (i % 2 ? 3 : 1) + 1000;
		void *p;

		if (!obj[i])
			continue;
		errno = 0;
		p = realloc(obj[i], size);
		CHECK(pat_check(p ? p : obj[i], have[i], have[i]), "realloc: damaged");
		if (p) {
			have[i] = size;
			obj[i] = got(p, size, sure, "realloc");
		} else {
			got(NULL, size, sure, "realloc");
		}
	}
	malloc_trim(0);
	for (unsigned int i = 0; i < OBJECTS; i++) {
		CHECK(!obj[i] || pat_check(obj[i], have[i], have[i]), "%p is damaged", obj[i]);
		free(obj[i]);
	}
	malloc_trim(0);
	/* What can never be, whether there is memory or not. */
	errno = 0;
	CHECK(!malloc(SIZE_MAX / 2) && errno == ENOMEM, "malloc of all there is");
}

static void *in_a_thread(void *arg)
{
	use(arg != NULL);
	return NULL;
}

struct outcome {
	unsigned long injected, refused;
};

/* The child's exit says whether it went well; what it counted is written into the pipe. */
static struct outcome round_of(unsigned long from, unsigned long to, bool thread)
{
	struct outcome o = { 0, 0 };
	int fds[2], status = -1;
	pid_t pid;

	CHECK(!pipe(fds), "pipe");
	pid = fork();
	if (!pid) {
		pthread_t t;

		/* The thread is made with memory: glibc wants it for its stack. */
		fail_to = to;
		fail_from = from;
		if (thread) {
			unsigned long was = fail_from;

			fail_from = ~0ul;
			CHECK(!pthread_create(&t, NULL, in_a_thread, NULL), "pthread_create");
			fail_from = was;
			use(false);
			pthread_join(t, NULL);
		} else {
			use(false);
		}
		o.injected = injected;
		o.refused = refused;
		/* There is memory again. */
		fail_from = ~0ul;
		use(true);
		dropin_whole();
		_exit(write(fds[1], &o, sizeof(o)) != sizeof(o));
	}
	close(fds[1]);
	CHECK(waitpid(pid, &status, 0) == pid && !status,
	      "calls %lu to %lu failing: the child ended with %#x", from, to, status);
	CHECK(read(fds[0], &o, sizeof(o)) == sizeof(o), "read");
	close(fds[0]);
	return o;
}

static void until_none_fails(bool thread)
{
	const char *text = getenv("TORTURE_SECONDS");
	/* Two tests, in each the one call and all from it on. */
	uint64_t share = text ? strtoul(text, NULL, 10) * 1000000000u / 4 : 0;
	unsigned long rounds = 0, all = 0, nulls = 0;

	for (int on = 0; on < 2; on++) {
		uint64_t end = now_ns() + share;

		for (unsigned long n = 1;; n += now_ns() < end ? 1 : 1 + n / 5) {
			struct outcome o = round_of(n, on ? ~0ul : n, thread);

			rounds++;
			all += o.injected;
			nulls += o.refused;
			if (!o.injected)
				break;
		}
	}
	CHECK(rounds > 10 && nulls > 10, "%lu rounds, %lu refused: nothing was tested", rounds,
	      nulls);
	printf("# memory runs out%s: %lu rounds, %lu calls made to fail, %lu allocations refused "
	       "with ENOMEM\n",
	       thread ? ", two threads" : "", rounds, all, nulls);
	row("no memory, drop-in", rounds, all, "failures injected", 0);
}

PRELOADED(nomem, at_each_call)
{
	until_none_fails(false);
}

PRELOADED(nomem, at_each_call_of_two_threads)
{
	until_none_fails(true);
}
