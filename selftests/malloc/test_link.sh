#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The drop-in as programs get it: preloaded or linked, in C and C++, with libraries that are loaded
# and unloaded, and beside libnolock.so, whose users then share its heap.

set -u
cd "$(dirname "$0")/../.." || exit 1
lib=$(cd "${NOLOCK_BUILD:-build}/lib" && pwd) || exit 1
so=$lib/libnolock-malloc.so
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. selftests/verdict.sh

# check NAME COMMAND...: passes if it exits with 0 and prints nothing.
check()
{
	local name=$1

	shift
	"$@" >"$tmp/out" 2>&1 && [ ! -s "$tmp/out" ]
	verdict "$name" $?
}

preloaded()
{
	LD_PRELOAD=$so "$@"
}

cat >"$tmp/which.h" <<'EOF'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* Exit at once unless malloc is the drop-in's. */
static void expect_dropin(void)
{
	Dl_info info;

	if (!dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) ||
	    !strstr(info.dli_fname, "libnolock-malloc.so")) {
		puts("malloc is not the drop-in's");
		exit(1);
	}
}
EOF

cat >"$tmp/plain.c" <<'EOF'
#define _GNU_SOURCE
#include "which.h"
static char *early;
__attribute__((constructor)) static void first(void)
{
	early = strdup("before main");
}
__attribute__((destructor)) static void last(void)
{
	free(early);
	free(malloc(10));
}
int main(void)
{
	expect_dropin();
	early = realloc(early, 100000);
	return !early || strcmp(early, "before main");
}
EOF

cat >"$tmp/plus.cc" <<'EOF'
#include "which.h"
#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>
struct alignas(256) Wide {
	char bytes[512];
};
struct Early {
	std::map<int, std::string> m;
	Early() { for (int i = 0; i < 100; i++) m[i] = std::string(100, 'x'); }
	~Early() { m.clear(); delete new int; }
};
static Early early;
static thread_local std::vector<std::string> mine;
int main()
{
	expect_dropin();
	for (int i = 0; i < 100; i++) {
		std::unique_ptr<Wide[]> w(new Wide[i + 1]);
		if ((uintptr_t)w.get() % 256)
			return 1;
		delete new (std::nothrow) Wide;
	}
	std::vector<std::thread> threads;
	for (int t = 0; t < 8; t++)
		threads.emplace_back([] { for (int i = 0; i < 1000; i++) mine.emplace_back(i, 'y'); });
	for (auto &t : threads)
		t.join();
	try {
		volatile size_t much = (size_t)1 << 60;
		::operator delete(::operator new(much));
		return 2;
	} catch (const std::bad_alloc &) {
	}
	if (::operator new((size_t)1 << 61, std::nothrow))
		return 3;
	return early.m.size() != 100;
}
EOF

cat >"$tmp/loaded.cc" <<'EOF'
#include <string>
#include <vector>
static std::vector<std::string> v(1000, std::string(50, 'z'));
static thread_local std::string t(100, 't');
extern "C" size_t use() { v.emplace_back(t); return v.size(); }
EOF

cat >"$tmp/loader.c" <<'EOF'
#define _GNU_SOURCE
#include "which.h"
#include <pthread.h>
static void *load(void *path)
{
	for (int i = 0; i < 100; i++) {
		void *h = dlopen(path, RTLD_NOW);
		size_t (*use)(void);

		if (!h)
			return dlerror();
		*(void **)&use = dlsym(h, "use");
		if (!use || use() < 1001)
			return "use()";
		dlclose(h);
	}
	return NULL;
}
int main(int argc, char **argv)
{
	pthread_t t[3];
	void *why;
	int bad = argc != 2;

	expect_dropin();
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, load, argv[1]);
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &why);
		if (why)
			bad = puts(why);
	}
	return bad;
}
EOF

cat >"$tmp/both.c" <<'EOF'
#define _GNU_SOURCE
#include "which.h"
#include <malloc.h>
#include <nolock/slab.h>
#include <nolock/heap.h>
#define WANT(cond) do { if (!(cond)) { puts(#cond); return 1; } } while (0)
int main(void)
{
	struct nolock_heap_report r;
	void *p = malloc(100), *q = kmalloc(100, GFP_KERNEL);
	unsigned long from, to;
	int heaps = 0;
	char *line;
	size_t cap;
	FILE *f;

	expect_dropin();
	WANT(nolock_heap_of(p) == nolock_heap_default());
	WANT(nolock_heap_of(q) == nolock_heap_default());
	WANT(malloc_usable_size(q) == ksize(p));
	q = realloc(q, 100000);
	p = krealloc(p, 5000, GFP_KERNEL);
	WANT(p && q);
	kfree(q);
	free(p);
	p = kmalloc_nolock(64, 0, NUMA_NO_NODE);
	WANT(p);
	free(p);
	/* Reserved address space: of one heap, not of the library's as well. */
	f = fopen("/proc/self/maps", "r");
	for (line = NULL, cap = 0; getline(&line, &cap, f) > 0;)
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && to - from > 1ul << 34)
			heaps++;
	free(line);
	fclose(f);
	WANT(heaps == 1);
	WANT(nolock_heap_check(nolock_heap_default(), &r) == 0);
	return 0;
}
EOF

build()
{
	local out=$1

	shift
	"$@" -Wall -Wextra -Werror -Wno-alloc-size-larger-than -O2 -I"$tmp" -Ilib/include -o "$tmp/$out" || exit 1
}

build plain gcc "$tmp/plain.c"
build plain-linked gcc "$tmp/plain.c" -Wl,--no-as-needed -L"$lib" -lnolock-malloc -Wl,-rpath,"$lib"
build plus g++ "$tmp/plus.cc" -pthread
build plus-linked g++ "$tmp/plus.cc" -pthread -Wl,--no-as-needed -L"$lib" -lnolock-malloc \
	-Wl,-rpath,"$lib"
build loaded.so g++ -shared -fPIC "$tmp/loaded.cc"
build loader gcc "$tmp/loader.c" -pthread
build both gcc "$tmp/both.c" -L"$lib" -lnolock -Wl,-rpath,"$lib"
build both-linked gcc "$tmp/both.c" -Wl,--no-as-needed -L"$lib" -lnolock-malloc -lnolock \
	-Wl,-rpath,"$lib"

check "C, preloaded" preloaded "$tmp/plain"
check "C, linked" "$tmp/plain-linked"
check "C++, preloaded" preloaded "$tmp/plus"
check "C++, linked" "$tmp/plus-linked"
check "libraries loaded and unloaded in threads" preloaded "$tmp/loader" "$tmp/loaded.so"
check "beside libnolock.so, preloaded: one heap" preloaded "$tmp/both"
check "beside libnolock.so, linked: one heap" "$tmp/both-linked"
check "a program of the system" preloaded sh -c 'ls / | sort >/dev/null'

# What it exports: libnolock's functions with their version, and these without.
cat >"$tmp/want" <<'EOF'
__libc_calloc
__libc_free
__libc_malloc
__libc_memalign
__libc_pvalloc
__libc_realloc
__libc_valloc
__vfork
aligned_alloc
calloc
cfree
clone
free
free_aligned_sized
free_sized
mallinfo
mallinfo2
malloc
malloc_info
malloc_stats
malloc_trim
malloc_usable_size
mallopt
memalign
posix_memalign
pvalloc
realloc
reallocarray
valloc
vfork
EOF
names()
{
	nm -D --defined-only "$1" | sed -n 's/^[0-9a-f]* [TtDdBbRrVvWw] //p' | sort
}
names "$so" | grep -v @ | LC_ALL=C sort >"$tmp/unversioned"
names "$so" | grep @ >"$tmp/versioned"
names "$lib/libnolock.so" | grep @ >"$tmp/library"
check "exports the C library's names" diff "$tmp/want" "$tmp/unversioned"
check "and libnolock's" diff "$tmp/library" "$tmp/versioned"
check "needs libc alone" sh -c "readelf -d $so | grep NEEDED | grep -vE '\[(libc\.so\.6|ld-linux.*)\]'; true"
check "no call to __tls_get_addr, which may allocate" sh -c "nm -D $so | grep __tls_get_addr; true"

total
