// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmlinux.c - write a small vmlinux.h: the kernel types of a list, out of a kernel's BTF.
 *
 *	vmlinux BTF-FILE ROOTS-FILE >vmlinux.h
 *
 * Each line of ROOTS-FILE names a type ("struct kmem_cache"). It is written in full, with every
 * type that it holds by value before it; what it only points to is declared, not defined. A full
 * dump is thirty times as long, and no program here reads the rest.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

static const char *roots_path;
static int line_nr;

static const struct {
	const char *word;
	__u32 kind;
} kinds[] = {
	{ "struct", BTF_KIND_STRUCT },
	{ "union", BTF_KIND_UNION },
	{ "enum", BTF_KIND_ENUM },
	{ "typedef", BTF_KIND_TYPEDEF },
};

__attribute__((format(printf, 1, 2))) static void complain(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "vmlinux: %s:%d: ", roots_path, line_nr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void print(void *ctx, const char *fmt, va_list ap)
{
	(void)ctx;
	vprintf(fmt, ap);
}

/* The enum, mostly without a name, that has a constant of this name; -ENOENT without one. */
static int find_constant(const struct btf *btf, const char *name)
{
	__u32 nr = btf__type_cnt(btf);

	for (__u32 id = 1; id < nr; id++) {
		const struct btf_type *t = btf__type_by_id(btf, id);

		for (__u32 i = 0; i < btf_vlen(t); i++) {
			__u32 off;

			if (btf_is_enum(t))
				off = btf_enum(t)[i].name_off;
			else if (btf_is_enum64(t))
				off = btf_enum64(t)[i].name_off;
			else
				break;
			if (!strcmp(btf__name_by_offset(btf, off), name))
				return id;
		}
	}
	return -ENOENT;
}

/* Enums may be of either kind: a 64-bit value makes one an ENUM64. */
static int find_type(const struct btf *btf, const char *word, const char *name)
{
	int id;

	if (!strcmp(word, "constant"))
		return find_constant(btf, name);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(word, kinds[i].word))
			continue;
		id = btf__find_by_name_kind(btf, name, kinds[i].kind);
		if (id < 0 && kinds[i].kind == BTF_KIND_ENUM)
			id = btf__find_by_name_kind(btf, name, BTF_KIND_ENUM64);
		return id < 0 ? -ENOENT : id;
	}
	return -EINVAL;
}

/* One line of the list: "[?]KIND NAME". Returns 0 or -1 after a message. */
static int dump_line(const struct btf *btf, struct btf_dump *dump, char *line)
{
	bool optional = false;
	char *word, *name, *save;
	int id, err;

	line[strcspn(line, "#\n")] = '\0';
	while (isspace((unsigned char)*line))
		line++;
	if (*line == '?') {
		optional = true;
		line++;
	}
	word = strtok_r(line, " \t", &save);
	if (!word)
		return 0;
	name = strtok_r(NULL, " \t", &save);
	if (!name || strtok_r(NULL, " \t", &save)) {
		complain("want a kind and a name, for example 'struct kmem_cache'");
		return -1;
	}
	id = find_type(btf, word, name);
	if (id == -EINVAL) {
		complain("unknown kind '%s': use struct, union, enum, typedef or constant", word);
		return -1;
	}
	if (id < 0 && optional)
		return 0;
	if (id < 0) {
		complain("this BTF has no %s %s: try a kernel that has it, or mark the line with ?",
			 word, name);
		return -1;
	}
	err = btf_dump__dump_type(dump, id);
	if (err) {
		complain("cannot write %s %s: %s", word, name, strerror(-err));
		return -1;
	}
	return 0;
}

static int dump_roots(const struct btf *btf, struct btf_dump *dump, FILE *roots)
{
	char *line = NULL;
	size_t size = 0;
	int err = 0;

	while (!err && getline(&line, &size, roots) >= 0) {
		line_nr++;
		err = dump_line(btf, dump, line);
	}
	free(line);
	if (!err && ferror(roots)) {
		complain("cannot read: %s", strerror(errno));
		err = -1;
	}
	return err;
}

static void print_head(void)
{
	printf("/* SPDX-License-Identifier: GPL-2.0-only */\n"
	       "/*\n"
	       " * vmlinux.h - the kernel types that the BPF programs use.\n"
	       " *\n"
	       " * Generated: change vmlinux.roots, the list of types, and run `make vmlinux.h`, "
	       "which\n"
	       " * reads the running kernel's BTF (or BTF=FILE). CO-RE adapts the offsets to the "
	       "kernel\n"
	       " * that a program is loaded into.\n"
	       " */\n"
	       "#ifndef __VMLINUX_H__\n"
	       "#define __VMLINUX_H__\n"
	       "\n"
	       "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n"
	       "#pragma clang attribute push(__attribute__((preserve_access_index)), "
	       "apply_to = record)\n"
	       "#endif\n"
	       "\n");
}

static void print_tail(void)
{
	printf("#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n"
	       "#pragma clang attribute pop\n"
	       "#endif\n"
	       "\n"
	       "#endif /* __VMLINUX_H__ */\n");
}

int main(int argc, char **argv)
{
	struct btf_dump *dump = NULL;
	struct btf *btf = NULL;
	FILE *roots = NULL;
	char why[100];
	int err = 1;

	if (argc != 3) {
		fprintf(stderr, "usage: %s BTF-FILE ROOTS-FILE >vmlinux.h\n", argv[0]);
		return 1;
	}
	roots_path = argv[2];
	libbpf_set_print(NULL);
	btf = btf__parse(argv[1], NULL);
	if (!btf) {
		libbpf_strerror(errno, why, sizeof(why));
		fprintf(stderr, "vmlinux: no BTF in %s: %s; name a file that has it by BTF=FILE\n",
			argv[1], why);
		goto out;
	}
	roots = fopen(roots_path, "r");
	if (!roots) {
		fprintf(stderr, "vmlinux: cannot open %s: %s\n", roots_path, strerror(errno));
		goto out;
	}
	dump = btf_dump__new(btf, print, NULL, NULL);
	if (!dump) {
		fprintf(stderr, "vmlinux: cannot dump %s: %s\n", argv[1], strerror(errno));
		goto out;
	}
	print_head();
	if (dump_roots(btf, dump, roots))
		goto out;
	print_tail();
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "vmlinux: cannot write: %s\n", strerror(errno));
		goto out;
	}
	err = 0;
out:
	btf_dump__free(dump);
	if (roots)
		fclose(roots);
	btf__free(btf);
	return err;
}
