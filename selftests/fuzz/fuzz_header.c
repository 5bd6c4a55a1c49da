// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz_header.c - a heap's header, as a nolockd finds it: what is taken for valid can be gone by. The
 * first bytes of an input say which valid header the rest of it spoils.
 */
#include "fuzz.h"
#include "internal.h"

static void within(const struct nl_heap *h, nl_u64 from, nl_u64 bytes)
{
	FUZZ_ASSERT(from % 8 == 0 && from >= sizeof(*h) && bytes <= h->size &&
		    from <= h->size - bytes);
}

/* Whatever is reached by an index that is in its range lies in the heap. */
static void can_be_gone_by(const struct nl_heap *h, nl_u64 base, nl_u64 size)
{
	nl_u64 words = (h->nr_groups + 63) / 64;

	FUZZ_ASSERT(h->base == base && h->size == size && h->size == h->nr_groups * NL_GROUP_SIZE);
	FUZZ_ASSERT(h->nr_slots && h->nr_nodes && h->nr_nodes <= NL_MAX_NODES);
	FUZZ_ASSERT(h->nr_sheaves && h->nr_sheaves % 64 == 0);
	within(h, h->off_cache, NL_MAX_CACHES * sizeof(struct nl_cache));
	within(h, h->off_rslot, (nl_u64)h->nr_slots * NL_MAX_CACHES * sizeof(struct nl_slot));
	within(h, h->off_aslot, (nl_u64)h->nr_slots * NL_MAX_CACHES * sizeof(struct nl_slot));
	within(h, h->off_node, h->nr_slots);
	within(h, h->off_smap, h->nr_sheaves / 8);
	within(h, h->off_sheaf, (nl_u64)h->nr_sheaves * sizeof(struct nl_sheaf));
	within(h, h->off_gfree, (h->nr_nodes + 1) * words * 8);
	within(h, h->off_gpart, h->nr_nodes * NL_MAX_CACHES * words * 8);
	within(h, h->off_tag, (nl_u64)h->nr_groups * NL_GROUP_CHUNKS * sizeof(nl_u32));
	within(h, h->off_group, (nl_u64)h->nr_groups * sizeof(struct nl_group));
	FUZZ_ASSERT(h->off_group + h->nr_groups * sizeof(struct nl_group) <=
		    (nl_u64)h->first_chunk << NL_CHUNK_SHIFT);
	FUZZ_ASSERT((nl_u64)h->first_chunk << NL_CHUNK_SHIFT < h->size);
	FUZZ_ASSERT(h->nr_open <= h->nr_groups && h->limit <= h->nr_groups);
	FUZZ_ASSERT(h->nr_open >= h->first_chunk >> NL_GROUP_SHIFT);
	FUZZ_ASSERT(memchr(h->name, 0, sizeof(h->name)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct nl_shape shape = {
		.base = 0x567000000000ULL,
		.type = NL_HEAP_MEMFD + (nl_u32)input_number(&in, 1) % 2,
		.nr_nodes = 1 + (nl_u32)input_number(&in, 1) % NL_MAX_NODES,
		.slot_by_cpu = 1,
		.name = "fuzz",
	};
	const char *why = "";
	struct nl_heap h;

	shape.nr_slots = 1 + (nl_u32)input_number(&in, 2) % 512;
	shape.size = (4 + input_number(&in, 2) % 1021) * NL_GROUP_SIZE;
	if (nl_heap_lay_out(&h, &shape))
		return 0;
	h.magic = NL_MAGIC;
	FUZZ_ASSERT(!nl_heap_validate(&h, shape.base, shape.size, &why) && !why);
	can_be_gone_by(&h, shape.base, shape.size);
	while (in.left) {
		size_t at = input_number(&in, 2) % offsetof(struct nl_heap, client) & ~3UL;
		nl_u64 value = input_nasty(&in);

		memcpy((char *)&h + at, &value, at % 8 ? 4 : 8);
	}
	if (!nl_heap_validate(&h, shape.base, shape.size, &why))
		can_be_gone_by(&h, shape.base, shape.size);
	else
		FUZZ_ASSERT(why && *why);
	return 0;
}
