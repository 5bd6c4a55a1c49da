/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * nolock.bpf.h - kmalloc_nolock(), kfree_nolock(), caches, bulk forms and prefilled sheaves on a
 * shared heap, from any BPF program type that may use an arena.
 *
 * Include it after vmlinux.h (or <linux/bpf.h>) and <bpf/bpf_helpers.h>, link the object with
 * libnolock.bpf.o (bpftool gen object), and hand it the heap before it is loaded, with
 * nolock_bpf_open_heap() of <nolock/bpf.h>. A program object works on one heap.
 *
 * Objects are addresses in user space, the same in every process that has the heap open, and may
 * be freed on either side. In BPF they are arena pointers: a wild one reaches nothing but the
 * heap. Contexts of all calls: task, softirq, hardirq and NMI, nested in each other; all of them
 * are wait-free. What one program, or user space, has written into an object is seen by whoever
 * gets the pointer from an atomic operation (xchg, cmpxchg) after it was put there by one.
 *
 * Cost: with constant flags, and a constant size, the common case is in line: about 20 instructions an
 * allocation and 40 a free, and one cmpxchg each; none in an object whose programs are all of types
 * that the kernel does not preempt (XDP, tc, perf_event). That needs the name of the machine that it
 * runs on, as bpf_tracing.h wants it: -D__TARGET_ARCH_x86 or arm64, as pkg-config's bpfcflags has it;
 * without, every call is a call. Not x86 where it may run elsewhere: releases are plain stores then.
 *
 * Verifier: each of the functions is checked once for a program, however often it is called.
 *
 * Growing: nolockd opens memory ahead of demand. An object that is linked with libnolock-grow.bpf.o
 * as well opens another 4 MiB itself where an allocation would fail. It pays for that with what the
 * kernel does then: that call takes a millisecond or more and may wait for the kernel's lock of the
 * arena, a bounded time; it fails without waiting where it interrupts that lock's holder. Programs
 * that may not sleep can be so linked from Linux 7.0 on, which nolock_bpf_can_grow() of
 * <nolock/bpf.h> tells; before, they would not load. The object's licence has to be one that goes
 * with the GPL, and the kernel must have BTF.
 *
 * Build with clang 19 or newer, -target bpf -mcpu=v4. Kernels: 6.12 or newer.
 */
#ifndef NOLOCK_BPF_H
#define NOLOCK_BPF_H

#include <nolock/gfp.h>

#ifndef __arena
#define __arena __attribute__((address_space(1)))
#endif
#ifndef __arg_arena
#define __arg_arena __attribute__((btf_decl_tag("arg:arena")))
#endif

/* What an allocation of size 0 returns: may be freed, must not be dereferenced. */
#define ZERO_SIZE_PTR ((void __arena *)16)
/* Larger requests return NULL here; user space may allocate them, and BPF free them. */
#define KMALLOC_MAX_CACHE_SIZE 32768
/* The most objects of one bulk call, so that its steps are bounded. */
#define NOLOCK_BPF_BULK_MAX 4096
/* The most objects of a sheaf that is prefilled here. */
#define NOLOCK_BPF_PREFILL_MAX 4095

struct kmem_cache;
struct slab_sheaf;

#define NOLOCK_BPF_INLINE static inline __attribute__((always_inline))

/* Of libnolock.bpf.o: not to be called directly. Pointers come and go as numbers. */
unsigned long long nolock_bpf_alloc(unsigned long long size, unsigned int flags);
unsigned long long nolock_bpf_cache_alloc(void __arena *cache __arg_arena, unsigned int flags);
int nolock_bpf_free(void __arena *p __arg_arena);
int nolock_bpf_zero(unsigned long long obj, unsigned int size);
int nolock_bpf_alloc_bulk(void __arena *cache __arg_arena, unsigned int flags,
			  unsigned long long size, void __arena *p __arg_arena);
int nolock_bpf_free_bulk(unsigned long long size, void __arena *p __arg_arena);
unsigned long long nolock_bpf_prefill(void __arena *cache __arg_arena, unsigned int flags,
				      unsigned int size);
unsigned long long nolock_bpf_from_sheaf(void __arena *cache __arg_arena, unsigned int flags,
					 void __arena *sheaf __arg_arena);
int nolock_bpf_return(void __arena *cache __arg_arena, void __arena *sheaf __arg_arena);
unsigned int nolock_bpf_sheaf_size(void __arena *sheaf __arg_arena);
unsigned long long nolock_bpf_root(void);

/* --- the common case in line: not to be used directly either --- */

/*
 * What the fast paths read of a heap: the head of core/layout.h, which nolock.bpf.c compares with
 * it when it is compiled. The heap's header lies at offset 0 of its arena.
 */
struct nolock_bpf_heap {
	unsigned long long pad[2];
	unsigned long long base;
	unsigned long long pad2;
	unsigned int pad3[2];
	unsigned int nr_slots;
	unsigned int nr_nodes;
	unsigned int pad4[2];
	unsigned long long off_cache;
	unsigned long long pad5;
	unsigned long long off_aslot;
	unsigned long long pad6[4];
	unsigned long long off_tag;
	unsigned long long pad7[11];
	unsigned int nr_open;
};

struct nolock_bpf_slot {
	unsigned long long lock;
	unsigned long long word; /* of an A-slot: {allocations 48, 0, objects 7} */
	unsigned long long objs;
	unsigned int cap;
	unsigned int pad[2];
	unsigned int last_tag;
};

struct nolock_bpf_cache {
	unsigned int state;
	unsigned int size;
	unsigned int recip;
	unsigned int per_slab;
	unsigned int pad[10];
	unsigned int id;
};

struct nolock_bpf_oversize {
	unsigned int size;
	unsigned int capacity;
	unsigned long long obj[];
};

/* What nolock_bpf_prefill() says when no sheaf of the table will do. */
#define NOLOCK_BPF_OVERSIZE 1
#ifdef NOLOCK_TINY
#define NOLOCK_BPF_CACHE_BYTES 192u
#define NOLOCK_BPF_NO_CACHE 128u
#else
#define NOLOCK_BPF_CACHE_BYTES 384u
#define NOLOCK_BPF_NO_CACHE 256u
#endif
#define NOLOCK_BPF_CACHE_LIVE 2u
#define NOLOCK_BPF_KIND_SLAB 2u

#define nolock_bpf_get(p) (*(volatile __typeof__(*(p)) *)(p))
#define nolock_bpf_set(p, v) (*(volatile __typeof__(*(p)) *)(p) = (v))

typedef struct nolock_bpf_heap __arena nolock_bpf_heap_t;
typedef struct nolock_bpf_slot __arena nolock_bpf_slot_t;
typedef struct nolock_bpf_cache __arena nolock_bpf_cache_t;
typedef unsigned int __arena nolock_bpf_tag_t;
typedef unsigned long long __arena nolock_bpf_word_t;

/* Offset 0 of the arena, which the compiler must not take for a null pointer. */
NOLOCK_BPF_INLINE nolock_bpf_heap_t *nolock_bpf_heap(void)
{
	unsigned long long zero = 0;

	__asm__("" : "+r"(zero));
	return (nolock_bpf_heap_t *)zero;
}

/*
 * Within the arena, and 8-aligned, whatever stands in a damaged header: an atomic access across
 * two cache lines is a fault of the kernel on machines that detect it.
 */
NOLOCK_BPF_INLINE nolock_bpf_slot_t *nolock_bpf_slot(nolock_bpf_heap_t *h, unsigned int cpu,
						     unsigned int at)
{
	unsigned int off = (unsigned int)nolock_bpf_get(&h->off_aslot) & ~7u;

	return (nolock_bpf_slot_t *)(unsigned long long)(off + cpu * (NOLOCK_BPF_NO_CACHE << 8) +
							 at);
}

/*
 * 1 if nothing but other programs that come and go can interrupt this object's programs on their
 * CPU. Set by nolock_bpf_attach_heap(), which knows their types and the kernel.
 */
const volatile unsigned int nolock_bpf_unpreempted __attribute__((weak)) = 0;

/* What the lock of that CPU's slots is while they are free and biased: after the first call. */
NOLOCK_BPF_INLINE unsigned long long nolock_bpf_biased(unsigned int cpu)
{
	return (0xffff0001ULL + cpu) << 32 | 2;
}

/*
 * Take a biased slot: slot.h says why this is a lock. 1: it is ours. What is in it was written on this
 * CPU, so that nothing has to be acquired.
 */
NOLOCK_BPF_INLINE int nolock_bpf_trylock(nolock_bpf_slot_t *slot, unsigned int cpu)
{
	unsigned long long biased = nolock_bpf_biased(cpu);

	if (nolock_bpf_get(&slot->lock) != biased)
		return 0;
	if (!nolock_bpf_unpreempted)
		return __sync_val_compare_and_swap(&slot->lock, biased, biased | 1) == biased;
	nolock_bpf_set(&slot->lock, biased | 1);
	__asm__ volatile("" ::: "memory");
	return 1;
}

/* Biased as before. No barrier is needed on any machine. */
NOLOCK_BPF_INLINE void nolock_bpf_unlock(nolock_bpf_slot_t *slot, unsigned int cpu)
{
	__asm__ volatile("" ::: "memory");
	nolock_bpf_set(&slot->lock, nolock_bpf_biased(cpu));
}

/*
 * The CPU's A-slot is free and has an object: that object's address, else 0. That the heap has a slot
 * of this number nobody asks: nothing but one that is biased has the lock of one.
 */
NOLOCK_BPF_INLINE unsigned long long nolock_bpf_fast_alloc(unsigned int at)
{
	nolock_bpf_heap_t *h = nolock_bpf_heap();
	unsigned int cpu = bpf_get_smp_processor_id();
	unsigned long long word, n, obj = 0;
	nolock_bpf_slot_t *slot;

	slot = nolock_bpf_slot(h, cpu, at);
	if (!nolock_bpf_trylock(slot, cpu))
		return 0;
	word = nolock_bpf_get(&slot->word);
	n = word & 0xffff;
	if (n) {
		obj = nolock_bpf_get((nolock_bpf_word_t *)nolock_bpf_get(&slot->objs) + (n - 1));
		nolock_bpf_set(&slot->word, word + 0xffff);
	}
	nolock_bpf_unlock(slot, cpu);
	return obj;
}

/* Not 0 if a < b: of numbers below 2^63. */
NOLOCK_BPF_INLINE unsigned long long nolock_bpf_less(unsigned long long a, unsigned long long b)
{
	unsigned long long d = a - b;

	__asm__("" : "+r"(d)); /* a sign to shift, no comparison to branch on */
	return d >> 63;
}

/*
 * With the slot's lock held, which is let go: if the object is one of the cache that the tag names,
 * and there is room, it is freed: 1. The cache's constants are read under the lock, which does not
 * keep them, so that they are waited for together with the slot's.
 */
NOLOCK_BPF_INLINE int nolock_bpf_push(nolock_bpf_heap_t *h, nolock_bpf_slot_t *slot,
				      unsigned int tag, unsigned long long obj, unsigned int cpu)
{
	nolock_bpf_cache_t *c =
		(nolock_bpf_cache_t *)(unsigned long long)((unsigned int)nolock_bpf_get(
								   &h->off_cache) +
							   (tag >> 8 & 0xff) *
								   NOLOCK_BPF_CACHE_BYTES);
	unsigned long long word = nolock_bpf_get(&slot->word), n = word & 0xffff, bad;
	unsigned long long off = obj & 0xffff, idx = off * nolock_bpf_get(&c->recip) >> 32;
	int done = 0;

	/* One question in place of six: of each free in a program the verifier follows both ways. */
	bad = (tag >> 16) ^ NOLOCK_BPF_KIND_SLAB;
	bad |= (idx * nolock_bpf_get(&c->size)) ^ off;
	bad |= nolock_bpf_less(nolock_bpf_get(&c->per_slab), idx + 1);
	bad |= nolock_bpf_less(nolock_bpf_get(&slot->cap), n + 1);
	if (!bad) {
		nolock_bpf_set((nolock_bpf_word_t *)nolock_bpf_get(&slot->objs) + n, obj);
		__asm__ volatile("" ::: "memory"); /* the object before the size */
		nolock_bpf_set(&slot->word, word + 1);
		done = 1;
	}
	nolock_bpf_unlock(slot, cpu);
	return done;
}

/* It is an object of a slab, and the CPU's A-slot is free and has room: 1, and it is freed. */
NOLOCK_BPF_INLINE int nolock_bpf_fast_free(unsigned long long obj)
{
	nolock_bpf_heap_t *h = nolock_bpf_heap();
	unsigned int cpu = bpf_get_smp_processor_id(), tag, guess, differ;
	nolock_bpf_slot_t *slot, *first = nolock_bpf_slot(h, cpu, 0);
	unsigned int chunk = (unsigned int)obj >> 16;

	/*
	 * Elsewhere, not in the chunks that are open, or perhaps another node's, which goes home. The
	 * metadata's chunks have other tags than a slab's.
	 */
	if ((obj ^ nolock_bpf_get(&h->base)) >> 32 || nolock_bpf_get(&h->nr_nodes) != 1 ||
	    chunk >> 6 >= nolock_bpf_get(&h->nr_open))
		return 0;
	tag = nolock_bpf_get(
		(nolock_bpf_tag_t *)(unsigned long long)((unsigned int)nolock_bpf_get(&h->off_tag) +
							 chunk * 4));
	/*
	 * Its tag is guessed to be that of the CPU's last free, so that what follows need not wait for
	 * the object's address, and that for the allocation before. The compiler is not to know that
	 * they are equal then.
	 */
	guess = nolock_bpf_get(&first->last_tag);
	differ = tag ^ guess;
	__asm__("" : "+r"(differ));
	if (differ) {
		if (cpu >= nolock_bpf_get(&h->nr_slots))
			return 0;
		guess = tag;
		nolock_bpf_set(&first->last_tag, tag);
	}
	slot = nolock_bpf_slot(h, cpu, guess & 0xff00);
	if (!nolock_bpf_trylock(slot, cpu))
		return 0;
	return nolock_bpf_push(h, slot, guess, obj, cpu);
}

/* Zero size bytes rounded up to 8: every object is as long as that. */
NOLOCK_BPF_INLINE void nolock_bpf_fast_zero(unsigned long long obj, unsigned int size)
{
	nolock_bpf_word_t *word = (nolock_bpf_word_t *)obj;

	if (size > 128) {
		nolock_bpf_zero(obj, size);
		return;
	}
	_Pragma("clang loop unroll(full)") for (unsigned int i = 0; i < 16; i++) if (i * 8 < size)
		nolock_bpf_set(&word[i], 0);
}

/* Where the slots of the kmalloc bucket of a size of 1 to KMALLOC_MAX_CACHE_SIZE lie. */
NOLOCK_BPF_INLINE unsigned int nolock_bpf_bucket(unsigned int size)
{
	unsigned int top;

	if (size <= 128)
		return (size - 1) / 16 * 256;
	top = 31u - (unsigned int)__builtin_clz(size - 1);
	return (8 + (top - 7) * 4 + (((size - 1) >> (top - 2)) & 3)) * 256;
}

/* What that bucket has room for. */
NOLOCK_BPF_INLINE unsigned int nolock_bpf_room(unsigned int size)
{
	unsigned int step = 1u << (29 - (unsigned int)__builtin_clz((size - 1) | 64));

	return (size + step - 1) & -step;
}

#ifdef NOLOCK_BPF_NO_INLINE
#define NOLOCK_BPF_FAST 0
#elif defined(__TARGET_ARCH_x86) || defined(__TARGET_ARCH_arm64)
#define NOLOCK_BPF_FAST 1
#else
#define NOLOCK_BPF_FAST 0
#endif

/* Flags that change nothing about which slot serves. */
#define nolock_bpf_usual(flags)                                                                    \
	(__builtin_constant_p(flags) && !((flags) & ~(__GFP_ZERO | __GFP_NOWARN)))

/* An array from kmalloc(), filled in bulk: here and not in a function, whose frame counts. */
NOLOCK_BPF_INLINE unsigned long long nolock_bpf_prefill_oversize(void __arena *cache,
								 unsigned int flags,
								 unsigned int size)
{
	unsigned long long obj = nolock_bpf_alloc(8ULL + size * 8ULL, flags & ~__GFP_ZERO);
	struct nolock_bpf_oversize __arena *o = (struct nolock_bpf_oversize __arena *)obj;

	if (!obj)
		return 0;
	nolock_bpf_set(&o->size, size);
	nolock_bpf_set(&o->capacity, size);
	if (nolock_bpf_alloc_bulk(cache, flags & ~__GFP_ZERO, size, (void __arena *)&o->obj[0]))
		return obj;
	nolock_bpf_free((void __arena *)obj);
	return 0;
}

/* A live cache's number, or NOLOCK_BPF_NO_CACHE. */
NOLOCK_BPF_INLINE unsigned int nolock_bpf_cache_id(nolock_bpf_heap_t *h, void __arena *cache)
{
	nolock_bpf_cache_t *c = (nolock_bpf_cache_t *)cache;
	unsigned int id = nolock_bpf_get(&c->id), at;

	at = (unsigned int)nolock_bpf_get(&h->off_cache) + id * NOLOCK_BPF_CACHE_BYTES;
	if (id >= NOLOCK_BPF_NO_CACHE || nolock_bpf_get(&c->state) != NOLOCK_BPF_CACHE_LIVE ||
	    at != (unsigned int)(unsigned long long)cache)
		return NOLOCK_BPF_NO_CACHE;
	return id;
}

/* --- kmalloc --- */

/*
 * nolock_bpf_grow - open another 4 MiB of the heap now, ahead of demand
 * Returns 1; or 0: the heap is as large as it may be, there was no memory, or the object is not
 * linked with libnolock-grow.bpf.o.
 */
int nolock_bpf_grow(void) __attribute__((weak));

/*
 * kmalloc_nolock - allocate size bytes from the heap
 * @size: bytes, up to KMALLOC_MAX_CACHE_SIZE; 0 gives ZERO_SIZE_PTR
 * @flags: __GFP_ZERO, __GFP_ACCOUNT, __GFP_NOWARN; others give NULL
 * @node: NUMA_NO_NODE or 0
 * Returns the object, aligned as kmalloc()'s of slab.h, or NULL, counted: nothing left in the size's
 * bucket, the next larger one and the free chunks, and none could be opened; or the arena holds no
 * heap. (An object that was given no heap at all does not load: its arena has no address.)
 * Any context, wait-free. Source: kmalloc_nolock() of Linux's slub.c.
 */
NOLOCK_BPF_INLINE void __arena *kmalloc_nolock(unsigned long size, gfp_t flags, int node)
{
	unsigned long long obj;

	if (node > 0)
		return (void __arena *)0;
	if (!NOLOCK_BPF_FAST || !__builtin_constant_p(size) || !size ||
	    size > KMALLOC_MAX_CACHE_SIZE || !nolock_bpf_usual(flags))
		return (void __arena *)nolock_bpf_alloc(size, flags);
	obj = nolock_bpf_fast_alloc(nolock_bpf_bucket((unsigned int)size));
	if (!obj)
		return (void __arena *)nolock_bpf_alloc(size, flags);
	if (flags & __GFP_ZERO)
		nolock_bpf_fast_zero(obj, nolock_bpf_room((unsigned int)size));
	return (void __arena *)obj;
}

/* kzalloc_nolock - kmalloc_nolock() with all of the object set to zero, the rest of its bucket too. */
NOLOCK_BPF_INLINE void __arena *kzalloc_nolock(unsigned long size, gfp_t flags, int node)
{
	return kmalloc_nolock(size, flags | __GFP_ZERO, node);
}

/*
 * kfree_nolock - free an object of any kind, allocated on any side; cannot fail
 * @p: the object; NULL and ZERO_SIZE_PTR are ignored, what is no object is refused and counted
 * Any context, wait-free. Source: kfree_nolock() of Linux's slub.c.
 */
NOLOCK_BPF_INLINE void kfree_nolock(void __arena *p)
{
	if (!NOLOCK_BPF_FAST || !nolock_bpf_fast_free((unsigned long long)p))
		nolock_bpf_free(p);
}

/* --- caches --- */

/*
 * kmem_cache_alloc_nolock - kmalloc_nolock() of an object of the cache
 * @cache: the address that kmem_cache_create() or nolock_heap_kmem_cache_find() gave user space
 * Returns the object, or NULL: as there, or @cache is none. Any context, wait-free.
 * Source: kmem_cache_alloc_nolock() is kmalloc_nolock() for a cache; Linux has no such function.
 */
NOLOCK_BPF_INLINE void __arena *kmem_cache_alloc_nolock(struct kmem_cache __arena *cache,
							gfp_t flags, int node)
{
	unsigned long long obj = 0;
	unsigned int id;

	if (node > 0)
		return (void __arena *)0;
	if (NOLOCK_BPF_FAST && __builtin_constant_p(flags) && !(flags & ~__GFP_NOWARN)) {
		id = nolock_bpf_cache_id(nolock_bpf_heap(), (void __arena *)cache);
		if (id != NOLOCK_BPF_NO_CACHE)
			obj = nolock_bpf_fast_alloc(id << 8);
	}
	if (!obj)
		obj = nolock_bpf_cache_alloc((void __arena *)cache, flags);
	return (void __arena *)obj;
}

/* kmem_cache_zalloc_nolock - kmem_cache_alloc_nolock() with the object set to zero. */
NOLOCK_BPF_INLINE void __arena *kmem_cache_zalloc_nolock(struct kmem_cache __arena *cache,
							 gfp_t flags, int node)
{
	return kmem_cache_alloc_nolock(cache, flags | __GFP_ZERO, node);
}

/*
 * kmem_cache_free_nolock - kfree_nolock(); an object of another cache goes to its own
 */
NOLOCK_BPF_INLINE void kmem_cache_free_nolock(struct kmem_cache __arena *cache, void __arena *p)
{
	(void)cache;
	kfree_nolock(p);
}

/*
 * kmem_cache_alloc_bulk_nolock - allocate @size objects into @p, all or nothing
 * @flags: as for kmalloc_nolock()
 * @size: 1 to NOLOCK_BPF_BULK_MAX
 * @p: an array of as many pointers, in the heap itself: an object of it
 * Returns @size, or 0 with nothing allocated. Takes them sheaf by sheaf, with one lock. Any context,
 * wait-free. Source: kmem_cache_alloc_bulk() of Linux's slab.h.
 */
NOLOCK_BPF_INLINE int kmem_cache_alloc_bulk_nolock(struct kmem_cache __arena *cache, gfp_t flags,
						   unsigned long size, void __arena *__arena *p)
{
	return nolock_bpf_alloc_bulk((void __arena *)cache, flags, size, (void __arena *)p);
}

/*
 * kmem_cache_free_bulk_nolock - free @size objects, of any caches
 * @cache: not looked at: each object goes to its own
 * @size: 0 to NOLOCK_BPF_BULK_MAX; with more, nothing is freed, and one refused free is counted
 * @p: as there. Runs of objects of one cache take one lock. Any context, wait-free, cannot fail.
 * Source: kmem_cache_free_bulk() of Linux's slab.h.
 */
NOLOCK_BPF_INLINE void kmem_cache_free_bulk_nolock(struct kmem_cache __arena *cache,
						   unsigned long size, void __arena *__arena *p)
{
	(void)cache;
	nolock_bpf_free_bulk(size, (void __arena *)p);
}

/* --- prefilled sheaves: those of slab.h; either side may use what the other has filled --- */

/*
 * kmem_cache_prefill_sheaf_nolock - a sheaf with at least @size objects, for the caller alone
 * @gfp: as for kmalloc_nolock(); __GFP_ZERO belongs to the taking
 * @size: 1 to NOLOCK_BPF_PREFILL_MAX; beyond the cache's sheaf_capacity an oversize sheaf is made
 * Returns the sheaf or NULL. Whoever takes an object from it owns it: when a process dies that
 * took the last, what is left goes back to the slabs; what a program took last stays until it is
 * returned. Any context, wait-free. Source: kmem_cache_prefill_sheaf() of Linux's slub.c.
 */
NOLOCK_BPF_INLINE struct slab_sheaf __arena *kmem_cache_prefill_sheaf_nolock(
	struct kmem_cache __arena *cache, gfp_t gfp, unsigned int size)
{
	unsigned long long s = nolock_bpf_prefill((void __arena *)cache, gfp, size);

	if (s == NOLOCK_BPF_OVERSIZE)
		s = nolock_bpf_prefill_oversize((void __arena *)cache, gfp, size);
	return (struct slab_sheaf __arena *)s;
}

/*
 * kmem_cache_alloc_from_sheaf - take an object from a prefilled sheaf
 * @gfp: __GFP_ZERO or 0
 * Returns the object, or NULL when the sheaf is used up: never falls back. Any context, wait-free;
 * one caller at a time for each sheaf: not in a program on a sheaf whose call it may have
 * interrupted. Source: kmem_cache_alloc_from_sheaf() of Linux's slub.c.
 */
NOLOCK_BPF_INLINE void __arena *kmem_cache_alloc_from_sheaf(struct kmem_cache __arena *cache,
							    gfp_t gfp,
							    struct slab_sheaf __arena *sheaf)
{
	return (void __arena *)nolock_bpf_from_sheaf((void __arena *)cache, gfp,
						     (void __arena *)sheaf);
}

/*
 * kmem_cache_return_sheaf - give a prefilled sheaf back with what is left in it
 * A pointer that is no prefilled sheaf (any more) is refused and counted. Any context, wait-free.
 * Source: kmem_cache_return_sheaf() of Linux's slub.c.
 */
NOLOCK_BPF_INLINE void kmem_cache_return_sheaf(struct kmem_cache __arena *cache, gfp_t gfp,
					       struct slab_sheaf __arena *sheaf)
{
	(void)gfp;
	nolock_bpf_return((void __arena *)cache, (void __arena *)sheaf);
}

/* kmem_cache_sheaf_size - objects left in a prefilled sheaf. Any context, wait-free. */
NOLOCK_BPF_INLINE unsigned int kmem_cache_sheaf_size(struct slab_sheaf __arena *sheaf)
{
	return nolock_bpf_sheaf_size((void __arena *)sheaf);
}

/*
 * nolock_heap_root - what nolock_heap_set_root() of heap.h stored, or NULL
 * The place for a pointer to what programs and processes share. Any context, wait-free. A program
 * that calls nothing else of this header, and only follows pointers, must call this: so the kernel
 * learns which arena it uses, and else refuses it.
 */
NOLOCK_BPF_INLINE void __arena *nolock_heap_root(void)
{
	return (void __arena *)nolock_bpf_root();
}

#endif /* NOLOCK_BPF_H */
