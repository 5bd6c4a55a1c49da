/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cmd.h - the subcommands of nolock. Each parses its own arguments and returns the exit status.
 */
#ifndef CMD_H
#define CMD_H

#include <argp.h>

/*
 * Exit statuses beside 0: not whole (check alone), anything that could not be done, and done in part
 * (stat --kernel without BPF).
 */
#define EXIT_DAMAGED 1
#define EXIT_TROUBLE 2
#define EXIT_PART 3

int cmd_stat(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_rebuild(int argc, char **argv);
int cmd_status(int argc, char **argv);

/* What --heap=NAME says. What is not the name of a heap ends the program with EXIT_TROUBLE. */
const char *cmd_heap_name(struct argp_state *state, const char *arg);

/*
 * The part of a parser that subcommands of one heap have in common: --heap=NAME, which must be there,
 * and no argument. What is wrong ends the program with EXIT_TROUBLE. Returns 0, or ARGP_ERR_UNKNOWN
 * for other keys.
 */
error_t cmd_parse_heap(int key, char *arg, struct argp_state *state, const char **heap);

#endif /* CMD_H */
