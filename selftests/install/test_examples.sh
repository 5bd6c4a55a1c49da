#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The README's two examples, as a reader pastes them, and those of bpf/examples, as their heads say,
# against an installed tree and nothing else.
#
# The C example is the first ```c block of README.md; the BPF example the first ```c block after
# the first heading that contains "BPF". A block's first line names its file: /* hello.c */. The
# next ```sh block is what the reader types then: it must succeed, with pkg-config finding the tree
# (compilers through $CC, if they follow it). A ```text block after that, before the next ```c
# block or heading, is what is printed. "sudo" does nothing here; the BPF example needs root. The
# block has processes, mounts, bpffs and /run of its own, which end with it, where namespaces can be
# made (not in a chroot).
#
# An example X of bpf/examples: the lines of the heads of X.bpf.c and X.c that are indented by a tab
# are what the reader types, in that order, as root, in a copy of the installed directory.

set -u
# Of the make that may have started this; its job server does not reach here.
unset MAKEFLAGS MFLAGS MAKELEVEL
cd "$(dirname "$0")/../.." || exit 1
top=$PWD
build=${NOLOCK_BUILD:-build}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
tree=$tmp/tree
passed=0 failed=0 skipped=0
# Killed with the first of its processes: what a failed example leaves behind goes, too.
own=(unshare --mount --pid --fork --kill-child --mount-proc --)
"${own[@]}" true 2>/dev/null || own=()

ok()
{
	passed=$((passed + 1))
	echo "ok      $1"
}

bad()
{
	failed=$((failed + 1))
	echo "FAILED  $1"
	[ $# -lt 2 ] || sed 's/^/    /' "$2"
}

# Part C or BPF of the README as numbered files: part.c part.sh part.text, those that are there.
extract()
{
	awk -v part="$1" -v out="$tmp/$1" '
	function want() { return part == "C" || seen }
	/^```/ && inside {
		inside = 0
		if (keep && kind == "text")
			exit
		next
	}
	/^```/ {
		inside = 1
		kind = substr($0, 4)
		sub(/[ \t].*/, "", kind)
		if (kind == "c" && have["c"])
			exit
		keep = want() && (kind == "c" || (have["c"] && !have[kind]))
		if (keep)
			have[kind] = 1
		next
	}
	inside { if (keep) print > (out "." kind); next }
	/^#/ {
		if (have["c"])
			exit
		if ($0 ~ /BPF/)
			seen = 1
	}' README.md
}

# Run $tmp/PART.sh in a directory, on its own: its output is PART.out, and with its errors PART.log.
typed()
{
	local part=$1 dir=$2 status

	cat >"$tmp/$part.run" <<-END
	if [ -n "${own[*]}" ]; then
		mount -t tmpfs run /run || exit 1
		while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf || exit 1; done
	fi
	cd "$dir" || exit 1
	sudo() { "\$@"; }
	set -e
	. "$tmp/$part.sh"
	END
	"${own[@]}" bash "$tmp/$part.run" >"$tmp/$part.out" 2>"$tmp/$part.err" </dev/null
	status=$?
	cat "$tmp/$part.out" "$tmp/$part.err" >"$tmp/$part.log"
	return $status
}

# Build and run one example as its ```sh block says.
example()
{
	local part=$1 name dir=$tmp/$1.dir

	extract "$part"
	if [ ! -s "$tmp/$part.c" ]; then
		bad "README: there is no ${part} example (a \`\`\`c block)"
		return
	fi
	name=$(sed -n '1s|^/\* \([A-Za-z0-9_.-]*\) \*/$|\1|p' "$tmp/$part.c")
	if [ -z "$name" ]; then
		bad "README: the first line of the $part example must name its file: /* hello.c */"
		return
	fi
	if [ ! -s "$tmp/$part.sh" ]; then
		bad "README: no \`\`\`sh block after the $part example says how to build and run it"
		return
	fi
	if [ "$part" = BPF ] && [ "$(id -u)" -ne 0 ]; then
		skipped=$((skipped + 1))
		echo "skipped README: the BPF example: not root"
		return
	fi
	mkdir "$dir" && cp "$tmp/$part.c" "$dir/$name"
	typed "$part" "$dir"
	local status=$?
	if [ $status -ne 0 ]; then
		bad "README: the $part example: exit status $status" "$tmp/$part.log"
	elif [ ! -s "$tmp/$part.out" ]; then
		bad "README: the $part example printed nothing"
	elif [ -e "$tmp/$part.text" ] && ! diff "$tmp/$part.text" "$tmp/$part.out" >"$tmp/diff"; then
		bad "README: the $part example printed something else" "$tmp/diff"
	else
		ok "README: the $part example ($name) builds and runs"
	fi
}

# One of bpf/examples, from the installed copy.
bpf_example()
{
	local name=$1 dir=$tmp/$1.dir

	if [ "$(id -u)" -ne 0 ]; then
		skipped=$((skipped + 1))
		echo "skipped bpf/examples: $name: not root"
		return
	fi
	cp -r "$tree/usr/share/doc/nolock/examples" "$dir"
	# Each file's first comment, where one line ends with a backslash and the next goes on.
	for file in "$dir/$name.bpf.c" "$dir/$name.c"; do
		sed -n '/^ \*\//q; s/^ \*\t//p' "$file"
	done >"$tmp/$name.sh"
	if ! grep -qx "./$name" "$tmp/$name.sh"; then
		bad "bpf/examples: the heads of $name.bpf.c and $name.c do not say how to run it"
		return
	fi
	cat >>"$tmp/$name.sh" <<-END
	nolock check --heap examples
	kill "\$(cat nolockd.pid)"
	END
	if ! typed "$name" "$dir"; then
		bad "bpf/examples: $name" "$tmp/$name.log"
	elif ! grep -q ': 0 allocated' "$tmp/$name.out"; then
		bad "bpf/examples: $name left objects behind" "$tmp/$name.log"
	else
		ok "bpf/examples: $name: $(grep '[0-9]' "$tmp/$name.out" | grep -v '^READY' | head -n 1)"
	fi
}

# One program that includes every public header, in C and C++, linked shared and static.
headers()
{
	local compiler=$2 std=$3 src=$tmp/all.$1 linkage

	(cd "$tree/usr/include" && ls nolock/*.h) | grep -v '\.bpf\.h$' |
		sed 's/.*/#include <&>/' >"$src"
	cat >>"$src" <<-'END'
	int main(void)
	{
		void *p = kmalloc(100, GFP_KERNEL), *q = kmalloc_nolock(100, __GFP_ZERO, NUMA_NO_NODE);
		struct nolock_heap_report report;
		int bad;

		bad = !p || !q || *(char *)q;
		kfree_nolock(p);
		kfree(q);
		return bad || nolock_heap_check(nolock_heap_default(), &report) || report.allocated;
	}
	END
	for linkage in shared static; do
		local link
		link=$(pkg-config --libs nolock)
		[ $linkage = shared ] || link=${link/-lnolock/-l:libnolock.a}
		# shellcheck disable=SC2046,SC2086
		if $compiler -std=$std -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags nolock) \
				"$src" -o "$tmp/all" $link >"$tmp/log" 2>&1 &&
		   "$tmp/all" >"$tmp/log" 2>&1; then
			ok "headers and library: $compiler -std=$std, $linkage"
		else
			bad "headers and library: $compiler -std=$std, $linkage" "$tmp/log"
		fi
	done
}

if ! make --no-print-directory BUILD="$build" DESTDIR="$tree" prefix=/usr install \
		>"$tmp/log" 2>&1; then
	bad "make install DESTDIR prefix=/usr" "$tmp/log"
	echo "$passed passed, $failed failed, $skipped skipped"
	exit 1
fi
ok "make install DESTDIR prefix=/usr"

missing=
for f in include/nolock/{slab,inline,gfp,heap,stat,page,rcu,debug,bpf,nolock.bpf}.h lib/libnolock.{so,so.0,a} \
	 lib/libnolock-malloc.so \
	 lib/bpf/libnolock{,-grow}.bpf.o lib/pkgconfig/nolock.pc bin/nolock sbin/nolockd \
	 share/doc/nolock/examples/{hash,queue,skiplist}{.h,.bpf.c,.c}; do
	[ -e "$tree/usr/$f" ] || missing="$missing $f"
done
if [ -z "$missing" ]; then ok "layout of the tree"; else bad "not installed:$missing"; fi

# As if the tree were /usr: only pkg-config knows where it is.
export PKG_CONFIG_PATH=$tree/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tree
export LD_LIBRARY_PATH=$tree/usr/lib
export PATH=$tree/usr/bin:$tree/usr/sbin:$PATH:/usr/sbin:/sbin
# Ours must not be found by accident, nor by the examples.
unset NOLOCK_BUILD

version=$(pkg-config --modversion nolock 2>&1)
if [ "$("$tree/usr/bin/nolock" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)" \
	= "$version" ]; then
	ok "nolock --version and nolock.pc agree: $version"
else
	bad "nolock --version says '$("$tree/usr/bin/nolock" --version 2>&1)', nolock.pc says '$version'"
fi

headers c gcc gnu11
headers c gcc c99
headers cpp g++ c++11
headers cpp g++ c++20

if [ -e README.md ]; then
	example C
	example BPF
else
	bad "README.md: there is none in $top"
	bad "README.md: no BPF example either"
fi

bpf_example hash
bpf_example queue
bpf_example skiplist

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
