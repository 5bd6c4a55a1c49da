// SPDX-License-Identifier: GPL-2.0-only
/* plain.c - see plain.h. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "plain.h"

static inline uint64_t pat_word(uint64_t seed, uint64_t i)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15ULL + i * 0xbf58476d1ce4e5b9ULL;

	return x ^ (x >> 29);
}

/* Bytes, not words, at the ends: an object's size need not be a multiple of 8. */
void pat_fill(void *p, size_t size, uint64_t seed)
{
	unsigned char *b = p;
	size_t i, words = size / 8;
	uint64_t w;

	for (i = 0; i < words; i++) {
		w = pat_word(seed, i);
		memcpy(b + i * 8, &w, 8);
	}
	w = pat_word(seed, words);
	memcpy(b + words * 8, &w, size % 8);
}

bool pat_check(const void *p, size_t size, uint64_t seed)
{
	const unsigned char *b = p;
	size_t i, words = size / 8;
	uint64_t w, diff = 0;

	for (i = 0; i < words; i++) {
		memcpy(&w, b + i * 8, 8);
		diff |= w ^ pat_word(seed, i);
	}
	w = pat_word(seed, words);
	return !diff && memcmp(b + words * 8, &w, size % 8) == 0;
}

/* No stream: its buffer is an allocation, of what may be under test, or of a sanitizer's. */
size_t rss_bytes(void)
{
	char text[128], *resident;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	resident = strchr(text, ' ');
	return resident ? strtoul(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
