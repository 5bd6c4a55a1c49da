// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd.c - see cmd.h.
 */
#include <stdbool.h>

#include "cmd.h"
#include "spec.h"

const char *cmd_heap_name(struct argp_state *state, const char *arg)
{
	if (!spec_name_ok(arg))
		argp_failure(state, EXIT_TROUBLE, 0, "--heap=%s: not the name of a heap", arg);
	return arg;
}

error_t cmd_parse_heap(int key, char *arg, struct argp_state *state, const char **heap)
{
	switch (key) {
	case 'H':
		*heap = cmd_heap_name(state, arg);
		break;
	case ARGP_KEY_ARG:
		argp_failure(state, EXIT_TROUBLE, 0, "'%s': name the heap as --heap=%s", arg, arg);
		break;
	case ARGP_KEY_END:
		if (!*heap)
			argp_failure(state, EXIT_TROUBLE, 0,
				     "say which heap: --heap=NAME; nolock status lists them");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}
