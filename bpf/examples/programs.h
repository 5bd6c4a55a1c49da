/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * programs.h - what each process beside does with its programs: gives them the heap, loads them,
 * attaches one to all system calls. Whatever fails ends the process, after a message.
 *
 *	open_heap(), then what is wanted in the heap and in the skeleton, then start_programs()
 */
#ifndef EXAMPLES_PROGRAMS_H
#define EXAMPLES_PROGRAMS_H

#include <err.h>
#include <bpf/libbpf.h>
#include <nolock/bpf.h>

/* The heap whose name is the first argument, or "examples": of the programs of @obj from now on. */
static inline struct nolock_heap *open_heap(struct bpf_object *obj, int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "examples";
	struct nolock_heap *heap = nolock_bpf_open_heap(obj, name);

	if (!heap)
		err(1, "cannot give the programs heap %s: nolockd must be there", name);
	return heap;
}

/* Returns the link of @on_call, which is for skel->links. */
static inline struct bpf_link *start_programs(struct bpf_object_skeleton *skeleton,
					      struct nolock_heap *heap,
					      const struct bpf_program *on_call)
{
	struct bpf_link *link;

	if (bpf_object__load_skeleton(skeleton))
		err(1, "cannot load the programs (root?)");
	if (nolock_bpf_ready(*skeleton->obj, heap))
		errx(1, "the programs are on another heap");
	link = bpf_program__attach(on_call);
	if (!link)
		err(1, "cannot attach to the system calls");
	return link;
}

#endif /* EXAMPLES_PROGRAMS_H */
