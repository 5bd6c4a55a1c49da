/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * nolock.bpf.h - kmalloc_nolock() and kfree_nolock() on a shared heap, from any BPF program type.
 *
 * Include it after vmlinux.h (or <linux/bpf.h>) and <bpf/bpf_helpers.h>, link the object with
 * libnolock.bpf.o (bpftool gen object), and hand it the heap before it is loaded, with
 * nolock_bpf_attach_heap() of <nolock/bpf.h>. A program object works on one heap.
 *
 * Objects are addresses in user space, the same in every process that has the heap open, and may
 * be freed on either side. In BPF they are arena pointers: a wild one reaches nothing but the
 * heap. Contexts: task, softirq, hardirq and NMI, nested in each other. All calls are wait-free.
 *
 * Growing: nolockd opens memory ahead of demand. An object that is linked with libnolock-grow.bpf.o
 * as well opens another 4 MiB itself where an allocation would fail. It pays for that with what the
 * kernel does then: that call takes a millisecond or more and may wait for the kernel's lock of the
 * arena, a bounded time; it fails without waiting where it interrupts that lock's holder. Programs
 * that may not sleep can be so linked from Linux 7.0 on, which nolock_bpf_can_grow() of
 * <nolock/bpf.h> tells; before, they would not load. The object's licence has to be one that goes
 * with the GPL, and the kernel must have BTF.
 *
 * Build with clang 19 or newer, -target bpf -mcpu=v4.
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

struct kmem_cache;

/* Of libnolock.bpf.o: not to be called directly. */
unsigned long long nolock_bpf_alloc(unsigned long long size, unsigned int flags);
unsigned long long nolock_bpf_cache_alloc(void __arena *cache __arg_arena, unsigned int flags);
int nolock_bpf_free(void __arena *p __arg_arena);

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
 * bucket, the next larger one and the free chunks, and none could be opened; or the arena holds no heap. (An object that was
 * given no heap at all does not load: its arena has no address.)
 * Source: kmalloc_nolock() of Linux's slub.c.
 */
static inline __attribute__((always_inline)) void __arena *kmalloc_nolock(unsigned long size,
									  gfp_t flags, int node)
{
	if (node > 0)
		return (void __arena *)0;
	return (void __arena *)nolock_bpf_alloc(size, flags);
}

/* kzalloc_nolock - kmalloc_nolock() with the memory set to zero. */
static inline __attribute__((always_inline)) void __arena *kzalloc_nolock(unsigned long size,
									  gfp_t flags, int node)
{
	return kmalloc_nolock(size, flags | __GFP_ZERO, node);
}

/*
 * kfree_nolock - free an object of any kind, allocated on any side; cannot fail
 * @p: the object; NULL and ZERO_SIZE_PTR are ignored, what is no object is refused and counted
 */
static inline __attribute__((always_inline)) void kfree_nolock(void __arena *p)
{
	nolock_bpf_free(p);
}

/*
 * kmem_cache_alloc_nolock, kmem_cache_free_nolock - the same for a cache
 * @cache: the address that kmem_cache_create() or nolock_heap_kmem_cache_find() gave user space
 */
static inline __attribute__((always_inline)) void __arena *kmem_cache_alloc_nolock(
	struct kmem_cache __arena *cache, gfp_t flags, int node)
{
	if (node > 0)
		return (void __arena *)0;
	return (void __arena *)nolock_bpf_cache_alloc((void __arena *)cache, flags);
}

static inline __attribute__((always_inline)) void kmem_cache_free_nolock(
	struct kmem_cache __arena *cache, void __arena *p)
{
	(void)cache;
	nolock_bpf_free(p);
}

#endif /* NOLOCK_BPF_H */
