/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * rcu.h - freeing after a grace period, by an RCU that the program brings along.
 *
 * The library has no RCU of its own: nolock_rcu_register() names one, liburcu for example, and
 * kfree_rcu() then frees objects once every reader that may have seen them has gone. An object that
 * waits is not touched: its readers may go on reading it. What waits belongs to this process, also
 * in a shared heap, and the grace period is that of this process's readers alone.
 *
 * Contexts are named as in slab.h. "Ordinary context" here includes: outside of a read-side
 * section where the function says that it blocks.
 */
#ifndef NOLOCK_RCU_H
#define NOLOCK_RCU_H

#include <nolock/slab.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Room for what an RCU keeps with a callback: it, or who adapts it, may use opaque as it likes. */
struct nolock_rcu_head {
	void *opaque[4];
};

/*
 * An RCU. synchronize, and either call or both of start_poll and poll. The library calls them from
 * ordinary calls alone (kfree_rcu(), nolock_rcu_poll(), nolock_rcu_barrier(), kmem_cache_shrink(),
 * kmem_cache_destroy(), nolock_heap_trim(), nolock_heap_close()), with no lock held that any other
 * call of the library would wait for, and never from the _nolock calls.
 */
struct nolock_rcu_ops {
	/* Return when all readers have left that were in a read-side section. May block. */
	void (*synchronize)(void);
	/*
	 * Call func(head) after a grace period, from any thread. The library has one call under way
	 * at a time, with one head, and may make the next from within func().
	 * (liburcu: call_rcu(); Linux: call_rcu().)
	 */
	void (*call)(struct nolock_rcu_head *head, void (*func)(struct nolock_rcu_head *head));
	/* Begin a grace period and name it; is the named one over? Neither blocks. */
	unsigned long (*start_poll)(void);
	int (*poll)(unsigned long cookie);
};

/*
 * nolock_rcu_register - use this RCU from now on, in all heaps of the process
 * @ops: lives as long as the process
 * Returns 0; -EINVAL (ops without what it needs), -EBUSY (one is registered already), -ENOMEM (no
 * address space for a bit for each object). There is no way back. Ordinary context.
 */
NOLOCK_API int nolock_rcu_register(const struct nolock_rcu_ops *ops);

/*
 * kfree_rcu - free an object of any kind after a grace period
 * @p: as for kfree(); NULL and ZERO_SIZE_PTR are ignored. No rcu_head in it is needed.
 * Objects of a cache collect in a sheaf of this CPU, which goes to the barn as a whole.
 * Returns 0; -EINVAL when @p is refused, and counted, as kfree() does at once; -EOPNOTSUPP when no
 * RCU is registered: the object is still the caller's. Ordinary context; does not block.
 * Source: kfree_rcu(), kvfree_rcu_mightsleep() and __kfree_rcu_sheaf() of Linux.
 */
NOLOCK_API int kfree_rcu(const void *p);

/*
 * kfree_rcu_nolock - the same from any context, wait-free
 * It only notes the object: the grace period is begun by a later ordinary call of the list above.
 */
NOLOCK_API int kfree_rcu_nolock(const void *p);

/*
 * kmem_cache_free_rcu, kmem_cache_free_rcu_nolock - the same for an object of the cache
 * One of another cache is reported, counted, and freed to the cache that it belongs to.
 */
NOLOCK_API int kmem_cache_free_rcu(struct kmem_cache *s, void *p);
NOLOCK_API int kmem_cache_free_rcu_nolock(struct kmem_cache *s, void *p);

/*
 * nolock_rcu_poll - free what is due, and begin a grace period for what waits for one
 * With start_poll and poll instead of call, somebody has to call this, or kfree_rcu(), now and
 * then. Returns the number of objects that still wait. Ordinary context; does not block.
 */
NOLOCK_API unsigned long nolock_rcu_poll(void);

/*
 * nolock_rcu_barrier - free all that was passed to the functions above before
 * Blocks for a grace period, or two. In a child after fork() it works without callbacks that were
 * under way in the parent. Returns 0, or -EDEADLK from a handler that has interrupted one of the
 * functions above, or -EBUSY when another thread stays in one for 10 seconds. Ordinary context.
 * Source: kvfree_rcu_barrier() of Linux.
 */
NOLOCK_API int nolock_rcu_barrier(void);

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_RCU_H */
