/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trace_priv.h - inside the tracing module: the handle, and what its files have of each other.
 *
 * trace.c has the handle, the counters and the stream; trace_load.c gets programs into the kernel;
 * trace_ksyms.c names kernel addresses; trace_json.c and kernel_stat.c show it all.
 */
#ifndef NL_USER_TRACE_PRIV_H
#define NL_USER_TRACE_PRIV_H

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include "capture.h"
#include "trace.h"

#define NL_TRACE_MAPS 6

enum nl_trace_map_id {
	NL_MAP_STATE,
	NL_MAP_ROWS,
	NL_MAP_NESTED,
	NL_MAP_CPUS,
	NL_MAP_QUIET,
	NL_MAP_RING,
};

/* One attached (or refused) program, beside its public part in nl_trace.progs[]. */
struct nl_prog {
	struct bpf_link *link;
	struct bpf_object *own; /* an object of its own, closed with the link */
	int fd;			/* of the program: to read recursion_misses */
	int kind;		/* enum nlt_kind, or -1 */
	bool second;		/* of a tracepoint: its own misses are losses already counted */
	uint64_t missed_before; /* of a program that is detached by now */
};

struct nl_ksym {
	uint64_t addr;
	uint32_t name; /* offset into nl_ksyms.text */
};

struct nl_ksyms {
	struct nl_ksym *syms; /* by address */
	size_t nr;
	char *text;
	bool loaded;
};

struct nl_trace {
	unsigned int what;
	unsigned int nr_cpus; /* possible ones: an index below it can come from a program */
	unsigned int ring_bytes;
	char error[256];

	int map[NL_TRACE_MAPS];
	struct nlt_state *state;
	struct nlt_row *rows;	/* nr_cpus times NLT_ROWS */
	struct nlt_row *nested; /* NLT_ROWS */
	struct nlt_cpu *cpus;
	size_t map_len[NL_TRACE_MAPS];

	struct btf *btf; /* the kernel's */
	struct bpf_object *kmem;
	struct bpf_object *iter;
	struct bpf_object *usdt;
	struct bpf_link *caches; /* of the kmem_cache iterator; also in priv[] */
	bool tried;		 /* nl_trace_attach() has run */

	struct nl_trace_prog *progs;
	struct nl_prog *priv; /* as many */
	unsigned int nr_progs, room;

	struct ring_buffer *ring;
	int epoll, timer;
	bool streaming;
	/* the call of nl_trace_consume() that is under way */
	nl_trace_fn fn;
	void *arg;
	int fn_ret;

	struct nl_ksyms ksyms;

	/* kernel_stat.c: counters of a place when its cache came, and of caches that are gone */
	struct nlt_row *base;
	struct nlt_row gone;
};

/* trace_load.c */
void nl_trace_load_kmem(struct nl_trace *t);
void nl_trace_load_iter(struct nl_trace *t);
void nl_trace_load_functions(struct nl_trace *t);
/* Returns 0, or -errno with *why. */
int nl_trace_load_usdt(struct nl_trace *t, char *why, size_t size);
/* A new line of the table; returns its index or -ENOMEM. */
int nl_trace_add_prog(struct nl_trace *t, const char *name, const char *target, int kind);
void nl_trace_fail(struct nl_trace *t, int i, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* recursion_misses of a program, 0 if the kernel does not say */
uint64_t nl_trace_misses(const struct nl_prog *p);

/* trace_ksyms.c */
void nl_ksyms_load(struct nl_ksyms *k);
void nl_ksyms_free(struct nl_ksyms *k);
const char *nl_ksyms_find(const struct nl_ksyms *k, uint64_t addr, uint64_t *offset);

#endif /* NL_USER_TRACE_PRIV_H */
