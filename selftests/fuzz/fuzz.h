/* SPDX-License-Identifier: GPL-2.0-only */
/* fuzz.h - what the fuzz targets have in common. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define FUZZ_ASSERT(cond)                                                                          \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* An input is read from its start; what is missing is 0. */
struct input {
	const uint8_t *data;
	size_t left;
};

static inline void input_bytes(struct input *in, void *to, size_t n)
{
	size_t have = n < in->left ? n : in->left;

	memset(to, 0, n);
	memcpy(to, in->data, have);
	in->data += have;
	in->left -= have;
}

static inline uint64_t input_number(struct input *in, size_t bytes)
{
	uint64_t value = 0;

	input_bytes(in, &value, bytes);
	return value;
}

/* A number that an index, a bound or a size would not like, or any. */
static inline uint64_t input_nasty(struct input *in)
{
	static const uint64_t some[] = { 0,	   1,	       2,     63,	  64,	   126,
					 127,	   255,	       256,   0xffff,	  0x10000, ~0u,
					 1u << 31, 1ULL << 32, ~0ULL, 1ULL << 63, 4 << 20 };
	uint8_t which = (uint8_t)input_number(in, 1);

	return which & 0x80 ? some[which % (sizeof(some) / sizeof(some[0]))] : input_number(in, 8);
}

#endif /* FUZZ_H */
