/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ask.h - nolock asks nolockd: one operation, one answer; what goes wrong in one line.
 */
#ifndef ASK_H
#define ASK_H

#include <stdbool.h>
#include <json-c/json.h>

#include "proto.h"

/* Where nolockd is asked. */
const char *ask_socket(void);

/*
 * ask_call - send a request
 * Returns the connection, or a negative errno after one line to the user.
 */
int ask_call(const struct nl_request *req);

/*
 * ask_object - ask for a JSON text
 * @name: the heap, or ""
 * Returns 0 and *o, which is to be put, or a negative errno after one line to the user.
 */
int ask_object(enum nl_op op, const char *name, json_object **o);

/* ask_running - does a nolockd answer? */
bool ask_running(void);

/* ask_complain - one line for an error of nolock_heap_open(). */
void ask_complain(const char *heap, int err);

#endif /* ASK_H */
