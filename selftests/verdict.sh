# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# verdict.sh - how shell tests say what passed: to be sourced. What $tmp/out has, if it is there, is
# shown when something failed.

passed=0 failed=0 skipped=0

# verdict NAME STATUS [WHY]
verdict()
{
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok      $1"
	else
		failed=$((failed + 1))
		echo "FAILED  $1${3:+: $3}"
		[ ! -e "${tmp-/nowhere}/out" ] || sed 's/^/    /' "$tmp/out"
	fi
}

# The last line, and the exit status.
total()
{
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
}
