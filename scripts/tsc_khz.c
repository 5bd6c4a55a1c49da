// SPDX-License-Identifier: GPL-2.0-only
/*
 * tsc_khz.c - print how many thousand times a second this x86-64 CPU's time stamp counter counts.
 *
 * A kernel under emulation reads the same counter, but measures it against emulated timers, which
 * come late where the emulator does not run: it may be wrong by a factor of 10.
 */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct moment {
	double ns;
	unsigned long long tsc;
};

/* Both clocks at one moment: of some tries the one that took least. */
static struct moment now(void)
{
	unsigned long long least = ~0ULL;
	struct moment m = { 0 };
	int i;

	for (i = 0; i < 100; i++) {
		struct timespec t;
		unsigned long long before = __rdtsc(), after;

		clock_gettime(CLOCK_MONOTONIC, &t);
		after = __rdtsc();
		if (after - before >= least)
			continue;
		least = after - before;
		m.ns = (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
		m.tsc = before + least / 2;
	}
	return m;
}

int main(void)
{
	struct moment a = now(), b;

	nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	b = now();
	printf("%.0f\n", (double)(b.tsc - a.tsc) / (b.ns - a.ns) * 1e6);
	return 0;
}
