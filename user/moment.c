// SPDX-License-Identifier: GPL-2.0-only
/* moment.c - see moment.h. */
#define _GNU_SOURCE
#include <unistd.h>

#include "moment.h"

bool keepers_end(unsigned int *tries)
{
	if (*tries >= 50)
		return false;
	++*tries;
	usleep(20000);
	return true;
}
