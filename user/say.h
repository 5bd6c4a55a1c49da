/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * say.h - what nolockd tells people: one line each, on stderr, or in the system log once it runs
 * in the background.
 */
#ifndef SAY_H
#define SAY_H

#include <stdarg.h>

/* From here on to syslog. */
void say_to_syslog(void);
/* No lines of information, only what went wrong. */
void say_quietly(void);

void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif /* SAY_H */
