// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trace_caches.c - the iterator over the kernel's caches against /proc/slabinfo, and what is
 * left where BPF or BTF are not to be had.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "arena.h"
#include "nolock_help.h"
#include "temp.h"
#include "trace_help.h"

/* The iterator came with 6.13: what needs it is skipped before. */
static struct nl_trace *open_iterator(unsigned int what)
{
	struct nl_trace *t = trace_open(what, 0);
	const struct nl_trace_prog *p = trace_find(t, "iter/kmem_cache");

	cr_assert(p);
	if (!p->attached && strstr(p->reason, "cannot iterate"))
		cr_skip_test("%s", p->reason);
	cr_assert(p->attached, "%s", p->reason);
	return t;
}

/* Caches come and go rarely, objects always: sizes must be equal, counts near. */
Test(trace_caches, iterator_agrees_with_slabinfo)
{
	struct nl_trace *t = open_iterator(NL_TRACE_CACHES);
	struct nl_kernel_stat iter, info;
	unsigned int i, common = 0;

	cr_assert_eq(nl_kernel_stat_read(t, &iter), 0);
	cr_assert_eq(iter.from, NL_KERNEL_FROM_ITER);
	cr_assert_eq(nl_kernel_stat_read(NULL, &info), 0);
	cr_assert_eq(info.from, NL_KERNEL_FROM_SLABINFO);
	for (i = 0; i < info.nr; i++) {
		const struct nlt_cache *b = &info.caches[i].now, *a;
		const struct nl_kernel_cache *c = nl_kernel_stat_find(&iter, b->name);

		if (!c)
			continue;
		a = &c->now;
		common++;
		cr_expect_eq(a->size, b->size, "%s: size %u, slabinfo %u", b->name, a->size,
			     b->size);
		cr_expect_leq(a->object_size, a->size);
		cr_expect_eq(a->objs_per_slab, b->objs_per_slab, "%s", b->name);
		cr_expect_eq(a->order, b->order, "%s", b->name);
		if (a->has & NLT_HAS_SLABS) {
			uint64_t d = a->objects > b->objects ? a->objects - b->objects :
							       b->objects - a->objects;

			cr_expect_leq(d, 2000 + b->objects / 4, "%s: %lu objects, slabinfo %lu",
				      b->name, (unsigned long)a->objects,
				      (unsigned long)b->objects);
			cr_expect_leq(a->nr_partial, a->nr_slabs + 64, "%s", b->name);
		}
	}
	cr_log_info("%u caches by the iterator, %u by slabinfo, %u in both", iter.nr, info.nr,
		    common);
	cr_expect_geq(common + 2, info.nr);
	cr_expect_geq(iter.nr, 50);
	nl_kernel_stat_free(&iter);
	nl_kernel_stat_free(&info);
	nl_trace_close(t);
}

Test(trace_caches, known_caches)
{
	static const char *const names[] = { "task_struct", "filp", "dentry", "kmalloc-64",
					     "vm_area_struct" };
	struct nl_trace *t = open_iterator(NL_TRACE_CACHES);
	struct nl_kernel_stat s;

	cr_assert_eq(nl_kernel_stat_read(t, &s), 0);
	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct nl_kernel_cache *c = nl_kernel_stat_find(&s, names[i]);

		cr_assert(c, "%s is missing", names[i]);
		cr_expect_gt(c->now.object_size, 0);
		cr_expect_gt(c->now.objs_per_slab, 0);
		cr_expect(c->now.has & NLT_HAS_NODES);
		cr_expect_geq(c->now.nr_nodes, 1);
		if (c->now.has & NLT_HAS_SLABS) {
			cr_expect_gt(c->now.nr_slabs, 0);
			cr_expect_geq(c->now.objects, c->now.nr_slabs);
		}
	}
	cr_expect_eq(nl_kernel_stat_find(&s, "kmalloc-64")->now.object_size, 64);
	nl_kernel_stat_free(&s);
	nl_trace_close(t);
}

/* A cache that has sheaves: barns within the kernel's soft limits, sheaves no fuller than they hold. */
Test(trace_caches, sheaves_and_barns)
{
	struct nl_trace *t = open_iterator(NL_TRACE_CACHES);
	struct nl_kernel_stat s;
	unsigned int with = 0, cpus = (unsigned int)sysconf(_SC_NPROCESSORS_CONF);

	cr_assert_eq(nl_kernel_stat_read(t, &s), 0);
	for (unsigned int i = 0; i < s.nr; i++) {
		const struct nlt_cache *c = &s.caches[i].now;

		if (!(c->has & NLT_HAS_SHEAVES) || !c->sheaf_capacity)
			continue;
		with++;
		cr_expect_leq(c->sheaf_capacity, 1024, "%s", c->name);
		cr_expect(c->has & NLT_HAS_BARN);
		cr_expect_geq(c->nr_barns, 1, "%s has sheaves and no barn", c->name);
		cr_expect_leq(c->barn_full, 32 * c->nr_barns, "%s", c->name);
		cr_expect_leq(c->barn_empty, 32 * c->nr_barns, "%s", c->name);
		cr_expect(c->has & NLT_HAS_PCS, "%s", c->name);
		cr_expect_leq(c->main_objs, c->sheaf_capacity * cpus, "%s", c->name);
		cr_expect_leq(c->spare_objs, c->sheaf_capacity * c->nr_spare, "%s", c->name);
		cr_expect_leq(c->nr_spare, cpus, "%s", c->name);
	}
	cr_log_info("%u of %u caches have sheaves", with, s.nr);
	/* 6.18 is the first kernel with sheaves, and gives them to maple_node at least */
	if (s.nr && (s.caches[0].now.has & NLT_HAS_SHEAVES))
		cr_expect_gt(with, 0);
	nl_kernel_stat_free(&s);
	nl_trace_close(t);
}

Test(trace_caches, json)
{
	struct nl_trace *t = open_iterator(NL_TRACE_KMEM | NL_TRACE_CACHES);
	struct json_object *o, *parsed, *v, *name;
	struct nl_kernel_stat s;
	size_t i, n, found = 0;

	trace_open_files(100);
	cr_assert_eq(nl_kernel_stat_read(t, &s), 0);
	o = nl_kernel_stat_json(&s, t);
	cr_assert(o);
	parsed = json_tokener_parse(json_object_to_json_string(o));
	cr_assert(parsed);
	cr_assert(json_object_object_get_ex(parsed, "source", &v));
	cr_expect_str_eq(json_object_get_string(v), "iterator");
	cr_assert(json_object_object_get_ex(parsed, "caches", &v));
	n = json_object_array_length(v);
	cr_expect_eq(n, s.nr);
	for (i = 0; i < n; i++) {
		struct json_object *c = json_object_array_get_idx(v, i), *allocs;

		cr_assert(json_object_object_get_ex(c, "name", &name));
		if (strcmp(json_object_get_string(name), "filp"))
			continue;
		found++;
		cr_assert(json_object_object_get_ex(c, "allocs", &allocs));
		cr_expect_geq(json_object_get_int64(allocs), 100);
	}
	cr_expect_eq(found, 1);
	cr_assert(json_object_object_get_ex(parsed, "programs", &v));
	cr_expect_eq(json_object_array_length(v), nl_trace_nr_progs(t));
	json_object_put(parsed);
	json_object_put(o);
	nl_kernel_stat_free(&s);
	nl_trace_close(t);
}

/* Each function of the allocator is attached, or there is a reason; the rest goes on either way. */
Test(trace_caches, functions_attach_or_say_why)
{
	struct nl_trace *t = trace_open(NL_TRACE_ALL, 0);
	unsigned int i, functions = 0, attached = 0, absent = 0;
	struct trace_child child;

	for (i = 0; i < nl_trace_nr_progs(t); i++) {
		const struct nl_trace_prog *p = nl_trace_prog(t, i);

		cr_expect(p->attached != (p->reason[0] != 0), "%s: attached %d, reason '%s'",
			  p->target, p->attached, p->reason);
		if (strncmp(p->target, "fentry/", 7) && strncmp(p->target, "fexit/", 6))
			continue;
		functions++;
		attached += p->attached;
		absent += !!strstr(p->reason, "no such function");
		if (!p->attached && functions <= 2)
			cr_log_info("%s: %s", p->target, p->reason);
	}
	cr_log_info("%u functions: %u attached, %u not in this kernel", functions, attached,
		    absent);
	cr_expect_eq(functions, 15);
	cr_expect_leq(attached + absent, functions);
	if (attached) {
		struct nl_trace_filter f = { 0 };
		struct trace_seen seen = { 0 };
		struct nl_trace_counts c;

		for (i = NLT_NR_TP; i < NLT_FN_END; i++)
			f.kinds |= 1ull << i;
		cr_assert_eq(nl_trace_stream(t, &f), 0);
		trace_child_start(&child, trace_open_files, 20000);
		trace_child_run(&child);
		nl_trace_consume(t, trace_note, &seen);
		nl_trace_counts(t, &c);
		cr_expect_gt(seen.nr, 0, "no sheaf moved for 20000 files");
		cr_log_info("%u events of functions, the last: %s %s", seen.nr,
			    nl_trace_kind_name(seen.last.kind), seen.last.cache);
		cr_expect_geq(c.seen, seen.nr);
		cr_expect_geq(seen.kinds[NLT_PCS_REPLACE_EMPTY_MAIN] +
				      seen.kinds[NLT_PCS_REPLACE_FULL_MAIN],
			      1);
	}
	cr_expect(trace_find(t, "tp_btf/kfree")->attached);
	nl_trace_close(t);
}

/* Hold @n files at once: sheaves and barns run empty, and are filled again by the closing. */
static void hold_files(unsigned int n)
{
	struct rlimit many;
	int *fd = malloc(n * sizeof(*fd));
	unsigned int i;

	if (!fd || getrlimit(RLIMIT_NOFILE, &many))
		_exit(3);
	many.rlim_cur = many.rlim_max;
	setrlimit(RLIMIT_NOFILE, &many);
	for (i = 0; i < n; i++) {
		fd[i] = open("/dev/null", O_RDONLY);
		if (fd[i] < 0)
			_exit(4);
	}
	for (i = 0; i < n; i++)
		close(fd[i]);
	free(fd);
}

static uint64_t moved(const struct nl_trace_counts *a, const struct nl_trace_counts *b, int first,
		      int end)
{
	uint64_t n = 0;

	for (; first <= end; first++)
		n += b->kinds[first] - a->kinds[first];
	return n;
}

static bool kind_attached(const struct nl_trace *t, const char *part)
{
	for (unsigned int i = 0; i < nl_trace_nr_progs(t); i++) {
		const struct nl_trace_prog *p = nl_trace_prog(t, i);

		if (p->attached && p->target[0] == 'f' && strstr(p->target, part))
			return true;
	}
	return false;
}

/* Work that must pass through sheaves, barns and kmalloc_nolock() is counted where they can be traced. */
Test(trace_caches, functions_move)
{
	struct nl_trace *t = trace_open(NL_TRACE_FUNCTIONS, 0);
	struct nl_trace_counts before, after;
	struct trace_child child;
	unsigned int i, attached = 0;
	char line[1024] = "";
	struct arena a;
	int fd;

	for (i = 0; i < nl_trace_nr_progs(t); i++)
		attached += nl_trace_prog(t, i)->attached;
	trace_child_start(&child, hold_files, 3000);
	fd = arena_make(40);
	arena_load(&a, fd);
	cr_assert_eq(nl_trace_counts(t, &before), 0);
	trace_child_run(&child);
	/* An arena whose pages any context may allocate keeps its ranges by kmalloc_nolock(). */
	for (i = 0; a.any_context && i < 20; i++)
		close(arena_make(41));
	arena_unload(&a);
	close(fd);
	cr_assert_eq(nl_trace_counts(t, &after), 0);
	for (i = NLT_NR_TP; i < NLT_FN_END; i++) {
		size_t len = strlen(line);

		if (after.kinds[i] > before.kinds[i])
			snprintf(line + len, sizeof(line) - len, " %s %lu", nl_trace_kind_name(i),
				 (unsigned long)(after.kinds[i] - before.kinds[i]));
	}
	figure("%u functions of the kernel attached; calls:%s", attached, *line ? line : " none");
	if (kind_attached(t, "pcs_replace_empty_main"))
		cr_expect_gt(moved(&before, &after, NLT_PCS_REPLACE_EMPTY_MAIN,
				   NLT_PCS_REPLACE_EMPTY_MAIN),
			     0);
	if (kind_attached(t, "pcs_replace_full_main"))
		cr_expect_gt(moved(&before, &after, NLT_PCS_REPLACE_FULL_MAIN,
				   NLT_PCS_REPLACE_FULL_MAIN),
			     0);
	if (kind_attached(t, "barn_"))
		cr_expect_gt(moved(&before, &after, NLT_BARN_REPLACE_EMPTY_SHEAF, NLT_BARN_SHRINK),
			     0);
	if (kind_attached(t, "kmalloc_nolock") && a.any_context)
		cr_expect_geq(moved(&before, &after, NLT_KMALLOC_NOLOCK, NLT_KMALLOC_NOLOCK), 20);
	nl_trace_close(t);
}

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	cr_assert(f, "%s", path);
	cr_assert_geq(fputs(text, f), 0);
	fclose(f);
}

/* A directory of the form that CONFIG_SLUB_STATS gives. */
Test(trace_caches, slub_counters)
{
	char dir[TEMP_DIR_LEN], cache[96], path[128];
	uint64_t v[NL_SLUB_STATS];
	int i, seen = 0;

	cr_assert_eq(temp_dir(dir, "nolock-slub"), 0);
	cr_expect_not(nl_slub_have(dir));
	snprintf(cache, sizeof(cache), "%s/kmalloc-64", dir);
	cr_assert_eq(mkdir(cache, 0755), 0);
	write_file(cache, "alloc_slowpath", "1234 C0=1000 C1=234\n");
	write_file(cache, "barn_get", "7\n");
	write_file(cache, "sheaf_flush", "garbage\n");
	cr_expect(nl_slub_have(dir));
	cr_expect_eq(nl_slub_read(dir, "kmalloc-64", v), 2);
	for (i = 0; i < NL_SLUB_STATS; i++) {
		cr_assert(nl_slub_names[i]);
		if (!strcmp(nl_slub_names[i], "alloc_slowpath") && v[i] == 1234)
			seen++;
		else if (!strcmp(nl_slub_names[i], "barn_get") && v[i] == 7)
			seen++;
		else
			cr_expect_eq(v[i], NL_SLUB_ABSENT, "%s", nl_slub_names[i]);
	}
	cr_expect_eq(seen, 2);
	cr_expect_eq(nl_slub_read(dir, "no-such", v), -ENOENT);
	for (i = 0; i < 3; i++) {
		static const char *const names[] = { "alloc_slowpath", "barn_get", "sheaf_flush" };

		snprintf(path, sizeof(path), "%s/%s", cache, names[i]);
		unlink(path);
	}
	rmdir(cache);
	rmdir(dir);
}

/* Run in a process of its own; it ends with 0 if all was as expected, else with a line's number. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn() & 255);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

#define EXPECT(x)                                                                                  \
	do {                                                                                       \
		if (!(x))                                                                          \
			return __LINE__;                                                           \
	} while (0)

static int as_nobody(void)
{
	struct nl_kernel_stat s;
	struct nl_trace_counts c;
	struct nl_trace *t;

	EXPECT(!setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
	t = nl_trace_open(NULL);
	EXPECT(t);
	EXPECT(nl_trace_error(t) && strstr(nl_trace_error(t), "CAP_BPF"));
	EXPECT(nl_trace_attach(t) == 0);
	EXPECT(nl_trace_counts(t, &c) == -ENODEV);
	EXPECT(nl_trace_fd(t) == -1);
	EXPECT(nl_trace_stream(t, &(struct nl_trace_filter){ 0 }) == -ENODEV);
	EXPECT(nl_trace_consume(t, trace_note, NULL) == -ENODEV);
	EXPECT(nl_trace_usdt(t, "/proc/self/exe", -1) == -EPERM);
	EXPECT(nl_kernel_stat_read(t, &s) == -EACCES); /* /proc/slabinfo is root's too */
	nl_trace_close(t);
	return 0;
}

Test(trace_caches, without_the_right)
{
	int line = in_child(as_nobody);

	cr_expect_eq(line, 0, "line %d", line);
}

static int without_btf(void)
{
	struct nl_kernel_stat s;
	struct nl_trace *t;

	EXPECT(!unshare(CLONE_NEWNS));
	EXPECT(!mount(NULL, "/sys", NULL, MS_REC | MS_PRIVATE, NULL));
	EXPECT(!mount("/dev/null", "/sys/kernel/btf/vmlinux", NULL, MS_BIND, NULL));
	t = nl_trace_open(NULL);
	EXPECT(t);
	EXPECT(nl_trace_error(t) && strstr(nl_trace_error(t), "BTF"));
	EXPECT(nl_trace_attach(t) == 0);
	EXPECT(nl_kernel_stat_read(t, &s) == 0); /* what is left */
	EXPECT(s.from == NL_KERNEL_FROM_SLABINFO && s.nr > 50);
	nl_kernel_stat_free(&s);
	nl_trace_close(t);
	return 0;
}

Test(trace_caches, without_btf)
{
	int line = in_child(without_btf);

	cr_expect_eq(line, 0, "line %d", line);
}
