/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bench.h - what the parts of the benchmark share: allocators, rows, the figures of a row.
 *
 * bench.c runs everything, row.c one row, peer.c keeps one process for each allocator, load/ is
 * what runs in them, pair.c and maps.c measure BPF, decay.c what is given back. stats.c, report.c and
 * summary.c turn times into figures.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <json-c/json.h>

#include "load/load.h"

#define BENCH_MAX_ROUNDS 1000
#define BENCH_MAX_SITTINGS 20
#define BENCH_MAX_CPUS 64
#define NR_ALLOCATORS_MAX 16

enum kind {
	KIND_OURS,
	KIND_PEER,
	KIND_SAFE,  /* a peer that may be called in signal handlers */
	KIND_OTHER, /* one of ours, for the rows of prefilled sheaves alone */
};

struct allocator {
	const char *name;
	enum kind kind;
	enum entry entry;
	const char *calls;     /* what it calls malloc, free and realloc */
	const char *soname[2]; /* the first that is there; none: the C library's own */
	const char *file;      /* of ../lib or ../peers, instead of soname */
	const char *package;   /* what to install when it is missing, or NULL */
	uint64_t largest;      /* what it can be asked for without harm; 0: anything */
};

extern const struct allocator allocators[];
extern const unsigned int nr_allocators;

/* Where an allocator is. */
struct found {
	bool there;
	char *path;   /* "" for the C library's own */
	char *loader; /* of the C library that it wants instead of the machine's, or NULL */
	char *libs;   /* where that library is */
	char *why;    /* a line, if it is not there */
};

/* peer.c: look for all of them. */
void peers_find(struct found *found);

enum row_kind {
	ROW_LOAD,    /* a workload of load.h */
	ROW_START,   /* a process that starts, allocates a little and ends */
	ROW_PROGRAM, /* a real program, by those that replace malloc */
};

#define ROW_ARGS 8

struct row {
	const char *name;
	const char *what;
	const char *unit;
	enum row_kind kind;
	enum aim aim;
	unsigned int workload;
	unsigned int threads, cpus;
	unsigned int with; /* WITH_* */
	uint64_t units;	   /* of one thread in one round */
	uint64_t aside;	   /* KiB for kmalloc_nolock */
	uint64_t largest;
	/* A program: with "@" before the name of a file of programs/. */
	const char *argv[ROW_ARGS];
};

extern const struct row rows[];
extern const unsigned int nr_rows;

struct options {
	uint64_t rounds;   /* of a row, at most */
	uint64_t sittings; /* each with processes of its own */
	uint64_t seconds;  /* for everything */
	const char *filter;
	const char *json;
	const char *profile; /* a directory, or NULL */
	int cpus[BENCH_MAX_CPUS];
	unsigned int nr_cpus;
};

/* One allocator in one row. */
struct series {
	bool ran;
	double *ns;  /* of a unit; nr of them, taken in the same rounds as the others' */
	double *rss; /* peaks, in MiB; one a sitting, or one a round if it is a process each */
	bool has_counts, has_map;
	struct work_counts counts;
	struct work_map map;
};

struct result {
	const struct row *row;
	unsigned int nr, nr_rss;
	int best; /* the fastest peer, or -1 */
	struct series of[NR_ALLOCATORS_MAX];
};

struct report;

/*
 * row.c: all rounds of a row. Peers that fail are left out, with a line to @r.
 * Returns 0, or -1 if one of ours failed: a message has been written.
 */
int row_run(struct result *res, const struct row *row, const struct options *o,
	    const struct found *found, struct report *r, double seconds);
void result_free(struct result *res);

/* A process that has one allocator, or that spawns others. */
struct peer {
	int pid;
	int fd;
	bool failed;
};

/* peer_start - Returns 0 or a negative errno. */
int peer_start(struct peer *p, const struct allocator *a, const struct found *f,
	       const struct options *o, uint64_t aside);
int peer_spawner(struct peer *p);
/* peer_ask - Returns 0, or -1 if it did not answer; then why is a line. */
int peer_ask(struct peer *p, const struct work_request *req, struct work_reply *reply,
	     const char **why);
/* peer_spawn - have a program run; argv ends with NULL. Returns as peer_ask(). */
int peer_spawn(struct peer *p, const struct found *f, const char *const *argv,
	       struct spawn_reply *reply, const char **why);
void peer_stop(struct peer *p);
/* A file beside this program, to be freed. */
char *beside(const char *name);
/* build/bench/load/load tiny, as its arguments: those that end with NULL. */
void peer_tiny(const struct allocator *a, char *buf, size_t len, const char **argv);

/* stats.c: the monotonic clock; then, of n values, which are left sorted: */
double seconds_now(void);
struct spread {
	double min, q1, median, q3, max;
};
struct spread spread_of(double *values, unsigned int n);
/* The same of copies, and of ratios a[i] : b[i]. */
struct spread spread_copy(const double *values, unsigned int n);
struct spread spread_ratio(const double *a, const double *b, unsigned int n);

/*
 * pair.c - the BPF side
 * Fills ns[BENCH_BPF_*][round], the times of one turn of each loop.
 * Returns NULL, or why it cannot be measured here: a line that needs no freeing.
 */
enum {
	BENCH_BPF_EMPTY,
	BENCH_BPF_NOLOCK,
	BENCH_BPF_OBJ,
	BENCH_BPF_HASH,
	BENCH_BPF_LAZY,
	NR_BENCH_BPF,
};
const char *bpf_pairs(unsigned int rounds, double *ns[NR_BENCH_BPF]);

/* An arena with a heap in it, all of it opened. Returns the handle, or NULL with errno. */
struct nolock_heap *bpf_heap(uint64_t size);
/* What failed and why, as bpf_pairs() returns it. */
const char *bpf_because(const char *what, int error);
/* libbpf's own lines are not for the report. */
void bpf_be_quiet(void);
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
	MAPS_CPUS,
	MAPS_TABLE,
	NR_MAPS,
};
extern const struct maps_row {
	const char *name;
	const char *what;
} maps_rows[NR_MAPS];
const char *maps_run(struct report *r, unsigned int row, unsigned int rounds,
		     const struct options *o);

/* decay.c: what each allocator has of 64 MiB that were freed, as time goes by. */
#define DECAY_SAMPLES 7
extern const double decay_at[DECAY_SAMPLES]; /* seconds */
struct decay {
	bool ran;
	double peak;		   /* MiB */
	double rss[DECAY_SAMPLES]; /* MiB */
	double trimmed;
};
int decay_run(struct decay *d, const struct options *o, const struct found *found,
	      struct report *r);

/* profile.c: where the cycles go, by perf's software clock, into o->profile. */
void profile_row(const struct result *res, const struct options *o, const struct found *found,
		 struct report *r);

/* report.c: the tables and the same figures as JSON. */
struct report *report_new(const struct options *o);
void report_skip(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void report_row(struct report *r, const struct result *res, const struct found *found);
void report_levels(const struct result *res, unsigned int nr);
void report_memory(const struct result *res, unsigned int nr);
void report_decay(struct report *r, const struct decay *d);
void report_bpf(struct report *r, unsigned int rounds, double *const ns[NR_BENCH_BPF]);
/* report_end - write the JSON. Returns 0 or a negative errno. */
int report_end(struct report *r, const char *json);
json_object *report_root(struct report *r);
/* A cell with a time in the unit that keeps it short. */
struct table;
void time_cell(struct table *t, double ns);
/* JSON that is there, or exit. */
json_object *json_must(json_object *o);
json_object *json_text(const char *s);
json_object *json_number(double value);
json_object *json_spread(const struct spread *s);

/*
 * summary.c: all rows in one table, what was aimed at, and the data for the plots, written to
 * time.dat and rss.dat of @dir (NULL: nowhere).
 */
void summary(struct report *r, const struct result *res, unsigned int nr, const char *dir);

#endif /* BENCH_H */
