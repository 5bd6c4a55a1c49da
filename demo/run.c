// SPDX-License-Identifier: GPL-2.0-only
/*
 * run.c - the demonstration, make run: nolockd with a shared heap, real work in it from signal
 * handlers, from BPF programs and from NMI context, a live table, and whether all of it held.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <json-c/json.h>
#include <nolock/stat.h>

#include "ask.h"
#include "bpf_work.h"
#include "handlers.h"
#include "json.h"
#include "load.h"
#include "spec.h"
#include "stat_table.h"
#include "table.h"
#include "temp.h"

#define HEAP "demo"
#define HEAP_SPEC HEAP ":256M:16M"
#define DEFAULT_SECONDS 10
/* Rows of each live table: both fit on a terminal of 40 lines. */
#define ROWS 10

static struct shared {
	struct handlers_shared handlers;
	struct load_shared load;
} * shared;

static struct run {
	char dir[TEMP_DIR_LEN]; /* of the socket and of the load's files */
	char socket[96];
	char self[PATH_MAX];
	pid_t nolockd, handlers, load;
	struct nolock_heap *heap;
	struct bpf_work *bpf;
	const char *no_bpf; /* why there is no BPF work */
	struct bpf_work_counts bpf_counts;
	unsigned long long seconds;
} run;

static volatile sig_atomic_t interrupted;

static void interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* A child that ends when this process does, whatever becomes of it. */
static pid_t child(void)
{
	pid_t pid, parent = getpid();

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		warn("cannot fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	/* Ctrl-C goes to everybody; this process says when it is over. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	return 0;
}

/* nolockd beside this program: BUILD/demo/run and BUILD/user/nolockd. */
static void exec_nolockd(int ready)
{
	char path[PATH_MAX], usdt[PATH_MAX + 8], socket[128];
	char copy[PATH_MAX];

	strcpy(copy, run.self);
	snprintf(path, sizeof(path), "%s/../user/nolockd", dirname(copy));
	snprintf(usdt, sizeof(usdt), "--usdt=%s", run.self);
	snprintf(socket, sizeof(socket), "--socket=%s", run.socket);
	dup2(ready, STDOUT_FILENO);
	/*
	 * Anew: what a killed run has left pinned has that run's objects in it. SIGINT stays ignored
	 * beyond exec: what stops nolockd here is SIGTERM.
	 */
	execl(path, "nolockd", "--heap=" HEAP_SPEC, "--reformat=" HEAP, "--destroy-on-exit",
	      "--trace-nested", socket, usdt, NULL);
	warn("%s", path);
	_exit(1);
}

/* Start nolockd and wait for its READY. */
static int start_nolockd(void)
{
	char text[256];
	int ready[2];
	ssize_t n;

	if (pipe2(ready, O_CLOEXEC)) {
		warn("pipe");
		return -1;
	}
	run.nolockd = child();
	if (run.nolockd == 0)
		exec_nolockd(ready[1]);
	close(ready[1]);
	n = run.nolockd > 0 ? read(ready[0], text, sizeof(text)) : 0;
	close(ready[0]);
	if (n > 0)
		return 0;
	warnx("nolockd did not start");
	return -1;
}

static int start_children(void)
{
	run.handlers = child();
	if (run.handlers == 0)
		_exit(handlers_run(HEAP, &shared->handlers));
	run.load = child();
	if (run.load == 0)
		_exit(load_run(run.dir, &shared->load));
	return run.handlers > 0 && run.load > 0 ? 0 : -1;
}

static int start(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED || !realpath("/proc/self/exe", run.self)) {
		warn("cannot start");
		return -1;
	}
	if (temp_dir(run.dir, "nolock-run"))
		return -1;
	snprintf(run.socket, sizeof(run.socket), "%s/nolockd.sock", run.dir);
	setenv(NL_SOCKET_ENV, run.socket, 1);
	if (start_nolockd() || start_children())
		return -1;
	run.heap = nolock_heap_open(HEAP);
	if (!run.heap) {
		ask_complain(HEAP, errno);
		return -1;
	}
	if (nolock_heap_type(run.heap) == NOLOCK_HEAP_ARENA)
		run.bpf = bpf_work_start(run.heap, &run.no_bpf);
	else
		run.no_bpf = "the heap is no bpf_arena, as nolockd said";
	if (!run.bpf)
		warnx("no BPF programs in this run: %s; the rest goes on", run.no_bpf);
	else if (bpf_work_no_nmi(run.bpf))
		warnx("nothing runs in NMI context: %s", bpf_work_no_nmi(run.bpf));
	return 0;
}

static const char *count(uint64_t n)
{
	static char buf[8][SHORT_LEN];
	static unsigned int next;

	return short_count(buf[next++ % 8], n);
}

static void print_work(void)
{
	const struct handlers_shared *h = &shared->handlers;
	const struct bpf_work_counts *b = &run.bpf_counts;

	printf("handlers: %s signals, %s allocations, %s frees, %s failures; main flow: %s, %s, %s\n",
	       count(h->signals), count(h->handler_allocs), count(h->handler_frees),
	       count(h->handler_failures), count(h->main_allocs), count(h->main_frees),
	       count(h->main_failures));
	if (run.bpf)
		printf("BPF: %s events, %s allocations, %s frees, %s failures; NMI: %s, %s, %s, %s\n",
		       count(b->events), count(b->allocs), count(b->frees), count(b->failures),
		       count(b->nmi_hits), count(b->nmi_allocs), count(b->nmi_frees),
		       count(b->nmi_failures));
}

/* One refresh. The tables' earlier state comes in and goes out by *heap and *kernel. */
static void show(unsigned int second, json_object **heap, json_object **kernel, double seconds)
{
	static const struct stat_order order = { .key = "allocs", .most = ROWS };
	json_object *h = stat_collect_heap(run.heap), *k = NULL;

	if (run.bpf)
		bpf_work_counts(run.bpf, &run.bpf_counts);
	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[J", stdout);
	printf("--- second %u of %llu\n", second, run.seconds);
	print_work();
	stat_print_heap(h, *heap, seconds, &order);
	if (!ask_object(NL_OP_KERNEL, "", &k))
		stat_print_kernel(k, *kernel, seconds, &order);
	putchar('\n');
	/* Nobody reads any more (make run | head): then it ends, and cleans up, as by Ctrl-C. */
	if (fflush(stdout))
		interrupted = 1;
	json_object_put(*heap);
	json_object_put(*kernel);
	*heap = h;
	*kernel = k;
}

/* Is a child that should be running still there? */
static bool all_alive(void)
{
	return waitpid(run.nolockd, NULL, WNOHANG) == 0 &&
	       waitpid(run.handlers, NULL, WNOHANG) == 0 && waitpid(run.load, NULL, WNOHANG) == 0;
}

static int watch(void)
{
	json_object *heap = NULL, *kernel = NULL;
	double began = now(), last = began, at;
	unsigned int second;
	int status = 0;

	for (second = 1; second <= run.seconds && !interrupted; second++) {
		while (!interrupted && (at = now()) < began + second)
			usleep((began + second - at) * 1e6);
		if (!all_alive()) {
			warnx("one of the processes ended before its time");
			status = -1;
			break;
		}
		at = now();
		show(second, &heap, &kernel, at - last);
		last = at;
	}
	json_object_put(heap);
	json_object_put(kernel);
	return status;
}

static int end(pid_t *pid, int sig)
{
	int status = 0;

	if (*pid <= 0)
		return 0;
	if (sig)
		kill(*pid, sig);
	while (waitpid(*pid, &status, 0) < 0 && errno == EINTR)
		;
	*pid = 0;
	return status;
}

static bool failed;

/* One line of the verdict; what does not hold makes the whole run fail. */
static void verdict(bool held, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void verdict(bool held, const char *fmt, ...)
{
	va_list ap;

	printf("%s ", held ? "  ok  " : "FAILED");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	failed |= !held;
}

static void judge_events(void)
{
	json_object *status, *tracing, *counts;
	uint64_t seen, lost;

	if (ask_object(NL_OP_STATUS, "", &status)) {
		verdict(false, "nolockd does not answer");
		return;
	}
	tracing = json_object_object_get(status, "tracing");
	if (*json_text(tracing, "why")) {
		printf("   -   kernel events: not traced: %s\n", json_text(tracing, "why"));
	} else {
		counts = json_object_object_get(tracing, "counts");
		seen = json_u64(counts, "seen");
		lost = json_u64(counts, "lost");
		verdict(seen && !lost,
			"slab events: %llu seen, %llu lost (%llu missed by the kernel's own count, %llu "
			"without room in the table, %llu in the stream)",
			(unsigned long long)seen, (unsigned long long)lost,
			(unsigned long long)json_u64(counts, "lost_missed"),
			(unsigned long long)json_u64(counts, "lost_full"),
			(unsigned long long)json_u64(counts, "lost_ring"));
	}
	json_object_put(status);
}

static void judge_heap(void)
{
	json_object *o;
	bool whole;

	if (ask_object(NL_OP_CHECK, HEAP, &o)) {
		verdict(false, "the heap could not be checked");
		return;
	}
	whole = json_object_get_boolean(json_object_object_get(o, "whole"));
	verdict(whole && !json_u64(o, "allocated") && !json_u64(o, "refused") &&
			!json_u64(o, "locks_held"),
		"heap check: %s, %llu objects, %llu still allocated, %llu frees refused, %llu locks "
		"held%s%s",
		whole ? "whole" : "NOT whole", (unsigned long long)json_u64(o, "objects"),
		(unsigned long long)json_u64(o, "allocated"),
		(unsigned long long)json_u64(o, "refused"),
		(unsigned long long)json_u64(o, "locks_held"), whole ? "" : ": ",
		json_text(o, "first_error"));
	json_object_put(o);
}

static void judge(int handlers_status)
{
	const struct handlers_shared *h = &shared->handlers;
	const struct bpf_work_counts *b = &run.bpf_counts;

	printf("summary\n");
	verdict(!handlers_status && h->handler_allocs && !h->handler_failures &&
			h->handler_allocs + h->main_allocs == h->handler_frees + h->main_frees,
		"signal handlers: %llu allocations, %llu frees, %llu failures in %llu signals",
		(unsigned long long)h->handler_allocs, (unsigned long long)h->handler_frees,
		(unsigned long long)h->handler_failures, (unsigned long long)h->signals);
	verdict(h->main_allocs && !h->main_failures,
		"the flow that they interrupt: %llu allocations, %llu frees, %llu failures",
		(unsigned long long)h->main_allocs, (unsigned long long)h->main_frees,
		(unsigned long long)h->main_failures);
	if (run.bpf) {
		verdict(b->allocs && b->allocs == b->frees && !b->failures,
			"BPF: %llu allocations, %llu frees, %llu failures at %llu sampled events",
			(unsigned long long)b->allocs, (unsigned long long)b->frees,
			(unsigned long long)b->failures, (unsigned long long)b->events);
		if (bpf_work_no_nmi(run.bpf))
			printf("   -   NMI: %s\n", bpf_work_no_nmi(run.bpf));
		else
			verdict(b->nmi_allocs && b->nmi_allocs == b->nmi_frees && !b->nmi_failures,
				"NMI: %llu allocations, %llu frees, %llu failures",
				(unsigned long long)b->nmi_allocs, (unsigned long long)b->nmi_frees,
				(unsigned long long)b->nmi_failures);
	} else {
		printf("   -   BPF and NMI: %s\n", run.no_bpf);
	}
	verdict(!(h->corruptions + b->corruptions), "objects not as they had been left: %llu",
		(unsigned long long)(h->corruptions + b->corruptions));
	judge_events();
	judge_heap();
}

static void stop(void)
{
	char path[128];
	int status, i;

	bpf_work_free(run.bpf);
	if (run.heap)
		nolock_heap_close(run.heap);
	end(&run.handlers, SIGKILL);
	end(&run.load, SIGKILL);
	/* 3: without the right to use BPF, as it said at the start. */
	status = end(&run.nolockd, SIGTERM);
	if (status && !(WIFEXITED(status) && WEXITSTATUS(status) == 3))
		warnx("nolockd did not end as it should");
	/* Files of a load that was killed in the middle of a round. */
	for (i = 0; *run.dir && i < 16; i++) {
		snprintf(path, sizeof(path), "%s/load-%d", run.dir, i);
		unlink(path);
	}
	if (*run.dir && rmdir(run.dir))
		warn("%s", run.dir);
}

static int parse(int argc)
{
	const char *seconds = getenv("RUN_SECONDS");
	uint64_t value;

	if (argc > 1) {
		warnx("no arguments; RUN_SECONDS=N in the environment sets how long it runs");
		return -1;
	}
	run.seconds = DEFAULT_SECONDS;
	if (!seconds || !*seconds)
		return 0;
	if (spec_number(seconds, 1, 1000000, &value)) {
		warnx("RUN_SECONDS=%s: must be a number from 1 to 1000000", seconds);
		return -1;
	}
	run.seconds = value;
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = interrupt, .sa_flags = SA_RESETHAND };
	int status;

	(void)argv;
	if (parse(argc))
		return 2;
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (start() || watch()) {
		stop();
		return 1;
	}
	__atomic_store_n(&shared->load.stop, true, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->handlers.stop, true, __ATOMIC_RELAXED);
	end(&run.load, 0);
	status = end(&run.handlers, 0);
	if (run.bpf)
		bpf_work_finish(run.bpf, &run.bpf_counts);
	judge(status);
	printf("%s\n", failed ? "NOT all of it held" : "all of it held");
	fflush(stdout);
	stop();
	return failed ? 1 : 0;
}
