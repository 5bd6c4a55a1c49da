// SPDX-License-Identifier: GPL-2.0-only
/*
 * peer.c - one process for each allocator, all of one program.
 *
 * An allocator that replaces malloc is used by its users in one of two ways: linked, or by
 * LD_PRELOAD; both end in the same symbol at the head of the search order, and in initial-exec
 * TLS. dlopen() would be a third that nobody uses, with slower TLS for some and no TLS space for
 * others. So each allocator, libnolock.so among them, is preloaded into a process of its own, and
 * the processes take turns on the same CPUs: A B C, C B A, ... within milliseconds, so that a
 * change of the machine's speed meets all of them.
 *
 * Allocators of a later Debian are where scripts/peers has unpacked them. One that wants a later C
 * library runs with that one, by its own loader.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

/* Long enough for the slowest peer on a machine that has other work as well. */
#define ANSWER_SECONDS 120

#define LIBNOLOCK "../lib/libnolock.so.0"
#define MALLOC "malloc,free,realloc"

const struct allocator allocators[] = {
	{ .name = "kmalloc_nolock",
	  .kind = KIND_OURS,
	  .entry = ENTRY_NOLOCK,
	  .file = LIBNOLOCK,
	  .calls = "-" },
	{ .name = "tcmalloc",
	  .kind = KIND_PEER,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .package = "libtcmalloc-minimal4",
	  .soname = { "libtcmalloc_minimal.so.4", "libtcmalloc.so.4" } },
	{ .name = "kmalloc",
	  .kind = KIND_OURS,
	  .entry = ENTRY_KMALLOC,
	  .file = LIBNOLOCK,
	  .calls = "-" },
	{ .name = "mimalloc3",
	  .kind = KIND_PEER,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .file = "../peers/mimalloc3.so" },
	{ .name = "nolock-malloc",
	  .kind = KIND_OURS,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .file = "../lib/libnolock-malloc.so" },
	{ .name = "rpmalloc",
	  .kind = KIND_PEER,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .file = "../peers/rpmalloc.so" },
	{ .name = "mimalloc2",
	  .kind = KIND_PEER,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .package = "libmimalloc2.0",
	  .soname = { "libmimalloc.so.2" } },
	{ .name = "jemalloc",
	  .kind = KIND_PEER,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .package = "libjemalloc2",
	  .soname = { "libjemalloc.so.2" } },
	{ .name = "glibc", .kind = KIND_PEER, .entry = ENTRY_MALLOC, .calls = MALLOC },
	/* Debian's build hangs on sizes from 32761 to 65528. */
	{ .name = "AO_malloc",
	  .kind = KIND_SAFE,
	  .entry = ENTRY_MALLOC,
	  .calls = "AO_malloc,AO_free",
	  .file = "../peers/AO_malloc.so",
	  .largest = 32760 },
	{ .name = "snmalloc",
	  .kind = KIND_PEER,
	  .entry = ENTRY_MALLOC,
	  .calls = MALLOC,
	  .file = "../peers/snmalloc.so" },
	{ .name = "kmem_cache_alloc",
	  .kind = KIND_OTHER,
	  .entry = ENTRY_CACHE,
	  .calls = "-",
	  .file = LIBNOLOCK },
	{ .name = "prefilled",
	  .kind = KIND_OTHER,
	  .entry = ENTRY_SHEAF,
	  .calls = "-",
	  .file = LIBNOLOCK },
};
const unsigned int nr_allocators = sizeof(allocators) / sizeof(*allocators);
_Static_assert(sizeof(allocators) / sizeof(*allocators) <= NR_ALLOCATORS_MAX, "struct result");

char *beside(const char *name)
{
	char self[PATH_MAX], *slash, *path;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		err(1, "/proc/self/exe");
	self[n] = 0;
	slash = strrchr(self, '/');
	if (!slash || asprintf(&path, "%.*s/%s", (int)(slash - self), self, name) < 0)
		errx(1, "out of memory");
	return path;
}

static const char *worker(void)
{
	static char *path;

	if (!path)
		path = beside("load/load");
	return path;
}

#define LOADER_ARGS 5

/* What comes before a program's own arguments, for the allocator to be its malloc. */
static unsigned int prefix(const struct found *f, const char **argv)
{
	unsigned int n = 0;

	if (f && f->loader) {
		argv[n++] = f->loader;
		argv[n++] = "--library-path";
		argv[n++] = f->libs;
		argv[n++] = "--preload";
		argv[n++] = f->path;
	}
	return n;
}

/*
 * A process of ours. Close-on-exec is for all ends but its own: EOF must mean that we are gone.
 * Returns its pid or a negative errno.
 */
static int start(int fd, const struct found *f, const char *const *args)
{
	const char *argv[LOADER_ARGS + BENCH_MAX_CPUS + 16];
	unsigned int n = prefix(f, argv);
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid)
		return pid;
	/* No peer outlives the one who asks it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fcntl(fd, F_SETFD, 0);
	if (f && *f->path && !f->loader)
		setenv("LD_PRELOAD", f->path, 1);
	else
		unsetenv("LD_PRELOAD");
	while (*args)
		argv[n++] = *args++;
	argv[n] = NULL;
	execv(argv[0], (char *const *)argv);
	err(1, "bench: cannot start %s", argv[0]);
}

static int pair_of_ends(int fds[2])
{
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return 0;
}

static int finish_start(struct peer *p, int fds[2], int pid)
{
	close(fds[1]);
	p->failed = false;
	p->pid = pid;
	p->fd = fds[0];
	if (pid >= 0)
		return 0;
	close(fds[0]);
	return pid;
}

int peer_start(struct peer *p, const struct allocator *a, const struct found *f,
	       const struct options *o, uint64_t aside)
{
	const char *argv[BENCH_MAX_CPUS + 8];
	char text[3][24], cpus[BENCH_MAX_CPUS][12];
	unsigned int n = 0;
	int fds[2], error = pair_of_ends(fds);

	if (error)
		return error;
	snprintf(text[0], sizeof(text[0]), "%d", fds[1]);
	snprintf(text[1], sizeof(text[1]), "%d", (int)a->entry);
	snprintf(text[2], sizeof(text[2]), "%llu", (unsigned long long)aside);
	argv[n++] = worker();
	argv[n++] = "serve";
	argv[n++] = text[0];
	argv[n++] = text[1];
	argv[n++] = a->calls;
	argv[n++] = text[2];
	for (unsigned int i = 0; i < o->nr_cpus; i++) {
		snprintf(cpus[i], sizeof(cpus[i]), "%d", o->cpus[i]);
		argv[n++] = cpus[i];
	}
	argv[n] = NULL;
	return finish_start(p, fds, start(fds[1], f, argv));
}

int peer_spawner(struct peer *p)
{
	char text[24];
	const char *argv[] = { worker(), "spawn", text, NULL };
	int fds[2], error = pair_of_ends(fds);

	if (error)
		return error;
	snprintf(text, sizeof(text), "%d", fds[1]);
	return finish_start(p, fds, start(fds[1], NULL, argv));
}

static int fail(struct peer *p, const char **why)
{
	int status = 0;

	*why = "gave no answer for two minutes";
	if (errno == EAGAIN)
		kill(p->pid, SIGKILL); /* it may be in an endless loop */
	else if (waitpid(p->pid, &status, 0) == p->pid && WIFSIGNALED(status))
		*why = "crashed";
	else
		*why = "ended early";
	p->failed = true;
	return -1;
}

int peer_ask(struct peer *p, const struct work_request *req, struct work_reply *reply,
	     const char **why)
{
	errno = 0;
	if (send(p->fd, req, sizeof(*req), MSG_NOSIGNAL) != sizeof(*req) ||
	    recv(p->fd, reply, sizeof(*reply), 0) != sizeof(*reply))
		return fail(p, why);
	if (reply->failed) {
		*why = "returned NULL";
		p->failed = true;
		return -1;
	}
	return 0;
}

int peer_spawn(struct peer *p, const struct found *f, const char *const *argv,
	       struct spawn_reply *reply, const char **why)
{
	const char *args[LOADER_ARGS + ROW_ARGS + 1];
	char text[SPAWN_MAX];
	size_t len;
	unsigned int n = prefix(f, args);

	for (; *argv && n < sizeof(args) / sizeof(*args) - 1; argv++)
		args[n++] = *argv;
	len = (size_t)snprintf(text, sizeof(text), "%s", f->loader ? "" : f->path) + 1;
	for (unsigned int i = 0; i < n; i++) {
		if (len + strlen(args[i]) + 1 > sizeof(text))
			errx(1, "too long a command: %s", args[0]);
		strcpy(text + len, args[i]);
		len += strlen(args[i]) + 1;
	}
	errno = 0;
	if (send(p->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len ||
	    recv(p->fd, reply, sizeof(*reply), 0) != sizeof(*reply))
		return fail(p, why);
	if (reply->status) {
		*why = "a program that it served failed";
		return -1;
	}
	return 0;
}

void peer_tiny(const struct allocator *a, char *buf, size_t len, const char **argv)
{
	snprintf(buf, len, "%d", (int)a->entry);
	argv[0] = worker();
	argv[1] = "tiny";
	argv[2] = buf;
	argv[3] = a->calls;
	argv[4] = NULL;
}

void peer_stop(struct peer *p)
{
	close(p->fd);
	waitpid(p->pid, NULL, 0);
}

/* Which file symbol is in when the library is preloaded, asked as it will be used; or NULL. */
static char *symbol_in(const struct found *f, const char *symbol)
{
	char path[PATH_MAX] = "", arg[32];
	const char *argv[] = { worker(), "where", arg, symbol, NULL };
	int fds[2], null, saved;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return NULL;
	snprintf(arg, sizeof(arg), "%d", fds[1]);
	/* The loader complains about what it does not find; we do so in our own words. */
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
	dup2(null, STDERR_FILENO);
	pid = start(fds[1], f, argv);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(null);
	close(fds[1]);
	while (pid > 0 && (n = read(fds[0], path + len, sizeof(path) - 1 - len)) > 0)
		len += (size_t)n;
	close(fds[0]);
	if (pid < 0 || waitpid(pid, NULL, 0) < 0 || !len)
		return NULL;
	return strdup(path);
}

static char *printed(const char *fmt, const char *a, const char *b)
{
	char *s;

	if (asprintf(&s, fmt, a, b) < 0)
		errx(1, "out of memory");
	return s;
}

/* The first line of the file that scripts/peers has left instead, or NULL. */
static char *reason(const char *path)
{
	char line[256] = "", *why;
	FILE *file;

	if (asprintf(&why, "%.*s.why", (int)(strlen(path) - strlen(".so")), path) < 0)
		errx(1, "out of memory");
	file = fopen(why, "re");
	free(why);
	if (!file)
		return NULL;
	if (fgets(line, sizeof(line), file))
		line[strcspn(line, "\n")] = 0;
	fclose(file);
	return *line ? strdup(line) : NULL;
}

static void find_file(const struct allocator *a, struct found *f)
{
	char *path = beside(a->file), *libc = beside("../peers/libc");
	char first[64];

	f->path = realpath(path, NULL);
	if (!f->path) {
		f->why = reason(path);
		if (!f->why && !strncmp(a->file, "../peers/", strlen("../peers/")))
			f->why = strdup("not unpacked: run it by make bench");
		if (!f->why)
			f->why = printed("%s is not built%s", strrchr(a->file, '/') + 1, "");
		goto out;
	}
	f->there = true;
	if (a->entry != ENTRY_MALLOC)
		goto out;
	snprintf(first, sizeof(first), "%.*s", (int)strcspn(a->calls, ","), a->calls);
	for (int own = 0; own < 2; own++) {
		char *in;

		if (own) {
			f->libs = realpath(libc, NULL);
			f->loader = printed("%s/%s", f->libs ? f->libs : "", "ld.so");
			if (access(f->loader, X_OK))
				break;
		}
		in = symbol_in(f, first);
		/* Not there, or not loaded: malloc is the C library's. */
		if (in && !strcmp(basename(in), basename(f->path))) {
			free(in);
			goto out;
		}
		free(in);
	}
	f->there = false;
	f->why = strdup("cannot be loaded here");
out:
	free(path);
	free(libc);
}

static void find_installed(const struct allocator *a, struct found *f)
{
	for (int i = 0; i < 2 && a->soname[i]; i++) {
		char *in;

		f->path = (char *)a->soname[i];
		in = symbol_in(f, "malloc");
		f->path = NULL;
		if (in && !strncmp(basename(in), a->soname[i], strlen(a->soname[i]))) {
			f->path = in;
			f->there = true;
			return;
		}
		free(in);
	}
	f->why = printed("not installed: as root, apt-get install %s%s", a->package, "");
}

void peers_find(struct found *found)
{
	memset(found, 0, nr_allocators * sizeof(*found));
	for (unsigned int i = 0; i < nr_allocators; i++) {
		const struct allocator *a = &allocators[i];

		if (a->file) {
			find_file(a, &found[i]);
		} else if (a->soname[0]) {
			find_installed(a, &found[i]);
		} else {
			found[i].path = strdup("");
			found[i].there = true;
		}
	}
}
