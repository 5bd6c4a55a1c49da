// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock.c - what nolock shows is what is: tables for people, JSON for programs.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nolock/heap.h>
#include <nolock/slab.h>

#include "client.h"
#include "core/layout.h"
#include "daemon.h"

static struct output o;

TestSuite(nolock, .init = setup, .timeout = 120);

static json_object *parse(const char *text)
{
	json_object *object = json_tokener_parse(text);

	cr_assert(object, "no JSON: %s", text);
	return object;
}

static json_object *find(json_object *list, const char *name)
{
	size_t i, n = json_object_array_length(list);
	json_object *c;

	for (i = 0; i < n; i++) {
		c = json_object_array_get_idx(list, i);
		if (!strcmp(json_object_get_string(json_object_object_get(c, "name")), name))
			return c;
	}
	cr_assert(false, "no %s in the list", name);
	return NULL;
}

static json_object *stat_heap(void)
{
	json_object *object, *list;

	RUN(&o, "nolock", "stat", "--json", "--heap", heap_name());
	cr_assert_eq(o.status, 0, "%s", o.err);
	object = parse(o.out);
	list = json_object_object_get(object, "heaps");
	cr_assert_eq(json_object_array_length(list), 1);
	return json_object_array_get_idx(list, 0);
}

Test(nolock, stat_of_a_heap)
{
	static void *p[1000];
	struct nolock_heap *heap;
	json_object *before, *after;
	struct daemon d;
	int i;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	heap = nolock_heap_open(heap_name());
	cr_assert(heap);
	before = find(json_object_object_get(stat_heap(), "caches"), "kmalloc-192");
	for (i = 0; i < 1000; i++)
		cr_assert(p[i] = nolock_heap_kmalloc(heap, 190, GFP_KERNEL));
	after = find(json_object_object_get(stat_heap(), "caches"), "kmalloc-192");
	cr_expect_eq(number(after, "allocated") - number(before, "allocated"), 1000);
	cr_expect_eq(number(after, "allocs") - number(before, "allocs"), 1000);
	cr_expect_eq(number(after, "objects"), number(after, "allocated") +
						       number(after, "in_slabs") +
						       number(after, "in_sheaves"));
	cr_expect_eq(number(after, "object_size"), 192);
	before = after;
	for (i = 0; i < 1000; i++)
		kfree(p[i]);
	after = find(json_object_object_get(stat_heap(), "caches"), "kmalloc-192");
	cr_expect_eq(number(before, "allocated") - number(after, "allocated"), 1000);
	cr_expect_eq(number(after, "frees") - number(before, "frees"), 1000);
	cr_expect_eq(number(after, "alloc_fail"), 0);

	RUN(&o, "nolock", "stat", "--heap", heap_name(), "--sort=allocs");
	cr_expect_eq(o.status, 0);
	cr_expect(strstr(o.out, "kmalloc-192"), "%s", o.out);
	cr_expect(strstr(o.out, "FAST%"), "%s", o.out);
	RUN(&o, "nolock", "stat", "--all");
	cr_expect_eq(o.status, 0);
	cr_expect(strstr(o.out, "kmalloc-32768"), "%s", o.out);
	nolock_heap_close(heap);
	daemon_stop(&d);
}

Test(nolock, stat_again_and_again)
{
	struct daemon d;
	char *line, *rest;
	int n = 0;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	RUN(&o, "nolock", "stat", "--json", "--interval=0.1", "--count=5");
	cr_assert_eq(o.status, 0, "%s", o.err);
	for (rest = o.out; (line = strsep(&rest, "\n")) && *line; n++)
		json_object_put(parse(line));
	cr_assert_eq(n, 5);
	RUN(&o, "nolock", "stat", "--interval=0.1", "--count=2");
	cr_assert_eq(o.status, 0, "%s", o.err);
	cr_assert(strstr(o.out, "ALLOC/s"), "%s", o.out);
	daemon_stop(&d);
}

Test(nolock, stat_of_a_process)
{
	static void *p[500];
	char pid[32];
	int i;

	for (i = 0; i < 500; i++)
		cr_assert(p[i] = kmalloc(1000, GFP_KERNEL));
	snprintf(pid, sizeof(pid), "%d", getpid());
	RUN(&o, "nolock", "stat", "--json", "--pid", pid);
	cr_assert_eq(o.status, 0, "%s", o.err);
	cr_assert_eq(number(find(json_object_object_get(
					 json_object_array_get_idx(
						 json_object_object_get(parse(o.out), "heaps"), 0),
					 "caches"),
				 "kmalloc-1024"),
			    "allocated"),
		     500);
	for (i = 0; i < 500; i++)
		kfree(p[i]);
	/* A process without the library. */
	i = test_fork();
	if (i == 0) {
		execlp("sleep", "sleep", "60", NULL);
		_exit(1);
	}
	snprintf(pid, sizeof(pid), "/proc/%d/comm", i);
	cr_assert(EVENTUALLY(({
		char comm[16] = "";
		FILE *f = fopen(pid, "r");

		if (f && !fgets(comm, sizeof(comm), f))
			*comm = 0;
		if (f)
			fclose(f);
		!strcmp(comm, "sleep\n");
	})));
	snprintf(pid, sizeof(pid), "%d", i);
	RUN(&o, "nolock", "stat", "--pid", pid);
	kill(i, SIGKILL);
	waitpid(i, NULL, 0);
	cr_assert_eq(o.status, 2);
	cr_assert(strstr(o.err, "has no nolock heap"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1);
}

Test(nolock, stat_of_the_kernel)
{
	json_object *object;
	struct daemon d;

	if (geteuid())
		cr_skip_test("the kernel's caches are root's to see");
	/* By itself, then from a nolockd. */
	RUN(&o, "nolock", "stat", "--kernel", "--json");
	cr_assert_eq(o.status, traced_status(), "%s", o.err);
	object = parse(o.out);
	find(json_object_object_get(object, "caches"), "kmalloc-64");
	json_object_put(object);
	START(&d, heap_arg(), "--destroy-on-exit");
	RUN(&o, "nolock", "stat", "--kernel", "--json");
	cr_assert_eq(o.status, traced_status(), "%s", o.err);
	object = parse(o.out);
	find(json_object_object_get(object, "caches"), "filp");
	if (can_bpf())
		cr_assert(number(json_object_object_get(object, "events"), "seen") > 0);
	json_object_put(object);
	RUN(&o, "nolock", "stat", "--kernel", "--sort=name");
	cr_assert_eq(o.status, traced_status(), "%s", o.err);
	cr_assert(strstr(o.out, "task_struct"), "%s", o.out);
	daemon_stop(&d);
}

Test(nolock, check)
{
	struct nolock_heap *heap;
	json_object *object;
	struct daemon d;
	void *p;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	heap = nolock_heap_open(heap_name());
	cr_assert(heap);
	cr_assert(p = nolock_heap_kmalloc(heap, 100, GFP_KERNEL));
	RUN(&o, "nolock", "check", "--json", "--heap", heap_name());
	cr_assert_eq(o.status, 0, "%s%s", o.out, o.err);
	object = parse(o.out);
	cr_assert(json_object_get_boolean(json_object_object_get(object, "whole")));
	cr_assert_eq(number(object, "allocated"), 1);
	cr_assert_eq(number(object, "errors"), 0);
	json_object_put(object);
	RUN(&o, "nolock", "check", "--heap", heap_name());
	cr_assert_eq(o.status, 0);
	cr_assert(strstr(o.out, "is whole"), "%s", o.out);
	RUN(&o, "nolock", "check", "--heap=no-such-heap");
	cr_assert_eq(o.status, 2);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	kfree(p);
	nolock_heap_close(heap);
	daemon_stop(&d);
}

/* Damage that the check must find. */
Test(nolock, check_finds_damage)
{
	struct nolock_heap *heap;
	struct nolock_heap_report rep;
	json_object *object;
	struct daemon d;
	nl_heap_t *h;
	nl_tag_t *tag;
	char *p;

	START(&d, heap_arg(), "--no-trace");
	heap = nolock_heap_open(heap_name());
	cr_assert(heap && (p = nolock_heap_kmalloc(heap, 128, GFP_KERNEL)));
	/* Its keeper may be at work in it still. */
	cr_assert(EVENTUALLY(!nolock_heap_check(heap, &rep)), "%s", rep.first_error);
	/*
	 * Its chunk says it belongs to another cache, that of more objects in a slab: no word of it is one
	 * that it could not be.
	 */
	h = (nl_heap_t *)((uintptr_t)p & ~((8ULL << 30) - 1));
	tag = nl_tag(h, ((uintptr_t)p - (uintptr_t)h) >> NL_CHUNK_SHIFT);
	*tag ^= NL_TAG(0, 1);
	RUN(&o, "nolock", "check", "--heap", heap_name());
	cr_assert_eq(o.status, 1, "%d: %s%s", o.status, o.out, o.err);
	cr_assert(strstr(o.out, "NOT whole"), "%s", o.out);
	RUN(&o, "nolock", "check", "--json", "--heap", heap_name());
	cr_assert_eq(o.status, 1);
	object = parse(o.out);
	cr_assert(!json_object_get_boolean(json_object_object_get(object, "whole")));
	cr_assert(number(object, "errors") > 0);
	json_object_put(object);
	*tag ^= NL_TAG(0, 1);
	RUN(&o, "nolock", "check", "--heap", heap_name());
	cr_assert_eq(o.status, 0, "%s", o.out);
	kfree(p);
	nolock_heap_close(heap);
	daemon_stop(&d);
}

Test(nolock, status)
{
	json_object *status, *heap;
	struct client c;
	struct daemon d;

	START(&d, heap_arg(), "--destroy-on-exit");
	client_start(&c, heap_name());
	status = get_status();
	cr_expect_eq((pid_t)number(status, "pid"), d.pid);
	cr_expect_str_eq(json_object_get_string(json_object_object_get(status, "socket")), sock());
	heap = first_heap(status);
	cr_expect_str_eq(json_object_get_string(json_object_object_get(heap, "name")), heap_name());
	cr_expect_str_eq(json_object_get_string(json_object_object_get(heap, "state")), "served");
	cr_expect_eq(
		(pid_t)number(json_object_array_get_idx(json_object_object_get(heap, "clients"), 0),
			      "pid"),
		c.pid);
	json_object_put(status);
	/* What nolockd asks its keepers once a second. */
	cr_expect(EVENTUALLY(number(first_heap(get_status()), "reserve") == 2 << 20));
	RUN(&o, "nolock", "status");
	cr_expect_eq(o.status, 0);
	cr_expect(strstr(o.out, heap_name()), "%s", o.out);
	cr_expect(strstr(o.out, "tracing:"), "%s", o.out);
	if (can_bpf())
		cr_expect(strstr(o.out, "attached  tp_btf/kmem_cache_alloc"), "%s", o.out);
	client_kill(&c);
	daemon_stop(&d);
}

Test(nolock, trace)
{
	/* A machine under emulation takes more than a second to begin. */
	static const char *const durations[] = { "--duration=1", "--duration=10" };
	struct daemon d;
	char pid[16], *line, *rest;
	json_object *event;
	unsigned int n = 0, try = 0;
	pid_t busy;

	if (!can_bpf())
		cr_skip_test("tracing needs root and BPF");
	START(&d, heap_arg(), "--destroy-on-exit");
	busy = test_fork();
	if (busy == 0) {
		for (;;)
			close(open("/dev/null", O_RDONLY));
	}
	snprintf(pid, sizeof(pid), "%d", busy);
again:
	RUN(&o, "nolock", "trace", "--json", "--cache=filp", "--sample=50", durations[try], "--pid",
	    pid);
	cr_assert_eq(o.status, 0, "%s", o.err);
	for (rest = o.out; (line = strsep(&rest, "\n")) && rest; n++) {
		event = parse(line);
		if (json_object_object_get(event, "lost") ||
		    json_object_object_get(event, "dropped"))
			continue;
		cr_assert_str_eq(json_object_get_string(json_object_object_get(event, "cache")),
				 "filp");
		cr_assert_eq((pid_t)number(event, "pid"), busy);
		json_object_put(event);
	}
	if (n <= 10 && !try++)
		goto again;
	cr_assert(n > 10, "%u events", n);
	/* An odd number: every 50th of alternating allocations and frees is always the same kind. */
	RUN(&o, "nolock", "trace", "--cache=filp", "--sample=51", durations[try], "--pid", pid);
	cr_assert_eq(o.status, 0, "%s", o.err);
	cr_assert(strstr(o.out, "kmem_cache_alloc"), "%s", o.out);
	cr_assert(strstr(o.err, "events shown"), "%s", o.err);
	kill(busy, SIGKILL);
	waitpid(busy, NULL, 0);
	daemon_stop(&d);
}

/* One reader at a time; the next may read when the first is gone, however it went. */
Test(nolock, trace_by_two)
{
	struct daemon d;
	pid_t first;

	if (!can_bpf())
		cr_skip_test("tracing needs root and BPF");
	START(&d, "--destroy-on-exit");
	first = test_fork();
	if (first == 0) {
		run_as(&o, 0, 0,
		       (const char *const[]){ "nolock", "trace", "--sample=1000", "--duration=60",
					      NULL });
		_exit(0);
	}
	cr_assert(EVENTUALLY(number(json_object_object_get(get_status(), "tracing"), "reader")));
	RUN(&o, "nolock", "trace", "--duration=1");
	cr_assert_eq(o.status, 2);
	cr_assert(strstr(o.err, "somebody else"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	kill(number(json_object_object_get(get_status(), "tracing"), "reader"), SIGKILL);
	waitpid(first, NULL, 0);
	cr_assert(EVENTUALLY(!number(json_object_object_get(get_status(), "tracing"), "reader")));
	RUN(&o, "nolock", "trace", "--duration=1", "--sample=100");
	cr_assert_eq(o.status, 0, "%s", o.err);
	daemon_stop(&d);
}

/* nolockd stops under a reader: the reader says so and ends. */
Test(nolock, trace_loses_its_nolockd)
{
	struct daemon d;
	int status;
	pid_t pid;

	if (!can_bpf())
		cr_skip_test("tracing needs root and BPF");
	START(&d, "--destroy-on-exit");
	pid = test_fork();
	if (pid == 0) {
		run_as(&o, 0, 0, (const char *const[]){ "nolock", "trace", "--sample=1000", NULL });
		_exit(o.status == 2 && strstr(o.err, "ended the stream") ? 0 : 1);
	}
	cr_assert(EVENTUALLY(number(json_object_object_get(get_status(), "tracing"), "reader")));
	daemon_stop(&d);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

/* A reader of the output that goes away ends nolock quietly, as any filter. */
Test(nolock, closed_pipe)
{
	static const char *const commands[] = {
		"stat --all --interval=0.1",
		"stat --json --interval=0.1",
		"stat --kernel --interval=0.1",
		"status",
	};
	char line[512];
	struct daemon d;
	size_t i;
	FILE *f;

	START(&d, heap_arg(), "--destroy-on-exit");
	/* A shell cannot undo that it was started with SIGPIPE ignored. */
	signal(SIGPIPE, SIG_DFL);
	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		snprintf(line, sizeof(line),
			 "(timeout 20 '%s' %s; echo $? >'%s/status') 2>'%s/err' | "
			 "head -n 1 >/dev/null",
			 build_path("user/nolock"), commands[i], dir(), dir());
		cr_assert_eq(system(line), 0);
		snprintf(line, sizeof(line), "%s/err", dir());
		f = fopen(line, "r");
		cr_assert(f && fgetc(f) == EOF, "nolock %s complains", commands[i]);
		fclose(f);
		snprintf(line, sizeof(line), "%s/status", dir());
		f = fopen(line, "r");
		cr_assert(f && fgets(line, sizeof(line), f));
		fclose(f);
		/* SIGPIPE, or all was written before head went away; 124 would be a hang. */
		cr_assert(atoi(line) == 128 + SIGPIPE || atoi(line) == 0, "nolock %s: %s",
			  commands[i], line);
	}
	daemon_stop(&d);
}
