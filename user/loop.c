// SPDX-License-Identifier: GPL-2.0-only
/*
 * loop.c - see loop.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

static int epfd = -1;

int loop_init(void)
{
	epfd = epoll_create1(EPOLL_CLOEXEC);
	return epfd < 0 ? -errno : 0;
}

static int control(int op, struct watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	return epoll_ctl(epfd, op, w->fd, &ev) ? -errno : 0;
}

int loop_add(struct watch *w, uint32_t events)
{
	return control(EPOLL_CTL_ADD, w, events);
}

int loop_change(struct watch *w, uint32_t events)
{
	return control(EPOLL_CTL_MOD, w, events);
}

void loop_remove(struct watch *w)
{
	if (w->fd >= 0 && epfd >= 0)
		control(EPOLL_CTL_DEL, w, 0);
}

int loop_once(int timeout_ms)
{
	struct epoll_event ev;
	struct watch *w;
	int n;

	n = epoll_wait(epfd, &ev, 1, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n > 0) {
		w = ev.data.ptr;
		w->ready(w, ev.events);
	}
	return 0;
}

void loop_exit(void)
{
	if (epfd >= 0)
		close(epfd);
	epfd = -1;
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}
