#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What the targets of the Makefile are told, they pass on.

set -u
cd "$(dirname "$0")/../.." || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL BUILD TINY PROGRAMS
. selftests/verdict.sh

# What is named is what check-programs runs; nothing named is all of them.
for programs in '' 'perl git'; do
	got=$(make -n --no-print-directory check-programs ${programs:+PROGRAMS="$programs"} 2>&1 |
		tail -n 1)
	[ "${got%"${got##*[! ]}"}" = "NOLOCK_BUILD=build selftests/programs/run${programs:+ $programs}" ]
	verdict "check-programs ${programs:-all}" $? "make would run: $got"
done
total
