/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * core.h - the functions of the core, by layer, lowest first.
 *
 * They are defined in the headers of their layer, which one file includes for each place:
 * lib/core.c for the CPU, bpf/nolock.bpf.c for BPF. All of them are wait-free: no system call,
 * every loop bounded, every retry with an exit that cannot fail.
 */
#ifndef NL_CORE_CORE_H
#define NL_CORE_CORE_H

#include "layout.h"

/* Flags of an allocation inside the core. */
#define NL_RESERVE 1u /* may use the chunks set aside by populate */
#define NL_SPIN 2u    /* may wait for a barn, a bounded number of tries */
#define NL_SURE 4u    /* believe no hint: look at every chunk word before giving up */
#define NL_WHOLE 8u   /* of a new slab: no object is taken, all of them are free */
#define NL_THIS 16u   /* from the node named below, from no other */
/* The node that is to be had first: that of the slot's CPU, where none was asked for. */
#define NL_NODE(node) ((nl_u32)(node) << 8)
#define NL_NODE_OF(flags) (((flags) >> 8) & (NL_MAX_NODES - 1))

/*
 * The nodes in the order in which they are asked, each for its slabs and then for its chunks: the
 * one that the flags name, then, unless they forbid it, the others, i from 1 on. With a chunk of
 * another node for each object, where that node has slabs with free objects, memory would be gone
 * soon. The flags to ask with; 0: there is no such node.
 */
NL_INLINE nl_u32 nl_flags_near(nl_heap_t *h, nl_u32 flags)
{
	return h->nr_nodes > 1 ? flags | NL_THIS : flags;
}

NL_INLINE nl_u32 nl_flags_there(nl_heap_t *h, nl_u32 flags, nl_u32 i)
{
	nl_u32 node = NL_NODE_OF(flags) ^ i;

	return node < h->nr_nodes ? (flags & 0xff) | NL_NODE(node) | NL_THIS : 0;
}

/* May another node be asked? */
NL_INLINE int nl_flags_far(nl_heap_t *h, nl_u32 flags)
{
	return h->nr_nodes > 1 && !(flags & NL_THIS);
}

#ifndef __bpf__
/* heap.c: is it this process's own? By its handle: a shared heap may say what it likes. */
NL_FUNC int nl_heap_is_private(const nl_heap_t *h);
#endif

/* chunk.h: a chunk number, or 0. The chunk's tag then says that it is in the caller's hands. */
NL_FUNC nl_u32 nl_chunk_find(nl_heap_t *h NL_ARG, nl_u32 who, nl_u32 node);
NL_FLAT nl_u32 nl_chunk_near(nl_heap_t *h NL_ARG, nl_u32 flags, nl_u32 who);
NL_FUNC nl_u32 nl_chunk_scan(nl_heap_t *h NL_ARG, nl_u32 flags, nl_u32 who);
/* With the chunk's bit in hand: it is the caller's, unless it was not free. */
NL_INLINE int nl_chunk_claim(nl_heap_t *h, nl_u32 chunk, nl_u32 who)
{
	return nl_cas(nl_tag(h, chunk), NL_TAG(NL_KIND_FREE, 0), NL_TAG_TRANSIT(who));
}
/* Give chunks of one group back. Their tags are NL_KIND_FREE and their slab words 0 by now. */
NL_FUNC int nl_chunk_give(nl_heap_t *h NL_ARG, nl_u32 group, nl_u64 mask);
/* The same for chunks whose pages were not touched, or were dropped. */
NL_FUNC int nl_chunk_publish(nl_heap_t *h NL_ARG, nl_u32 group, nl_u64 mask);
/* 0, or -1 if it is no large object (any more). */
NL_FUNC int nl_large_free(nl_heap_t *h NL_ARG, nl_u32 chunk, nl_u32 who);

/* slab.h: an object's address or 0. The node is below NL_MAX_NODES. */
NL_FUNC nl_u64 nl_slab_take(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 who, nl_u32 node);
/* Its object 0 is the caller's, or goes on top of the sheaf if there is one (index + 1). */
NL_FUNC nl_u64 nl_slab_new(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 flags, nl_u32 who, nl_u32 sheaf);
NL_FUNC nl_u64 nl_slab_scan(nl_heap_t *h NL_ARG, nl_u32 id);
/*
 * chunk << 6 | word, + 1, of a word that may have free objects, in a slab that is not locked; 0 if
 * there is none; NL_ALL_LOCKED if there are only others'.
 */
#define NL_ALL_LOCKED (~0ULL)
NL_FUNC nl_u64 nl_slab_find(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 node);
/* Set, or clear with a second look, the hints that lead to the word. */
NL_FLAT int nl_slab_hint(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word);
NL_FUNC int nl_slab_unhint(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word);
/* Give objects of one word back. Returns the bits that were free already. */
NL_FUNC nl_u64 nl_slab_give(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 word, nl_u64 mask);
/* Give one object back: 0, or -1 if it is no object of the cache or was free already. */
NL_FUNC int nl_slab_put(nl_heap_t *h NL_ARG, nl_u32 id, nl_u64 obj);
/* Take a whole slab that is entirely free out of its cache: 0, or -1 when it is not. */
NL_FUNC int nl_slab_release(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 chunk, nl_u32 who);

/* sheaf.h: sheaf index + 1, or 0. It is in the caller's hands. */
NL_FUNC nl_u32 nl_sheaf_get(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 who);
NL_FUNC int nl_sheaf_put(nl_heap_t *h NL_ARG, nl_u32 sheaf);
/*
 * Move objects between a sheaf and the slabs, those of the node that the flags name. They return how
 * many were moved.
 */
NL_FLAT nl_u32 nl_sheaf_fill(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u32 want, nl_u32 who,
			     nl_u32 flags);
NL_FUNC nl_u32 nl_sheaf_flush(nl_heap_t *h NL_ARG, nl_u32 sheaf, nl_u32 id, nl_u32 keep,
			      nl_u32 who);

/* slot.h: the slot is locked by the caller, as who. 0 if it stays empty, or full. */
NL_FLAT nl_u32 nl_slot_refill(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
			      nl_u32 flags);
NL_FUNC nl_u32 nl_slot_room(nl_heap_t *h NL_ARG, nl_slot_t *slot NL_ARG, nl_u32 id, nl_u32 who,
			    nl_u32 flags);

/* cascade.h: A-slot and everything behind it. */
NL_FUNC nl_u64 nl_alloc(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 cpu, nl_u32 who, nl_u32 flags);
NL_FUNC nl_u64 nl_alloc_last(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 cpu, nl_u32 who, nl_u32 flags);
NL_FUNC int nl_free(nl_heap_t *h NL_ARG, nl_u32 id, nl_u32 cpu, nl_u32 who, nl_u64 obj);

#endif /* NL_CORE_CORE_H */
