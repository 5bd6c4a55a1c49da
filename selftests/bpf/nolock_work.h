/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nolock_work.h - what the allocator's tests do all day, one source for user space and for BPF.
 *
 * A worker allocates objects, stamps every one with a pattern, keeps them for a while, passes some
 * on through mail slots that others share, and checks each before it frees it. It lives in the
 * heap, so that both sides see its figures. One context at a time may run a worker.
 *
 * Whoever includes it has defined work_alloc(w, size), work_free(obj), and the bulk forms and those
 * of sheaves before: work_alloc_bulk(cache, nr, p), work_free_bulk(cache, nr, p),
 * work_prefill(cache, nr), work_from_sheaf(cache, sheaf), work_return(cache, sheaf).
 */
#ifndef NOLOCK_WORK_H
#define NOLOCK_WORK_H

#include "core/place.h"

#define WORK_HELD 512
#define WORK_MAIL 32
#define WORK_SIDES 8
#define WORK_CPUS 64
#define WORK_BULK 16

/* Sides: who allocated an object, as its stamp says. */
enum {
	SIDE_NONE,
	SIDE_USER,
	SIDE_HANDLER,
	SIDE_PROCESS,
	SIDE_BPF,
	SIDE_INNER,
};

/* Programs of nolock_work.bpf.c, each with a worker of its own. */
enum {
	TYPE_SYSCALL,
	TYPE_TC,
	TYPE_XDP,
	TYPE_TP_BTF,
	TYPE_RAW_TP,
	TYPE_TRACEPOINT,
	TYPE_UPROBE,
	TYPE_UPROBE_S,
	TYPE_SOCKET,
	TYPE_ITER,
	TYPE_FENTRY,
	TYPE_PERF_EVENT,
	NR_TYPES
};

/* Objects on their way from one to another: whoever puts one in takes out what was there. */
struct nolock_mail {
	nl_u64 slot[WORK_MAIL];
};

struct nolock_work {
	nl_u64 rng;
	nl_u64 mail;  /* address of a struct nolock_mail, or 0 */
	nl_u64 cache; /* address of a kmem_cache, or 0: kmalloc of min_size to max_size */
	nl_u64 heap;  /* user space: its handle */
	nl_u32 side;
	nl_u32 turns;	/* of one run */
	nl_u32 nr_held; /* objects held at most: 1 to WORK_HELD */
	nl_u32 min_size;
	nl_u32 max_size;
	nl_u32 turn;
	nl_u64 runs;
	nl_u64 allocs;
	nl_u64 frees;
	nl_u64 fails;		 /* NULL returned */
	nl_u64 bad;		 /* objects whose pattern was damaged */
	nl_u64 from[WORK_SIDES]; /* objects freed, by who allocated them */
	nl_u64 form_cache;	 /* address of a kmem_cache whose bulk forms each run calls, or 0 */
	nl_u32 form_size;
	nl_u32 pad;
	nl_u64 forms; /* objects that came and went by them */
	nl_u64 bulk[WORK_BULK];
	nl_u64 held[WORK_HELD];
};

typedef struct nolock_work NLA work_t;
typedef struct nolock_mail NLA mail_t;
typedef nl_u64 NLA work_word_t;

#ifdef __bpf__
#define WORK_FUNC NL_FUNC
#else
#define WORK_FUNC static __attribute__((unused))
#endif

/* The first word of an object: {seed 40, side 4, size 20}; all others follow from it. */
#define WORK_HEAD(seed, side, size) (((seed) << 24) | ((nl_u64)(side) << 20) | (size))
#define WORK_SIZE(head) ((nl_u32)(head)&0xfffff)
#define WORK_SIDE(head) ((nl_u32)((head) >> 20) & 0xf)

/* Words looked at: all of a small object, the first and the last 64 of others. */
#define WORK_EDGE 64u

NL_INLINE nl_u64 work_pattern(nl_u64 head, nl_u32 i)
{
	return (head + i) * 0x9e3779b97f4a7c15ULL;
}

WORK_FUNC int work_stamp(work_word_t *obj NL_ARG, nl_u64 head)
{
	nl_u32 words = WORK_SIZE(head) / 8, n = words;

	if (!obj)
		return 0;
	if (n > 2 * WORK_EDGE)
		n = 2 * WORK_EDGE;
	nl_for(i, n) {
		nl_u32 at = i < WORK_EDGE ? i : words - (n - i);

		obj[at] = at ? work_pattern(head, at) : head;
	}
	return 0;
}

/* 0, or -1 when a word is not what work_stamp() wrote. */
WORK_FUNC int work_verify(work_word_t *obj NL_ARG)
{
	nl_u32 words, n, wrong = nl_zero();
	nl_u64 head;

	if (!obj)
		return -1;
	head = obj[0];
	words = n = WORK_SIZE(head) / 8;
	if (words < 2 || words > 4096 || WORK_SIDE(head) >= WORK_SIDES)
		return -1;
	if (n > 2 * WORK_EDGE)
		n = 2 * WORK_EDGE;
	nl_for(i, n) {
		nl_u32 at = i < WORK_EDGE ? i : words - (n - i);

		if (at && obj[at] != work_pattern(head, at))
			wrong++;
	}
	return wrong ? -1 : 0;
}

NL_INLINE nl_u64 work_rng(work_t *w)
{
	nl_u64 r = w->rng;

	r ^= r >> 12;
	r ^= r << 25;
	r ^= r >> 27;
	w->rng = r;
	return (r * 0x2545f4914f6cdd1dULL) >> 8;
}

WORK_FUNC int work_drop(work_t *w NL_ARG, nl_u64 obj)
{
	if (!w)
		return 0;
	if (work_verify((work_word_t *)obj)) {
		w->bad++;
	} else {
		w->from[WORK_SIDE(*(work_word_t *)obj) & (WORK_SIDES - 1)]++;
		/* So that a second free of it is seen as damage. */
		*(work_word_t *)obj = 0;
	}
	work_free(obj);
	w->frees++;
	return 0;
}

WORK_FUNC nl_u64 work_take(work_t *w NL_ARG)
{
	nl_u32 size;
	nl_u64 r, obj;

	if (!w)
		return 0;
	r = work_rng(w);
	size = w->min_size + (nl_u32)(r % (w->max_size - w->min_size + 1)) / 8 * 8;
	obj = work_alloc(w, size);
	if (!obj) {
		w->fails++;
		return 0;
	}
	work_stamp((work_word_t *)obj, WORK_HEAD(r, w->side, size));
	w->allocs++;
	return obj;
}

/*
 * One turn on one of the places for held objects. In phases of nr_held turns, most are filled and
 * then most emptied, so that sheaves, barns and slabs run full and dry.
 */
WORK_FUNC int work_turn(work_t *w NL_ARG)
{
	nl_u32 nr, at;
	nl_u64 r, obj;

	if (!w)
		return 0;
	nr = w->nr_held;
	if (!nr || nr > WORK_HELD)
		return -1;
	r = work_rng(w);
	at = (nl_u32)r % nr;
	obj = w->held[at];
	if (!obj)
		obj = work_take(w);
	if (!obj)
		return 0;
	if (w->mail && !((r >> 32) & 3)) {
		mail_t *mail = (mail_t *)w->mail;

		obj = nl_xchg(&mail->slot[(r >> 36) % WORK_MAIL], obj);
	}
	w->held[at] = 0;
	if (!obj)
		return 0;
	if ((w->turn++ / nr) & 1)
		work_drop(w, obj);
	else
		w->held[at] = obj;
	return 0;
}

/* Stamp what is in bulk[], then look at it: nobody else may have had any of it meanwhile. */
WORK_FUNC int work_bulk_check(work_t *w NL_ARG, nl_u32 nr)
{
	nl_u64 r = w ? work_rng(w) : 0;

	if (!w)
		return 0;
	nl_for(i, nr) {
		nl_u64 obj = w->bulk[i & (WORK_BULK - 1)];

		work_stamp((work_word_t *)obj, WORK_HEAD(r + i, w->side, w->form_size));
	}
	nl_for(k, nr) {
		nl_u64 obj = w->bulk[k & (WORK_BULK - 1)];

		if (work_verify((work_word_t *)obj))
			w->bad++;
		*(work_word_t *)obj = 0;
	}
	w->allocs += nr;
	w->frees += nr;
	w->forms += nr;
	return 0;
}

WORK_FUNC int work_free_each(work_t *w NL_ARG, nl_u32 nr)
{
	nl_for(i, nr) {
		work_free(w->bulk[i & (WORK_BULK - 1)]);
	}
	return 0;
}

/* The bulk forms once. */
WORK_FUNC int work_forms(work_t *w NL_ARG)
{
	nl_u64 cache = w ? w->form_cache : 0;
	nl_u32 n;

	if (!cache)
		return 0;
	n = (nl_u32)work_rng(w) % WORK_BULK + 1;
	if (work_alloc_bulk(cache, n, &w->bulk[0]) == (int)n) {
		work_bulk_check(w, n);
		work_free_bulk(cache, n, &w->bulk[0]);
	} else {
		w->fails++;
	}
	return 0;
}

/* A prefilled sheaf, from which all but one object is taken. */
WORK_FUNC int work_sheaf(work_t *w NL_ARG)
{
	nl_u64 cache = w ? w->form_cache : 0, sheaf;
	nl_u32 nr = nl_zero(), n;

	if (!cache)
		return 0;
	n = (nl_u32)work_rng(w) % WORK_BULK + 1;
	sheaf = work_prefill(cache, n + 1);
	if (!sheaf) {
		w->fails++;
		return 0;
	}
	nl_for(i, n) {
		nl_u64 obj = work_from_sheaf(cache, sheaf);

		if (!obj) {
			w->fails++;
			break;
		}
		w->bulk[i & (WORK_BULK - 1)] = obj;
		nr++;
	}
	work_bulk_check(w, nr);
	work_free_each(w, nr);
	work_return(cache, sheaf);
	return 0;
}

NL_INLINE void work_run(work_t *w)
{
	nl_u32 turns = w->turns;

	w->runs++;
	work_forms(w);
	work_sheaf(w);
	nl_for(i, turns) {
		work_turn(w);
	}
}

#endif /* NOLOCK_WORK_H */
