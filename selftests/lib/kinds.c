// SPDX-License-Identifier: GPL-2.0-only
/* kinds.c - see kinds.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "kinds.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define MAP_TYPE_ARENA 33

const char *const heap_kinds[NR_HEAP_KINDS] = { "private", "memfd", "arena" };

static int memory_of_kind(unsigned int kind, nl_u64 base, size_t size)
{
	union bpf_attr attr;
	int fd;

	if (kind == NOLOCK_HEAP_MEMFD) {
		fd = memfd_create("nolock-test", MFD_CLOEXEC);
		if (fd >= 0 && ftruncate(fd, (off_t)size)) {
			close(fd);
			fd = -1;
		}
		return fd;
	}
	memset(&attr, 0, sizeof(attr));
	attr.map_type = MAP_TYPE_ARENA;
	attr.max_entries = (unsigned int)(size / NL_PAGE);
	attr.map_flags = BPF_F_MMAPABLE;
	attr.map_extra = base;
	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

struct nolock_heap *heap_of_kind(unsigned int kind, size_t size)
{
	struct nl_shape shape = {
		.base = 0x567000000000ULL + kind * (8ULL << 30),
		.size = size,
		.type = kind,
		.nr_slots = nolock_heap_default()->nr_slots,
		.nr_nodes = nl_nodes(true),
		.slot_by_cpu = 1,
		.name = heap_kinds[kind],
	};
	struct nolock_heap *heap;
	void *mem;
	int fd;

	if (kind == NOLOCK_HEAP_PRIVATE) {
		heap = nolock_heap_create(size);
		cr_assert_not_null(heap);
		return heap;
	}
	fd = memory_of_kind(kind, shape.base, size);
	if (fd < 0 && kind == NOLOCK_HEAP_ARENA && errno == EPERM)
		return NULL;
	cr_assert_geq(fd, 0, "no memory of kind %s: %s", heap_kinds[kind], strerror(errno));
	mem = mmap((void *)shape.base, size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	cr_assert_neq(mem, MAP_FAILED, "%s: %s", heap_kinds[kind], strerror(errno));
	cr_assert_eq(madvise(mem, nl_heap_fixed_size(&shape), MADV_POPULATE_WRITE), 0);
	cr_assert_eq(nl_heap_format(mem, &shape), 0);
	munmap(mem, size);
	heap = nl_heap_map(fd, kind, shape.base, size, 1);
	cr_assert_not_null(heap, "%s: %s", heap_kinds[kind], strerror(errno));
	return heap;
}
