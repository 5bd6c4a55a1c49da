/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * handlers.h - the demo's process that allocates from signal handlers.
 */
#ifndef HANDLERS_H
#define HANDLERS_H

#include <stdbool.h>
#include <stdint.h>

/* Shared between the demo and the process; the process counts, the demo reads and stops it. */
struct handlers_shared {
	uint64_t signals;
	uint64_t handler_allocs;
	uint64_t handler_frees;
	uint64_t handler_failures;
	uint64_t main_allocs;
	uint64_t main_frees;
	uint64_t main_failures;
	uint64_t corruptions; /* objects that were not as they had been left */
	bool ready;
	bool stop;
};

/*
 * handlers_run - be that process until shared->stop
 * Two threads allocate and free in the shared heap @name and are hit by signals as fast as a third
 * can send them and by a timer each; the handlers allocate and free there, too, and the two sides
 * hand each other objects. Returns the exit status.
 */
int handlers_run(const char *name, struct handlers_shared *shared);

#endif /* HANDLERS_H */
