// SPDX-License-Identifier: GPL-2.0-only
/*
 * daemon.c - see daemon.h.
 */
#define _GNU_SOURCE
#include <cap-ng.h>
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"
#include "fuzz.h"
#include "heaps.h"
#include "loop.h"
#include "say.h"
#include "server.h"
#include "temp.h"

static char dir[TEMP_DIR_LEN];
static struct heaps_options opts = { .watermark = 4 << 10, .access.mode = 0600 };
static pid_t us;

static void clean_up(void)
{
	if (getpid() != us)
		return;
	server_stop();
	heaps_stop();
	rmdir(dir);
}

void fuzz_heap_start(void)
{
	struct heap_spec spec = {
		.name = FUZZ_HEAP, .size = 16 << 20, .sized = true, .populated = true
	};

	if (heaps_start(&spec, &opts, true))
		errx(1, "no heap");
}

void fuzz_daemon_start(char *path, size_t size)
{
	signal(SIGPIPE, SIG_IGN);
	say_quietly();
	/* No arena: nothing of this is to be pinned anywhere. */
	if (!capng_get_caps_process()) {
		capng_updatev(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN, CAP_BPF,
			      CAP_PERFMON, -1);
		capng_apply(CAPNG_SELECT_CAPS);
	}
	opts.access.uid = geteuid();
	opts.access.gid = getegid();
	if (temp_dir(dir, "nolock-fuzz"))
		exit(1);
	us = getpid();
	snprintf(path, size, "%s/s", dir);
	if (loop_init() || server_bind(path, &opts.access))
		errx(1, "no socket");
	fuzz_heap_start();
	if (server_serve())
		errx(1, "cannot serve");
	atexit(clean_up);
}
