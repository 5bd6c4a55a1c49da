// SPDX-License-Identifier: GPL-2.0-only
/*
 * arena.c - see arena.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "arena.h"
#include "arena_call.h"
#include "capture.h"
#include "core/layout.h"
#include "arena.skel.h"

/* Pages of one run: a program may loop for a quarter of a second, and this takes a fiftieth. */
#define SLICE 4096u

static struct arena_bpf *open_progs(int map_fd)
{
	struct arena_bpf *s = arena_bpf__open();

	if (s && bpf_map__reuse_fd(s->maps.nolock_heap, map_fd)) {
		arena_bpf__destroy(s);
		s = NULL;
	}
	return s;
}

/* The reason in the words of the person who has to do something about it. */
static void explain(char *why, size_t size, int err, const char *said)
{
	if (err == -EPERM || err == -EACCES)
		snprintf(why, size, "no right to load BPF programs (CAP_BPF and CAP_PERFMON)");
	else if (access("/sys/kernel/btf/vmlinux", R_OK))
		snprintf(why, size, "the kernel has no BTF (/sys/kernel/btf/vmlinux)");
	else
		snprintf(why, size, "%s%s%s", strerror(-err), *said ? ": " : "", said);
}

/*
 * May programs that cannot sleep allocate pages? Only loading one tells, on one arena as on any
 * other.
 */
static void try_any_context(struct arena *a, int map_fd)
{
	static char why[sizeof(a->why_not_any)];
	static bool tried, allowed;
	struct bpf_program *p;
	struct arena_bpf *s;
	const char *said;
	int err;

	if (tried)
		goto out;
	tried = true;
	nl_capture_begin();
	s = open_progs(map_fd);
	err = s ? 0 : -errno;
	if (s) {
		bpf_object__for_each_program(p, s->obj)
			bpf_program__set_autoload(p, p == s->progs.arena_grow_any);
		err = arena_bpf__load(s);
	}
	said = nl_capture_end();
	allowed = !err;
	if (err)
		snprintf(why, sizeof(why), "only Linux 7.0 on allows that (%s)",
			 *said ? said : strerror(-err));
	arena_bpf__destroy(s);
out:
	a->any_context = allowed;
	strcpy(a->why_not_any, why);
}

int arena_load(struct arena *a, int map_fd)
{
	const char *said;
	int err = 0;

	memset(a, 0, sizeof(*a));
	a->grow = -1;
	nl_capture_begin();
	a->progs = open_progs(map_fd);
	if (!a->progs)
		err = -errno;
	else
		err = arena_bpf__load(a->progs);
	said = nl_capture_end();
	if (err) {
		explain(a->why, sizeof(a->why), err, said);
		snprintf(a->why_not_any, sizeof(a->why_not_any), "%s", a->why);
		arena_bpf__destroy(a->progs);
		a->progs = NULL;
		return err;
	}
	a->grow = bpf_program__fd(a->progs->progs.arena_grow);
	a->size = (uint64_t)bpf_map__max_entries(a->progs->maps.nolock_heap) * NL_PAGE;
	try_any_context(a, map_fd);
	return 0;
}

void arena_unload(struct arena *a)
{
	arena_bpf__destroy(a->progs);
	a->progs = NULL;
	a->grow = -1;
}

/* The kernel writes a syscall program's context back to where it came from. */
static int run(int prog, void *ctx, size_t size)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = ctx, .ctx_size_in = size);

	return bpf_prog_test_run_opts(prog, &opts);
}

int arena_setup(const struct arena *a, uint64_t from, uint64_t to, uint64_t *made)
{
	uint64_t page = from / NL_PAGE, end = (to + NL_PAGE - 1) / NL_PAGE;
	struct nla_setup c;
	int err = 0;

	if (!a->progs)
		return -ENODEV;
	/* The program would wrap around: the lower half of an address is the place in the arena. */
	if (from > to || to > a->size)
		return -EINVAL;
	for (; !err && page < end; page += SLICE) {
		c = (struct nla_setup){
			.first = page,
			.nr = end - page < SLICE ? end - page : SLICE,
		};
		err = run(bpf_program__fd(a->progs->progs.arena_setup), &c, sizeof(c));
		if (!err)
			err = c.err;
		*made += (uint64_t)c.made * NL_PAGE;
	}
	return err;
}

int arena_grow(int prog)
{
	struct nla_grow c = { 0 };
	int err = run(prog, &c, sizeof(c));

	return err ? err : c.err;
}
