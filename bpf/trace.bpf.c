// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * trace.bpf.c - count, and on request report, every kmem_cache_alloc, kmem_cache_free, kmalloc and
 * kfree of the kernel.
 *
 * These run at each allocation of the whole machine, so what is always done is one hash look-up and
 * a few plain additions on a line that only this CPU writes.
 *
 * The kernel does not enter a program twice on a CPU: an interrupt that frees while the program for
 * frees runs would not be seen. So each tracepoint has a second program, which looks whether the
 * first one is running beneath it and only then counts. What even that one misses, the kernel
 * counts itself (recursion_misses), and user space reports the difference as lost.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "trace.h"
#include "trace_emit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile bool nlt_have_get_cache; /* the kernel has bpf_get_kmem_cache(): 6.13 */
const volatile bool nlt_probe_args; /* its verifier lets no program load a `const void *`: 6.12 */

extern struct kmem_cache *bpf_get_kmem_cache(__u64 addr) __ksym __weak;
extern void *bpf_rdonly_cast(void *obj, __u32 btf_id) __ksym __weak;

/* The largest address that is no object: NULL and ZERO_SIZE_PTR. */
#define NLT_ZERO_SIZE_PTR 16

struct nlt_what {
	__u64 cache;
	__u64 ptr;
	__u64 call_site;
	__u64 req;
	__u64 alloc;
};

/* Argument 1 of all four tracepoints: the object. */
static __always_inline __u64 nlt_object(__u64 *ctx)
{
	__u64 ptr;

	if (!nlt_probe_args)
		return ctx[1];
	return bpf_probe_read_kernel(&ptr, sizeof(ptr), &ctx[1]) ? 0 : ptr;
}

/*
 * The verifier refuses arithmetic on a kernel pointer; its lower half is a plain number to it, and
 * enough for a hash. Caches lie at least 64 bytes apart.
 */
static __always_inline __u32 nlt_hash(__u64 cache)
{
	__u32 low = (__u32)cache;

	asm volatile("" : "+w"(low)); /* keep it one 32-bit move: a shift by 32 is refused too */
	return ((low >> 6) * 0x9e3779b1u) >> (32 - NLT_SLOT_BITS);
}

static __always_inline void nlt_learn(struct nlt_state *st, __u32 i, __u64 cache)
{
	struct kmem_cache *s = (struct kmem_cache *)cache;
	struct nlt_slot *slot = &st->slots[i];
	const char *name = BPF_CORE_READ(s, name);

	if (bpf_probe_read_kernel_str(slot->name, sizeof(slot->name), name) < 0)
		slot->name[0] = 0;
	slot->object_size = BPF_CORE_READ(s, object_size);
	slot->size = BPF_CORE_READ(s, size);
	slot->want = st->by_cache ? nlt_name_matches(st, slot->name) : 1;
}

/*
 * The place of a cache that was not at its first choice, or is new. Two CPUs may give one cache two
 * places: user space adds them up.
 */
static __noinline __u32 nlt_find_slow(struct nlt_state *st, __u64 cache, __u32 hash)
{
	int try, i;

	for (try = 0; try < 3; try++) {
		__u32 room = NLT_ROW_FULL;
		__u64 was = 0;

		for (i = 0; i < NLT_PROBES; i++) {
			__u32 at = (hash + i) & (NLT_SLOTS - 1);
			__u64 key = st->keys[at];

			if (key == cache)
				return at;
			if (key <= NLT_TOMBSTONE && room == NLT_ROW_FULL) {
				room = at;
				was = key;
			}
			if (!key)
				break;
		}
		if (room >= NLT_SLOTS)
			return NLT_ROW_FULL;
		/* against other CPUs and interrupts that want the same place */
		if (__sync_val_compare_and_swap(&st->keys[room], was, cache) == was) {
			nlt_learn(st, room, cache);
			return room;
		}
	}
	return NLT_ROW_FULL;
}

static __always_inline __u32 nlt_find(struct nlt_state *st, __u64 cache)
{
	__u32 at = nlt_hash(cache) & (NLT_SLOTS - 1);

	if (st->keys[at] == cache)
		return at;
	return nlt_find_slow(st, cache, at);
}

static __noinline int nlt_emit(struct nlt_state *st, struct nlt_what *w, __u32 kind, __u32 row)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct nlt_cpu *c = nlt_get_cpu();
	struct nlt_event *e;

	if (!c)
		return 0;
	if (st->by_cache && (row >= NLT_SLOTS || !st->slots[row & (NLT_SLOTS - 1)].want))
		return 0;
	if (!nlt_wanted(st, c, kind, pid))
		return 0;
	e = nlt_reserve(c, kind);
	if (!e)
		return 0;
	e->ptr = w->ptr;
	e->call_site = w->call_site;
	e->bytes_req = w->req;
	e->bytes_alloc = w->alloc;
	if (row < NLT_SLOTS) {
		struct nlt_slot *slot = &st->slots[row & (NLT_SLOTS - 1)];

		__builtin_memcpy(e->cache, slot->name, sizeof(e->cache));
		if (kind == NLT_KMEM_CACHE_ALLOC || kind == NLT_KMEM_CACHE_FREE) {
			e->bytes_req = slot->object_size;
			e->bytes_alloc = slot->size;
		}
	}
	nlt_submit(st, c, e);
	return 0;
}

static __always_inline void nlt_add(__u64 *counter, __u64 n, bool nested)
{
	if (nested)
		__sync_fetch_and_add(counter, n);
	else
		*counter += n;
}

/* Count one event; the same text for both programs of a tracepoint. */
static __always_inline int nlt_count(struct nlt_state *st, struct nlt_what *w, __u32 kind,
				     __u32 row, bool nested)
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 i = nested ? row : cpu * NLT_ROWS + row;
	struct nlt_row *r;

	if (row == NLT_ROW_FULL)
		r = NULL;
	else if (nested)
		r = bpf_map_lookup_elem(&nlt_nested, &i);
	else
		r = bpf_map_lookup_elem(&nlt_rows, &i);
	if (!r) {
		struct nlt_cpu *c = nlt_get_cpu();

		if (c)
			__sync_fetch_and_add(&c->full[kind], 1);
	} else if (kind == NLT_KMEM_CACHE_ALLOC) {
		nlt_add(w->ptr ? &r->cache_allocs : &r->cache_fails, 1, nested);
	} else if (kind == NLT_KMEM_CACHE_FREE) {
		nlt_add(&r->cache_frees, 1, nested);
	} else if (kind == NLT_KMALLOC) {
		if (w->ptr) {
			nlt_add(&r->kmallocs, 1, nested);
			nlt_add(&r->bytes_req, w->req, nested);
			nlt_add(&r->bytes_alloc, w->alloc, nested);
		} else {
			nlt_add(&r->kmalloc_fails, 1, nested);
		}
	} else {
		nlt_add(&r->kfrees, 1, nested);
	}
	if (st->stream)
		nlt_emit(st, w, kind, row);
	return 0;
}

/* The row of an object that kmalloc gave or kfree takes. */
static __always_inline __u32 nlt_row_of_object(struct nlt_state *st, __u64 ptr)
{
	__u64 cache;

	if (ptr <= NLT_ZERO_SIZE_PTR)
		return NLT_ROW_NULL;
	if (!nlt_have_get_cache)
		return NLT_ROW_UNKNOWN;
	cache = (__u64)bpf_get_kmem_cache(ptr);
	return cache ? nlt_find(st, cache) : NLT_ROW_LARGE;
}

static __always_inline int nlt_on_cache(__u64 *ctx, struct nlt_state *st, __u32 kind, bool nested)
{
	struct nlt_what w = { .call_site = ctx[0], .ptr = nlt_object(ctx) };
	__u64 cache = ctx[2];

	return nlt_count(st, &w, kind, nlt_find(st, cache), nested);
}

static __always_inline int nlt_on_kmalloc(__u64 *ctx, struct nlt_state *st, bool nested)
{
	struct nlt_what w = {
		.call_site = ctx[0],
		.ptr = nlt_object(ctx),
		.req = ctx[2],
		.alloc = ctx[3],
	};

	return nlt_count(st, &w, NLT_KMALLOC, nlt_row_of_object(st, w.ptr), nested);
}

static __always_inline int nlt_on_kfree(__u64 *ctx, struct nlt_state *st, bool nested)
{
	struct nlt_what w = { .call_site = ctx[0], .ptr = nlt_object(ctx) };

	return nlt_count(st, &w, NLT_KFREE, nlt_row_of_object(st, w.ptr), nested);
}

SEC("tp_btf/kmem_cache_alloc")
int nlt_cache_alloc(__u64 *ctx)
{
	struct nlt_state *st = nlt_get_state();

	return st ? nlt_on_cache(ctx, st, NLT_KMEM_CACHE_ALLOC, false) : 0;
}

SEC("tp_btf/kmem_cache_free")
int nlt_cache_free(__u64 *ctx)
{
	struct nlt_state *st = nlt_get_state();

	return st ? nlt_on_cache(ctx, st, NLT_KMEM_CACHE_FREE, false) : 0;
}

SEC("tp_btf/kmalloc")
int nlt_kmalloc(__u64 *ctx)
{
	struct nlt_state *st = nlt_get_state();

	return st ? nlt_on_kmalloc(ctx, st, false) : 0;
}

SEC("tp_btf/kfree")
int nlt_kfree(__u64 *ctx)
{
	struct nlt_state *st = nlt_get_state();

	return st ? nlt_on_kfree(ctx, st, false) : 0;
}

/*
 * The state, if the first program of this tracepoint is running beneath us on this CPU, so that the
 * kernel did not enter it for this event. Reads the kernel's own mark of that, prog->active.
 */
static __always_inline struct nlt_state *nlt_missed(__u32 kind)
{
	struct nlt_state *st = nlt_get_state();
	__u32 cpu = bpf_get_smp_processor_id();
	struct kmem_cache_order_objects *word; /* any kernel struct of one unsigned int */
	struct nlt_cpu *c;
	__u64 active;

	if (!st || cpu >= NLT_MAX_CPUS)
		return NULL;
	active = st->active[kind];
	if (!active)
		return NULL;
	word = bpf_rdonly_cast((void *)(st->cpu_off[cpu] + active),
			       bpf_core_type_id_kernel(struct kmem_cache_order_objects));
	if (!word->x)
		return NULL;
	c = nlt_get_cpu();
	if (c)
		__sync_fetch_and_add(&c->nested[kind], 1);
	return st;
}

SEC("tp_btf/kmem_cache_alloc")
int nlt_cache_alloc2(__u64 *ctx)
{
	struct nlt_state *st = nlt_missed(NLT_KMEM_CACHE_ALLOC);

	return st ? nlt_on_cache(ctx, st, NLT_KMEM_CACHE_ALLOC, true) : 0;
}

SEC("tp_btf/kmem_cache_free")
int nlt_cache_free2(__u64 *ctx)
{
	struct nlt_state *st = nlt_missed(NLT_KMEM_CACHE_FREE);

	return st ? nlt_on_cache(ctx, st, NLT_KMEM_CACHE_FREE, true) : 0;
}

SEC("tp_btf/kmalloc")
int nlt_kmalloc2(__u64 *ctx)
{
	struct nlt_state *st = nlt_missed(NLT_KMALLOC);

	return st ? nlt_on_kmalloc(ctx, st, true) : 0;
}

SEC("tp_btf/kfree")
int nlt_kfree2(__u64 *ctx)
{
	struct nlt_state *st = nlt_missed(NLT_KFREE);

	return st ? nlt_on_kfree(ctx, st, true) : 0;
}
