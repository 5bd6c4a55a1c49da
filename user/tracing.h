/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tracing.h - nolockd's side of the tracing programs: on from start to stop, one stream of events
 * for one reader at a time.
 */
#ifndef TRACING_H
#define TRACING_H

#include <stdbool.h>
#include <stddef.h>
#include <json-c/json.h>

#include "proto.h"

struct tracing_options {
	bool off;
	bool nested;	      /* also what interrupts a tracing program */
	size_t ring_bytes;    /* of the event stream; 0: the default */
	const char *usdt[16]; /* files with libnolock's probes */
	unsigned int nr_usdt;
};

/* Where the lines of so many events go. Never waits. */
typedef void (*tracing_sink)(void *arg, const char *lines, size_t len, unsigned int events);

enum tracing_outcome {
	TRACING_ON,	 /* as asked for: also switched off */
	TRACING_IN_PART, /* files of --usdt have no probes to attach to */
	TRACING_REFUSED, /* nothing is traced */
};

/*
 * tracing_start - attach what can be; what cannot is in the status. Says one line, and one for
 * each file of --usdt that has nothing to attach to.
 */
enum tracing_outcome tracing_start(const struct tracing_options *opts);
void tracing_stop(void);

/* tracing_status - attached and missing programs, counts. */
json_object *tracing_status(void);

/* tracing_kernel - the kernel's caches; NULL with *why when they cannot be read. */
json_object *tracing_kernel(const char **why);

/*
 * tracing_stream - send events as the request asks to @sink, as JSON lines, until
 * tracing_unstream()
 * Returns 0, -EBUSY (somebody else streams), -ENODEV with *why, or another negative errno.
 */
int tracing_stream(const struct nl_request *req, pid_t reader, tracing_sink sink, void *arg,
		   const char **why);
void tracing_unstream(void);

#endif /* TRACING_H */
