/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * heap.c - heaps as this process knows them: making, mapping, finding and closing them.
 *
 * Everything on the way to the first allocation may run in a signal handler that has interrupted
 * itself here: there is no lock and no "being initialised" to wait for. Who comes second makes a
 * heap of its own and drops it when the first one's turns out to be there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "internal.h"
#include "harden.h"
#include "proto.h"
#include "rseq.h"
#include "core/grow.h"
#include "core/kmalloc.h"

#define MAX_HANDLES 64
#define MAX_THREADS 0xfffeu /* thread numbers, before they are used again */
#define MIN_PRIVATE_SIZE (4 * NL_GROUP_SIZE)

#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#endif
#define RSEQ_CPU_ID 4
#define RSEQ_MM_CID 24

static struct nolock_heap handles[MAX_HANDLES];
static nl_u32 nr_handles; /* handles ever used: bound of every search */

__thread struct nolock_thread nl_self = { .last_tag = ~0u };
/* By this name for what callers have in line, if the slots are where that looks for them. */
#if NL_ROW_SHIFT == 16
extern __thread struct nolock_thread nolock_thread NOLOCK_API __attribute__((alias("nl_self")));
#else
__thread struct nolock_thread nolock_thread NOLOCK_API;
#endif
struct nl_free_map nl_free_map = { .first = 1ULL << 63 };
nl_u16 nl_small_slot[NL_SMALL_MAX / 16];

static struct nolock_heap no_heap = { .fd = -1, .conn = -1 };
struct nolock_heap *nl_default = &no_heap;

/*
 * A page of its own that the kernel wipes in a child (MADV_WIPEONFORK). No atfork handler: _Fork()
 * and a fork() in a handler run none. Without such a page (a kernel before 4.14) it is a struct
 * that nobody wipes.
 *
 * The child may have threads of its own before its first slow path. So the first of them to come
 * by notes which thread numbers are older than the fork; what their owners held is taken over by
 * the one of them that lives on, the thread that forked, whenever it comes by.
 */
struct fork_page {
	nl_u32 done;	/* 1 in the process that made it, and where the locks were taken over */
	nl_u32 older;	/* thread numbers below this one are older than the fork */
	nl_u32 pending; /* the inventory is still to be taken */
};
static struct fork_page never_wiped = { .done = 1 };
static struct fork_page *fork_page = &never_wiped;

static nl_u32 threads; /* thread numbers handed out */
static __thread nl_u32 this_thread;
__thread int nl_depth;

/*
 * A thread may leave a call of the allocator in the middle: by pthread_exit() in a handler, or
 * siglongjmp(). Then nl_depth is above 0 when it exits, on a stack with no call of the allocator left
 * on it, and what is locked in its name is nobody's. It repairs that itself, as another thread: for what
 * later destructors free it gets a new number.
 *
 * Only a key that needs no memory of its own, one of the process's first, can be set in any context.
 */
#define FIRST_KEYS 32u
static pthread_key_t exit_key;
static nl_u32 exit_key_made;

static void thread_exit(void *unused)
{
	nl_u32 thread = this_thread;
	struct nolock_heap *heap;

	(void)unused;
	/* Once numbers are used again another thread may have this one. */
	if (!nl_depth || nl_load(&threads) >= MAX_THREADS)
		return;
	this_thread = 0;
	nl_depth = 1;
	nl_shrink_settle(thread);
	nl_for_each_heap(heap) {
		if (heap->type != NL_HEAP_PRIVATE && heap->pid != (int)getpid())
			continue;
		nl_heap_repair_thread(heap, thread);
		nl_rcu_forget(heap, thread);
	}
	nl_shrink_forget(thread, thread + 1, 0);
	nl_depth = 0;
}

static void watch_exit(void)
{
	if (nl_load_acquire(&exit_key_made))
		pthread_setspecific(exit_key, &exit_key);
}

__attribute__((constructor(101))) static void make_exit_key(void)
{
	if (exit_key_made || pthread_key_create(&exit_key, thread_exit))
		return;
	if (exit_key >= FIRST_KEYS) {
		pthread_key_delete(exit_key);
		return;
	}
	nl_store_release(&exit_key_made, 1);
	/* The loader's own calls came before this one. */
	if (this_thread)
		watch_exit();
}

/* Where the library is linked into a module that is unloaded. */
__attribute__((destructor)) static void drop_exit_key(void)
{
	if (__atomic_exchange_n(&exit_key_made, 0, __ATOMIC_ACQ_REL))
		pthread_key_delete(exit_key);
}

nl_u32 nl_who(const struct nolock_heap *heap)
{
	if (nl_unlikely(!this_thread)) {
		nl_fork_check();
		this_thread = 1 + __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED) % MAX_THREADS;
		watch_exit();
	}
	/* Racy, and only for the check's patience with the dead. */
	if (heap->type != NL_HEAP_PRIVATE && heap->client <= NL_MAX_CLIENTS &&
	    nl_unlikely(nl_load(&heap->h->client[heap->client].threads) < this_thread))
		nl_store(&heap->h->client[heap->client].threads, this_thread);
	return (heap->client << 16) | this_thread;
}

bool nl_thread_start(void)
{
	const struct nolock_heap *heap = nl_load_acquire(&nl_default);

	if (nl_self.slots)
		return true;
	if (nl_self.vforked || !heap->rseq_slots ||
	    heap->slot_off - heap->rseq_off != RSEQ_MM_CID || nl_rseq_index(heap) == ~0u)
		return false;
	nl_self.rseq = (long)heap->rseq_off;
	nl_self.tagged = (nl_u64)heap->rslots - NL_TAG(NL_KIND_SLAB, 0);
	nl_barrier(); /* a handler in between must not find slots alone */
	nl_self.slots = (nl_u64)heap->rslots;
	return true;
}

nl_u32 nl_cpu(const struct nolock_heap *heap)
{
	nl_u32 index = nl_rseq_index(heap);

	if (nl_likely(index < heap->nr_slots))
		return index;
	return (nl_who(heap) & 0xffff) % heap->nr_slots;
}

void nl_heap_refresh(struct nolock_heap *heap)
{
	nl_u64 end = (nl_u64)nl_load_acquire(&heap->h->nr_open) * NL_GROUP_SIZE;

	if (heap != nl_load(&nl_default) || !heap->rseq_slots)
		return;
	if (end > heap->size)
		end = heap->size;
	end -= heap->first - (nl_u64)heap->base;
	/*
	 * Constant for the process's life, and written before the first object of the heap was handed
	 * out: whoever frees one got it, by whatever way, after that. Who frees something else, NULL
	 * above all, may have read the first address before and the span after this: no pointer is
	 * within any span of what that address was until now. The span comes last: who has read it
	 * (acquire, or x86's own order of loads) sees these two.
	 */
	nl_store(&nl_free_map.first, heap->first);
	nl_store(&nl_free_map.tags, nl_tag(heap->h, heap->h->first_chunk));
	if ((int64_t)end > (int64_t)nl_load(&nl_free_map.span))
		nl_store_release(&nl_free_map.span, end);
}

nl_u32 nl_possible_cpus(void)
{
	static nl_u32 cached;
	char text[256];
	nl_u32 max = 0, number = 0;
	ssize_t n = 0;
	int fd;

	if (cached)
		return cached;
	fd = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text));
		close(fd);
	}
	for (ssize_t i = 0; i < n; i++) {
		if (text[i] >= '0' && text[i] <= '9') {
			number = number * 10 + (nl_u32)(text[i] - '0');
			if (number > max)
				max = number;
		} else {
			number = 0;
		}
	}
	if (n <= 0) {
		/* No sysfs (a chroot): the affinity mask's size is a bound that always works. */
		unsigned long mask[64];
		long bytes = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);

		max = bytes > 0 ? (nl_u32)bytes * 8 - 1 : 63;
	}
	return cached = max + 1;
}

/* Which kind of slot index this process can use; 0 when R-slots must stay unused. */
static nl_u32 rseq_index_offset(bool want_cid)
{
#ifdef NL_HAVE_RSEQ
	const char *off = getenv("NOLOCK_RSEQ");

	if ((off && !strcmp(off, "0")) || !__rseq_size)
		return 0;
	if (!want_cid)
		return RSEQ_CPU_ID;
	/* __rseq_size is 20 up to glibc 2.36 though the kernel may fill in more: ask the kernel. */
	if (getauxval(AT_RSEQ_FEATURE_SIZE) >= RSEQ_MM_CID + 4)
		return RSEQ_MM_CID;
	return RSEQ_CPU_ID;
#else
	(void)want_cid;
	return 0;
#endif
}

static struct nolock_heap *handle_get(void)
{
	for (int i = 0; i < MAX_HANDLES; i++) {
		struct nolock_heap *heap = &handles[i];
		int expected = NL_HANDLE_FREE;
		nl_u32 used;

		if (!__atomic_compare_exchange_n(&heap->state, &expected, NL_HANDLE_BUSY, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		heap->lazy = false;
		nl_store(&heap->size, 0);
		used = nl_load(&nr_handles);
		while (used < (nl_u32)i + 1 && !nl_cas(&nr_handles, used, (nl_u32)i + 1))
			used = nl_load(&nr_handles);
		return heap;
	}
	errno = EMFILE;
	return NULL;
}

static void handle_put(struct nolock_heap *heap)
{
	nl_store(&heap->small, 0);
	nl_store(&heap->rseq_slots, 0);
	nl_store_release(&heap->state, NL_HANDLE_FREE);
}

/*
 * Addresses [at, at + size) are to be this handle's, and no other one's, mapped or not: whose an object
 * is, its address says. Of two who claim the same at once, one at least sees the other.
 */
static bool claim_range(struct nolock_heap *heap, char *at, nl_u64 size)
{
	nl_store(&heap->base, at);
	nl_store_release(&heap->size, size);
	nl_mb();
	for (struct nolock_heap *other = handles; other < handles + nl_load(&nr_handles); other++) {
		nl_u64 its = nl_load_acquire(&other->size);
		char *base = nl_load(&other->base);

		if (other != heap && nl_load(&other->state) != NL_HANDLE_FREE && at < base + its &&
		    base < at + size)
			return false;
	}
	return true;
}

/* The memory is there and formatted: fill in the handle, and let nolock_heap_of() find it. */
static void handle_start(struct nolock_heap *heap, void *mem, nl_u64 size, nl_u32 client)
{
	nl_heap_t *h = mem;
	nl_u64 slot_off = rseq_index_offset(!h->slot_by_cpu);

	heap->h = h;
	heap->base = mem;
	heap->size = size;
	heap->first = (nl_u64)mem + ((nl_u64)h->first_chunk << NL_CHUNK_SHIFT);
	heap->rslots = nl_rslot(h, 0, 0);
	heap->nr_slots = h->nr_slots;
#ifdef NL_HAVE_RSEQ
	heap->rseq_off = (nl_u64)__rseq_offset;
#endif
	heap->slot_off = heap->rseq_off + slot_off;
	/* Without sequences nothing can be taken back from BPF programs. */
	nl_slot_may_steal(slot_off);
	if (!slot_off && nl_load(&h->bias))
		nl_store(&h->bias, 0);
	/* A section does not look whether its index is in range: it must be, by construction. */
	heap->rseq_slots = slot_off && h->nr_slots >= nl_possible_cpus() ? h->nr_slots : 0;
	/* The fast path asks for no node. */
	heap->small = heap->rseq_slots && h->nr_nodes == 1 ? NL_SMALL_MAX : 0;
	for (nl_u32 i = 0; i < NL_SMALL_MAX / 16; i++)
		nl_small_slot[i] = (nl_u16)(nl_kmalloc_index(i * 16 + 1) << NL_SLOT_SHIFT);
	heap->client = client;
	heap->type = h->type;
	heap->fd = -1;
	heap->conn = -1;
	heap->refs = 1;
	heap->pid = (int)getpid();
	heap->snapshot = false;
	memcpy(heap->name, h->name, NL_NAME);
	heap->name[NL_NAME - 1] = 0;
	heap->rcu = NULL;
	nl_heap_refresh(heap);
	nl_store_release(&heap->state, NL_HANDLE_LIVE);
}

/*
 * Reserve address space without using any, as much of it as there is: a limit on address space
 * (ulimit -v) counts it. Guards that nobody can touch stay at both ends. Not
 * MAP_NORESERVE: what is opened is accounted, so that a request that the machine cannot serve fails
 * where it is made.
 */
static void *reserve(nl_u64 *size, nl_u64 least)
{
	nl_u64 guard = nl_hardened() ? NL_GUARD : 0;

	for (; *size >= least; *size = *size / 2 / NL_GROUP_SIZE * NL_GROUP_SIZE) {
		nl_u64 whole = guard + *size + guard, room = whole + NL_GROUP_SIZE;
		char *mem = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		nl_u64 skip;

		if (mem == MAP_FAILED)
			continue;
		/* Aligned to a group, so that 4 MiB runs can be huge pages. */
		skip = -((nl_u64)mem + guard) % NL_GROUP_SIZE;
		if (skip)
			munmap(mem, skip);
		if (room - skip > whole)
			munmap(mem + skip + whole, room - skip - whole);
		return mem + skip + guard;
	}
	errno = ENOMEM;
	return NULL;
}

/* Bytes of address space of this process, as the limit counts them; 0 if nobody says. */
static nl_u64 space_used(void)
{
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	nl_u64 pages = 0;
	char text[32];
	ssize_t n = 0;

	if (fd >= 0) {
		n = read(fd, text, sizeof(text));
		close(fd);
	}
	for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
		pages = pages * 10 + (nl_u64)(text[i] - '0');
	return pages * (nl_u64)sysconf(_SC_PAGESIZE);
}

/* The limit on address space, if the reservation of that size would take half of what it leaves. */
static nl_u64 space_limit(nl_u64 size)
{
	struct rlimit limit;
	nl_u64 used;

	if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return 0;
	used = space_used();
	return limit.rlim_cur < used || limit.rlim_cur - used < 2 * size ? limit.rlim_cur : 0;
}

/* NOLOCK_HEAP_MAX in bytes; 0 if there is none. */
static nl_u64 heap_max(void)
{
	static const char bad[] =
		"nolock: NOLOCK_HEAP_MAX is not a number of MiB from 16 to 262144: "
		"ignored\n";
	const char *text = getenv("NOLOCK_HEAP_MAX");
	nl_u64 mib = 0;

	for (const char *c = text; c && *c; c++) {
		mib = *c >= '0' && *c <= '9' && mib <= NL_DEFAULT_SIZE >> 20 ?
			      mib * 10 + (nl_u64)(*c - '0') :
			      ~0ULL;
		if (mib == ~0ULL)
			break;
	}
	if (!text || !*text)
		return 0;
	if (mib < MIN_PRIVATE_SIZE >> 20 || mib > NL_DEFAULT_SIZE >> 20) {
		if (write(STDERR_FILENO, bad, sizeof(bad) - 1) < 0)
			return 0;
		return 0;
	}
	return mib << 20;
}

#define FAR (NL_GROUP_SIZE * 256) /* 1 GiB */

/*
 * A place for a heap of that size of which the metadata alone are mapped. Chunks are mapped when they
 * are opened, so that the rest of the process has what the heap does not use. The place is one that
 * the system does not come to by itself: it hands out addresses downwards from where it maps now, and
 * not more of them than a limit allows, or than a program uses where there is none.
 */
static char *place(struct nolock_heap *heap, const struct nl_shape *shape, nl_u64 limit)
{
	nl_u64 guard = nl_hardened() ? NL_GUARD : 0, at, meta;
	struct nl_heap h;
	char *mem;

	if (nl_heap_lay_out(&h, shape))
		return NULL;
	meta = (nl_u64)h.first_chunk << NL_CHUNK_SHIFT;
	mem = mmap(NULL, NL_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	munmap(mem, NL_PAGE);
	at = (nl_u64)mem;
	for (int i = 0; i < 8; i++) {
		if (!i && !limit)
			at -= at / 4;
		if (at < limit + shape->size + 2 * FAR)
			break;
		at -= i ? shape->size + FAR : limit + shape->size + FAR;
		at -= at % NL_GROUP_SIZE;
		if (!claim_range(heap, (char *)at, shape->size))
			continue;
		mem = mmap((void *)(at - guard), guard + meta, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (mem == (char *)(at - guard))
			return mem + guard;
		if (mem != MAP_FAILED)
			munmap(mem, guard + meta);
	}
	return NULL;
}

static void unreserve(const struct nolock_heap *heap, char *mem, nl_u64 size, nl_heap_t *h)
{
	nl_u64 guard = nl_hardened() ? NL_GUARD : 0;

	if (!heap->lazy) {
		munmap(mem - guard, guard + size + guard);
		return;
	}
	/* What else may have come to be there is not ours, nor where a part of a group alone is open. */
	for (nl_u32 g = nl_load(&h->cursor); g-- > h->first_chunk >> NL_GROUP_SHIFT;) {
		nl_u32 end = (g + 1) << NL_GROUP_SHIFT;

		if (g >= nl_nr_open(h) || nl_load(&nl_group(h, g)->state) != NL_GROUP_OPEN)
			continue;
		while (nl_load(nl_tag(h, end - 1)) == NL_TAG(NL_KIND_META, 0))
			end--;
		munmap(mem + nl_chunks_at(h, g),
		       ((nl_u64)end << NL_CHUNK_SHIFT) - nl_chunks_at(h, g));
	}
	munmap(mem - guard, guard + ((nl_u64)h->first_chunk << NL_CHUNK_SHIFT));
}

static struct nolock_heap *private_new(nl_u64 size, nl_u64 least)
{
	struct nl_shape shape = { .type = NL_HEAP_PRIVATE, .nr_nodes = nl_nodes(false) };
	struct nolock_heap *heap = handle_get();
	struct nl_heap head;
	nl_u64 fixed, limit, most;
	void *mem = NULL;

	if (!heap)
		return NULL;
	shape.nr_slots = nl_possible_cpus();
	/* An mm_cid may be on this node now and on that one then. */
	shape.slot_by_cpu = shape.nr_nodes > 1 || rseq_index_offset(true) == RSEQ_CPU_ID;
	limit = least < size ? space_limit(size) : 0;
	most = least < size ? heap_max() : 0;
	if (limit || most) {
		/* Twice as large as the limit, as that may be raised. */
		shape.size = (most ? most : 2 * limit) / NL_GROUP_SIZE * NL_GROUP_SIZE;
		if (shape.size > size)
			shape.size = size;
		if (shape.size < least)
			shape.size = least;
		mem = place(heap, &shape, limit);
	}
	heap->lazy = mem != NULL;
	if (mem) {
		size = shape.size;
	} else {
		mem = reserve(&size, least);
		if (!mem)
			goto put;
	}
	shape.base = (nl_u64)mem;
	shape.size = size;
	if (nl_heap_lay_out(&head, &shape)) {
		errno = EINVAL;
		goto unmap;
	}
	fixed = head.off_tag;
	if (mprotect(mem, fixed, PROT_READ | PROT_WRITE)) {
		errno = ENOMEM;
		goto unmap;
	}
	if (nl_heap_format(mem, &shape)) {
		errno = EINVAL;
		goto unmap;
	}
	handle_start(heap, mem, size, 1);
	if (nl_rcu_attach(heap)) {
		nl_store_release(&heap->state, NL_HANDLE_BUSY);
		errno = ENOMEM;
		goto unmap;
	}
	/* Something open for nolock callers, who open nothing. The first group may have no room. */
	if (nl_heap_grow(heap, 1) &&
	    nl_heap_free_chunks(heap) < NL_GROUP_CHUNKS / (heap->lazy ? 8 : 2))
		nl_heap_grow(heap, 1);
	return heap;
unmap:
	unreserve(heap, mem, size, &head); /* no group is open */
put:
	handle_put(heap);
	return NULL;
}

static void make_fork_page(void)
{
	struct fork_page *page =
		mmap(NULL, NL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	page->done = 1;
	if (madvise(page, NL_PAGE, MADV_WIPEONFORK) || !nl_cas(&fork_page, &never_wiped, page))
		munmap(page, NL_PAGE);
}

struct nolock_heap *nl_default_get(void)
{
	struct nolock_heap *heap = nl_load_acquire(&nl_default);

	if (nl_likely(heap != &no_heap))
		return heap;
	if (nl_load(&fork_page) == &never_wiped)
		make_fork_page();
	heap = private_new(NL_DEFAULT_SIZE, MIN_PRIVATE_SIZE);
	if (!heap)
		return NULL;
	if (!nl_cas(&nl_default, &no_heap, heap)) {
		/* A handler, or another thread, was first. */
		nl_store_release(&heap->state, NL_HANDLE_BUSY);
		unreserve(heap, heap->base, heap->size, heap->h);
		handle_put(heap);
		heap = nl_load_acquire(&nl_default);
	}
	return heap;
}

/* For each private heap of the process. */
#define for_each_private(heap)                                                                     \
	for (heap = handles; heap < handles + nl_load(&nr_handles); heap++)                        \
		if (nl_load_acquire(&heap->state) == NL_HANDLE_LIVE && !heap->snapshot &&          \
		    heap->type == NL_HEAP_PRIVATE)

/* Once, also for a handler in between: whatever it finds held it leaves alone. */
static void fork_take_over(struct fork_page *page)
{
	struct nolock_heap *heap;

	nl_store(&page->done, 1);
	for_each_private(heap) {
		nl_heap_repair_fork(heap, nl_load(&page->older));
		nl_rcu_fork(heap);
	}
	nl_shrink_forget(1, nl_load(&page->older), this_thread);
	nl_store(&page->pending, 1);
}

void nl_fork_check(void)
{
	struct fork_page *page = nl_load_acquire(&fork_page);

	if (nl_likely(nl_load(&page->done)))
		return;
	/* Before any thread of the child has a number: nl_who() comes by here first. */
	(void)nl_cas(&page->older, 0, nl_load(&threads) + 1);
	if (!this_thread || this_thread >= nl_load(&page->older) ||
	    nl_load(&threads) >= MAX_THREADS)
		return;
	/* There was no other: nobody held anything. A child in a sandbox may depend on no stat(). */
	if (nl_load(&page->older) == 2)
		nl_store(&page->done, 1);
	else
		fork_take_over(page);
}

/*
 * The thread that forked may have had no number then: it had never been here. It is the one whose
 * thread ID is the process's. Who is not it asks once; a thread that forks after that has a number.
 */
static bool forked_unnumbered(const struct fork_page *page)
{
	static __thread bool asked;

	if (asked || this_thread < nl_load(&page->older) || nl_load(&threads) >= MAX_THREADS)
		return false;
	asked = true;
	return syscall(SYS_gettid) == getpid();
}

void nl_fork_inventory(void)
{
	struct fork_page *page = nl_load_acquire(&fork_page);
	struct nolock_heap *heap;
	struct stat st;

	if (nl_unlikely(!nl_load(&page->done)) && forked_unnumbered(page))
		fork_take_over(page);
	if (nl_likely(!nl_load(&page->pending)) || nl_depth > 1)
		return;
	nl_store(&page->pending, 0);
	/* Directories: one for each thread, and two. Any other thread might be at work. */
	if (stat("/proc/self/task", &st) || st.st_nlink != 3)
		return;
	for_each_private(heap)
		nl_heap_inventory(heap);
}

int nl_heap_is_private(const nl_heap_t *h)
{
	struct nolock_heap *heap;

	for_each_private(heap)
		if (heap->h == h)
			return 1;
	return 0;
}

struct nolock_heap *nolock_heap_default(void)
{
	return nl_default_get();
}

/* kmalloc_nolock() must find a heap: it makes no system call, so it could not make one. */
__attribute__((constructor)) static void make_default_heap(void)
{
	int err = errno;

	/* By its exported name: with the drop-in malloc preloaded that one's heap is the only one. */
	nolock_heap_default();
	errno = err;
}

struct nolock_heap *nolock_heap_create(size_t size)
{
	if (!size)
		return private_new(NL_DEFAULT_SIZE, MIN_PRIVATE_SIZE);
	if (size > NL_MAX_GROUPS * NL_GROUP_SIZE) {
		errno = EINVAL;
		return NULL;
	}
	size = (size + NL_GROUP_SIZE - 1) / NL_GROUP_SIZE * NL_GROUP_SIZE;
	if (size < MIN_PRIVATE_SIZE)
		size = MIN_PRIVATE_SIZE;
	return private_new(size, size);
}

struct nolock_heap *nl_heap_map(int fd, nl_u32 type, nl_u64 base, nl_u64 size, nl_u32 client)
{
	struct nolock_heap *heap = handle_get();
	struct nl_heap copy;
	const char *why;
	void *mem;

	if (!heap)
		return NULL;
	mem = mmap((void *)base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
		   0);
	if (mem == MAP_FAILED || (nl_u64)mem != base) {
		int err = mem == MAP_FAILED ? errno : EEXIST;

		if (mem != MAP_FAILED)
			munmap(mem, size);
		/* An arena answers EINVAL or EBUSY when another address space layout holds it. */
		errno = err == EEXIST || err == EBUSY ? EADDRINUSE : err;
		goto put;
	}
	memcpy(&copy, mem, sizeof(copy));
	if (copy.type != type || nl_heap_validate(&copy, base, size, &why)) {
		errno = EPROTO;
		goto unmap;
	}
	/* A child must not go on using a memory that it shares with its parent by accident; the
	 * kernel does the same for an arena by itself. */
	if (type == NL_HEAP_MEMFD)
		madvise(mem, size, MADV_DONTFORK);
	handle_start(heap, mem, size, client);
	if (nl_rcu_attach(heap)) {
		nl_store_release(&heap->state, NL_HANDLE_BUSY);
		errno = ENOMEM;
		goto unmap;
	}
	heap->fd = fd;
	return heap;
unmap:
	munmap(mem, size);
put:
	handle_put(heap);
	return NULL;
}

static bool name_ok(const char *name)
{
	size_t n = strlen(name);

	if (!n || n > NOLOCK_HEAP_NAME_MAX || name[0] == '.')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
	       n;
}

/* A shared heap of the parent's: its memory is not mapped here, and its client is the parent. */
static void forget_parents(struct nolock_heap *heap)
{
	close(heap->fd);
	if (heap->conn >= 0)
		close(heap->conn);
	handle_put(heap);
}

struct nolock_heap *nolock_heap_open(const char *name)
{
	struct nl_request req = { .op = NL_OP_OPEN };
	struct nolock_heap *heap;
	struct nl_reply rep;
	int conn, fd = -1;

	if (!name || !name_ok(name)) {
		errno = EINVAL;
		return NULL;
	}
	for (nl_u32 i = 0; i < nl_load(&nr_handles); i++) {
		heap = &handles[i];
		if (nl_load_acquire(&heap->state) == NL_HANDLE_LIVE && !heap->snapshot &&
		    heap->type != NL_HEAP_PRIVATE && !strcmp(heap->name, name)) {
			if (heap->pid != (int)getpid()) {
				forget_parents(heap);
				continue;
			}
			__atomic_fetch_add(&heap->refs, 1, __ATOMIC_RELAXED);
			return heap;
		}
	}
	strcpy(req.name, name);
	conn = nl_client_call(&req, &rep, &fd);
	if (conn < 0)
		return NULL;
	heap = nl_heap_map(fd, rep.type, rep.base, rep.size, rep.client);
	if (!heap) {
		int err = errno;

		close(fd);
		close(conn);
		errno = err;
		return NULL;
	}
	heap->conn = conn;
	return heap;
}

int nolock_heap_close(struct nolock_heap *heap)
{
	int err;

	if (!heap || heap == nl_load(&nl_default) || nl_load(&heap->state) != NL_HANDLE_LIVE)
		return -EINVAL;
	if (heap->type != NL_HEAP_PRIVATE && heap->pid != (int)getpid()) {
		forget_parents(heap);
		return 0;
	}
	if (__atomic_sub_fetch(&heap->refs, 1, __ATOMIC_ACQ_REL))
		return 0;
	err = nl_rcu_detach(heap);
	if (err) {
		heap->refs = 1;
		return err;
	}
	nl_store_release(&heap->state, NL_HANDLE_BUSY);
	if (heap->type == NL_HEAP_PRIVATE && !heap->snapshot)
		unreserve(heap, heap->base, heap->size, heap->h);
	else
		munmap(heap->base, heap->size);
	if (heap->fd >= 0)
		close(heap->fd);
	if (heap->conn >= 0)
		nl_client_close(heap->conn);
	handle_put(heap);
	return 0;
}

struct nolock_heap *nolock_heap_of(const void *p)
{
	nl_u32 n = nl_load(&nr_handles);

	for (nl_u32 i = 0; i < n; i++) {
		struct nolock_heap *heap = &handles[i];

		if (nl_load_acquire(&heap->state) == NL_HANDLE_LIVE && !heap->snapshot &&
		    (nl_u64)p - (nl_u64)heap->base < heap->size)
			return heap;
	}
	return NULL;
}

struct nolock_heap *nl_heap_next(struct nolock_heap *heap)
{
	for (heap = heap ? heap + 1 : handles; heap < handles + nl_load(&nr_handles); heap++)
		if (nl_load_acquire(&heap->state) == NL_HANDLE_LIVE && !heap->snapshot)
			return heap;
	return NULL;
}

enum nolock_heap_type nolock_heap_type(const struct nolock_heap *heap)
{
	return heap ? (enum nolock_heap_type)heap->type : NOLOCK_HEAP_NONE;
}

const char *nolock_heap_name(const struct nolock_heap *heap)
{
	return heap ? heap->name : "";
}

int nolock_heap_fd(const struct nolock_heap *heap)
{
	return heap ? heap->fd : -1;
}

unsigned int nolock_heap_layout(const struct nolock_heap *heap)
{
	return heap ? heap->h->version : 0;
}

void *nolock_heap_root(const struct nolock_heap *heap)
{
	return heap ? (void *)nl_load_acquire(&heap->h->root) : NULL;
}

void nolock_heap_set_root(struct nolock_heap *heap, void *p)
{
	if (heap)
		nl_store_release(&heap->h->root, (nl_u64)p);
}

/* For stat.c: a handle on a copy of another process's metadata. */
struct nolock_heap *nl_heap_snapshot(void *mem, nl_u64 size)
{
	struct nolock_heap *heap = handle_get();
	nl_heap_t *h = mem;

	if (!heap)
		return NULL;
	heap->snapshot = true;
	heap->h = h;
	heap->base = mem;
	heap->size = size;
	heap->first = (nl_u64)mem + size;
	heap->rslots = nl_rslot(h, 0, 0);
	heap->nr_slots = h->nr_slots;
	heap->type = h->type;
	heap->fd = -1;
	heap->conn = -1;
	heap->refs = 1;
	memcpy(heap->name, h->name, NL_NAME);
	nl_store_release(&heap->state, NL_HANDLE_LIVE);
	return heap;
}
