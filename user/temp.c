// SPDX-License-Identifier: GPL-2.0-only
/*
 * temp.c - see temp.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temp.h"

/* What mkdtemp() wants at the end, and replaces. */
#define SUFFIX 6

int temp_dir(char dir[TEMP_DIR_LEN], const char *name)
{
	const char *below = secure_getenv("TMPDIR");
	char blanks[SUFFIX];
	int len, err = 0;

	memset(blanks, 'X', sizeof(blanks));
	if (!below || !*below)
		below = P_tmpdir;
	len = snprintf(dir, TEMP_DIR_LEN, "%s/%s-%.*s", below, name, SUFFIX, blanks);
	if (*below != '/') {
		warnx("TMPDIR=%s: must be a path from '/' on", below);
		err = -EINVAL;
	} else if (len >= TEMP_DIR_LEN) {
		warnx("TMPDIR=%s: longer than %d bytes, so sockets' paths would be too long; set another",
		      below, TEMP_DIR_LEN - 1 - (len - (int)strlen(below)));
		err = -ENAMETOOLONG;
	} else if (!mkdtemp(dir)) {
		err = -errno;
		warnx("cannot make a directory in %s (TMPDIR sets another): %s", below,
		      strerror(-err));
	}
	if (err)
		*dir = 0;
	return err;
}
