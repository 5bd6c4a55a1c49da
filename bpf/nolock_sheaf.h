/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * nolock_sheaf.h - prefilled sheaves in BPF: those of lib/prefill.c, which either side fills, uses
 * and returns. Part of nolock.bpf.c.
 *
 * A sheaf of the table is its owner's, who is named in it: a repair flushes what a dead one had.
 * So a program that uses a sheaf which a process filled makes it its own first, by the cmpxchg
 * that decides between it and a repair; lib/prefill.c does the same.
 */
#ifndef NL_BPF_SHEAF_H
#define NL_BPF_SHEAF_H

/* An oversize sheaf: an object of kmalloc(), as lib/prefill.c has it. */
typedef struct nolock_bpf_oversize NLA nl_oversize_t;

/* Its number in the heap's table + 1; 0 if it lies elsewhere. */
NL_INLINE nl_u32 nl_bpf_table_sheaf(nl_heap_t *h, void NLA *sheaf)
{
	nl_u64 off = (nl_u32)(nl_u64)sheaf - (nl_u64)(nl_u32)h->off_sheaf;
	nl_u64 number = off / sizeof(struct nl_sheaf);

	return number < h->nr_sheaves && !(off % sizeof(struct nl_sheaf)) ? (nl_u32)number + 1 : 0;
}

/* The oversize sheaf at an address, or a size of 0 if what is there is none. */
NL_INLINE nl_u32 nl_bpf_oversize(nl_heap_t *h, nl_oversize_t *o)
{
	nl_u64 obj = (nl_u32)(nl_u64)o;

	if (!nl_chunk_ok(h, obj >> NL_CHUNK_SHIFT) || (obj & 7) || o->size > o->capacity ||
	    o->capacity > NOLOCK_BPF_BULK_MAX)
		return 0;
	return o->size;
}

/* What was taken from it so far goes on the books. */
NL_INLINE void nl_bpf_settle(nl_heap_t *h, nl_u32 id, nl_u32 cpu, nl_sheaf_t *s)
{
	nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_ALLOC_SLOWPATH, s->next - s->size);
	nl_store(&s->next, s->size);
}

NL_FUNC int nl_bpf_give_sheaf(nl_heap_t *h NL_ARG, nl_u32 number, nl_u32 cpu)
{
	nl_sheaf_t *s = nl_sheaf(h, number - 1);
	nl_u32 id = s->cache - 1u;
	nl_slot_t *count = nl_aslot(h, cpu, id);
	nl_u32 node = s->size ? nl_node_of(h, nl_group_at(h, nl_load(&s->obj[0]))) :
				nl_slot_node(h, cpu);
	nl_barn_t *barn = &nl_cache(h, id)->barn[node];
	nl_u64 owner = nl_load(&s->owner);
	int kept = 0;

	/* In transit from here on: a second return finds it so, or in a list, or free. */
	if (id >= NL_MAX_CACHES || !(owner & NL_PREFILLED) ||
	    !nl_cas(&s->owner, owner, (nl_u64)who(cpu) << 32))
		return -1;
	nl_bpf_settle(h, id, cpu, s);
	if (s->size && s->size <= nl_cache(h, id)->capacity &&
	    !(nl_cache(h, id)->mode & NL_CACHE_ARRAY) && nl_barn_lock(barn, who(cpu), 0)) {
		if (nl_barn_room(barn)) {
			nl_barn_push(h, &barn->full, number);
			kept = 1;
		}
		nl_barn_unlock(barn);
	}
	nl_slot_count(count, kept ? NL_STAT_RETURN_FAST : NL_STAT_RETURN_SLOW, 1);
	if (kept)
		return 0;
	nl_slot_count(count, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, number, id, 0, who(cpu)));
	nl_slot_count(count, NL_STAT_SHEAF_FREE, 1);
	nl_sheaf_put(h, number);
	return 0;
}

__attribute__((noinline)) int nolock_bpf_return(void NLA *cache NL_ARG, void NLA *sheaf NL_ARG)
{
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id(), number = nl_bpf_table_sheaf(h, sheaf);
	nl_oversize_t *o = (nl_oversize_t *)sheaf;

	__asm__ volatile("" : : "r"(cache));
	if (!sheaf || cpu >= h->nr_slots)
		return 0;
	if (number) {
		if (!nl_bpf_give_sheaf(h, number, cpu))
			return 0;
		nl_add(&h->refused, 1);
		return -1;
	}
	/* No sheaf at all: the free of it is refused as any other. */
	if (nl_bpf_oversize(h, o))
		nolock_bpf_free_bulk(o->size, (void NLA *)&o->obj[0]);
	return nolock_bpf_free(sheaf);
}

/* What this CPU's main sheaf has, for one that the slabs no longer fill. */
NL_INLINE nl_u64 nl_bpf_pop_one(nl_heap_t *h, nl_u32 id, nl_u32 cpu)
{
	nl_slot_t *slot = nl_aslot(h, cpu, id);
	nl_u64 obj;

	if (!nl_slot_trylock(slot, who(cpu)))
		return 0;
	obj = nl_slot_pop(slot);
	nl_slot_unlock(slot);
	return obj;
}

/* A table sheaf up to size objects. Returns how many it has. */
NL_INLINE nl_u32 nl_bpf_fill(nl_heap_t *h, nl_u32 number, nl_u32 id, nl_u32 cpu, nl_u32 size)
{
	nl_sheaf_t *s = nl_sheaf(h, number - 1);
	nl_u32 scans = nl_zero(), near = nl_slot_node(h, cpu);

	nl_for(i, size) {
		nl_u64 obj;
		nl_u32 n;

		if (s->size >= size || s->size >= NL_SHEAF_MAX)
			break;
		n = nl_sheaf_fill_slab(h, number, id, near << 16 | size, who(cpu));
		if (n && n < NL_FILL_BUSY)
			continue;
		obj = nl_bpf_pop_one(h, id, cpu);
		if (!obj)
			obj = nl_bpf_alloc_one(h, id, cpu, &scans);
		if (!obj)
			break;
		nl_slot_count(nl_aslot(h, cpu, id), NL_STAT_ALLOC_SLOWPATH, (nl_u64)-1);
		n = s->size;
		if (n >= NL_SHEAF_MAX)
			break;
		nl_store(&s->obj[n], obj);
		nl_store(&s->size, (nl_u16)(n + 1));
	}
	nl_store(&s->next, s->size);
	return s->size;
}

__attribute__((noinline)) unsigned long long nolock_bpf_prefill(void NLA *cache NL_ARG,
								unsigned int flags,
								unsigned int size)
{
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id(),
	       id = nolock_bpf_cache_id((nolock_bpf_heap_t *)h, cache);
	nl_cache_t *c = nl_cache(h, id);
	nl_slot_t *count = nl_aslot(h, cpu, id);
	nl_u32 number = 0;
	nl_barn_t *barn;
	nl_sheaf_t *s;

	if (cpu >= h->nr_slots || id >= NL_MAX_CACHES || (flags & ~NOLOCK_GFP_NOLOCK_MASK) ||
	    !size || size > NOLOCK_BPF_PREFILL_MAX)
		return 0;
	if (size > c->capacity || size > NL_SHEAF_MAX)
		goto oversize;
	barn = &c->barn[nl_slot_node(h, cpu)];
	if (nl_load(&barn->full.nr) && nl_barn_lock(barn, who(cpu), 0)) {
		number = nl_barn_pop(h, &barn->full, who(cpu));
		nl_barn_unlock(barn);
	}
	nl_slot_count(count, number ? NL_STAT_PREFILL_FAST : NL_STAT_PREFILL_SLOW, 1);
	if (!number) {
		number = nl_sheaf_get(h, id, who(cpu));
		if (!number)
			goto oversize;
		nl_slot_count(count, NL_STAT_SHEAF_ALLOC, 1);
	}
	s = nl_sheaf(h, number - 1);
	nl_store(&s->next, s->size);
	nl_store(&s->owner, (nl_u64)who(cpu) << 32 | NL_PREFILLED);
	if (nl_bpf_fill(h, number, id, cpu, size) < size) {
		nl_bpf_give_sheaf(h, number, cpu);
		return 0;
	}
	return nl_sheaf_objs(h, number) - __builtin_offsetof(struct nl_sheaf, obj);
oversize:
	nl_slot_count(count, NL_STAT_PREFILL_OVERSIZE, 1);
	return NOLOCK_BPF_OVERSIZE;
}

__attribute__((noinline)) unsigned long long nolock_bpf_from_sheaf(void NLA *cache NL_ARG,
								   unsigned int flags,
								   void NLA *sheaf NL_ARG)
{
	nl_heap_t *h = the_heap();
	nl_cache_t *c = (nl_cache_t *)cache;
	nl_u32 number = nl_bpf_table_sheaf(h, sheaf), n;
	nl_u64 obj, owner;

	if (!sheaf || !cache || (flags & ~NOLOCK_GFP_NOLOCK_MASK))
		return 0;
	if (number) {
		nl_sheaf_t *s = nl_sheaf(h, number - 1);

		owner = nl_load(&s->owner);
		if (!(owner & NL_PREFILLED))
			return 0;
		if (NL_OWNER_CLIENT(owner) != NL_CLIENT_BPF &&
		    !nl_cas(&s->owner, owner, (nl_u64)who(0) << 32 | NL_PREFILLED))
			return 0;
		n = s->size;
		if (!n || n > NL_SHEAF_MAX)
			return 0;
		obj = nl_load(&s->obj[n - 1]);
		nl_store(&s->size, (nl_u16)(n - 1));
	} else {
		nl_oversize_t *o = (nl_oversize_t *)sheaf;

		n = nl_bpf_oversize(h, o);
		if (!n)
			return 0;
		obj = o->obj[n - 1];
		o->size = n - 1;
	}
	if (flags & __GFP_ZERO)
		nolock_bpf_zero(obj, c->object_size);
	return obj;
}

__attribute__((noinline)) unsigned int nolock_bpf_sheaf_size(void NLA *sheaf NL_ARG)
{
	nl_heap_t *h = the_heap();
	nl_u32 number = nl_bpf_table_sheaf(h, sheaf);

	return number ? nl_sheaf(h, number - 1)->size : nl_bpf_oversize(h, (nl_oversize_t *)sheaf);
}

#endif /* NL_BPF_SHEAF_H */
