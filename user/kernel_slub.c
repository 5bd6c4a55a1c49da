// SPDX-License-Identifier: GPL-2.0-only
/*
 * kernel_slub.c - SLUB's own counters of a cache, where the kernel was built with
 * CONFIG_SLUB_STATS: one file each in /sys/kernel/slab/CACHE.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "kernel_stat.h"

/* Those of 6.12 to 7.2 that say something of sheaves, barns and slabs; no kernel has them all. */
const char *const nl_slub_names[NL_SLUB_STATS] = {
	"alloc_cpu_sheaf",     "alloc_fastpath",
	"alloc_slowpath",      "free_cpu_sheaf",
	"free_fastpath",       "free_slowpath",
	"free_rcu_sheaf",      "free_rcu_sheaf_fail",
	"free_add_partial",    "free_remove_partial",
	"alloc_slab",	       "free_slab",
	"alloc_node_mismatch", "order_fallback",
	"cmpxchg_double_fail", "sheaf_flush",
	"sheaf_refill",	       "sheaf_alloc",
	"sheaf_free",	       "barn_get",
	"barn_get_fail",       "barn_put",
	"barn_put_fail",       "sheaf_prefill_fast",
	"sheaf_prefill_slow",  "sheaf_prefill_oversize",
	"sheaf_return_fast",   "sheaf_return_slow",
};

bool nl_slub_have(const char *dir)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/kmalloc-64/alloc_slowpath", dir);
	return !access(path, R_OK);
}

int nl_slub_read(const char *dir, const char *cache, uint64_t out[NL_SLUB_STATS])
{
	int i, n = 0;

	for (i = 0; i < NL_SLUB_STATS; i++) {
		char path[256], text[64], *end;
		ssize_t len;
		int fd;

		out[i] = NL_SLUB_ABSENT;
		if (snprintf(path, sizeof(path), "%s/%s/%s", dir, cache, nl_slub_names[i]) >=
		    (int)sizeof(path))
			return -ENAMETOOLONG;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		len = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (len <= 0)
			continue;
		text[len] = 0;
		/* the sum, and then each CPU's share, which may be cut off here */
		out[i] = strtoull(text, &end, 10);
		if (end == text)
			out[i] = NL_SLUB_ABSENT;
		else
			n++;
	}
	return n ? n : -ENOENT;
}
