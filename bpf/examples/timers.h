/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* timers.h - a program in a timer interrupt on each CPU, 2000 times a second of its running time. */
#ifndef EXAMPLES_TIMERS_H
#define EXAMPLES_TIMERS_H

#include <err.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/libbpf.h>

#define MAX_TIMERS 64

/* The links, up to NULL, for detach_timers(). */
static inline void attach_timers(struct bpf_program *prog, struct bpf_link *links[MAX_TIMERS + 1])
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.size = sizeof(attr),
		.sample_period = 500000,
	};
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	int n = 0;

	for (long cpu = 0; cpu < nr && n < MAX_TIMERS; cpu++) {
		int fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, 0);

		if (fd < 0)
			err(1, "no timer on CPU %ld", cpu);
		links[n] = bpf_program__attach_perf_event(prog, fd);
		if (!links[n++])
			err(1, "cannot attach to the timer of CPU %ld", cpu);
	}
	links[n] = NULL;
}

static inline void detach_timers(struct bpf_link *links[MAX_TIMERS + 1])
{
	for (int i = 0; links[i]; i++)
		bpf_link__destroy(links[i]);
}

#endif /* EXAMPLES_TIMERS_H */
