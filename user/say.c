// SPDX-License-Identifier: GPL-2.0-only
/*
 * say.c - see say.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdbool.h>
#include <syslog.h>

#include "say.h"

static bool to_syslog;
static bool quiet;

void say_to_syslog(void)
{
	openlog("nolockd", LOG_PID, LOG_DAEMON);
	to_syslog = true;
}

void say_quietly(void)
{
	quiet = true;
}

void say(const char *fmt, ...)
{
	va_list ap;

	if (quiet)
		return;
	va_start(ap, fmt);
	if (to_syslog)
		vsyslog(LOG_INFO, fmt, ap);
	else
		vwarnx(fmt, ap);
	va_end(ap);
}

void complain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (to_syslog)
		vsyslog(LOG_WARNING, fmt, ap);
	else
		vwarnx(fmt, ap);
	va_end(ap);
}
