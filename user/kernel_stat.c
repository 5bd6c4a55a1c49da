// SPDX-License-Identifier: GPL-2.0-only
/*
 * kernel_stat.c - one table of the kernel's slab caches out of the iterator and the counters.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <json-c/json.h>
#include "trace_priv.h"
#include "kernel_stat.h"

static struct nl_kernel_cache *add_cache(struct nl_kernel_stat *s, unsigned int *room)
{
	if (s->nr == *room) {
		unsigned int want = *room ? 2 * *room : 256;
		struct nl_kernel_cache *p = realloc(s->caches, want * sizeof(*p));

		if (!p)
			return NULL;
		s->caches = p;
		*room = want;
	}
	memset(&s->caches[s->nr], 0, sizeof(s->caches[0]));
	return &s->caches[s->nr++];
}

/* --- the list of caches --- */

static int read_iter(const struct nl_trace *t, struct nl_kernel_stat *s, unsigned int *room)
{
	struct nlt_cache rec[64];
	size_t have = 0;
	ssize_t len;
	int fd, err = 0;

	fd = bpf_iter_create(bpf_link__fd(t->caches));
	if (fd < 0)
		return -errno;
	/* a read may end inside a record */
	while ((len = read(fd, (char *)rec + have, sizeof(rec) - have)) > 0) {
		size_t n;

		have += (size_t)len;
		for (n = 0; n < have / sizeof(rec[0]); n++) {
			struct nl_kernel_cache *c = add_cache(s, room);

			if (!c) {
				err = -ENOMEM;
				goto out;
			}
			c->now = rec[n];
		}
		have -= n * sizeof(rec[0]);
		memmove(rec, rec + n, have);
	}
	if (len < 0)
		err = -errno;
out:
	close(fd);
	return err;
}

static int read_slabinfo(struct nl_kernel_stat *s, unsigned int *room)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	char line[512], name[128];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		unsigned long active, objects, size, per_slab, pages, slabs;
		struct nl_kernel_cache *c;

		if (sscanf(line,
			   "%127s %lu %lu %lu %lu %lu : tunables %*u %*u %*u : slabdata %*u %lu",
			   name, &active, &objects, &size, &per_slab, &pages, &slabs) != 7)
			continue;
		c = add_cache(s, room);
		if (!c) {
			fclose(f);
			return -ENOMEM;
		}
		snprintf(c->now.name, sizeof(c->now.name), "%.*s", NLT_NAME - 1, name);
		c->now.object_size = (nlt_u32)size; /* slabinfo shows the size with padding */
		c->now.size = (nlt_u32)size;
		c->now.objs_per_slab = (nlt_u32)per_slab;
		while ((1ul << c->now.order) < pages)
			c->now.order++;
		c->now.nr_slabs = slabs;
		c->now.objects = objects;
		c->now.has = NLT_HAS_SLABS;
	}
	fclose(f);
	return 0;
}

/* --- the counters --- */

static void add_row(struct nlt_row *to, const struct nlt_row *row)
{
	const volatile struct nlt_row *from = row; /* the programs go on counting */

	to->cache_allocs += from->cache_allocs;
	to->cache_frees += from->cache_frees;
	to->cache_fails += from->cache_fails;
	to->kmallocs += from->kmallocs;
	to->kmalloc_fails += from->kmalloc_fails;
	to->bytes_req += from->bytes_req;
	to->bytes_alloc += from->bytes_alloc;
	to->kfrees += from->kfrees;
}

static void sub_row(struct nlt_row *to, const struct nlt_row *row)
{
	to->cache_allocs -= row->cache_allocs;
	to->cache_frees -= row->cache_frees;
	to->cache_fails -= row->cache_fails;
	to->kmallocs -= row->kmallocs;
	to->kmalloc_fails -= row->kmalloc_fails;
	to->bytes_req -= row->bytes_req;
	to->bytes_alloc -= row->bytes_alloc;
	to->kfrees -= row->kfrees;
}

static struct nlt_row sum_row(const struct nl_trace *t, unsigned int row)
{
	struct nlt_row sum = {};
	unsigned int cpu;

	for (cpu = 0; cpu < t->nr_cpus; cpu++)
		add_row(&sum, &t->rows[cpu * NLT_ROWS + row]);
	add_row(&sum, &t->nested[row]);
	return sum;
}

static void add_counts(struct nl_kernel_counts *c, const struct nlt_row *r, uint32_t object_size,
		       uint32_t size)
{
	c->allocs += r->cache_allocs + r->kmallocs;
	c->frees += r->cache_frees + r->kfrees;
	c->fails += r->cache_fails + r->kmalloc_fails;
	c->bytes_req += r->bytes_req + r->cache_allocs * object_size;
	c->bytes_alloc += r->bytes_alloc + r->cache_allocs * size;
}

static int by_ptr(const void *a, const void *b)
{
	const struct nl_kernel_cache *x = a, *y = b;

	return x->now.ptr < y->now.ptr ? -1 : x->now.ptr > y->now.ptr;
}

static int by_name(const void *a, const void *b)
{
	const struct nl_kernel_cache *x = a, *y = b;

	return strncmp(x->now.name, y->now.name, sizeof(x->now.name));
}

/* No list, or one without addresses: places of the hash become lines, found by name if they can. */
static struct nl_kernel_cache *by_slot(struct nl_kernel_stat *s, unsigned int *room,
				       const struct nlt_slot *slot)
{
	struct nl_kernel_cache *c;
	unsigned int i;

	for (i = 0; i < s->nr; i++)
		if (!strncmp(s->caches[i].now.name, slot->name, NLT_NAME))
			return &s->caches[i];
	c = add_cache(s, room);
	if (c) {
		memcpy(c->now.name, slot->name, sizeof(slot->name));
		c->now.object_size = slot->object_size;
		c->now.size = slot->size;
	}
	return c;
}

/*
 * A cache was destroyed, or another has its address now: what was counted belongs to the old one.
 * Later counts of this place begin at zero; the place itself is only given up if nobody has it.
 */
static void retire(struct nl_trace *t, unsigned int i, const struct nlt_row *since,
		   const struct nl_kernel_cache *heir)
{
	struct nlt_slot *slot = &t->state->slots[i];

	add_row(&t->gone, since);
	/* whose sizes nobody can ask for any more */
	t->gone.bytes_req += since->cache_allocs * slot->object_size;
	t->gone.bytes_alloc += since->cache_allocs * slot->size;
	add_row(&t->base[i], since);
	if (heir) {
		slot->object_size = heir->now.object_size;
		slot->size = heir->now.size;
		memcpy(slot->name, heir->now.name, sizeof(slot->name));
	} else {
		slot->name[0] = 0;
		__sync_synchronize(); /* the name goes before a program may take the place */
		*(volatile nlt_u64 *)&t->state->keys[i] = NLT_TOMBSTONE;
	}
}

static int merge_counts(struct nl_trace *t, struct nl_kernel_stat *s, const nlt_u64 *keys,
			unsigned int *room)
{
	unsigned int i;

	for (i = 0; i < NLT_SLOTS; i++) {
		const struct nlt_slot *slot = &t->state->slots[i];
		struct nl_kernel_cache key = { .now.ptr = keys[i] }, *c;
		struct nlt_row since;

		/* only what was there before the list was read can be missing from it */
		if (keys[i] <= NLT_TOMBSTONE)
			continue;
		since = sum_row(t, i);
		sub_row(&since, &t->base[i]);
		if (s->from == NL_KERNEL_FROM_ITER) {
			c = bsearch(&key, s->caches, s->nr, sizeof(key), by_ptr);
			if (!c || (slot->name[0] && strncmp(c->now.name, slot->name, NLT_NAME))) {
				retire(t, i, &since, c);
				continue;
			}
		} else {
			c = by_slot(s, room, slot);
			if (!c)
				return -ENOMEM;
		}
		add_counts(&c->counts, &since, c->now.object_size, c->now.size);
		c->counted = true;
	}
	return 0;
}

int nl_kernel_stat_read(struct nl_trace *t, struct nl_kernel_stat *out)
{
	unsigned int room = 0;
	nlt_u64 *keys = NULL;
	struct nlt_row row;
	int err = -EACCES;

	memset(out, 0, sizeof(*out));
	if (t && t->state) {
		keys = malloc(sizeof(t->state->keys));
		if (!keys)
			return -ENOMEM;
		memcpy(keys, t->state->keys, sizeof(t->state->keys));
		nl_trace_counts(t, &out->counts);
	}
	if (t && t->caches) {
		err = read_iter(t, out, &room);
		if (!err) {
			out->from = NL_KERNEL_FROM_ITER;
			qsort(out->caches, out->nr, sizeof(*out->caches), by_ptr);
		}
	}
	if (err && err != -ENOMEM) {
		out->nr = 0;
		err = read_slabinfo(out, &room);
		if (!err)
			out->from = NL_KERNEL_FROM_SLABINFO;
		else if (err != -ENOMEM && out->counts.seen)
			err = 0; /* what was counted is still worth showing */
	}
	if (!err && keys) {
		err = merge_counts(t, out, keys, &room);
		row = sum_row(t, NLT_ROW_LARGE);
		add_counts(&out->large, &row, 0, 0);
		row = sum_row(t, NLT_ROW_UNKNOWN);
		add_counts(&out->unknown, &row, 0, 0);
		row = sum_row(t, NLT_ROW_NULL);
		add_counts(&out->null, &row, 0, 0);
		add_counts(&out->gone, &t->gone, 0, 0);
	}
	free(keys);
	if (err) {
		nl_kernel_stat_free(out);
		return err;
	}
	qsort(out->caches, out->nr, sizeof(*out->caches), by_name);
	return 0;
}

void nl_kernel_stat_free(struct nl_kernel_stat *s)
{
	free(s->caches);
	s->caches = NULL;
	s->nr = 0;
}

const struct nl_kernel_cache *nl_kernel_stat_find(const struct nl_kernel_stat *s, const char *name)
{
	unsigned int i;

	for (i = 0; i < s->nr; i++)
		if (!strncmp(s->caches[i].now.name, name, NLT_NAME))
			return &s->caches[i];
	return NULL;
}

/* --- JSON --- */

static void add(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void add_counts_json(struct json_object *o, const struct nl_kernel_counts *c)
{
	add(o, "allocs", c->allocs);
	add(o, "frees", c->frees);
	add(o, "fails", c->fails);
	add(o, "bytes_req", c->bytes_req);
	add(o, "bytes_alloc", c->bytes_alloc);
}

static void add_slub(struct json_object *o, const char *cache)
{
	uint64_t v[NL_SLUB_STATS];
	struct json_object *sub;
	int i;

	if (nl_slub_read(NL_SLUB_DIR, cache, v) < 0)
		return;
	sub = json_object_new_object();
	for (i = 0; sub && i < NL_SLUB_STATS; i++)
		if (v[i] != NL_SLUB_ABSENT)
			add(sub, nl_slub_names[i], v[i]);
	json_object_object_add(o, "slub", sub);
}

static struct json_object *cache_json(const struct nl_kernel_cache *c, bool slub)
{
	struct json_object *o = json_object_new_object();
	const struct nlt_cache *n = &c->now;

	if (!o)
		return NULL;
	json_object_object_add(o, "name",
			       json_object_new_string_len(n->name,
							  (int)strnlen(n->name, sizeof(n->name))));
	add(o, "object_size", n->object_size);
	add(o, "size", n->size);
	add(o, "objs_per_slab", n->objs_per_slab);
	add(o, "order", n->order);
	if (n->has & NLT_HAS_SLABS) {
		add(o, "slabs", n->nr_slabs);
		add(o, "objects", n->objects);
	}
	if (n->has & NLT_HAS_NODES) {
		add(o, "nodes", n->nr_nodes);
		add(o, "partial", n->nr_partial);
	}
	if (n->has & NLT_HAS_SHEAVES)
		add(o, "sheaf_capacity", n->sheaf_capacity);
	if (n->has & NLT_HAS_BARN) {
		add(o, "barns", n->nr_barns);
		add(o, "barn_full", n->barn_full);
		add(o, "barn_empty", n->barn_empty);
	}
	if (n->has & NLT_HAS_PCS) {
		add(o, "main_objs", n->main_objs);
		add(o, "spare_sheaves", n->nr_spare);
		add(o, "spare_objs", n->spare_objs);
		add(o, "rcu_objs", n->rcu_objs);
	}
	if (c->counted)
		add_counts_json(o, &c->counts);
	if (slub)
		add_slub(o, n->name);
	return o;
}

static void add_other(struct json_object *o, const char *key, const struct nl_kernel_counts *c)
{
	struct json_object *sub = json_object_new_object();

	if (!sub)
		return;
	add_counts_json(sub, c);
	json_object_object_add(o, key, sub);
}

struct json_object *nl_kernel_stat_json(const struct nl_kernel_stat *s, const struct nl_trace *t)
{
	static const char *const from[] = { "events", "iterator", "slabinfo" };
	struct json_object *o = json_object_new_object();
	struct json_object *list = json_object_new_array();
	struct json_object *other = json_object_new_object();
	bool slub = nl_slub_have(NL_SLUB_DIR);
	unsigned int i;

	if (!o || !list || !other) {
		json_object_put(o);
		json_object_put(list);
		json_object_put(other);
		return NULL;
	}
	json_object_object_add(o, "source", json_object_new_string(from[s->from]));
	json_object_object_add(o, "events", nl_trace_counts_json(&s->counts));
	for (i = 0; i < s->nr; i++)
		json_object_array_add(list, cache_json(&s->caches[i], slub));
	json_object_object_add(o, "caches", list);
	add_other(other, "large", &s->large);
	add_other(other, "unknown", &s->unknown);
	add_other(other, "null", &s->null);
	add_other(other, "gone", &s->gone);
	json_object_object_add(o, "other", other);
	if (t)
		json_object_object_add(o, "programs", nl_trace_progs_json(t));
	return o;
}
