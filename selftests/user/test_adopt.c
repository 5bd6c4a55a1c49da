// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_adopt.c - a heap outlives its nolockd: killed and started again with live objects intact,
 * without BPF too; and what is no heap is refused.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpffs.h"
#include "client.h"
#include "core/layout.h"
#include "daemon.h"

static struct output o;

TestSuite(adopt, .init = setup, .timeout = 120);

/* Killed again and again while a client has live objects and others allocate and free. */
static void killed_and_started(unsigned int without)
{
	const char *const argv[] = { "nolockd", heap_arg(), "--no-trace", "--destroy-on-exit",
				     NULL };
	struct client c, busy, late;
	struct daemon d;
	int i;

	daemon_spawn(&d, without, argv);
	cr_assert(daemon_ready(&d), "%s", daemon_said(&d));
	client_start(&c, heap_name());
	client_start(&busy, heap_name());
	DO(&c, 'a');
	DO(&busy, 's');
	for (i = 0; i < 3; i++) {
		usleep(50000);
		kill(d.pid, SIGKILL);
		cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
		DO(&c, 'v');
		daemon_spawn(&d, without, argv);
		cr_assert(daemon_ready(&d), "%s", daemon_said(&d));
		cr_assert(strstr(daemon_said(&d), "adopted"), "%s", daemon_said(&d));
		DO(&c, 'v');
		cr_assert_eq(nr_clients(), 2);
	}
	client_kill(&busy);
	cr_assert(EVENTUALLY(nr_clients() == 1),
		  "the new nolockd does not notice the end of the old one's client");
	client_start(&late, heap_name());
	DO(&late, 'a');
	DO(&late, 'f');
	DO(&c, 'f');
	DO(&c, 'a');
	check_whole();
	DO(&c, 'f');
	client_kill(&late);
	client_kill(&c);
	daemon_stop(&d);
	cr_assert(!exists(pin()));
}

Test(adopt, arena)
{
	NEEDS_ARENA();
	killed_and_started(0);
}

Test(adopt, memfd_without_bpf)
{
	NEEDS_CAPABILITIES();
	killed_and_started(WITHOUT_BPF);
}

Test(adopt, memfd_says_why)
{
	const char *const argv[] = { "nolockd", heap_arg(), NULL };
	json_object *status;
	struct daemon d;

	NEEDS_CAPABILITIES();
	daemon_spawn(&d, WITHOUT_BPF, argv);
	cr_assert(daemon_ready(&d), "%s", daemon_said(&d));
	cr_assert(strstr(daemon_said(&d), "CAP_BPF"), "%s", daemon_said(&d));
	cr_assert(strstr(daemon_said(&d), "memfd"), "%s", daemon_said(&d));
	status = get_status();
	cr_assert_str_eq(json_object_get_string(json_object_object_get(first_heap(status), "type")),
			 "memfd");
	json_object_put(status);
	check_whole();
	RUN(&o, "nolock", "trace", "--duration=1");
	cr_assert_eq(o.status, 2);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	daemon_stop(&d);
}

/* A memfd of somebody else's with the right name is not taken for a heap. */
Test(adopt, foreign_memfd)
{
	const char *const argv[] = { "nolockd", heap_arg(), "--no-trace", NULL };
	struct daemon d;
	char name[64];
	int fd;

	NEEDS_CAPABILITIES();
	snprintf(name, sizeof(name), "nolock:%s", heap_name());
	fd = memfd_create(name, 0);
	cr_assert(fd >= 0 && !ftruncate(fd, 64 << 20));
	daemon_spawn(&d, WITHOUT_BPF, argv);
	cr_assert(daemon_ready(&d), "%s", daemon_said(&d));
	cr_assert(strstr(daemon_said(&d), "made"), "%s", daemon_said(&d));
	daemon_stop(&d);
}

static void write_garbage(size_t from, size_t len)
{
	struct bpf_map_info info = { 0 };
	__u32 info_len = sizeof(info);
	size_t size;
	char *mem;
	int fd;

	fd = bpf_obj_get(pin());
	cr_assert(fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &info_len));
	size = (size_t)info.max_entries * 4096;
	mem = mmap((void *)info.map_extra, size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	cr_assert(mem != MAP_FAILED);
	for (; len--; from++)
		mem[from] = (char)(0x5a + from * 31);
	munmap(mem, size);
	close(fd);
}

static void garbage(size_t from, size_t len)
{
	struct daemon d;
	char reformat[64];

	if (!can_bpf())
		cr_skip_test("pins need root and BPF");
	START(&d, heap_arg(), "--no-trace");
	daemon_stop(&d);
	write_garbage(from, len);
	RUN(&o, "nolockd", heap_arg(), "--no-trace");
	cr_assert_eq(o.status, 1);
	snprintf(reformat, sizeof(reformat), "--reformat=%s", heap_name());
	cr_assert(strstr(o.err, reformat), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	cr_assert(exists(pin()), "a heap that was refused must stay");
	cr_assert(!exists(sock()));
	START(&d, heap_arg(), "--no-trace", reformat, "--destroy-on-exit");
	check_whole();
	daemon_stop(&d);
	cr_assert(!exists(pin()));
}

Test(adopt, garbage_in_the_whole_header)
{
	garbage(0, sizeof(struct nl_heap));
}

Test(adopt, garbage_behind_the_magic)
{
	garbage(8, 64);
}

Test(adopt, garbage_in_the_layout)
{
	garbage(offsetof(struct nl_heap, off_cache), 8);
}

Test(adopt, garbage_in_the_growth_counters)
{
	garbage(offsetof(struct nl_heap, nr_open), 4);
}

Test(adopt, pin_of_something_else)
{
	struct daemon d;
	char reformat[64];
	int fd, lock;

	if (!can_bpf())
		cr_skip_test("pins need root and BPF");
	/* Makes the directory, too. */
	lock = bpffs_lock(heap_name());
	cr_assert(lock >= 0, "%s", strerror(-lock));
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "not_a_heap", 4, 4, 1, NULL);
	cr_assert(fd >= 0 && !bpf_obj_pin(fd, pin()));
	close(fd);
	bpffs_unlock(heap_name(), lock);
	RUN(&o, "nolockd", heap_arg(), "--no-trace");
	cr_assert_eq(o.status, 1);
	cr_assert(strstr(o.err, "is no arena"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	snprintf(reformat, sizeof(reformat), "--reformat=%s", heap_name());
	START(&d, heap_arg(), "--no-trace", reformat, "--destroy-on-exit");
	check_whole();
	daemon_stop(&d);
}

/* Those who have the old heap keep it when a new one takes its name. */
static void reformat_under_a_client(unsigned int without)
{
	struct client c, fresh;
	struct daemon d;
	char reformat[64];

	START_WITHOUT(&d, without, heap_arg(), "--no-trace");
	client_start(&c, heap_name());
	DO(&c, 'a');
	daemon_stop(&d);
	snprintf(reformat, sizeof(reformat), "--reformat=%s", heap_name());
	START_WITHOUT(&d, without, heap_arg(), "--no-trace", reformat);
	cr_assert(strstr(daemon_said(&d), "made"), "%s", daemon_said(&d));
	DO(&c, 'v');
	client_start(&fresh, heap_name());
	DO(&fresh, 'a');
	cr_assert_eq(nr_clients(), 1);
	/* The next nolockd finds the new one. */
	daemon_stop(&d);
	START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
	cr_assert(strstr(daemon_said(&d), "adopted"), "%s", daemon_said(&d));
	cr_assert_eq(nr_clients(), 1);
	DO(&c, 'f');
	DO(&fresh, 'f');
	client_kill(&fresh);
	cr_assert(EVENTUALLY(nr_clients() == 0), "that was the old one");
	check_whole();
	client_kill(&c);
	daemon_stop(&d);
}

Test(adopt, reformat_under_a_client)
{
	NEEDS_ARENA();
	reformat_under_a_client(0);
}

Test(adopt, reformat_under_a_client_without_bpf)
{
	NEEDS_CAPABILITIES();
	reformat_under_a_client(WITHOUT_BPF);
}

Test(adopt, keeps_its_size)
{
	struct daemon d;
	char arg[64];

	if (!can_bpf())
		cr_skip_test("pins need root and BPF");
	START(&d, heap_arg(), "--no-trace");
	daemon_stop(&d);
	snprintf(arg, sizeof(arg), "--heap=%s:128M", heap_name());
	START(&d, arg, "--no-trace", "--destroy-on-exit");
	cr_assert(strstr(daemon_said(&d), "64 MiB"), "%s", daemon_said(&d));
	cr_assert_eq(number(first_heap(get_status()), "size"), 64ULL << 20);
	daemon_stop(&d);
}
