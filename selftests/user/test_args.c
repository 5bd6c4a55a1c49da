// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_args.c - wrong arguments of nolockd and nolock: a clear line, a status, nothing done.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <string.h>

#include "daemon.h"
#include "spec.h"

#define TWENTY "twenty-bytes-of-path"
#define LONG_PATH "/" TWENTY TWENTY TWENTY TWENTY TWENTY TWENTY

static struct output o;

TestSuite(args, .init = setup, .timeout = 120);

/* A command line, and a word that the one line about it must contain. */
struct wrong {
	const char *argv[5];
	const char *word;
};

static void all_refused(const struct wrong *wrong, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		run_as(&o, 0, 0, wrong[i].argv);
		cr_expect_eq(o.status, 2, "%s %s: %d", wrong[i].argv[0], wrong[i].argv[1],
			     o.status);
		cr_expect_str_empty(o.out, "%s %s: %s", wrong[i].argv[0], wrong[i].argv[1], o.out);
		cr_expect(strstr(o.err, wrong[i].word), "%s %s: %s", wrong[i].argv[0],
			  wrong[i].argv[1], o.err);
		/* What getopt finds wrong has the hint at --help as a second line. */
		cr_expect(lines(o.err) == 1 || (lines(o.err) == 2 && strstr(o.err, "Try `")), "%s",
			  o.err);
		cr_expect(!exists(sock()));
	}
}
#define ALL_REFUSED(wrong) all_refused((wrong), sizeof(wrong) / sizeof(*(wrong)))

Test(args, nolockd)
{
	static const struct wrong wrong[] = {
		{ { "nolockd", "--nonsense" }, "--nonsense" },
		{ { "nolockd", "-Z" }, "Z" },
		{ { "nolockd", "demo" }, "--heap=NAME" },
		{ { "nolockd", "--heap" }, "requires an argument" },
		{ { "nolockd", "--heap=" }, "name" },
		{ { "nolockd", "--heap=a b" }, "name" },
		{ { "nolockd", "--heap=../etc" }, "name" },
		{ { "nolockd", "--heap=.hidden" }, "name" },
		{ { "nolockd", "--heap=a/b" }, "name" },
		{ { "nolockd", "--heap=\xc3\xa9" }, "name" },
		{ { "nolockd", "--heap=thirty-two-characters-are-too-many" }, "name" },
		{ { "nolockd", "--heap=a:" }, "size" },
		{ { "nolockd", "--heap=a:big" }, "size" },
		{ { "nolockd", "--heap=a:-1" }, "size" },
		{ { "nolockd", "--heap=a:0" }, "size" },
		{ { "nolockd", "--heap=a:1M" }, "size" },
		{ { "nolockd", "--heap=a:5G" }, "size" },
		{ { "nolockd", "--heap=a:64MB" }, "size" },
		{ { "nolockd", "--heap=a:99999999999999999999G" }, "size" },
		{ { "nolockd", "--heap=a:18446744073709551615G" }, "size" },
		{ { "nolockd", "--heap=a:64M:64M" }, "POPULATE" },
		{ { "nolockd", "--heap=a:64M:x" }, "POPULATE" },
		{ { "nolockd", "--heap=a:64M:1M:1M" }, "colons" },
		{ { "nolockd", "--heap=a", "--heap=a:64M" }, "twice" },
		{ { "nolockd", "--heap=a", "--reformat=b" }, "no --heap=b" },
		{ { "nolockd", "--low-watermark=1" }, "low-watermark" },
		{ { "nolockd", "--low-watermark=1G" }, "low-watermark" },
		{ { "nolockd", "--ring=x" }, "ring" },
		{ { "nolockd", "--mode=abc" }, "mode" },
		{ { "nolockd", "--mode=777" }, "mode" },
		{ { "nolockd", "--mode=" }, "mode" },
		{ { "nolockd", "--owner=no-such-user" }, "no such user" },
		{ { "nolockd", "--group=no-such-group" }, "no such group" },
		{ { "nolockd", "--socket=" }, "path" },
		{ { "nolockd", "--check-config", "--socket=" LONG_PATH }, "107 bytes" },
		{ { "nolockd", "--pidfile=" }, "name a file" },
		{ { "nolockd", "--no-trace", "--usdt=/bin/true" }, "--usdt" },
		{ { "nolockd", "--ring=1M", "--no-trace" }, "--ring" },
		{ { "nolockd", "--no-trace", "--trace-nested" }, "--trace-nested" },
	};

	ALL_REFUSED(wrong);
}

Test(args, nolock)
{
	static const struct wrong wrong[] = {
		{ { "nolock" }, "say what to do" },
		{ { "nolock", "frobnicate" }, "'frobnicate' is no command" },
		{ { "nolock", "--nonsense" }, "--nonsense" },
		{ { "nolock", "help", "frobnicate" }, "'frobnicate' is no command" },
		{ { "nolock", "stat", "--nonsense" }, "--nonsense" },
		{ { "nolock", "stat", "demo" }, "--heap=NAME" },
		{ { "nolock", "stat", "--heap=a/b" }, "not the name of a heap" },
		{ { "nolock", "stat", "--heap=" }, "not the name of a heap" },
		{ { "nolock", "stat", "--pid=0" }, "--pid=0" },
		{ { "nolock", "stat", "--pid=x" }, "--pid=x" },
		{ { "nolock", "stat", "--pid=99999999999" }, "--pid=" },
		{ { "nolock", "stat", "--interval=0" }, "--interval=0" },
		{ { "nolock", "stat", "--interval=nan" }, "--interval=nan" },
		{ { "nolock", "stat", "--interval=1x" }, "--interval=1x" },
		{ { "nolock", "stat", "--count=0" }, "--count=0" },
		{ { "nolock", "stat", "--count=-1" }, "--count=-1" },
		{ { "nolock", "stat", "--sort=beauty" }, "--sort=beauty" },
		{ { "nolock", "stat", "--kernel", "--pid=1" }, "exclude" },
		{ { "nolock", "stat", "--heap=a", "--kernel" }, "exclude" },
		{ { "nolock", "check" }, "--heap=NAME" },
		{ { "nolock", "check", "demo" }, "--heap=demo" },
		{ { "nolock", "check", "--heap=*" }, "not the name of a heap" },
		{ { "nolock", "status", "demo" }, "no argument" },
		{ { "nolock", "trace", "x" }, "options alone" },
		{ { "nolock", "trace", "--sample=0" }, "--sample=0" },
		{ { "nolock", "trace", "--pid=-1" }, "--pid=-1" },
		{ { "nolock", "trace", "--duration=0" }, "--duration=0" },
		{ { "nolock", "trace", "--cache=" }, "--cache=" },
		{ { "nolock", "trace", "--cache=a*b" }, "--cache=a*b" },
		{ { "nolock", "trace", "--cache=this-name-has-more-than-31-characters" }, "31" },
	};

	ALL_REFUSED(wrong);
}

/* Without a nolockd each command says so in one line, and what to do. */
Test(args, no_nolockd)
{
	static const struct wrong wrong[] = {
		{ { "nolock", "stat" }, "nolockd does not run" },
		{ { "nolock", "stat", "--heap=a" }, "nolockd does not run" },
		{ { "nolock", "check", "--heap=a" }, "nolockd does not run" },
		{ { "nolock", "status" }, "nolockd does not run" },
		{ { "nolock", "trace" }, "nolockd does not run" },
		{ { "nolock", "stat", "--pid=2147483647" }, "no process" },
	};

	ALL_REFUSED(wrong);
}

Test(args, help_and_version)
{
	static const char *const commands[] = { "stat", "trace", "check", "status" };
	struct output by_option;
	size_t i;

	RUN(&o, "nolockd", "--version");
	cr_expect_eq(o.status, 0);
	cr_expect(!strncmp(o.out, "nolockd ", 8), "%s", o.out);
	RUN(&o, "nolock", "--version");
	cr_expect_eq(o.status, 0);
	cr_expect(!strncmp(o.out, "nolock ", 7), "%s", o.out);
	RUN(&o, "nolockd", "--help");
	cr_expect_eq(o.status, 0);
	cr_expect(strstr(o.out, "EXAMPLES"));
	RUN(&o, "nolock", "help");
	cr_expect_eq(o.status, 0);
	cr_expect(strstr(o.out, "COMMANDS"));
	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		RUN(&o, "nolock", "help", commands[i]);
		RUN(&by_option, "nolock", commands[i], "--help");
		cr_expect_eq(o.status, 0);
		cr_expect_eq(by_option.status, 0);
		cr_expect_str_eq(o.out, by_option.out);
		cr_expect(strstr(o.out, "EXAMPLES"), "%s", o.out);
	}
}

Test(args, sizes)
{
	struct heap_spec spec;
	const char *why;
	uint64_t n;

	cr_expect(!spec_size("0", &n) && n == 0);
	cr_expect(!spec_size("17", &n) && n == 17);
	cr_expect(!spec_size("3k", &n) && n == 3072);
	cr_expect(!spec_size("2G", &n) && n == 2ULL << 30);
	cr_expect(spec_size("", &n));
	cr_expect(spec_size("K", &n));
	cr_expect(spec_size(" 1", &n));
	cr_expect(spec_size("+1", &n));
	cr_expect(spec_size("1KK", &n));
	cr_expect(spec_size("18014398509481984K", &n));
	cr_expect(!spec_heap("a", &spec, &why) && spec.size == 256ULL << 20 && !spec.sized &&
		  spec.populate == 16ULL << 20);
	cr_expect(!spec_heap("a.b-c_D9:17M:1", &spec, &why) && spec.size == 20ULL << 20 &&
		  spec.sized && spec.populate == 64 << 10);
	cr_expect(!spec_heap("a:4G:0", &spec, &why) && spec.size == 4ULL << 30 && !spec.populate);
}
