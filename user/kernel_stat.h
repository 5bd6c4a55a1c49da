/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kernel_stat.h - the kernel's slab caches: what SLUB holds now (the kmem_cache iterator, or
 * /proc/slabinfo where there is none) beside what the tracing programs have counted.
 */
#ifndef NL_USER_KERNEL_STAT_H
#define NL_USER_KERNEL_STAT_H

#include "trace.h"

/* What the counters say of one cache since tracing began. */
struct nl_kernel_counts {
	uint64_t allocs; /* kmem_cache_alloc and kmalloc that gave an object */
	uint64_t frees;	 /* single frees: kfree_rcu and bulk frees fire no tracepoint */
	uint64_t fails;
	uint64_t bytes_req;
	uint64_t bytes_alloc;
};

struct nl_kernel_cache {
	struct nlt_cache now; /* now.has says what of it the kernel showed */
	struct nl_kernel_counts counts;
	bool counted; /* counts are there: it had an event */
};

#define NL_KERNEL_FROM_NONE 0 /* no list of caches: only those that had events */
#define NL_KERNEL_FROM_ITER 1
#define NL_KERNEL_FROM_SLABINFO 2

struct nl_kernel_stat {
	int from;
	struct nl_kernel_cache *caches; /* by name */
	unsigned int nr;
	/* events of no cache */
	struct nl_kernel_counts large; /* kmalloc straight from pages */
	struct nl_kernel_counts
		unknown;	      /* the kernel could not tell (before 6.13), failed kmallocs */
	struct nl_kernel_counts null; /* frees of NULL */
	struct nl_kernel_counts gone; /* of caches that were destroyed */
	struct nl_trace_counts counts;
};

/*
 * nl_kernel_stat_read - read all; stops nobody
 * @t: may be NULL or have nothing attached: then /proc/slabinfo alone is read
 * Returns 0 or -errno: -ENOMEM; -EACCES, neither BPF nor /proc/slabinfo may be read.
 */
int nl_kernel_stat_read(struct nl_trace *t, struct nl_kernel_stat *out);
void nl_kernel_stat_free(struct nl_kernel_stat *s);

/* nl_kernel_stat_find - a cache by its name, or NULL */
const struct nl_kernel_cache *nl_kernel_stat_find(const struct nl_kernel_stat *s, const char *name);

/*
 * nl_kernel_stat_json - {"source":, "events":{}, "caches":[{}], "other":{}, "programs":[]}
 * The caller puts the object. NULL for want of memory.
 */
struct json_object *nl_kernel_stat_json(const struct nl_kernel_stat *s, const struct nl_trace *t);

/*
 * SLUB's own counters by name, on kernels with CONFIG_SLUB_STATS. nl_kernel_stat_json() has them as
 * "slub" of each cache.
 */
#define NL_SLUB_DIR "/sys/kernel/slab"
#define NL_SLUB_STATS 28
#define NL_SLUB_ABSENT UINT64_MAX
extern const char *const nl_slub_names[NL_SLUB_STATS];

/* nl_slub_have - does the kernel keep them? */
bool nl_slub_have(const char *dir);

/*
 * nl_slub_read - the counters of one cache; those that the kernel lacks are NL_SLUB_ABSENT
 * Returns how many there are, or -ENOENT, or -ENAMETOOLONG.
 */
int nl_slub_read(const char *dir, const char *cache, uint64_t out[NL_SLUB_STATS]);

#endif /* NL_USER_KERNEL_STAT_H */
