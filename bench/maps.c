// SPDX-License-Identifier: GPL-2.0-only
/*
 * maps.c - the heap in BPF programs against BPF_MAP_TYPE_HASH, preallocated and not: records that
 * come and go in batches, on one CPU and on two, and a table of a million, in time and in memory; and
 * what it costs user space to read that table.
 *
 * Time is what BPF_PROG_TEST_RUN says; the sides take turns within each round.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <nolock/bpf.h>

#include "bench.h"
#include "examples/hash.h"
#include "maps.h"
#include "maps.skel.h"
#include "table.h"

/* Room for the table, its nodes, and slabs that are not full. */
#define HEAP_SIZE (128ULL << 20)
/* Records of one run of a program, which the kernel allows a quarter of a second at least. */
#define RUN_RECORDS 20000u
#define READ_BATCH 4096u
/* A round takes seconds. */
#define TABLE_ROUNDS 5u

const struct maps_row maps_rows[NR_MAPS] = {
	{ "bpf-batch", "records of 64 B that come and go, in a BPF program, and in hash maps" },
	{ "bpf-cpus", "the same on two CPUs at once, and handed from one CPU to the other" },
	{ "bpf-table", "a table of a million records in a heap, and hash maps of as many" },
};

/* Values are left sorted. */
static json_object *figures(double *values, unsigned int n, struct spread *s)
{
	*s = spread_of(values, n);
	return json_spread(s);
}

/* The programs on a heap of their own. */
struct side {
	struct nolock_heap *heap;
	struct maps_bpf *skel;
};

static void leave_out_large(struct maps_bpf *skel)
{
	bpf_map__set_max_entries(skel->maps.many, 1);
	bpf_map__set_max_entries(skel->maps.many_lazy, 1);
}

/* Load what a row needs: the large maps take memory merely by being there. */
static const char *open_side(struct side *s, bool large)
{
	int error;

	bpf_be_quiet();
	s->heap = bpf_heap(HEAP_SIZE);
	if (!s->heap)
		return bpf_because("cannot make a heap in a bpf_arena", errno);
	s->skel = maps_bpf__open();
	if (!s->skel)
		return bpf_because("cannot open the BPF object", errno);
	if (!large)
		leave_out_large(s->skel);
	error = nolock_bpf_attach_heap(s->skel->obj, s->heap);
	if (!error)
		error = maps_bpf__load(s->skel);
	return error ? bpf_because("the kernel refuses the BPF programs", -error) : NULL;
}

static void close_side(struct side *s)
{
	maps_bpf__destroy(s->skel);
	if (s->heap)
		nolock_heap_close(s->heap);
}

/* One run: ns in all, or a negative errno. */
static double run(struct side *s, const struct bpf_program *prog, __u64 turns)
{
	double ns;

	s->skel->bss->turns = turns;
	ns = bpf_packet(prog);
	if (ns >= 0 && (s->skel->bss->failed || s->skel->bss->done != turns))
		return -ENOMEM;
	return ns;
}

/* --- batches --- */

enum { EMPTY, HEAP, BULK, MAP, LAZY, NR_SIDES };
static const char *const side_names[NR_SIDES] = { "empty loop", "kmalloc_nolock", "bulk",
						  "hash map", "hash map, no prealloc" };
static const unsigned int batches[] = { 1, 10, 100, 1000 };
#define NR_BATCHES (sizeof(batches) / sizeof(batches[0]))

/* Fill ns[side][round]: of a record, the empty loop's time taken away. */
static const char *measure_batch(struct side *s, unsigned int batch, unsigned int rounds,
				 double *ns[NR_SIDES])
{
	const struct bpf_program *progs[NR_SIDES] = {
		s->skel->progs.empty, s->skel->progs.batch_heap, s->skel->progs.batch_bulk,
		s->skel->progs.batch_map, s->skel->progs.batch_lazy
	};

	s->skel->bss->batch = batch;
	/* The first round is to warm up. */
	for (unsigned int round = 0; round <= rounds; round++) {
		for (unsigned int i = 0; i < NR_SIDES; i++) {
			double t = run(s, progs[i], RUN_RECORDS / batch);

			if (t < 0)
				return bpf_because("a BPF loop did not end well", -(int)t);
			if (round)
				ns[i][round - 1] = t / RUN_RECORDS;
			if (round && i)
				ns[i][round - 1] -= ns[EMPTY][round - 1];
		}
	}
	return NULL;
}

/* How many times faster one side is than another, round by round: a cell, and in the JSON. */
static void report_ratio(json_object *row, struct table *t, const char *const names[2],
			 const double *ns, const double *than, unsigned int rounds, double *ratio)
{
	struct spread s;
	char key[64];

	for (unsigned int round = 0; round < rounds; round++)
		ratio[round] = ns[round] / than[round];
	snprintf(key, sizeof(key), "%s : %s", names[0], names[1]);
	json_object_object_add(row, key, figures(ratio, rounds, &s));
	table_cell(t, "1/%.1f", 1 / s.median);
}

static void report_batch(json_object *all, struct table *t, unsigned int batch, unsigned int rounds,
			 double *ns[NR_SIDES], double *ratio)
{
	json_object *row = json_must(json_object_new_object());
	struct spread s;

	json_object_object_add(row, "batch", json_must(json_object_new_int((int)batch)));
	table_cell(t, "  %u", batch);
	/* The ratios before the times, which spread_of() sorts. */
	for (unsigned int i = HEAP; i <= BULK; i++)
		for (unsigned int k = MAP; k < NR_SIDES; k++)
			report_ratio(row, t, (const char *[]){ side_names[i], side_names[k] },
				     ns[i], ns[k], rounds, ratio);
	for (unsigned int i = HEAP; i < NR_SIDES; i++) {
		json_object_object_add(row, side_names[i], figures(ns[i], rounds, &s));
		table_cell(t, "%.1f", s.median);
	}
	json_object_array_add(all, row);
}

static const char *run_batches(struct report *r, struct side *s, unsigned int rounds)
{
	static const char *const heads[] = { "<batch",	    "one : map", "one : lazy", "bulk : map",
					     "bulk : lazy", "one",	 "bulk",       "map",
					     "lazy",	    NULL };
	json_object *all = json_must(json_object_new_array());
	double *ns[NR_SIDES], *ratio = calloc(rounds, sizeof(*ratio));
	struct table *t = table_new(heads);
	const char *problem = NULL;

	for (unsigned int i = 0; i < NR_SIDES; i++)
		ns[i] = calloc(rounds, sizeof(*ns[i]));
	for (unsigned int i = 0; i < NR_SIDES; i++)
		if (!ns[i] || !ratio)
			errx(1, "out of memory");
	s->skel->bss->array = (__u64)nolock_heap_kmalloc(s->heap, MAPS_BATCH * 8, GFP_KERNEL);
	s->skel->bss->cache =
		(__u64)nolock_heap_kmem_cache_create(s->heap, "bulk", MAPS_VALUE, NULL, 0);
	if (!s->skel->bss->array || !s->skel->bss->cache)
		problem = bpf_because("cannot allocate in the heap", errno);
	for (unsigned int i = 0; i < NR_BATCHES && !problem; i++) {
		problem = measure_batch(s, batches[i], rounds, ns);
		if (!problem)
			report_batch(all, t, batches[i], rounds, ns, ratio);
	}
	if (!problem) {
		printf("\n%s: records of %d B that come and go in batches, in a BPF program, 1 "
		       "thread: ratios, then ns a record, less the loop\n",
		       maps_rows[MAPS_BATCHES].name, MAPS_VALUE);
		table_print(t);
		printf("  one: kmalloc_nolock() and kfree_nolock(); bulk: kmem_cache_*_bulk_nolock(); map: "
		       "update and\n  delete of BPF_MAP_TYPE_HASH; lazy: with BPF_F_NO_PREALLOC\n");
		json_object_object_add(report_root(r), maps_rows[MAPS_BATCHES].name, all);
	}
	for (unsigned int i = 0; i < NR_SIDES; i++)
		free(ns[i]);
	free(ratio);
	return problem;
}

/* --- two CPUs --- */

enum { C_HEAP, C_MAP, C_LAZY, NR_C };
static const char *const c_names[NR_C] = { "kmalloc_nolock", "hash map", "hash map, no prealloc" };
/* At once: each CPU its own records. Handed on: what one makes, the other frees. */
static const struct {
	const char *name;
	unsigned int batch;
	bool handed;
} c_rows[] = { { "at once, batches of 1", 1, false },
	       { "at once, batches of 100", 100, false },
	       { "handed on, batches of 1000", 1000, true } };
#define NR_C_ROWS (sizeof(c_rows) / sizeof(c_rows[0]))

/* The same heap and maps for a second CPU, and figures of its own. */
static const char *open_second(struct side *s, const struct side *one)
{
	int error;

	s->skel = maps_bpf__open();
	if (!s->skel)
		return bpf_because("cannot open the BPF object", errno);
	leave_out_large(s->skel);
	error = nolock_bpf_attach_heap(s->skel->obj, one->heap);
	if (!error)
		error = bpf_map__reuse_fd(s->skel->maps.few, bpf_map__fd(one->skel->maps.few));
	if (!error)
		error = bpf_map__reuse_fd(s->skel->maps.few_lazy,
					  bpf_map__fd(one->skel->maps.few_lazy));
	if (!error)
		error = maps_bpf__load(s->skel);
	if (error)
		return bpf_because("the kernel refuses the BPF programs", -error);
	s->skel->bss->first = MAPS_BATCH;
	return NULL;
}

static void be_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

struct c_thread {
	struct side *s;
	const struct bpf_program *prog;
	pthread_barrier_t *start;
	int cpu;
	unsigned int batch;
	double ns;
};

static void *run_at_once(void *arg)
{
	struct c_thread *t = arg;

	be_on(t->cpu);
	pthread_barrier_wait(t->start);
	t->s->skel->bss->batch = t->batch;
	t->ns = run(t->s, t->prog, RUN_RECORDS / t->batch);
	return NULL;
}

static const struct bpf_program *c_prog(const struct side *s, unsigned int which, unsigned int step)
{
	const struct maps_bpf *k = s->skel;
	const struct bpf_program *const progs[NR_C][3] = {
		{ k->progs.batch_heap, k->progs.heap_fill, k->progs.heap_drain },
		{ k->progs.batch_map, k->progs.map_fill, k->progs.map_drain },
		{ k->progs.batch_lazy, k->progs.lazy_fill, k->progs.lazy_drain },
	};

	return progs[which][step];
}

/* ns of a record, by one CPU; or a negative errno. */
static double at_once(struct side *s, unsigned int which, unsigned int batch, const int *cpus)
{
	pthread_barrier_t start;
	struct c_thread t[2];
	pthread_t thread[2];
	double ns = 0;

	pthread_barrier_init(&start, NULL, 2);
	for (int i = 0; i < 2; i++) {
		t[i] = (struct c_thread){ .s = &s[i],
					  .prog = c_prog(&s[i], which, 0),
					  .start = &start,
					  .cpu = cpus[i],
					  .batch = batch };
		if (pthread_create(&thread[i], NULL, run_at_once, &t[i]))
			errx(1, "cannot make a thread");
	}
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&start);
	for (int i = 0; i < 2; i++) {
		if (t[i].ns < 0)
			return t[i].ns;
		ns += t[i].ns / (2 * RUN_RECORDS);
	}
	return ns;
}

static double handed_on(struct side *s, unsigned int which, unsigned int batch, const int *cpus)
{
	double ns = 0;

	s->skel->bss->batch = batch;
	for (unsigned int i = 0; i < RUN_RECORDS / batch; i++) {
		for (unsigned int step = 0; step < 2; step++) {
			double t;

			be_on(cpus[step]);
			t = run(s, c_prog(s, which, 1 + step), 1);
			if (t < 0)
				return t;
			ns += t;
		}
	}
	return ns / RUN_RECORDS;
}

static void report_cpus(json_object *all, struct table *t, const char *name, unsigned int rounds,
			double *ns[NR_C], double *ratio)
{
	json_object *row = json_must(json_object_new_object());
	struct spread s;

	json_object_object_add(row, "row", json_must(json_object_new_string(name)));
	table_cell(t, "  %s", name);
	for (unsigned int k = C_MAP; k < NR_C; k++)
		report_ratio(row, t, (const char *[]){ c_names[C_HEAP], c_names[k] }, ns[C_HEAP],
			     ns[k], rounds, ratio);
	for (unsigned int i = 0; i < NR_C; i++) {
		json_object_object_add(row, c_names[i], figures(ns[i], rounds, &s));
		table_cell(t, "%.1f", s.median);
	}
	json_object_array_add(all, row);
}

static const char *run_cpus(struct report *r, struct side *one, unsigned int rounds,
			    const struct options *o)
{
	static const char *const heads[] = { "<",   "one : map", "one : lazy", "one",
					     "map", "lazy",	 NULL };
	json_object *all = json_must(json_object_new_array());
	double *ns[NR_C], *ratio = calloc(rounds, sizeof(*ratio));
	struct table *t = table_new(heads);
	struct side s[2] = { *one, { 0 } };
	const char *problem = open_second(&s[1], one);

	for (unsigned int i = 0; i < NR_C; i++) {
		ns[i] = calloc(rounds, sizeof(*ns[i]));
		if (!ns[i] || !ratio)
			errx(1, "out of memory");
	}
	for (unsigned int i = 0; i < 2 && !problem; i++) {
		s[i].skel->bss->array =
			(__u64)nolock_heap_kmalloc(one->heap, MAPS_BATCH * 8, GFP_KERNEL);
		if (!s[i].skel->bss->array)
			problem = bpf_because("cannot allocate in the heap", errno);
	}
	for (unsigned int i = 0; i < NR_C_ROWS && !problem; i++) {
		/* The first round is to warm up. */
		for (unsigned int round = 0; round <= rounds && !problem; round++) {
			for (unsigned int k = 0; k < NR_C && !problem; k++) {
				double n = c_rows[i].handed ?
						   handed_on(s, k, c_rows[i].batch, o->cpus) :
						   at_once(s, k, c_rows[i].batch, o->cpus);

				if (n < 0)
					problem =
						bpf_because("a BPF loop did not end well", -(int)n);
				else if (round)
					ns[k][round - 1] = n;
			}
		}
		if (!problem)
			report_cpus(all, t, c_rows[i].name, rounds, ns, ratio);
	}
	if (!problem) {
		printf("\n%s: records of %d B in BPF programs on two CPUs: ratios, then ns a record, "
		       "the loop included, on one of them\n",
		       maps_rows[MAPS_CPUS].name, MAPS_VALUE);
		table_print(t);
		json_object_object_add(report_root(r), maps_rows[MAPS_CPUS].name, all);
	}
	for (unsigned int i = 0; i < NR_C; i++)
		free(ns[i]);
	free(ratio);
	maps_bpf__destroy(s[1].skel);
	return problem;
}

/* --- the table of a million --- */

enum { INSERT, LOOKUP, READ, DELETE, MEMORY, NR_PHASES };
static const char *const phase_names[NR_PHASES] = { "insert", "look up", "read by user space",
						    "delete", "bytes" };
enum { T_HEAP, T_MAP, T_LAZY, NR_TABLES };
static const char *const table_names[NR_TABLES] = { "heap", "hash map", "hash map, no prealloc" };

/* A program over all records. ns a record, or a negative errno. */
static double all_records(struct side *s, const struct bpf_program *prog)
{
	double ns = 0;

	for (__u64 from = 0; from < MAPS_RECORDS; from += RUN_RECORDS) {
		double t;

		s->skel->bss->from = from;
		t = run(s, prog, RUN_RECORDS);
		if (t < 0)
			return t;
		ns += t;
	}
	return ns / MAPS_RECORDS;
}

/*
 * The nodes lie anywhere: the first ones of buckets ahead, and then the second ones, are on their
 * way before they are wanted.
 */
static void ask_ahead(hash_t *t, __u32 b)
{
	const hash_node_t *near = hash_node(t, (__u32)load(&t->bucket[(b + 16) & t->mask]));

	__builtin_prefetch(hash_node(t, (__u32)load(&t->bucket[(b + 32) & t->mask])));
	if (near)
		__builtin_prefetch(hash_node(t, load(&near->next)));
}

/* Sum up all values by plain loads. */
static double read_heap(hash_t *t, __u64 *sum)
{
	double start = seconds_now();
	struct hash_node found[64];

	for (__u32 b = 0; b <= t->mask; b++) {
		int n = hash_read(t, b, found, 64);

		ask_ahead(t, b);
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			*sum += found[i].value;
	}
	return (seconds_now() - start) * 1e9 / MAPS_RECORDS;
}

static double read_map(int fd, __u64 *sum)
{
	static __u64 keys[READ_BATCH], values[READ_BATCH];
	double start = seconds_now();
	__u32 place, n;
	int error = 0;

	for (bool first = true; !error; first = false) {
		n = READ_BATCH;
		error = bpf_map_lookup_batch(fd, first ? NULL : &place, &place, keys, values, &n,
					     NULL);
		if (error && error != -ENOENT)
			return error;
		for (__u32 i = 0; i < n; i++)
			*sum += values[i];
	}
	return (seconds_now() - start) * 1e9 / MAPS_RECORDS;
}

/* As the kernel counts it: elements, buckets, everything. */
static double map_bytes(int fd)
{
	unsigned long long bytes = 0;
	char line[256];
	FILE *f;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
	f = fopen(line, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "memlock: %llu", &bytes) == 1)
			break;
	if (f)
		fclose(f);
	return (double)bytes;
}

/* The chunks that are in use: slabs, and the table itself. */
static double heap_bytes(struct nolock_heap *heap)
{
	struct nolock_heap_report r;

	nolock_heap_check(heap, &r);
	return (double)(r.chunks_slab + r.chunks_large) * 65536;
}

/* One round of one table. Returns 0 or a negative errno. */
static int measure_table(struct side *s, unsigned int which, hash_t *t, double v[NR_PHASES])
{
	const struct maps_bpf *k = s->skel;
	const struct bpf_program *const progs[NR_TABLES][3] = {
		{ k->progs.table_insert, k->progs.table_lookup, k->progs.table_delete },
		{ k->progs.map_insert, k->progs.map_lookup, k->progs.map_delete },
		{ k->progs.lazy_insert, k->progs.lazy_lookup, k->progs.lazy_delete },
	};
	int fd = bpf_map__fd(which == T_MAP ? k->maps.many : k->maps.many_lazy);
	const __u64 expected = (__u64)MAPS_RECORDS * (MAPS_RECORDS + 1) / 2;
	__u64 sum = 0;

	s->skel->bss->sum = 0;
	v[INSERT] = all_records(s, progs[which][0]);
	if (v[INSERT] < 0)
		return (int)v[INSERT];
	v[LOOKUP] = all_records(s, progs[which][1]);
	if (v[LOOKUP] < 0)
		return (int)v[LOOKUP];
	v[READ] = which == T_HEAP ? read_heap(t, &sum) : read_map(fd, &sum);
	if (v[READ] < 0)
		return (int)v[READ];
	if (sum != expected || s->skel->bss->sum != expected)
		return -EUCLEAN;
	v[MEMORY] = which == T_HEAP ? heap_bytes(s->heap) : map_bytes(fd);
	v[DELETE] = all_records(s, progs[which][2]);
	return v[DELETE] < 0 ? (int)v[DELETE] : 0;
}

static void report_table(struct report *r, unsigned int rounds,
			 double v[NR_TABLES][NR_PHASES][TABLE_ROUNDS])
{
	static const char *const heads[] = { "<",    ": map", "quartiles", ": lazy", "quartiles",
					     "heap", "map",   "lazy",	   NULL };
	json_object *all = json_must(json_object_new_object());
	struct table *t = table_new(heads);
	double ratio[TABLE_ROUNDS];
	struct spread s;

	for (unsigned int p = 0; p < NR_PHASES; p++) {
		json_object *row = json_must(json_object_new_object());

		table_cell(t, "  %s", phase_names[p]);
		for (unsigned int i = T_MAP; i < NR_TABLES; i++) {
			char key[64];

			for (unsigned int round = 0; round < rounds; round++)
				ratio[round] = v[T_HEAP][p][round] / v[i][p][round];
			snprintf(key, sizeof(key), "heap : %s", table_names[i]);
			json_object_object_add(row, key, figures(ratio, rounds, &s));
			table_cell(t, "%.3f", s.median);
			table_cell(t, "%.3f..%.3f", s.q1, s.q3);
		}
		for (unsigned int i = 0; i < NR_TABLES; i++) {
			double unit = p == MEMORY ? MAPS_RECORDS : 1;

			json_object_object_add(row, table_names[i], figures(v[i][p], rounds, &s));
			table_cell(t, "%.1f", s.median / unit);
		}
		json_object_object_add(all, phase_names[p], row);
	}
	printf("\n%s: a table of %d live records of 8 B in a BPF program, 1 thread: ratios, then ns "
	       "(or bytes) a record\n",
	       maps_rows[MAPS_TABLE].name, MAPS_RECORDS);
	table_print(t);
	printf("  read by user space: plain loads against bpf_map_lookup_batch() of %u\n",
	       READ_BATCH);
	json_object_object_add(report_root(r), maps_rows[MAPS_TABLE].name, all);
}

static const char *run_table(struct report *r, struct side *s, unsigned int rounds)
{
	static double v[NR_TABLES][NR_PHASES][TABLE_ROUNDS];
	hash_t *t = hash_create(s->heap, "record", MAPS_BITS);
	double round[NR_PHASES];

	if (!t)
		return bpf_because("cannot make the table in the heap", errno);
	if (rounds > TABLE_ROUNDS)
		rounds = TABLE_ROUNDS;
	nolock_heap_set_root(s->heap, t);
	for (unsigned int k = 0; k <= rounds; k++) {
		for (unsigned int i = 0; i < NR_TABLES; i++) {
			int error = measure_table(s, i, t, round);

			if (error)
				return bpf_because("a table of a million records", -error);
			/* The first round is to warm up. */
			for (unsigned int p = 0; k && p < NR_PHASES; p++)
				v[i][p][k - 1] = round[p];
		}
	}
	report_table(r, rounds, v);
	hash_destroy(t);
	return NULL;
}

const char *maps_run(struct report *r, unsigned int row, unsigned int rounds,
		     const struct options *o)
{
	struct side s = { 0 };
	const char *problem;

	if (row == MAPS_CPUS && o->nr_cpus < 2)
		return "it takes two CPUs";
	problem = open_side(&s, row == MAPS_TABLE);
	if (!problem && row == MAPS_TABLE)
		problem = run_table(r, &s, rounds);
	else if (!problem && row == MAPS_CPUS)
		problem = run_cpus(r, &s, rounds, o);
	else if (!problem)
		problem = run_batches(r, &s, rounds);
	close_side(&s);
	fflush(stdout);
	return problem;
}
