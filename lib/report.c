/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * report.c - what debugging has to say, on stderr, in the form of the kernel's reports; and that an
 * allocation failed.
 *
 * Any context: text is put together in a buffer on the stack and written by write(2); nothing is
 * allocated, no lock is taken. A stack is walked by backtrace(), whose first call alone loads and
 * allocates, and is made at start; an address gets its module and nearest exported symbol from the
 * loader's lock-free _dl_find_object().
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "debug.h"
#include "core/word.h"

#define RULE "============================================================================="
#define THIN "-----------------------------------------------------------------------------"
#define DUMP_ROW 16u
#define DUMP_BEFORE 32u /* bytes shown before the first bad one, and from there on */
#define DUMP_AFTER 96u

bool nl_report_abort;

struct text {
	nl_u32 n;
	char buf[512];
};

static void flush(struct text *t)
{
	for (nl_u32 done = 0; done < t->n;) {
		ssize_t n = write(STDERR_FILENO, t->buf + done, t->n - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break; /* nobody to tell */
		done += (nl_u32)n;
	}
	t->n = 0;
}

static void vput(struct text *t, const char *fmt, va_list args)
{
	char line[192];
	int n = vsnprintf(line, sizeof(line), fmt, args);

	if (n < 0)
		return;
	if ((size_t)n >= sizeof(line))
		n = sizeof(line) - 1;
	if (t->n + (nl_u32)n > sizeof(t->buf))
		flush(t);
	memcpy(t->buf + t->n, line, (size_t)n);
	t->n += (nl_u32)n;
}

static __attribute__((format(printf, 2, 3))) void put(struct text *t, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vput(t, fmt, args);
	va_end(args);
}

void nl_say(const char *fmt, ...)
{
	struct text t = { 0 };
	int err = errno;
	va_list args;

	va_start(args, fmt);
	vput(&t, fmt, args);
	va_end(args);
	flush(&t);
	errno = err;
}

static nl_u64 now_ms(void)
{
	struct timespec ts;

	/* Coarse: served by the vDSO whatever the clock source. */
	if (clock_gettime(CLOCK_MONOTONIC_COARSE, &ts))
		return 1;
	return (nl_u64)ts.tv_sec * 1000 + (nl_u64)ts.tv_nsec / 1000000 + 1;
}

/* As slab_out_of_memory() of Linux's slub.c, by ___ratelimit()'s default figures. */
#define FAILURES_MS 5000
#define FAILURES_SHOWN 10

void nl_report_failure(const char *cache, size_t size, gfp_t gfp)
{
	static nl_u64 since;
	static nl_u32 seen;
	nl_u64 now = now_ms(), start = nl_load(&since);
	nl_u32 before = 0;

	/* Another thread may have set it meanwhile, to a time after now. */
	if ((int64_t)(now - start) >= FAILURES_MS && nl_cas(&since, start, now))
		before = __atomic_exchange_n(&seen, 0, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED) >= FAILURES_SHOWN)
		return;
	if (before > FAILURES_SHOWN)
		nl_say("nolock: %u more failures were not reported\n", before - FAILURES_SHOWN);
	nl_say("nolock: out of memory: %zu bytes%s%.31s, flags %#x\n", size,
	       cache ? ", cache " : "", cache ? cache : "", gfp);
}

/* The library's own addresses, if it is a module of its own: left out of stacks. */
static nl_u64 own_start, own_end;
static nl_u32 can_walk;

/* Wiped by the kernel in a child: the pid is known from the next ordinary call on. */
static nl_u32 unwiped_pid, *pid_page = &unwiped_pid;

void nl_track_pid(void)
{
	if (nl_unlikely(!nl_load(pid_page)))
		nl_store(pid_page, (nl_u32)getpid());
}

void nl_track_prepare(void)
{
	void *some[4];

	nl_track_pid();
	if (nl_load(&can_walk))
		return;
	if (pid_page == &unwiped_pid) {
		nl_u32 *page = mmap(NULL, NL_PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page != MAP_FAILED) {
			*page = (nl_u32)getpid();
			if (madvise(page, NL_PAGE, MADV_WIPEONFORK))
				munmap(page, NL_PAGE);
			else
				pid_page = page;
		}
	}
#ifdef DLFO_STRUCT_HAS_EH_DBASE
	struct dl_find_object found;

	if (!_dl_find_object((void *)(uintptr_t)&nl_track_prepare, &found) &&
	    found.dlfo_link_map->l_name && *found.dlfo_link_map->l_name) {
		own_start = (nl_u64)found.dlfo_map_start;
		own_end = (nl_u64)found.dlfo_map_end;
	}
#endif
	/* The first call loads libgcc_s, which allocates; no other one does. */
	if (backtrace(some, 4) > 0)
		nl_store_release(&can_walk, 1);
}

/*
 * gettid() is a system call, which a nolock call must not make. What glibc stores as the owner of a
 * mutex is the same number, and this mutex is nobody else's.
 */
static nl_u32 this_tid(void)
{
#ifdef __GLIBC__
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	nl_u32 tid = 0;

	if (!pthread_mutex_trylock(&mutex)) {
		tid = (nl_u32)mutex.__data.__owner;
		pthread_mutex_unlock(&mutex);
	}
	return tid;
#else
	return 0;
#endif
}

__attribute__((noinline)) void nl_track(struct nl_track *t)
{
	void *addr[NL_TRACK_DEPTH + 8];
	int n = 0, first = 1;

	t->when = now_ms();
	t->pid = nl_load(pid_page);
	t->tid = this_tid();
	if (nl_load_acquire(&can_walk))
		n = backtrace(addr, NL_TRACK_DEPTH + 8);
	while (first < n && (nl_u64)addr[first] - own_start < own_end - own_start)
		first++;
	for (int i = 0; i < (int)NL_TRACK_DEPTH; i++)
		t->addr[i] = first + i < n ? (nl_u64)addr[first + i] : 0;
}

#ifdef DLFO_STRUCT_HAS_EH_DBASE
struct symbols {
	const ElfW(Sym) * table;
	const char *names;
	nl_u32 nr;
};

/* How many symbols a DT_GNU_HASH table is for: the end of its longest chain. */
static nl_u32 gnu_hash_symbols(const nl_u32 *hash)
{
	nl_u32 nbuckets = hash[0], offset = hash[1], bloom = hash[2], last = 0;
	const nl_u32 *buckets = hash + 4 + (size_t)bloom * (sizeof(ElfW(Addr)) / 4);
	const nl_u32 *chains = buckets + nbuckets;

	for (nl_u32 i = 0; i < nbuckets; i++)
		if (buckets[i] > last)
			last = buckets[i];
	if (last < offset)
		return offset;
	while (!(chains[last - offset] & 1))
		last++;
	return last + 1;
}

static void symbols_of(const struct link_map *map, struct symbols *s)
{
	memset(s, 0, sizeof(*s));
	for (const ElfW(Dyn) *d = map->l_ld; d && d->d_tag != DT_NULL; d++) {
		/* The loader has relocated them in place, but not those of the vDSO. */
		nl_u64 at = d->d_un.d_ptr < map->l_addr ? d->d_un.d_ptr + map->l_addr :
							  d->d_un.d_ptr;

		switch (d->d_tag) {
		case DT_SYMTAB:
			s->table = (const ElfW(Sym) *)at;
			break;
		case DT_STRTAB:
			s->names = (const char *)at;
			break;
		case DT_GNU_HASH:
			s->nr = gnu_hash_symbols((const nl_u32 *)at);
			break;
		default:
			break;
		}
	}
}

/* " function+0x12/0x34 [module+0x56]" */
static void put_where(struct text *t, nl_u64 addr)
{
	const char *module, *slash, *name = NULL;
	struct dl_find_object found;
	nl_u64 start = 0, size = 0;
	struct symbols s;

	if (_dl_find_object((void *)addr, &found))
		return;
	symbols_of(found.dlfo_link_map, &s);
	for (nl_u32 i = 0; s.table && s.names && i < s.nr; i++) {
		nl_u64 at = found.dlfo_link_map->l_addr + s.table[i].st_value;

		if (ELF64_ST_TYPE(s.table[i].st_info) != STT_FUNC || !s.table[i].st_shndx ||
		    addr - at >= s.table[i].st_size)
			continue;
		name = s.names + s.table[i].st_name;
		start = at;
		size = s.table[i].st_size;
		break;
	}
	module = found.dlfo_link_map->l_name;
	slash = module ? strrchr(module, '/') : NULL;
	if (!module || !*module)
		module = program_invocation_short_name;
	if (name)
		put(t, " %.80s+0x%llx/0x%llx", name, (unsigned long long)(addr - start),
		    (unsigned long long)size);
	put(t, " [%.60s+0x%llx]", slash ? slash + 1 : module,
	    (unsigned long long)(addr - found.dlfo_link_map->l_addr));
}
#else
static void put_where(struct text *t, nl_u64 addr)
{
	(void)t, (void)addr;
}
#endif

static void put_stack(struct text *t, const struct nl_track *track)
{
	for (nl_u32 i = 0; i < NL_TRACK_DEPTH && track->addr[i]; i++) {
		put(t, "\t0x%llx", (unsigned long long)track->addr[i]);
		/* A return address is behind the call, which may end its function. */
		put_where(t, track->addr[i] - 1);
		put(t, "\n");
	}
}

static void put_track(struct text *t, const char *what, const struct nl_track *track)
{
	unsigned long long age = now_ms() - track->when;

	if (!track->when)
		return;
	put(t, "%s by pid=%u tid=%u age=%llu.%03llu s\n", what, track->pid, track->tid, age / 1000,
	    age % 1000);
	put_stack(t, track);
}

/* What the byte at an address of an object belongs to. */
static const char *region(const struct nl_subject *s, nl_u64 at)
{
	const struct nl_cache *c = s->cache;

	if (!s->record)
		return "Padding";
	if (at < s->p)
		return "Left zone";
	if (at < s->p + c->object_size)
		return "Object";
	if (at < (nl_u64)s->record)
		return "Redzone";
	if (at < (nl_u64)s->record +
			 (c->flags & SLAB_STORE_USER ? sizeof(struct nl_record) : sizeof(nl_u64)))
		return "Record";
	return "Padding";
}

/* Rows of bytes from @from on, which end where the region changes. */
static void put_dump(struct text *t, const struct nl_subject *s, nl_u64 from, nl_u64 to)
{
	while (from < to) {
		const char *what = region(s, from);
		char chars[DUMP_ROW + 1];
		nl_u32 n = 0;

		put(t, "%-9s 0x%llx:", what, (unsigned long long)from);
		for (; n < DUMP_ROW && from + n < to && region(s, from + n) == what; n++) {
			nl_u8 byte = nl_load((nl_u8 *)(from + n));

			put(t, " %02x", byte);
			chars[n] = (char)(byte >= ' ' && byte < 0x7f ? byte : '.');
		}
		chars[n] = 0;
		put(t, "%*s  %s\n", (int)(DUMP_ROW - n) * 3, "", chars);
		from += n;
	}
}

void nl_report_count(const struct nl_subject *s)
{
	if (s->cache)
		nl_add(&s->cache->bugs, 1);
	if (s->heap)
		nl_add(&s->heap->h->bugs, 1);
}

static void put_head(struct text *t, const struct nl_subject *s, const char *fmt, va_list args)
{
	put(t, RULE "\nBUG %s: ", s->cache ? s->cache->name : "nolock");
	vput(t, fmt, args);
	put(t, "\n" THIN "\n\n");
}

static nl_u32 free_objects(const struct nl_subject *s, nl_u32 chunk)
{
	nl_u32 n = 0;

	for (nl_u32 w = 0; w < s->cache->words; w++)
		n += (nl_u32)__builtin_popcountll(nl_load(&nl_slab(s->heap->h, chunk)->free[w]));
	return n;
}

/* Who found it, who had it, where it is, what the bytes are. */
static void put_rest(struct text *t, const struct nl_subject *s, nl_u64 at)
{
	struct nl_track here;

	if (s->record && (s->cache->flags & SLAB_STORE_USER)) {
		put_track(t, "Allocated", &s->record->alloc);
		put_track(t, "Freed", &s->record->free);
	}
	nl_track(&here);
	put(t, "Found by pid=%d tid=%u\n", (int)getpid(), here.tid);
	put_stack(t, &here);
	if (s->cache && s->slot) {
		nl_u32 chunk = (nl_u32)((s->slot - s->heap->h->base) >> NL_CHUNK_SHIFT);
		nl_u64 end = s->record ? s->slot + s->cache->size : s->slot + NL_CHUNK_SIZE;
		nl_u64 from = at - at % DUMP_ROW - DUMP_BEFORE;

		put(t, "Slab 0x%llx objects=%u used=%u\n",
		    (unsigned long long)(s->slot & ~(nl_u64)(NL_CHUNK_SIZE - 1)),
		    s->cache->per_slab, s->cache->per_slab - free_objects(s, chunk));
		if (s->record)
			put(t, "Object 0x%llx @offset=%u size=%u asked=%u\n",
			    (unsigned long long)s->p, (nl_u32)s->p & (NL_CHUNK_SIZE - 1),
			    s->cache->object_size, NL_STATE_SIZE(nl_load(&s->record->state)));
		put(t, "\n");
		if (!s->record)
			from = at;
		else if (from < s->slot || from > at)
			from = s->slot;
		if (end > at + DUMP_AFTER)
			end = at + DUMP_AFTER;
		/* The record is shown in words above. */
		if (s->record && at < (nl_u64)s->record && end > (nl_u64)s->record)
			end = (nl_u64)s->record;
		put_dump(t, s, from, end);
	}
	flush(t);
	if (nl_report_abort)
		abort();
}

void nl_report_bug(const struct nl_subject *s, const char *fmt, ...)
{
	struct text t = { 0 };
	int err = errno;
	va_list args;

	nl_report_count(s);
	va_start(args, fmt);
	put_head(&t, s, fmt, args);
	va_end(args);
	put_rest(&t, s, s->p);
	errno = err;
}

static __attribute__((format(printf, 3, 4))) void put_named(struct text *t,
							    const struct nl_subject *s,
							    const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	put_head(t, s, fmt, args);
	va_end(args);
}

void nl_report_bytes(const struct nl_subject *s, const char *what, nl_u64 from, nl_u64 to,
		     nl_u8 want)
{
	struct text t = { 0 };
	int err = errno;

	nl_report_count(s);
	put_named(&t, s, "%s overwritten", what);
	put(&t, "0x%llx-0x%llx @offset=%u. First byte 0x%x instead of 0x%x\n",
	    (unsigned long long)from, (unsigned long long)to - 1,
	    (nl_u32)from & (NL_CHUNK_SIZE - 1), nl_load((nl_u8 *)from), want);
	put_rest(&t, s, from);
	errno = err;
}

void nl_report_fix(const struct nl_subject *s, const char *fmt, ...)
{
	struct text t = { 0 };
	int err = errno;
	va_list args;

	nl_report_count(s);
	put(&t, "FIX %s: ", s->cache ? s->cache->name : "nolock");
	va_start(args, fmt);
	vput(&t, fmt, args);
	va_end(args);
	put(&t, "\n");
	flush(&t);
	errno = err;
}

void nl_report_trace(const struct nl_subject *s, const char *what)
{
	nl_say("TRACE %s %s 0x%llx tid=%u\n", s->cache->name, what, (unsigned long long)s->p,
	       this_tid());
}

void nl_report_leak(const struct nl_subject *s)
{
	struct text t = { 0 };
	int err = errno;

	put(&t, "Object 0x%llx @offset=%u\n", (unsigned long long)s->p,
	    (nl_u32)s->p & (NL_CHUNK_SIZE - 1));
	if (s->record && (s->cache->flags & SLAB_STORE_USER))
		put_track(&t, "Allocated", &s->record->alloc);
	flush(&t);
	errno = err;
}
