/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * bpf.h - giving a shared heap to BPF programs that were built with nolock.bpf.h.
 *
 * Needs libbpf 1.1 or newer in the program that includes it; libnolock itself does not.
 */
#ifndef NOLOCK_BPF_LOADER_H
#define NOLOCK_BPF_LOADER_H

#include <errno.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <nolock/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * nolock_bpf_attach_heap - let the programs of an object allocate from a heap
 * @obj: opened and not yet loaded
 * @heap: from nolock_heap_open(), of type NOLOCK_HEAP_ARENA
 * Returns 0, -ENOENT (the object was not linked with libnolock.bpf.o), -EOPNOTSUPP (the heap is
 * no arena, so BPF cannot reach it), or libbpf's error. The heap may be closed after the load.
 */
static inline int nolock_bpf_attach_heap(struct bpf_object *obj, const struct nolock_heap *heap)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "nolock_heap");

	if (!map)
		return -ENOENT;
	if (nolock_heap_type(heap) != NOLOCK_HEAP_ARENA)
		return -EOPNOTSUPP;
	return bpf_map__reuse_fd(map, nolock_heap_fd(heap));
}

/*
 * nolock_bpf_can_grow - may programs that cannot sleep be linked with libnolock-grow.bpf.o?
 * Where they may not, they would not load: build the object a second time without, and load that.
 * Programs that may sleep (syscall, fentry.s, uprobe.s) grow heaps on any kernel with arenas and BTF.
 * Takes some milliseconds: it looks for bpf_arena_alloc_pages() in the kernel's BTF.
 * Returns 1, 0 (Linux before 7.0), or a negative errno (the kernel has no BTF).
 */
static inline int nolock_bpf_can_grow(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	int id;

	if (!btf)
		return -errno;
	id = btf__find_by_name_kind(btf, "bpf_arena_alloc_pages_non_sleepable", BTF_KIND_FUNC);
	btf__free(btf);
	return id > 0;
}

#ifdef __cplusplus
}
#endif

#endif /* NOLOCK_BPF_LOADER_H */
