/* SPDX-License-Identifier: GPL-2.0-only */
/* moment.h - what a nolockd that was killed leaves behind for a moment. */
#ifndef MOMENT_H
#define MOMENT_H

#include <stdbool.h>

/*
 * keepers_end - wait a moment for the keepers of a nolockd that was killed
 * They end with it but not before it, and until then have its socket and its locks. *tries begins
 * with 0. Returns false, without a wait, when a second has passed: those are somebody else's.
 */
bool keepers_end(unsigned int *tries);

#endif /* MOMENT_H */
