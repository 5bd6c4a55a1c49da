// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_status.c - nolock status: nolockd itself, its heaps and clients, what traces and what is
 * missing.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ask.h"
#include "cmd.h"
#include "json.h"
#include "table.h"

static const char doc[] =
	"Show nolockd's own state: its heaps and their clients, the tracing programs, and why those "
	"that are not attached are not."
	"\v"
	"EXAMPLES\n"
	"  nolock status\n"
	"  nolock status --json | jq '.heaps[].clients'\n";

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "For programs: one JSON object", 0 },
	{ 0 },
};

static bool as_json;

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'j':
		as_json = true;
		break;
	case ARGP_KEY_ARG:
		argp_failure(state, EXIT_TROUBLE, 0, "'%s': nolock status takes no argument", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* Of an arena: what BPF programs made present, and what they cannot do here. */
static void print_arena(const char *name, json_object *o)
{
	char set_up[SHORT_LEN], grown[SHORT_LEN];

	if (*json_text(o, "why")) {
		printf("heap %s: pages by madvise: %s\n", name, json_text(o, "why"));
		return;
	}
	printf("heap %s: pages by BPF programs: %s set up, %s of groups opened\n", name,
	       short_bytes(set_up, json_u64(o, "set_up_bytes")),
	       short_bytes(grown, json_u64(o, "grown_bytes")));
	if (json_object_get_boolean(json_object_object_get(o, "any_context")))
		printf("heap %s: BPF programs of any context may grow it\n", name);
	else
		printf("heap %s: BPF programs that may not sleep cannot grow it: %s\n", name,
		       json_text(o, "any_context_why"));
}

static void print_heaps(json_object *list)
{
	static const char *const heads[] = { "<HEAP",  "<TYPE",	   "<STATE", "<PIN", "SIZE",
					     "OPENED", "FREE",	   "ASIDE",  "OF",   "CLIENTS",
					     "GONE",   "REPAIRED", NULL };
	size_t i, n = json_object_array_length(list);
	json_object *o, *arena;
	struct table *t;

	if (!n) {
		printf("no heap; nolockd --heap=NAME makes one\n");
		return;
	}
	t = table_new(heads);
	for (i = 0; i < n; i++) {
		o = json_object_array_get_idx(list, i);
		table_cell(t, "%s", json_text(o, "name"));
		table_cell(t, "%s", json_text(o, "type"));
		table_cell(t, "%s", json_text(o, "state"));
		table_cell(t, "%s",
			   json_object_get_boolean(json_object_object_get(o, "pinned")) ? "yes" :
											  "no");
		table_bytes(t, json_u64(o, "size"));
		table_bytes(t, json_u64(o, "opened"));
		table_bytes(t, json_u64(o, "free"));
		table_bytes(t, json_u64(o, "reserve"));
		table_bytes(t, json_u64(o, "reserve_target"));
		table_count(t, json_object_array_length(json_object_object_get(o, "clients")));
		table_count(t, json_u64(o, "clients_gone"));
		table_count(t, json_u64(o, "locks_repaired"));
	}
	table_print(t);
	for (i = 0; i < n; i++) {
		o = json_object_array_get_idx(list, i);
		if (*json_text(o, "why"))
			printf("heap %s %s\n", json_text(o, "name"), json_text(o, "why"));
		if (strcmp(json_text(o, "state"), "replaced") &&
		    json_object_object_get_ex(o, "arena", &arena))
			print_arena(json_text(o, "name"), arena);
	}
}

static void print_tracing(json_object *o)
{
	json_object *list = NULL, *p, *counts;
	size_t i, n = 0, attached = 0;

	if (json_object_object_get_ex(o, "programs", &list))
		n = json_object_array_length(list);
	for (i = 0; i < n; i++)
		attached += json_object_get_boolean(
			json_object_object_get(json_object_array_get_idx(list, i), "attached"));
	if (*json_text(o, "why"))
		printf("tracing: off: %s\n", json_text(o, "why"));
	else
		printf("tracing: %zu of %zu programs attached\n", attached, n);
	if (json_object_object_get_ex(o, "counts", &counts))
		printf("events: %llu seen, %llu lost, %llu streamed\n",
		       (unsigned long long)json_u64(counts, "seen"),
		       (unsigned long long)json_u64(counts, "lost"),
		       (unsigned long long)json_u64(counts, "streamed"));
	for (i = 0; i < n; i++) {
		p = json_object_array_get_idx(list, i);
		if (json_object_get_boolean(json_object_object_get(p, "attached")))
			printf("  attached  %s\n", json_text(p, "target"));
		else
			printf("  missing   %s: %s\n", json_text(p, "target"),
			       json_text(p, "reason"));
	}
}

int cmd_status(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	json_object *o;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (ask_object(NL_OP_STATUS, "", &o))
		return EXIT_TROUBLE;
	if (as_json) {
		json_print_line(o);
	} else {
		printf("nolockd %s, process %llu, up %llu s, at %s\n", json_text(o, "version"),
		       (unsigned long long)json_u64(o, "pid"),
		       (unsigned long long)json_u64(o, "uptime_ms") / 1000, json_text(o, "socket"));
		print_heaps(json_object_object_get(o, "heaps"));
		print_tracing(json_object_object_get(o, "tracing"));
	}
	json_object_put(o);
	return 0;
}
