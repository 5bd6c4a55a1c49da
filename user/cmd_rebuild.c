// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_rebuild.c - nolock rebuild: a new heap in place of a damaged one.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <err.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "ask.h"
#include "cmd.h"

static const char doc[] =
	"Have nolockd make a shared heap anew: empty, under the same name, with the same owner and "
	"size. Exit status: 0 done, 2 not."
	"\v"
	"USAGE\n"
	"  Processes and BPF programs that have the old heap keep it, at its address, until they "
	"close it or end; who opens the name from then on gets the new one. What is in the old heap "
	"is lost with the last of them. Only root, nolockd's own user, and the owner that nolockd was "
	"given may do it.\n"
	"  A heap that nolockd serves is made anew only with --force: when nolock check finds it not "
	"whole, say.\n"
	"\n"
	"EXAMPLES\n"
	"  nolock rebuild --heap=demo\n"
	"  nolock check --heap=demo || nolock rebuild --heap=demo --force\n";

static const struct argp_option options[] = {
	{ "heap", 'H', "NAME", 0, "The heap", 0 },
	{ "force", 'f', NULL, 0, "Also if nolockd has noticed no damage", 0 },
	{ 0 },
};

static struct {
	const char *heap;
	bool force;
} args;

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'f':
		args.force = true;
		break;
	default:
		return cmd_parse_heap(key, arg, state, &args.heap);
	}
	return 0;
}

int cmd_rebuild(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	struct nl_request req = { .op = NL_OP_REBUILD };
	int conn;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (args.force)
		req.flags = NL_REBUILD_FORCE;
	snprintf(req.name, sizeof(req.name), "%s", args.heap);
	conn = ask_call(&req);
	if (conn < 0)
		return EXIT_TROUBLE;
	close(conn);
	printf("heap %s is made anew\n", args.heap);
	return 0;
}
