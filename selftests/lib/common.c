// SPDX-License-Identifier: GPL-2.0-only
/*
 * common.c - helpers of util.h that need no test framework: for plain programs as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "internal.h"
#include "util.h"

void stamp(void *p, uint32_t size, uint32_t seed)
{
	uint32_t head[2] = { size ^ 0x51ab51abu, seed };

	memcpy(p, head, sizeof(head));
	pat_fill((char *)p + sizeof(head), size - sizeof(head), (uint64_t)seed << 32 | size);
}

/* Its size, 0 when the head is damaged; *seed is its pattern's. */
static uint32_t stamp_head(const void *p, uint64_t *seed)
{
	uint32_t head[2], size;

	memcpy(head, p, sizeof(head));
	size = head[0] ^ 0x51ab51abu;
	*seed = (uint64_t)head[1] << 32 | size;
	/* A size that no test uses means that the head itself is damaged: do not read that far. */
	return size < sizeof(head) || size > 64 * MiB ? 0 : size;
}

uint32_t stamp_check(const void *p)
{
	uint64_t seed;
	uint32_t size = stamp_head(p, &seed);

	return size && pat_check((const char *)p + 8, size - 8, seed) ? size : 0;
}

bool stamp_begins(const void *p, size_t n)
{
	uint64_t seed;
	uint32_t size = stamp_head(p, &seed);

	/* A whole number of words is the same pattern, whatever the object's size. */
	return n <= size && pat_check((const char *)p + 8, (n - 8) / 8 * 8, seed);
}

void report(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	fflush(stdout);
	if (write(STDOUT_FILENO, line, n) != n)
		perror("write a test's figures to stdout");
}

int check_whole(struct nolock_heap *heap, struct nolock_heap_report *rep, const char *when)
{
	struct nolock_heap_report own;
	int rc;

	if (!rep)
		rep = &own;
	rc = nolock_heap_check(heap, rep);
	if (rc == 0 && rep->errors == 0 && rep->locks_held == 0)
		return 0;
	report("  heap check %s: %s, %lu errors, %lu locks held, first: %s", when, strerror(-rc),
	       rep->errors, rep->locks_held, rep->first_error);
	return 1;
}

unsigned long env_number(const char *name, unsigned long def)
{
	const char *s = getenv(name);
	char *end;
	unsigned long v;

	if (!s || !*s)
		return def;
	errno = 0;
	v = strtoul(s, &end, 10);
	if (errno || *end || !v) {
		report("  %s=%s is not a positive number: using %lu", name, s, def);
		return def;
	}
	return v;
}

void die_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

bool rseq_in_use(struct nolock_heap *heap)
{
	return heap->rseq_slots != 0;
}

int stay_on(unsigned int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(0, sizeof(one), &one);
}

int stay_on_nth(unsigned int nr)
{
	cpu_set_t all;
	unsigned int seen = 0;

	if (sched_getaffinity(0, sizeof(all), &all))
		return -1;
	for (unsigned int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all) && seen++ == nr)
			return stay_on(cpu);
	return -1;
}
