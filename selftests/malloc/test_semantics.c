// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_semantics.c - the drop-in does what malloc(3), posix_memalign(3) and glibc promise: sizes,
 * alignments, contents, errors, errno, and what becomes of pointers that are no objects.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include "dropin.h"

/* Calls whose result or size the compiler must not reason about. */
static void *(*volatile do_malloc)(size_t) = malloc;
static void *(*volatile do_calloc)(size_t, size_t) = calloc;
static void *(*volatile do_realloc)(void *, size_t) = realloc;
static void *(*volatile do_reallocarray)(void *, size_t, size_t) = reallocarray;
static void (*volatile do_free)(void *) = free;
static void *(*volatile do_memalign)(size_t, size_t) = memalign;
static void *(*volatile do_aligned_alloc)(size_t, size_t) = aligned_alloc;
static int (*volatile do_posix_memalign)(void **, size_t, size_t) = posix_memalign;
static size_t (*volatile usable)(void *) = malloc_usable_size;

static void expect_object(void *p, size_t size, size_t align)
{
	CHECK(p, "%zu bytes", size);
	CHECK((uintptr_t)p % align == 0, "%p for %zu bytes is not aligned to %zu", p, size, align);
	CHECK(usable(p) >= size, "%zu usable of %zu", usable(p), size);
	CHECK(dropin.heap_of(p) == dropin.heap_default(), "%p is no memory of the heap", p);
}

/* What the C library allocates for itself comes from here as well. */
PRELOADED(semantics, serves_the_c_library)
{
	char *line = NULL, *text, *buf;
	size_t cap = 0;
	regex_t re;
	FILE *f;

	text = strdup("a string");
	CHECK(dropin.heap_of(text), "strdup");
	do_free(text);
	CHECK(asprintf(&text, "%05000d", 7) == 5000 && dropin.heap_of(text), "asprintf");
	do_free(text);
	f = open_memstream(&buf, &cap);
	CHECK(f, "open_memstream");
	for (int i = 0; i < 10000; i++)
		fprintf(f, "line %d\n", i);
	fclose(f);
	CHECK(dropin.heap_of(buf) && cap == strlen(buf), "open_memstream");
	f = fmemopen(buf, cap, "r");
	cap = 0;
	for (int i = 0; i < 10000; i++) {
		char want[32];

		CHECK(getline(&line, &cap, f) > 0, "getline");
		snprintf(want, sizeof(want), "line %d\n", i);
		CHECK(!strcmp(line, want), "%s", line);
	}
	fclose(f);
	do_free(line);
	do_free(buf);
	CHECK(!regcomp(&re, "^(a|b)*c{3,7}[x-z]+$", REG_EXTENDED), "regcomp");
	CHECK(!regexec(&re, "ababcccczzz", 0, NULL, 0), "regexec");
	regfree(&re);
	text = realpath("/proc/self/../self/exe", NULL);
	CHECK(text && dropin.heap_of(text), "realpath");
	do_free(text);
	f = popen("echo through a shell", "r");
	CHECK(f && getline(&line, (cap = 0, line = NULL, &cap), f) == 16, "popen");
	CHECK(pclose(f) == 0, "pclose");
	do_free(line);
	dropin_whole();
}

PRELOADED(semantics, every_size)
{
	static const size_t around[] = { 8 * KiB,   16 * KiB, 32 * KiB, 64 * KiB, 128 * KiB,
					 256 * KiB, MiB,      4 * MiB,	8 * MiB,  64 * MiB };
	enum { KEEP = 64 };
	void *keep[KEEP] = { NULL };
	size_t len[KEEP] = { 0 };

	for (size_t i = 0; i <= 5000 + ARRAY_LEN(around) * 5; i++) {
		size_t size = i <= 5000 ? i : around[(i - 5001) / 5] + (i - 5001) % 5 - 2;
		unsigned int at = i % KEEP;

		if (i > 5000 + ARRAY_LEN(around) * 5)
			break;
		if (keep[at])
			CHECK(pat_check(keep[at], len[at], at), "an object of %zu bytes", len[at]);
		do_free(keep[at]);
		keep[at] = do_malloc(size);
		expect_object(keep[at], size, 16);
		len[at] = usable(keep[at]);
		pat_fill(keep[at], len[at], at);
	}
	for (int i = 0; i < KEEP; i++)
		do_free(keep[i]);
	dropin_whole();
}

PRELOADED(semantics, nothing_is_something)
{
	void *p[100];

	for (int i = 0; i < 100; i++) {
		p[i] = i % 2 ? do_malloc(0) : do_calloc(i % 4 ? 0 : 7, i % 4 ? 7 : 0);
		expect_object(p[i], 0, 16);
		for (int k = 0; k < i; k++)
			CHECK(p[i] != p[k], "two objects of no bytes at %p", p[i]);
	}
	for (int i = 0; i < 100; i++)
		do_free(p[i]);
	do_free(NULL);
	CHECK(usable(NULL) == 0, "of NULL");
	p[0] = do_realloc(NULL, 0);
	expect_object(p[0], 0, 16);
	CHECK(!do_realloc(p[0], 0), "realloc(p, 0) frees");
	p[0] = do_realloc(NULL, 100);
	expect_object(p[0], 100, 16);
	CHECK(!do_reallocarray(p[0], 0, 100), "reallocarray(p, 0, n) frees");
	dropin_whole();
}

static void expect_enomem(void *p, const char *what)
{
	CHECK(!p && errno == ENOMEM, "%s: %p, errno %d", what, p, errno);
	errno = 0;
}

PRELOADED(semantics, too_much)
{
	static const size_t sizes[] = { (size_t)PTRDIFF_MAX + 1, SIZE_MAX,
					SIZE_MAX - 15,		 SIZE_MAX - 4096,
					(size_t)PTRDIFF_MAX,	 PTRDIFF_MAX / 2,
					(size_t)1 << 48,	 (size_t)1 << 40 };
	void *p = do_malloc(1000), *q = do_malloc(100 * KiB);

	pat_fill(p, 1000, 1);
	pat_fill(q, 100 * KiB, 2);
	errno = 0;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		expect_enomem(do_malloc(sizes[i]), "malloc");
		expect_enomem(do_calloc(1, sizes[i]), "calloc");
		expect_enomem(do_calloc(sizes[i], 1), "calloc");
		expect_enomem(do_calloc(sizes[i], 2), "calloc");
		expect_enomem(do_realloc(p, sizes[i]), "realloc");
		expect_enomem(do_realloc(q, sizes[i]), "realloc");
		expect_enomem(do_realloc(NULL, sizes[i]), "realloc");
		expect_enomem(do_reallocarray(p, sizes[i], 4), "reallocarray");
		expect_enomem(do_memalign(64, sizes[i]), "memalign");
		expect_enomem(do_memalign(MiB, sizes[i]), "memalign");
		expect_enomem(do_aligned_alloc(4096, sizes[i]), "aligned_alloc");
		expect_enomem(valloc(sizes[i]), "valloc");
		expect_enomem(pvalloc(sizes[i]), "pvalloc");
	}
	expect_enomem(do_calloc((size_t)1 << 32, (size_t)1 << 32), "calloc");
	expect_enomem(do_calloc(SIZE_MAX / 16 + 2, 16), "calloc");
	expect_enomem(do_reallocarray(p, SIZE_MAX / 16 + 2, 16), "reallocarray");
	expect_enomem(do_memalign((size_t)1 << 62, 1), "memalign");
	/* A failure leaves everything as it was. */
	CHECK(pat_check(p, 1000, 1) && pat_check(q, 100 * KiB, 2), "contents");
	do_free(p);
	do_free(q);
	dropin_whole();
}

PRELOADED(semantics, errno_is_kept)
{
	static void *p[3000];

	for (int round = 0; round < 3; round++) {
		errno = 4711;
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			p[i] = do_malloc((i * 977) % (300 * KiB));
		CHECK(errno == 4711, "after malloc: %d", errno);
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			p[i] = do_realloc(p[i], 1 + (i * 555) % (200 * KiB));
		CHECK(errno == 4711, "after realloc: %d", errno);
		for (size_t i = 0; i < ARRAY_LEN(p); i++)
			do_free(p[i]);
		CHECK(errno == 4711, "after free: %d", errno);
		malloc_trim(0);
		CHECK(errno == 4711, "after malloc_trim: %d", errno);
	}
}

static bool all_zero(const unsigned char *p, size_t size)
{
	return !size || (!p[0] && !memcmp(p, p + 1, size - 1));
}

/* After every size was full of ones, and was trimmed, and again. */
PRELOADED(semantics, calloc_clears)
{
	static const size_t sizes[] = { 1,	16,	24,	100,	 1024,	  1025,
					5000,	32768,	32769,	65535,	 65536,	  65537,
					100000, 131072, 500000, MiB + 1, 5 * MiB, 33 * MiB };
	void *p[3][ARRAY_LEN(sizes)];

	for (int round = 0; round < 6; round++) {
		for (int k = 0; k < 3; k++)
			for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
				size_t n = i % 2 ? sizes[i] : 1;

				p[k][i] = do_calloc(n, sizes[i] / n);
				expect_object(p[k][i], sizes[i], 16);
				CHECK(all_zero(p[k][i], sizes[i]), "%zu bytes, round %d", sizes[i],
				      round);
				memset(p[k][i], 0xff, usable(p[k][i]));
			}
		for (int k = 0; k < 3; k++)
			for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
				do_free(p[k][i]);
		if (round % 2)
			malloc_trim(0);
	}
	dropin_whole();
}

/* Untouched memory costs address space alone, also by way of calloc. */
PRELOADED(semantics, untouched_is_free)
{
	size_t before = rss_bytes();
	char *p = do_calloc(1, 512 * MiB), *q = do_malloc(512 * MiB);

	expect_object(p, 512 * MiB, 4096);
	expect_object(q, 512 * MiB, 4096);
	CHECK(rss_bytes() < before + 16 * MiB, "%zu MiB", (rss_bytes() - before) / MiB);
	p[0] = p[512 * MiB - 1] = q[0] = 1;
	do_free(p);
	do_free(q);
	/* A request of one and a bit chunks: pages beyond it stay untouched. */
	for (int i = 0; i < 1000; i++) {
		p = do_malloc(70 * KiB);
		CHECK(p, "70 KiB");
		memset(p, 1, 70 * KiB);
	}
	CHECK(rss_bytes() < before + 1000 * 76 * KiB + 16 * MiB, "%zu KiB for 1000 times 70 KiB",
	      (rss_bytes() - before) / KiB);
}

PRELOADED(semantics, alignment)
{
	static const size_t sizes[] = { 0,    1,    15,	   16,	  17,	 100,	 320,	  1000,
					4096, 5000, 32768, 40000, 65536, 100000, MiB - 1, 5 * MiB };
	void *p[ARRAY_LEN(sizes)];

	for (size_t align = 1; align <= GiB; align *= 2) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			int err = 0;

			p[i] = NULL;
			switch (i % 3) {
			case 0:
				p[i] = do_memalign(align, sizes[i]);
				break;
			case 1:
				p[i] = do_aligned_alloc(align, sizes[i]);
				break;
			default:
				if (align < sizeof(void *))
					p[i] = do_malloc(sizes[i]);
				else
					err = do_posix_memalign(&p[i], align, sizes[i]);
			}
			CHECK(!err, "%zu bytes to %zu: %d", sizes[i], align, err);
			expect_object(p[i], sizes[i], align > 16 ? align : 16);
			pat_fill(p[i], sizes[i], i);
		}
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			CHECK(pat_check(p[i], sizes[i], i), "%zu bytes to %zu", sizes[i], align);
			p[i] = do_realloc(p[i], sizes[i] + 1);
			CHECK(pat_check(p[i], sizes[i], i), "%zu bytes to %zu", sizes[i], align);
			do_free(p[i]);
		}
	}
	expect_object(p[0] = do_memalign(3000, 10), 10, 4096);
	do_free(p[0]);
	expect_object(p[0] = valloc(10), 10, 4096);
	do_free(p[0]);
	expect_object(p[0] = pvalloc(4097), 8192, 4096);
	do_free(p[0]);
	expect_object(p[0] = pvalloc(0), 4096, 4096);
	do_free(p[0]);
	dropin_whole();
}

PRELOADED(semantics, alignment_refused)
{
	static const size_t bad[] = { 0, 1, 2, 4, 7, 12, 24, 48, 4095, 4097, SIZE_MAX };
	void *p = &p;

	errno = 4711;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK(do_posix_memalign(&p, bad[i], 10) == EINVAL && p == &p, "%zu", bad[i]);
	CHECK(do_posix_memalign(&p, 4096, SIZE_MAX / 2) == ENOMEM && p == &p, "too much");
	CHECK(do_posix_memalign(&p, (size_t)1 << 50, 10) == ENOMEM && p == &p, "too much");
	CHECK(errno == 4711, "posix_memalign does not set errno: %d", errno);
	errno = 0;
	CHECK(!do_aligned_alloc(SIZE_MAX, 10) && errno == EINVAL, "SIZE_MAX");
	errno = 0;
	CHECK(!do_memalign(SIZE_MAX, 10) && errno == EINVAL, "SIZE_MAX");
}

/* As glibc up to 2.37, whose aligned_alloc() is memalign(); later ones refuse what is no power of 2. */
PRELOADED(semantics, alignment_rounded_up)
{
	static const size_t aligns[][2] = { { 0, 16 },	       { 1, 16 },      { 3, 16 },
					    { 24, 32 },	       { 48, 64 },     { 100, 128 },
					    { 4095, 4096 },    { 4097, 8192 }, { 33000, 65536 },
					    { 100000, 131072 } };

	for (size_t i = 0; i < ARRAY_LEN(aligns); i++)
		for (size_t size = 0; size < 300000; size = size * 7 + 1) {
			void *p = do_aligned_alloc(aligns[i][0], size);
			void *q = do_memalign(aligns[i][0], size);

			expect_object(p, size, aligns[i][1]);
			expect_object(q, size, aligns[i][1]);
			do_free(p);
			do_free(q);
		}
	dropin_whole();
}

/* A program that asks for more than there is expects NULL, and nothing on stderr. */
DROPIN_JOB(failures_are_silent)
{
	void *p = do_malloc(100);

	CHECK(!do_malloc((size_t)1 << 45), "malloc");
	CHECK(!do_calloc(1, (size_t)1 << 45), "calloc");
	CHECK(!do_realloc(p, (size_t)1 << 45), "realloc");
	CHECK(!do_aligned_alloc(1 << 20, (size_t)1 << 45), "aligned_alloc");
	do_free(p);
}

Test(semantics, failures_are_silent)
{
	char text[4096];
	int status = dropin_run_stderr("failures_are_silent", NULL, text, sizeof(text));

	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x, %s", status, text);
	cr_assert_str_empty(text, "%s", text);
}

/* Random sizes, each object checked in full before and after. */
PRELOADED(semantics, realloc_keeps_contents)
{
	enum { N = 48 };
	static const size_t max[] = { 200, 3000, 40 * KiB, 300 * KiB, 6 * MiB };
	size_t size[N] = { 0 };
	uint64_t s = 88172645463325252ULL;
	void *p[N] = { NULL };

	for (int i = 0; i < 6000; i++) {
		unsigned int at = (unsigned int)(rng(&s) % N);
		size_t want = 1 + rng(&s) % max[at % ARRAY_LEN(max)];
		size_t both = want < size[at] ? want : size[at];

		if (p[at])
			CHECK(pat_check(p[at], size[at], at), "%zu bytes", size[at]);
		p[at] = do_realloc(p[at], want);
		expect_object(p[at], want, 16);
		CHECK(pat_check(p[at], both / 8 * 8, at), "%zu to %zu bytes", size[at], want);
		pat_fill(p[at], want, at);
		size[at] = want;
		if (i % 1000 == 999)
			dropin_whole();
	}
	for (int i = 0; i < N; i++)
		do_free(p[i]);
	dropin_whole();
}

/* Growing by small steps and shrinking, alone and with something in the way. */
PRELOADED(semantics, realloc_large)
{
	char *p = NULL, *in_the_way = NULL;
	size_t size, rss;

	for (size = 50 * KiB; size < 200 * MiB; size += size / 16 + 3 * KiB) {
		p = do_realloc(p, size);
		expect_object(p, size, 4096);
		memcpy(p + size - 16, "here was the end", 16);
		if (size > 100 * MiB && !in_the_way)
			in_the_way = do_malloc(100 * KiB);
	}
	for (size = 50 * KiB; size < 200 * MiB; size += size / 16 + 3 * KiB)
		CHECK(!memcmp(p + size - 16, "here was the end", 16), "at %zu", size);
	for (size_t i = 0; i < 200 * MiB; i += 4096)
		CHECK(p, "200 MiB");
	memset(p, 1, 190 * MiB);
	rss = rss_bytes();
	p = do_realloc(p, 10 * MiB);
	CHECK(usable(p) <= 10 * MiB + 64 * KiB, "shrunk to %zu", usable(p));
	malloc_trim(0);
	CHECK(rss_bytes() < rss - 150 * MiB, "%zu of %zu MiB", rss_bytes() / MiB, rss / MiB);
	p = do_realloc(p, 100);
	CHECK(usable(p) < 1000 && p[99] == 1, "shrunk to %zu", usable(p));
	do_free(p);
	do_free(in_the_way);
	dropin_whole();
}

PRELOADED(semantics, figures)
{
	struct mallinfo2 a = mallinfo2(), b;
	void *p[100], *large = do_malloc(10 * MiB);
	struct mallinfo (*narrow)(void), old;

	for (int i = 0; i < 100; i++)
		p[i] = do_malloc(1024);
	b = mallinfo2();
	CHECK(b.uordblks >= a.uordblks + 100 * KiB, "%zu then %zu", a.uordblks, b.uordblks);
	CHECK(b.hblks == a.hblks + 1 && b.hblkhd >= a.hblkhd + 10 * MiB, "%zu", b.hblkhd);
	CHECK(b.arena >= b.uordblks && b.arena == b.uordblks + b.fordblks, "%zu", b.arena);
	*(void **)&narrow = dlsym(RTLD_DEFAULT, "mallinfo");
	old = narrow();
	CHECK(old.hblks == (int)b.hblks && old.uordblks == (int)b.uordblks, "%d", old.uordblks);
	for (int i = 0; i < 100; i++)
		do_free(p[i]);
	do_free(large);
	b = mallinfo2();
	CHECK(b.hblks == a.hblks && b.uordblks <= a.uordblks, "%zu", b.uordblks);
	CHECK(mallopt(M_MMAP_THRESHOLD, 4096) == 1 && mallopt(M_ARENA_MAX, 1) == 1, "mallopt");
	malloc_stats();
}

/* Each element is closed, in the right order; none has text. False: it is no XML. */
static bool well_formed(const char *xml)
{
	char open[8][16];
	int depth = 0;

	while (*xml) {
		char name[16], quotes = 0;
		bool end;
		int n = 0;

		if (*xml == '\n' || *xml == ' ') {
			xml++;
			continue;
		}
		if (*xml++ != '<')
			return false;
		end = *xml == '/';
		xml += end;
		while (*xml >= 'a' && *xml <= 'z' && n < 15)
			name[n++] = *xml++;
		name[n] = 0;
		for (; *xml && (*xml != '>' || quotes % 2); xml++)
			quotes = (char)(quotes + (*xml == '"'));
		if (!n || *xml != '>' || quotes % 2)
			return false;
		if (end) {
			if (!depth || strcmp(open[--depth], name))
				return false;
		} else if (xml[-1] != '/') {
			if (depth == 8)
				return false;
			strcpy(open[depth++], name);
		}
		xml++;
	}
	return !depth;
}

static size_t attribute(const char *xml, const char *element, const char *name)
{
	const char *at = strstr(xml, element);
	char want[32];

	snprintf(want, sizeof(want), " %s=\"", name);
	at = at ? strstr(at, want) : NULL;
	CHECK(at, "%s of %s", name, element);
	return strtoul(at + strlen(want), NULL, 10);
}

PRELOADED(semantics, info_as_xml)
{
	void *large = do_malloc(10 * MiB), *small[300];
	static const char head[] = "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n";
	static char text[32 * KiB], buffer[sizeof(text)];
	size_t count = 0, bytes = 0;
	struct mallinfo2 m;
	FILE *f;

	for (size_t i = 0; i < ARRAY_LEN(small); i++)
		small[i] = do_malloc(100 * (i % 50) + 1);
	for (size_t i = 0; i < ARRAY_LEN(small); i += 2)
		do_free(small[i]);
	f = fmemopen(text, sizeof(text), "w");
	CHECK(f && !setvbuf(f, buffer, _IOFBF, sizeof(buffer)), "fmemopen");
	CHECK(malloc_info(1, f) == EINVAL, "there are no options");
	CHECK(malloc_info(0, f) == 0, "malloc_info");
	m = mallinfo2();
	fclose(f);
	CHECK(!strncmp(text, head, sizeof(head) - 1), "%s", text);
	CHECK(well_formed(text), "%s", text);
	for (const char *at = text; (at = strstr(at, "<size ")); at++) {
		size_t to = attribute(at, "<size ", "to"), n = attribute(at, "<size ", "count");

		CHECK(attribute(at, "<size ", "from") < to, "%zu", to);
		CHECK(attribute(at, "<size ", "total") == n * to, "%zu", n);
		count += n;
		bytes += n * to;
	}
	CHECK(count >= 150, "%zu free objects", count);
	CHECK(attribute(text, "<total type=\"fast\"", "count") +
			      attribute(text, "<total type=\"rest\"", "count") ==
		      count + m.ordblks,
	      "%s", text);
	CHECK(attribute(text, "<total type=\"fast\"", "size") +
			      attribute(text, "<total type=\"rest\"", "size") ==
		      bytes + m.keepcost,
	      "%s", text);
	CHECK(attribute(text, "<total type=\"mmap\"", "count") == 1, "%s", text);
	CHECK(attribute(text, "<total type=\"mmap\"", "size") >= 10 * MiB, "%s", text);
	CHECK(attribute(text, "<system type=\"current\"", "size") == m.arena + m.hblkhd, "%s",
	      text);
	do_free(large);
}

/* Bad frees: each of these ends in an abort with one line that names the call and the pointer. */
#define BAD(id) DROPIN_JOB(bad_##id)

static char in_data[64];

BAD(stack)
{
	char buf[64];

	do_free(buf + 16);
}

BAD(data)
{
	do_free(in_data);
}

BAD(metadata)
{
	do_free((char *)dropin.heap_default() + 64);
}

BAD(interior_large)
{
	char *p = do_malloc(300 * KiB);

	do_free(p + 64 * KiB);
}

BAD(large_twice)
{
	char *p = do_malloc(300 * KiB);

	do_free(p);
	do_free(p);
}

BAD(realloc_freed)
{
	char *p = do_malloc(300 * KiB);

	do_free(p);
	CHECK(!do_realloc(p, 10), "of free memory");
}

BAD(realloc_interior)
{
	char *p = do_malloc(100);

	CHECK(!do_realloc(p + 16, 10), "inside of an object");
}

BAD(realloc_stack)
{
	char buf[64];

	CHECK(!do_realloc(buf, 10), "of the stack");
}

/* Caught where the sheaf with both of them is flushed. */
BAD(small_twice)
{
	static void *p[4000];

	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = do_malloc(600);
	do_free(p[100]);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		do_free(p[i]);
	malloc_trim(0);
	for (int i = 0; i < 2000; i++) {
		p[0] = do_malloc(700);
		p[1] = do_malloc(5000);
		do_free(p[0]);
		do_free(p[1]);
		p[i + 2] = do_malloc(100 * KiB);
	}
	do_free(p[2]);
}

/* At once: no object starts there, whatever its chunk's tag says. */
BAD(misaligned)
{
	char *other = do_malloc(64), *p = do_malloc(64);

	do_free(other);
	do_free(p + 8);
}

/* Nothing is trimmed or decays: the sheaf is looked through when it is full. */
BAD(small_twice_in_a_sheaf)
{
	void *p[150];

	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		p[i] = do_malloc(64);
	do_free(p[0]);
	do_free(p[1]);
	do_free(p[0]);
	for (size_t i = 2; i < ARRAY_LEN(p); i++)
		do_free(p[i]);
}

BAD(small_twice_in_its_slab)
{
	void *keep = do_malloc(5000), *p = do_malloc(5000);

	do_free(p);
	malloc_trim(0); /* leaves no sheaf, so that the next free is a slow one */
	do_free(p);
	do_free(keep);
}

BAD(realloc_freed_small)
{
	void *keep = do_malloc(100), *p = do_malloc(100);

	do_free(p);
	malloc_trim(0);
	CHECK(!do_realloc(p, 10), "of a free object, in place");
	CHECK(!do_realloc(p, 1000), "of a free object");
	do_free(keep);
}

static const struct {
	const char *name, *call;
} bad[] = {
	{ "bad_misaligned", "free" },
	{ "bad_small_twice_in_a_sheaf", "free" },
	{ "bad_small_twice_in_its_slab", "free" },
	{ "bad_realloc_freed_small", "realloc" },
	{ "bad_stack", "free" },
	{ "bad_data", "free" },
	{ "bad_metadata", "free" },
	{ "bad_interior_large", "free" },
	{ "bad_large_twice", "free" },
	{ "bad_realloc_freed", "realloc" },
	{ "bad_realloc_interior", "realloc" },
	{ "bad_realloc_stack", "realloc" },
	{ "bad_small_twice", "free" },
};

Test(semantics, bad_pointers_abort)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char text[4096], want[64];
		int status = dropin_run_stderr(bad[i].name, NULL, text, sizeof(text));

		snprintf(want, sizeof(want), "nolock: %s(0x", bad[i].call);
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %#x, %s",
			  bad[i].name, status, text);
		cr_assert(!strncmp(text, want, strlen(want)) &&
				  strchr(text, '\n') == text + strlen(text) - 1,
			  "%s says: %s", bad[i].name, text);
	}
}

Test(semantics, bad_pointers_ignored)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char text[4096];
		int status =
			dropin_run_stderr(bad[i].name, "NOLOCK_MALLOC_CHECK=0", text, sizeof(text));

		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %#x, %s",
			  bad[i].name, status, text);
		cr_assert_str_empty(text, "%s says: %s", bad[i].name, text);
	}
}

/* The names that glibc exports beside the usual ones are the same functions. */
PRELOADED(semantics, other_names)
{
	static const char *const names[][2] = {
		{ "__libc_malloc", "malloc" },
		{ "__libc_free", "free" },
		{ "__libc_calloc", "calloc" },
		{ "__libc_realloc", "realloc" },
		{ "__libc_memalign", "memalign" },
		{ "__libc_valloc", "valloc" },
		{ "__libc_pvalloc", "pvalloc" },
		{ "cfree", "free" },
		{ "__vfork", "vfork" },
	};
	void (*sized)(void *, size_t), (*aligned)(void *, size_t, size_t);

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		void *p = dlsym(RTLD_DEFAULT, names[i][0]);

		CHECK(p && p == dlsym(RTLD_DEFAULT, names[i][1]), "%s", names[i][0]);
	}
	*(void **)&sized = dlsym(RTLD_DEFAULT, "free_sized");
	*(void **)&aligned = dlsym(RTLD_DEFAULT, "free_aligned_sized");
	CHECK(sized && aligned, "of C23");
	sized(do_malloc(100), 100);
	aligned(do_aligned_alloc(256, 1000), 256, 1000);
	dropin_whole();
}
