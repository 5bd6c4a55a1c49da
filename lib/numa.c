// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * numa.c - nodes: how many, which CPU is on which, and memory bound to them.
 *
 * A heap's node is the kernel's number modulo NL_MAX_NODES. A private heap is of one node unless
 * NOLOCK_NUMA=1: with more, its slots are those of CPUs instead of mm_cids, and the fast paths that
 * know neither nodes nor CPUs are not for it. NOLOCK_FAKE_NODES=N makes CPU c one of node c % N,
 * without binding any memory, in every heap that is made.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "internal.h"

#define MAX_NUMBERS 64u /* node numbers of the kernel that are looked at */
#define MPOL_PREFERRED 1
#define MPOL_PREFERRED_MANY 5

/* "0-3,8" in a file: is n in the list? And its largest number, or -1. No malloc: any context. */
static bool in_list(const char *path, int n, int *largest)
{
	char text[4096];
	ssize_t len = -1;
	int from = -1, number = -1;
	bool found = false;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	*largest = -1;
	if (fd >= 0) {
		len = read(fd, text, sizeof(text));
		close(fd);
	}
	for (ssize_t i = 0; i < len; i++) {
		if (text[i] >= '0' && text[i] <= '9') {
			number = (number < 0 ? 0 : number * 10) + (text[i] - '0');
			if (i + 1 < len)
				continue;
		}
		if (number >= 0) {
			if (n >= (from < 0 ? number : from) && n <= number)
				found = true;
			if (number > *largest)
				*largest = number;
			from = text[i] == '-' ? number : -1;
		}
		number = -1;
	}
	return found;
}

static nl_u32 fake_nodes(void)
{
	const char *env = getenv("NOLOCK_FAKE_NODES");
	unsigned long n = env ? strtoul(env, NULL, 10) : 0;

	return n < NL_MAX_NODES ? (nl_u32)n : NL_MAX_NODES;
}

static nl_u32 real_nodes(void)
{
	static nl_u32 cached;
	int largest;

	if (!nl_load(&cached)) {
		in_list("/sys/devices/system/node/online", 0, &largest);
		nl_store(&cached, largest < 0 ? 1 : (nl_u32)largest + 1);
	}
	return nl_load(&cached);
}

nl_u32 nl_nodes(bool shared)
{
	const char *numa = getenv("NOLOCK_NUMA");
	nl_u32 n = fake_nodes();

	if (n)
		return n;
	if (!shared && (!numa || strcmp(numa, "1")))
		return 1;
	n = real_nodes();
	return n < NL_MAX_NODES ? n : NL_MAX_NODES;
}

nl_u32 nl_node_of_cpu(nl_u32 cpu)
{
	nl_u32 fake = fake_nodes();
	int largest;

	if (fake)
		return cpu % fake;
	for (nl_u32 n = 0; n < real_nodes() && n < MAX_NUMBERS; n++) {
		char path[64];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", n);
		if (in_list(path, (int)cpu, &largest))
			return n % NL_MAX_NODES;
	}
	return 0;
}

/* Where it is refused, pages come from where they are touched first: no error. */
void nl_node_bind(const struct nolock_heap *heap, void *mem, nl_u64 bytes, nl_u32 node)
{
	unsigned long mask = 0;
	int err = errno;

	/* An arena's pages are the kernel's own, of the node of whoever makes them present. */
	if (heap->h->nr_nodes == 1 || heap->type == NL_HEAP_ARENA || fake_nodes())
		return;
	for (nl_u32 n = 0; n < real_nodes() && n < MAX_NUMBERS; n++)
		if (n % NL_MAX_NODES == node)
			mask |= 1UL << n;
	if (mask)
		syscall(SYS_mbind, mem, bytes,
			mask & (mask - 1) ? MPOL_PREFERRED_MANY : MPOL_PREFERRED, &mask,
			MAX_NUMBERS + 1, 0);
	errno = err;
}
