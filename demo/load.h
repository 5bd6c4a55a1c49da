/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * load.h - ordinary system activity, for the kernel's caches: files, pipes, processes.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stdint.h>

struct load_shared {
	uint64_t rounds;
	bool stop;
};

/* load_run - be that process until shared->stop; @dir is where it makes its files. */
int load_run(const char *dir, struct load_shared *shared);

#endif /* LOAD_H */
