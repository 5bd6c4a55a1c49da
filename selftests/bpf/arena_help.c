// SPDX-License-Identifier: GPL-2.0-only
/*
 * arena_help.c - see arena_help.h.
 */
#include <bpf/btf.h>
#include <criterion/criterion.h>
#include <string.h>
#include "arena_help.h"
#include "arena_look.h"
#include "arena_look.skel.h"

/* Pages of one run: a program may loop for a quarter of a second; an absent page takes 1 us. */
#define SLICE 16384u

/* Has the running kernel this function for BPF programs? */
static bool kernel_has(const char *function)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool has = btf && btf__find_by_name_kind(btf, function, BTF_KIND_FUNC) > 0;

	btf__free(btf);
	return has;
}

void rig_new(struct rig *r, int fd)
{
	r->fd = fd;
	cr_assert_eq(arena_load(&r->arena, fd), 0, "cannot load the programs: %s", r->arena.why);
	r->look = arena_look_bpf__open();
	cr_assert(r->look);
	cr_assert_eq(bpf_map__reuse_fd(r->look->maps.arena, fd), 0);
	bpf_program__set_autoload(r->look->progs.hold, kernel_has("bpf_arena_reserve_pages"));
	cr_assert_eq(arena_look_bpf__load(r->look), 0);
}

static void run(struct bpf_program *p, struct arena_look *l)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = l, .ctx_size_in = sizeof(*l));

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(p), &opts), 0);
}

nl_u32 rig_there(struct rig *r, nl_u32 first, nl_u32 nr)
{
	nl_u32 there = 0, n;

	for (; nr; first += n, nr -= n) {
		struct arena_look l = { .first = first };

		l.nr = n = nr < SLICE ? nr : SLICE;
		run(r->look->progs.look, &l);
		there += l.there;
	}
	return there;
}

void rig_hold(struct rig *r, nl_u32 first, nl_u32 nr)
{
	struct arena_look l = { .first = first, .nr = nr };

	if (!bpf_program__autoload(r->look->progs.hold))
		cr_skip_test("this kernel cannot reserve pages of an arena (6.17 can)");
	run(r->look->progs.hold, &l);
	cr_assert_eq(l.err, 0, "cannot reserve %u pages from %u on: %s", nr, first,
		     strerror(-l.err));
}

void rig_release(struct rig *r, nl_u32 first, nl_u32 nr)
{
	struct arena_look l = { .first = first, .nr = nr };

	run(r->look->progs.release, &l);
}
