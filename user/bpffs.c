// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpffs.c - see bpffs.h.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <linux/magic.h>

#include "bpffs.h"
#include "core/layout.h"
#include "say.h"

#define BPFFS "/sys/fs/bpf"
#define DIRECTORY BPFFS "/nolock"

static bool mounted;

static bool is_bpffs(void)
{
	struct statfs st;

	return !statfs(BPFFS, &st) && (unsigned long)st.f_type == BPF_FS_MAGIC;
}

static void pin_path(char path[PATH_MAX], const char *name, const char *suffix)
{
	char *p;

	snprintf(path, PATH_MAX, "%s/%s%s", DIRECTORY, name, suffix);
	for (p = path + strlen(DIRECTORY); *p; p++)
		if (*p == '.')
			*p = ',';
}

const char *bpffs_path(const char *name)
{
	static char path[PATH_MAX];

	pin_path(path, name, "");
	return path;
}

int bpffs_prepare(void)
{
	int err;

	if (!is_bpffs()) {
		if (mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755"))
			return -errno;
		mounted = true;
		say("mounted bpffs at " BPFFS ", where nobody had mounted it");
	}
	if (mkdir(DIRECTORY, 0755) && errno != EEXIST) {
		err = -errno;
		bpffs_cleanup();
		return err;
	}
	return 0;
}

static bool is_empty(const char *path)
{
	struct dirent *e;
	bool empty = true;
	DIR *d;

	d = opendir(path);
	if (!d)
		return false;
	while (empty && (e = readdir(d)))
		empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	closedir(d);
	return empty;
}

void bpffs_cleanup(void)
{
	if (!is_bpffs())
		return;
	rmdir(DIRECTORY);
	if (mounted && is_empty(BPFFS) && !umount(BPFFS))
		mounted = false;
}

bool bpffs_mounted_here(void)
{
	return mounted;
}

int bpffs_lock(const char *name)
{
	struct stat held, there;
	char path[PATH_MAX];
	int fd, err;

	pin_path(path, name, ":lock");
	for (;;) {
		if (mkdir(path, 0700) && errno != EEXIST)
			return -errno;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			err = errno == EWOULDBLOCK ? -EBUSY : -errno;
			close(fd);
			return err;
		}
		/* Its last holder may have removed it between our open() and our flock(). */
		if (!fstat(fd, &held) && !stat(path, &there) && held.st_ino == there.st_ino)
			return fd;
		close(fd);
	}
}

void bpffs_unlock(const char *name, int fd)
{
	char path[PATH_MAX];

	if (fd < 0)
		return;
	pin_path(path, name, ":lock");
	rmdir(path);
	close(fd);
}

static int open_path(const char *path, struct arena_info *info)
{
	struct bpf_map_info map = { 0 };
	__u32 len = sizeof(map);
	int fd;

	fd = bpf_obj_get(path);
	if (fd < 0)
		return fd;
	/* A pinned program or link takes the same call, and fills in another struct. */
	if (bpf_obj_get_info_by_fd(fd, &map, &len) || map.type != BPFFS_MAP_TYPE_ARENA ||
	    !map.map_extra || !map.max_entries) {
		close(fd);
		return -EMEDIUMTYPE;
	}
	info->base = map.map_extra;
	info->size = (uint64_t)map.max_entries * NL_PAGE;
	return fd;
}

int bpffs_open(const char *name, struct arena_info *info)
{
	char path[PATH_MAX];

	if (!is_bpffs())
		return -ENOENT;
	pin_path(path, name, "");
	/* Asked first: where BPF is forbidden, bpf_obj_get() says so of a name that is not there. */
	if (access(path, F_OK))
		return -ENOENT;
	return open_path(path, info);
}

int bpffs_pin(const char *name, int fd, const struct access *access)
{
	char path[PATH_MAX];
	int err;

	pin_path(path, name, "");
	err = bpf_obj_pin(fd, path);
	if (err)
		return err;
	if (chmod(path, access->mode & 0666) || chown(path, access->uid, access->gid)) {
		err = -errno;
		unlink(path);
	}
	return err;
}

int bpffs_unpin(const char *name)
{
	char path[PATH_MAX];

	pin_path(path, name, "");
	return unlink(path) ? -errno : 0;
}

bool bpffs_base_taken(uint64_t base)
{
	struct arena_info info;
	char path[PATH_MAX];
	struct dirent *e;
	bool taken = false;
	DIR *d;
	int fd;

	if (!is_bpffs())
		return false;
	d = opendir(DIRECTORY);
	if (!d)
		return false;
	while (!taken && (e = readdir(d))) {
		if (strchr(e->d_name, ':') || *e->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", DIRECTORY, e->d_name);
		fd = open_path(path, &info);
		if (fd < 0)
			continue;
		taken = info.base == base;
		close(fd);
	}
	closedir(d);
	return taken;
}
