// SPDX-License-Identifier: GPL-2.0-only
/*
 * capture.c - see capture.h.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/libbpf.h>

#include "capture.h"

static struct {
	libbpf_print_fn_t saved;
	char why[160];
	bool from_verifier;
} capture;

/* The last line of a verifier log that is neither a statistic nor a register dump. */
static void capture_log(const char *log)
{
	const char *end = strstr(log, "-- END PROG LOAD LOG --");
	const char *line = log, *next;
	char best[sizeof(capture.why)] = "";

	for (; line < end; line = next) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t len;

		next = stop ? stop + 1 : end;
		len = (size_t)((stop ? stop : end) - line);
		if (!len || *line == ';' || (*line >= '0' && *line <= '9') ||
		    !strncmp(line, "processed ", 10) || !strncmp(line, "arg#", 4) ||
		    !strncmp(line, "verification time", 17) || !strncmp(line, "stack depth", 11))
			continue;
		if (len >= sizeof(best))
			len = sizeof(best) - 1;
		memcpy(best, line, len);
		best[len] = 0;
	}
	if (best[0]) {
		strcpy(capture.why, best);
		capture.from_verifier = true;
	}
}

static int capture_print(enum libbpf_print_level level, const char *format, va_list args)
{
	char *text = NULL, *log;
	int len;

	if (level == LIBBPF_DEBUG)
		return 0;
	len = vasprintf(&text, format, args);
	if (len < 0)
		return 0;
	log = strstr(text, "-- BEGIN PROG LOAD LOG --");
	if (log) {
		log = strchr(log, '\n');
		if (log && strstr(log, "-- END PROG LOAD LOG --"))
			capture_log(log + 1);
	} else if (level == LIBBPF_WARN && !capture.why[0] && !capture.from_verifier) {
		const char *p = strncmp(text, "libbpf: ", 8) ? text : text + 8;

		snprintf(capture.why, sizeof(capture.why), "%.*s", (int)strcspn(p, "\n"), p);
	}
	free(text);
	return len;
}

void nl_capture_begin(void)
{
	capture.why[0] = 0;
	capture.from_verifier = false;
	capture.saved = libbpf_set_print(capture_print);
}

const char *nl_capture_end(void)
{
	libbpf_set_print(capture.saved);
	return capture.why;
}
