// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_load.c - getting the tracing programs into whatever kernel this is.
 *
 * One program that a kernel refuses must not take the others with it. libbpf loads an object whole,
 * so an object that fails is tried again program by program, and then with those that were good.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "trace_priv.h"
#include "trace.skel.h"
#include "trace_fn.skel.h"
#include "trace_iter.skel.h"
#include "trace_usdt.skel.h"

/* --- the table --- */

int nl_trace_add_prog(struct nl_trace *t, const char *name, const char *target, int kind)
{
	struct nl_trace_prog *progs;
	struct nl_prog *priv;

	if (t->nr_progs == t->room) {
		unsigned int room = t->room ? 2 * t->room : 32;

		progs = realloc(t->progs, room * sizeof(*progs));
		if (!progs)
			return -ENOMEM;
		t->progs = progs;
		priv = realloc(t->priv, room * sizeof(*priv));
		if (!priv)
			return -ENOMEM;
		t->priv = priv;
		t->room = room;
	}
	progs = &t->progs[t->nr_progs];
	memset(progs, 0, sizeof(*progs));
	snprintf(progs->name, sizeof(progs->name), "%s", name);
	snprintf(progs->target, sizeof(progs->target), "%s", target);
	t->priv[t->nr_progs] = (struct nl_prog){ .fd = -1, .kind = kind };
	return (int)t->nr_progs++;
}

void nl_trace_fail(struct nl_trace *t, int i, const char *format, ...)
{
	va_list args;

	if (i < 0)
		return;
	va_start(args, format);
	vsnprintf(t->progs[i].reason, sizeof(t->progs[i].reason), format, args);
	va_end(args);
}

/* "Operation not permitted: what libbpf or the verifier said" */
static void fail_with(struct nl_trace *t, int i, const char *what, int err, const char *why)
{
	const char *after = err == EPERM ? " (the kernel refuses it)" : "";

	nl_trace_fail(t, i, "%s: %s%s%s%s", what, strerror(err), after, *why ? ": " : "", why);
}

uint64_t nl_trace_misses(const struct nl_prog *p)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (p->fd < 0 || bpf_obj_get_info_by_fd(p->fd, &info, &len))
		return p->missed_before;
	return p->missed_before + info.recursion_misses;
}

/* --- objects --- */

#define MAX_PROGS 8

struct object {
	const void *elf;
	size_t size;
	const char *name;
	const char *progs[MAX_PROGS]; /* those that are wanted at all */
	/* what to set before loading */
	void (*prepare)(struct nl_trace *t, struct bpf_object *obj, void *arg);
	void *arg;
};

/* Set a `const volatile` variable of an object that is open and not loaded. */
static int set_const(struct bpf_object *obj, const char *name, const void *value, size_t size)
{
	const struct btf *btf = bpf_object__btf(obj);
	const struct btf_var_secinfo *var;
	const struct btf_type *sec;
	struct bpf_map *map, *rodata = NULL;
	const void *now;
	char data[256];
	size_t len;
	int id, i;

	bpf_object__for_each_map(map, obj) {
		if (strstr(bpf_map__name(map), ".rodata"))
			rodata = map;
	}
	id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	if (!rodata || id < 0)
		return -ENOENT;
	now = bpf_map__initial_value(rodata, &len);
	if (!now || len > sizeof(data))
		return -EINVAL;
	memcpy(data, now, len);
	sec = btf__type_by_id(btf, (__u32)id);
	var = btf_var_secinfos(sec);
	for (i = 0; i < btf_vlen(sec); i++, var++) {
		const struct btf_type *v = btf__type_by_id(btf, var->type);

		if (strcmp(btf__name_by_offset(btf, v->name_off), name))
			continue;
		if (var->size != size || var->offset + size > len)
			return -EINVAL;
		memcpy(data + var->offset, value, size);
		return bpf_map__set_initial_value(rodata, data, len);
	}
	return -ENOENT;
}

static const char *const map_names[NL_TRACE_MAPS] = {
	[NL_MAP_STATE] = "nlt_state", [NL_MAP_ROWS] = "nlt_rows",   [NL_MAP_NESTED] = "nlt_nested",
	[NL_MAP_CPUS] = "nlt_cpus",   [NL_MAP_QUIET] = "nlt_quiet", [NL_MAP_RING] = "nlt_ring",
};

/* Open an object with our maps in it and of o->progs[] only those switched on that @want has. */
static struct bpf_object *open_object(struct nl_trace *t, const struct object *o, const bool *want)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = o->name);
	struct bpf_object *obj = bpf_object__open_mem(o->elf, o->size, &opts);
	struct bpf_program *prog;
	int i;

	if (!obj)
		return NULL;
	for (i = 0; i < NL_TRACE_MAPS; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, map_names[i]);

		if (map && bpf_map__reuse_fd(map, t->map[i]))
			goto fail;
	}
	bpf_object__for_each_program(prog, obj) {
		bool on = false;

		for (i = 0; i < MAX_PROGS && o->progs[i]; i++)
			if (!strcmp(o->progs[i], bpf_program__name(prog)))
				on = want[i];
		bpf_program__set_autoload(prog, on);
	}
	if (o->prepare)
		o->prepare(t, obj, o->arg);
	return obj;
fail:
	i = errno;
	bpf_object__close(obj);
	errno = i;
	return NULL;
}

static struct bpf_object *try_load(struct nl_trace *t, const struct object *o, const bool *want,
				   int *err)
{
	struct bpf_object *obj = open_object(t, o, want);

	if (!obj) {
		*err = errno;
		return NULL;
	}
	*err = -bpf_object__load(obj);
	if (!*err)
		return obj;
	bpf_object__close(obj);
	return NULL;
}

/*
 * Load an object with as many of its programs as the kernel takes.
 * @want: per program of the object; cleared for those that were refused
 * @entry: per program, its line in the table, where the reason goes
 */
static struct bpf_object *load_object(struct nl_trace *t, const struct object *o, bool *want,
				      const int *entry, int nr)
{
	struct bpf_object *obj;
	int err, i, good = 0;
	const char *why;

	nl_capture_begin();
	obj = try_load(t, o, want, &err);
	nl_capture_end();
	if (obj)
		return obj;
	for (i = 0; i < nr; i++) {
		bool alone[MAX_PROGS] = { false };

		if (!want[i])
			continue;
		alone[i] = true;
		nl_capture_begin();
		obj = try_load(t, o, alone, &err);
		why = nl_capture_end();
		if (obj) {
			bpf_object__close(obj);
			good++;
		} else {
			want[i] = false;
			fail_with(t, entry[i], "not loaded", err, why);
		}
	}
	if (!good)
		return NULL;
	nl_capture_begin();
	obj = try_load(t, o, want, &err);
	why = nl_capture_end();
	for (i = 0; !obj && i < nr; i++)
		if (want[i])
			fail_with(t, entry[i], "not loaded", err, why);
	return obj;
}

/* Attach a loaded program and record how that went. */
static bool attach(struct nl_trace *t, struct bpf_program *prog, int i)
{
	struct bpf_link *link;
	const char *why;
	int err;

	nl_capture_begin();
	link = bpf_program__attach(prog);
	err = errno;
	why = nl_capture_end();
	if (!link) {
		fail_with(t, i, "not attached", err, why);
		return false;
	}
	t->priv[i].link = link;
	t->priv[i].fd = bpf_program__fd(prog);
	t->progs[i].attached = true;
	return true;
}

/* --- the kmem tracepoints --- */

static const struct {
	const char *prog, *tracepoint;
	int kind;
	bool second;
} kmem_progs[] = {
	{ "nlt_cache_alloc", "kmem_cache_alloc", NLT_KMEM_CACHE_ALLOC, false },
	{ "nlt_cache_free", "kmem_cache_free", NLT_KMEM_CACHE_FREE, false },
	{ "nlt_kmalloc", "kmalloc", NLT_KMALLOC, false },
	{ "nlt_kfree", "kfree", NLT_KFREE, false },
	{ "nlt_cache_alloc2", "kmem_cache_alloc", NLT_KMEM_CACHE_ALLOC, true },
	{ "nlt_cache_free2", "kmem_cache_free", NLT_KMEM_CACHE_FREE, true },
	{ "nlt_kmalloc2", "kmalloc", NLT_KMALLOC, true },
	{ "nlt_kfree2", "kfree", NLT_KFREE, true },
};

#define NR_KMEM ((int)(sizeof(kmem_progs) / sizeof(kmem_progs[0])))

static void prepare_kmem(struct nl_trace *t, struct bpf_object *obj, void *arg)
{
	bool have = btf__find_by_name_kind(t->btf, "bpf_get_kmem_cache", BTF_KIND_FUNC) > 0;

	set_const(obj, "nlt_have_get_cache", &have, sizeof(have));
	set_const(obj, "nlt_probe_args", arg, sizeof(bool));
}

static const struct btf_type *pointee(const struct btf *btf, __u32 id)
{
	const struct btf_type *type = btf__type_by_id(btf, id);

	for (; type; type = btf__type_by_id(btf, type->type)) {
		if (btf_is_ptr(type)) {
			id = type->type;
			break;
		}
		if (!btf_is_typedef(type) && !btf_is_mod(type))
			return NULL;
	}
	for (type = btf__type_by_id(btf, id); type && (btf_is_typedef(type) || btf_is_mod(type));
	     type = btf__type_by_id(btf, id))
		id = type->type;
	return type;
}

static bool is_word(const struct btf *btf, __u32 id)
{
	return btf__resolve_size(btf, id) == 8 && !pointee(btf, id);
}

/* Does the tracepoint hand over what our programs read? Parameter 0 is the kernel's own. */
static const char *wrong_signature(const struct btf *btf, const char *tracepoint, int kind)
{
	const struct btf_type *proto, *s;
	const struct btf_param *param;
	char name[64];
	int id, nr;

	snprintf(name, sizeof(name), "btf_trace_%s", tracepoint);
	id = btf__find_by_name_kind(btf, name, BTF_KIND_TYPEDEF);
	if (id < 0)
		return "this kernel has no such tracepoint";
	proto = pointee(btf, (__u32)id);
	if (!proto || !btf_is_func_proto(proto))
		return "the tracepoint's type is not a function";
	nr = btf_vlen(proto);
	param = btf_params(proto);
	if (nr < 3 || !is_word(btf, param[1].type))
		return "the tracepoint's arguments differ from those known";
	if (kind == NLT_KMALLOC &&
	    (nr < 5 || !is_word(btf, param[3].type) || !is_word(btf, param[4].type)))
		return "the tracepoint does not give the sizes as the known kernels do";
	if (kind == NLT_KMEM_CACHE_ALLOC || kind == NLT_KMEM_CACHE_FREE) {
		s = nr >= 4 ? pointee(btf, param[3].type) : NULL;
		if (!s || !btf_is_struct(s) ||
		    strcmp(btf__name_by_offset(btf, s->name_off), "kmem_cache"))
			return "the tracepoint does not give the cache as the known kernels do";
	}
	return NULL;
}

/*
 * Is prog->active a word of 4 bytes for each CPU, that is not 0 while the program runs? An int, and
 * since 7.0 four bytes, one for each kind of context.
 */
static bool active_is_word(const struct btf *btf)
{
	int id = btf__find_by_name_kind(btf, "bpf_prog", BTF_KIND_STRUCT);
	const struct btf_type *s, *word;
	const struct btf_member *m;
	int i;

	if (id < 0)
		return false;
	s = btf__type_by_id(btf, (__u32)id);
	for (i = 0, m = btf_members(s); i < btf_vlen(s); i++, m++) {
		if (strcmp(btf__name_by_offset(btf, m->name_off), "active"))
			continue;
		word = pointee(btf, m->type);
		return word && btf_is_int(word) && (word->size == 4 || word->size == 1);
	}
	return false;
}

static __u32 prog_id(const struct nl_prog *p)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return p->fd >= 0 && !bpf_obj_get_info_by_fd(p->fd, &info, &len) ? info.id : 0;
}

/* Find prog->active of the first programs by the kernel's own list of programs. */
static const char *find_active(struct nl_trace *t, const int *entry)
{
	struct nlt_prog rec[64];
	struct bpf_program *prog;
	struct bpf_link *link;
	ssize_t len;
	int fd, i, found = 0;

	if (!active_is_word(t->btf))
		return "struct bpf_prog has another form here";
	prog = t->iter ? bpf_object__find_program_by_name(t->iter, "nlt_progs") : NULL;
	if (!prog || bpf_program__fd(prog) < 0)
		return "the iterator over programs is not loaded";
	nl_capture_begin();
	link = bpf_program__attach_iter(prog, NULL);
	nl_capture_end();
	if (!link)
		return "the iterator over programs cannot be attached";
	fd = bpf_iter_create(bpf_link__fd(link));
	while (fd >= 0 && (len = read(fd, rec, sizeof(rec))) > 0) {
		for (size_t n = 0; n < (size_t)len / sizeof(rec[0]); n++) {
			for (i = 0; i < NLT_NR_TP; i++) {
				if (!t->progs[entry[i]].attached ||
				    prog_id(&t->priv[entry[i]]) != rec[n].id)
					continue;
				t->state->active[kmem_progs[i].kind] = rec[n].active;
				found++;
			}
		}
	}
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	if (!t->state->cpu_off[0])
		return "the kernel does not show where its per-CPU areas lie";
	return found ? NULL : "the iterator over programs does not show ours";
}

void nl_trace_load_kmem(struct nl_trace *t)
{
	bool probe_args = false;
	struct object o = { .name = "nlt_kmem", .prepare = prepare_kmem, .arg = &probe_args };
	bool want[MAX_PROGS] = { false }, sane[MAX_PROGS];
	int nr = t->what & NL_TRACE_NESTED ? NR_KMEM : NLT_NR_TP;
	int entry[NR_KMEM], i;
	const char *why;

	o.elf = trace_bpf__elf_bytes(&o.size);
	for (i = 0; i < nr; i++) {
		char target[64];

		snprintf(target, sizeof(target), "tp_btf/%s%s", kmem_progs[i].tracepoint,
			 kmem_progs[i].second ? " (in interrupts)" : "");
		o.progs[i] = kmem_progs[i].prog;
		entry[i] = nl_trace_add_prog(t, kmem_progs[i].prog, target, kmem_progs[i].kind);
		if (entry[i] < 0)
			return;
		t->priv[entry[i]].second = kmem_progs[i].second;
		why = wrong_signature(t->btf, kmem_progs[i].tracepoint, kmem_progs[i].kind);
		if (why)
			nl_trace_fail(t, entry[i], "%s", why);
		else
			want[i] = true;
	}
	memcpy(sane, want, sizeof(want));
	t->kmem = load_object(t, &o, want, entry, nr);
	if (!t->kmem) {
		probe_args = true;
		memcpy(want, sane, sizeof(want));
		t->kmem = load_object(t, &o, want, entry, nr);
	}
	if (!t->kmem)
		return;
	for (i = 0; i < nr; i++)
		if (want[i])
			t->progs[entry[i]].reason[0] = 0;
	why = NULL;
	for (i = 0; i < nr; i++) {
		struct bpf_program *prog;

		if (kmem_progs[i].second && i == NLT_NR_TP)
			why = find_active(t, entry);
		if (!want[i])
			continue;
		if (kmem_progs[i].second && (why || !t->state->active[kmem_progs[i].kind])) {
			nl_trace_fail(t, entry[i], "not attached: %s",
				      why ? why : "the first program is not attached");
			continue;
		}
		prog = bpf_object__find_program_by_name(t->kmem, kmem_progs[i].prog);
		attach(t, prog, entry[i]);
	}
}

/* --- iterators --- */

static unsigned int nr_possible_nodes(void)
{
	FILE *f = fopen("/sys/devices/system/node/possible", "re");
	unsigned int last = 0, n;
	char sep;

	/* "0", "0-3", "0,2-5": the last number counts */
	if (f) {
		while (fscanf(f, "%u", &n) == 1) {
			last = n;
			if (fscanf(f, "%c", &sep) != 1)
				break;
		}
		fclose(f);
	}
	return last + 1;
}

static void prepare_iter(struct nl_trace *t, struct bpf_object *obj, void *arg)
{
	__u32 nodes = nr_possible_nodes(), cpus = t->nr_cpus;

	(void)arg;
	set_const(obj, "nlt_nr_nodes", &nodes, sizeof(nodes));
	set_const(obj, "nlt_nr_cpus", &cpus, sizeof(cpus));
}

void nl_trace_load_iter(struct nl_trace *t)
{
	struct object o = {
		.name = "nlt_iter",
		.progs = { "nlt_caches", "nlt_progs" },
		.prepare = prepare_iter,
	};
	bool want[MAX_PROGS] = { true, true };
	struct bpf_program *prog;
	int entry[2];

	o.elf = trace_iter_bpf__elf_bytes(&o.size);
	entry[0] = nl_trace_add_prog(t, "nlt_caches", "iter/kmem_cache", -1);
	entry[1] = nl_trace_add_prog(t, "nlt_progs", "iter/bpf_prog", -1);
	if (entry[0] < 0 || entry[1] < 0)
		return;
	if (btf__find_by_name_kind(t->btf, "bpf_iter__kmem_cache", BTF_KIND_STRUCT) < 0) {
		nl_trace_fail(t, entry[0], "this kernel cannot iterate over caches (6.13 can)");
		want[0] = false;
	}
	t->iter = load_object(t, &o, want, entry, 2);
	if (!t->iter)
		return;
	prog = bpf_object__find_program_by_name(t->iter, "nlt_caches");
	if (want[0] && attach(t, prog, entry[0]))
		t->caches = t->priv[entry[0]].link;
	/* used once by find_active() through a link of its own */
	t->progs[entry[1]].attached = want[1];
}

/* --- functions --- */

static const struct {
	const char *names[3]; /* one function, as the kernels from 6.18 to 7.2 call it */
	int kind;
	bool is_cache; /* the first argument is the cache */
	bool exit;
} functions[] = {
	{ { "kmalloc_nolock_noprof", "_kmalloc_nolock_noprof", "__kmalloc_nolock_noprof" },
	  NLT_KMALLOC_NOLOCK,
	  false,
	  true },
	{ { "kfree_nolock" }, NLT_KFREE_NOLOCK, false, false },
	{ { "__pcs_replace_empty_main" }, NLT_PCS_REPLACE_EMPTY_MAIN, true, true },
	{ { "__pcs_replace_full_main" }, NLT_PCS_REPLACE_FULL_MAIN, true, true },
	{ { "barn_replace_empty_sheaf" }, NLT_BARN_REPLACE_EMPTY_SHEAF, false, true },
	{ { "barn_replace_full_sheaf" }, NLT_BARN_REPLACE_FULL_SHEAF, false, true },
	{ { "barn_get_empty_sheaf" }, NLT_BARN_GET_EMPTY_SHEAF, false, true },
	{ { "barn_put_empty_sheaf" }, NLT_BARN_PUT_EMPTY_SHEAF, false, false },
	{ { "barn_put_full_sheaf" }, NLT_BARN_PUT_FULL_SHEAF, false, false },
	{ { "barn_shrink" }, NLT_BARN_SHRINK, true, false },
	{ { "sheaf_flush_unused", "__sheaf_flush_unused" }, NLT_SHEAF_FLUSH_UNUSED, true, false },
	{ { "refill_sheaf", "__refill_sheaf" }, NLT_REFILL_SHEAF, true, true },
	{ { "alloc_empty_sheaf", "__alloc_empty_sheaf" }, NLT_ALLOC_EMPTY_SHEAF, true, true },
	{ { "kmem_cache_prefill_sheaf" }, NLT_PREFILL_SHEAF, true, true },
	{ { "kmem_cache_return_sheaf" }, NLT_RETURN_SHEAF, true, false },
};

#define NR_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

struct function {
	const char *name;
	__u32 kind;
	bool is_cache;
	bool exit;
};

static void prepare_function(struct nl_trace *t, struct bpf_object *obj, void *arg)
{
	const char *prog = ((struct function *)arg)->exit ? "nlt_fn_exit" : "nlt_fn_entry";
	struct function *f = arg;

	(void)t;
	set_const(obj, "nlt_kind", &f->kind, sizeof(f->kind));
	set_const(obj, "nlt_arg_is_cache", &f->is_cache, sizeof(f->is_cache));
	bpf_program__set_attach_target(bpf_object__find_program_by_name(obj, prog), 0, f->name);
}

static void load_function(struct nl_trace *t, struct function *f)
{
	const char *prog = f->exit ? "nlt_fn_exit" : "nlt_fn_entry";
	struct object o = {
		.name = "nlt_fn",
		.progs = { prog },
		.prepare = prepare_function,
		.arg = f,
	};
	bool want[MAX_PROGS] = { true };
	char target[96];
	struct bpf_object *obj;
	const char *why;
	int i, err;

	o.elf = trace_fn_bpf__elf_bytes(&o.size);
	snprintf(target, sizeof(target), "%s/%s", f->exit ? "fexit" : "fentry", f->name);
	i = nl_trace_add_prog(t, prog, target, (int)f->kind);
	if (i < 0)
		return;
	if (btf__find_by_name_kind(t->btf, f->name, BTF_KIND_FUNC) < 0) {
		nl_trace_fail(t, i, "this kernel has no such function (absent or inlined)");
		return;
	}
	nl_capture_begin();
	obj = try_load(t, &o, want, &err);
	why = nl_capture_end();
	if (!obj) {
		fail_with(t, i, "not loaded", err, why);
		return;
	}
	if (attach(t, bpf_object__find_program_by_name(obj, prog), i))
		t->priv[i].own = obj;
	else
		bpf_object__close(obj);
}

void nl_trace_load_functions(struct nl_trace *t)
{
	unsigned int n, k;

	for (n = 0; n < NR_FUNCTIONS; n++) {
		struct function f = {
			.name = functions[n].names[0],
			.kind = (__u32)functions[n].kind,
			.is_cache = functions[n].is_cache,
			.exit = functions[n].exit,
		};

		for (k = 0; k < 3 && functions[n].names[k]; k++) {
			if (btf__find_by_name_kind(t->btf, functions[n].names[k], BTF_KIND_FUNC) <
			    0)
				continue;
			f.name = functions[n].names[k];
			break;
		}
		load_function(t, &f);
	}
}

/* --- USDT --- */

static void prepare_usdt(struct nl_trace *t, struct bpf_object *obj, void *arg)
{
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, "nlt_usdt");

	(void)t;
	(void)arg;
	bpf_program__set_flags(prog, bpf_program__flags(prog) | BPF_F_SLEEPABLE);
}

int nl_trace_load_usdt(struct nl_trace *t, char *why, size_t size)
{
	struct object o = {
		.name = "nlt_usdt",
		.progs = { "nlt_usdt" },
		.prepare = prepare_usdt,
	};
	bool want[MAX_PROGS] = { true };
	const char *said;
	int err;

	if (t->usdt)
		return 0;
	o.elf = trace_usdt_bpf__elf_bytes(&o.size);
	nl_capture_begin();
	t->usdt = try_load(t, &o, want, &err);
	said = nl_capture_end();
	if (t->usdt)
		return 0;
	snprintf(why, size, "not loaded: %s%s%s", strerror(err), *said ? ": " : "", said);
	return -err;
}
