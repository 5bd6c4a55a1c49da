#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What libnolock.so gives to others: the functions that the public headers declare, the one variable
# that inlined code reads, and no more.
# It needs libc alone, cannot be unloaded, and finds its thread-local data without a call.

set -u
cd "$(dirname "$0")/../.." || exit 1
build=${NOLOCK_BUILD:-build}
so=$build/lib/libnolock.so
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. selftests/verdict.sh

check()
{
	printf '%s\n' "$2" >"$tmp/out"
	[ -z "$2" ]
	verdict "$1" $?
}

[ -e "$so" ] || { echo "no $so: run make"; exit 1; }

# A declaration may go over several lines; comments may name functions too.
gcc -E -P -Ilib/include -include nolock/slab.h -include nolock/heap.h -include nolock/stat.h \
	-include nolock/page.h -include nolock/debug.h -include nolock/rcu.h '-DNOLOCK_API=@API@' -x c /dev/null | tr '\n' ' ' | tr ';}' '\n\n' |
	sed -n 's/^.*@API@ [^(]*[^a-z0-9_(]\([a-z0-9_]*\)(.*/\1/p' >"$tmp/functions"
# What inlined code refers to: data, of the threads alone.
gcc -E -P -Ilib/include -include nolock/slab.h -x c /dev/null |
	sed -n 's/^extern __thread .* \([a-z0-9_]*\) __attribute__.*/\1/p' >"$tmp/data"
sort -u "$tmp/functions" "$tmp/data" >"$tmp/declared"
nm -D --defined-only "$so" | sed -n 's/^[0-9a-f]* [TtDdBbRrVvWwi] \([^@]*\).*/\1/p' |
	sort -u >"$tmp/exported"

[ "$(wc -l <"$tmp/declared")" -gt 40 ]
check "the headers declare functions" "$([ $? -eq 0 ] || cat "$tmp/declared")"
check "each function that the headers declare is exported" \
	"$(comm -23 "$tmp/declared" "$tmp/exported")"
check "nothing else is exported" "$(comm -13 "$tmp/declared" "$tmp/exported")"
check "needs libc alone" "$(readelf -d "$so" | grep NEEDED | grep -vE '\[(libc\.so\.6|ld-linux.*)\]')"
check "soname is libnolock.so.0" \
	"$(readelf -d "$so" | grep -q 'SONAME.*\[libnolock\.so\.0\]' || readelf -d "$so")"
check "is never unloaded (nodelete)" "$(readelf -d "$so" | grep -q NODELETE || readelf -d "$so")"
check "no call to __tls_get_addr, which may allocate" "$(nm -D "$so" | grep __tls_get_addr)"
check "no executable stack, no text relocations" \
	"$(readelf -lW "$so" | grep 'GNU_STACK.*RWE'; readelf -d "$so" | grep TEXTREL)"

total
