// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_trace.c - nolock trace: slab events of the kernel and of libnolock, as they happen.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "cmd.h"
#include "json.h"
#include "spec.h"

static const char doc[] =
	"Show slab events as they happen: the kernel's allocations and frees, its sheaf and barn "
	"functions where the kernel lets itself be traced there, and what libnolock does off its "
	"fast paths."
	"\v"
	"USAGE\n"
	"  A kernel makes hundreds of thousands of these a second. --cache, --pid and --sample pick "
	"some in the kernel; what nolock still cannot print in time is lost, and the line at the "
	"end says how many that were. One reader at a time.\n"
	"\n"
	"EXAMPLES\n"
	"  nolock trace --cache=filp --duration=5\n"
	"  nolock trace --cache='kmalloc-*' --sample=1000\n"
	"  nolock trace --pid=1234 --json\n";

enum {
	OPT_DURATION = 0x100,
};

static const struct argp_option options[] = {
	{ "cache", 'c', "NAME", 0, "This cache alone; a '*' at the end stands for any rest", 0 },
	{ "pid", 'p', "PID", 0, "This process alone", 0 },
	{ "sample", 's', "N", 0, "One of N events on each CPU", 0 },
	{ "duration", OPT_DURATION, "SECONDS", 0, "End by itself after so long", 0 },
	{ "json", 'j', NULL, 0, "For programs: a JSON object a line", 0 },
	{ 0 },
};

static struct {
	struct nl_request req;
	uint64_t seconds;
	bool json;
} args = { .req.op = NL_OP_TRACE };

static struct {
	unsigned long long shown, lost;
} count;

static volatile sig_atomic_t interrupted;

static uint64_t number(struct argp_state *state, const char *name, const char *arg, uint64_t max)
{
	uint64_t value = 0;

	if (spec_number(arg, 1, max, &value))
		argp_failure(state, EXIT_TROUBLE, 0, "--%s=%s: must be a number from 1 to %llu",
			     name, arg, (unsigned long long)max);
	return value;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	const char *star;

	switch (key) {
	case 'c':
		star = strchr(arg, '*');
		if (!*arg || strlen(arg) >= sizeof(args.req.name) || (star && star[1]))
			argp_failure(
				state, EXIT_TROUBLE, 0,
				"--cache=%s: must be a cache's name of at most %zu characters, "
				"with a '*' at its end alone",
				arg, sizeof(args.req.name) - 1);
		strcpy(args.req.name, arg);
		break;
	case 'p':
		args.req.pid = number(state, "pid", arg, INT32_MAX);
		break;
	case 's':
		args.req.sample = number(state, "sample", arg, UINT32_MAX);
		break;
	case OPT_DURATION:
		args.seconds = number(state, "duration", arg, 1000000);
		break;
	case 'j':
		args.json = true;
		break;
	case ARGP_KEY_ARG:
		argp_failure(state, EXIT_TROUBLE, 0, "'%s': nolock trace takes options alone", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static void interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* What an event is about, beside its cache: each kind has its own. */
static void print_rest(const json_object *o)
{
	static const char *const keys[] = { "ptr",    "bytes_req", "bytes_alloc", "objects",
					    "chunk",  "groups",	   "heap",	  "flags",
					    "reason", "ret" };
	json_object *v;
	unsigned int i;

	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		if (json_object_object_get_ex(o, keys[i], &v))
			printf(" %s=%s", keys[i], json_object_get_string(v));
	if (json_object_object_get_ex(o, "symbol", &v) ||
	    json_object_object_get_ex(o, "call_site", &v))
		printf(" at %s", json_object_get_string(v));
	putchar('\n');
}

static void print_event(const json_object *o)
{
	uint64_t ns = json_u64(o, "ns");
	char who[40];

	snprintf(who, sizeof(who), "%s/%llu", json_text(o, "comm"),
		 (unsigned long long)json_u64(o, "tid"));
	printf("%6llu.%06llu %3llu %-22s %-20s %-20s", (unsigned long long)(ns / 1000000000),
	       (unsigned long long)(ns % 1000000000 / 1000), (unsigned long long)json_u64(o, "cpu"),
	       who, json_text(o, "kind"), json_text(o, "cache"));
	print_rest(o);
}

static void take_line(const char *line, size_t len)
{
	json_object *o, *v;

	o = json_tokener_parse(line);
	if (!o)
		return;
	if (json_object_object_get_ex(o, "lost", &v) ||
	    json_object_object_get_ex(o, "dropped", &v)) {
		count.lost += json_object_get_uint64(v);
		if (args.json)
			printf("%.*s\n", (int)len, line);
	} else {
		count.shown++;
		if (args.json)
			printf("%.*s\n", (int)len, line);
		else
			print_event(o);
	}
	json_object_put(o);
}

/* Packets cut the text anywhere: keep the beginning of a line for the next packet. */
static void take_text(char *buf, size_t *held)
{
	char *line = buf, *end;

	while ((end = memchr(line, '\n', buf + *held - line))) {
		*end = 0;
		take_line(line, end - line);
		line = end + 1;
	}
	*held -= line - buf;
	memmove(buf, line, *held);
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* Returns 0 when it ended as asked, or a negative errno. */
static int stream(int conn)
{
	uint64_t end = args.seconds ? now() + args.seconds * 1000 : UINT64_MAX;
	struct pollfd pfd = { .fd = conn, .events = POLLIN };
	static char buf[4 * NL_PROTO_TEXT];
	size_t held = 0;
	uint64_t at;
	ssize_t n;

	while (!interrupted && (at = now()) < end) {
		if (poll(&pfd, 1, end - at < 1000 ? (int)(end - at) : 1000) <= 0)
			continue;
		n = recv(conn, buf + held, sizeof(buf) - held, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		held += n;
		take_text(buf, &held);
		/* No event is as long as that: nolockd would be out of its mind. */
		if (held > sizeof(buf) - NL_PROTO_TEXT)
			return -EPROTO;
		if (fflush(stdout))
			return -errno;
	}
	return 0;
}

int cmd_trace(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	struct sigaction act = { .sa_handler = interrupt, .sa_flags = SA_RESETHAND };
	int conn, err;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	conn = ask_call(&args.req);
	if (conn < 0)
		return EXIT_TROUBLE;
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	if (!args.json)
		printf("%13s %3s %-22s %-20s %-20s WHAT\n", "SECONDS", "CPU", "TASK", "EVENT",
		       "CACHE");
	err = stream(conn);
	close(conn);
	if (err)
		warnx("nolockd ended the stream: %s", strerror(-err));
	if (!args.json)
		warnx("%llu events shown, %llu lost on the way", count.shown, count.lost);
	return err ? EXIT_TROUBLE : 0;
}
