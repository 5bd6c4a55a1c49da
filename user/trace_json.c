// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_json.c - events, counters and the table of programs as JSON.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <json-c/json.h>
#include "trace_priv.h"

static const char *const kind_names[NLT_NR_KINDS] = {
	[NLT_KMEM_CACHE_ALLOC] = "kmem_cache_alloc",
	[NLT_KMEM_CACHE_FREE] = "kmem_cache_free",
	[NLT_KMALLOC] = "kmalloc",
	[NLT_KFREE] = "kfree",
	[NLT_KMALLOC_NOLOCK] = "kmalloc_nolock",
	[NLT_KFREE_NOLOCK] = "kfree_nolock",
	[NLT_PCS_REPLACE_EMPTY_MAIN] = "pcs_replace_empty_main",
	[NLT_PCS_REPLACE_FULL_MAIN] = "pcs_replace_full_main",
	[NLT_BARN_REPLACE_EMPTY_SHEAF] = "barn_replace_empty_sheaf",
	[NLT_BARN_REPLACE_FULL_SHEAF] = "barn_replace_full_sheaf",
	[NLT_BARN_GET_EMPTY_SHEAF] = "barn_get_empty_sheaf",
	[NLT_BARN_PUT_EMPTY_SHEAF] = "barn_put_empty_sheaf",
	[NLT_BARN_PUT_FULL_SHEAF] = "barn_put_full_sheaf",
	[NLT_BARN_SHRINK] = "barn_shrink",
	[NLT_SHEAF_FLUSH_UNUSED] = "sheaf_flush_unused",
	[NLT_REFILL_SHEAF] = "refill_sheaf",
	[NLT_ALLOC_EMPTY_SHEAF] = "alloc_empty_sheaf",
	[NLT_PREFILL_SHEAF] = "kmem_cache_prefill_sheaf",
	[NLT_RETURN_SHEAF] = "kmem_cache_return_sheaf",
	[NLT_U_SHEAF_REFILL] = "nolock:sheaf_refill",
	[NLT_U_SHEAF_FLUSH] = "nolock:sheaf_flush",
	[NLT_U_ALLOC_SLAB] = "nolock:alloc_slab",
	[NLT_U_FREE_SLAB] = "nolock:free_slab",
	[NLT_U_ALLOC_FAIL] = "nolock:alloc_fail",
	[NLT_U_FREE_REFUSED] = "nolock:free_refused",
	[NLT_U_HEAP_GROW] = "nolock:heap_grow",
};

const char *nl_trace_kind_name(unsigned int kind)
{
	return kind < NLT_NR_KINDS ? kind_names[kind] : "?";
}

int nl_trace_kind(const char *name)
{
	int i;

	for (i = 0; i < NLT_NR_KINDS; i++)
		if (!strcmp(kind_names[i], name))
			return i;
	return -1;
}

const char *nl_trace_symbol(struct nl_trace *t, uint64_t addr, char *buf, size_t size)
{
	const char *name;
	uint64_t offset;

	nl_ksyms_load(&t->ksyms);
	name = nl_ksyms_find(&t->ksyms, addr, &offset);
	if (name)
		snprintf(buf, size, "%s+0x%" PRIx64, name, offset);
	else if (size)
		buf[0] = 0;
	return buf;
}

static void add_u64(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void add_text(struct json_object *o, const char *key, const char *text, size_t max)
{
	json_object_object_add(o, key, json_object_new_string_len(text, (int)strnlen(text, max)));
}

/* JSON numbers lose the low bits of an address in many readers: a string. */
static void add_addr(struct json_object *o, const char *key, uint64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "0x%" PRIx64, v);
	json_object_object_add(o, key, json_object_new_string(buf));
}

struct json_object *nl_trace_event_json(struct nl_trace *t, const struct nlt_event *e)
{
	struct json_object *o = json_object_new_object();
	char symbol[300];

	if (!o)
		return NULL;
	add_u64(o, "ns", e->ns);
	add_u64(o, "cpu", e->cpu);
	add_u64(o, "pid", e->pid);
	add_u64(o, "tid", e->tid);
	add_text(o, "comm", e->comm, sizeof(e->comm));
	add_text(o, "kind", nl_trace_kind_name(e->kind), 64);
	if (e->kind == NLT_U_FREE_REFUSED)
		add_text(o, "reason", e->cache, sizeof(e->cache));
	else if (e->cache[0])
		add_text(o, "cache", e->cache, sizeof(e->cache));
	if (e->kind >= NLT_FN_END)
		add_addr(o, "heap", e->heap);

	switch (e->kind) {
	case NLT_U_SHEAF_REFILL:
	case NLT_U_SHEAF_FLUSH:
		add_u64(o, "objects", e->bytes_req);
		break;
	case NLT_U_ALLOC_SLAB:
	case NLT_U_FREE_SLAB:
		add_u64(o, "chunk", e->ptr);
		break;
	case NLT_U_ALLOC_FAIL:
		add_u64(o, "bytes_req", e->bytes_req);
		add_addr(o, "flags", e->bytes_alloc);
		break;
	case NLT_U_HEAP_GROW:
		add_u64(o, "groups", e->bytes_req);
		break;
	default:
		add_addr(o, "ptr", e->ptr);
		if (e->bytes_req)
			add_u64(o, "bytes_req", e->bytes_req);
		if (e->bytes_alloc)
			add_u64(o, "bytes_alloc", e->bytes_alloc);
	}
	if (e->kind < NLT_NR_TP) {
		add_addr(o, "call_site", e->call_site);
		if (*nl_trace_symbol(t, e->call_site, symbol, sizeof(symbol)))
			add_text(o, "symbol", symbol, sizeof(symbol));
	} else if (e->kind < NLT_FN_END) {
		add_addr(o, "ret", e->ret);
	}
	return o;
}

struct json_object *nl_trace_progs_json(const struct nl_trace *t)
{
	struct json_object *list = json_object_new_array();
	unsigned int i;

	for (i = 0; list && i < nl_trace_nr_progs(t); i++) {
		const struct nl_trace_prog *p = nl_trace_prog(t, i);
		struct json_object *o = json_object_new_object();

		if (!o)
			break;
		add_text(o, "name", p->name, sizeof(p->name));
		add_text(o, "target", p->target, sizeof(p->target));
		json_object_object_add(o, "attached", json_object_new_boolean(p->attached));
		if (!p->attached)
			add_text(o, "reason", p->reason, sizeof(p->reason));
		json_object_array_add(list, o);
	}
	return list;
}

struct json_object *nl_trace_counts_json(const struct nl_trace_counts *c)
{
	struct json_object *o = json_object_new_object(), *kinds;
	int i;

	if (!o)
		return NULL;
	add_u64(o, "seen", c->seen);
	add_u64(o, "nested", c->nested);
	add_u64(o, "streamed", c->streamed);
	add_u64(o, "lost", c->lost);
	add_u64(o, "lost_full", c->lost_full);
	add_u64(o, "lost_missed", c->lost_missed);
	add_u64(o, "lost_ring", c->lost_ring);
	kinds = json_object_new_object();
	for (i = 0; kinds && i < NLT_NR_KINDS; i++)
		if (i < NLT_NR_TP || c->kinds[i])
			add_u64(kinds, kind_names[i], c->kinds[i]);
	json_object_object_add(o, "kinds", kinds);
	return o;
}
