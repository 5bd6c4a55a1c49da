/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * loop.h - nolockd's event loop: one thread, one epoll, a callback for each descriptor.
 *
 * A callback may remove and free any watch, its own included: one event is taken at a time.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

struct watch {
	int fd;
	void (*ready)(struct watch *w, uint32_t events);
};

#define watch_owner(w, type, member) ((type *)((char *)(w)-offsetof(type, member)))

/* Each returns 0 or a negative errno. */
int loop_init(void);
int loop_add(struct watch *w, uint32_t events);
int loop_change(struct watch *w, uint32_t events);
void loop_remove(struct watch *w);

/* Wait for up to timeout_ms, call one callback. Returns 0 or a negative errno. */
int loop_once(int timeout_ms);

void loop_exit(void);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t now_ms(void);

#endif /* LOOP_H */
