/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cmd.h - the subcommands of nolock. Each parses its own arguments and returns the exit status.
 */
#ifndef CMD_H
#define CMD_H

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

#endif /* CMD_H */
