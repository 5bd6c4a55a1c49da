// SPDX-License-Identifier: GPL-2.0-only
/*
 * memory.c - see memory.h.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "core/grow.h"
#include "internal.h"
#include "memory.h"
#include "moment.h"
#include "say.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* In a memfd's magic number's place: another has its name. No client looks at it again. */
#define RETIRED 0x6465726974657221ULL

/* Addresses of this nolockd's own heaps: a bit for each slot. */
static uint64_t taken;

static int slot_of(uint64_t base)
{
	uint64_t off = base - MEMORY_BASE;

	if (base < MEMORY_BASE || off % MEMORY_STRIDE || off / MEMORY_STRIDE >= MEMORY_SLOTS)
		return -1;
	return off / MEMORY_STRIDE;
}

/* Take a given address; false when it is none of ours or another heap has it. */
static bool take_base(uint64_t base)
{
	int slot = slot_of(base);

	if (slot < 0 || taken >> slot & 1)
		return false;
	taken |= 1ULL << slot;
	return true;
}

/*
 * Take a free address for a new heap. It starts from the name's own slot, so that heaps of
 * different nolockds, which know nothing of each other's memfds, rarely meet.
 */
static uint64_t choose_base(const char *name)
{
	unsigned int first = 5381, i;
	uint64_t base;

	while (*name)
		first = first * 33 + (unsigned char)*name++;
	for (i = 0; i < MEMORY_SLOTS; i++) {
		base = MEMORY_BASE + (first + i) % MEMORY_SLOTS * MEMORY_STRIDE;
		if (!bpffs_base_taken(base) && take_base(base))
			return base;
	}
	return 0;
}

static void give_base(uint64_t base)
{
	int slot = slot_of(base);

	if (slot >= 0)
		taken &= ~(1ULL << slot);
}

/* Lock the pin's place. Returns 0, -EBUSY after a line, or another negative errno. */
static int lock_pin(struct memory *m)
{
	unsigned int tries = 0;
	int fd;

	do
		fd = bpffs_lock(m->name);
	while (fd == -EBUSY && keepers_end(&tries));
	if (fd == -EBUSY)
		complain(
			"heap '%s': another nolockd keeps it; stop that one, or choose another name",
			m->name);
	if (fd < 0)
		return fd;
	m->lock = fd;
	return 0;
}

static int adopt_arena(struct memory *m, int fd, const struct arena_info *info)
{
	if (!take_base(info->base)) {
		complain("heap '%s': the arena pinned at %s lies at %#llx, where no new heap of "
			 "nolockd would or another one does; --reformat=%s replaces it",
			 m->name, bpffs_path(m->name), (unsigned long long)info->base, m->name);
		close(fd);
		return -EADDRINUSE;
	}
	m->type = NOLOCK_HEAP_ARENA;
	m->fd = fd;
	m->base = info->base;
	m->size = info->size;
	m->adopted = true;
	m->pinned = true;
	return 0;
}

/* The pinned arena of that name. Returns 0, -ENOENT, or another errno after a line. */
static int find_arena(struct memory *m, bool fresh)
{
	struct arena_info info;
	int fd, err;

	fd = bpffs_open(m->name, &info);
	if (fd == -ENOENT)
		return fd;
	if (fd == -EPERM || fd == -EACCES) {
		complain("heap '%s': may not open %s (%s): run nolockd with the rights to use BPF",
			 m->name, bpffs_path(m->name), strerror(-fd));
		return fd;
	}
	err = lock_pin(m);
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	if (fresh) {
		if (fd >= 0)
			close(fd);
		err = bpffs_unpin(m->name);
		if (err) {
			complain("heap '%s': cannot remove %s: %s", m->name, bpffs_path(m->name),
				 strerror(-err));
			return err;
		}
		return -ENOENT;
	}
	if (fd < 0) {
		complain("heap '%s': %s is no arena of nolockd; --reformat=%s replaces it", m->name,
			 bpffs_path(m->name), m->name);
		return fd;
	}
	return adopt_arena(m, fd, &info);
}

void memory_shape(const struct memory *m, struct nl_shape *shape)
{
	*shape = (struct nl_shape){
		.base = m->base,
		.size = m->size,
		.type = m->type == NOLOCK_HEAP_ARENA ? NL_HEAP_ARENA : NL_HEAP_MEMFD,
		.nr_slots = nl_possible_cpus(),
		.nr_nodes = nl_nodes(true),
		.slot_by_cpu = 1,
		.name = m->name,
	};
}

uint32_t memory_chunks_ahead(const struct memory *m)
{
	uint64_t eighth = m->size / NL_CHUNK_SIZE / 8;

	return eighth < NL_GROUP_CHUNKS ? eighth : NL_GROUP_CHUNKS;
}

/*
 * Make present what a new heap begins with: its fixed metadata, and groups enough for what is to
 * be set aside and what is kept free. Where that fails the keeper does it.
 */
static void set_up_arena(struct memory *m, uint64_t populate)
{
	uint32_t chunks = populate / NL_CHUNK_SIZE + memory_chunks_ahead(m), first, end;
	struct nl_shape shape;
	struct nl_heap h;
	int err;

	memory_shape(m, &shape);
	if (!m->arena.progs || nl_heap_lay_out(&h, &shape))
		return;
	first = h.first_chunk / NL_GROUP_CHUNKS;
	end = (h.first_chunk + chunks + NL_GROUP_CHUNKS - 1) / NL_GROUP_CHUNKS;
	if (end > h.nr_groups)
		end = h.nr_groups;
	err = arena_setup(&m->arena, 0, h.off_tag, &m->by_program);
	if (!err)
		err = arena_setup(&m->arena, nl_tags_at(&h, first), nl_tags_at(&h, end),
				  &m->by_program);
	if (!err)
		err = arena_setup(&m->arena, nl_groups_at(&h, first), nl_groups_at(&h, end),
				  &m->by_program);
	if (!err)
		err = arena_setup(&m->arena, nl_chunks_at(&h, first), nl_chunks_at(&h, end),
				  &m->by_program);
	m->set_up = !err;
	if (err)
		snprintf(m->arena.why, sizeof(m->arena.why), "its program could not set it up: %s",
			 strerror(-err));
}

/* Returns 0 or a negative errno, said to nobody: a memfd may do instead. */
static int make_arena(struct memory *m, uint64_t size)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	char map_name[BPF_OBJ_NAME_LEN], *p;
	uint64_t base;
	int fd;

	base = choose_base(m->name);
	if (!base)
		return -ENOSPC;
	opts.map_extra = base;
	snprintf(map_name, sizeof(map_name), "nl_%.12s", m->name);
	for (p = map_name; *p; p++)
		if (*p == '-')
			*p = '_';
	fd = bpf_map_create(BPFFS_MAP_TYPE_ARENA, map_name, 0, 0, size / NL_PAGE, &opts);
	if (fd < 0) {
		give_base(base);
		return fd;
	}
	m->type = NOLOCK_HEAP_ARENA;
	m->fd = fd;
	m->base = base;
	m->size = size;
	return 0;
}

static void memfd_name(char *buf, size_t len, const char *name)
{
	snprintf(buf, len, "nolock:%s", name);
}

/*
 * Is the file behind fd one that a nolockd of this user made? The name alone says nothing:
 * anybody may give it to a memfd of his own.
 */
static bool is_our_memfd(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	       (fcntl(fd, F_GET_SEALS) & SEALS) == SEALS && st.st_size >= (off_t)NL_GROUP_SIZE &&
	       st.st_size % NL_GROUP_SIZE == 0 && st.st_size <= (4LL << 30);
}

/* Whoever looks for a heap of its name passes it from now on. */
static int retire_memfd(int fd)
{
	const uint64_t magic = RETIRED;
	ssize_t n = pwrite(fd, &magic, sizeof(magic), offsetof(struct nl_heap, magic));

	return n == sizeof(magic) ? 0 : n < 0 ? -errno : -EIO;
}

/*
 * The memfd at a path in /proc: adopt it, or, if @fresh, retire it. Returns 0 when it is adopted,
 * -ENOENT when it is none to adopt, or not any more, and another negative errno, after a line, when
 * it could not be retired.
 */
static int adopt_memfd(struct memory *m, const char *path, bool fresh)
{
	uint64_t base, magic;
	int fd, err = 0;
	struct stat st;

	/* A description of its own, so that the lock is nobody else's. */
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -ENOENT;
	if (!is_our_memfd(fd) || fstat(fd, &st) || flock(fd, LOCK_EX | LOCK_NB) ||
	    pread(fd, &magic, sizeof(magic), offsetof(struct nl_heap, magic)) != sizeof(magic) ||
	    magic == RETIRED)
		goto none;
	if (fresh) {
		err = retire_memfd(fd);
		if (err)
			complain(
				"heap '%s': the old one, %s, cannot be retired (%s): end its clients, "
				"or choose another name",
				m->name, path, strerror(-err));
		goto none;
	}
	if (pread(fd, &base, sizeof(base), offsetof(struct nl_heap, base)) != sizeof(base) ||
	    !take_base(base))
		goto none;
	m->fd = open(path, O_RDWR | O_CLOEXEC);
	if (m->fd < 0) {
		give_base(base);
		goto none;
	}
	m->type = NOLOCK_HEAP_MEMFD;
	m->lock = fd;
	m->base = base;
	m->size = st.st_size;
	m->adopted = true;
	return 0;
none:
	close(fd);
	return err ? err : -ENOENT;
}

/* Look through the descriptors of one process. Returns as adopt_memfd() does. */
static int find_memfd_in(struct memory *m, const char *pid, const char *want, bool fresh)
{
	char dir[64], path[PATH_MAX], link[128];
	struct dirent *e;
	int err = -ENOENT;
	ssize_t n;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%s/fd", pid);
	d = opendir(dir);
	if (!d)
		return -ENOENT;
	while (err == -ENOENT && (e = readdir(d))) {
		n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		if (n < 0)
			continue;
		link[n] = 0;
		if (strcmp(link, want))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		err = adopt_memfd(m, path, fresh);
	}
	closedir(d);
	return err;
}

/*
 * A memfd of that name that some client still has open; @fresh: none, and those that there are will
 * not be found again. Returns 0, -ENOENT, or another negative errno after a line.
 */
static int find_memfd(struct memory *m, bool fresh)
{
	char name[64], want[96];
	struct dirent *e;
	int err = -ENOENT;
	DIR *d;

	memfd_name(name, sizeof(name), m->name);
	snprintf(want, sizeof(want), "/memfd:%s (deleted)", name);
	d = opendir("/proc");
	if (!d)
		return -ENOENT;
	while (err == -ENOENT && (e = readdir(d)))
		if (isdigit((unsigned char)*e->d_name))
			err = find_memfd_in(m, e->d_name, want, fresh);
	closedir(d);
	return err;
}

static int make_memfd(struct memory *m, uint64_t size)
{
	char name[64], self[64];
	int fd, err;

	memfd_name(name, sizeof(name), m->name);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0) {
		err = -errno;
		goto fail;
	}
	if (ftruncate(fd, size) || fcntl(fd, F_ADD_SEALS, SEALS) || flock(fd, LOCK_EX | LOCK_NB)) {
		err = -errno;
		goto fail;
	}
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	m->fd = open(self, O_RDWR | O_CLOEXEC);
	if (m->fd < 0) {
		err = -errno;
		goto fail;
	}
	m->base = choose_base(m->name);
	if (!m->base) {
		err = -ENOSPC;
		goto fail;
	}
	m->type = NOLOCK_HEAP_MEMFD;
	m->lock = fd;
	m->size = size;
	return 0;
fail:
	complain("heap '%s': cannot make a memfd of %llu MiB: %s", m->name,
		 (unsigned long long)size >> 20, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

/* Why there is no arena, in the words of the person who has to do something about it. */
static const char *no_arena_why(int err)
{
	switch (err) {
	case -EPERM:
		return "no right to use BPF (CAP_BPF)";
	case -ENOSYS:
		return "this kernel has no BPF";
	case -EINVAL:
		return "this kernel has no bpf_arena (Linux 6.9 on)";
	default:
		return strerror(-err);
	}
}

static void memory_init(struct memory *m, const char *name)
{
	memset(m, 0, sizeof(*m));
	m->fd = -1;
	m->lock = -1;
	m->arena.grow = -1;
	strcpy(m->name, name);
}

int memory_open(struct memory *m, const struct heap_spec *spec, bool fresh)
{
	int err, no_arena, locked = 0;

	memory_init(m, spec->name);
	err = find_arena(m, fresh);
	if (err != -ENOENT)
		goto out;
	err = make_arena(m, spec->size);
	if (!err) {
		if (m->lock < 0)
			locked = lock_pin(m);
		if (locked == -EBUSY)
			err = locked;
		else if (locked)
			complain("heap '%s': cannot use /sys/fs/bpf (%s): it is not pinned, and "
				 "ends with nolockd and its clients",
				 m->name, strerror(-locked));
		goto out;
	}
	bpffs_unlock(m->name, m->lock);
	m->lock = -1;
	no_arena = err;
	err = find_memfd(m, fresh);
	if (err != -ENOENT)
		goto out;
	say("heap '%s': %s: a sealed memfd, which user space shares and BPF programs cannot use",
	    m->name, no_arena_why(no_arena));
	err = make_memfd(m, spec->size);
out:
	if (err) {
		memory_close(m, false);
		return err;
	}
	if (m->type == NOLOCK_HEAP_ARENA) {
		arena_load(&m->arena, m->fd);
		if (!m->adopted)
			set_up_arena(m, spec->populate);
	}
	if (m->adopted && spec->sized && m->size != spec->size)
		complain("heap '%s': keeps the size that it was made with, %llu MiB", m->name,
			 (unsigned long long)m->size >> 20);
	return 0;
}

int memory_renew(struct memory *m, const struct memory *old, const struct heap_spec *spec)
{
	int err;

	memory_init(m, spec->name);
	if (old->type == NOLOCK_HEAP_ARENA)
		err = make_arena(m, spec->size);
	else
		err = make_memfd(m, spec->size);
	if (!err && m->type == NOLOCK_HEAP_ARENA) {
		arena_load(&m->arena, m->fd);
		set_up_arena(m, spec->populate);
	}
	return err;
}

int memory_replace(struct memory *m, struct memory *old, const struct access *access)
{
	int err = 0;

	if (m->type == NOLOCK_HEAP_MEMFD)
		return retire_memfd(old->fd);
	if (old->pinned)
		err = bpffs_repin(m->name, m->fd, access);
	if (err)
		return err;
	m->pinned = old->pinned;
	old->pinned = false;
	m->lock = old->lock;
	old->lock = -1;
	return 0;
}

void memory_publish(struct memory *m, const struct access *access)
{
	int err;

	if (m->type != NOLOCK_HEAP_ARENA || m->lock < 0 || m->pinned)
		return;
	err = bpffs_pin(m->name, m->fd, access);
	if (err)
		complain(
			"heap '%s': cannot pin it at %s (%s): it ends with nolockd and its clients",
			m->name, bpffs_path(m->name), strerror(-err));
	m->pinned = !err;
}

void memory_close(struct memory *m, bool destroy)
{
	if (destroy && m->pinned)
		bpffs_unpin(m->name);
	arena_unload(&m->arena);
	if (m->fd >= 0)
		close(m->fd);
	if (m->type == NOLOCK_HEAP_MEMFD) {
		if (m->lock >= 0)
			close(m->lock);
	} else {
		bpffs_unlock(m->name, m->lock);
	}
	give_base(m->base);
	m->fd = -1;
	m->lock = -1;
	m->base = 0;
}
