// SPDX-License-Identifier: GPL-2.0-only
/*
 * stats.c - the clock, medians and quartiles. A mean has no place where one preempted round weighs more
 * than all others together.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The value below which the given share lies, between its two neighbours. */
static double quantile(const double *sorted, unsigned int n, double share)
{
	double at = share * (n - 1);
	unsigned int below = (unsigned int)at;

	if (below + 1 >= n)
		return sorted[n - 1];
	return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

struct spread spread_of(double *values, unsigned int n)
{
	struct spread s = { 0 };

	if (!n)
		return s;
	qsort(values, n, sizeof(*values), compare);
	s.min = values[0];
	s.q1 = quantile(values, n, 0.25);
	s.median = quantile(values, n, 0.5);
	s.q3 = quantile(values, n, 0.75);
	s.max = values[n - 1];
	return s;
}

static double *room(unsigned int n)
{
	double *values = calloc(n ? n : 1, sizeof(*values));

	if (!values)
		errx(2, "out of memory");
	return values;
}

struct spread spread_copy(const double *values, unsigned int n)
{
	double *copy = room(n);
	struct spread s;

	memcpy(copy, values, n * sizeof(*values));
	s = spread_of(copy, n);
	free(copy);
	return s;
}

/*
 * A ratio is taken within each round, where both sides ran milliseconds apart, and the median of
 * the rounds is what counts.
 */
struct spread spread_ratio(const double *a, const double *b, unsigned int n)
{
	double *ratio = room(n);
	struct spread s;

	for (unsigned int i = 0; i < n; i++)
		ratio[i] = b[i] > 0 ? a[i] / b[i] : 0;
	s = spread_of(ratio, n);
	free(ratio);
	return s;
}
