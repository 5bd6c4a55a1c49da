// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * rcu.c - objects that wait for a grace period, and slabs of SLAB_TYPESAFE_BY_RCU caches.
 *
 * Two ways, both apart from the objects, which readers may still read:
 * - A sheaf for each CPU and cache, as SLUB's rcu_free sheaf: filled under the CPU's trylock; full,
 *   it is due after a grace period and goes to the barn.
 * - A bit for each object of the heap (fresh): set by one instruction that cannot fail, whoever
 *   holds the lock. They become waiting ones all at once, and after a grace period go to their
 *   slabs, a word at a time.
 * All of it is memory of this process: who else has the heap sees objects that are allocated, or in
 * a prefilled sheaf, which a repair flushes when the process dies.
 *
 * An entry is over when its grace period is, or when a synchronize() that began after its stamp has
 * returned: nolock_rcu_barrier() depends on no callback.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <nolock/rcu.h>
#include "internal.h"
#include "core/core.h"
#include "core/kmalloc.h"
#include "core/slot.h"
#include "core/word.h"

/* Sheaves of one CPU that may wait at a time. What comes on top waits as bits. */
#define MAX_DUE 64

/* Words of bits of a group: one bit for each object of 16 bytes. */
#define GROUP_WORDS (NL_GROUP_CHUNKS * NL_SLAB_WORDS)

/* When something is over. begun: the grace period is asked for; else gp and synced mean nothing. */
struct stamp {
	nl_u64 gp;     /* the RCU's, or this file's, name of a grace period */
	nl_u64 synced; /* how many synchronize() calls had begun */
	bool begun;
};

struct due {
	nl_u32 sheaf; /* index + 1 */
	struct stamp over;
};

/* All under lock, which is only tried: by cmpxchg 0 -> owner, as an A-slot's. */
struct cpu {
	nl_u64 lock;
	nl_u32 nr_due;
	nl_u32 sheaf[NL_MAX_CACHES]; /* index + 1, or 0 */
	struct due due[MAX_DUE];
};

/* Bits of objects, and two levels of hints that lead to them. Protocol as in slab.h. */
struct bits {
	nl_u64 *groups; /* a bit for each group */
	nl_u64 *chunks; /* a word for each group */
	nl_u64 *words;	/* NL_SLAB_WORDS for each chunk */
};

struct nl_rcu {
	nl_u64 pending; /* atomic: objects, and chunks of slabs, that wait */
	struct bits fresh;
	struct bits waiting; /* under the collector's lock, as the next two */
	struct stamp over;   /* of what is waiting */
	bool any_waiting;
	bool noted;   /* hint: there are fresh bits */
	size_t bytes; /* of this mapping */
	struct cpu cpu[];
};

static const struct nolock_rcu_ops *rcu;

/* Grace periods by call(): numbered, one under way at a time. */
static struct {
	struct nolock_rcu_head head;
	nl_u64 started;
	nl_u64 done;
	nl_u64 wanted;
} gp;

/* synchronize() calls: begun, and the highest that has returned. */
static nl_u64 syncs_begun, syncs_done;

/* Who moves fresh to waiting, and frees what is over, in whatever heap. */
static nl_u64 collector;

static void collect_all(void);

static void raise_to(nl_u64 *word, nl_u64 value)
{
	nl_u64 old = nl_load(word);

	while (old < value && !nl_cas(word, old, value))
		old = nl_load(word);
}

static void gp_over(struct nolock_rcu_head *head);

/* Start the next one if it is wanted and none is under way. */
static void gp_next(void)
{
	nl_u64 done = nl_load(&gp.done);

	if (nl_load(&gp.wanted) > done && nl_cas(&gp.started, done, done + 1))
		rcu->call(&gp.head, gp_over);
}

static void gp_over(struct nolock_rcu_head *head)
{
	(void)head;
	nl_store_release(&gp.done, nl_load(&gp.started));
	nl_mb(); /* done, then wanted: pairs with raise_to() before gp_next() in gp_begin() */
	collect_all();
	gp_next();
}

/* A grace period that begins after this call: the one after what is under way, if anything is. */
static nl_u64 gp_begin(void)
{
	nl_u64 want;

	if (rcu->start_poll)
		return rcu->start_poll();
	nl_mb(); /* what was unlinked and queued before is seen by readers before started is read */
	want = nl_load(&gp.started) + 1;
	raise_to(&gp.wanted, want);
	gp_next();
	return want;
}

static void stamp(struct stamp *over)
{
	over->synced = nl_load(&syncs_begun);
	nl_mb();
	over->gp = gp_begin();
	over->begun = true;
}

static bool is_over(const struct stamp *over)
{
	if (!over->begun)
		return false;
	if (nl_load_acquire(&syncs_done) > over->synced)
		return true;
	return rcu->poll ? rcu->poll((unsigned long)over->gp) :
			   nl_load_acquire(&gp.done) >= over->gp;
}

/* The locks of this file are this process's: the thread is named as in the private heap. */
static nl_u64 owner(void)
{
	return (nl_u64)nl_who(nl_load(&nl_default)) << 32 | 1;
}

static bool try_lock(nl_u64 *lock)
{
	return !nl_load(lock) && nl_cas(lock, 0, owner());
}

/* For ordinary callers that must have it. 0, -EDEADLK or -EBUSY. */
static int wait_lock(nl_u64 *lock)
{
	const struct timespec pause = { .tv_nsec = 100000 };

	for (unsigned int i = 0; !try_lock(lock); i++) {
		if (nl_load(lock) == owner())
			return -EDEADLK;
		if (i < 100)
			sched_yield();
		else if (i < 100000)
			nanosleep(&pause, NULL);
		else
			return -EBUSY;
	}
	return 0;
}

static void unlock(nl_u64 *lock)
{
	nl_store_release(lock, 0);
}

/* --- bits --- */

static nl_u64 bits_give(struct bits *b, nl_u32 chunk, nl_u32 word, nl_u64 mask)
{
	nl_u32 g = chunk >> NL_GROUP_SHIFT;
	nl_u64 twice = nl_word_give(&b->words[(nl_u64)chunk * NL_SLAB_WORDS + word], mask);

	nl_hint_set(&b->chunks[g], NL_BIT(chunk));
	nl_hint_set(&b->groups[g / 64], NL_BIT(g));
	return twice;
}

/*
 * Take every word and hand it on. Hints go first: a bit that is set after its word was taken has
 * its hints set after that, too.
 */
static nl_u64 bits_take(struct nolock_heap *heap, struct bits *b,
			void (*to)(struct nolock_heap *heap, nl_u32 chunk, nl_u32 word,
				   nl_u64 mask))
{
	nl_u64 n = 0;

	for (nl_u32 at = 0; at < nl_group_words(heap->h); at++) {
		nl_u64 groups = nl_word_take_all(&b->groups[at]);

		for (; groups; groups &= groups - 1) {
			nl_u32 g = at * 64 + nl_lowest(groups);
			nl_u64 chunks = nl_word_take_all(&b->chunks[g]);

			for (; chunks; chunks &= chunks - 1) {
				nl_u32 chunk = (g << NL_GROUP_SHIFT) + nl_lowest(chunks);

				for (nl_u32 w = 0; w < NL_SLAB_WORDS; w++) {
					nl_u64 mask = nl_word_take_all(
						&b->words[(nl_u64)chunk * NL_SLAB_WORDS + w]);

					if (!mask)
						continue;
					n += (nl_u32)__builtin_popcountll(mask);
					to(heap, chunk, w, mask);
				}
			}
		}
	}
	return n;
}

static void to_waiting(struct nolock_heap *heap, nl_u32 chunk, nl_u32 word, nl_u64 mask)
{
	bits_give(&heap->rcu->waiting, chunk, word, mask);
}

/* Their grace period is over: objects to their slab, a large object, or a slab's chunk. */
static void to_heap(struct nolock_heap *heap, nl_u32 chunk, nl_u32 word, nl_u64 mask)
{
	nl_heap_t *h = heap->h;
	nl_u32 tag = nl_load(nl_tag(h, chunk)), id = NL_TAG_CACHE(tag), bad, n = 0;
	nl_slot_t *count = nl_aslot(h, nl_cpu(heap), id);

	switch (NL_TAG_KIND(tag)) {
	case NL_KIND_SLAB:
		/* Without sheaves: whoever took them away wants to see each object. */
		for (; mask && !nl_cache(h, id)->capacity; mask &= mask - 1, n++)
			kfree_nolock((void *)(nl_object(h, chunk, word * 64 + nl_lowest(mask),
							nl_cache(h, id)->size) +
					      nl_cache(h, id)->left));
		if (!mask)
			break;
		n = (nl_u32)__builtin_popcountll(mask);
		bad = (nl_u32)__builtin_popcountll(nl_slab_give(h, id, chunk, word, mask));
		nl_slot_count(count, NL_STAT_FREE_REFUSED, bad);
		nl_slot_count(count, NL_STAT_FREE_SLOWPATH, n - bad);
		break;
	case NL_KIND_WAIT:
		nl_store_release(nl_tag(h, chunk), NL_TAG(NL_KIND_FREE, 0));
		nl_chunk_give(h, chunk >> NL_GROUP_SHIFT, NL_BIT(chunk));
		n = 1;
		break;
	default:
		n = (nl_u32)__builtin_popcountll(mask);
		if (NL_TAG_KIND(tag) != NL_KIND_LARGE || nl_large_free(h, chunk, nl_who(heap)))
			nl_free_refused((void *)nl_object(h, chunk, 0, 0), "free memory");
	}
	nl_add(&heap->rcu->pending, -(nl_u64)n);
}

/* --- sheaves --- */

/* The sheaf's grace period is over: to the barn as it is, or into the slabs. */
static void free_sheaf(struct nolock_heap *heap, nl_u32 sheaf)
{
	nl_heap_t *h = heap->h;
	nl_sheaf_t *s = nl_sheaf(h, sheaf - 1);
	nl_u32 id = s->cache - 1u, who = nl_who(heap), n = s->size;
	nl_cache_t *c = nl_cache(h, id);
	nl_slot_t *count = nl_aslot(h, nl_cpu(heap), id);
	nl_barn_t *barn = &c->barn[nl_node_of(h, nl_group_at(h, s->obj[0]))];
	bool kept = false;

	nl_add(&heap->rcu->pending, -(nl_u64)n);
	if (n <= c->capacity && !(c->mode & NL_CACHE_ARRAY) && nl_barn_lock(barn, who, NL_SPIN)) {
		kept = nl_barn_room(barn);
		if (kept)
			nl_barn_push(h, &barn->full, sheaf);
		nl_barn_unlock(barn);
	}
	nl_slot_count(count, kept ? NL_STAT_BARN_PUT : NL_STAT_BARN_PUT_FAIL, 1);
	if (kept)
		return;
	nl_slot_count(count, NL_STAT_SHEAF_FLUSH, nl_sheaf_flush(h, sheaf, id, 0, who));
	nl_slot_count(count, NL_STAT_SHEAF_FREE, 1);
	nl_sheaf_put(h, sheaf);
}

/* A full sheaf makes room for the next one, if it may wait elsewhere. */
static bool sheaf_due(struct cpu *cpu, nl_u32 id)
{
	if (cpu->nr_due == MAX_DUE)
		return false;
	cpu->due[cpu->nr_due] = (struct due){ .sheaf = cpu->sheaf[id] };
	nl_barrier();
	cpu->nr_due++;
	cpu->sheaf[id] = 0;
	return true;
}

/*
 * Into this CPU's sheaf. Its next, which of a prefilled sheaf holds how many there were, goes along
 * with its size: nothing was allocated from it. *full: it is due.
 */
static bool push_sheaf(struct nolock_heap *heap, nl_u32 id, nl_u64 obj, bool *full)
{
	nl_heap_t *h = heap->h;
	nl_u32 index = nl_cpu(heap), who = nl_who(heap), n;
	struct cpu *cpu = &heap->rcu->cpu[index];
	nl_u32 cap = nl_cache(h, id)->capacity;
	nl_sheaf_t *s;

	if (cap > NL_SHEAF_MAX)
		cap = NL_SHEAF_MAX;
	if (!cap || !try_lock(&cpu->lock))
		return false;
	if (cpu->sheaf[id] && nl_sheaf(h, cpu->sheaf[id] - 1)->size >= cap && !sheaf_due(cpu, id))
		goto fail;
	if (!cpu->sheaf[id]) {
		nl_u32 sheaf = nl_sheaf_get(h, id, who);

		if (!sheaf)
			goto fail;
		nl_store(&nl_sheaf(h, sheaf - 1)->owner, (nl_u64)who << 32 | NL_PREFILLED);
		nl_slot_count(nl_aslot(h, index, id), NL_STAT_SHEAF_ALLOC, 1);
		cpu->sheaf[id] = sheaf;
	}
	s = nl_sheaf(h, cpu->sheaf[id] - 1);
	n = s->size;
	nl_store(&s->obj[n], obj);
	nl_store(&s->next, n + 1);
	nl_barrier(); /* an interrupter's view and a crash: the object before the size */
	nl_store(&s->size, (nl_u16)(n + 1));
	nl_slot_count(nl_aslot(h, index, id), NL_STAT_FREE_SLOWPATH, 1);
	nl_add(&heap->rcu->pending, 1);
	*full = n + 1 >= cap && sheaf_due(cpu, id);
	unlock(&cpu->lock);
	return true;
fail:
	unlock(&cpu->lock);
	return false;
}

/*
 * With the CPU's lock: give what has none a stamp, and take out a sheaf that is over, or 0. all:
 * sheaves that are not full wait from now on, too.
 */
static nl_u32 pop_over(struct cpu *cpu, bool all)
{
	for (nl_u32 id = 0; all && id < NL_MAX_CACHES; id++)
		if (cpu->sheaf[id] && !sheaf_due(cpu, id))
			break;
	for (nl_u32 i = 0; i < cpu->nr_due; i++)
		if (!cpu->due[i].over.begun)
			stamp(&cpu->due[i].over);
	for (nl_u32 i = 0; i < cpu->nr_due; i++) {
		nl_u32 sheaf = cpu->due[i].sheaf;

		if (!is_over(&cpu->due[i].over))
			continue;
		cpu->due[i] = cpu->due[cpu->nr_due - 1];
		nl_barrier();
		cpu->nr_due--;
		return sheaf;
	}
	return 0;
}

/* With the collector's lock. */
static void collect_bits(struct nolock_heap *heap)
{
	struct nl_rcu *r = heap->rcu;

	if (r->any_waiting && is_over(&r->over)) {
		bits_take(heap, &r->waiting, to_heap);
		nl_store(&r->any_waiting, false);
	}
	if (r->any_waiting)
		return;
	nl_store(&r->noted, false);
	nl_mb(); /* a bit that is set after its word was taken sets this again */
	if (bits_take(heap, &r->fresh, to_waiting)) {
		stamp(&r->over);
		nl_store(&r->any_waiting, true);
	}
}

/* A child of fork() has its parent's handles of shared heaps, but not their memory. */
static bool usable(const struct nolock_heap *heap)
{
	return heap->rcu && (heap->type == NL_HEAP_PRIVATE || heap->pid == (int)getpid());
}

/*
 * Free what is over, begin what waits. wait: for locks; else what is locked is left alone. Sheaves
 * are freed without the CPU's lock, which others want meanwhile.
 */
static int collect(struct nolock_heap *heap, bool all, bool wait)
{
	struct nl_rcu *r;
	int err = 0;

	if (wait)
		err = wait_lock(&collector);
	else if (!try_lock(&collector))
		return 0;
	if (err)
		return err;
	r = heap->rcu;
	for (nl_u32 i = 0; r && i < heap->nr_slots && !err; i++) {
		for (nl_u32 sheaf = 1; sheaf;) {
			if (wait)
				err = wait_lock(&r->cpu[i].lock);
			else if (!try_lock(&r->cpu[i].lock))
				break;
			if (err)
				break;
			sheaf = pop_over(&r->cpu[i], all);
			unlock(&r->cpu[i].lock);
			if (sheaf)
				free_sheaf(heap, sheaf);
		}
	}
	if (r && !err)
		collect_bits(heap);
	unlock(&collector);
	return err;
}

static void collect_all(void)
{
	struct nolock_heap *heap;

	nl_depth++;
	nl_fork_check();
	nl_for_each_heap(heap)
		if (usable(heap))
			collect(heap, false, false);
	nl_depth--;
}

/* --- calls --- */

/* The note that cannot fail. */
static int note(struct nolock_heap *heap, nl_u32 chunk, nl_u32 idx)
{
	nl_u64 word = (nl_u64)chunk * NL_SLAB_WORDS + idx / 64;

	if ((nl_load(&heap->rcu->waiting.words[word]) & NL_BIT(idx)) ||
	    bits_give(&heap->rcu->fresh, chunk, idx / 64, NL_BIT(idx)))
		return -EINVAL;
	nl_add(&heap->rcu->pending, 1);
	nl_store(&heap->rcu->noted, true);
	return 0;
}

static int queue(const void *p, bool ordinary)
{
	struct nolock_heap *heap = nolock_heap_of(p);
	const char *why = "free memory";
	nl_u32 chunk, tag, id, idx;
	bool full = false;

	if (!heap || !nl_load_acquire(&heap->rcu)) {
		if (heap)
			return -EOPNOTSUPP;
		nl_free_refused(p, "no heap's");
		return -EINVAL;
	}
	chunk = (nl_u32)(((nl_u64)p - (nl_u64)heap->base) >> NL_CHUNK_SHIFT);
	if (!nl_chunk_ok(heap->h, chunk))
		goto refused;
	tag = nl_load(nl_tag(heap->h, chunk));
	if (NL_TAG_KIND(tag) == NL_KIND_LARGE || NL_TAG_KIND(tag) == NL_KIND_BODY) {
		why = "inside a large object";
		if (NL_TAG_KIND(tag) == NL_KIND_BODY || (nl_u64)p % NL_CHUNK_SIZE)
			goto refused;
		why = "freed twice";
		if (note(heap, chunk, 0))
			goto refused;
	} else if (NL_TAG_KIND(tag) == NL_KIND_SLAB) {
		id = NL_TAG_CACHE(tag);
		idx = nl_slab_index(heap->h, id, (nl_u64)p - nl_cache(heap->h, id)->left);
		why = "inside an object";
		if (idx == ~0u)
			goto refused;
		if (!nl_is_remote(heap, (nl_u64)p) && push_sheaf(heap, id, (nl_u64)p, &full)) {
			nl_add(&nl_cache(heap->h, id)->rcu_sheaf, 1);
		} else {
			why = "freed twice";
			if (note(heap, chunk, idx))
				goto refused;
			nl_add(&nl_cache(heap->h, id)->rcu_sheaf_fail, 1);
		}
	} else {
		goto refused;
	}
	if (ordinary && (full || (nl_load(&heap->rcu->noted) && !nl_load(&heap->rcu->any_waiting))))
		collect(heap, false, false);
	return 0;
refused:
	nl_free_refused(p, why);
	return -EINVAL;
}

static int free_rcu(const void *p, bool ordinary)
{
	int err;

	if (ZERO_OR_NULL_PTR(p))
		return 0;
	if (!nl_load_acquire(&rcu))
		return -EOPNOTSUPP;
	nl_depth++;
	nl_fork_check();
	err = queue(p, ordinary);
	nl_depth--;
	return err;
}

int kfree_rcu(const void *p)
{
	return free_rcu(p, true);
}

int kfree_rcu_nolock(const void *p)
{
	return free_rcu(p, false);
}

/* The mistake is counted; the object goes to its own cache. */
static void check_cache(const struct kmem_cache *s, const void *p)
{
	struct nolock_heap *heap = s ? nolock_heap_of(s) : NULL;

	if (!ZERO_OR_NULL_PTR(p) && heap && nolock_heap_of(p) &&
	    (nolock_heap_of(p) != heap || nl_cache_of(heap->h, (nl_u64)p) != (int)nl_cache_id(s)))
		nl_free_refused(p, "object of another cache: freed to its own");
}

int kmem_cache_free_rcu(struct kmem_cache *s, void *p)
{
	check_cache(s, p);
	return kfree_rcu(p);
}

int kmem_cache_free_rcu_nolock(struct kmem_cache *s, void *p)
{
	check_cache(s, p);
	return kfree_rcu_nolock(p);
}

unsigned long nolock_rcu_poll(void)
{
	struct nolock_heap *heap;
	unsigned long pending = 0;

	if (!nl_load_acquire(&rcu))
		return 0;
	nl_depth++;
	nl_fork_check();
	nl_for_each_heap(heap) {
		if (!usable(heap))
			continue;
		collect(heap, true, false);
		pending += nl_load(&heap->rcu->pending);
	}
	nl_depth--;
	return pending;
}

static void synchronize(void)
{
	nl_u64 number = __atomic_add_fetch(&syncs_begun, 1, __ATOMIC_SEQ_CST);

	rcu->synchronize();
	raise_to(&syncs_done, number);
}

int nl_rcu_drain(struct nolock_heap *heap)
{
	int err = 0;

	if (!usable(heap))
		return 0;
	/*
	 * What found no room, because other sheaves or other bits were still waiting, does so the
	 * second time.
	 */
	for (int i = 0; i < 3 && !err && nl_load(&heap->rcu->pending); i++) {
		err = collect(heap, true, true);
		if (err || !nl_load(&heap->rcu->pending) || i == 2)
			break;
		synchronize();
	}
	return err;
}

int nolock_rcu_barrier(void)
{
	struct nolock_heap *heap;
	int err = 0;

	if (!nl_load_acquire(&rcu))
		return 0;
	nl_depth++;
	nl_fork_check();
	nl_for_each_heap(heap) {
		err = nl_rcu_drain(heap);
		if (err)
			break;
	}
	nl_depth--;
	return err;
}

void nl_rcu_kick(struct nolock_heap *heap)
{
	if (usable(heap))
		collect(heap, false, false);
}

/* --- slabs --- */

bool nl_rcu_may_release(const struct nolock_heap *heap, const nl_cache_t *c)
{
	return !(nl_load(&c->flags) & SLAB_TYPESAFE_BY_RCU) ||
	       (heap->type == NL_HEAP_PRIVATE && nl_load_acquire(&heap->rcu));
}

/* By the tag: without slabs the cache may be another by now. */
void nl_rcu_release(struct nolock_heap *heap, nl_u32 chunk)
{
	if (NL_TAG_KIND(nl_load(nl_tag(heap->h, chunk))) != NL_KIND_WAIT) {
		nl_chunk_give(heap->h, chunk >> NL_GROUP_SHIFT, NL_BIT(chunk));
		return;
	}
	note(heap, chunk, 0);
}

/* --- the life of a heap --- */

static nl_u64 round_up(nl_u64 value, nl_u64 to)
{
	return (value + to - 1) / to * to;
}

int nl_rcu_open(struct nolock_heap *heap, nl_u32 g, nl_u32 n)
{
	struct nl_rcu *r = nl_load_acquire(&heap->rcu);
	struct bits *b[2] = { r ? &r->fresh : NULL, r ? &r->waiting : NULL };

	for (int i = 0; r && n && i < 2; i++)
		if (mprotect(b[i]->words + (nl_u64)g * GROUP_WORDS,
			     (nl_u64)n * GROUP_WORDS * sizeof(nl_u64), PROT_READ | PROT_WRITE))
			return -ENOMEM;
	return 0;
}

/*
 * Bits of groups that are not open take no more than addresses: a range that may be written at once
 * would be memory at once under mlockall(). But other processes open groups of a shared heap.
 */
static int attach(struct nolock_heap *heap)
{
	nl_u64 groups = heap->h->nr_groups, head, hints, words;
	struct nl_rcu *r;
	char *mem;

	head = round_up(sizeof(*r) + heap->nr_slots * sizeof(struct cpu), NL_PAGE);
	hints = round_up(((groups + 63) / 64 + groups) * sizeof(nl_u64), NL_PAGE);
	words = groups * GROUP_WORDS * sizeof(nl_u64);
	mem = mmap(NULL, head + 2 * (hints + words), PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(mem, head + 2 * hints, PROT_READ | PROT_WRITE))
		goto unmap;
	r = (struct nl_rcu *)mem;
	r->bytes = head + 2 * (hints + words);
	r->fresh.groups = (nl_u64 *)(mem + head);
	r->waiting.groups = (nl_u64 *)(mem + head + hints);
	r->fresh.words = (nl_u64 *)(mem + head + 2 * hints);
	r->waiting.words = r->fresh.words + groups * GROUP_WORDS;
	r->fresh.chunks = r->fresh.groups + (groups + 63) / 64;
	r->waiting.chunks = r->waiting.groups + (groups + 63) / 64;
	if (!nl_cas(&heap->rcu, NULL, r)) {
		munmap(mem, r->bytes);
		return 0;
	}
	nl_mb();
	/*
	 * A group was drawn before it is opened: who opens one and does not see heap->rcu yet has
	 * moved the cursor before, and we see that.
	 */
	if (!nl_rcu_open(heap, 0,
			 heap->type == NL_HEAP_PRIVATE ? nl_load(&heap->h->cursor) :
							 heap->h->nr_groups))
		return 0;
	nl_store(&heap->rcu, NULL);
unmap:
	munmap(mem, head + 2 * (hints + words));
	return -ENOMEM;
}

int nl_rcu_attach(struct nolock_heap *heap)
{
	/* The heap is live, then this: a registration sees the heap, or this sees the registration. */
	nl_mb();
	return nl_load_acquire(&rcu) && !heap->rcu ? attach(heap) : 0;
}

int nl_rcu_detach(struct nolock_heap *heap)
{
	struct nl_rcu *r = heap->rcu;
	int err;

	if (!usable(heap))
		return 0;
	/* What waits in a private heap goes with it. Nobody frees to it any more. */
	err = heap->type == NL_HEAP_PRIVATE ? 0 : nl_rcu_drain(heap);
	if (!err)
		err = wait_lock(&collector);
	if (err)
		return err;
	nl_store(&heap->rcu, NULL);
	munmap(r, r->bytes);
	unlock(&collector);
	return 0;
}

/* In a child: locks that other threads of the parent held are nobody's. Wait-free. */
void nl_rcu_fork(struct nolock_heap *heap)
{
	struct nl_rcu *r = heap->rcu;

	if (!r)
		return;
	if (nl_load(&collector) != owner())
		unlock(&collector);
	for (nl_u32 i = 0; i < heap->nr_slots; i++)
		if (nl_load(&r->cpu[i].lock) != owner())
			unlock(&r->cpu[i].lock);
}

/* The thread left a call in the middle, for good: what it had in its hands there is lost. */
void nl_rcu_forget(struct nolock_heap *heap, nl_u32 thread)
{
	nl_u64 its = NL_OWNER(nl_load(&nl_default)->client, thread) | 1;
	struct nl_rcu *r = heap->rcu;

	if (!r)
		return;
	if (nl_load(&collector) == its)
		unlock(&collector);
	for (nl_u32 i = 0; i < heap->nr_slots; i++)
		if (nl_load(&r->cpu[i].lock) == its)
			unlock(&r->cpu[i].lock);
}

int nolock_rcu_register(const struct nolock_rcu_ops *ops)
{
	struct nolock_heap *heap;
	int err = 0;

	if (!ops || !ops->synchronize || !ops->call == !ops->start_poll ||
	    !ops->start_poll != !ops->poll)
		return -EINVAL;
	if (!nl_default_get())
		return -ENOMEM;
	if (!nl_cas(&rcu, NULL, ops))
		return -EBUSY;
	nl_for_each_heap(heap)
		if (!heap->rcu && !err)
			err = attach(heap);
	if (err)
		nl_store_release(&rcu, NULL);
	return err;
}
