/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * temp.h - temporary directories of the demonstration and of tests, with room for a socket in each.
 */
#ifndef TEMP_H
#define TEMP_H

/* Bytes of a directory's path. Those of a socket's are 108, and a file's name in it has the rest. */
#define TEMP_DIR_LEN 80

/*
 * temp_dir - make a directory below $TMPDIR, or where the system has them
 * @dir: gets its path: @name, '-' and six more characters; "" when there is none
 * Returns 0, or a negative errno after a line on stderr; -ENAMETOOLONG when $TMPDIR is too long for
 * the path, -EINVAL when it does not begin with '/'.
 */
int temp_dir(char dir[TEMP_DIR_LEN], const char *name);

#endif /* TEMP_H */
