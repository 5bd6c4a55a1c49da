// SPDX-License-Identifier: GPL-2.0-only
/*
 * nolock.c - the command: which subcommand is meant.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

const char *argp_program_version = "nolock " NOLOCK_VERSION;

static const char doc[] =
	"nolock shows what slabs do: nolockd's shared heaps, a process's heap, the kernel's caches."
	"\v"
	"COMMANDS\n"
	"  stat     figures of each cache, once or again and again\n"
	"  trace    the stream of slab events\n"
	"  check    prove that a shared heap's inventory is whole\n"
	"  rebuild  make a shared heap anew, in place of a damaged one\n"
	"  status   nolockd itself: heaps, clients, tracing programs, what is missing\n"
	"  help     this text, or that of a command: nolock help stat\n"
	"\n"
	"EXAMPLES\n"
	"  nolock stat                       nolockd's heaps\n"
	"  nolock stat --kernel --interval=1 the kernel's caches, every second\n"
	"  nolock stat --pid=1234 --json     the heap of a process, for a program\n"
	"  nolock trace --cache='filp' --duration=5\n"
	"  nolock check --heap=demo && echo whole\n"
	"\n"
	"ENVIRONMENT\n"
	"  NOLOCK_SOCKET   nolockd's socket, if not the usual one\n";

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "stat", cmd_stat },	    { "trace", cmd_trace },   { "check", cmd_check },
	{ "rebuild", cmd_rebuild }, { "status", cmd_status },
};

static const struct command *find(const char *name)
{
	unsigned int i;

	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

/* Run a command with "nolock NAME" as what messages and help texts call it. */
static int run(const struct command *c, int argc, char **argv)
{
	static char title[32];

	snprintf(title, sizeof(title), "nolock %s", c->name);
	program_invocation_name = program_invocation_short_name = title;
	argv[0] = title;
	return c->run(argc, argv);
}

static int help(const struct argp_state *state, int argc, char **argv)
{
	static char option[] = "--help";
	char *args[] = { argv[0], option, NULL };
	const struct command *c;

	if (argc < 2) {
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	}
	c = find(argv[1]);
	if (!c)
		argp_error(state, "'%s' is no command", argv[1]);
	return c ? run(c, 2, args) : EXIT_TROUBLE;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	int rest = state->argc - state->next + 1;
	char **args = state->argv + state->next - 1;
	const struct command *c;

	switch (key) {
	case ARGP_KEY_ARG:
		if (!strcmp(arg, "help"))
			exit(help(state, rest, args));
		c = find(arg);
		if (!c)
			argp_error(state, "'%s' is no command", arg);
		exit(run(c, rest, args));
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "say what to do: stat, trace, check, rebuild or status");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		NULL, parse, "COMMAND [OPTION...]", doc, NULL, NULL, NULL
	};

	argp_err_exit_status = EXIT_TROUBLE;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, NULL);
	return EXIT_TROUBLE;
}
