/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nomem.h - no memory, as the library sees it: it gets its memory by mmap(), mprotect(), mremap() and
 * madvise(), which the one file of a program that includes this defines. Those from fail_from to
 * fail_to fail with ENOMEM, counted from 1; while fail_from is ~0 none does, and none is counted.
 */
#ifndef NOLOCK_SELFTESTS_NOMEM_H
#define NOLOCK_SELFTESTS_NOMEM_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long calls, fail_from = ~0ul, fail_to, injected;

static bool must_fail(void)
{
	unsigned long n;

	if (fail_from == ~0ul)
		return false;
	n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	if (n < fail_from || n > fail_to)
		return false;
	__atomic_fetch_add(&injected, 1, __ATOMIC_RELAXED);
	errno = ENOMEM;
	return true;
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return must_fail() ? MAP_FAILED :
			     (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

int mprotect(void *addr, size_t len, int prot)
{
	return must_fail() ? -1 : (int)syscall(SYS_mprotect, addr, len, prot);
}

void *mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	va_list args;
	void *to;

	va_start(args, flags);
	to = flags & MREMAP_FIXED ? va_arg(args, void *) : NULL;
	va_end(args);
	return must_fail() ? MAP_FAILED : (void *)syscall(SYS_mremap, old, old_len, len, flags, to);
}

int madvise(void *addr, size_t len, int advice)
{
	return must_fail() ? -1 : (int)syscall(SYS_madvise, addr, len, advice);
}

#endif /* NOLOCK_SELFTESTS_NOMEM_H */
