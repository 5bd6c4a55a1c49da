/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * keeper.h - a shared heap's keeper: the process that looks after what is in the heap.
 *
 * Whatever a client writes into a shared heap, nolockd must survive (P5). So nolockd itself never
 * maps a heap: for each one it forks a keeper without any privilege, which formats or validates
 * the heap, keeps memory ahead of demand, repairs what dead clients held, and answers what needs a
 * look into the heap. Garbage can stop the keeper; nolockd sees that and says so.
 *
 * They talk over a SOCK_SEQPACKET pair: nolockd sends struct keeper_order, some with a client's
 * connection beside it that the keeper answers and closes; the keeper sends struct keeper_report.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdint.h>
#include <sys/types.h>

#include "memory.h"
#include "proto.h"

enum keeper_op {
	KEEPER_OPEN = 1, /* write the client into the table, send the reply on the connection */
	KEEPER_GONE,	 /* the client is gone: repair, clear its entry, report KEEPER_REPAIRED */
	KEEPER_CHECK,	 /* run the check, send its JSON on the connection */
	KEEPER_PING,	 /* report KEEPER_FIGURES */
};

struct keeper_order {
	uint32_t op;
	uint32_t client;
	int32_t pid;
	uint32_t pad;
	uint64_t starttime;
};

enum keeper_event {
	KEEPER_CLIENT = 1, /* found in the table of an adopted heap */
	KEEPER_READY,	   /* the heap is whole and served, or error says why not */
	KEEPER_REPAIRED,   /* of client: value locks were taken over */
	KEEPER_FIGURES,	   /* answer to a ping */
};

struct keeper_report {
	uint32_t event;
	uint32_t client;
	int32_t error; /* negative errno; FIGURES: why the heap's program does not grow it */
	int32_t pid;
	uint64_t starttime;
	uint64_t value;	  /* REPAIRED: locks */
	uint64_t opened;  /* FIGURES, all bytes: memory that may be handed out */
	uint64_t free;	  /* of it in free chunks, the reserve not counted */
	uint64_t reserve; /* set aside for nolock callers */
	uint64_t target;  /* what was asked for to be set aside */
	uint64_t grown;	  /* opened by the heap's program since the keeper began */
	char text[128];	  /* READY: the error in words */
};

/* What a keeper has to do for its heap. */
struct keeper_job {
	const struct memory *memory;
	uint64_t populate;  /* bytes */
	uint64_t watermark; /* free bytes kept in each size class */
	int sock;	    /* its end of the pair */
};

/*
 * keeper_run - be the keeper; never returns
 * Called in the forked child. Closes every descriptor but its own.
 */
void keeper_run(const struct keeper_job *job) __attribute__((noreturn));

#endif /* KEEPER_H */
