/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * wire.h - sending and receiving packets with a descriptor, and texts, over Unix sockets.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stddef.h>
#include <sys/types.h>

/* Send one packet, with fd unless it is -1. Returns 0 or a negative errno. */
int wire_send(int sock, const void *data, size_t len, int fd, int flags);

/*
 * Receive one packet; *fd is the descriptor that came with it, or -1. Returns its length (0: the
 * other side closed) or a negative errno.
 */
ssize_t wire_receive(int sock, void *data, size_t len, int *fd, int flags);

/*
 * How much of a text's len bytes goes into the next packet: never so much that a single byte is
 * left over, for a packet that is one newline ends the text.
 */
size_t wire_part(size_t len);

/* Send a text in packets of NL_PROTO_TEXT and the packet that ends it. Waits. */
int wire_send_text(int sock, const char *text, size_t len);

/* Receive a whole text; *text is to be freed. Returns 0 or a negative errno. */
int wire_receive_text(int sock, char **text);

/* Field 22 of /proc/PID/stat: together with the pid it names a process for ever. 0: none. */
unsigned long long process_starttime(pid_t pid);

#endif /* WIRE_H */
