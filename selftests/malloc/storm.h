/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * storm.h - signals that interrupt each other and all threads, whose handlers use objects.h's objects.
 */
#ifndef NOLOCK_SELFTESTS_STORM_H
#define NOLOCK_SELFTESTS_STORM_H

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "objects.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static const int signals[] = { SIGUSR1, SIGUSR2, SIGURG };
#define NR_SIGNALS ARRAY_LEN(signals)

/* Which of them it is. Handler. */
static inline unsigned int signal_index(int sig)
{
	unsigned int k = 0;

	while (signals[k] != sig)
		k++;
	return k;
}

/* Each may interrupt the other two, but not itself. */
static inline void catch_signals(void (*handler)(int))
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };

	for (size_t i = 0; i < NR_SIGNALS; i++)
		CHECK(!sigaction(signals[i], &sa, NULL), "sigaction");
}

/*
 * SIGURG to this thread, after @first ns and then every @every; the timer is to be deleted. False if
 * it could not be set: a child that a handler forked before that has no timers.
 */
static inline bool thread_timer(timer_t *timer, long first, long every)
{
	struct itimerspec when = { .it_value.tv_nsec = first, .it_interval.tv_nsec = every };
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG };

	ev.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	return !timer_create(CLOCK_MONOTONIC, &ev, timer) && !timer_settime(*timer, 0, &when, NULL);
}

/* Leave an object in one of n places, and free what was there. Handler. */
static inline void exchange(struct flow *f, void **mailbox, size_t n)
{
	object_free(f,
		    __atomic_exchange_n(&mailbox[rng(&f->s) % n], object_new(f), __ATOMIC_ACQ_REL));
}

/* On now_ns()'s clock: when a storm that begins now has lasted NOLOCK_STORM_SECONDS (1). */
static inline uint64_t storm_end(void)
{
	const char *text = getenv("NOLOCK_STORM_SECONDS");
	double seconds = text ? atof(text) : 0;

	return now_ns() + (uint64_t)((seconds > 0 ? seconds : 1) * 1e9);
}

#endif /* NOLOCK_SELFTESTS_STORM_H */
