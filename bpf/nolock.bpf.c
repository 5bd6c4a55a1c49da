// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * nolock.bpf.c - the one core, compiled for BPF: becomes libnolock.bpf.o.
 *
 * A-slots and what is behind them, on the arena that user space calls a shared heap. The heap's
 * header lies at offset 0; the verifier turns every address into an offset within the arena, so
 * nothing that stands in the heap can lead a program out of it, and an absent page reads as 0: a
 * heap without a header has no slots and serves nobody.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "nolock.bpf.h"
#include "core/chunk.h"
#include "core/slab.h"
#include "core/sheaf.h"
#include "core/cascade.h"
#include "core/kmalloc.h"

/* Replaced by the heap's own map before the load; 33 is BPF_MAP_TYPE_ARENA. */
struct {
	__uint(type, 33);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
} nolock_heap SEC(".maps");

/* For loaders, which compare it with the heap's: nolock_bpf_attach_heap(). */
const volatile __u32 nolock_bpf_layout __attribute__((used)) = NL_VERSION;

/* Naming the map makes it the arena of every program that this is linked into. */
NL_INLINE nl_heap_t *the_heap(void)
{
	nl_u64 zero = 0;

	__asm__ volatile("" : "+r"(zero) : "r"(&nolock_heap));
	return (nl_heap_t *)zero;
}

NL_INLINE nl_u32 who(nl_u32 cpu)
{
	return (NL_CLIENT_BPF << 16) | ((cpu + 1) & 0xffff);
}

/* What nolock.bpf.h believes about the layout. */
#define SAME(view, real, field)                                                                    \
	_Static_assert(__builtin_offsetof(struct view, field) ==                                   \
			       __builtin_offsetof(struct real, field),                             \
		       #real "." #field)
SAME(nolock_bpf_heap, nl_heap, base);
SAME(nolock_bpf_heap, nl_heap, nr_slots);
SAME(nolock_bpf_heap, nl_heap, nr_nodes);
SAME(nolock_bpf_heap, nl_heap, off_cache);
SAME(nolock_bpf_heap, nl_heap, off_aslot);
SAME(nolock_bpf_heap, nl_heap, off_tag);
SAME(nolock_bpf_heap, nl_heap, nr_open);
SAME(nolock_bpf_slot, nl_slot, lock);
SAME(nolock_bpf_slot, nl_slot, word);
SAME(nolock_bpf_slot, nl_slot, objs);
SAME(nolock_bpf_slot, nl_slot, cap);
SAME(nolock_bpf_slot, nl_slot, last_tag);
SAME(nolock_bpf_cache, nl_cache, state);
SAME(nolock_bpf_cache, nl_cache, size);
SAME(nolock_bpf_cache, nl_cache, recip);
SAME(nolock_bpf_cache, nl_cache, per_slab);
SAME(nolock_bpf_cache, nl_cache, id);
_Static_assert(sizeof(struct nl_slot) == 256 && NL_SLOT_SHIFT == 8 && NL_CHUNK_SHIFT == 16 &&
		       NL_GROUP_SHIFT == 6,
	       "slots by a shift");
_Static_assert(NOLOCK_BPF_CACHE_BYTES == sizeof(struct nl_cache) &&
		       NOLOCK_BPF_CACHE_LIVE == NL_CACHE_LIVE &&
		       NOLOCK_BPF_NO_CACHE == NL_MAX_CACHES &&
		       NOLOCK_BPF_KIND_SLAB << 16 == NL_TAG(NL_KIND_SLAB, 0) &&
		       KMALLOC_MAX_CACHE_SIZE == NL_MAX_SIZE && NL_CLIENT_BPF == 0xffff,
	       "constants");

/* All zero, size bytes rounded up to 8: every object is as long as that. */
NL_FUNC int nolock_bpf_zero(nl_u64 obj, nl_u32 size)
{
	nl_word_t *word = (nl_word_t *)obj;
	nl_u32 words = (size + 7) / 8;

	if (words > NL_MAX_SIZE / 8)
		return 0;
	nl_for(i, words) {
		word[i] = 0;
	}
	return 0;
}

/* Overridden by libnolock-grow.bpf.o in objects that are linked with it as well. */
__attribute__((weak, noinline)) int nolock_bpf_grow(void)
{
	return 0;
}

/*
 * From the cache or, for kmalloc, the next larger bucket; then by the scan that is sure; at last
 * from a new group, where this object can open one.
 */
NL_INLINE nl_u64 nl_bpf_alloc(nl_heap_t *h, nl_u32 id, nl_u32 cpu)
{
	nl_u32 next = nl_cache(h, id)->next;
	nl_u64 obj;

	obj = nl_alloc(h, id, cpu, who(cpu), NL_RESERVE);
	if (obj)
		return obj;
	if (next != id) {
		obj = nl_alloc(h, next, cpu, who(cpu), NL_RESERVE);
		if (obj)
			goto next_bucket;
	}
	obj = nl_alloc_last(h, id, cpu, who(cpu), NL_RESERVE);
	if (obj)
		return obj;
	if (next != id) {
		obj = nl_alloc_last(h, next, cpu, who(cpu), NL_RESERVE);
		if (obj)
			goto next_bucket;
	}
	if (nolock_bpf_grow() > 0) {
		obj = nl_alloc_last(h, id, cpu, who(cpu), NL_RESERVE);
		if (obj)
			return obj;
	}
	nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_ALLOC_FAIL, 1);
	return 0;
next_bucket:
	nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_NEXT_BUCKET, 1);
	return obj;
}

__attribute__((noinline)) unsigned long long nolock_bpf_alloc(unsigned long long size,
							      unsigned int flags)
{
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id(), id;
	nl_u64 obj;

	if (cpu >= h->nr_slots || (flags & ~NOLOCK_GFP_NOLOCK_MASK) || size > NL_MAX_SIZE)
		return 0;
	if (!size)
		return 16; /* ZERO_SIZE_PTR */
	id = nl_kmalloc_cache((nl_u32)size, flags & __GFP_ACCOUNT);
	obj = nolock_bpf_fast_alloc(id << NL_SLOT_SHIFT);
	if (!obj)
		obj = nl_bpf_alloc(h, id, cpu);
	/* The whole bucket, which may be the next one: user space may krealloc() it. */
	if (obj && (flags & __GFP_ZERO)) {
		int its = nl_cache_of(h, obj);

		nolock_bpf_zero(obj, nl_cache(h, (nl_u32)its)->size);
	}
	return obj;
}

__attribute__((noinline)) unsigned long long nolock_bpf_cache_alloc(void NLA *cache NL_ARG,
								    unsigned int flags)
{
	nl_cache_t *c = (nl_cache_t *)cache;
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id();
	nl_u32 id = nolock_bpf_cache_id((nolock_bpf_heap_t *)h, cache);
	nl_u64 obj;

	if (cpu >= h->nr_slots || (flags & ~NOLOCK_GFP_NOLOCK_MASK) || id >= NL_MAX_CACHES)
		return 0;
	obj = nolock_bpf_fast_alloc(id << NL_SLOT_SHIFT);
	if (!obj)
		obj = nl_bpf_alloc(h, id, cpu);
	if (obj && (flags & __GFP_ZERO))
		nolock_bpf_zero(obj, c->object_size);
	return obj;
}

__attribute__((noinline)) int nolock_bpf_free(void NLA *p NL_ARG)
{
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id();
	nl_u64 obj;
	nl_u64 half, chunk;
	nl_u32 tag;

	/* A BPF program may hold the low half of the address alone; any other is not the heap's. */
	half = (nl_u64)p >> 32;
	obj = (nl_u32)(nl_u64)p;
	if ((!half && obj <= 16) || cpu >= h->nr_slots)
		return 0;
	if (half && half != h->base >> 32)
		goto refused;
	chunk = obj >> NL_CHUNK_SHIFT;
	obj += h->base;
	if (!nl_chunk_ok(h, chunk))
		goto refused;
	tag = nl_load(nl_tag(h, (nl_u32)chunk));
	if (NL_TAG_KIND(tag) == NL_KIND_SLAB)
		return nl_free(h, NL_TAG_CACHE(tag), cpu, who(cpu), obj);
	if (NL_TAG_KIND(tag) == NL_KIND_LARGE && !(obj & (NL_CHUNK_SIZE - 1)) &&
	    !nl_large_free(h, (nl_u32)chunk, who(cpu)))
		return 0;
refused:
	nl_add(&h->refused, 1);
	return -1;
}

/* No load in line: a program that only reads is told its arena here. */
__attribute__((noinline)) unsigned long long nolock_bpf_root(void)
{
	return nl_load(&the_heap()->root);
}

#include "nolock_bulk.h"
#include "nolock_sheaf.h"
