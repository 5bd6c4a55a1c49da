// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace.c - the handle of the tracing module: its maps, its counters, its stream of events.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "trace_priv.h"

#define RING_DEFAULT (4u << 20)
#define RING_MAX (1u << 30)
#define QUIET_MAX 256
#define TICK_NS (100l * 1000 * 1000)

/* --- maps --- */

static int make_map(struct nl_trace *t, int id, enum bpf_map_type type, const char *name,
		    unsigned int value, unsigned int entries)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	unsigned int key = type == BPF_MAP_TYPE_RINGBUF ? 0 : sizeof(__u32);

	opts.map_flags = type == BPF_MAP_TYPE_ARRAY ? BPF_F_MMAPABLE : 0;
	t->map[id] = bpf_map_create(type, name, key, value, entries, &opts);
	return t->map[id] < 0 ? -errno : 0;
}

/* An array, and its memory as ours. NULL with errno. */
static void *make_array(struct nl_trace *t, int id, const char *name, unsigned int value,
			unsigned int entries)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *mem;

	if (make_map(t, id, BPF_MAP_TYPE_ARRAY, name, value, entries))
		return NULL;
	t->map_len[id] = ((size_t)value * entries + page - 1) & ~(page - 1);
	mem = mmap(NULL, t->map_len[id], PROT_READ | PROT_WRITE, MAP_SHARED, t->map[id], 0);
	return mem == MAP_FAILED ? NULL : mem;
}

static int make_maps(struct nl_trace *t)
{
	int err;

	t->state = make_array(t, NL_MAP_STATE, "nlt_state", sizeof(*t->state), 1);
	if (!t->state)
		return -errno;
	t->rows = make_array(t, NL_MAP_ROWS, "nlt_rows", sizeof(*t->rows), t->nr_cpus * NLT_ROWS);
	if (!t->rows)
		return -errno;
	t->nested = make_array(t, NL_MAP_NESTED, "nlt_nested", sizeof(*t->nested), NLT_ROWS);
	if (!t->nested)
		return -errno;
	t->cpus = make_array(t, NL_MAP_CPUS, "nlt_cpus", sizeof(*t->cpus), t->nr_cpus);
	if (!t->cpus)
		return -errno;
	err = make_map(t, NL_MAP_QUIET, BPF_MAP_TYPE_HASH, "nlt_quiet", 1, QUIET_MAX);
	if (!err)
		err = make_map(t, NL_MAP_RING, BPF_MAP_TYPE_RINGBUF, "nlt_ring", 0, t->ring_bytes);
	return err;
}

static void free_maps(struct nl_trace *t)
{
	int i;

	if (t->state)
		munmap(t->state, t->map_len[NL_MAP_STATE]);
	if (t->rows)
		munmap(t->rows, t->map_len[NL_MAP_ROWS]);
	if (t->nested)
		munmap(t->nested, t->map_len[NL_MAP_NESTED]);
	if (t->cpus)
		munmap(t->cpus, t->map_len[NL_MAP_CPUS]);
	t->state = NULL;
	t->rows = NULL;
	t->nested = NULL;
	t->cpus = NULL;
	for (i = 0; i < NL_TRACE_MAPS; i++) {
		if (t->map[i] >= 0)
			close(t->map[i]);
		t->map[i] = -1;
	}
}

/* --- the ring --- */

static int on_record(void *arg, void *data, size_t size)
{
	struct nl_trace *t = arg;

	if (size < sizeof(struct nlt_event))
		return 0;
	t->fn_ret = t->fn(t->arg, data);
	return t->fn_ret;
}

static int make_ring(struct nl_trace *t)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int err = 0;

	nl_capture_begin();
	t->ring = ring_buffer__new(t->map[NL_MAP_RING], on_record, t, NULL);
	if (!t->ring)
		err = -errno;
	nl_capture_end();
	if (err)
		return err;
	t->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (t->timer < 0 || t->epoll < 0)
		return -errno;
	ev.data.fd = t->timer;
	if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, t->timer, &ev))
		return -errno;
	ev.data.fd = ring_buffer__epoll_fd(t->ring);
	if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, ev.data.fd, &ev))
		return -errno;
	return 0;
}

/* The timer looks after what is too little to wake us for. */
static int set_timer(struct nl_trace *t, bool on)
{
	struct itimerspec its = {};

	its.it_value.tv_nsec = on ? TICK_NS : 0;
	its.it_interval.tv_nsec = on ? TICK_NS : 0;
	return timerfd_settime(t->timer, 0, &its, NULL) ? -errno : 0;
}

/* --- life --- */

static void explain(struct nl_trace *t, int err)
{
	if (err == -EPERM || err == -EACCES)
		snprintf(t->error, sizeof(t->error),
			 "no right to use BPF: run as root, or with CAP_BPF and CAP_PERFMON");
	else if (err == -ENOSYS || err == -EINVAL)
		snprintf(
			t->error, sizeof(t->error),
			"this kernel's BPF is too old or switched off (%s): 6.12 or later is needed",
			strerror(-err));
	else
		snprintf(t->error, sizeof(t->error), "cannot make the maps for tracing: %s",
			 strerror(-err));
}

struct nl_trace *nl_trace_open(const struct nl_trace_opts *opts)
{
	struct nl_trace *t = calloc(1, sizeof(*t));
	unsigned int ring = RING_DEFAULT;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int i, err, cpus;

	if (!t)
		return NULL;
	t->what = NL_TRACE_ALL;
	if (opts && opts->sz >= offsetof(struct nl_trace_opts, ring_bytes) && opts->what)
		t->what = opts->what;
	if (opts && opts->sz >= sizeof(*opts) && opts->ring_bytes)
		ring = opts->ring_bytes;
	for (t->ring_bytes = (unsigned int)page; t->ring_bytes < ring && t->ring_bytes < RING_MAX;)
		t->ring_bytes *= 2;
	t->timer = -1;
	t->epoll = -1;
	for (i = 0; i < NL_TRACE_MAPS; i++)
		t->map[i] = -1;
	t->base = calloc(NLT_SLOTS, sizeof(*t->base));
	if (!t->base) {
		free(t);
		errno = ENOMEM;
		return NULL;
	}

	nl_capture_begin();
	cpus = libbpf_num_possible_cpus();
	t->btf = btf__load_vmlinux_btf();
	nl_capture_end();
	t->nr_cpus = cpus > 0 ? (unsigned int)cpus : 1;
	err = make_maps(t);
	if (!err)
		err = make_ring(t);
	if (err) {
		explain(t, err);
		free_maps(t);
		return t;
	}
	if (!t->btf) {
		snprintf(t->error, sizeof(t->error),
			 "the kernel has no BTF (/sys/kernel/btf/vmlinux): one built with "
			 "CONFIG_DEBUG_INFO_BTF is needed");
		return t;
	}
	t->state->nr_cpus = t->nr_cpus;
	t->state->wake_bytes = t->ring_bytes / 4;
	return t;
}

static int nr_attached(const struct nl_trace *t)
{
	unsigned int i;
	int n = 0;

	for (i = 0; i < t->nr_progs; i++)
		n += t->progs[i].attached;
	return n;
}

int nl_trace_attach(struct nl_trace *t)
{
	if (!t->error[0] && !t->tried) {
		t->tried = true;
		/* the second kmem programs need the iterator over programs */
		if (t->what & (NL_TRACE_CACHES | NL_TRACE_NESTED))
			nl_trace_load_iter(t);
		if (t->what & NL_TRACE_KMEM)
			nl_trace_load_kmem(t);
		if (t->what & NL_TRACE_FUNCTIONS)
			nl_trace_load_functions(t);
	}
	return nr_attached(t);
}

static void detach_one(struct nl_trace *t, unsigned int i)
{
	struct nl_prog *p = &t->priv[i];

	p->missed_before = nl_trace_misses(p);
	p->fd = -1;
	bpf_link__destroy(p->link);
	bpf_object__close(p->own);
	p->link = NULL;
	p->own = NULL;
	t->progs[i].attached = false;
	if (!t->progs[i].reason[0])
		snprintf(t->progs[i].reason, sizeof(t->progs[i].reason), "detached");
}

void nl_trace_detach(struct nl_trace *t)
{
	unsigned int i;

	nl_trace_stream(t, NULL);
	/* first the second programs, so that no miss of a first one is counted unlooked-after */
	for (i = t->nr_progs; i-- > 0;)
		detach_one(t, i);
	t->caches = NULL;
	if (t->state)
		memset(t->state->active, 0, sizeof(t->state->active));
	bpf_object__close(t->kmem);
	bpf_object__close(t->iter);
	bpf_object__close(t->usdt);
	t->kmem = NULL;
	t->iter = NULL;
	t->usdt = NULL;
}

void nl_trace_close(struct nl_trace *t)
{
	if (!t)
		return;
	nl_trace_detach(t);
	ring_buffer__free(t->ring);
	if (t->timer >= 0)
		close(t->timer);
	if (t->epoll >= 0)
		close(t->epoll);
	free_maps(t);
	btf__free(t->btf);
	nl_ksyms_free(&t->ksyms);
	free(t->progs);
	free(t->priv);
	free(t->base);
	free(t);
}

const char *nl_trace_error(const struct nl_trace *t)
{
	return t->error[0] ? t->error : NULL;
}

unsigned int nl_trace_nr_progs(const struct nl_trace *t)
{
	return t->nr_progs;
}

const struct nl_trace_prog *nl_trace_prog(const struct nl_trace *t, unsigned int i)
{
	return i < t->nr_progs ? &t->progs[i] : NULL;
}

/* --- USDT --- */

static const struct {
	const char *name;
	int kind;
} probes[] = {
	{ "sheaf_refill", NLT_U_SHEAF_REFILL }, { "sheaf_flush", NLT_U_SHEAF_FLUSH },
	{ "alloc_slab", NLT_U_ALLOC_SLAB },	{ "free_slab", NLT_U_FREE_SLAB },
	{ "alloc_fail", NLT_U_ALLOC_FAIL },	{ "free_refused", NLT_U_FREE_REFUSED },
	{ "heap_grow", NLT_U_HEAP_GROW },
};

#define NR_PROBES (sizeof(probes) / sizeof(probes[0]))

static void usdt_target(char *buf, size_t size, const char *path, pid_t pid, const char *probe)
{
	char of[24] = "";

	if (pid >= 0)
		snprintf(of, sizeof(of), " pid %d", pid);
	snprintf(buf, size, "usdt/%s:nolock:%s%s", path, probe, of);
}

static int find_usdt(const struct nl_trace *t, const char *path, pid_t pid, const char *probe)
{
	char target[sizeof(t->progs[0].target)];
	unsigned int i;

	usdt_target(target, sizeof(target), path, pid, probe);
	for (i = 0; i < t->nr_progs; i++)
		if (!strcmp(t->progs[i].target, target))
			return (int)i;
	return -ENOENT;
}

static int attach_probe(struct nl_trace *t, struct bpf_program *prog, const char *path, pid_t pid,
			int i, const char *probe, int kind)
{
	LIBBPF_OPTS(bpf_usdt_opts, opts, .usdt_cookie = (__u64)kind);
	struct bpf_link *link;
	const char *why;
	int err;

	nl_capture_begin();
	link = bpf_program__attach_usdt(prog, pid, path, "nolock", probe, &opts);
	err = errno;
	why = nl_capture_end();
	if (!link) {
		if (err == ENOENT)
			nl_trace_fail(t, i, "no such probe in %s", path);
		else
			nl_trace_fail(t, i, "not attached: %s%s%s", strerror(err), *why ? ": " : "",
				      why);
		return -err;
	}
	t->priv[i].link = link;
	t->progs[i].attached = true;
	t->progs[i].reason[0] = 0;
	return 0;
}

int nl_trace_usdt(struct nl_trace *t, const char *path, pid_t pid)
{
	char target[sizeof(t->progs[0].target)], why[200] = "";
	struct bpf_program *prog;
	unsigned int n;
	int i, err, first = 0, done = 0;

	if (t->error[0])
		return -EPERM;
	if (access(path, R_OK))
		return -errno;
	for (n = 0; n < NR_PROBES; n++) {
		i = find_usdt(t, path, pid, probes[n].name);
		if (i >= 0 && t->progs[i].attached)
			return -EEXIST;
	}
	err = nl_trace_load_usdt(t, why, sizeof(why));
	prog = err ? NULL : bpf_object__find_program_by_name(t->usdt, "nlt_usdt");
	for (n = 0; n < NR_PROBES; n++) {
		i = find_usdt(t, path, pid, probes[n].name);
		if (i < 0) {
			usdt_target(target, sizeof(target), path, pid, probes[n].name);
			i = nl_trace_add_prog(t, "nlt_usdt", target, probes[n].kind);
		}
		if (i < 0)
			return i;
		if (err) {
			nl_trace_fail(t, i, "%s", why);
			continue;
		}
		i = attach_probe(t, prog, path, pid, i, probes[n].name, probes[n].kind);
		if (!i)
			done++;
		else if (!first || first == -ENOENT)
			first = i;
	}
	if (err)
		return err;
	return done ? done : first;
}

int nl_trace_usdt_detach(struct nl_trace *t, const char *path, pid_t pid)
{
	unsigned int n;
	int i, ret = -ENOENT;

	for (n = 0; n < NR_PROBES; n++) {
		i = find_usdt(t, path, pid, probes[n].name);
		if (i < 0)
			continue;
		bpf_link__destroy(t->priv[i].link);
		/* the line goes: a daemon would gather one for each client otherwise */
		t->nr_progs--;
		t->progs[i] = t->progs[t->nr_progs];
		t->priv[i] = t->priv[t->nr_progs];
		ret = 0;
	}
	return ret;
}

/* --- counters --- */

int nl_trace_counts(const struct nl_trace *t, struct nl_trace_counts *out)
{
	uint64_t missed[NLT_NR_TP] = { 0 }, nested[NLT_NR_TP] = { 0 };
	unsigned int i, cpu, row;

	memset(out, 0, sizeof(*out));
	if (!t->rows)
		return -ENODEV;
	/* misses before what was caught of them: the difference is then never too large */
	for (i = 0; i < t->nr_progs; i++) {
		const struct nl_prog *p = &t->priv[i];

		if (p->second)
			continue;
		if (p->kind >= 0 && p->kind < NLT_NR_TP)
			missed[p->kind] += nl_trace_misses(p);
		else if (p->kind < NLT_FN_END)
			out->lost_missed += nl_trace_misses(p);
	}
	__sync_synchronize();
	for (cpu = 0; cpu < t->nr_cpus; cpu++) {
		const volatile struct nlt_cpu *c = &t->cpus[cpu];

		for (i = 0; i < NLT_NR_TP; i++) {
			nested[i] += c->nested[i];
			out->lost_full += c->full[i];
			out->kinds[i] += c->full[i];
		}
		for (; i < NLT_NR_KINDS; i++)
			out->kinds[i] += c->kinds[i];
		out->streamed += c->streamed;
		out->lost_ring += c->ring_lost;
	}
	for (row = 0; row < (t->nr_cpus + 1) * NLT_ROWS; row++) {
		const volatile struct nlt_row *r = row < t->nr_cpus * NLT_ROWS ?
							   &t->rows[row] :
							   &t->nested[row - t->nr_cpus * NLT_ROWS];

		out->kinds[NLT_KMEM_CACHE_ALLOC] += r->cache_allocs + r->cache_fails;
		out->kinds[NLT_KMEM_CACHE_FREE] += r->cache_frees;
		out->kinds[NLT_KMALLOC] += r->kmallocs + r->kmalloc_fails;
		out->kinds[NLT_KFREE] += r->kfrees;
	}
	for (i = 0; i < NLT_NR_TP; i++) {
		out->nested += nested[i];
		if (missed[i] > nested[i])
			out->lost_missed += missed[i] - nested[i];
	}
	for (i = 0; i < NLT_NR_KINDS; i++)
		out->seen += out->kinds[i];
	out->lost = out->lost_full + out->lost_missed + out->lost_ring;
	return 0;
}

/* --- the stream --- */

/* As nlt_name_matches() in the programs. */
static bool name_matches(const char *pattern, const char *name)
{
	size_t len = strlen(pattern);

	if (len && pattern[len - 1] == '*')
		return !strncmp(pattern, name, len - 1);
	return !strcmp(pattern, name);
}

int nl_trace_stream(struct nl_trace *t, const struct nl_trace_filter *filter)
{
	volatile struct nlt_state *st = t->state;
	const char *star;
	unsigned int i;
	int err;

	if (!st || !t->ring)
		return filter ? -ENODEV : 0;
	if (!filter) {
		st->stream = 0;
		t->streaming = false;
		return set_timer(t, false);
	}
	if (!nr_attached(t))
		return -ENODEV;
	if (!memchr(filter->cache, 0, sizeof(filter->cache)))
		return -EINVAL;
	star = strchr(filter->cache, '*');
	if (star && star[1])
		return -EINVAL;
	err = nl_trace_quiet(t, getpid(), true);
	if (err)
		return err;

	st->stream = 0;
	memcpy(t->state->cache, filter->cache, sizeof(filter->cache));
	st->by_cache = filter->cache[0] != 0;
	__sync_synchronize(); /* a place that is taken from here on asks by_cache and cache[] itself */
	for (i = 0; i < NLT_SLOTS; i++)
		if (st->keys[i] > NLT_TOMBSTONE)
			st->slots[i].want = !st->by_cache ||
					    name_matches(filter->cache, t->state->slots[i].name);
	st->want_pid = filter->pid > 0 ? (nlt_u32)filter->pid : 0;
	st->sample = filter->sample;
	st->kinds = filter->kinds ? filter->kinds : ~0ull;
	__sync_synchronize(); /* the filter is whole before the programs heed it */
	st->stream = 1;
	t->streaming = true;
	return set_timer(t, true);
}

int nl_trace_quiet(struct nl_trace *t, pid_t pid, bool quiet)
{
	__u32 key = (__u32)pid;
	__u8 one = 1;
	int err;

	if (t->map[NL_MAP_QUIET] < 0)
		return -ENODEV;
	if (quiet)
		err = bpf_map_update_elem(t->map[NL_MAP_QUIET], &key, &one, BPF_ANY);
	else
		err = bpf_map_delete_elem(t->map[NL_MAP_QUIET], &key);
	return err ? -errno : 0;
}

int nl_trace_fd(const struct nl_trace *t)
{
	return t->epoll;
}

int nl_trace_consume(struct nl_trace *t, nl_trace_fn fn, void *arg)
{
	uint64_t ticks;
	int n;

	if (!t->ring)
		return -ENODEV;
	if (read(t->timer, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		return -errno;
	t->fn = fn;
	t->arg = arg;
	t->fn_ret = 0;
	n = ring_buffer__consume(t->ring);
	return t->fn_ret ? t->fn_ret : n;
}
