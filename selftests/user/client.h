/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * client.h - processes that use a shared heap, for tests: each obeys one letter at a time.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

struct client {
	pid_t pid;
	int to, from;
};

/*
 * Orders, and their answer in words:
 *   'a' allocate 2000 objects of many sizes, fill them with a pattern
 *   'v' verify all of them
 *   'f' verify and free them
 *   'c' close the heap         'o' open it again
 *   'd' close every descriptor that the process has, the pipes left out
 *   'g' overwrite the heap's header with garbage
 *   's' start to allocate and free until it is killed (answers first)
 *   'q' exit without closing anything
 * Each answers "ok" or says what is wrong.
 */
void client_start(struct client *c, const char *heap);
const char *client_do(struct client *c, char order);
void client_kill(struct client *c);

#define DO(c, order)                                                                               \
	do {                                                                                       \
		const char *answer_ = client_do((c), (order));                                     \
		cr_assert_str_eq(answer_, "ok", "client, order '%c': %s", (order), answer_);       \
	} while (0)

/* A client can allocate and free in the test's heap, which is whole then; asserts. */
void heap_serves(void);

/*
 * A process whose BPF program is at work in the test's heap all the time.
 * program_goes_on - wait until it has run from beginning to end since now; asserts
 */
struct program {
	pid_t pid;
	struct program_book {
		unsigned long runs;
		unsigned int failed; /* allocations */
	} * book;
};
void program_start(struct program *p);
void program_goes_on(struct program *p);
void program_stop(struct program *p);

/*
 * Connections by hand: dial - to nolockd; dial_heap - one that is the test's heap's client's, or is
 * refused, and nolockd's error; both return -1 when there is none. close_heap - say that the client
 * has closed the heap; false if that cannot be said.
 */
int dial(void);
int dial_heap(int *error);
bool close_heap(int conn);

#endif /* CLIENT_H */
