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
 * bpffs_prepare - make sure that heaps can be pinned: mount bpffs when nobody did (and say so),
 * make the directory. Returns 0 or a negative errno, said to nobody.
 */
int bpffs_prepare(void);

/* bpffs_cleanup - remove the directory when empty, and unmount what bpffs_prepare mounted. */
void bpffs_cleanup(void);

/* bpffs_mounted_here - is there something to unmount at the end? */
bool bpffs_mounted_here(void);

/* bpffs_lock - take the heap's lock. Returns a descriptor, -EBUSY or another negative errno. */
int bpffs_lock(const char *name);

/* bpffs_unlock - give the lock back and remove its directory. */
void bpffs_unlock(const char *name, int fd);

/*
 * bpffs_open - open a heap's pin
 * Returns a descriptor of the map, -ENOENT, -EMEDIUMTYPE (no arena with a fixed address), or
 * another negative errno.
 */
int bpffs_open(const char *name, struct arena_info *info);

int bpffs_pin(const char *name, int fd, const struct access *access);
int bpffs_unpin(const char *name);

/* bpffs_base_taken - does a pinned heap lie at this address? */
bool bpffs_base_taken(uint64_t base);

/* bpffs_path - the pin's path, for messages; static storage. */
const char *bpffs_path(const char *name);

/* BPF_MAP_TYPE_ARENA, which libbpf 1.1's headers do not know. */
#define BPFFS_MAP_TYPE_ARENA 33

#endif /* BPFFS_H */
