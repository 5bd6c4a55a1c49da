/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * proto.h - what libnolock, nolock and nolockd say to each other.
 *
 * One Unix socket of type SOCK_SEQPACKET. A client sends struct nl_request; nolockd answers with
 * one struct nl_reply, with a descriptor (SCM_RIGHTS) where the operation gives one, and then,
 * where the operation says so, with packets of text; a packet that is one newline ends the text.
 * Any other operation than OPEN has a connection to itself.
 *
 * An OPEN connection stays open for as long as the client uses the heap. A client that is done
 * sends CLOSE on it. A connection that ends without a CLOSE says nothing: the process may have
 * closed its descriptors while it goes on using the mapping, so nolockd then waits for the
 * process itself to end before it takes back what the client held.
 */
#ifndef NL_PROTO_H
#define NL_PROTO_H

#include <stdint.h>

#define NL_SOCKET_ENV "NOLOCK_SOCKET"
#define NL_SOCKET_PATH "/run/nolock/nolockd.sock"

#define NL_PROTO_MAGIC 0x4c4f4c4eu /* "NLOL" */
#define NL_PROTO_VERSION 1u

/* Largest packet of text. */
#define NL_PROTO_TEXT 16384u

enum nl_op {
	NL_OP_OPEN = 1, /* a heap by name: the descriptor of its memory, and a client index */
	NL_OP_STATUS,	/* JSON text: nolockd itself, its heaps, its programs, what is missing */
	NL_OP_KERNEL,	/* JSON text: the kernel's caches, as nolock stat --kernel shows them */
	NL_OP_TRACE,	/* JSON lines of events, until the client closes */
	NL_OP_CHECK,	/* JSON text: nolock_heap_check() of the named heap */
	NL_OP_CLOSE,	/* on an OPEN connection: the client has unmapped the heap; no answer */
	NL_OP_REBUILD,	/* make the named heap anew; the answer comes when it is whole */
};

/* Flags of REBUILD: also a heap that is served. */
#define NL_REBUILD_FORCE 1u

struct nl_request {
	uint32_t magic;
	uint32_t version;
	uint32_t op;
	uint32_t flags;	 /* REBUILD: NL_REBUILD_*; else 0 */
	char name[32];	 /* OPEN, CHECK, REBUILD: the heap; TRACE: the cache, or "" for all */
	int32_t pid;	 /* TRACE: this process alone, or 0 */
	uint32_t sample; /* TRACE: one event of so many; 0 and 1: all */
};

struct nl_reply {
	uint32_t magic;
	uint32_t version;
	int32_t error; /* 0 or a positive errno */
	uint32_t type; /* enum nolock_heap_type */
	uint32_t client;
	uint32_t pad;
	uint64_t base;	   /* where to map */
	uint64_t size;	   /* bytes to map, from offset 0 */
	char message[128]; /* the error in words */
};

/* client.c: end an OPEN connection: the heap is unmapped. */
__attribute__((visibility("hidden"))) void nl_client_close(int conn);

#endif /* NL_PROTO_H */
