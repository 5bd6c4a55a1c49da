// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_nolock_basic.c - what each call promises to a BPF program: sizes, flags, zeroing, alignment,
 * caches, frees of what is no object, and programs whose heap is none.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <nolock/bpf.h>
#include "nolock_addr.skel.h"
#include "nolock_help.h"

struct env {
	struct nolock_heap *heap;
	struct nolock_call_bpf *s;
};

static struct env start(unsigned int groups)
{
	struct env e = { .heap = heap_new(0, groups) };

	pin(0);
	e.s = call_load(nolock_heap_fd(e.heap));
	return e;
}

static nl_u64 alloc(struct env *e, nl_u64 size)
{
	return call1(e->s, CALL_ALLOC, size, 0, NUMA_NO_NODE);
}

static void free_it(struct env *e, nl_u64 obj)
{
	call1(e->s, CALL_FREE, obj, 0, 0);
}

static unsigned long refused(struct env *e)
{
	struct nolock_heap_report r;

	nolock_heap_check(e->heap, &r);
	return r.refused;
}

Test(nolock_basic, every_size)
{
	struct env e = start(4);
	unsigned long n = 0;

	for (unsigned int size = 1; size <= KMALLOC_MAX_CACHE_SIZE; size++, n++) {
		nl_u64 obj = alloc(&e, size);
		nl_u64 pow = size & (size - 1) ? 16 : size < 16 ? 16 : size;

		cr_assert_neq(obj, 0, "size %u", size);
		cr_assert_eq(nolock_heap_of((void *)obj), e.heap);
		cr_assert_geq(ksize((void *)obj), size);
		cr_assert_leq(ksize((void *)obj), 16 + size + size / 4, "size %u in %zu", size,
			      ksize((void *)obj));
		cr_assert_eq(obj % pow, 0, "size %u at %#llx", size, (unsigned long long)obj);
		/* User space writes all of it. */
		memset((void *)obj, 0xa5, ksize((void *)obj));
		if (size & 1)
			kfree_nolock((void *)obj);
		else
			free_it(&e, obj);
	}
	heap_whole(e.heap, 0, "after every size");
	figure("every_size: %lu sizes, aligned, whole; freed on either side", n);
}

Test(nolock_basic, alignment_of_buckets)
{
	struct env e = start(4);
	nl_u64 obj[64];

	for (unsigned int id = 0; id < NL_NR_KMALLOC; id++) {
		nl_cache_t *c = nl_cache(e.heap->h, id);
		nl_u32 align = c->size & -c->size;

		for (unsigned int i = 0; i < 64; i++) {
			obj[i] = alloc(&e, c->size);
			cr_assert(obj[i]);
			cr_assert_eq(obj[i] % align, 0, "%s: %#llx", c->name,
				     (unsigned long long)obj[i]);
			memset((void *)obj[i], (int)i, c->size);
		}
		for (unsigned int i = 0; i < 64; i++) {
			const unsigned char *p = (void *)obj[i];

			for (unsigned int b = 0; b < c->size; b++)
				cr_assert_eq(p[b], i, "%s: two objects overlap", c->name);
			free_it(&e, obj[i]);
		}
	}
	heap_whole(e.heap, 0, "after every bucket");
}

Test(nolock_basic, odd_sizes_and_flags)
{
	struct env e = start(2);
	static const nl_u64 too_large[] = {
		32769, 65536, 1ULL << 31, 1ULL << 32, (1ULL << 32) + 64, 1ULL << 63, ~0ULL
	};
	static const nl_u32 good[] = { 0, __GFP_ZERO, __GFP_ACCOUNT, __GFP_NOWARN,
				       __GFP_ZERO | __GFP_ACCOUNT | __GFP_NOWARN };
	nl_u64 obj;

	cr_assert_eq(alloc(&e, 0), (nl_u64)ZERO_SIZE_PTR);
	free_it(&e, (nl_u64)ZERO_SIZE_PTR);
	for (unsigned int i = 0; i < sizeof(too_large) / sizeof(too_large[0]); i++)
		cr_assert_eq(alloc(&e, too_large[i]), 0, "size %#llx",
			     (unsigned long long)too_large[i]);
	for (unsigned int bit = 0; bit < 32; bit++) {
		nl_u32 flags = 1u << bit;

		obj = call1(e.s, CALL_ALLOC, 64, flags, NUMA_NO_NODE);
		cr_assert_eq(obj != 0, (flags & NOLOCK_GFP_NOLOCK_MASK) != 0, "flags %#x", flags);
		free_it(&e, obj);
	}
	for (unsigned int i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		obj = call1(e.s, CALL_ALLOC, 64, good[i], 0);
		cr_assert(obj, "flags %#x", good[i]);
		free_it(&e, obj);
	}
	cr_assert_eq(call1(e.s, CALL_ALLOC, 64, 0, 1), 0);
	cr_assert_eq(refused(&e), 0);
	heap_whole(e.heap, 0, "after odd sizes and flags");
}

static void expect_zero_then_spoil(nl_u64 obj, size_t size)
{
	unsigned char *p = (unsigned char *)obj;

	cr_assert(obj);
	for (size_t i = 0; i < size; i++)
		cr_assert_eq(p[i], 0, "byte %zu of %zu is %#x", i, size, p[i]);
	memset(p, 0xff, ksize(p));
}

Test(nolock_basic, zeroing)
{
	struct env e = start(4);
	unsigned long n = 0;

	for (unsigned int size = 1; size <= KMALLOC_MAX_CACHE_SIZE; size += size < 512 ? 1 : 509) {
		/* The second time round the object was used before. */
		for (unsigned int turn = 0; turn < 2; turn++, n++) {
			nl_u64 obj = call1(e.s, turn ? CALL_ZALLOC : CALL_ALLOC, size,
					   turn ? 0 : __GFP_ZERO, NUMA_NO_NODE);

			expect_zero_then_spoil(obj, size);
			free_it(&e, obj);
		}
	}
	heap_whole(e.heap, 0, "after zeroing");
	figure("zeroing: %lu objects were zero", n);
}

Test(nolock_basic, caches)
{
	struct env e = start(4);
	static const unsigned int sizes[] = { 1, 16, 24, 40, 100, 192, 500, 1000, 4096, 32768 };
	unsigned long before, n = 0;

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct kmem_cache_args args = { .align = i & 1 ? 64 : 0,
						.sheaf_capacity = i & 2 ? 3 : 0 };
		struct kmem_cache *s =
			nolock_heap_kmem_cache_create(e.heap, "basic", sizes[i], &args, 0);
		nl_u64 obj[40];

		cr_assert(s);
		for (unsigned int k = 0; k < 40; k++, n++) {
			obj[k] = call1(e.s, CALL_CACHE_ALLOC, (nl_u64)s, k & 1 ? __GFP_ZERO : 0,
				       NUMA_NO_NODE);
			cr_assert(obj[k]);
			if (args.align)
				cr_assert_eq(obj[k] % args.align, 0);
			cr_assert_geq(ksize((void *)obj[k]), sizes[i]);
			if (k & 1)
				expect_zero_then_spoil(obj[k], sizes[i]);
			memset((void *)obj[k], (int)k, sizes[i]);
		}
		for (unsigned int k = 0; k < 40; k++) {
			const unsigned char *p = (void *)obj[k];
			struct nolock_call c = { .arg = (nl_u64)s,
						 .obj = obj[k],
						 .op = CALL_CACHE_FREE };
			LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));

			for (unsigned int b = 0; b < sizes[i]; b++)
				cr_assert_eq(p[b], k);
			/* Either side, either call. */
			if (k % 3 == 0)
				kmem_cache_free(s, (void *)obj[k]);
			else if (k % 3 == 1)
				free_it(&e, obj[k]);
			else
				cr_assert_eq(bpf_prog_test_run_opts(
						     bpf_program__fd(e.s->progs.call), &run),
					     0);
		}
		cr_assert_eq(kmem_cache_destroy(s), 0);
		/* It is no cache any more. */
		cr_assert_eq(call1(e.s, CALL_CACHE_ALLOC, (nl_u64)s, 0, NUMA_NO_NODE), 0);
	}
	before = refused(&e);
	cr_assert_eq(call1(e.s, CALL_CACHE_ALLOC, 0, 0, NUMA_NO_NODE), 0);
	cr_assert_eq(refused(&e), before);
	heap_whole(e.heap, 0, "after the caches");
	figure("caches: %lu objects of 10 caches", n);
}

/* What is no object is refused and counted, each time; NULL and ZERO_SIZE_PTR are ignored. */
Test(nolock_basic, frees_of_garbage)
{
	struct env e = start(4);
	nl_u64 obj = alloc(&e, 1000), large, base = arena_base(0), rng = 88172645463325252ULL;
	void *mine = malloc(64);
	unsigned long n = 0;
	nl_u32 first = e.heap->h->first_chunk << NL_CHUNK_SHIFT;
	nl_u64 bad[] = {
		17,
		4096,
		base + 4096,
		base + e.heap->h->off_sheaf,
		base + first - 16,
		obj + 1,
		obj + 8,
		obj + 16,
		obj + 999,
		obj - 1,
		obj - 16,
		base + e.heap->h->size - 16,
		base + ((nl_u64)e.heap->h->nr_open << 22),
		/* Foreign, with the low half of an object. */
		(nl_u32)obj | 0x7fff00000000ULL,
		(nl_u32)obj | 0xffff888000000000ULL,
		(nl_u32)obj | (base + (4ULL << 30)),
	};

	cr_assert(obj && mine);
	free_it(&e, 0);
	free_it(&e, (nl_u64)ZERO_SIZE_PTR);
	cr_assert_eq(refused(&e), 0);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		free_it(&e, bad[i]);
		cr_assert_eq(refused(&e), ++n, "a free of %#llx", (unsigned long long)bad[i]);
		heap_whole(e.heap, 1, "after a bad free");
	}
	free_it(&e, (nl_u64)mine);
	cr_assert_eq(refused(&e), ++n, "a free of %p", mine);
	/* Inside of a large object, and that twice. */
	large = (nl_u64)nolock_heap_kmalloc(e.heap, 200000, GFP_KERNEL);
	cr_assert(large);
	free_it(&e, large + 65536);
	free_it(&e, large + 16);
	cr_assert_eq(refused(&e), n += 2);
	free_it(&e, large);
	cr_assert_eq(refused(&e), n);
	free_it(&e, large);
	cr_assert_eq(refused(&e), ++n);
	/* Anywhere at random: an object was allocated nowhere but at obj. */
	for (unsigned int i = 0; i < 3000; i++) {
		rng ^= rng << 13;
		rng ^= rng >> 7;
		rng ^= rng << 17;
		large = i & 1 ? rng : base + (rng & 0x7ffffff);
		if (large - obj < 1024 || (nl_u32)large <= 16)
			continue;
		/* A free neighbour of obj that is freed is a double free: a test of its own. */
		if ((nl_u32)large >> NL_CHUNK_SHIFT == (nl_u32)obj >> NL_CHUNK_SHIFT)
			continue;
		free_it(&e, large);
		cr_assert_eq(refused(&e), ++n, "a free of %#llx", (unsigned long long)large);
	}
	cr_assert_eq(((struct nl_heap *)e.heap->h)->nr_large, 0);
	heap_whole(e.heap, 1, "after garbage");
	/* The low half alone, which is all that a BPF program may be left with. */
	free_it(&e, (nl_u32)obj);
	cr_assert_eq(refused(&e), n);
	free(mine);
	heap_whole(e.heap, 0, "at the end");
	figure("frees_of_garbage: %lu refused and counted", n);
}

/*
 * An object that is freed twice sits in sheaves twice until they are flushed, at the latest then
 * the second one is dropped and counted; from then on the books are right again.
 */
Test(nolock_basic, double_frees)
{
	struct env e = start(4);
	static const unsigned int sizes[] = { 16, 64, 1000, 4096, 32768 };
	unsigned long n = 0;

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		nl_u64 obj = alloc(&e, sizes[i]);

		cr_assert(obj);
		free_it(&e, obj);
		free_it(&e, obj);
		nl_heap_shrink(e.heap);
		cr_assert_eq(refused(&e), ++n, "%u bytes", sizes[i]);
		heap_whole(e.heap, 0, "after a double free");
		/* In the bitmap by now, or its slab is gone: seen at once. */
		obj = alloc(&e, sizes[i]);
		free_it(&e, obj);
		heap_whole(e.heap, 0, "after another pair");
	}
	figure("double_frees: %lu, all counted", n);
}

Test(nolock_basic, large_objects_of_user_space)
{
	struct env e = start(16);
	unsigned long n = 0;

	for (size_t size = 32769; size <= 20u << 20; size = size * 3 / 2) {
		char *p = nolock_heap_kmalloc(e.heap, size, GFP_KERNEL);

		cr_assert(p, "%zu bytes", size);
		p[0] = p[size - 1] = 1;
		free_it(&e, (nl_u64)p);
		n++;
		heap_whole(e.heap, 0, "after a large object");
		cr_assert_eq(e.heap->h->nr_large, 0);
	}
	cr_assert_eq(refused(&e), 0);
	figure("large_objects_of_user_space: %lu freed by BPF", n);
}

/* A program that was given an arena without a heap in it, or no arena at all. */
Test(nolock_basic, no_heap)
{
	int fd = arena_make(1);
	struct nolock_call_bpf *s = call_load(fd);

	for (unsigned int size = 0; size <= 65536; size = size ? size * 2 : 1) {
		cr_assert_eq(call1(s, CALL_ALLOC, size, 0, NUMA_NO_NODE), 0);
		cr_assert_eq(call1(s, CALL_ZALLOC, size, 0, NUMA_NO_NODE), 0);
	}
	cr_assert_eq(call1(s, CALL_CACHE_ALLOC, arena_base(1) + 4096, 0, NUMA_NO_NODE), 0);
	call1(s, CALL_FREE, arena_base(1) + (1 << 20), 0, 0);
	call1(s, CALL_FREE, 0, 0, 0);
	nolock_call_bpf__destroy(s);
	close(fd);
}

/*
 * Without nolock_bpf_attach_heap(): an arena of one page. libbpf 1.1 gives it no address, and the
 * kernel refuses the programs; a later libbpf does, and then every allocation is NULL.
 */
Test(nolock_basic, no_heap_attached)
{
	struct nolock_call_bpf *s = nolock_call_bpf__open();
	int err;

	cr_assert(s);
	libbpf_set_print(NULL);
	err = nolock_call_bpf__load(s);
	if (err) {
		cr_assert_eq(err, -EINVAL);
		figure("no_heap_attached: the kernel refuses the programs");
	} else {
		cr_assert_eq(call1(s, CALL_ALLOC, 64, 0, NUMA_NO_NODE), 0);
		cr_assert_eq(call1(s, CALL_CACHE_ALLOC, 4096, 0, NUMA_NO_NODE), 0);
		call1(s, CALL_FREE, 1 << 20, 0, 0);
		figure("no_heap_attached: every allocation is NULL");
	}
	nolock_call_bpf__destroy(s);
}

static void retarget(struct nolock_call_bpf *s, nl_u32 version)
{
	struct bpf_map *rodata = bpf_object__find_map_by_name(s->obj, ".rodata");

	cr_assert(rodata);
	cr_assert_eq(nolock_bpf_layout_of(s->obj), NL_VERSION);
	s->rodata->nolock_bpf_layout = version;
	cr_assert_eq(nolock_bpf_layout_of(s->obj), version);
}

/* The two calls of a loader, <nolock/bpf.h>; the name is nolockd's, so bpf/examples has that part. */
Test(nolock_basic, loader)
{
	struct nolock_heap *heap = heap_new(0, 4), *other = heap_new(1, 4);
	struct nolock_call_bpf *s = nolock_call_bpf__open(), *t = nolock_call_bpf__open();
	struct nolock_addr_bpf *none = nolock_addr_bpf__open();

	cr_assert(s && t && none);
	libbpf_set_print(NULL);
	cr_assert_eq(nolock_bpf_attach_heap(none->obj, heap), -ENOENT, "not linked with it");
	cr_assert_eq(nolock_bpf_attach_heap(s->obj, nolock_heap_default()), -EOPNOTSUPP);
	retarget(s, NL_VERSION + 1);
	cr_assert_eq(nolock_bpf_attach_heap(s->obj, heap), -EPROTO, "another layout");
	s->rodata->nolock_bpf_layout = NL_VERSION;
	cr_assert_eq(nolock_bpf_ready(s->obj, heap), -ENXIO, "not loaded");
	cr_assert_eq(nolock_bpf_attach_heap(s->obj, heap), 0);
	cr_assert_eq(nolock_call_bpf__load(s), 0);
	cr_assert_eq(nolock_bpf_ready(s->obj, heap), 0);
	cr_assert_eq(nolock_bpf_ready(s->obj, other), -EXDEV);
	cr_assert_eq(nolock_bpf_attach_heap(s->obj, other), -ENOENT, "given before");
	errno = 0;
	setenv("NOLOCK_SOCKET", "/nonexistent", 1);
	cr_assert_null(nolock_bpf_open_heap(t->obj, "nobody"));
	cr_assert_eq(errno, ECONNREFUSED, "%s", strerror(errno));
	call1(s, CALL_FREE, call1(s, CALL_ALLOC, 64, 0, NUMA_NO_NODE), 0, 0);
	heap_whole(heap, 0, "loader");
	nolock_call_bpf__destroy(s);
	nolock_call_bpf__destroy(t);
	nolock_addr_bpf__destroy(none);
}
