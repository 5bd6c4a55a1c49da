#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The runner of the tests, tested: whatever goes wrong in a suite is a failure of the run.

set -u
cd "$(dirname "$0")/../.." || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. selftests/verdict.sh
unprivileged=(setpriv --bounding-set=-bpf,-sys_admin --inh-caps=-bpf,-sys_admin)
"${unprivileged[@]}" true 2>/dev/null || unprivileged=()

# A suite as libcriterion would be: it writes what it is told to the file of --tap=FILE.
suite()
{
	cat >"$tmp/$1" <<-END
	#!/bin/bash
	for a; do case \$a in --tap=*) tap=\${a#--tap=} ;; esac; done
	$2
	END
	chmod +x "$tmp/$1"
}

# expect NAME STATUS TOTAL ITEM...
expect()
{
	local name=$1 status=$2 total=$3 got last
	shift 3

	NOLOCK_TEST_TIMEOUT=2 "${runner[@]}" --build "$tmp/build" "$@" >"$tmp/out" 2>&1
	got=$?
	last=$(tail -n 1 "$tmp/out")
	[ $got -eq "$status" ] && [ "$last" = "$total" ]
	verdict "$name" $? "exit status $got, '$last'; want $status, '$total'"
}

suite good 'printf "TAP version 13\n1..2\nok - a::x  (0.00s)\nok - a::y  (0.00s)\n" >$tap'
suite bad 'printf "1..2\nok - a::x  (0.00s)\nnot ok - a::y  (0.00s)\n" >$tap; exit 1'
suite crashed 'kill -SEGV $$'
suite hung 'sleep 60'
suite empty 'printf "1..0\n" >$tap'
suite cut 'printf "1..3\nok - a::x  (0.00s)\n" >$tap'
suite lying 'printf "1..1\nok - a::x  (0.00s)\n" >$tap; exit 3'
suite skipping 'printf "1..2\nok - a::x  (0.00s)\nok - a::y  # SKIP no BPF\n" >$tap'
suite program 'echo hello; echo "3 passed, 0 failed, 1 skipped"'

runner=(selftests/run)
expect 'all passed' 0 '2 passed, 0 failed, 0 skipped' suite="$tmp/good"
expect 'sums' 1 '4 passed, 2 failed, 0 skipped' suite="$tmp/good" suite="$tmp/bad" \
	'step=one=true' 'step=two=false'
expect 'a failed test' 1 '1 passed, 1 failed, 0 skipped' suite="$tmp/bad"
expect 'a crash' 1 '0 passed, 1 failed, 0 skipped' suite="$tmp/crashed"
expect 'a hang' 1 '0 passed, 1 failed, 0 skipped' suite="$tmp/hung"
expect 'a suite without tests' 1 '0 passed, 1 failed, 0 skipped' suite="$tmp/empty"
expect 'a report that is cut off' 1 '1 passed, 1 failed, 0 skipped' suite="$tmp/cut"
expect 'a status that the report does not explain' 1 '1 passed, 1 failed, 0 skipped' \
	suite="$tmp/lying"
expect 'a suite that is not there' 1 '0 passed, 1 failed, 0 skipped' suite="$tmp/none"
expect 'nothing to run' 1 '0 passed, 0 failed, 0 skipped'
expect 'a program that fails though its total does not' 1 '1 passed, 1 failed, 0 skipped' \
	'step=x=echo "1 passed, 0 failed, 0 skipped"; exit 1'
expect 'a program that counts nothing' 1 '0 passed, 1 failed, 0 skipped' \
	'step=x=echo "0 passed, 0 failed, 0 skipped"'
expect 'one by name' 0 '1 passed, 0 failed, 0 skipped' --only two 'step=one=false' 'step=two=true'

# Skipping is for those who lack a right.
if [ "$(id -u)" -ne 0 ]; then
	expect 'a skipped test' 0 '1 passed, 0 failed, 1 skipped' suite="$tmp/skipping"
elif [ ${#unprivileged[@]} -gt 0 ]; then
	runner=("${unprivileged[@]}" selftests/run)
	expect 'a skipped test without CAP_BPF' 0 '4 passed, 0 failed, 3 skipped' \
		suite="$tmp/skipping" program="$tmp/program" 'step=x=exit 77'
fi
if grep -q '^CapEff:[[:space:]]*0000.*[89a-f].........$' /proc/self/status &&
   [ "$(id -u)" -eq 0 ]; then
	runner=(selftests/run)
	expect 'a skipped test as root with CAP_BPF' 1 '1 passed, 0 failed, 1 skipped' \
		suite="$tmp/skipping"
fi

total
