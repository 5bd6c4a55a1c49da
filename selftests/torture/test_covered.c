// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_covered.c - is the workload of api.c one of the whole API? Each function that libnolock.so
 * exports must be called by it, on one kind of heap or the other, and each _nolock one by its handler.
 *
 * A breakpoint is at the entry of each of them. It goes away at the first call that comes from api.c;
 * a call from within the library steps over it.
 */
#define _GNU_SOURCE
#include <stdio.h>

#if defined(__x86_64__)
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "internal.h"
#include "../lib/trap.h"
#include "api.h"
#include "row.h"
#include "shared.h"
#include "symbol.h"

#define INT3 0xcc

struct function {
	const char *name;
	uintptr_t ip;
	unsigned char byte; /* what was there */
	bool called;
};

static struct function functions[200];
static unsigned int nr_functions;
static struct function *stepping; /* over the first instruction of this one */
static unsigned long seen, strange;
static struct api api;

/* What the workload does not call, and why. */
static const struct {
	const char *name, *why;
} others[] = {
	{ "nolock_heap_check",
	  "wants a heap at rest: the torture's parts call it between two rounds" },
};

static const char *excused(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		if (!strcmp(others[i].name, name))
			return others[i].why;
	return NULL;
}

static void note(const char *name, void *arg)
{
	struct function *f = &functions[nr_functions];

	(void)arg;
	if (nr_functions == ARRAY_LEN(functions)) {
		strange++;
		return;
	}
	nr_functions++;
	f->name = name;
	f->ip = symbol_address(name);
	if (f->ip)
		f->byte = *(unsigned char *)f->ip;
}

static void patch(struct function *f, unsigned char byte)
{
	__atomic_store_n((unsigned char *)f->ip, byte, __ATOMIC_SEQ_CST);
}

static bool from_driver(void *context)
{
	uintptr_t to = *(uintptr_t *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RSP];

	return to >= (uintptr_t)__start_driver_text && to < (uintptr_t)__stop_driver_text;
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	uintptr_t ip = trap_ip(context) - 1;
	struct function *f = functions;

	(void)sig;
	(void)si;
	if (stepping) {
		patch(stepping, INT3);
		stepping = NULL;
		trap_set_stepping(context, 0);
		return;
	}
	while (f < functions + nr_functions && f->ip != ip)
		f++;
	if (f == functions + nr_functions) {
		strange++;
		return;
	}
	seen++;
	patch(f, f->byte);
	trap_set_ip(context, ip);
	if (from_driver(context)) {
		f->called = true;
	} else {
		stepping = f;
		trap_set_stepping(context, 1);
	}
}

static DRIVER void nothing(void)
{
}

static void watch(void)
{
	for (unsigned int i = 0; i < nr_functions; i++) {
		struct function *f = &functions[i];

		if (f->ip && !f->called)
			patch(f, INT3);
	}
}

static void unwatch(void)
{
	for (unsigned int i = 0; i < nr_functions; i++)
		if (functions[i].ip)
			patch(&functions[i], functions[i].byte);
}

/* Returns how many of the functions were not called. */
static unsigned long missing(const char *by, const char *suffix)
{
	unsigned long n = 0, all = 0;

	for (unsigned int i = 0; i < nr_functions; i++) {
		const char *name = functions[i].name;
		size_t len = strlen(name);

		if (len < strlen(suffix) || strcmp(name + len - strlen(suffix), suffix) != 0)
			continue;
		all++;
		if (functions[i].called == !excused(name))
			continue;
		printf("  %s is %s by %s\n", name,
		       functions[i].called ? "excused, but called" : "not called", by);
		n++;
	}
	printf("# covered: of %lu exported functions *%s, %lu are missed by %s\n", all, suffix, n,
	       by);
	row(by, all, seen, "calls seen", n);
	seen = 0;
	return n;
}

/* Of the driver's text itself: what calls of api.c end with may be jumps. */
static DRIVER bool round_on(struct nolock_heap *heap, bool handler)
{
	unsigned long wrong;
	bool ok;

	memset(&api, 0, sizeof(api));
	api.heap = heap;
	api.size = 320;
	api.depth = 20;
	api.arm = api.disarm = nothing;
	if (!api_begin(&api))
		return false;
	watch();
	if (handler)
		for (unsigned long seed = 0; seed < 1000; seed++)
			api_handler(&api, seed);
	else
		api_work(&api);
	unwatch();
	ok = api_end(&api);
	wrong = api.failed + api.bad + strange;
	if (wrong)
		printf("  %lu calls failed, %lu objects damaged, the first at api.c:%u, %lu "
		       "strange traps\n",
		       api.failed, api.bad, api.line, strange);
	return ok && !wrong && !check_whole(heap, NULL, "after a round");
}

/* build/selftests/torture/test_covered, seen from which it is ../../lib. */
static bool find_functions(void)
{
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return false;
	self[n] = 0;
	slash = strrchr(self, '/');
	*slash = 0;
	snprintf(path, sizeof(path), "%s/../../lib/libnolock.so", self);
	if (symbol_exports(path, note, NULL) && nr_functions > 50)
		return true;
	printf("%s: no table of functions: run make\n", path);
	return false;
}

int main(void)
{
	struct sigaction sa = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	size_t failed = 0;

	if (!symbol_text_writable() || sigaction(SIGTRAP, &sa, NULL))
		return 2;
	if (!find_functions())
		return 1;
	failed += !round_on(nolock_heap_default(), false);
	failed += !round_on(shared_make(64 * MiB), false);
	failed += missing("the workload", "") != 0;
	for (unsigned int i = 0; i < nr_functions; i++)
		functions[i].called = false;
	failed += !round_on(nolock_heap_default(), true);
	failed += missing("its handler", "_nolock") != 0;
	printf("%zu passed, %zu failed, 0 skipped\n", 5 - failed, failed);
	return failed != 0;
}
#else
int main(void)
{
	printf("patching int3 is for x86-64 alone\n");
	return 77;
}
#endif
