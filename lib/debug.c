/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * debug.c - debugged caches: NOLOCK_DEBUG, and what is done to an object at each step of its life.
 *
 * Follows slab_debug of Linux's slub.c (Documentation/mm/slub.rst), with differences that
 * nolock/debug.h names. Who may touch what, and when, is in debug.h here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <nolock/debug.h>
#include "debug.h"
#include "core/core.h"
#include "core/kmalloc.h"
#include "core/slot.h"
#include "core/word.h"

#define DEFAULT_FLAGS (SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER)

/* Damaged objects that one allocation keeps out of use before it takes the next as mended. */
#define KEEP_TRIES 4

/* Tries of a free against a validation that claims and releases the same object. */
#define CLAIM_TRIES 8

/* Tries of a validation at a slab's lock. */
#define LOCK_TRIES 10000

/* Objects that kmem_cache_destroy() names. */
#define LEAKS_SHOWN 16

int nl_debug_on;

/* NOLOCK_DEBUG as it was when it was first looked at. */
static struct {
	nl_u32 read;
	char text[1024];
	nl_u64 met[1024 / 64]; /* a bit where a name begins that some cache has had */
	int pid;	       /* whose exit says which names no cache had */
	char bad[16];	       /* letters that are no options */
	bool long_, use_user;  /* cut; somebody wants SLAB_STORE_USER */
} option;

static const char *option_text(void)
{
	const char *env;
	size_t n;

	if (nl_load_acquire(&option.read))
		return option.text;
	/* A handler that comes in between copies the same bytes. */
	env = secure_getenv("NOLOCK_DEBUG");
	n = env ? strlen(env) : 0;
	if (n >= sizeof(option.text)) {
		option.long_ = true;
		n = sizeof(option.text) - 1;
	}
	if (n)
		memcpy(option.text, env, n);
	env = secure_getenv("NOLOCK_DEBUG_ABORT");
	nl_report_abort = env && *env && strcmp(env, "0") != 0;
	nl_store_release(&option.read, 1);
	return option.text;
}

static nl_u32 letter_flag(char letter)
{
	switch (letter | 0x20) {
	case 'f':
		return SLAB_CONSISTENCY_CHECKS;
	case 'z':
		return SLAB_RED_ZONE;
	case 'p':
		return SLAB_POISON;
	case 'u':
		return SLAB_STORE_USER;
	case 't':
		return SLAB_TRACE;
	default:
		return 0;
	}
}

/* The letters of a block, which end at its first comma or at its end. */
static nl_u32 block_flags(const char *p, const char *end)
{
	nl_u32 flags = 0;

	if (p == end || *p == ',')
		return DEFAULT_FLAGS;
	for (; p < end && *p != ','; p++) {
		nl_u32 flag = letter_flag(*p);

		if (flag)
			flags |= flag;
		else if (*p == '-')
			flags = 0;
		else if ((*p | 0x20) != 'o' && *p != ' ' && !strchr(option.bad, *p) &&
			 strlen(option.bad) < sizeof(option.bad) - 1)
			option.bad[strlen(option.bad)] = *p;
	}
	return flags;
}

/* The next name of a list that begins at *p: its length, without the blanks around it; 0 at its end. */
static size_t next_name(const char **p, const char *end, const char **name)
{
	while (*p < end) {
		const char *from = *p, *to;

		while (*p < end && **p != ',')
			(*p)++;
		to = *p;
		*p += *p < end;
		while (from < to && *from == ' ')
			from++;
		while (to > from && to[-1] == ' ')
			to--;
		*name = from;
		if (to > from)
			return (size_t)(to - from);
	}
	return 0;
}

/* Is the name in the block's list? An entry may end in '*'. */
static bool block_names(const char *p, const char *end, const char *name)
{
	const char *entry;
	bool names = false;
	size_t n;

	while ((n = next_name(&p, end, &entry))) {
		if (entry[n - 1] == '*' ? strncmp(name, entry, n - 1) != 0 :
					  strlen(name) != n || memcmp(name, entry, n) != 0)
			continue;
		if (*name)
			nl_or(&option.met[(entry - option.text) / 64],
			      NL_BIT((nl_u64)(entry - option.text)));
		names = true;
	}
	return names;
}

/* The next block that begins at *p, without its ';'; false at the end. */
static bool next_block(const char **p, const char **from, const char **end)
{
	while (**p == ';')
		(*p)++;
	*from = *p;
	while (**p && **p != ';')
		(*p)++;
	*end = *p;
	return *from < *end;
}

nl_u32 nl_debug_flags(const char *name)
{
	const char *p = option_text(), *from, *end, *list;
	nl_u32 all = 0, its = 0;
	bool named = false;

	while (next_block(&p, &from, &end)) {
		nl_u32 flags = block_flags(from, end);

		list = memchr(from, ',', (size_t)(end - from));
		if (flags & SLAB_STORE_USER)
			option.use_user = true;
		if (!list) {
			all = flags;
		} else if (block_names(list + 1, end, name) && !named) {
			its = flags;
			named = true;
		}
	}
	return named ? its : all;
}

/*
 * Where a program may be told, and may load what the walk of a stack needs: a heap may have been
 * made long before, in the middle of the loader.
 */
__attribute__((constructor)) static void debug_start(void)
{
	int err = errno;

	nl_debug_flags("");
	option.pid = (int)getpid();
	if (option.bad[0])
		nl_say("nolock: NOLOCK_DEBUG: '%s' %s and skipped: the options are F, Z, P, U, T, O "
		       "and -, a comma ends them\n",
		       option.bad, option.bad[1] ? "are no options" : "is no option");
	if (option.long_)
		nl_say("nolock: NOLOCK_DEBUG is longer than %zu bytes: the rest is ignored\n",
		       sizeof(option.text) - 1);
	if (option.use_user)
		nl_track_prepare();
	errno = err;
}

/* A name that no cache had is a mistake, most likely; before the end it may still come. */
__attribute__((destructor)) static void debug_end(void)
{
	const char *p = option_text(), *from, *end, *list, *entry;
	char names[160] = { 0 };
	int err = errno;
	size_t n;

	if (option.pid != (int)getpid())
		return;
	while (next_block(&p, &from, &end)) {
		list = memchr(from, ',', (size_t)(end - from));
		if (!list)
			continue;
		for (list++; (n = next_name(&list, end, &entry));) {
			size_t at = (size_t)(entry - option.text), had = strlen(names);

			if ((option.met[at / 64] & NL_BIT(at)) || had + n + 3 > sizeof(names))
				continue;
			if (had)
				memcpy(names + had, ", ", 2);
			memcpy(names + had + (had ? 2 : 0), entry, n);
		}
	}
	if (names[0])
		nl_say("nolock: NOLOCK_DEBUG: no cache of this name was made: %s\n", names);
	errno = err;
}

void nl_debug_prepare(nl_u32 flags)
{
	if (flags & SLAB_STORE_USER)
		nl_track_prepare();
}

static nl_u32 round_up(nl_u32 value, nl_u32 to)
{
	return (value + to - 1) / to * to;
}

/* From an object to its record. */
static nl_u32 record_off(const struct nl_cache *c)
{
	nl_u32 off = round_up(c->object_size, 8);

	return (c->flags & SLAB_RED_ZONE) && off == c->object_size ? off + 8 : off;
}

static nl_u32 record_size(const struct nl_cache *c)
{
	return c->flags & SLAB_STORE_USER ? sizeof(struct nl_record) : sizeof(nl_u64);
}

/* A constructor's work must last, so its objects cannot be poisoned. */
static bool poisoned(const struct nl_cache *c)
{
#ifdef SLAB_TYPESAFE_BY_RCU
	if (c->flags & SLAB_TYPESAFE_BY_RCU)
		return false; /* read after free, on purpose */
#endif
	return (c->flags & SLAB_POISON) && !c->ctor;
}

void nl_debug_cache(struct nl_cache *c, nl_u32 flags)
{
	nl_u32 align = c->align < 8 ? 8 : c->align, next = c->next, size, left;

	flags &= NL_DEBUG_FLAGS;
	if (!flags)
		return;
	c->flags |= flags;
	size = record_off(c) + record_size(c);
	left = c->flags & SLAB_RED_ZONE ? align : 0;
	/* Objects of 32 KiB and their alignment leave no room on the left within a slab. */
	if (left + round_up(size, align) > NL_CHUNK_SIZE)
		left = 0;
	size = left + round_up(size, align);
	if (size < NL_MIN_SIZE)
		size = round_up(NL_MIN_SIZE, align);
	nl_cache_shape(c, c->id, c->object_size, size);
	c->next = next;
	c->left = left;
	c->capacity = 0;
	nl_store_release(&nl_debug_on, 1);
}

/* The object that an address belongs to; p is 0 if none can be there. */
static struct nl_subject subject(struct nolock_heap *heap, nl_u32 id, nl_u64 addr)
{
	struct nl_subject s = { .heap = heap, .cache = nl_cache(heap->h, id) };
	nl_u32 off = (nl_u32)(addr - heap->h->base) & (NL_CHUNK_SIZE - 1);
	nl_u32 idx = nl_index(off, s.cache->recip);

	if (idx >= s.cache->per_slab)
		return s;
	s.slot = addr - off + (nl_u64)idx * s.cache->size;
	s.p = s.slot + s.cache->left;
	s.record = (struct nl_record *)(s.p + record_off(s.cache));
	return s;
}

static struct nl_subject subject_at(struct nolock_heap *heap, nl_u32 id, nl_u32 chunk, nl_u32 idx)
{
	return subject(heap, id, nl_object(heap->h, chunk, idx, nl_cache(heap->h, id)->size));
}

/* --- the bytes around --- */

static void fill(nl_u64 from, nl_u64 to, nl_u8 byte)
{
	if (from < to)
		memset((void *)from, byte, to - from);
}

static void fill_zones(const struct nl_subject *s, nl_u32 size, nl_u8 byte)
{
	if (!(s->cache->flags & SLAB_RED_ZONE))
		return;
	fill(s->slot, s->p, byte);
	fill(s->p + size, (nl_u64)s->record, byte);
}

static void fill_free(const struct nl_subject *s)
{
	nl_u32 size = s->cache->object_size;

	fill_zones(s, size, NL_RED_INACTIVE);
	if (poisoned(s->cache)) {
		fill(s->p, s->p + size - 1, NL_POISON_FREE);
		fill(s->p + size - 1, s->p + size, NL_POISON_END);
	}
}

/* By whole words where it can: a slab that is validated is 64 KiB of them. */
static nl_u64 first_other(nl_u64 from, nl_u64 to, nl_u8 want)
{
	nl_u64 wants = want * 0x0101010101010101ULL;

	while (from < to) {
		if (from % 8 == 0 && to - from >= 8 && nl_load((nl_u64 *)from) == wants)
			from += 8;
		else if (nl_load((nl_u8 *)from) == want)
			from++;
		else
			break;
	}
	return from;
}

/* Is a region what it should be? With @mend it is reported and put right; 1 if it was not. */
static int check_bytes(const struct nl_subject *s, const char *what, nl_u64 from, nl_u64 to,
		       nl_u8 want, bool mend)
{
	nl_u64 bad = from < to ? first_other(from, to, want) : to;

	if (bad >= to)
		return 0;
	if (!mend)
		return 1;
	/* Up to its last bad byte. */
	while (to > bad + 1 && nl_load((nl_u8 *)(to - 1)) == want)
		to--;
	nl_report_bytes(s, what, bad, to, want);
	fill(bad, to, want);
	nl_report_fix(s, "Restoring %s 0x%llx-0x%llx=0x%x", what, (unsigned long long)bad,
		      (unsigned long long)to - 1, want);
	return 1;
}

/* All that is known of an object's bytes while it is allocated, with so many asked for, or free. */
static int check_object(const struct nl_subject *s, bool active, nl_u32 size, bool mend)
{
	const struct nl_cache *c = s->cache;
	nl_u64 record_end = (nl_u64)s->record + record_size(c);
	int bad = 0;

	if (c->flags & SLAB_RED_ZONE) {
		nl_u8 want = active ? NL_RED_ACTIVE : NL_RED_INACTIVE;
		nl_u64 end = s->p + c->object_size;

		bad += check_bytes(s, "Left Redzone", s->slot, s->p, want, mend);
		/* What was asked for may end before the object does. */
		bad += check_bytes(
			s, active && size < c->object_size ? "kmalloc Redzone" : "Right Redzone",
			active ? s->p + size : end, (nl_u64)s->record, want, mend);
	}
	if (!active && poisoned(c)) {
		nl_u64 last = s->p + c->object_size - 1;

		bad += check_bytes(s, "Poison", s->p, last, NL_POISON_FREE, mend);
		bad += check_bytes(s, "End Poison", last, last + 1, NL_POISON_END, mend);
	}
	if (c->flags & SLAB_POISON)
		bad += check_bytes(s, "Object padding", record_end, s->slot + c->size,
				   NL_POISON_INUSE, mend);
	return bad;
}

/* The rest of a slab behind its last object. */
static int check_slab(struct nolock_heap *heap, nl_u32 id, nl_u32 chunk)
{
	struct nl_cache *c = nl_cache(heap->h, id);
	nl_u64 start = nl_object(heap->h, chunk, 0, 0);
	struct nl_subject s = { .heap = heap, .cache = c, .slot = start, .p = start };

	if (!(c->flags & SLAB_POISON))
		return 0;
	return check_bytes(&s, "Slab padding", start + (nl_u64)c->per_slab * c->size,
			   start + NL_CHUNK_SIZE, NL_POISON_INUSE, true);
}

/* --- the state --- */

static nl_u64 next_state(nl_u64 state, nl_u32 kind, nl_u32 size)
{
	return NL_STATE(NL_STATE_COUNT(state) + 1, kind, size);
}

static void set_state(const struct nl_subject *s, nl_u32 kind, nl_u32 size)
{
	nl_u64 *state = &s->record->state;

	/* What was filled in before is there for whoever reads this. */
	nl_store_release(state, next_state(nl_load(state), kind, size));
}

static bool state_known(nl_u32 kind)
{
	return kind == NL_STATE_FREE || kind == NL_STATE_ACTIVE || kind == NL_STATE_FREEING ||
	       kind == NL_STATE_CHECK || kind == NL_STATE_PENDING || kind == NL_STATE_KEPT;
}

/* The object's bit is in the caller's hand, and it should be free. How much was wrong. */
static int check_free(const struct nl_subject *s)
{
	int bad = 0;

	if (NL_STATE_KIND(nl_load(&s->record->state)) != NL_STATE_FREE) {
		nl_report_bug(s, "Object state overwritten: 0x%llx in a free object",
			      (unsigned long long)nl_load(&s->record->state));
		set_state(s, NL_STATE_FREE, 0);
		nl_report_fix(s, "Object 0x%llx is free", (unsigned long long)s->p);
		bad++;
	}
	return bad + check_object(s, false, 0, true);
}

bool nl_debug_slab_new(struct nl_heap *h, nl_u32 id, nl_u32 chunk)
{
	struct nolock_heap *heap = nolock_heap_of(h);
	struct nl_cache *c = nl_cache(h, id);
	nl_u64 start = nl_object(h, chunk, 0, 0);

	if (!heap || !nl_debugged(heap, id))
		return false;
	for (nl_u32 i = 0; i < c->per_slab; i++) {
		struct nl_subject s = subject_at(heap, id, chunk, i);

		memset(s.record, 0, record_size(c));
		fill_free(&s);
		if (c->flags & SLAB_POISON)
			fill((nl_u64)s.record + record_size(c), s.slot + c->size, NL_POISON_INUSE);
		if (c->ctor)
			((void (*)(void *))(uintptr_t)c->ctor)((void *)s.p);
		set_state(&s, NL_STATE_FREE, 0);
	}
	if (c->flags & SLAB_POISON)
		fill(start + (nl_u64)c->per_slab * c->size, start + NL_CHUNK_SIZE, NL_POISON_INUSE);
	return true;
}

void nl_debug_slab_gone(struct nl_heap *h, nl_u32 id, nl_u32 chunk)
{
	struct nolock_heap *heap = nolock_heap_of(h);

	if (!heap || !nl_debugged(heap, id))
		return;
	check_slab(heap, id, chunk);
	for (nl_u32 i = 0; i < nl_cache(h, id)->per_slab; i++) {
		struct nl_subject s = subject_at(heap, id, chunk, i);

		check_free(&s);
	}
}

nl_u64 nl_debug_alloc(struct nolock_heap *heap, nl_u64 obj, nl_u32 tries)
{
	int id = nl_cache_of(heap->h, obj);
	struct nl_subject s;
	nl_u32 size;

	if (id < 0 || !nl_debugged(heap, (nl_u32)id))
		return obj;
	s = subject(heap, (nl_u32)id, obj);
	size = s.cache->object_size;
	if (check_free(&s) && tries < KEEP_TRIES) {
		/* Whoever wrote to it may do so again. */
		set_state(&s, NL_STATE_KEPT, 0);
		nl_report_fix(&s, "Object 0x%llx is kept out of use", (unsigned long long)s.p);
		return 0;
	}
	fill_zones(&s, size, NL_RED_ACTIVE);
	if (poisoned(s.cache))
		fill(s.p, s.p + size, NL_POISON_INUSE);
	if (s.cache->flags & SLAB_STORE_USER)
		nl_track(&s.record->alloc);
	set_state(&s, NL_STATE_ACTIVE, size);
	if (s.cache->flags & SLAB_TRACE)
		nl_report_trace(&s, "alloc");
	return s.p;
}

/*
 * Claim an object for freeing. Its state before, or 0: it is refused, reported, or somebody else
 * is going to free it. Each failed cmpxchg is a step of somebody else's: a second free, which is
 * a bug, or a validation, which takes two for each object that is damaged.
 */
static nl_u64 claim_to_free(const struct nl_subject *s)
{
	nl_u64 *word = &s->record->state;

	for (int i = 0; i < CLAIM_TRIES; i++) {
		nl_u64 state = nl_load_acquire(word);

		switch (NL_STATE_KIND(state)) {
		case NL_STATE_ACTIVE:
			if (nl_cas(word, state,
				   next_state(state, NL_STATE_FREEING, NL_STATE_SIZE(state))))
				return state;
			break;
		case NL_STATE_CHECK:
			if (nl_cas(word, state,
				   next_state(state, NL_STATE_PENDING, NL_STATE_SIZE(state))))
				return 0;
			break;
		case NL_STATE_FREE:
		case NL_STATE_FREEING:
		case NL_STATE_PENDING:
		case NL_STATE_KEPT:
			nl_report_bug(s, "Object 0x%llx is free already", (unsigned long long)s->p);
			nl_add(&s->heap->h->refused, 1);
			return 0;
		default:
			nl_report_bug(s, "Object state overwritten: 0x%llx",
				      (unsigned long long)state);
			state = next_state(state, NL_STATE_ACTIVE, s->cache->object_size);
			nl_store(word, state);
			nl_report_fix(s, "Object 0x%llx is allocated", (unsigned long long)s->p);
		}
	}
	nl_report_bug(s, "Object 0x%llx changes its state all the time: not freed",
		      (unsigned long long)s->p);
	return 0;
}

nl_u64 nl_debug_free(struct nolock_heap *heap, nl_u32 id, nl_u64 p)
{
	struct nl_subject s = subject(heap, id, p);
	nl_u64 state;

	if (!s.record || p != s.p) {
		nl_report_bug(&s, "Invalid free of 0x%llx, where no object starts",
			      (unsigned long long)p);
		nl_add(&heap->h->refused, 1);
		return 0;
	}
	state = claim_to_free(&s);
	if (!state)
		return 0;
	/* The claim before the bytes: pairs with the cmpxchg to CHECK, which fails from now on. */
	nl_mb();
	check_object(&s, true, NL_STATE_SIZE(state), true);
	if (s.cache->flags & SLAB_TRACE)
		nl_report_trace(&s, "free");
	fill_free(&s);
	if (s.cache->flags & SLAB_STORE_USER)
		nl_track(&s.record->free);
	/* Still out of its slab: nobody takes it before its bit is given. */
	set_state(&s, NL_STATE_FREE, 0);
	return s.slot;
}

size_t nl_debug_size(struct nolock_heap *heap, nl_u32 id, nl_u64 p)
{
	struct nl_subject s = subject(heap, id, p);
	nl_u64 state;

	if (!s.record || p != s.p)
		return 0;
	state = nl_load(&s.record->state);
	if (NL_STATE_KIND(state) != NL_STATE_ACTIVE)
		return s.cache->object_size;
	return s.cache->flags & SLAB_RED_ZONE ? NL_STATE_SIZE(state) : s.cache->object_size;
}

bool nl_debug_resize(struct nolock_heap *heap, nl_u32 id, nl_u64 p, size_t size, bool zero)
{
	struct nl_subject s = subject(heap, id, p);
	nl_u64 *word, state;
	nl_u32 old;

	if (!s.record || p != s.p || size > s.cache->object_size)
		return false;
	word = &s.record->state;
	state = nl_load_acquire(word);
	old = NL_STATE_SIZE(state);
	if (NL_STATE_KIND(state) != NL_STATE_ACTIVE)
		return false;
	/* A validation goes by the size in the state that it claims: a zone grows before, and
	 * shrinks after it. */
	if ((s.cache->flags & SLAB_RED_ZONE) && size < old)
		fill(p + size, p + old, NL_RED_ACTIVE);
	if (!nl_cas(word, state, next_state(state, NL_STATE_ACTIVE, (nl_u32)size)))
		return false;
	if (zero && size > old)
		memset((void *)(p + old), 0, size - old);
	return true;
}

/* --- validation --- */

/* Claim an allocated object as CHECK: false if it is being freed, or was resized. */
static bool claim_to_check(const struct nl_subject *s, nl_u64 state)
{
	return nl_cas(&s->record->state, state,
		      next_state(state, NL_STATE_CHECK, NL_STATE_SIZE(state)));
}

static void unclaim(const struct nl_subject *s)
{
	nl_u64 state = nl_load(&s->record->state);

	if (NL_STATE_KIND(state) == NL_STATE_CHECK &&
	    nl_cas(&s->record->state, state,
		   next_state(state, NL_STATE_ACTIVE, NL_STATE_SIZE(state))))
		return;
	/* PENDING: its owner came to free it. */
	fill_free(s);
	if (s->cache->flags & SLAB_STORE_USER)
		nl_track(&s->record->free);
	set_state(s, NL_STATE_FREE, 0);
	nl_slab_put(s->heap->h, s->cache->id, s->slot);
	nl_slot_count(nl_aslot(s->heap->h, nl_cpu(s->heap), s->cache->id), NL_STAT_FREE_SLOWPATH,
		      1);
}

/* An object of a locked slab whose bit is not set: allocated, on its way, or kept. */
static void validate_used(const struct nl_subject *s)
{
	nl_u64 state = nl_load_acquire(&s->record->state);
	nl_u32 kind = NL_STATE_KIND(state);

	if (kind == NL_STATE_ACTIVE) {
		/* Claimed only if damaged; if it was freed or resized, the bytes may be right. */
		if (check_object(s, true, NL_STATE_SIZE(state), false) &&
		    claim_to_check(s, state)) {
			check_object(s, true, NL_STATE_SIZE(state), true);
			unclaim(s);
		}
	} else if (!state_known(kind)) {
		nl_u64 right = next_state(state, NL_STATE_CHECK, s->cache->object_size);

		if (!nl_cas(&s->record->state, state, right))
			return;
		nl_report_bug(s, "Object state overwritten: 0x%llx", (unsigned long long)state);
		nl_report_fix(s, "Object 0x%llx is allocated", (unsigned long long)s->p);
		check_object(s, true, s->cache->object_size, true);
		unclaim(s);
	}
}

/*
 * With the slab's lock it stays a slab of the cache, and nobody takes bits of it but the last scan
 * of an allocation. Its holders are bounded, but may be preempted.
 */
static bool lock_slab(nl_slab_t *slab, nl_u32 who)
{
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (nl_slab_trylock(slab, who))
			return true;
		sched_yield();
	}
	return false;
}

static int validate_slab(struct nolock_heap *heap, nl_u32 id, nl_u32 chunk)
{
	nl_heap_t *h = heap->h;
	nl_slab_t *slab = nl_slab(h, chunk);
	nl_u32 per_slab = nl_cache(h, id)->per_slab;

	if (!lock_slab(slab, nl_who(heap)))
		return -EBUSY;
	if (nl_load(nl_tag(h, chunk)) != NL_TAG(NL_KIND_SLAB, id))
		goto unlock; /* given back meanwhile */
	check_slab(heap, id, chunk);
	for (nl_u32 i = 0; i < per_slab; i++) {
		struct nl_subject s = subject_at(heap, id, chunk, i);
		nl_word_t *word = &slab->free[i / 64];
		nl_u64 seen = nl_load(word);

		if (!(seen & NL_BIT(i))) {
			validate_used(&s);
		} else if (nl_word_claim(word, seen, i & 63)) {
			check_free(&s);
			nl_slab_give(h, id, chunk, i / 64, NL_BIT(i));
		}
	}
unlock:
	nl_slab_unlock(slab);
	return 0;
}

int nolock_cache_validate(struct kmem_cache *s)
{
	struct nolock_heap *heap = s ? nolock_heap_of(s) : NULL;
	nl_cache_t *c = (nl_cache_t *)s;
	nl_u64 before;
	int err = 0;
	nl_u32 end;

	if (!heap || heap->snapshot || nl_load(&c->state) != NL_CACHE_LIVE ||
	    !nl_debugged(heap, c->id))
		return -EINVAL;
	before = nl_load(&c->bugs);
	nl_depth++;
	nl_fork_check();
	end = nl_load_acquire(&heap->h->nr_open) << NL_GROUP_SHIFT;
	for (nl_u32 chunk = heap->h->first_chunk; chunk < end; chunk++)
		if (nl_load(nl_tag(heap->h, chunk)) == NL_TAG(NL_KIND_SLAB, c->id))
			err = validate_slab(heap, c->id, chunk) ? -EBUSY : err;
	nl_depth--;
	return err ? err : (int)(nl_load(&c->bugs) - before);
}

/* --- what other files find --- */

void nl_debug_refused(const void *p, const char *why)
{
	struct nl_subject s = { .p = (nl_u64)p };

	if (nl_likely(!nl_load(&nl_debug_on)))
		return;
	s.heap = nolock_heap_of(p);
	if (!s.heap)
		s.heap = nl_default_get();
	nl_report_bug(&s, "Invalid free of %p: %s", p, why);
}

void nl_debug_wrong_cache(const struct kmem_cache *s, const void *p)
{
	const struct nl_cache *expected = (const struct nl_cache *)s;
	struct nolock_heap *heap = nolock_heap_of(p);
	struct nl_subject sub = { .heap = heap, .p = (nl_u64)p };
	int id;

	if (!nl_load(&nl_debug_on) || !heap)
		return;
	id = nl_cache_of(heap->h, (nl_u64)p);
	if (id >= 0 && nl_debugged(heap, (nl_u32)id))
		sub = subject(heap, (nl_u32)id, (nl_u64)p);
	else if (id >= 0)
		sub.cache = nl_cache(heap->h, (nl_u32)id);
	nl_report_bug(&sub, "Wrong slab cache: freed to %s, but object is from %s", expected->name,
		      sub.cache ? sub.cache->name : "none");
}

void nl_debug_leaks(struct nolock_heap *heap, nl_u32 id, unsigned long left)
{
	nl_heap_t *h = heap->h;
	nl_cache_t *c = nl_cache(h, id);
	nl_u32 end = nl_load_acquire(&h->nr_open) << NL_GROUP_SHIFT;
	struct nl_subject s = { .heap = heap, .cache = c };
	bool debugged = nl_debugged(heap, id);
	unsigned long shown = 0;

	nl_report_count(&s);
	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		nl_slab_t *slab = nl_slab(h, chunk);

		if (nl_load(nl_tag(h, chunk)) != NL_TAG(NL_KIND_SLAB, id))
			continue;
		nl_report_count(&s);
		if (shown == LEAKS_SHOWN)
			continue;
		nl_say("BUG %s: Objects remaining in slab 0x%llx on kmem_cache_destroy()\n",
		       c->name, (unsigned long long)nl_object(h, chunk, 0, 0));
		for (nl_u32 i = 0; i < c->per_slab && shown < LEAKS_SHOWN; i++) {
			struct nl_subject one = s;

			if (nl_load(&slab->free[i / 64]) & NL_BIT(i))
				continue;
			one.p = nl_object(h, chunk, i, c->size);
			if (debugged)
				one = subject(heap, id, one.p);
			nl_report_leak(&one);
			shown++;
		}
	}
	if (left > shown)
		nl_say("and %lu more\n", left - shown);
}

void nl_debug_unkeep(struct nolock_heap *heap, nl_u32 id)
{
	nl_heap_t *h = heap->h;
	nl_u32 end = nl_load_acquire(&h->nr_open) << NL_GROUP_SHIFT;

	if (!nl_debugged(heap, id))
		return;
	for (nl_u32 chunk = h->first_chunk; chunk < end; chunk++) {
		if (nl_load(nl_tag(h, chunk)) != NL_TAG(NL_KIND_SLAB, id))
			continue;
		for (nl_u32 i = 0; i < nl_cache(h, id)->per_slab; i++) {
			struct nl_subject s = subject_at(heap, id, chunk, i);

			if (nl_load(&nl_slab(h, chunk)->free[i / 64]) & NL_BIT(i) ||
			    NL_STATE_KIND(nl_load(&s.record->state)) != NL_STATE_KEPT)
				continue;
			set_state(&s, NL_STATE_FREE, 0);
			nl_slab_put(h, id, s.slot);
			nl_slot_count(nl_aslot(h, nl_cpu(heap), id), NL_STAT_FREE_SLOWPATH, 1);
		}
	}
}
