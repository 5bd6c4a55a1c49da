// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_arena_setup.c - the program that sets up an arena makes present exactly what it was asked
 * for, beside whatever is there already.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "arena_help.h"

#define PAGES (ARENA_BYTES / NL_PAGE)
#define ARENA_BYTES (4ULL << 30)

TestSuite(arena_setup, .timeout = 120);

static nl_u64 setup(struct rig *r, nl_u64 first, nl_u64 nr)
{
	nl_u64 made = 0;
	int err = arena_setup(&r->arena, first * NL_PAGE, (first + nr) * NL_PAGE, &made);

	cr_assert_eq(err, 0, "%s", strerror(-err));
	return made / NL_PAGE;
}

static unsigned char *map(struct rig *r)
{
	unsigned char *p = mmap((void *)arena_base(0), ARENA_BYTES, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED_NOREPLACE, r->fd, 0);

	cr_assert_neq(p, MAP_FAILED, "%s", strerror(errno));
	return p;
}

Test(arena_setup, exactly_those_pages)
{
	static const unsigned char zero[NL_PAGE];
	static const struct {
		nl_u32 first, nr;
	} ranges[] = { { 0, 1 }, { 7, 128 }, { 1000, 129 }, { 5000, 9000 }, { PAGES - 3, 3 } };
	unsigned char *mem;
	struct rig r;
	nl_u32 sum = 0;

	rig_new(&r, arena_make(0));
	cr_assert_eq(rig_there(&r, 0, 20000), 0);
	for (unsigned int i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
		nl_u32 first = ranges[i].first, nr = ranges[i].nr;

		cr_assert_eq(setup(&r, first, nr), nr);
		sum += nr;
		cr_assert_eq(rig_there(&r, first, nr), nr, "not all of %u pages from %u on", nr,
			     first);
	}
	cr_assert_eq(rig_there(&r, 0, 20000) + rig_there(&r, PAGES - 2000, 2000), sum,
		     "more than was asked for");
	/* User space finds the same pages, and nothing in them. */
	mem = map(&r);
	for (nl_u32 i = 5000; i < 14000; i++)
		cr_assert_eq(memcmp(mem + (size_t)i * NL_PAGE, zero, NL_PAGE), 0);
}

/* Pages that user space has touched are refused by the kernel, and stay as they are. */
Test(arena_setup, beside_what_is_there)
{
	unsigned char *mem, want;
	nl_u32 there = 0;
	struct rig r;

	rig_new(&r, arena_make(0));
	mem = map(&r);
	/* Also the value by which the program asks whether a page is there. */
	for (nl_u32 i = 100; i < 1100; i += 3, there++)
		mem[(size_t)i * NL_PAGE] = i % 2;
	cr_assert_eq(setup(&r, 0, 2000), 2000 - there);
	cr_assert_eq(rig_there(&r, 0, 4000), 2000);
	cr_assert_eq(setup(&r, 0, 2000), 0, "the second time there is nothing to do");
	for (nl_u32 i = 0; i < 2000; i++) {
		want = i >= 100 && i < 1100 && (i - 100) % 3 == 0 ? i % 2 : 0;
		cr_assert_eq(mem[(size_t)i * NL_PAGE], want, "page %u was written to", i);
	}
}

/* Bytes count in whole pages. */
Test(arena_setup, part_of_a_page)
{
	nl_u64 made = 0;
	struct rig r;

	rig_new(&r, arena_make(0));
	cr_assert_eq(arena_setup(&r.arena, NL_PAGE + 1, 2 * NL_PAGE + 1, &made), 0);
	cr_assert_eq(made, 2 * NL_PAGE);
	cr_assert_eq(rig_there(&r, 1, 2), 2);
	cr_assert_eq(arena_setup(&r.arena, 8 * NL_PAGE, 8 * NL_PAGE, &made), 0);
	cr_assert_eq(rig_there(&r, 0, 4000), 2);
}

/* What cannot be made present is an error, and what can is counted. */
Test(arena_setup, not_to_be_had)
{
	nl_u64 made = 0;
	struct rig r;

	rig_new(&r, arena_make(0));
	rig_hold(&r, 300, 1);
	cr_assert_eq(arena_setup(&r.arena, 0, 400 * NL_PAGE, &made), -ENOMEM);
	cr_assert_eq(rig_there(&r, 300, 1), 0);
	rig_release(&r, 300, 1);
	cr_assert_eq(arena_setup(&r.arena, 0, 400 * NL_PAGE, &made), 0);
	cr_assert_eq(rig_there(&r, 0, 4000), 400);
	made = 0;
	cr_assert_eq(arena_setup(&r.arena, ARENA_BYTES - NL_PAGE, ARENA_BYTES + NL_PAGE, &made),
		     -EINVAL, "beyond the arena's end");
	cr_assert_eq(made, 0);
	cr_assert_eq(rig_there(&r, PAGES - 1, 1), 0);
	arena_unload(&r.arena);
	cr_assert_eq(arena_setup(&r.arena, 0, NL_PAGE, &made), -ENODEV);
}
