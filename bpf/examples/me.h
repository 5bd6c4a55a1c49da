/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* me.h - is it the process that asked? By its number in its own pid namespace, as in a container. */
#ifndef EXAMPLES_ME_H
#define EXAMPLES_ME_H

#ifdef __bpf__

const volatile __u64 me_dev, me_ino;
const volatile __u32 me_pid;

static __always_inline int is_me(void)
{
	struct bpf_pidns_info info;

	return !bpf_get_ns_current_pid_tgid(me_dev, me_ino, &info, sizeof(info)) &&
	       info.tgid == me_pid;
}

#else

#include <err.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a skeleton that is opened and not yet loaded. */
#define set_me(skel)                                                                               \
	do {                                                                                       \
		struct stat ns;                                                                    \
                                                                                                   \
		if (stat("/proc/self/ns/pid", &ns))                                                \
			err(1, "/proc/self/ns/pid");                                               \
		(skel)->rodata->me_dev = ns.st_dev;                                                \
		(skel)->rodata->me_ino = ns.st_ino;                                                \
		(skel)->rodata->me_pid = (__u32)getpid();                                          \
	} while (0)

#endif

#endif /* EXAMPLES_ME_H */
