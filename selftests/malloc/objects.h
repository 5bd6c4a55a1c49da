/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * objects.h - objects that say their own size and have a pattern of their own, made and freed by all
 * of malloc, calloc, realloc and memalign, by the main flow and by handlers alike.
 */
#ifndef NOLOCK_SELFTESTS_OBJECTS_H
#define NOLOCK_SELFTESTS_OBJECTS_H

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include "dropin.h"

/* What one flow of control owns: a thread, or one signal's handler on it. */
struct flow {
	uint64_t s;
	unsigned long ops;
	void *keep[64];
};

struct object_head {
	uint64_t size, seed;
};

static inline void object_check(const void *p)
{
	struct object_head h;

	memcpy(&h, p, sizeof(h));
	h.size ^= 0x51ab51ab51ab51abULL;
	CHECK(h.size >= sizeof(h) && h.size < 64 * MiB, "%p: a damaged head", p);
	CHECK(pat_check((const char *)p + sizeof(h), h.size - sizeof(h), h.seed),
	      "%p of %lu bytes is damaged", p, (unsigned long)h.size);
}

static inline void object_fill(struct flow *f, void *p, size_t size)
{
	struct object_head h = { size ^ 0x51ab51ab51ab51abULL, rng(&f->s) };

	memcpy(p, &h, sizeof(h));
	pat_fill((char *)p + sizeof(h), size - sizeof(h), h.seed);
}

static inline size_t object_size(struct flow *f)
{
	uint64_t r = rng(&f->s);

	if (r % 128 == 0)
		return 16 + (r >> 8) % (150 * KiB);
	if (r % 16 == 0)
		return 16 + (r >> 8) % 5000;
	return 16 + (r >> 8) % 500;
}

static inline void *object_new(struct flow *f)
{
	size_t size = object_size(f), align = 16;
	unsigned char *p;

	switch (rng(&f->s) % 4) {
	case 0:
		p = calloc(1, size);
		CHECK(p && !p[0] && !p[size / 2] && !memcmp(p, p + 1, size - 1), "calloc %zu",
		      size);
		break;
	case 1:
		align <<= rng(&f->s) % 9;
		p = memalign(align, size);
		break;
	default:
		p = malloc(size);
	}
	CHECK(p && (uintptr_t)p % align == 0, "%zu bytes to %zu: %p", size, align, p);
	object_fill(f, p, size);
	f->ops++;
	return p;
}

static inline void object_free(struct flow *f, void *p)
{
	if (!p)
		return;
	object_check(p);
	memset(p, 0x99, sizeof(struct object_head));
	free(p);
	f->ops++;
}

static inline void *object_resize(struct flow *f, void *p)
{
	size_t size = object_size(f), old;
	struct object_head h;
	void *q;

	if (!p)
		return object_new(f);
	object_check(p);
	memcpy(&h, p, sizeof(h));
	old = h.size ^ 0x51ab51ab51ab51abULL;
	q = realloc(p, size);
	CHECK(q, "realloc to %zu", size);
	if (old > size)
		old = size;
	/* A whole number of words is the same pattern, whatever the object's size. */
	CHECK(pat_check((char *)q + sizeof(h), (old - sizeof(h)) / 8 * 8, h.seed), "realloc to %zu",
	      size);
	object_fill(f, q, size);
	f->ops++;
	return q;
}

/* One step: replace, resize or free one of what the flow keeps. */
static inline void flow_step(struct flow *f)
{
	uint64_t r = rng(&f->s);
	void **slot = &f->keep[(r >> 8) % 64];
	void *p = __atomic_exchange_n(slot, NULL, __ATOMIC_ACQ_REL);

	switch (r % 4) {
	case 0:
		p = object_resize(f, p);
		break;
	case 1:
		object_free(f, p);
		p = NULL;
		break;
	default:
		object_free(f, p);
		p = object_new(f);
	}
	__atomic_store_n(slot, p, __ATOMIC_RELEASE);
}

static inline void flow_end(struct flow *f)
{
	for (int i = 0; i < 64; i++) {
		object_free(f, f->keep[i]);
		f->keep[i] = NULL;
	}
}

#endif /* NOLOCK_SELFTESTS_OBJECTS_H */
