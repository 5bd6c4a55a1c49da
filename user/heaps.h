/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * heaps.h - nolockd's table of heaps: their keepers, their clients, and whether all of them live.
 */
#ifndef HEAPS_H
#define HEAPS_H

#include <stdbool.h>
#include <json-c/json.h>

#include "bpffs.h"
#include "spec.h"

struct heap;

struct heaps_options {
	struct access access;
	uint64_t watermark; /* free bytes kept in each size class */
	bool destroy_on_exit;
};

/*
 * heaps_start - adopt or make one heap, start its keeper, wait until it is served
 * @fresh: make a new heap in place of what is there
 * Returns 0, or a negative errno after one line to the user.
 */
int heaps_start(const struct heap_spec *spec, const struct heaps_options *opts, bool fresh);

/* heaps_find - the heap of that name, or NULL. */
struct heap *heaps_find(const char *name);

/* heap_why - why the heap is not served, in words; NULL when it is. */
const char *heap_why(const struct heap *h);

/* heap_may_rebuild - root, nolockd's own user and the heaps' owner may make a heap anew. */
bool heap_may_rebuild(const struct heap *h, uid_t uid);

/*
 * heap_rebuild - make a new, empty heap of that name; the answer comes on @conn when it is whole
 * Until then, and if it fails, the name means the old heap. Those who have the old one keep it, and
 * nobody gets it any more; nolockd lets go of it when the last of its clients has.
 * @force: also if the heap is served
 * Returns 0 or a negative errno: -EBUSY (it is served), -EALREADY (somebody has asked for that
 * before), -EAGAIN (its keeper is being started), -ENOSPC, -ENOMEM.
 */
int heap_rebuild(struct heap *h, bool force, int conn);

/*
 * heap_admit - make a process a client; the keeper answers on @conn
 * @pidfd: of the process; taken over, closed on failure too
 * @serial: tells this admission from others of the same index
 * Returns the client's index or a negative errno: -EUSERS, -EUCLEAN, -EAGAIN (the keeper does not
 * read), -ESRCH (the process is gone already).
 */
int heap_admit(struct heap *h, pid_t pid, int pidfd, int conn, uint64_t *serial);

/* heap_closed - the client's connection ended; @said: after a CLOSE, so it is gone. */
void heap_closed(struct heap *h, int client, uint64_t serial, bool said);

/* heap_check - have the keeper check the heap and answer on @conn. 0 or a negative errno. */
int heap_check(struct heap *h, int conn);

/* heaps_tick - what is due: pings, keepers that hang, orders that did not go out. */
void heaps_tick(void);

/* heaps_status - a JSON array of all heaps. */
json_object *heaps_status(void);

unsigned int heaps_count(void);

/* heaps_stop - end all keepers and let go of the heaps. */
void heaps_stop(void);

#endif /* HEAPS_H */
