// SPDX-License-Identifier: GPL-2.0-only
/*
 * symbol.c - see symbol.h. Reads the symbol table of the running program.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "symbol.h"

static const char *image;
static const ElfW(Sym) * symbols;
static size_t nr_symbols;
static const char *names;
static uintptr_t load, text_from, text_to;

/* The first object that is listed is the program. */
static int program(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	load = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X)) {
			text_from = load + ph->p_vaddr;
			text_to = text_from + ph->p_memsz;
		}
	}
	return 1;
}

/* A file, mapped for good, or "". */
static const char *map_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p = MAP_FAILED;
	struct stat st;

	if (fd < 0)
		return "";
	if (!fstat(fd, &st))
		p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return p == MAP_FAILED ? "" : p;
}

/* The symbols of an image, from its table of that type; returns how many. */
static size_t find_table(const char *elf, unsigned int type, const ElfW(Sym) * *syms,
			 const char **strings)
{
	const ElfW(Ehdr) *eh = (const void *)elf;
	const ElfW(Shdr) * sh;

	if (!*elf)
		return 0;
	sh = (const void *)(elf + eh->e_shoff);
	for (int i = 0; i < eh->e_shnum; i++) {
		if (sh[i].sh_type != type)
			continue;
		*syms = (const void *)(elf + sh[i].sh_offset);
		*strings = elf + sh[sh[i].sh_link].sh_offset;
		return sh[i].sh_size / sizeof(**syms);
	}
	return 0;
}

static void open_table(void)
{
	if (image)
		return;
	dl_iterate_phdr(program, NULL);
	image = map_file("/proc/self/exe");
	nr_symbols = find_table(image, SHT_SYMTAB, &symbols, &names);
}

uintptr_t symbol_address(const char *name)
{
	open_table();
	for (size_t i = 0; i < nr_symbols; i++)
		if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_value &&
		    !strcmp(names + symbols[i].st_name, name))
			return load + symbols[i].st_value;
	return 0;
}

bool symbol_exports(const char *path, void (*fn)(const char *name, void *arg), void *arg)
{
	const ElfW(Sym) *syms = NULL;
	const char *strings = NULL;
	size_t n = find_table(map_file(path), SHT_DYNSYM, &syms, &strings);

	for (size_t i = 0; i < n; i++)
		if (ELF64_ST_TYPE(syms[i].st_info) == STT_FUNC && syms[i].st_shndx != SHN_UNDEF)
			fn(strings + syms[i].st_name, arg);
	return n != 0;
}

void symbol_text(uintptr_t *from, uintptr_t *to)
{
	open_table();
	*from = text_from;
	*to = text_to;
}

bool symbol_text_writable(void)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from, to;

	open_table();
	from = text_from & ~(page - 1);
	to = (text_to + page - 1) & ~(page - 1);
	if (!from) {
		printf("this program's text is not to be found\n");
		return false;
	}
	if (!mprotect((void *)from, to - from, PROT_READ | PROT_WRITE | PROT_EXEC))
		return true;
	perror("patch the program's text");
	return false;
}

const char *symbol_name(char *buf, size_t len, uintptr_t ip)
{
	const ElfW(Sym) *best = NULL;

	open_table();
	for (size_t i = 0; i < nr_symbols; i++) {
		const ElfW(Sym) *s = &symbols[i];

		if (ELF64_ST_TYPE(s->st_info) == STT_FUNC && ip - load >= s->st_value &&
		    ip - load < s->st_value + s->st_size)
			best = s;
	}
	if (best)
		snprintf(buf, len, "%s+%#lx", names + best->st_name,
			 (unsigned long)(ip - load - best->st_value));
	else
		snprintf(buf, len, "%#lx", (unsigned long)ip);
	return buf;
}

/* The part of a path that says something. */
static const char *last_parts(const char *path)
{
	const char *core = strstr(path, "/lib/");

	return core ? core + 1 : path;
}

const char *symbol_line(char *buf, size_t len, uintptr_t ip)
{
	char cmd[PATH_MAX + 64], exe[PATH_MAX], line[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	size_t have = 0;
	FILE *f;

	*buf = 0;
	open_table();
	if (n <= 0 || ip < text_from || ip >= text_to)
		return buf;
	exe[n] = 0;
	snprintf(cmd, sizeof(cmd), "addr2line -i -e '%s' %#lx 2>/dev/null", exe,
		 (unsigned long)(ip - load));
	f = popen(cmd, "r");
	if (!f)
		return buf;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, " \n")] = 0;
		if (*line != '?' && have + strlen(last_parts(line)) + 4 < len)
			have += (size_t)snprintf(buf + have, len - have, "%s%s", have ? " < " : "",
						 last_parts(line));
	}
	pclose(f);
	return buf;
}
