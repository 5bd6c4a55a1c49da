/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * info.c - what glibc's malloc.h has beside allocation: sizes, figures, trimming, options.
 *
 * malloc_usable_size() is for any context. The rest is for ordinary code: figures are sums over
 * counters that others go on counting.
 */
#define _GNU_SOURCE
#define NOLOCK_NO_INLINE
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>
#include "entry.h"
#include "core/layout.h"

NL_ENTRY size_t malloc_usable_size(void *p);
NL_ENTRY int malloc_trim(size_t pad);
NL_ENTRY struct mallinfo2 mallinfo2(void);
NL_ENTRY struct mallinfo mallinfo(void);
NL_ENTRY void malloc_stats(void);
NL_ENTRY int mallopt(int param, int value);

/* The whole bucket, or all chunks of a large object: all of it may be written. 0 for NULL. */
size_t malloc_usable_size(void *p)
{
	const char *why;

	return p ? nl_malloc_size(p, &why) : 0;
}

/* All free memory at once, whatever the decay would keep; @pad is ignored. 1 if there was some. */
int malloc_trim(size_t pad)
{
	int err = errno;
	size_t bytes;

	(void)pad;
	bytes = nolock_heap_trim(nolock_heap_default());
	errno = err;
	return bytes != 0;
}

/*
 * arena: bytes opened, large objects not counted. uordblks: in objects of up to 32 KiB.
 * hblks, hblkhd: large objects, and their bytes. smblks, fsmblks: free objects in sheaves, and their
 * bytes. ordblks, keepcost: free chunks of 64 KiB, and their bytes. fordblks: arena - uordblks.
 */
struct mallinfo2 mallinfo2(void)
{
	struct nolock_heap *heap = nolock_heap_default();
	struct nolock_cache_stat cache;
	struct nolock_heap_stat st;
	struct mallinfo2 info = { 0 };
	size_t slabs = 0;
	int err;

	if (!heap || nolock_heap_stat(heap, &st))
		return info;
	for (unsigned int id = 0; (err = nolock_heap_cache_stat(heap, id, &cache)) != -ERANGE;
	     id++) {
		if (err)
			continue;
		slabs += cache.slabs << NL_CHUNK_SHIFT;
		info.uordblks += cache.allocated * cache.size;
		info.smblks += cache.in_sheaves;
		info.fsmblks += cache.in_sheaves * cache.size;
	}
	info.ordblks = st.chunks_free;
	info.keepcost = st.chunks_free << NL_CHUNK_SHIFT;
	info.hblks = st.large;
	/* Racy sums may be off by what happened between them. */
	if (st.opened > slabs + info.keepcost)
		info.hblkhd = st.opened - slabs - info.keepcost;
	info.arena = st.opened - info.hblkhd;
	if (info.arena > info.uordblks)
		info.fordblks = info.arena - info.uordblks;
	return info;
}

static int to_int(size_t n)
{
	return n < INT_MAX ? (int)n : INT_MAX;
}

/* What does not fit an int is INT_MAX. */
struct mallinfo mallinfo(void)
{
	struct mallinfo2 m = mallinfo2();
	struct mallinfo info = {
		.arena = to_int(m.arena),
		.ordblks = to_int(m.ordblks),
		.smblks = to_int(m.smblks),
		.hblks = to_int(m.hblks),
		.hblkhd = to_int(m.hblkhd),
		.fsmblks = to_int(m.fsmblks),
		.uordblks = to_int(m.uordblks),
		.fordblks = to_int(m.fordblks),
		.keepcost = to_int(m.keepcost),
	};

	return info;
}

void malloc_stats(void)
{
	struct mallinfo2 m = mallinfo2();
	char text[256];
	int n;

	n = snprintf(text, sizeof(text),
		     "nolock:\nsystem bytes     = %10zu\nin use bytes     = %10zu\n"
		     "large objects    = %10zu\nlarge bytes      = %10zu\n",
		     m.arena + m.hblkhd, m.uordblks + m.hblkhd, m.hblks, m.hblkhd);
	if (write(STDERR_FILENO, text, (size_t)n) < 0)
		return;
}

/* Options are glibc's own affair: each is accepted, none has an effect. */
int mallopt(int param, int value)
{
	(void)param, (void)value;
	return 1;
}
