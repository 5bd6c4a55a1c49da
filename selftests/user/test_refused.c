// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_refused.c - what nolockd and nolock do with a kernel that refuses part of what they ask for,
 * and with one that does not: pages of an arena come by BPF programs.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"

static struct output o;

static void begin(void)
{
	remember_mounts();
	setup();
}

TestSuite(refused, .init = begin, .timeout = 120);

static int count(const char *text, const char *word)
{
	int n = 0;

	for (; (text = strstr(text, word)); text++)
		n++;
	return n;
}

static bool truth(json_object *of, const char *key)
{
	return json_object_get_boolean(json_object_object_get(of, key));
}

static const char *text(json_object *of, const char *key)
{
	return json_object_get_string(json_object_object_get(of, key));
}

/*
 * nolockd with a heap, without something: it serves, says so once, and ends with 3. The heap of one
 * that cannot trace is as good as any.
 */
static void served_in_part(unsigned int without, const char *word, const char *type)
{
	json_object *status, *tracing, *heap;
	struct daemon d;

	START_WITHOUT(&d, without, heap_arg(), "--destroy-on-exit");
	cr_assert_eq(count(daemon_said(&d), "tracing:"), 1, "%s", daemon_said(&d));
	cr_assert(strstr(daemon_said(&d), "tracing: off: "), "%s", daemon_said(&d));
	cr_assert(strstr(daemon_said(&d), word), "%s", daemon_said(&d));
	status = get_status();
	tracing = json_object_object_get(status, "tracing");
	cr_assert(!truth(tracing, "on"));
	cr_assert(strstr(text(tracing, "why"), word), "%s", text(tracing, "why"));
	heap = first_heap(status);
	cr_assert_str_eq(text(heap, "type"), type);
	if (!strcmp(type, "arena")) {
		heap = json_object_object_get(heap, "arena");
		cr_assert(!truth(heap, "programs") && !truth(heap, "set_up") &&
			  !truth(heap, "any_context"));
		cr_assert(*text(heap, "why") && *text(heap, "any_context_why"));
		cr_assert_eq(number(heap, "set_up_bytes") + number(heap, "grown_bytes"), 0);
	}
	heap_serves();
	RUN(&o, "nolock", "trace", "--duration=1");
	cr_assert_eq(o.status, 2, "%s", o.out);
	cr_assert(strstr(o.err, word), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	/* What there is without BPF, and one line about the rest. */
	RUN(&o, "nolock", "stat", "--kernel");
	cr_assert_eq(o.status, 3, "%s", o.err);
	cr_assert(strstr(o.out, "kmalloc-64"), "%s", o.out);
	cr_assert(strstr(o.err, word), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	daemon_stop_with(&d, 3);
	nothing_left();
}

static void ends_at_once(unsigned int without, const char *word)
{
	RUN_WITHOUT(&o, without, "nolockd");
	cr_assert_eq(o.status, 1, "%s%s", o.out, o.err);
	cr_assert(strstr(o.err, word), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert_str_empty(o.out);
	nothing_left();
}

static void asked_for_less(unsigned int without)
{
	struct daemon d;

	START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
	cr_assert(!strstr(daemon_said(&d), "tracing"), "%s", daemon_said(&d));
	heap_serves();
	daemon_stop_with(&d, 0);
	nothing_left();
}

Test(refused, no_btf)
{
	if (!can_bpf())
		cr_skip_test("hides BTF by a mount");
	served_in_part(WITHOUT_BTF, "has no BTF", "arena");
	ends_at_once(WITHOUT_BTF, "has no BTF");
	asked_for_less(WITHOUT_BTF);
}

Test(refused, no_right_to_use_bpf)
{
	if (geteuid())
		cr_skip_test("has no rights to drop");
	served_in_part(WITHOUT_BPF, "no right to use BPF", "memfd");
	ends_at_once(WITHOUT_BPF, "no right to use BPF");
	asked_for_less(WITHOUT_BPF);
}

/* It may make an arena, and load no program. */
Test(refused, no_right_to_load)
{
	if (!can_bpf())
		cr_skip_test("has no rights to drop");
	served_in_part(WITHOUT_PERFMON, "the kernel refuses every program", "arena");
	ends_at_once(WITHOUT_PERFMON, "the kernel refuses every program");
	asked_for_less(WITHOUT_PERFMON);
}

Test(refused, kernel_caches_without_a_nolockd)
{
	if (!can_bpf())
		cr_skip_test("hides BTF by a mount");
	RUN_WITHOUT(&o, WITHOUT_BTF, "nolock", "stat", "--kernel", "--json");
	cr_assert_eq(o.status, 3, "%s", o.err);
	cr_assert(strstr(o.err, "has no BTF"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert(strstr(o.out, "\"source\":\"slabinfo\""), "%.200s", o.out);
	/* Again and again, said once. */
	RUN_WITHOUT(&o, WITHOUT_BTF, "nolock", "stat", "--kernel", "--interval=0.1", "--count=3");
	cr_assert_eq(o.status, 3, "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	nothing_left();
}

/* Who sent it to the background learns the same. */
Test(refused, in_the_background)
{
	char path[128], arg[144], gone[32];
	int pid = 0;
	FILE *f;

	if (!can_bpf())
		cr_skip_test("hides BTF by a mount");
	/* A name that the test's janitor finds, should the test fail. */
	snprintf(path, sizeof(path), "%s/pid.63", dir());
	snprintf(arg, sizeof(arg), "--pidfile=%s", path);
	RUN_WITHOUT(&o, WITHOUT_BTF, "nolockd", heap_arg(), "--daemon", "--destroy-on-exit", arg);
	cr_assert_eq(o.status, 3, "%s", o.err);
	f = fopen(path, "r");
	cr_assert(f && fscanf(f, "%d", &pid) == 1);
	fclose(f);
	heap_serves();
	cr_assert(!kill(pid, SIGTERM));
	snprintf(gone, sizeof(gone), "/proc/%d/stat", pid);
	cr_assert(EVENTUALLY(!exists(gone)));
	nothing_left();
	RUN_WITHOUT(&o, WITHOUT_BTF, "nolockd", "--daemon");
	cr_assert_eq(o.status, 1, "%s", o.err);
	nothing_left();
}

/* A file that was asked for and has no probes. */
Test(refused, no_probes)
{
	struct daemon d;

	if (!can_bpf())
		cr_skip_test("tracing needs root and BPF");
	START(&d, "--usdt=/bin/true");
	cr_assert(strstr(daemon_said(&d), "no probes of libnolock attached in /bin/true"), "%s",
		  daemon_said(&d));
	cr_assert(truth(json_object_object_get(get_status(), "tracing"), "on"));
	daemon_stop_with(&d, 3);
	nothing_left();
}

/* And with all rights: the pages of a new heap come by the programs, those of an old one's growth. */
Test(refused, nothing_is)
{
	unsigned long long set_up;
	json_object *arena;
	struct daemon d;

	if (!can_bpf())
		cr_skip_test("arenas need root and BPF");
	START(&d, heap_arg(), "--no-trace");
	arena = json_object_object_get(first_heap(get_status()), "arena");
	cr_assert(arena);
	cr_assert(truth(arena, "programs") && truth(arena, "set_up"), "%s", text(arena, "why"));
	cr_assert_str_empty(text(arena, "why"));
	/* Of 64 MiB: 2 to be set aside, 4 kept free, and metadata before them. */
	set_up = number(arena, "set_up_bytes");
	cr_assert(set_up > 6 << 20 && set_up < 24 << 20, "%llu bytes", set_up);
	cr_assert(EVENTUALLY(number(json_object_object_get(first_heap(get_status()), "arena"),
				    "grown_bytes") >= 8 << 20));
	cr_assert_eq(truth(arena, "any_context"), !*text(arena, "any_context_why"));
	RUN(&o, "nolock", "status");
	cr_assert(strstr(o.out, "pages by BPF programs: "), "%s", o.out);
	heap_serves();
	daemon_stop_with(&d, 0);

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	arena = json_object_object_get(first_heap(get_status()), "arena");
	cr_assert(truth(arena, "programs") && !truth(arena, "set_up"), "%s", text(arena, "why"));
	heap_serves();
	daemon_stop_with(&d, 0);
	nothing_left();
}
