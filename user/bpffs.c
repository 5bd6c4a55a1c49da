// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpffs.c - see bpffs.h.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
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
/* What a mount made here calls its source: how any nolockd knows it again. */
#define SOURCE "nolock"
/* Behind the name of a pin that is about to take another's place. */
#define RENEWED ":new"

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

/*
 * Held while bpffs is mounted or unmounted and its directory made or removed, against other
 * nolockds that do the same. /sys/fs is there wherever bpffs has a place.
 */
static int hold(void)
{
	int fd = open("/sys/fs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		flock(fd, LOCK_EX);
	return fd;
}

static void release(int fd)
{
	if (fd >= 0)
		close(fd);
}

bool bpffs_mounted_by_nolockd(void)
{
	struct mntent *m;
	bool ours = false;
	FILE *f;

	f = setmntent("/proc/self/mounts", "re");
	if (!f)
		return false;
	/* The last mount on a place is the one that is seen. */
	while ((m = getmntent(f)))
		if (!strcmp(m->mnt_dir, BPFFS))
			ours = !strcmp(m->mnt_fsname, SOURCE) && !strcmp(m->mnt_type, "bpf");
	endmntent(f);
	return ours;
}

/* Nothing in it but what the kernel itself puts into a fresh bpffs? */
static bool is_unused(void)
{
	struct dirent *e;
	bool unused = true;
	DIR *d;

	d = opendir(BPFFS);
	if (!d)
		return false;
	while (unused && (e = readdir(d)))
		unused = *e->d_name == '.' || !strcmp(e->d_name, "maps.debug") ||
			 !strcmp(e->d_name, "progs.debug");
	closedir(d);
	return unused;
}

static void clean(void)
{
	if (!is_bpffs())
		return;
	rmdir(DIRECTORY);
	if (is_unused() && bpffs_mounted_by_nolockd())
		umount(BPFFS);
}

void bpffs_cleanup(void)
{
	int held = hold();

	clean();
	release(held);
}

/* Mount bpffs when nobody did, make the directory, make and lock the heap's own. */
static int lock_prepared(const char *path)
{
	int fd, err;

	if (!is_bpffs()) {
		if (mount(SOURCE, BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755"))
			return -errno;
		say("mounted bpffs at " BPFFS ", where nobody had mounted it");
	}
	if ((mkdir(DIRECTORY, 0755) && errno != EEXIST) || (mkdir(path, 0700) && errno != EEXIST))
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	err = errno == EWOULDBLOCK ? -EBUSY : -errno;
	close(fd);
	return err;
}

int bpffs_lock(const char *name)
{
	char path[PATH_MAX], left[PATH_MAX];
	int held, fd;

	pin_path(path, name, ":lock");
	pin_path(left, name, RENEWED);
	held = hold();
	fd = lock_prepared(path);
	/* Of a nolockd that was killed before it could rename it. */
	if (fd >= 0)
		unlink(left);
	if (fd < 0 && fd != -EBUSY)
		clean();
	release(held);
	return fd;
}

void bpffs_unlock(const char *name, int fd)
{
	char path[PATH_MAX];
	int held;

	if (fd < 0)
		return;
	pin_path(path, name, ":lock");
	held = hold();
	rmdir(path);
	close(fd);
	release(held);
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

static int pin_at(const char *path, int fd, const struct access *access)
{
	int err = bpf_obj_pin(fd, path);

	if (err)
		return err;
	if (chmod(path, access->mode & 0666) || chown(path, access->uid, access->gid)) {
		err = -errno;
		unlink(path);
	}
	return err;
}

int bpffs_pin(const char *name, int fd, const struct access *access)
{
	char path[PATH_MAX];

	pin_path(path, name, "");
	return pin_at(path, fd, access);
}

int bpffs_repin(const char *name, int fd, const struct access *access)
{
	char path[PATH_MAX], made[PATH_MAX];
	int err;

	pin_path(path, name, "");
	pin_path(made, name, RENEWED);
	err = pin_at(made, fd, access);
	if (!err && rename(made, path)) {
		err = -errno;
		unlink(made);
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
