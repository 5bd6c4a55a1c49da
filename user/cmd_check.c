// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_check.c - nolock check: is a shared heap's inventory whole?
 */
#define _GNU_SOURCE
#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "ask.h"
#include "cmd.h"
#include "json.h"

/*
 * The check means something at a quiescent point. While the heap is in use, one that catches an
 * operation halfway sees an error that is none, so an error must be seen this often in a row.
 */
#define TRIES 5
#define PAUSE_US 50000

static const char doc[] =
	"Prove that every object of a shared heap is in exactly one place. Exit status: 0 whole, "
	"1 not, 2 the check could not run."
	"\v"
	"USAGE\n"
	"  The verdict is exact when nobody is inside the allocator. In a heap that is in use an "
	"error counts only if five checks in a row see one.\n"
	"\n"
	"EXAMPLES\n"
	"  nolock check --heap=demo\n"
	"  nolock check --heap=demo --json | jq .allocated\n";

static const struct argp_option options[] = {
	{ "heap", 'H', "NAME", 0, "The heap", 0 },
	{ "json", 'j', NULL, 0, "For programs: one JSON object", 0 },
	{ 0 },
};

static struct {
	const char *heap;
	bool json;
} args;

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'j':
		args.json = true;
		break;
	default:
		return cmd_parse_heap(key, arg, state, &args.heap);
	}
	return 0;
}

static void print(json_object *o, bool whole)
{
	if (whole)
		printf("heap %s is whole", args.heap);
	else
		printf("heap %s is NOT whole: %llu errors, the first: %s\nthere are", args.heap,
		       (unsigned long long)json_u64(o, "errors"), json_text(o, "first_error"));
	printf("%s %llu objects: %llu allocated, %llu in slabs, %llu in sheaves\n"
	       "chunks of 64 KiB: %llu opened, %llu slabs, %llu of large objects, %llu free, "
	       "%llu of them set aside\n"
	       "ever: %llu allocations, %llu frees, %llu frees refused; locks held now: %llu\n",
	       whole ? ":" : "", (unsigned long long)json_u64(o, "objects"),
	       (unsigned long long)json_u64(o, "allocated"),
	       (unsigned long long)json_u64(o, "in_slabs"),
	       (unsigned long long)json_u64(o, "in_sheaves"),
	       (unsigned long long)json_u64(o, "chunks"),
	       (unsigned long long)json_u64(o, "chunks_slab"),
	       (unsigned long long)json_u64(o, "chunks_large"),
	       (unsigned long long)json_u64(o, "chunks_free"),
	       (unsigned long long)json_u64(o, "chunks_reserve"),
	       (unsigned long long)json_u64(o, "allocs"), (unsigned long long)json_u64(o, "frees"),
	       (unsigned long long)json_u64(o, "refused"),
	       (unsigned long long)json_u64(o, "locks_held"));
}

int cmd_check(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	json_object *o = NULL;
	bool whole = false;
	int i;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	for (i = 0; i < TRIES && !whole; i++) {
		if (i)
			usleep(PAUSE_US);
		json_object_put(o);
		o = NULL;
		if (ask_object(NL_OP_CHECK, args.heap, &o))
			return EXIT_TROUBLE;
		whole = json_object_get_boolean(json_object_object_get(o, "whole"));
	}
	if (args.json)
		json_print_line(o);
	else
		print(o, whole);
	json_object_put(o);
	return whole ? 0 : EXIT_DAMAGED;
}
