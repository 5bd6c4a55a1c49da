/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * proto.h - what libnolock, nolock and nolockd say to each other.
 *
 * One Unix socket of type SOCK_SEQPACKET. A client sends struct nl_request; nolockd answers with
 * one struct nl_reply, with a descriptor (SCM_RIGHTS) where the operation gives one, and then,
 * where the operation says so, with packets of text up to an empty line of its own.
 * An OPEN connection stays open for as long as the client uses the heap: its end is how nolockd
 * learns that the client is gone.
 */
#ifndef NL_PROTO_H
#define NL_PROTO_H

#include <stdint.h>

#define NL_SOCKET_ENV "NOLOCK_SOCKET"
#define NL_SOCKET_PATH "/run/nolock/nolockd.sock"

#define NL_PROTO_MAGIC 0x4c4f4c4eu /* "NLOL" */
#define NL_PROTO_VERSION 1u

enum nl_op {
	NL_OP_OPEN = 1, /* a heap by name: the descriptor of its memory, and a client index */
	NL_OP_STATUS,	/* JSON text: nolockd itself, its heaps, its programs, what is missing */
	NL_OP_KERNEL,	/* JSON text: the kernel's caches, as nolock stat --kernel shows them */
	NL_OP_TRACE,	/* JSON lines of events, until the client closes */
	NL_OP_CHECK,	/* JSON text: nolock_heap_check() of the named heap */
};

struct nl_request {
	uint32_t magic;
	uint32_t version;
	uint32_t op;
	uint32_t flags; /* 0 */
	char name[32];	/* the heap, or "" */
};

struct nl_reply {
	uint32_t magic;
	uint32_t version;
	int32_t error; /* 0 or a positive errno */
	uint32_t type; /* enum nolock_heap_type */
	uint32_t client;
	uint32_t pad;
	uint64_t base; /* where to map */
	uint64_t size; /* bytes to map, from offset 0 */
	char message[80]; /* the error in words */
};

#endif /* NL_PROTO_H */
