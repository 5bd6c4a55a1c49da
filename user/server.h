/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * server.h - nolockd's socket: who asks what, and the answers.
 */
#ifndef SERVER_H
#define SERVER_H

#include "bpffs.h"

/*
 * server_bind - take the socket: make its directory, replace a stale socket, refuse when another
 * nolockd answers there
 * Clients may connect from then on; nobody is answered before server_serve().
 * Returns 0, or a negative errno after one line to the user.
 */
int server_bind(const char *path, const struct access *access);

/* server_serve - answer from now on. Returns 0 or a negative errno. */
int server_serve(void);

/* server_tick - end connections that ask nothing. */
void server_tick(void);

/* server_stop - close all connections, remove the socket, and its directory when made here. */
void server_stop(void);

#endif /* SERVER_H */
