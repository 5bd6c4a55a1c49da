/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * malloc.c - the C library's allocation functions on the private heap: libnolock-malloc.so.
 *
 * Contracts are those of malloc(3) and posix_memalign(3), with these additions:
 *   - Each function here may be called in any context: from a signal handler whatever it
 *     interrupted, before main, while a thread starts or ends, in a child after fork().
 *   - Memory is aligned to 16 bytes; an object of a power-of-two size up to 32 KiB to its size.
 *   - Failure is NULL with ENOMEM; requests above PTRDIFF_MAX fail, too. free() keeps errno.
 *   - malloc(0) is an object of its own. realloc(p, 0) frees p and returns NULL.
 *   - A pointer that is no object's start is reported on stderr, and the process aborted. An object
 *     freed twice is found at the latest where it reaches its slab, perhaps some calls later.
 *     NOLOCK_MALLOC_CHECK=0: such frees are counted (nolock_heap_check()) and otherwise ignored.
 *
 * Source: glibc's malloc.h; free_sized() and free_aligned_sized() of C23.
 */
#define _GNU_SOURCE
#define NOLOCK_NO_INLINE
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
#include "debug.h"
#include "entry.h"
#include "fast.h"
#include "core/core.h"
#include "core/kmalloc.h"

#define MIN_ALIGN 16u

/* Their prototypes differ between C libraries and standards; these are what is exported. */
NL_ENTRY void *malloc(size_t size);
NL_ENTRY void free(void *p);
NL_ENTRY void *calloc(size_t n, size_t size);
NL_ENTRY void *realloc(void *p, size_t size);
NL_ENTRY void *reallocarray(void *p, size_t n, size_t size);
NL_ENTRY void *memalign(size_t align, size_t size);
NL_ENTRY void *aligned_alloc(size_t align, size_t size);
NL_ENTRY int posix_memalign(void **out, size_t align, size_t size);
NL_ENTRY void *valloc(size_t size);
NL_ENTRY void *pvalloc(size_t size);
NL_ENTRY void free_sized(void *p, size_t size);
NL_ENTRY void free_aligned_sized(void *p, size_t align, size_t size);

/* What was written so far goes out whatever becomes of the process: no stdio, one write. */
void nl_malloc_bad(const char *call, const void *p, const char *why)
{
	static const char digits[] = "0123456789abcdef";
	const char *mode = getenv("NOLOCK_MALLOC_CHECK");
	const char *parts[] = { "nolock: ", call, "(0x", NULL, "): ", why, ": aborted\n" };
	char text[256], hex[17] = { 0 };
	size_t n = 0;

	if (mode && mode[0] == '0' && !mode[1])
		return;
	for (int i = 0; i < 16; i++)
		hex[i] = digits[((uintptr_t)p >> (60 - 4 * i)) & 15];
	parts[3] = hex + (p ? (size_t)__builtin_clzll((uintptr_t)p) / 4 : 15);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		size_t len = strlen(parts[i]);

		if (len > sizeof(text) - n)
			len = sizeof(text) - n;
		memcpy(text + n, parts[i], len);
		n += len;
	}
	if (write(STDERR_FILENO, text, n) < 0)
		abort();
	abort();
}

/*
 * The dynamic loader has an allocator of its own for what it needs before it can call this one, in
 * the rest of its last page of data. The C library knows not to free that; not everybody who takes
 * a pointer from it does. Returns the bytes from p to the end of that memory.
 */
static size_t loaders_own(const void *p)
{
	uintptr_t base = getauxval(AT_BASE), end = 0, page = (uintptr_t)getauxval(AT_PAGESZ);
	const ElfW(Ehdr) *elf = (const void *)base;
	const ElfW(Phdr) * ph;

	if (!base || (uintptr_t)p < base)
		return 0;
	ph = (const void *)(base + elf->e_phoff);
	for (int i = 0; i < elf->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD && base + ph[i].p_vaddr + ph[i].p_memsz > end)
			end = base + ph[i].p_vaddr + ph[i].p_memsz;
	end = (end + page - 1) / page * page;
	return (uintptr_t)p < end ? end - (uintptr_t)p : 0;
}

size_t nl_malloc_size(const void *p, const char **why)
{
	struct nolock_heap *heap = nolock_heap_of(p);
	nl_u64 chunk;
	nl_u32 tag;

	*why = "not an object of any heap";
	if (!heap)
		return 0;
	chunk = ((nl_u64)p - (nl_u64)heap->base) >> NL_CHUNK_SHIFT;
	if (!nl_chunk_ok(heap->h, chunk))
		return 0;
	tag = nl_load(nl_tag(heap->h, (nl_u32)chunk));
	*why = "not the start of an object";
	if (NL_TAG_KIND(tag) == NL_KIND_SLAB && nl_debugged(heap, NL_TAG_CACHE(tag)))
		return ksize(p);
	if (NL_TAG_KIND(tag) == NL_KIND_SLAB)
		return nl_slab_index(heap->h, NL_TAG_CACHE(tag), (nl_u64)p) == ~0u ? 0 : ksize(p);
	if (NL_TAG_KIND(tag) == NL_KIND_LARGE)
		return (nl_u64)p % NL_CHUNK_SIZE ? 0 : ksize(p);
	if (NL_TAG_KIND(tag) == NL_KIND_FREE)
		*why = "free memory";
	return 0;
}

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

static __attribute__((noinline)) void *malloc_slow(size_t size)
{
	if (size > PTRDIFF_MAX)
		return no_memory();
	return nl_kmalloc_slow(nl_default, size + !size, GFP_KERNEL, NUMA_NO_NODE);
}

NL_HOT void *malloc(size_t size)
{
	nl_u64 obj;

	return nl_likely(pop_default(size, &obj)) ? (void *)obj : malloc_slow(size);
}

/*
 * A sheaf that is flushed finds objects that were freed twice, or are none, and counts them: it does
 * not know who freed them. So whoever comes by next reports it.
 */
static void report_dropped(const void *p)
{
	static nl_u64 known;
	nl_heap_t *h = nl_default->h;
	nl_u64 dropped = h ? nl_load(&h->dropped) : 0, before = nl_load(&known);

	if (nl_unlikely(dropped != before) && nl_cas(&known, before, dropped))
		nl_malloc_bad("free", p,
			      "an object freed earlier, of this size, was freed twice, or "
			      "was not the start of an object");
}

static __attribute__((noinline)) void free_slow(void *p)
{
	const char *why;
	int err = errno;

	if (!p)
		return;
	why = nl_free_slow(p);
	if (nl_unlikely(why) && !loaders_own(p))
		nl_malloc_bad("free", p, why);
	report_dropped(p);
	nl_decay_tick(nl_default);
	errno = err;
}

NL_HOT void free(void *p)
{
	if (!free_fast(p))
		free_slow(p);
}

void *calloc(size_t n, size_t size)
{
	size_t bytes;
	nl_u64 obj;

	if (nl_unlikely(__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX))
		return no_memory();
	bytes += !bytes;
	if (nl_likely(pop_default(bytes, &obj)))
		return memset((void *)obj, 0, bytes);
	return nl_kmalloc_slow(nl_default, bytes, GFP_KERNEL | __GFP_ZERO, NUMA_NO_NODE);
}

/* In place while it fits and no more than half of it would be wasted. */
static bool fits(size_t old, size_t size)
{
	return old <= NL_MAX_SIZE && size <= old && (size > old / 2 || old <= 64);
}

void *realloc(void *p, size_t size)
{
	struct nolock_heap *heap;
	const char *why;
	size_t old;
	void *q;

	if (!p)
		return malloc(size);
	if (!size) {
		free(p);
		return NULL;
	}
	if (size > PTRDIFF_MAX)
		return no_memory();
	old = nl_malloc_size(p, &why);
	if (nl_unlikely(!old)) {
		old = loaders_own(p);
		if (!old) {
			nl_free_refused(p, why);
			nl_malloc_bad("realloc", p, why);
			return no_memory();
		}
		q = malloc(size);
		if (q)
			memcpy(q, p, old < size ? old : size);
		return q;
	}
	/* Of a debugged cache: its red zones move with the size. Its slots are empty for all. */
	if (nl_unlikely(nl_load(&nl_debug_on)) && old <= NL_MAX_SIZE)
		return krealloc(p, size, GFP_KERNEL);
	if (fits(old, size))
		return p;
	heap = nolock_heap_of(p);
	if (old > NL_MAX_SIZE && size > NL_MAX_SIZE && heap->type == NL_HEAP_PRIVATE) {
		if (nl_large_resize(heap, p, size))
			return p;
		q = nl_large_move(heap, p, size);
		return q ? q : no_memory();
	}
	q = heap == nl_default ? malloc(size) :
				 nl_kmalloc_slow(heap, size, GFP_KERNEL, NUMA_NO_NODE);
	if (!q)
		return NULL;
	memcpy(q, p, old < size ? old : size);
	free(p);
	return q;
}

void *reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return no_memory();
	return realloc(p, bytes);
}

/* align is a power of two. */
static void *alloc_aligned(size_t align, size_t size)
{
	nl_u32 id;
	void *p;

	if (align <= MIN_ALIGN)
		return malloc(size);
	if (size > PTRDIFF_MAX - align)
		return no_memory();
	if (size < align && align <= NL_MAX_SIZE)
		size = align;
	if (size <= NL_MAX_SIZE && align <= NL_MAX_SIZE) {
		/* A bucket is as aligned as its size is; a power of two comes up within four. */
		for (id = nl_kmalloc_index((nl_u32)size); nl_kmalloc_size(id) % align; id++)
			;
		p = malloc(nl_kmalloc_size(id));
		if (nl_likely(!((uintptr_t)p % align)))
			return p;
		/* A heap with red zones in its buckets keeps to the powers of two. */
		free(p);
		return malloc((size_t)1 << (64 - __builtin_clzll(nl_kmalloc_size(id) - 1)));
	}
	if (align <= NL_CHUNK_SIZE)
		return malloc(size <= NL_MAX_SIZE ? NL_CHUNK_SIZE : size);
	if (!nl_default_get())
		return NULL;
	p = nl_large_alloc_aligned(nl_default, size, align);
	return p ? p : no_memory();
}

/* What is no power of two is rounded up, as glibc does. */
void *memalign(size_t align, size_t size)
{
	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	if (align > 1)
		align = (size_t)1 << (63 - __builtin_clzll(2 * align - 1));
	return alloc_aligned(align, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	if (!align || (align & (align - 1))) {
		errno = EINVAL;
		return NULL;
	}
	return alloc_aligned(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
	int err = errno;
	void *p;

	if (!align || (align & (align - 1)) || align % sizeof(void *))
		return EINVAL;
	p = alloc_aligned(align, size);
	errno = err;
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

void *valloc(size_t size)
{
	return alloc_aligned((size_t)getauxval(AT_PAGESZ), size);
}

void *pvalloc(size_t size)
{
	size_t page = (size_t)getauxval(AT_PAGESZ);

	if (size > PTRDIFF_MAX - page)
		return no_memory();
	return alloc_aligned(page, size ? (size + page - 1) / page * page : page);
}

/* The object knows its size. */
void free_sized(void *p, size_t size)
{
	(void)size;
	free(p);
}

void free_aligned_sized(void *p, size_t align, size_t size)
{
	(void)align, (void)size;
	free(p);
}

/* Names under which glibc exports the same functions. In assembler: attributes need not agree. */
#define ALIAS(name, target) __asm__(".globl " #name "\n\t.set " #name ", " #target "\n")
ALIAS(__libc_malloc, malloc);
ALIAS(__libc_free, free);
ALIAS(__libc_calloc, calloc);
ALIAS(__libc_realloc, realloc);
ALIAS(__libc_memalign, memalign);
ALIAS(__libc_valloc, valloc);
ALIAS(__libc_pvalloc, pvalloc);
ALIAS(cfree, free);
