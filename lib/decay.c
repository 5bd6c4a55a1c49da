/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * decay.c - giving back what a private heap has not used for some time, without a thread.
 *
 * The slow paths of the calls that may make system calls tick. A visit, EPOCHS of them in half of
 * NOLOCK_DECAY_MS (10000; -1: never), looks at one group in EPOCHS and at one cache in EPOCHS:
 *   - a dirty free chunk, or an empty slab, that was so at the group's last visit goes back to the
 *     system: free memory stays for at least half of that time and at most, while the process
 *     keeps allocating, for all of it;
 *   - of the full sheaves in the cache's barns one half is flushed, and so are the sheaves of this
 *     CPU's slots if nothing was allocated from them since.
 * So what a burst has left goes back smoothly, and what is in steady use stays, as do per-CPU
 * arrays. R-slots of other CPUs are left to nolock_heap_trim(): they want a membarrier(), which a
 * seccomp filter made for another malloc need not allow. Nothing here waits: two visits at once
 * take different bits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"
#include "rseq.h"
#include "core/core.h"
#include "core/run.h"
#include "core/word.h"

#define EPOCHS 8u
#define DEFAULT_MS 10000
#define GROUPS_MAX 256u /* looked at in one visit: 1 GiB */

__thread nl_u32 nl_ticks;

/*
 * Since when this thread has been seen inside of the allocator at each tick, or 0: in a handler, then,
 * whose work is not to be added to. After half of NOLOCK_DECAY_MS it is none, but a thread that left
 * one by siglongjmp(), and nl_depth is wrong for good; or a handler that does not return, where a visit
 * does no harm: it waits for nothing, and what the call below has locked it leaves alone, as it does
 * what any other thread has locked.
 */
static __thread nl_u64 inside_since;

static int decay_ms(void)
{
	static const char bad[] = "nolock: NOLOCK_DECAY_MS is not a number of milliseconds, or -1 "
				  "for never: using 10000\n";
	static int cached;
	const char *text;
	char *end;
	long ms;

	if (nl_load(&cached))
		return nl_load(&cached);
	text = getenv("NOLOCK_DECAY_MS");
	ms = DEFAULT_MS;
	if (text && *text) {
		ms = strtol(text, &end, 10);
		if (*end || ms < -1 || ms > 1000000000) {
			ms = DEFAULT_MS;
			if (write(STDERR_FILENO, bad, sizeof(bad) - 1) < 0)
				ms = DEFAULT_MS;
		}
		if (!ms)
			ms = 1;
	}
	nl_store(&cached, (int)ms);
	return (int)ms;
}

static bool slab_is_empty(nl_heap_t *h, nl_u32 chunk, nl_u32 id)
{
	nl_cache_t *c = nl_cache(h, id);
	nl_u32 n = 0;

	/* All words but the last one are full ones. */
	for (nl_u32 w = 0; w < c->words && w < NL_SLAB_WORDS && n == w * 64; w++)
		n += (nl_u32)__builtin_popcountll(nl_load(&nl_slab(h, chunk)->free[w]));
	return n == c->per_slab;
}

static void visit_group(struct nolock_heap *heap, nl_u32 g)
{
	nl_heap_t *h = heap->h;
	nl_group_t *group = nl_group(h, g);
	nl_u32 who = nl_who(heap);
	nl_u64 empty = 0, idle, ripe;

	if (nl_load(&group->state) != NL_GROUP_OPEN)
		return;
	for (nl_u32 i = 0; i < NL_GROUP_CHUNKS; i++) {
		nl_u32 chunk = (g << NL_GROUP_SHIFT) + i;
		nl_u32 tag = nl_load(nl_tag(h, chunk));

		if (NL_TAG_KIND(tag) == NL_KIND_SLAB && slab_is_empty(h, chunk, NL_TAG_CACHE(tag)))
			empty |= NL_BIT(i);
	}
	idle = empty | (nl_load(&group->chunk_free) & nl_load(&group->dirty));
	ripe = idle & nl_load(&group->idle);
	nl_store(&group->idle, idle & ~ripe);
	for (nl_u64 left = ripe & empty; left; left &= left - 1) {
		nl_u32 chunk = (g << NL_GROUP_SHIFT) + nl_lowest(left);
		nl_u32 tag = nl_load(nl_tag(h, chunk)), id = NL_TAG_CACHE(tag);
		nl_cache_t *c = nl_cache(h, id);

		if (NL_TAG_KIND(tag) != NL_KIND_SLAB || !nl_rcu_may_release(heap, c) ||
		    nl_slab_release(h, id, chunk, who))
			continue;
		nl_rcu_release(heap, chunk);
		nl_add(&nl_aslot(h, nl_cpu(heap), id)->stat[NL_STAT_FREE_SLAB], 1);
	}
	if (ripe)
		nl_group_purge(heap, g, ripe);
}

/* What every allocation and free changes, and every move of objects to a sheaf elsewhere. */
static nl_u64 slot_use(const nl_slot_t *slot)
{
	return nl_load(&slot->word) + (nl_load(&slot->stat[NL_STAT_OUT]) << 16);
}

/* With its lock held. */
static void visit_slot(nl_heap_t *h, nl_slot_t *slot, nl_u32 id, nl_u32 who)
{
	/* An unused one may be that of a cache that is being destroyed. */
	if (slot_use(slot) == nl_load(&slot->seen) &&
	    (nl_load(&slot->main) || nl_load(&slot->spare)))
		nl_slot_empty(h, slot, id, who);
	nl_store(&slot->seen, slot_use(slot));
}

static void visit_cache(struct nolock_heap *heap, nl_u32 id)
{
	nl_heap_t *h = heap->h;
	nl_barn_t *barn = nl_cache(h, id)->barn;
	nl_u32 who = nl_who(heap);
	nl_slot_t *slot = nl_aslot(h, nl_cpu(heap), id);
	nl_u64 res;

	for (nl_u32 node = 0; node < nl_nr_nodes(h); node++) {
		nl_barn_flush(heap, id, node, (nl_load(&barn[node].full.nr) + 1) / 2);
		nl_barn_level(h, &barn[node], nl_load(&barn[node].full.nr));
	}
	if (nl_slot_trylock(slot, who)) {
		visit_slot(h, slot, id, who);
		nl_slot_unlock(slot);
	}
	res = NL_RSEQ_RETRY(heap,
			    nl_rseq_lock_once(heap, (nl_u64)id << NL_SLOT_SHIFT, NL_HELD(who)));
	if (NL_RSEQ_DONE(res)) {
		slot = (nl_slot_t *)res;
		visit_slot(h, slot, id, who);
		nl_rslot_unlock(slot);
	}
}

static void visit(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	nl_u32 first = h->first_chunk >> NL_GROUP_SHIFT, open = nl_nr_open(h), n, g;

	for (nl_u32 id = nl_load(&heap->decay_visits) % EPOCHS; id < NL_MAX_CACHES; id += EPOCHS)
		if (nl_load(&nl_cache(h, id)->state) == NL_CACHE_LIVE &&
		    nl_load(&nl_cache(h, id)->nr_slabs) &&
		    !(nl_load(&nl_cache(h, id)->mode) & NL_CACHE_ARRAY))
			visit_cache(heap, id);
	nl_store(&heap->decay_visits, nl_load(&heap->decay_visits) + 1);
	nl_run_forget(h);
	n = (open - first + EPOCHS - 1) / EPOCHS;
	if (n > GROUPS_MAX)
		n = GROUPS_MAX;
	g = nl_load(&heap->decay_group);
	for (; n; n--, g++) {
		if (g < first || g >= open)
			g = first;
		visit_group(heap, g);
	}
	nl_store(&heap->decay_group, g);
}

void nl_decay(struct nolock_heap *heap)
{
	int ms = decay_ms(), err = errno;
	struct timespec now;
	nl_u64 next, t;

	if (ms < 0 || !heap->h || heap->type != NL_HEAP_PRIVATE || heap->snapshot)
		return;
	/* From the vDSO: no system call. */
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	t = (nl_u64)now.tv_sec * 1000 + (nl_u64)now.tv_nsec / 1000000;
	if (!nl_depth)
		inside_since = 0;
	else if (!inside_since)
		inside_since = t | 1;
	/* It may be 1 ahead of t. */
	if (inside_since && (int64_t)(t - inside_since) < ms / 2 + 1)
		return;
	next = nl_load(&heap->decay_next);
	if ((int64_t)(t - next) < 0 ||
	    !nl_cas(&heap->decay_next, next, t + (nl_u64)ms / (2 * EPOCHS)))
		return;
	nl_depth++;
	nl_fork_check();
	visit(heap);
	nl_depth--;
	errno = err;
}
