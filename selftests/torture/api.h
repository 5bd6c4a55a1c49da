/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * api.h - a workload of the whole public API on one heap, with a hook before and after each call.
 *
 * test_covered says whether it is the whole. For one thread: it registers an RCU without readers, which
 * ends its grace periods between the workload's calls.
 */
#ifndef NOLOCK_TORTURE_API_H
#define NOLOCK_TORTURE_API_H

#include <stdbool.h>
#include <nolock/heap.h>
#include "../lib/util.h"

/* The callers of the library lie in a section of their own, to be told from it. */
#define DRIVER __attribute__((noinline, section("driver_text")))
extern const char __start_driver_text[], __stop_driver_text[];

struct api {
	struct nolock_heap *heap;
	struct kmem_cache *cache; /* of objects of size bytes; handlers use it as well */
	unsigned int size;
	unsigned int depth; /* objects at once */
	void (*arm)(void);  /* right before each call, and right after it */
	void (*disarm)(void);
	bool brief;		 /* without the calls that take more than 100000 instructions */
	bool rcu_polls;		 /* the RCU has start_poll() and poll(), not call() */
	struct kmem_cache *also; /* the workload's second cache while there is one: for handlers */
	/* Handlers put objects in and free what comes out, as the workload does. */
	struct mailbox box;
	unsigned long calls, failed, bad;
	unsigned int line;  /* of api.c: the first that failed or was bad */
	unsigned long late; /* caches that could be destroyed only when nothing interrupted it */
	const char *call;   /* the one it is in */
};

/* api_begin - make the cache; false without memory. */
bool api_begin(struct api *a);
/* api_work - every call. Nothing of its own is left allocated afterwards, but for the mailbox. */
void api_work(struct api *a);
/* api_end - empty the mailbox, destroy the cache; false if that is in use. */
bool api_end(struct api *a);

/*
 * api_handler - what a handler does: allocate by several calls, free, free what the workload
 * allocated, leave something for it; seed: a number that differs from call to call
 */
void api_handler(struct api *a, unsigned long seed);

#endif /* NOLOCK_TORTURE_API_H */
