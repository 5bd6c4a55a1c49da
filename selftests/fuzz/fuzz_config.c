// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz_config.c - what people write on nolockd's command line: sizes, numbers, names, heaps; and what
 * clients call themselves, which stands in a file that nolockd reads.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/layout.h"
#include "fuzz.h"
#include "spec.h"
#include "wire.h"

static void heap(const char *text)
{
	struct heap_spec s;
	const char *why = NULL;

	if (spec_heap(text, &s, &why)) {
		FUZZ_ASSERT(why && *why);
		return;
	}
	FUZZ_ASSERT(spec_name_ok(s.name));
	FUZZ_ASSERT(strlen(s.name) <= NOLOCK_HEAP_NAME_MAX && !strpbrk(s.name, "/:"));
	FUZZ_ASSERT(s.size >= 16 << 20 && s.size <= 4ULL << 30 && s.size % NL_GROUP_SIZE == 0);
	FUZZ_ASSERT(s.populate <= s.size / 2 && s.populate % NL_CHUNK_SIZE == 0);
	FUZZ_ASSERT(s.sized || s.size == 256 << 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned long long started;
	uint64_t value = 0;
	char text[256];

	if (!size || size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	heap(text);
	spec_name_ok(text);
	if (!spec_size(text, &value))
		FUZZ_ASSERT(*text >= '0' && *text <= '9');
	if (!spec_number(text, 10, 1000, &value))
		FUZZ_ASSERT(value >= 10 && value <= 1000);
	if (data[0] % 8)
		return 0;
	if (!started)
		started = process_starttime(getpid());
	prctl(PR_SET_NAME, text);
	FUZZ_ASSERT(started && process_starttime(getpid()) == started);
	return 0;
}
