// SPDX-License-Identifier: GPL-2.0-only
/*
 * memory.c - what a process's memory is made of: its RSS, and libnolock's heap from inside.
 *
 * The heap's layout is read directly, by the core's headers: libnolock tells sums over a cache, and
 * here R-slots and A-slots are told apart, and pages that are there from those that are not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <nolock/stat.h>

#include "process.h"
#include "core/slot.h"

/* A line "Name: N kB" of a file in /proc/self, in bytes; 0 if it is not there. */
static uint64_t proc_kb(const char *path, const char *name)
{
	char text[8192], *at;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0, got;

	if (fd < 0)
		return 0;
	while ((got = read(fd, text + n, sizeof(text) - 1 - (size_t)n)) > 0)
		n += got;
	close(fd);
	text[n] = 0;
	at = strstr(text, name);
	return at ? strtoull(at + strlen(name), NULL, 10) << 10 : 0;
}

uint64_t memory_rss(void)
{
	return proc_kb("/proc/self/smaps_rollup", "\nRss:");
}

uint64_t memory_peak(void)
{
	return proc_kb("/proc/self/status", "\nVmHWM:");
}

static struct {
	struct nolock_heap *(*heap)(void);
	int (*heap_stat)(const struct nolock_heap *, struct nolock_heap_stat *);
	int (*cache_stat)(const struct nolock_heap *, unsigned int, struct nolock_cache_stat *);
} lib;

/* Is libnolock in this process? */
static bool find_lib(struct nolock_heap_stat *st)
{
	lib.heap = dlsym(RTLD_DEFAULT, "nolock_heap_default");
	lib.heap_stat = dlsym(RTLD_DEFAULT, "nolock_heap_stat");
	lib.cache_stat = dlsym(RTLD_DEFAULT, "nolock_heap_cache_stat");
	return lib.heap && lib.heap_stat && lib.cache_stat && !lib.heap_stat(lib.heap(), st);
}

static void add_counts(struct work_counts *c, const nl_slot_t *slot, bool is_a)
{
	uint64_t allocs = NL_WORD_ALLOCS(slot->word);
	uint64_t frees = NL_WORD_SIZE(slot->word) + allocs + slot->stat[NL_STAT_OUT] -
			 slot->stat[NL_STAT_IN];

	c->allocs += allocs + slot->stat[NL_STAT_ALLOC_SLOWPATH];
	c->frees += frees + slot->stat[NL_STAT_FREE_SLOWPATH];
	if (is_a) {
		c->a_allocs += allocs;
		c->a_frees += frees;
	}
	c->slow_allocs += slot->stat[NL_STAT_ALLOC_SLOWPATH];
	c->slow_frees += slot->stat[NL_STAT_FREE_SLOWPATH];
	c->next_bucket += slot->stat[NL_STAT_NEXT_BUCKET];
	c->refilled += slot->stat[NL_STAT_SHEAF_REFILL];
	c->flushed += slot->stat[NL_STAT_SHEAF_FLUSH];
	c->barn_locks += slot->stat[NL_STAT_BARN_GET] + slot->stat[NL_STAT_BARN_PUT];
	c->slab_visits += slot->stat[NL_STAT_BARN_GET_FAIL];
	c->slot_locks += slot->stat[NL_STAT_SLOT_LOCK];
	c->busy += slot->stat[NL_STAT_BUSY];
	c->slabs_made += slot->stat[NL_STAT_ALLOC_SLAB];
	c->slabs_freed += slot->stat[NL_STAT_FREE_SLAB];
}

bool memory_counts(struct work_counts *c)
{
	struct nolock_heap_stat st;
	nl_heap_t *h;

	memset(c, 0, sizeof(*c));
	if (!find_lib(&st))
		return false;
	h = (nl_heap_t *)st.base;
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++) {
		nl_u32 cap = nl_cache(h, id)->capacity;

		if (nl_cache(h, id)->state != NL_CACHE_LIVE)
			continue;
		for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
			nl_slot_t *r = nl_rslot(h, cpu, id), *a = nl_aslot(h, cpu, id);

			add_counts(c, r, false);
			add_counts(c, a, true);
			c->from_barn +=
				cap * (r->stat[NL_STAT_BARN_GET] + a->stat[NL_STAT_BARN_GET]);
		}
	}
	return true;
}

/* Bytes of a range whose pages are there. */
static uint64_t present(uint64_t start, uint64_t end)
{
	static unsigned char vec[4096];
	uint64_t n = 0;

	start &= ~(uint64_t)(NL_PAGE - 1);
	for (uint64_t at = start; at < end; at += sizeof(vec) * NL_PAGE) {
		uint64_t bytes = end - at < sizeof(vec) * NL_PAGE ? end - at :
								    sizeof(vec) * NL_PAGE;

		if (mincore((void *)at, bytes, vec))
			continue;
		for (uint64_t i = 0; i < (bytes + NL_PAGE - 1) / NL_PAGE; i++)
			n += (vec[i] & 1) * NL_PAGE;
	}
	return n;
}

/* The chunks, by what they are now. */
static void map_chunks(nl_heap_t *h, struct work_map *map)
{
	uint64_t slabs = 0, large = 0, slab_bytes = 0;

	for (nl_u32 chunk = h->first_chunk; chunk < h->nr_open << NL_GROUP_SHIFT; chunk++) {
		uint64_t at = h->base + ((uint64_t)chunk << NL_CHUNK_SHIFT);
		uint64_t here = present(at, at + NL_CHUNK_SIZE);

		switch (NL_TAG_KIND(*nl_tag(h, chunk))) {
		case NL_KIND_SLAB:
			slabs += here;
			slab_bytes += NL_CHUNK_SIZE;
			break;
		case NL_KIND_LARGE:
		case NL_KIND_BODY:
			large += here;
			map->large += NL_CHUNK_SIZE;
			break;
		default:
			map->free_present += here;
		}
	}
	map->slabs_absent = slab_bytes - slabs;
	map->large_absent = map->large - large;
	map->present = slabs + large + map->free_present + map->metadata;
}

bool memory_map(struct work_map *map)
{
	struct nolock_cache_stat st;
	struct nolock_heap_stat heap;
	nl_heap_t *h;
	int error;

	memset(map, 0, sizeof(*map));
	map->rss = memory_rss();
	if (!find_lib(&heap))
		return false;
	h = (nl_heap_t *)heap.base;
	for (unsigned int id = 0; (error = lib.cache_stat(lib.heap(), id, &st)) != -ERANGE; id++) {
		uint64_t in_barns = (uint64_t)st.barn_full * st.sheaf_capacity;

		if (error)
			continue;
		if (in_barns > st.in_sheaves)
			in_barns = st.in_sheaves;
		map->objects += st.allocated * st.size;
		map->barns += in_barns * st.size;
		map->slots += (st.in_sheaves - in_barns) * st.size;
		map->slabs += st.in_slabs * st.size;
		map->tails += st.slabs * (NL_CHUNK_SIZE - (uint64_t)st.objs_per_slab * st.size);
	}
	map->metadata = present(h->base, h->base + ((uint64_t)h->first_chunk << NL_CHUNK_SHIFT));
	map_chunks(h, map);
	return true;
}

static bool same_file(const char *a, void *b)
{
	Dl_info x, y;
	void *p = dlsym(RTLD_DEFAULT, a);

	return p && b && dladdr(p, &x) && dladdr(b, &y) && x.dli_fbase == y.dli_fbase;
}

/* Each allocator's own way to give back what is free; some have none. */
void memory_trim(void)
{
	size_t (*nolock)(struct nolock_heap *) = dlsym(RTLD_DEFAULT, "nolock_heap_trim");
	void (*mimalloc)(bool) = dlsym(RTLD_DEFAULT, "mi_collect");
	void (*tcmalloc)(void) = dlsym(RTLD_DEFAULT, "MallocExtension_ReleaseFreeMemory");
	int (*jemalloc)(const char *, void *, size_t *, void *, size_t) =
		dlsym(RTLD_DEFAULT, "mallctl");
	int (*glibc)(size_t) = dlsym(RTLD_DEFAULT, "malloc_trim");
	struct nolock_heap_stat st;

	if (nolock && find_lib(&st))
		nolock(lib.heap());
	else if (mimalloc)
		mimalloc(true);
	else if (tcmalloc)
		tcmalloc();
	else if (jemalloc)
		jemalloc("arena.4096.purge", NULL, NULL, NULL, 0); /* MALLCTL_ARENAS_ALL */
	else if (glibc && same_file("malloc", (void *)glibc))
		glibc(0);
}
