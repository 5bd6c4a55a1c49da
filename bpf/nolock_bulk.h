/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * nolock_bulk.h - many objects by one take of the A-slot's lock: from and to whole sheaves, which
 * the spare, the barn and the slabs' words replace while the lock is held. What no sheaf serves is
 * allocated and freed one by one. Part of nolock.bpf.c.
 */
#ifndef NL_BPF_BULK_H
#define NL_BPF_BULK_H

/* Up to n objects from the top of main. One store to the word commits and counts them. */
NL_FUNC nl_u32 nl_bpf_pop_some(nl_slot_t *slot NL_ARG, nl_word_t *p NL_ARG, nl_u32 n)
{
	nl_u64 word = nl_load(&slot->word);
	nl_word_t *objs = (nl_word_t *)slot->objs;
	nl_u32 size = NL_WORD_SIZE(word), got = nl_zero();

	if (!slot || !p || size > NL_SHEAF_MAX)
		return 0;
	if (n > size)
		n = size;
	nl_for(i, n) {
		p[i] = nl_load(&objs[size - 1 - i]);
		got++;
	}
	nl_store(&slot->word, word + got * NL_WORD_POP);
	return got;
}

/* The id of the cache whose object this is, or -1; the address may be the lower half alone. */
NL_INLINE int nl_bpf_object(nl_heap_t *h, nl_u64 *obj)
{
	int id;

	if (!(*obj >> 32))
		*obj += h->base;
	id = (*obj ^ h->base) >> 32 ? -1 : nl_cache_of(h, *obj);
	return id < 0 || nl_slab_index(h, (nl_u32)id, *obj) == ~0u ? -1 : id;
}

/*
 * Objects of the cache, and of the CPU's node, up to the first that is none, into main while there
 * is room.
 */
NL_FUNC nl_u32 nl_bpf_push_some(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id_cpu,
				nl_word_t *p NL_ARG, nl_u32 n)
{
	nl_u32 id = id_cpu & 0xffff, near = nl_slot_node(h, id_cpu >> 16);
	nl_u64 word = nl_load(&slot->word);
	nl_word_t *objs = (nl_word_t *)slot->objs;
	nl_u32 size = NL_WORD_SIZE(word), done = nl_zero();
	nl_u32 room = slot->cap < NL_SHEAF_MAX ? slot->cap : NL_SHEAF_MAX;

	if (!p || size >= room)
		return 0;
	if (n > room - size)
		n = room - size;
	nl_for(i, n) {
		nl_u64 obj = p[i];

		if (nl_bpf_object(h, &obj) != (int)id || nl_node_of(h, nl_group_at(h, obj)) != near)
			break;
		nl_store(&objs[size + i], obj);
		done++;
	}
	nl_barrier(); /* the objects before the size */
	nl_store(&slot->word, word + done);
	return done;
}

/* Past the slot, straight back: 0, or -1 for what is no object. */
NL_FUNC int nl_bpf_free_one(nl_heap_t *h NL_ARG, nl_u32 cpu, nl_u64 obj)
{
	nl_u64 at = obj, chunk = (nl_u32)obj >> NL_CHUNK_SHIFT;
	int id = nl_bpf_object(h, &at);

	if (id >= 0 && !nl_slab_put(h, (nl_u32)id, at)) {
		nl_slot_count(nl_aslot(h, cpu, (nl_u32)id), NL_STAT_FREE_SLOWPATH, 1);
		return 0;
	}
	if (obj <= 16)
		return 0; /* NULL, ZERO_SIZE_PTR */
	if (id < 0 && !((at ^ h->base) >> 32) && !(at & (NL_CHUNK_SIZE - 1)) &&
	    nl_chunk_ok(h, chunk) && !nl_large_free(h, (nl_u32)chunk, who(cpu)))
		return 0;
	nl_add(&h->refused, 1);
	return -1;
}

__attribute__((noinline)) int nolock_bpf_free_bulk(unsigned long long size, void NLA *array NL_ARG)
{
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id(), done = nl_zero();
	nl_word_t *p = (nl_word_t *)array;

	if (cpu >= h->nr_slots || !size)
		return 0;
	if (size > NOLOCK_BPF_BULK_MAX) {
		nl_add(&h->refused, 1);
		return -1;
	}
	/* An object a turn at least. */
	nl_for(i, (nl_u32)size) {
		nl_u32 n = nl_zero();
		nl_slot_t *slot;
		nl_u64 obj;
		int id;

		if (done >= size)
			break;
		obj = p[done];
		id = nl_bpf_object(h, &obj);
		slot = nl_aslot(h, cpu, (nl_u32)id);
		if (id >= 0 && nl_slot_trylock(slot, who(cpu))) {
			n = nl_bpf_push_some(h, slot, (nl_u32)id | cpu << 16, p + done,
					     (nl_u32)size - done);
			if (!n && nl_slot_room(h, slot, (nl_u32)id, who(cpu),
					       NL_NODE(nl_slot_node(h, cpu))))
				n = nl_bpf_push_some(h, slot, (nl_u32)id | cpu << 16, p + done,
						     (nl_u32)size - done);
			nl_slot_unlock(slot);
		}
		if (!n) {
			nl_bpf_free_one(h, cpu, p[done]);
			n = 1;
		}
		done += n;
	}
	return (int)done;
}

/*
 * Looks at every chunk that one call may make. In a heap that nobody overwrites it takes one to
 * know that nothing is left; in another, what is found by them may go on and on.
 */
#define NL_BPF_SCANS 16u

/* scans: how often all may be looked at. */
NL_INLINE nl_u64 nl_bpf_alloc_one(nl_heap_t *h, nl_u32 id, nl_u32 cpu, nl_u32 *scans)
{
	nl_u64 obj = nl_alloc_behind(h, nl_aslot(h, cpu, id), id, who(cpu),
				     NL_RESERVE | NL_NODE(nl_slot_node(h, cpu)));

	if (obj)
		return obj;
	if ((*scans)++ >= NL_BPF_SCANS)
		return 0;
	obj = nl_alloc_last(h, id, cpu, who(cpu), NL_RESERVE);
	if (!obj && nolock_bpf_grow() > 0)
		obj = nl_alloc_last(h, id, cpu, who(cpu), NL_RESERVE);
	return obj;
}

__attribute__((noinline)) int nolock_bpf_alloc_bulk(void NLA *cache NL_ARG, unsigned int flags,
						    unsigned long long size, void NLA *array NL_ARG)
{
	nl_heap_t *h = the_heap();
	nl_u32 cpu = bpf_get_smp_processor_id(),
	       id = nolock_bpf_cache_id((nolock_bpf_heap_t *)h, cache);
	nl_u32 want = (nl_u32)size, got = nl_zero(), bytes;
	nl_word_t *p = (nl_word_t *)array;
	nl_slot_t *slot = nl_aslot(h, cpu, id);
	nl_u32 scans = nl_zero();

	if (cpu >= h->nr_slots || id >= NL_MAX_CACHES || (flags & ~NOLOCK_GFP_NOLOCK_MASK) ||
	    !size || size > NOLOCK_BPF_BULK_MAX || !p)
		return 0;
	if (nl_slot_trylock(slot, who(cpu))) {
		nl_for(i, want) {
			got += nl_bpf_pop_some(slot, p + got, want - got);
			if (got >= want ||
			    !nl_slot_refill(h, slot, id, who(cpu),
					    NL_RESERVE | NL_NODE(nl_slot_node(h, cpu))))
				break;
		}
		nl_slot_unlock(slot);
	}
	nl_for(k, want) {
		nl_u64 obj;

		if (got >= want)
			break;
		obj = nl_bpf_alloc_one(h, id, cpu, &scans);
		if (!obj)
			break;
		p[got] = obj;
		got++;
	}
	if (got < want) {
		nl_for(f, got) {
			nl_bpf_free_one(h, cpu, p[f]);
		}
		nl_slot_count(slot, NL_STAT_ALLOC_FAIL, 1);
		return 0;
	}
	if (flags & __GFP_ZERO) {
		bytes = nl_cache(h, id)->object_size;
		nl_for(z, want) {
			nolock_bpf_zero(p[z], bytes);
		}
	}
	return (int)want;
}

#endif /* NL_BPF_BULK_H */
