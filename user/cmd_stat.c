// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_stat.c - nolock stat: the figures of each cache, once or again and again.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <err.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "cmd.h"
#include "json.h"
#include "kernel_stat.h"
#include "spec.h"
#include "stat_table.h"

static const char doc[] =
	"Show the figures of each cache: how many objects there are and where, how often the fast "
	"path served, what failed. Without an option: of all heaps of nolockd."
	"\v"
	"COLUMNS of a heap\n"
	"  CACHE, with the options of NOLOCK_DEBUG that it has; OBJECTS in all slabs, USED of them, IN-SHEAF free in SHEAVES; BARN full/empty sheaves; "
	"FAST% served by the main sheaf of a slot; BUSY the trylock failed and the next level "
	"served; NEXT served by the next larger bucket; FAIL no memory; REFUSED frees of what was "
	"not allocated. With --interval ALLOC/s and FREE/s are of the last interval.\n"
	"\n"
	"EXIT STATUS\n"
	"  0 all was shown, 2 nothing could be, 3 --kernel without BPF: what /proc/slabinfo has\n"
	"\n"
	"EXAMPLES\n"
	"  nolock stat --heap=demo --interval=1\n"
	"  nolock stat --pid=1234 --sort=used\n"
	"  nolock stat --kernel --sort=allocs | head\n"
	"  nolock stat --json | jq '.heaps[].caches[] | select(.alloc_fail > 0)'\n";

enum {
	OPT_KERNEL = 0x100,
	OPT_ALL,
};

static const struct argp_option options[] = {
	{ NULL, 0, NULL, 0, "What to show:", 1 },
	{ "heap", 'H', "NAME", 0, "This heap of nolockd", 1 },
	{ "pid", 'p', "PID", 0, "The heap of this process", 1 },
	{ "kernel", OPT_KERNEL, NULL, 0, "The kernel's caches", 1 },
	{ NULL, 0, NULL, 0, "How:", 2 },
	{ "interval", 'i', "SECONDS", 0, "Again after so long, until stopped", 2 },
	{ "count", 'n', "N", 0, "N times (with --interval)", 2 },
	{ "sort", 's', "KEY", 0, "By name, size, objects, used, allocs, frees or fails", 2 },
	{ "all", OPT_ALL, NULL, 0, "Caches that nobody has used, too", 2 },
	{ "json", 'j', NULL, 0, "For programs: a JSON object each time", 2 },
	{ 0 },
};

static struct {
	const char *heap;
	int pid;
	bool kernel;
	double interval; /* 0: once */
	uint64_t count;	 /* 0: for ever */
	struct stat_order order;
	bool json;
} args;

static void parse_interval(struct argp_state *state, const char *arg)
{
	char *end;

	args.interval = strtod(arg, &end);
	if (end == arg || *end || !isfinite(args.interval) || args.interval < 0.1 ||
	    args.interval > 86400)
		argp_failure(state, EXIT_TROUBLE, 0,
			     "--interval=%s: must be a number of seconds from 0.1 to 86400", arg);
}

static void parse_sort(struct argp_state *state, const char *arg)
{
	const char *const *key;

	for (key = stat_sort_keys; *key && strcmp(*key, arg); key++)
		;
	if (!*key)
		argp_failure(state, EXIT_TROUBLE, 0,
			     "--sort=%s: must be name, size, objects, used, allocs, frees or fails",
			     arg);
	args.order.key = *key;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	uint64_t value;

	switch (key) {
	case 'H':
		args.heap = cmd_heap_name(state, arg);
		break;
	case 'p':
		if (spec_number(arg, 1, INT32_MAX, &value))
			argp_failure(state, EXIT_TROUBLE, 0, "--pid=%s: not a process's number",
				     arg);
		args.pid = value;
		break;
	case OPT_KERNEL:
		args.kernel = true;
		break;
	case 'i':
		parse_interval(state, arg);
		break;
	case 'n':
		if (spec_number(arg, 1, UINT32_MAX, &args.count))
			argp_failure(state, EXIT_TROUBLE, 0,
				     "--count=%s: must be a number from 1 to %u", arg, UINT32_MAX);
		break;
	case 's':
		parse_sort(state, arg);
		break;
	case OPT_ALL:
		args.order.all = true;
		break;
	case 'j':
		args.json = true;
		break;
	case ARGP_KEY_ARG:
		argp_failure(state, EXIT_TROUBLE, 0,
			     "'%s': nolock stat takes options alone; a heap "
			     "is --heap=NAME",
			     arg);
		break;
	case ARGP_KEY_END:
		if (!!args.heap + !!args.pid + args.kernel > 1)
			argp_failure(state, EXIT_TROUBLE, 0,
				     "--heap, --pid and --kernel exclude one another");
		if (args.count > 1 && !args.interval)
			args.interval = 1;
		if (!args.interval)
			args.count = 1;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* The shared heaps that are shown; they stay open from one time to the next. */
static struct nolock_heap **heaps;
static size_t nr_heaps;

static int open_one(const char *name)
{
	struct nolock_heap *heap = nolock_heap_open(name);

	if (!heap) {
		ask_complain(name, errno);
		return -1;
	}
	heaps = reallocarray(heaps, nr_heaps + 1, sizeof(*heaps));
	if (!heaps)
		errx(EXIT_TROUBLE, "out of memory");
	heaps[nr_heaps++] = heap;
	return 0;
}

/* All heaps that nolockd serves. One that is damaged gets its line, and the others are shown. */
static int open_all(void)
{
	json_object *status, *list;
	size_t i, n, opened = 0;

	if (ask_object(NL_OP_STATUS, "", &status))
		return -1;
	list = json_object_object_get(status, "heaps");
	n = json_object_array_length(list);
	for (i = 0; i < n; i++)
		opened += !open_one(json_text(json_object_array_get_idx(list, i), "name"));
	json_object_put(status);
	if (!n)
		warnx("nolockd at %s has no heap; nolockd --heap=NAME makes one", ask_socket());
	return opened ? 0 : -1;
}

static struct nolock_heap *attach_pid(void)
{
	struct nolock_heap *heap = nolock_heap_attach_pid(args.pid);

	if (heap)
		return heap;
	switch (errno) {
	case ESRCH:
		warnx("there is no process %d", args.pid);
		break;
	case EPERM:
	case EACCES:
		warnx("process %d may not be read by this user; try as root, with CAP_SYS_PTRACE",
		      args.pid);
		break;
	case ENODEV:
		warnx("process %d has no nolock heap: it does not use libnolock", args.pid);
		break;
	case EPROTO:
		warnx("process %d uses another version of libnolock", args.pid);
		break;
	default:
		warnx("process %d cannot be read: %s", args.pid, strerror(errno));
	}
	return NULL;
}

/*
 * The kernel's caches, from nolockd, whose programs have been counting; without a nolockd, what
 * this process may see of them itself.
 */
static json_object *collect_kernel(void)
{
	struct nl_trace_opts opts = { .sz = sizeof(opts), .what = NL_TRACE_CACHES };
	static struct nl_trace *trace;
	struct nl_kernel_stat stat;
	json_object *o = NULL;
	int err;

	if (!trace && ask_running())
		return ask_object(NL_OP_KERNEL, "", &o) ? NULL : o;
	if (!trace) {
		trace = nl_trace_open(&opts);
		if (trace)
			nl_trace_attach(trace);
	}
	err = nl_kernel_stat_read(trace, &stat);
	if (err) {
		warnx("the kernel's caches cannot be read (%s): no nolockd runs at %s, and this "
		      "user may not; try as root",
		      strerror(-err), ask_socket());
		return NULL;
	}
	o = nl_kernel_stat_json(&stat, trace);
	if (o)
		json_put_text(o, "why",
			      trace && nl_trace_error(trace) ? nl_trace_error(trace) : "");
	nl_kernel_stat_free(&stat);
	return o;
}

static bool in_part; /* the kernel's caches were shown, but not all about them */

/* Everything that is to be shown now, as one object; NULL after a line to the user. */
static json_object *collect(void)
{
	json_object *o, *list;
	struct nolock_heap *heap;
	struct timespec ts;
	size_t i;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (args.kernel) {
		o = collect_kernel();
		if (!o)
			return NULL;
		if (*json_text(o, "why") && !in_part)
			warnx("neither sheaves, barns nor events of the kernel are shown: %s",
			      json_text(o, "why"));
		in_part |= !!*json_text(o, "why");
	} else {
		o = json_object_new_object();
		list = json_object_new_array();
		json_object_object_add(o, "heaps", list);
		if (args.pid) {
			heap = attach_pid();
			if (!heap) {
				json_object_put(o);
				return NULL;
			}
			json_put_u64(o, "pid", args.pid);
			json_object_array_add(list, stat_collect_heap(heap));
			nolock_heap_close(heap);
		}
		for (i = 0; i < nr_heaps; i++)
			json_object_array_add(list, stat_collect_heap(heaps[i]));
	}
	json_put_u64(o, "time_ns", ts.tv_sec * 1000000000ULL + ts.tv_nsec);
	return o;
}

static void show(json_object *now, json_object *before)
{
	json_object *list, *old = NULL;
	double seconds = 1;
	size_t i, n;

	if (before)
		seconds = (json_u64(now, "time_ns") - json_u64(before, "time_ns")) / 1e9;
	/* A terminal shows the last one alone, from the top. */
	if (args.interval && isatty(STDOUT_FILENO))
		fputs("\033[H\033[J", stdout);
	else if (before)
		putchar('\n');
	if (args.kernel) {
		stat_print_kernel(now, before, seconds, &args.order);
		return;
	}
	list = json_object_object_get(now, "heaps");
	n = json_object_array_length(list);
	for (i = 0; i < n; i++) {
		if (before)
			old = json_object_array_get_idx(json_object_object_get(before, "heaps"), i);
		if (i)
			putchar('\n');
		stat_print_heap(json_object_array_get_idx(list, i), old, seconds, &args.order);
	}
}

int cmd_stat(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	json_object *now, *before = NULL;
	struct timespec pause;
	uint64_t i;
	int status = 0;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (args.heap ? open_one(args.heap) : !args.pid && !args.kernel && open_all())
		return EXIT_TROUBLE;
	pause.tv_sec = args.interval;
	pause.tv_nsec = (args.interval - pause.tv_sec) * 1e9;
	for (i = 0; !args.count || i < args.count; i++) {
		if (i)
			nanosleep(&pause, NULL);
		now = collect();
		if (!now) {
			status = EXIT_TROUBLE;
			break;
		}
		if (args.json)
			json_print_line(now);
		else
			show(now, before);
		if (fflush(stdout)) {
			warn("cannot write");
			status = EXIT_TROUBLE;
		}
		json_object_put(before);
		before = now;
		if (status)
			break;
	}
	json_object_put(before);
	while (nr_heaps)
		nolock_heap_close(heaps[--nr_heaps]);
	free(heaps);
	return !status && in_part ? EXIT_PART : status;
}
