// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * trace_iter.bpf.c - one binary record for each slab cache of the kernel, and one for each BPF
 * program.
 *
 * What SLUB keeps differs between kernels: before 6.18 there are no sheaves, since 7.1 a barn hangs
 * off per_node[] and not off struct kmem_cache_node. Each field is asked for by CO-RE, and the
 * record says which ones the kernel had.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "trace.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* As declared by the various kernels; what is after ___ is cut off when CO-RE looks a name up. */
struct kmem_cache_node___nlt {
	unsigned long nr_partial;
	atomic_long_t nr_slabs;
	atomic_long_t total_objects;
	struct node_barn___nlt *barn;
} __attribute__((preserve_access_index));

struct node_barn___nlt {
	unsigned int nr_full;
	unsigned int nr_empty;
} __attribute__((preserve_access_index));

struct slab_sheaf___nlt {
	unsigned int size;
} __attribute__((preserve_access_index));

struct slub_percpu_sheaves___nlt {
	struct slab_sheaf___nlt *main;
	struct slab_sheaf___nlt *spare;
	struct slab_sheaf___nlt *rcu_free;
} __attribute__((preserve_access_index));

struct kmem_cache_per_node_ptrs___nlt {
	struct node_barn___nlt *barn;
	struct kmem_cache_node___nlt *node;
} __attribute__((preserve_access_index));

struct bpf_array___nlt {
	void *pptrs[1];
} __attribute__((preserve_access_index));

struct kmem_cache___nlt {
	unsigned int sheaf_capacity;
	struct slub_percpu_sheaves___nlt *cpu_sheaves;
	struct kmem_cache_node___nlt *node[1];
	struct kmem_cache_per_node_ptrs___nlt per_node[1];
} __attribute__((preserve_access_index));

/* Given before loading. */
const volatile __u32 nlt_nr_nodes = 1;
const volatile __u32 nlt_nr_cpus = 1;
#define NLT_MAX_NODES 1024

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlt_state);
} nlt_state SEC(".maps");

struct nlt_walk {
	struct nlt_cache *out;
	struct nlt_state *st;
	struct kmem_cache___nlt *s;
};

/* One record, built here: it is too large for the stack beside the rest. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlt_cache);
} nlt_record SEC(".maps");

/* A pointer as a number, by way of @word: the verifier does no sums with pointers that it knows. */
static __always_inline __u64 nlt_number(volatile __u64 *word, void *p)
{
	*word = (__u64)p;
	return *word;
}

/*
 * Where each CPU's area lies, to be added to a per-CPU pointer. The kernel's own table of that is
 * often not in kallsyms, but a per-CPU array map has both: the pointer, and its element's address.
 */
static long nlt_note_cpu(__u32 cpu, void *arg)
{
	struct nlt_walk *walk = arg;
	__u64 map, elem, pptr = 0;
	__u32 zero = 0;

	if (cpu >= NLT_MAX_CPUS)
		return 1;
	map = nlt_number(&walk->out->ptr, &nlt_record);
	elem = nlt_number(&walk->out->ptr, bpf_map_lookup_percpu_elem(&nlt_record, &zero, cpu));
	map += bpf_core_field_offset(struct bpf_array___nlt, pptrs);
	if (!elem || bpf_probe_read_kernel(&pptr, sizeof(pptr), (void *)map))
		elem = pptr = 0;
	walk->st->cpu_off[cpu] = elem - pptr;
	return 0;
}

/* Once for all walks. Returns whether they are known. */
static __always_inline bool nlt_note_cpus(struct nlt_walk *walk)
{
	if (!walk->st->cpu_off[0])
		bpf_loop(nlt_nr_cpus, nlt_note_cpu, walk, 0);
	return walk->st->cpu_off[0] != 0;
}

static __always_inline void nlt_add_barn(struct nlt_cache *out, struct node_barn___nlt *barn)
{
	if (!barn)
		return;
	out->nr_barns++;
	out->barn_full += BPF_CORE_READ(barn, nr_full);
	out->barn_empty += BPF_CORE_READ(barn, nr_empty);
}

static long nlt_one_node(__u32 nid, void *arg)
{
	struct nlt_walk *walk = arg;
	struct nlt_cache *out = walk->out;
	struct kmem_cache___nlt *s = walk->s;
	struct kmem_cache_node___nlt *n = NULL;
	struct node_barn___nlt *barn = NULL;

	if (bpf_core_field_exists(s->per_node)) {
		struct kmem_cache_per_node_ptrs___nlt *p;

		p = (void *)s + bpf_core_field_offset(s->per_node) +
		    (__u64)nid * bpf_core_type_size(struct kmem_cache_per_node_ptrs___nlt);
		n = BPF_CORE_READ(p, node);
		barn = BPF_CORE_READ(p, barn);
	} else if (bpf_core_field_exists(s->node)) {
		void *p = (void *)s + bpf_core_field_offset(s->node) + (__u64)nid * sizeof(n);

		if (bpf_probe_read_kernel(&n, sizeof(n), p))
			n = NULL;
		if (n && bpf_core_field_exists(n->barn))
			barn = BPF_CORE_READ(n, barn);
	}
	nlt_add_barn(out, barn);
	if (!n)
		return 0;
	out->nr_nodes++;
	out->nr_partial += BPF_CORE_READ(n, nr_partial);
	if (bpf_core_field_exists(n->nr_slabs)) {
		out->nr_slabs += BPF_CORE_READ(n, nr_slabs.counter);
		out->objects += BPF_CORE_READ(n, total_objects.counter);
	}
	return 0;
}

static long nlt_one_cpu(__u32 cpu, void *arg)
{
	struct nlt_walk *walk = arg;
	struct nlt_cache *out = walk->out;
	struct kmem_cache___nlt *s = walk->s;
	struct slub_percpu_sheaves___nlt *pcs = BPF_CORE_READ(s, cpu_sheaves);
	struct slab_sheaf___nlt *sheaf;

	if (cpu >= NLT_MAX_CPUS || !walk->st->cpu_off[cpu])
		return 1;
	pcs = (void *)pcs + walk->st->cpu_off[cpu];
	/* another CPU may swap them meanwhile: each is read once, and none is followed further */
	sheaf = BPF_CORE_READ(pcs, main);
	if (sheaf)
		out->main_objs += BPF_CORE_READ(sheaf, size);
	sheaf = BPF_CORE_READ(pcs, spare);
	if (sheaf) {
		out->nr_spare++;
		out->spare_objs += BPF_CORE_READ(sheaf, size);
	}
	sheaf = BPF_CORE_READ(pcs, rcu_free);
	if (sheaf)
		out->rcu_objs += BPF_CORE_READ(sheaf, size);
	return 0;
}

SEC("iter/kmem_cache")
int nlt_caches(struct bpf_iter__kmem_cache *ctx)
{
	struct kmem_cache *s = ctx->s;
	struct kmem_cache___nlt *v = (void *)s;
	struct nlt_walk walk;
	struct nlt_cache *out;
	__u32 zero = 0, oo;

	if (!s)
		return 0;
	walk.s = v;
	walk.st = bpf_map_lookup_elem(&nlt_state, &zero);
	walk.out = out = bpf_map_lookup_elem(&nlt_record, &zero);
	if (!out || !walk.st)
		return 0;
	nlt_note_cpus(&walk);
	__builtin_memset(out, 0, sizeof(*out));
	out->ptr = (__u64)s;
	bpf_probe_read_kernel_str(out->name, sizeof(out->name), BPF_CORE_READ(s, name));
	out->object_size = BPF_CORE_READ(s, object_size);
	out->size = BPF_CORE_READ(s, size);
	out->align = BPF_CORE_READ(s, align);
	out->flags = (__u64)BPF_CORE_READ(s, flags);
	out->refcount = BPF_CORE_READ(s, refcount);
	oo = BPF_CORE_READ(s, oo.x); /* order in the upper half, objects in the lower */
	out->objs_per_slab = oo & 0xffff;
	out->order = oo >> 16;

	if (bpf_core_field_exists(v->sheaf_capacity)) {
		out->sheaf_capacity = BPF_CORE_READ(v, sheaf_capacity);
		out->has |= NLT_HAS_SHEAVES;
	}
	if (bpf_core_type_exists(struct kmem_cache_node___nlt)) {
		bpf_loop(nlt_nr_nodes < NLT_MAX_NODES ? nlt_nr_nodes : NLT_MAX_NODES, nlt_one_node,
			 &walk, 0);
		out->has |= NLT_HAS_NODES;
		if (bpf_core_field_exists(((struct kmem_cache_node___nlt *)0)->nr_slabs))
			out->has |= NLT_HAS_SLABS;
		if (bpf_core_type_exists(struct node_barn___nlt))
			out->has |= NLT_HAS_BARN;
	}
	if (walk.st->cpu_off[0] && bpf_core_field_exists(v->cpu_sheaves)) {
		if (BPF_CORE_READ(v, cpu_sheaves))
			bpf_loop(nlt_nr_cpus, nlt_one_cpu, &walk, 0);
		out->has |= NLT_HAS_PCS;
	}
	bpf_seq_write(ctx->meta->seq, out, sizeof(*out));
	return 0;
}

/* Also notes where each CPU's area lies: user space cannot read it. */
SEC("iter/bpf_prog")
int nlt_progs(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_prog *prog = ctx->prog;
	struct nlt_prog out = {};
	struct nlt_walk walk;
	__u32 zero = 0;

	if (!prog)
		return 0;
	walk.s = NULL;
	walk.st = bpf_map_lookup_elem(&nlt_state, &zero);
	walk.out = bpf_map_lookup_elem(&nlt_record, &zero);
	if (!walk.st || !walk.out)
		return 0;
	nlt_note_cpus(&walk);
	out.id = BPF_CORE_READ(prog, aux, id);
	out.active = (__u64)BPF_CORE_READ(prog, active);
	bpf_seq_write(ctx->meta->seq, &out, sizeof(out));
	return 0;
}
