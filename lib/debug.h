/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * debug.h - debugged caches: what lies around their objects, and where the allocator asks.
 *
 * A debugged cache has sheaves of capacity 0, so that every call of it takes the slow path, where
 * the hooks below are. Only private heaps have such caches: BPF programs and other processes
 * would take a slab's bits past the hooks. One object, from the address that its bit stands for:
 *
 *   left red zone      nl_cache.left bytes, a multiple of the alignment     Z
 *   object             object_size bytes; the user's pointer
 *   right red zone     up to a multiple of 8, 8 bytes at least              Z
 *   struct nl_record   the state; who allocated it, who freed it            the last two: U
 *   padding            up to the next object                                checked with P
 *
 * The state word decides who may touch the rest. Its writers: who holds the object's bit (of a
 * free object), else who moves it away from ACTIVE by cmpxchg. A free's cmpxchg to FREEING is the
 * claim, so a second free finds another state, whenever it comes. A validation that finds an
 * allocated object damaged claims it as CHECK; a free that comes then says so by PENDING, and the
 * validation frees the object when it is done. Nobody waits.
 */
#ifndef NL_DEBUG_H
#define NL_DEBUG_H

#include "internal.h"

/* The flags that make a cache a debugged one. */
#define NL_DEBUG_FLAGS                                                                             \
	(SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE)

/* The bytes of Linux's poison.h. */
#define NL_RED_INACTIVE 0xbb
#define NL_RED_ACTIVE 0xcc
#define NL_POISON_INUSE 0x5a
#define NL_POISON_FREE 0x6b
#define NL_POISON_END 0xa5

#define NL_TRACK_DEPTH 12

/* Who allocated or freed an object. */
struct nl_track {
	nl_u64 when; /* CLOCK_MONOTONIC_COARSE in ms; 0: never */
	nl_u32 pid;  /* 0: not known, in a child that has made no ordinary call yet */
	nl_u32 tid;
	nl_u64 addr[NL_TRACK_DEPTH]; /* return addresses, the innermost first */
};

/* state = {count of changes 16, NL_STATE_* 16, bytes asked for 32} */
struct nl_record {
	nl_u64 state;
	struct nl_track alloc, free; /* SLAB_STORE_USER */
};
#define NL_STATE(count, kind, size)                                                                \
	((nl_u64)(nl_u16)(count) << 48 | (nl_u64)(kind) << 32 | (nl_u32)(size))
#define NL_STATE_COUNT(state) ((nl_u32)((state) >> 48))
#define NL_STATE_KIND(state) ((nl_u32)((state) >> 32) & 0xffff)
#define NL_STATE_SIZE(state) ((nl_u32)(state))
enum {
	NL_STATE_FREE = 0xf9ee,
	NL_STATE_ACTIVE = 0xac71,
	NL_STATE_FREEING = 0xf91e,
	NL_STATE_CHECK = 0xc4ec,
	NL_STATE_PENDING = 0x9e4d,
	NL_STATE_KEPT = 0x4e97, /* damaged while free: never handed out again */
};

/* Is any cache of this process a debugged one? The first thing that every hook looks at. */
extern int nl_debug_on NL_HIDDEN;

NL_INLINE bool nl_debugged(const struct nolock_heap *heap, nl_u32 id)
{
	return nl_unlikely(nl_load(&nl_debug_on)) && heap->type == NL_HEAP_PRIVATE &&
	       (nl_cache(heap->h, id)->flags & NL_DEBUG_FLAGS);
}

/* The flags that NOLOCK_DEBUG has for a cache of that name. Any context. */
NL_HIDDEN nl_u32 nl_debug_flags(const char *name);

/* Make a cache a debugged one, before it goes live: name, flags, ctor, sizes and align are set. */
NL_HIDDEN void nl_debug_cache(struct nl_cache *c, nl_u32 flags);

/* Ordinary context, for a cache with SLAB_STORE_USER: have what a stack's walk needs loaded. */
NL_HIDDEN void nl_debug_prepare(nl_u32 flags);

/*
 * The hooks. Wait-free, but that a report is written, which is a system call.
 *
 * An object's bit was taken: the address for its user; 0 if it is damaged and stays out of use, and
 * another is to be tried. @tries: how often that has happened in this call.
 */
NL_HIDDEN nl_u64 nl_debug_alloc(struct nolock_heap *heap, nl_u64 obj, nl_u32 tries);
/* An object is freed: the address that its bit stands for; 0 if there is nothing left to do. */
NL_HIDDEN nl_u64 nl_debug_free(struct nolock_heap *heap, nl_u32 id, nl_u64 p);
/* Bytes that the user of an allocated object may use; 0 if it is none. */
NL_HIDDEN size_t nl_debug_size(struct nolock_heap *heap, nl_u32 id, nl_u64 p);
/* An allocated object has another size from now on. False: it cannot, in place. */
NL_HIDDEN bool nl_debug_resize(struct nolock_heap *heap, nl_u32 id, nl_u64 p, size_t size,
			       bool zero);
/* A slab is made, and nobody else knows of it: false if its cache is none of ours. */
NL_HIDDEN bool nl_debug_slab_new(struct nl_heap *h, nl_u32 id, nl_u32 chunk);
/* A slab is given back, all its bits in the caller's hand. */
NL_HIDDEN void nl_debug_slab_gone(struct nl_heap *h, nl_u32 id, nl_u32 chunk);
/* A free was refused that no cache knows of; an object was freed to another cache than its own. */
NL_HIDDEN void nl_debug_refused(const void *p, const char *why);
NL_HIDDEN void nl_debug_wrong_cache(const struct kmem_cache *s, const void *p);
/* A cache cannot be destroyed: the objects left, with who allocated them. */
NL_HIDDEN void nl_debug_leaks(struct nolock_heap *heap, nl_u32 id, unsigned long left);
/* Objects kept out of use go back to their slabs: the cache is about to be destroyed. */
NL_HIDDEN void nl_debug_unkeep(struct nolock_heap *heap, nl_u32 id);

/* One object of a debugged cache, or as much of it as is known, for a report. */
struct nl_subject {
	struct nolock_heap *heap;
	struct nl_cache *cache;	  /* or NULL */
	nl_u64 slot;		  /* its bit's address, or 0 */
	nl_u64 p;		  /* the user's, or what was passed as one */
	struct nl_record *record; /* or NULL */
};

/* report.c: a track of this call; whoever walks the stack may do so now. Wait-free. */
NL_HIDDEN void nl_track(struct nl_track *t);
NL_HIDDEN void nl_track_prepare(void);
/* The pid, if a fork made it unknown. Makes a system call then. */
NL_HIDDEN void nl_track_pid(void);
/* One bug, counted: what, where and how the bytes are; the region [from, to) should be all @want. */
NL_HIDDEN void nl_report_bug(const struct nl_subject *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
NL_HIDDEN void nl_report_bytes(const struct nl_subject *s, const char *what, nl_u64 from, nl_u64 to,
			       nl_u8 want);
/* What was done about it, counted. */
NL_HIDDEN void nl_report_fix(const struct nl_subject *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
NL_HIDDEN void nl_report_count(const struct nl_subject *s);
/* A line without a bug: SLAB_TRACE. An object that was never freed. */
NL_HIDDEN void nl_report_trace(const struct nl_subject *s, const char *what);
NL_HIDDEN void nl_report_leak(const struct nl_subject *s);
/* An allocation failed: a line, unless there were too many. Makes a system call. */
NL_HIDDEN void nl_report_failure(const char *cache, size_t size, gfp_t gfp);
/* One line on stderr. */
NL_HIDDEN void nl_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern bool nl_report_abort NL_HIDDEN; /* NOLOCK_DEBUG_ABORT */

#endif /* NL_DEBUG_H */
