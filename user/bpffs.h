/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bpffs.h - where shared heaps outlive nolockd: arena maps pinned as /sys/fs/bpf/nolock/NAME.
 *
 * Beside each pin lies an empty directory NAME:lock. Whoever holds flock() on it keeps the heap;
 * the lock goes with the process, so a directory left behind by a killed nolockd locks nobody out.
 * bpffs refuses dots in names: a dot of the heap's name is a comma in the pin's.
 */
#ifndef BPFFS_H
#define BPFFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Who may open a heap, and talk to nolockd. */
struct access {
	uid_t uid;
	gid_t gid;
	mode_t mode; /* of the socket; a pin takes its read and write bits */
};

/* A bpf_arena map. */
struct arena_info {
	uint64_t base;
	uint64_t size;
};

/*
 * bpffs_lock - take the heap's lock
 * Mounts bpffs when nobody did (and says so), and makes the directory.
 * Returns a descriptor, -EBUSY (somebody has it) or another negative errno.
 */
int bpffs_lock(const char *name);

/* bpffs_unlock - give the lock back and remove its directory. */
void bpffs_unlock(const char *name, int fd);

/*
 * bpffs_open - open a heap's pin
 * Returns a descriptor of the map, -ENOENT, -EMEDIUMTYPE (no arena with a fixed address), or
 * another negative errno.
 */
int bpffs_open(const char *name, struct arena_info *info);

/*
 * bpffs_cleanup - remove the directory when empty, and unmount bpffs when it is empty and a nolockd
 * mounted it, this one or an earlier one.
 */
void bpffs_cleanup(void);

bool bpffs_mounted_by_nolockd(void);

int bpffs_pin(const char *name, int fd, const struct access *access);
/* bpffs_repin - the same in place of what is pinned there: at each moment one of the two is. */
int bpffs_repin(const char *name, int fd, const struct access *access);
int bpffs_unpin(const char *name);

/* bpffs_base_taken - does a pinned heap lie at this address? */
bool bpffs_base_taken(uint64_t base);

/* bpffs_path - the pin's path, for messages; static storage. */
const char *bpffs_path(const char *name);

/* BPF_MAP_TYPE_ARENA, which libbpf 1.1's headers do not know. */
#define BPFFS_MAP_TYPE_ARENA 33

#endif /* BPFFS_H */
