/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * debug.h - debugging like Linux's slab_debug: who wrote where, and who freed what.
 *
 * NOLOCK_DEBUG=OPTIONS[,CACHE[,CACHE...]][;OPTIONS...] in the environment, read once at start,
 * debugs the named caches of the process's private heaps, or all of them, those of kmalloc()
 * included. A CACHE may end in '*'. The first block that names a cache is its; the last one that
 * names none is for all others. OPTIONS are letters, as slab_debug= has them; none means FZPU:
 *
 *   F  consistency checks   Z  red zones   P  poison   U  who allocated and freed   T  trace
 *   -  none                 O  accepted; a slab here never grows by debugging
 *
 * Another letter gets a line on stderr, and is skipped. kmem_cache_create() takes the same as flags.
 * Not in shared heaps: a BPF program and another process free without these checks. The flags fail
 * with EINVAL there, NOLOCK_DEBUG leaves their caches alone.
 *
 * What each finds. Any of the letters: a double free, a pointer into the middle of an object or
 * into none, an object freed to another cache - at once, where without debugging it may pass a sheaf.
 * Z: writes before and behind an object, behind the bytes that were asked for, when it is freed,
 * allocated, its slab is given back, or nolock_cache_validate() looks. P: writes to a free object, at
 * the same places; the bytes of a new one are 0x5a, of a free one 0x6b and at last 0xa5. U: pid,
 * thread, age and call stack of the last allocation and the last free, in each report. T: a line
 * for each allocation and free.
 *
 * A report goes to stderr: what is wrong, who had the object, the bytes around, and what was put
 * right (FIX). An object that was written to while it was free is kept out of use. Reports and
 * fixes are counted, one each, as the kernel's slab_errors: nolock_heap_report.debug_errors.
 * NOLOCK_DEBUG_ABORT=1 ends the process after the first report, by abort().
 *
 * The nolock calls work on debugged caches and stay wait-free; only a report makes system calls. A
 * debugged cache has no sheaves, its objects are as aligned as ever, and ksize() with Z is what was
 * asked for. A kmalloc() whose size is a constant knows its bucket alone, so the red zone begins at
 * the bucket's end: compile with -DNOLOCK_NO_INLINE to have it begin at the size. An object of 32 KiB
 * aligned to 32 KiB has no red zone before it.
 *
 * Other than in Linux: Z and P are checked without F as well; memory of a new object is 0x5a; a
 * damaged object that is freed is mended and freed, not lost.
 *
 * Without debugging, bad frees are caught as follows. A pointer into no heap, into metadata or free
 * memory: at once. A pointer into the middle of an object: at once on a slow path; else when the
 * sheaf that it went to is full, or flushed. Until then, at most a sheaf's frees later, the same
 * CPU may allocate it again. A double free: where the second one reaches its slab; until then the
 * object may be handed out twice. NOLOCK_HARDEN=0 switches off what of this costs anything: the look
 * through a full sheaf, about 1 ns an object, and the guards at both ends of a private heap (a page
 * at least between its metadata and its objects is always there).
 */
#ifndef NOLOCK_DEBUG_H
#define NOLOCK_DEBUG_H

#include <nolock/slab.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * nolock_cache_validate - look through all objects of a debugged cache now
 * @s: the cache; others may allocate and free its objects meanwhile
 * Returns how many reports and fixes there were, 0 for a sound cache, -EINVAL: not a debugged
 * cache of a private heap, or -EBUSY: a slab stayed locked. Ordinary context.
 * Source: validate_slab_cache() of Linux's slub.c.
 */
NOLOCK_API int nolock_cache_validate(struct kmem_cache *s);

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_DEBUG_H */
