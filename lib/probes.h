/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * probes.h - USDT probes of provider "nolock", all on slow paths, each behind its semaphore.
 *
 * A probe is a nop of one byte; its arguments are computed only while somebody is attached. The
 * tracing programs of nolockd (bpf/trace_usdt.bpf.c) attach to them; so can any USDT tool.
 *
 *   sheaf_refill(heap, cache name, objects)   sheaf_flush(heap, cache name, objects)
 *   alloc_slab(heap, cache name, chunk)       free_slab(heap, cache name, chunk)
 *   alloc_fail(heap, size, gfp flags)         free_refused(heap, pointer, reason)
 *   heap_grow(heap, groups)
 */
#ifndef NL_PROBES_H
#define NL_PROBES_H

#if defined(__bpf__) || !__has_include(<sys/sdt.h>) /* a cross build without the header */
#define NL_NO_PROBES
#define NL_PROBE2(name, a, b) ((void)(a), (void)(b))
#define NL_PROBE3(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#else
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

#define NL_SEMAPHORE(name) nolock_##name##_semaphore
#define NL_DECLARE(name)                                                                           \
	extern volatile unsigned short NL_SEMAPHORE(name) __attribute__((visibility("hidden")))

NL_DECLARE(sheaf_refill);
NL_DECLARE(sheaf_flush);
NL_DECLARE(alloc_slab);
NL_DECLARE(free_slab);
NL_DECLARE(alloc_fail);
NL_DECLARE(free_refused);
NL_DECLARE(heap_grow);

#define NL_PROBE2(name, a, b)                                                                      \
	do {                                                                                       \
		if (__builtin_expect(NL_SEMAPHORE(name), 0))                                       \
			STAP_PROBE2(nolock, name, a, b);                                           \
	} while (0)
#define NL_PROBE3(name, a, b, c)                                                                   \
	do {                                                                                       \
		if (__builtin_expect(NL_SEMAPHORE(name), 0))                                       \
			STAP_PROBE3(nolock, name, a, b, c);                                        \
	} while (0)
#endif

#endif /* NL_PROBES_H */
