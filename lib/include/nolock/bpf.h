/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * bpf.h - giving a shared heap to BPF programs that were built with nolock.bpf.h.
 *
 * A loader makes two calls, one before the load and one after it:
 *
 *	skel = my_bpf__open();
 *	heap = nolock_bpf_open_heap(skel->obj, "name");
 *	if (!heap || my_bpf__load(skel) || nolock_bpf_ready(skel->obj, heap))
 *		...
 *	my_bpf__attach(skel);
 *
 * The heap is the loader's, too, and nolock_heap_close()d at last; programs that stay, pinned or
 * attached, keep their arena. All calls: ordinary context, by who may load BPF programs. Needs
 * libbpf 1.1 or newer in the program that includes it; libnolock itself does not.
 */
#ifndef NOLOCK_BPF_LOADER_H
#define NOLOCK_BPF_LOADER_H

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <nolock/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- for the calls below, not to be used directly --- */

/* A 4-byte constant of the object's, before the load; NULL: it has none of that name. */
static inline char *nolock_bpf_constant(struct bpf_object *obj, const char *wanted)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, ".rodata");
	const struct btf *btf = bpf_object__btf(obj);
	int id = btf ? btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC) : -ENOENT;
	const struct btf_type *section, *var;
	const struct btf_var_secinfo *at;
	const char *name;
	size_t size = 0;
	char *data;

	if (!map || id < 0)
		return NULL;
	section = btf__type_by_id(btf, (__u32)id);
	data = (char *)bpf_map__initial_value(map, &size);
	at = btf_var_secinfos(section);
	for (int i = 0; data && i < btf_vlen(section); i++, at++) {
		var = btf__type_by_id(btf, at->type);
		name = btf__name_by_offset(btf, var->name_off);
		if (name && !strcmp(name, wanted) && at->offset + sizeof(__u32) <= size)
			return data + at->offset;
	}
	return NULL;
}

/* The version of the layout that the object's libnolock.bpf.o was built for; 0: it has none. */
static inline unsigned int nolock_bpf_layout_of(struct bpf_object *obj)
{
	const char *at = nolock_bpf_constant(obj, "nolock_bpf_layout");
	unsigned int version = 0;

	if (at)
		memcpy(&version, at, sizeof(version));
	return version;
}

/*
 * Does the object call one of the kernel's functions that have a callback run later, in a task: by a
 * work queue, or on the way back to user space? Their names differ from kernel to kernel by what
 * they end in, as does what libbpf makes of a name.
 */
static inline int nolock_bpf_calls_later(const struct bpf_object *obj)
{
	static const char *const later[] = { "bpf_wq_", "bpf_task_work_" };
	const struct btf *btf = bpf_object__btf(obj);
	const struct btf_type *t;
	const char *name;

	for (__u32 id = 1; btf && id < btf__type_cnt(btf); id++) {
		t = btf__type_by_id(btf, id);
		name = btf_is_func(t) ? btf__name_by_offset(btf, t->name_off) : NULL;
		for (size_t i = 0; name && i < sizeof(later) / sizeof(later[0]); i++)
			if (!strncmp(name, later[i], strlen(later[i])))
				return 1;
	}
	return !btf;
}

/*
 * 1 if the kernel preempts none of the object's programs: those of XDP run, and those of tc, with
 * bottom halves disabled, those of perf events in an NMI, with interrupts disabled or, of software
 * events, with preemption disabled. All others may be preempted, on one kernel or another; so are
 * what any of them leaves to a work queue or a task's return to user space, and all with PREEMPT_RT.
 * (What it leaves to a timer runs in a softirq.)
 */
static inline unsigned int nolock_bpf_is_unpreempted(struct bpf_object *obj)
{
	struct bpf_program *prog;
	struct utsname kernel;

	if (uname(&kernel) || strstr(kernel.version, "PREEMPT_RT") || nolock_bpf_calls_later(obj))
		return 0;
	bpf_object__for_each_program(prog, obj) {
		enum bpf_prog_type type = bpf_program__type(prog);

		if (bpf_program__autoload(prog) && type != BPF_PROG_TYPE_XDP &&
		    type != BPF_PROG_TYPE_SCHED_CLS && type != BPF_PROG_TYPE_SCHED_ACT &&
		    type != BPF_PROG_TYPE_PERF_EVENT)
			return 0;
	}
	return 1;
}

/* --- the calls --- */

/*
 * nolock_bpf_attach_heap - let the programs of an object allocate from a heap that is open
 * @obj: opened and not yet loaded
 * @heap: from nolock_heap_open(), of type NOLOCK_HEAP_ARENA
 * Returns 0; -ENOENT: the object was not linked with libnolock.bpf.o, or was given a heap before;
 * -EOPNOTSUPP: the heap is no arena, so BPF cannot reach it: nolockd says why when it makes one;
 * -EPROTO: the object was linked with the libnolock.bpf.o of another version: link it again; or
 * libbpf's error. The heap may be closed after the load.
 * Programs that are to be loaded are chosen, and of their type, by now: where the kernel preempts none
 * of them (XDP, tc and perf_event alone, no PREEMPT_RT), their calls need no atomic instruction.
 */
static inline int nolock_bpf_attach_heap(struct bpf_object *obj, const struct nolock_heap *heap)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "nolock_heap");
	char *unpreempted = nolock_bpf_constant(obj, "nolock_bpf_unpreempted");
	unsigned int is_unpreempted = nolock_bpf_is_unpreempted(obj);

	if (!map)
		return -ENOENT;
	if (nolock_heap_type(heap) != NOLOCK_HEAP_ARENA)
		return -EOPNOTSUPP;
	if (nolock_bpf_layout_of(obj) != nolock_heap_layout(heap))
		return -EPROTO;
	if (unpreempted)
		memcpy(unpreempted, &is_unpreempted, sizeof(is_unpreempted));
	return bpf_map__reuse_fd(map, nolock_heap_fd(heap));
}

/*
 * nolock_bpf_open_heap - nolock_heap_open() and nolock_bpf_attach_heap(): the call before the load
 * @obj: opened and not yet loaded
 * @name: as given to nolockd
 * Returns the heap, or NULL with an errno of either.
 */
static inline struct nolock_heap *nolock_bpf_open_heap(struct bpf_object *obj, const char *name)
{
	struct nolock_heap *heap = nolock_heap_open(name);
	int err;

	if (!heap)
		return NULL;
	err = nolock_bpf_attach_heap(obj, heap);
	if (!err)
		return heap;
	nolock_heap_close(heap);
	errno = -err;
	return NULL;
}

/*
 * nolock_bpf_ready - the call after the load, before the programs are attached
 * @obj: loaded
 * @heap: the one that it is to work on
 * Makes sure that the programs run on this heap and no other. Returns 0; -ENOENT: not linked with
 * libnolock.bpf.o; -ENXIO: not loaded; -EXDEV: it was given another heap.
 */
static inline int nolock_bpf_ready(struct bpf_object *obj, const struct nolock_heap *heap)
{
	struct bpf_map_info of_obj, of_heap;
	__u32 len = sizeof(of_obj);
	const struct bpf_map *map;

	/* 33 is BPF_MAP_TYPE_ARENA, the only one; its name is that of the other map now. */
	bpf_object__for_each_map(map, obj)
		if ((int)bpf_map__type(map) == 33)
			break;
	if (!map)
		return -ENOENT;
	memset(&of_obj, 0, sizeof(of_obj));
	memset(&of_heap, 0, sizeof(of_heap));
	if (bpf_obj_get_info_by_fd(bpf_map__fd(map), &of_obj, &len))
		return -ENXIO;
	len = sizeof(of_heap);
	if (bpf_obj_get_info_by_fd(nolock_heap_fd(heap), &of_heap, &len))
		return -EXDEV;
	return of_obj.id == of_heap.id ? 0 : -EXDEV;
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
