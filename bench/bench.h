/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bench.h - what the parts of the benchmark share: allocators, workloads, one measurement.
 *
 * bench.c runs everything in turns, peer.c keeps one process for each allocator, work.c is what
 * runs in them, pair.c and maps.c measure BPF, stats.c and report.c turn times into figures.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <json-c/json.h>

#define BENCH_MAX_ROUNDS 1000

/* How an allocator is called; decides which instance of a workload runs. */
enum entry {
	ENTRY_NOLOCK,  /* kmalloc_nolock(size, 0, NUMA_NO_NODE), kfree_nolock(p) */
	ENTRY_KMALLOC, /* kmalloc(size, GFP_KERNEL), kfree(p) */
	ENTRY_MALLOC,  /* malloc(size), free(p) */
	NR_ENTRIES,
};

struct allocator {
	const char *name;
	const char *package;   /* what to install when it is missing, or NULL */
	const char *soname[2]; /* the first that is there; none: the C library's own */
	enum entry entry;
};

extern const struct allocator allocators[];
extern const unsigned int nr_allocators;

struct workload {
	const char *name;
	const char *what;
	unsigned int threads;
	uint64_t pairs; /* allocations, each with its free, of one thread in one round */
};

extern const struct workload workloads[];
extern const unsigned int nr_workloads;

/* work.c: the first half of main() in a process of peer.c's. Never returns. */
_Noreturn void work_serve(int fd, enum entry entry, const int *cpus, unsigned int nr_cpus);

/* One round of one workload; *ns is what it took. */
struct work_request {
	uint32_t workload;
	uint32_t pad;
	uint64_t pairs;
};

struct work_reply {
	uint64_t ns;
	uint64_t failed; /* allocations that returned NULL */
};

/*
 * peer_path - where the allocator's library is
 * Returns a string to be freed, "" for the C library's own allocator, NULL when it is missing.
 */
char *peer_path(const struct allocator *a);

/* In a process: write to fd which file malloc() is in, and exit. */
_Noreturn void peer_where(int fd);

/* A process that has one allocator. */
struct peer {
	int pid;
	int fd;
};

/* peer_start - Returns 0 or a negative errno. */
int peer_start(struct peer *p, const struct allocator *a, const char *path, const int *cpus,
	       unsigned int nr_cpus);
/* peer_run - one round: its time, or a negative value after a message. */
double peer_run(struct peer *p, unsigned int workload, uint64_t pairs);
void peer_stop(struct peer *p);

/* stats.c: n values, which are left sorted. */
struct spread {
	double min, q1, median, q3, max;
};
struct spread spread_of(double *values, unsigned int n);

/*
 * pair.c - the BPF side
 * Fills ns[BENCH_BPF_*][round], the times of one turn of each loop.
 * Returns NULL, or why it cannot be measured here: a line that needs no freeing.
 */
enum {
	BENCH_BPF_EMPTY,
	BENCH_BPF_NOLOCK,
	BENCH_BPF_OBJ,
	NR_BENCH_BPF,
};
const char *bpf_pairs(unsigned int rounds, double *ns[NR_BENCH_BPF]);

/* An arena with a heap in it, all of it opened. Returns the handle, or NULL with errno. */
struct nolock_heap *bpf_heap(uint64_t size);
/* What failed and why, as bpf_pairs() returns it. */
const char *bpf_because(const char *what, int error);
/* One run on a packet: the ns that the kernel says it took, or a negative errno. */
struct bpf_program;
double bpf_packet(const struct bpf_program *prog);

/*
 * maps.c - the heap in BPF programs against the kernel's hash maps
 * The rows have these names. maps_run() prints one and adds it to the report.
 * Returns NULL, or why it cannot be measured here, as bpf_pairs().
 */
enum {
	MAPS_BATCHES,
	MAPS_TABLE,
	NR_MAPS,
};
struct report;
extern const char *const maps_rows[NR_MAPS];
const char *maps_run(struct report *r, unsigned int row, unsigned int rounds);

/* report.c: the tables and the same figures as JSON. */
struct report;
struct report *report_new(unsigned int rounds, const int *cpus, unsigned int nr_cpus);
void report_skip(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * report_workload - one workload's times
 * @ns: [allocator][round] of one pair; NULL for an allocator that is missing
 */
void report_workload(struct report *r, const struct workload *w, double *const *ns,
		     char *const *paths);
void report_bpf(struct report *r, double *const ns[NR_BENCH_BPF]);
/* What the JSON of all rows hangs on. */
json_object *report_root(struct report *r);
/* report_end - print what is left to print, write the JSON. Returns 0 or a negative errno. */
int report_end(struct report *r, const char *json);

#endif /* BENCH_H */
