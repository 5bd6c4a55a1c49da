#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What is missing is said in one line that names the packages; a list that makes no sense, too.

set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/scripts" && cp scripts/deps "$tmp/scripts/deps" && chmod -R a+rX "$tmp" || exit 1
. selftests/verdict.sh

# expect NAME STATUS OUTPUT LIST COMMAND...
expect()
{
	local name=$1 status=$2 want=$3 got

	printf '%s\n' "$4" >"$tmp/packages"
	chmod a+r "$tmp/packages"
	shift 4
	"$@" >"$tmp/out" 2>&1
	got=$?
	[ $got -eq "$status" ] && [ "$(cat "$tmp/out")" = "$want" ]
	verdict "$name" $? "exit status $got, want $status, '$want'"
}

deps=$tmp/scripts/deps
expect 'all there' 0 '' 'build libc6-dev hdr:stdio.h' "$deps" check build
expect 'one line for all that is missing' 1 \
	"deps: missing: as root, 'make deps' or 'apt-get install one two three'" \
	'# a comment
build one cmd:no-such-command

build libc6-dev hdr:stdio.h
build two hdr:no/such/header.h
check three file:/no/such/file
bench four cmd:no-such-command' "$deps" check build check
expect 'nothing to install' 0 '' 'build libc6-dev hdr:stdio.h' "$deps" install build
expect 'an unknown probe' 1 \
	"deps: $tmp/packages: unknown probe 'rpm:x': use cmd:, hdr:, file: or lib:" \
	'build x rpm:x' "$deps" check build
expect 'an unknown verb' 1 "deps: unknown verb 'frobnicate': use check, install or ensure" \
	'' "$deps" frobnicate build
if [ "$(id -u)" -eq 0 ]; then
	expect 'not root' 1 'deps: not root: cannot install one' 'build one cmd:no-such-command' \
		setpriv --reuid=65534 --regid=65534 --clear-groups "$deps" install build
else
	expect 'not root' 1 'deps: not root: cannot install one' 'build one cmd:no-such-command' \
		"$deps" install build
fi

total
