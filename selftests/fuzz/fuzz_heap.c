// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz_heap.c - a heap whose metadata were overwritten, word by word as the input says: what a keeper
 * asks of such a heap comes to an end, and never goes beyond the heap. One in which each word is one
 * that it may be is also repaired, as after the death of a client.
 */
#define _GNU_SOURCE
#include <err.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/kmalloc.h"
#include "core/slot.h"
#include "fuzz.h"
#include "internal.h"

#define BASE 0x567000000000ULL
#define SIZE (16ULL << 20)
#define DEAD 3u /* whose death is repaired */

static struct nolock_heap *heap;
static char *saved;
static size_t metadata;
static struct {
	nl_u64 from, to;
} rooms[10];
static unsigned int nr_rooms;

static void room(nl_u64 from, nl_u64 to)
{
	rooms[nr_rooms].from = from;
	rooms[nr_rooms++].to = to;
}

/* Locked by the dead, with a step under way. */
static void leave_locks(nl_heap_t *h)
{
	const nl_u64 held = NL_HELD(NL_OWNER_WHO(NL_OWNER(DEAD, 1)));
	nl_u32 id = nl_kmalloc_cache(200, 0);

	nl_aslot(h, 0, id)->lock = held;
	nl_cache(h, id)->barn[0].lock = held;
	for (nl_u32 c = h->first_chunk; c < h->nr_open << NL_GROUP_SHIFT; c++)
		if (*nl_tag(h, c) == NL_TAG(NL_KIND_SLAB, id)) {
			nl_slab(h, c)->lock = held;
			nl_slab(h, c)->intent = NL_INTENT(NL_INTENT_RELEASE, 1, 0, 0);
			break;
		}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct nl_shape shape = { .base = BASE,
				  .size = SIZE,
				  .type = NL_HEAP_MEMFD,
				  .nr_slots = 2,
				  .nr_nodes = 1,
				  .slot_by_cpu = 1,
				  .name = "fuzz" };
	static void *obj[1000];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	void *mem;
	nl_heap_t *h;

	(void)argc;
	(void)argv;
	if (fd < 0 || ftruncate(fd, SIZE))
		err(1, "memfd");
	mem = mmap((void *)BASE, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
		   0);
	if (mem == MAP_FAILED || nl_heap_format(mem, &shape))
		err(1, "a heap");
	munmap(mem, SIZE);
	heap = nl_heap_map(fd, NL_HEAP_MEMFD, BASE, SIZE, 1);
	if (!heap || !nl_heap_grow(heap, 3))
		err(1, "the heap's mapping");
	for (unsigned int i = 0; i < 1000; i++)
		obj[i] = nolock_heap_kmalloc(heap, i % 3 ? 200 : 16 + i, GFP_KERNEL);
	for (unsigned int i = 0; i < 1000; i += 1 + i % 2)
		kfree(obj[i]);
	if (!nolock_heap_kmalloc(heap, 300000, GFP_KERNEL) || nolock_heap_check(heap, NULL))
		errx(1, "the heap is not whole");
	h = heap->h;
	leave_locks(h);
	metadata = h->off_group + h->nr_open * sizeof(struct nl_group);
	room(0, offsetof(struct nl_heap, client));
	room(h->off_cache, h->off_rslot);
	room(h->off_rslot, h->off_aslot);
	room(h->off_aslot, h->off_node);
	room(h->off_node, h->off_sheaf);
	room(h->off_sheaf, h->off_gfree);
	room(h->off_gfree, h->off_tag);
	room(h->off_tag, h->off_tag + h->nr_open * NL_GROUP_CHUNKS * sizeof(nl_u32));
	room(h->off_group, metadata);
	room(offsetof(struct nl_heap, client), sizeof(*h));
	saved = malloc(metadata);
	if (!saved)
		err(1, "memory");
	memcpy(saved, (void *)h, metadata);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct nolock_heap_report rep = { 0 };
	struct nolock_heap_stat st = { 0 };
	struct nl_heap header;
	const char *name = "";
	char why[128] = "";

	while (in.left) {
		unsigned int r = (unsigned int)input_number(&in, 1);
		nl_u64 from = rooms[r % nr_rooms].from, to = rooms[r % nr_rooms].to;
		nl_u64 value = 0, at = from + input_number(&in, 3) % (to - from);
		size_t bytes = r & 0x80 ? 8 : r & 0x40 ? 4 : 2;

		at -= at % bytes;
		/* Another word of the same heap is often the nastiest. */
		if (r & 0x20)
			memcpy(&value, saved + input_number(&in, 3) % (metadata - 8), 8);
		else
			value = input_nasty(&in);
		memcpy((char *)heap->base + at, &value, bytes);
	}
	memcpy(&header, (void *)heap->h, sizeof(header));
	if (!nl_heap_validate(&header, BASE, SIZE, &name)) {
		int wrong = nl_heap_sane(heap, &header, 0, 1, why, sizeof(why));

		FUZZ_ASSERT(!wrong == !*why);
		if (nolock_heap_check(heap, &rep))
			FUZZ_ASSERT(*rep.first_error);
		nolock_heap_stat(heap, &st);
		if (!wrong) {
			nl_heap_repair(heap, DEAD);
			nolock_heap_check(heap, &rep);
		}
	}
	memcpy((void *)heap->base, saved, metadata);
	return 0;
}
