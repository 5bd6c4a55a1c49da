// SPDX-License-Identifier: GPL-2.0-only
/*
 * pair.c - the BPF side: pairs of kmalloc_nolock() and kfree_nolock() in an arena against pairs
 * of bpf_obj_new() and bpf_obj_drop(), by BPF_PROG_TEST_RUN of one program each.
 *
 * The heap is made here and dies with the process: nothing is pinned and no nolockd is needed.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <nolock/bpf.h>

#include "bench.h"
#include "internal.h"
#include "pairs.skel.h"

#define MAP_TYPE_ARENA 33 /* libbpf 1.1's headers do not know it */
/* Behind where nolockd places heaps. */
#define ARENA_AT 0x567100000000ULL
#define TURNS 20000

static char why[256];

const char *bpf_because(const char *what, int error)
{
	snprintf(why, sizeof(why), "%s: %s%s", what, strerror(error),
		 error == EPERM ? " (needs root, or CAP_BPF and CAP_PERFMON)" : "");
	return why;
}

struct nolock_heap *bpf_heap(uint64_t size)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE, .map_extra = ARENA_AT);
	struct nl_shape shape = { .base = ARENA_AT,
				  .size = size,
				  .type = NL_HEAP_ARENA,
				  .nr_nodes = 1,
				  .slot_by_cpu = 1,
				  .name = "bench" };
	struct nolock_heap *heap;
	int fd, error;
	void *mem;

	shape.nr_slots = nl_possible_cpus();
	fd = bpf_map_create(MAP_TYPE_ARENA, "nolock_bench", 0, 0, (__u32)(size / NL_PAGE), &opts);
	if (fd < 0)
		return NULL;
	mem = mmap((void *)ARENA_AT, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
		   fd, 0);
	if (mem == MAP_FAILED)
		goto close;
	/* BPF reads 0 from an absent page and populates none. */
	error = madvise(mem, nl_heap_fixed_size(&shape), MADV_POPULATE_WRITE) ? errno : 0;
	if (!error)
		error = -nl_heap_format(mem, &shape);
	munmap(mem, size);
	errno = error;
	if (error)
		goto close;
	heap = nl_heap_map(fd, NL_HEAP_ARENA, ARENA_AT, size, 1);
	if (!heap)
		goto close;
	if (nl_heap_grow(heap, ~0u))
		return heap;
	nolock_heap_close(heap);
	errno = ENOMEM;
	return NULL;
close:
	error = errno;
	close(fd);
	errno = error;
	return NULL;
}

static int be_quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level, (void)fmt, (void)ap;
	return 0;
}

void bpf_be_quiet(void)
{
	libbpf_set_print(be_quiet);
}

double bpf_packet(const struct bpf_program *prog)
{
	char packet[64] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));
	int error = bpf_prog_test_run_opts(bpf_program__fd(prog), &opts);

	return error ? error : (double)opts.duration;
}

/* One run of one loop: ns for each turn, or a negative errno. */
static double run(struct pairs_bpf *skel, const struct bpf_program *prog)
{
	double ns = bpf_packet(prog);

	if (ns >= 0 && (skel->bss->failed || skel->bss->done != TURNS))
		return -ENOMEM;
	return ns < 0 ? ns : ns / TURNS;
}

const char *bpf_pairs(unsigned int rounds, double *ns[NR_BENCH_BPF])
{
	const struct bpf_program *progs[NR_BENCH_BPF];
	struct nolock_heap *heap;
	struct pairs_bpf *skel;
	const char *problem = NULL;
	int error;

	bpf_be_quiet();
	heap = bpf_heap(64ULL << 20);
	if (!heap)
		return bpf_because("cannot make a heap in a bpf_arena", errno);
	skel = pairs_bpf__open();
	if (!skel) {
		problem = bpf_because("cannot open the BPF object", errno);
		goto close;
	}
	error = nolock_bpf_attach_heap(skel->obj, heap);
	if (!error)
		error = pairs_bpf__load(skel);
	if (error) {
		problem = bpf_because("the kernel refuses the BPF programs", -error);
		goto destroy;
	}
	skel->bss->turns = TURNS;
	progs[BENCH_BPF_EMPTY] = skel->progs.empty;
	progs[BENCH_BPF_NOLOCK] = skel->progs.nolock;
	progs[BENCH_BPF_OBJ] = skel->progs.obj;
	progs[BENCH_BPF_HASH] = skel->progs.hash;
	progs[BENCH_BPF_LAZY] = skel->progs.hash_lazy;
	for (unsigned int i = 0; i < NR_BENCH_BPF; i++)
		run(skel, progs[i]); /* warm */
	for (unsigned int round = 0; round < rounds; round++) {
		for (unsigned int i = 0; i < NR_BENCH_BPF; i++) {
			double t = run(skel, progs[i]);

			if (t < 0) {
				problem = bpf_because("a BPF loop did not end well", -(int)t);
				goto destroy;
			}
			ns[i][round] = t;
		}
	}
destroy:
	pairs_bpf__destroy(skel);
close:
	nolock_heap_close(heap);
	return problem;
}
