// SPDX-License-Identifier: GPL-2.0-only
/*
 * ask.c - see ask.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "internal.h"
#include "wire.h"

const char *ask_socket(void)
{
	const char *path = secure_getenv(NL_SOCKET_ENV);

	return path && *path ? path : NL_SOCKET_PATH;
}

/* What can be said of an error without knowing what was asked; NULL when nothing special. */
static const char *common_error(int err)
{
	switch (err) {
	case ECONNREFUSED:
		return "nolockd does not run there; start it, as root: nolockd --heap=NAME";
	case EACCES:
		return "this user may not use nolockd's socket; see nolockd's --group and --mode";
	case ETIMEDOUT:
		return "nolockd does not answer; is it stopped?";
	case ECONNRESET:
		return "nolockd hung up without an answer";
	case EPROTO:
		return "nolockd is of another version than this nolock";
	}
	return NULL;
}

int ask_call(const struct nl_request *req)
{
	struct nl_reply rep;
	const char *words;
	int conn, e;

	conn = nl_client_call(req, &rep, NULL);
	if (conn >= 0)
		return conn;
	e = errno;
	words = common_error(e);
	if (*rep.message)
		warnx("%s", rep.message);
	else
		warnx("%s: %s", ask_socket(), words ? words : strerror(e));
	return -e;
}

bool ask_running(void)
{
	struct nl_request req = { .op = NL_OP_STATUS };
	struct nl_reply rep;
	int conn = nl_client_call(&req, &rep, NULL);

	if (conn >= 0)
		close(conn);
	return conn >= 0 || errno != ECONNREFUSED;
}

int ask_object(enum nl_op op, const char *name, json_object **o)
{
	struct nl_request req = { .op = op };
	int conn, err;
	char *text;

	snprintf(req.name, sizeof(req.name), "%s", name);
	conn = ask_call(&req);
	if (conn < 0)
		return conn;
	err = wire_receive_text(conn, &text);
	close(conn);
	if (err) {
		warnx("%s: nolockd hung up in the middle of its answer: %s", ask_socket(),
		      strerror(-err));
		return err;
	}
	*o = json_tokener_parse(text);
	free(text);
	if (*o)
		return 0;
	warnx("%s: nolockd's answer is no JSON", ask_socket());
	return -EPROTO;
}

void ask_complain(const char *heap, int err)
{
	const char *words = common_error(err);

	if (err == ENOENT)
		warnx("nolockd at %s has no heap '%s'; nolock status lists those that it has",
		      ask_socket(), heap);
	else if (err == EUCLEAN)
		warnx("heap '%s' is damaged and not served; nolock status says more", heap);
	else if (err == EADDRINUSE)
		warnx("heap '%s' cannot be mapped: its address is taken in this process", heap);
	else if (words)
		warnx("%s: %s", ask_socket(), words);
	else
		warnx("heap '%s' cannot be opened: %s", heap, strerror(err));
}
