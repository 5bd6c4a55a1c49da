// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_decay.c - memory goes back to the system: by malloc_trim() at once, by and by while the
 * process goes on allocating, never where that is switched off.
 */
#define _GNU_SOURCE
#include <time.h>
#include "objects.h"

enum { BURST = 200000 };
static void *burst[BURST];

static size_t make_burst(size_t size, unsigned int n)
{
	size_t rss;

	for (unsigned int i = 0; i < n; i++) {
		burst[i] = malloc(size);
		CHECK(burst[i], "%zu bytes", size);
		memset(burst[i], 1, size);
	}
	rss = rss_bytes();
	for (unsigned int i = 0; i < n; i++)
		free(burst[i]);
	return rss;
}

/* What a program does that goes on: some calls leave the fast paths. */
static void go_on(void)
{
	void *p[300];

	for (int i = 0; i < 300; i++)
		p[i] = malloc(200);
	for (int i = 0; i < 300; i++)
		free(p[i]);
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

PRELOADED(decay, trim)
{
	size_t empty = rss_bytes(), full = make_burst(500, BURST);

	CHECK(full > empty + 90 * MiB, "%zu MiB", full / MiB);
	CHECK(malloc_trim(0) == 1, "nothing to trim");
	CHECK(rss_bytes() < empty + 12 * MiB, "%zu of %zu MiB", rss_bytes() / MiB, full / MiB);
	CHECK(malloc_trim(0) == 0, "there was nothing left");
	full = make_burst(300 * KiB, 300);
	CHECK(malloc_trim(0) == 1, "nothing to trim");
	CHECK(rss_bytes() < empty + 12 * MiB, "%zu of %zu MiB", rss_bytes() / MiB, full / MiB);
	dropin_whole();
}

/* However slow the machine is, the memory is gone some time. */
static void until_gone(size_t full, size_t rest)
{
	for (int i = 0; rss_bytes() > rest; i++) {
		CHECK(i < 10000, "%zu of %zu MiB are left", rss_bytes() / MiB, full / MiB);
		go_on();
	}
}

DROPIN_JOB(goes_back)
{
	size_t empty = rss_bytes();

	until_gone(make_burst(500, BURST), empty + 15 * MiB);
	until_gone(make_burst(300 * KiB, 300), empty + 15 * MiB);
	until_gone(make_burst(2000, BURST / 4), empty + 15 * MiB);
	dropin_whole();
}

Test(decay, goes_back)
{
	dropin_expect("goes_back", "NOLOCK_DECAY_MS=300");
}

DROPIN_JOB(stays)
{
	size_t full = make_burst(500, BURST);

	for (int i = 0; i < 500; i++)
		go_on();
	CHECK(rss_bytes() + 8 * MiB > full, "%zu of %zu MiB", rss_bytes() / MiB, full / MiB);
	dropin_whole();
}

Test(decay, switched_off)
{
	dropin_expect("stays", "NOLOCK_DECAY_MS=-1");
}

Test(decay, default_is_slow)
{
	dropin_expect("stays", "NOLOCK_DECAY_MS=1000000");
}

DROPIN_JOB(ticks)
{
	for (int i = 0; i < 50; i++)
		go_on();
}

Test(decay, bad_value)
{
	char text[1024];
	int status = dropin_run_stderr("ticks", "NOLOCK_DECAY_MS=soon", text, sizeof(text));

	cr_assert_eq(status, 0, "%#x", status);
	cr_assert(!strncmp(text, "nolock: NOLOCK_DECAY_MS ", 24) &&
			  strchr(text, '\n') == text + strlen(text) - 1,
		  "says: %s", text);
}
