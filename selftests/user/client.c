// SPDX-License-Identifier: GPL-2.0-only
/*
 * client.c - see client.h.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nolock/heap.h>

#include "client.h"
#include "daemon.h"
#include "proto.h"
#include "scribble.h"
#include "scribble.skel.h"

#define OBJECTS 2000

static struct nolock_heap *heap;
static unsigned char *objects[OBJECTS];
static char text[256];

static const char *say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return text;
}

static size_t size_of(int i)
{
	return 16 + (i * 37) % 3000;
}

static const char *allocate(void)
{
	int i;

	for (i = 0; i < OBJECTS; i++) {
		objects[i] = i % 2 ? nolock_heap_kmalloc(heap, size_of(i), GFP_KERNEL) :
				     nolock_heap_kmalloc_nolock(heap, size_of(i), 0, NUMA_NO_NODE);
		if (!objects[i])
			return say("object %d of %zu bytes: %s", i, size_of(i), strerror(errno));
		memset(objects[i], i & 0xff, size_of(i));
	}
	return "ok";
}

static const char *verify(bool and_free)
{
	size_t k;
	int i;

	for (i = 0; i < OBJECTS; i++) {
		for (k = 0; k < size_of(i); k++)
			if (objects[i][k] != (i & 0xff))
				return say("object %d is damaged at byte %zu", i, k);
		if (and_free)
			kfree(objects[i]);
	}
	return "ok";
}

static void storm(void)
{
	void *held[64] = { NULL };
	unsigned int i;

	for (i = 0;; i++) {
		kfree_nolock(held[i % 64]);
		held[i % 64] =
			i % 3 ? nolock_heap_kmalloc(heap, 16 + i % 3000, GFP_KERNEL) :
				nolock_heap_kmalloc_nolock(heap, 16 + i % 3000, 0, NUMA_NO_NODE);
	}
}

static const char *obey(const char *name, char order)
{
	switch (order) {
	case 'a':
		return allocate();
	case 'v':
	case 'f':
		return verify(order == 'f');
	case 'c':
		nolock_heap_close(heap);
		heap = NULL;
		return "ok";
	case 'o':
		heap = nolock_heap_open(name);
		return heap ? "ok" : say("open: %s", strerror(errno));
	case 'g':
		memset((void *)((uintptr_t)objects[0] & ~((8ULL << 30) - 1)), 0xa5, 64);
		return "ok";
	}
	return say("no such order");
}

static void be_client(const char *name, int in, int out)
{
	const char *answer;
	char order;

	answer = obey(name, 'o');
	for (;;) {
		if (write(out, answer, strlen(answer) + 1) < 0)
			_exit(0);
		if (read(in, &order, 1) != 1 || order == 'q')
			_exit(0);
		if (order == 'd') {
			dup2(in, 0);
			dup2(out, 1);
			in = 0;
			out = 1;
			close_range(2, ~0U, 0);
			answer = "ok";
		} else if (order == 's') {
			if (write(out, "ok", 3) < 0)
				_exit(0);
			storm();
		} else {
			answer = obey(name, order);
		}
	}
}

static const char *answer_of(struct client *c)
{
	static char answer[256];
	ssize_t n = read(c->from, answer, sizeof(answer) - 1);

	if (n <= 0)
		return "the client is gone";
	answer[n] = 0;
	return answer;
}

void client_start(struct client *c, const char *name)
{
	int to[2], from[2];
	const char *answer;

	cr_assert(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
	c->pid = test_fork();
	if (c->pid == 0) {
		close(to[1]);
		close(from[0]);
		be_client(name, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	c->to = to[1];
	c->from = from[0];
	answer = answer_of(c);
	cr_assert_str_eq(answer, "ok", "client: %s", answer);
}

int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int conn = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, sock());
	if (conn < 0 || !connect(conn, (struct sockaddr *)&addr, sizeof(addr)))
		return conn;
	close(conn);
	return -1;
}

static bool request(int conn, enum nl_op op)
{
	struct nl_request req = { .magic = NL_PROTO_MAGIC, .version = NL_PROTO_VERSION, .op = op };

	strcpy(req.name, heap_name());
	return send(conn, &req, sizeof(req), MSG_NOSIGNAL) == sizeof(req);
}

int dial_heap(int *error)
{
	struct nl_reply rep;
	int conn = dial();

	if (conn < 0)
		return -1;
	if (!request(conn, NL_OP_OPEN) || recv(conn, &rep, sizeof(rep), 0) != sizeof(rep)) {
		close(conn);
		return -1;
	}
	*error = rep.error;
	return conn;
}

bool close_heap(int conn)
{
	return request(conn, NL_OP_CLOSE);
}

void heap_serves(void)
{
	struct client c;

	client_start(&c, heap_name());
	DO(&c, 'a');
	DO(&c, 'f');
	check_whole();
	client_kill(&c);
}

const char *client_do(struct client *c, char order)
{
	if (write(c->to, &order, 1) != 1)
		return "the client is gone";
	return answer_of(c);
}

void client_kill(struct client *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	close(c->to);
	close(c->from);
}

static void be_program(struct program_book *book)
{
	struct scribble c = { .turns = 500, .rng = 1, .sound = 1 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));
	struct nolock_heap *h = nolock_heap_open(heap_name());
	struct scribble_bpf *s = scribble_bpf__open();

	if (!h || !s || bpf_map__reuse_fd(s->maps.nolock_heap, nolock_heap_fd(h)) ||
	    scribble_bpf__load(s))
		_exit(1);
	for (;;) {
		if (bpf_prog_test_run_opts(bpf_program__fd(s->progs.storm), &run))
			_exit(2);
		book->failed = c.failed;
		__atomic_fetch_add(&book->runs, 1, __ATOMIC_RELEASE);
		usleep(2000);
	}
}

void program_start(struct program *p)
{
	p->book = mmap(NULL, sizeof(*p->book), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	cr_assert_neq(p->book, MAP_FAILED);
	p->pid = test_fork();
	if (!p->pid)
		be_program(p->book);
	program_goes_on(p);
}

void program_goes_on(struct program *p)
{
	unsigned long runs = __atomic_load_n(&p->book->runs, __ATOMIC_ACQUIRE);

	/* The one that is under way may have begun before. */
	cr_assert(EVENTUALLY(__atomic_load_n(&p->book->runs, __ATOMIC_ACQUIRE) >= runs + 2),
		  "the program does not go on");
}

void program_stop(struct program *p)
{
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	munmap(p->book, sizeof(*p->book));
}
