#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The benchmark runs: each of ours finishes its rows, the counters and the memory map that it prints
# are those of the workload, and what makes no sense is said. No time is judged.

set -u
cd "$(dirname "$0")/../.." || exit 1
build=${NOLOCK_BUILD:-build}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. selftests/verdict.sh

bench()
{
	env -u NOLOCK_BUILD "$build/bench/bench" "$@" >"$tmp/out" 2>&1
}

# of ROW ALLOCATOR KEY: a number of the row's object in the JSON, which is pretty-printed.
of()
{
	awk -v row="\"$1\"" -v name="\"$2\"" -v key="\"$3\":" '
		$1 == "\"name\":" {
			value = $2
			sub(/,$/, "", value)
			if (value == row) in_row = 1
			else if (in_row && value == name) found = 1
			else if (found) exit
		}
		found && $1 == key { sub(/,$/, "", $2); print $2; exit }' "$tmp/json"
}

# between ROW ALLOCATOR KEY LEAST MOST
between()
{
	local value

	value=$(of "$1" "$2" "$3")
	[ -n "$value" ] && awk -v v="$value" -v a="$4" -v b="$5" 'BEGIN { exit !(v >= a && v <= b) }'
	verdict "$1, $2: $3 is ${value:-missing}, from $4 to $5" $?
}

bench --rounds=2 --sittings=1 --seconds=1 --filter=pair64,fifo100k,swap2,start --json="$tmp/json"
verdict 'four rows' $?
for a in kmalloc_nolock kmalloc; do
	between pair64 $a min 0.1 100000
	# Two rounds of 200,000 and a twentieth of that each, for which a batch is the least.
	between fifo100k $a allocs 600000 700000
	between fifo100k $a objects 6400000 6400000
	# Half of what either thread frees came from the other one; none is lost on the way.
	[ "$(of swap2 $a allocs)" = "$(of swap2 $a frees)" ]
	verdict "swap2, $a: as many frees as allocations" $?
	between swap2 $a slot_locks 1 100000000
	between start $a min 1 100000000000
done

for filter in no-such-row pair64,no-such-row no-such-row,pair64 pair64,no-such-row,bpf; do
	bench --filter=$filter
	[ $? -eq 2 ] && grep -q "no row has 'no-such-row' in its name; see --list" "$tmp/out"
	verdict "a row that is none: $filter" $?
done
bench --rounds=0
[ $? -eq 2 ] && grep -q 'give a number from 1 to' "$tmp/out"
verdict 'no rounds' $?

total
