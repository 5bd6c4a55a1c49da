/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trace.h - the tracing programs from user space: load and attach what the kernel allows, read the
 * counters, stream events.
 *
 * For one thread with one poll loop: no function waits, none is safe to call from two threads at
 * once on the same struct nl_trace. Each program stands alone: what cannot be attached is recorded
 * with its reason, and the rest goes on. libbpf's own messages are captured, not printed; the
 * process's libbpf_set_print() function is put back after each call.
 *
 *	struct nl_trace *t = nl_trace_open(NULL);
 *	nl_trace_attach(t);
 *	nl_trace_stream(t, &(struct nl_trace_filter){ .sample = 100 });
 *	poll(nl_trace_fd(t)) ... nl_trace_consume(t, on_event, arg);
 *	nl_trace_close(t);
 */
#ifndef NL_USER_TRACE_H
#define NL_USER_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "../bpf/trace.h"

struct json_object;
struct nl_trace;

/* What to attach. */
#define NL_TRACE_KMEM 1u      /* the kmem tracepoints: counters and events */
#define NL_TRACE_CACHES 2u    /* the iterators over the kernel's caches */
#define NL_TRACE_FUNCTIONS 4u /* sheaf, barn and nolock functions of the kernel */
#define NL_TRACE_USDT 8u      /* make ready for nl_trace_usdt() */
#define NL_TRACE_ALL 15u
/*
 * Also count what interrupts a tracing program: the kernel does not enter a program twice on a CPU,
 * and some events in a million are missed so. A second program on each tracepoint finds them, for
 * three times the cost. Without it they are in lost_missed.
 */
#define NL_TRACE_NESTED 16u

struct nl_trace_opts {
	size_t sz;		 /* sizeof(struct nl_trace_opts): for growth */
	unsigned int what;	 /* 0: NL_TRACE_ALL */
	unsigned int ring_bytes; /* of the event stream; 0: 4 MiB; made a power of 2 of pages */
};

/* One program, or one function or probe that was asked for. */
struct nl_trace_prog {
	char name[32];
	char target[160]; /* "tp_btf/kfree", "fentry/kfree_nolock", "usdt/PATH:nolock:alloc_slab" */
	bool attached;
	char reason[200]; /* why not */
};

struct nl_trace_counts {
	uint64_t seen; /* events of all kinds; lost_missed is not in it */
	uint64_t kinds[NLT_NR_KINDS];
	uint64_t nested;      /* of seen: in an interrupt within a tracing program */
	uint64_t streamed;    /* events put into the ring */
	uint64_t lost;	      /* the sum of these: */
	uint64_t lost_full;   /* seen, but the table of caches was full */
	uint64_t lost_missed; /* the kernel could not enter a program: recursion_misses */
	uint64_t lost_ring;   /* the ring was full */
};

struct nl_trace_filter {
	uint64_t kinds;	      /* bit per enum nlt_kind; 0: all */
	unsigned int sample;  /* one of this many on each CPU; 0: all */
	pid_t pid;	      /* 0: any */
	char cache[NLT_NAME]; /* "": any; a name, or a prefix and '*' */
};

/*
 * nl_trace_open - make the maps; attaches nothing yet
 * Returns NULL only for want of memory (errno ENOMEM). Without the right to use BPF, or without BTF,
 * the handle is good, nl_trace_attach() attaches nothing and nl_trace_error() says why.
 */
struct nl_trace *nl_trace_open(const struct nl_trace_opts *opts);

/* nl_trace_attach - load and attach all that opts.what names. Returns how many are attached. */
int nl_trace_attach(struct nl_trace *t);

/* nl_trace_detach - take every program off; counters stay readable. */
void nl_trace_detach(struct nl_trace *t);

/* nl_trace_close - detach and free all. NULL is fine. */
void nl_trace_close(struct nl_trace *t);

/* nl_trace_error - one line why nothing at all can be traced, or NULL. */
const char *nl_trace_error(const struct nl_trace *t);

/* nl_trace_nr_progs, nl_trace_prog - the table; a pointer holds until the next attach or usdt call. */
unsigned int nl_trace_nr_progs(const struct nl_trace *t);
const struct nl_trace_prog *nl_trace_prog(const struct nl_trace *t, unsigned int i);

/*
 * nl_trace_usdt - attach to libnolock's probes in a file
 * @path: a libnolock.so, or a program that was linked with libnolock.a
 * @pid: of one process, or -1 for all that run the file now or later
 * Returns how many probes are attached, or -errno: -ENOENT (no such file or no probe in it),
 * -EEXIST (already attached so), -EPERM, -ENOEXEC (no ELF file).
 */
int nl_trace_usdt(struct nl_trace *t, const char *path, pid_t pid);

/* nl_trace_usdt_detach - undo it. Returns 0 or -ENOENT. */
int nl_trace_usdt_detach(struct nl_trace *t, const char *path, pid_t pid);

/* nl_trace_counts - what was seen and lost since nl_trace_open(). Returns 0 or -errno. */
int nl_trace_counts(const struct nl_trace *t, struct nl_trace_counts *out);

/*
 * nl_trace_stream - start the stream, change its filter, or stop it (@filter NULL)
 * Events of this process stay out; see nl_trace_quiet() for others that read along.
 * What lies in the ring stays there until it is consumed.
 * Returns 0, -EINVAL (a '*' that is not last), -ENODEV (nothing is attached) or -errno.
 */
int nl_trace_stream(struct nl_trace *t, const struct nl_trace_filter *filter);

/* nl_trace_quiet - keep a process's events out of the stream (or not any more). At most 256. */
int nl_trace_quiet(struct nl_trace *t, pid_t pid, bool quiet);

/*
 * nl_trace_fd - poll it for reading while the stream is on; -1 if there is no stream to be had
 * Readable when a quarter of the ring is full and every 100 ms: each event does not wake the reader.
 */
int nl_trace_fd(const struct nl_trace *t);

/*
 * nl_trace_consume - hand every event that waits to @fn, in order; does not wait
 * @fn: returns 0 to go on. The event is only valid during the call.
 * Returns the number of events, or what @fn returned.
 */
typedef int (*nl_trace_fn)(void *arg, const struct nlt_event *event);
int nl_trace_consume(struct nl_trace *t, nl_trace_fn fn, void *arg);

/* nl_trace_kind_name - "kmalloc", "sheaf_refill", ...; "?" for what is none. */
const char *nl_trace_kind_name(unsigned int kind);

/* nl_trace_kind - the kind of a name, or -1. */
int nl_trace_kind(const char *name);

/* JSON: the caller puts the object. NULL for want of memory. */
struct json_object *nl_trace_event_json(struct nl_trace *t, const struct nlt_event *event);
struct json_object *nl_trace_progs_json(const struct nl_trace *t);
struct json_object *nl_trace_counts_json(const struct nl_trace_counts *counts);

/*
 * nl_trace_symbol - "function+0x12" for a kernel address, or "" where symbols are hidden
 * The text lies in @buf.
 */
const char *nl_trace_symbol(struct nl_trace *t, uint64_t addr, char *buf, size_t size);

#endif /* NL_USER_TRACE_H */
