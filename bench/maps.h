/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* maps.h - what maps.bpf.c and maps.c agree upon. */
#ifndef BENCH_MAPS_H
#define BENCH_MAPS_H

/* Bytes of a record in the rows of batches. */
#define MAPS_VALUE 64
#define MAPS_BATCH 1000
/* Live records in the rows of tables. */
#define MAPS_RECORDS 1000000
#define MAPS_BITS 20

struct maps_value {
	__u64 word[MAPS_VALUE / 8];
};

/* The records' keys: all different, in no order. */
#define MAPS_KEY(i) ((__u64)(i)*0x9e3779b97f4a7c15ULL + 1)

#endif /* BENCH_MAPS_H */
