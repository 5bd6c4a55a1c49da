#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# test_model.sh - the protocols' models in Spin: searched exhaustively within their bounds, and
# shown not to be vacuous by mutations of which each must fail.
#
#   test_model.sh [long]    long: wider bounds, which take minutes each and up to 4 GiB; none is
#                           begun after TORTURE_SECONDS (no limit)
#
# The last states of the dead are no deadlocks: pan -E. That all ends is the judge's business, who
# asserts only when it has: that he did, or a bound without him would prove nothing, is looked for
# in the list of what a search never reached.

set -u
cd "$(dirname "$0")" || exit 1

# good|bad MODEL DEFINES...: the search must find no error, or one. Its report is a line, or more.
search()
{
	local want=$1 model=$2 work log states errors optimise=-O0
	shift 2
	work=$(mktemp -d) || return 1
	# shellcheck disable=SC2064
	trap "rm -rf '$work'" EXIT
	log=$work/log
	cp "$model.pml" "$work"
	cd "$work" || return 1
	[ "$want" = bad ] || optimise=-O1
	if ! spin -a "$@" "$model.pml" >"$log" 2>&1 ||
		! gcc $optimise -w -DSAFETY -DCOLLAPSE -o pan pan.c >>"$log" 2>&1; then
		echo "FAIL $model $*: $(cat "$log")"
		return 1
	fi
	./pan -E -m100000 -w"${HASH:-22}" >"$log" 2>&1
	errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' "$log")
	states=$(sed -n 's/^ *\([0-9e+.]*\) states, stored.*/\1/p' "$log")
	if [ -z "$errors" ]; then
		errors=incomplete
	elif [ "$want" = good ] && grep -Eq 'Search not completed|max search depth' "$log"; then
		errors=incomplete
	elif [ "$want" = good ] && sed -n '/unreached in proctype judge/,/unreached in/p' "$log" |
		grep -q assert; then
		errors='none, but the judge never asserted'
	fi
	case $want:$errors in
	good:0 | bad:[1-9]*)
		echo "$want $model${*:+ $*}: $states states, $errors errors, as it should be"
		;;
	*)	echo "FAIL $model $*: errors: $errors, but the search should be $want"
		sed 's/^/    | /' "$log" | head -n 12
		[ ! -e "$model.pml.trail" ] ||
			spin -t -p -g "$@" "$model.pml" 2>/dev/null </dev/null | tail -n 60 |
			sed 's/^/    | /'
		return 1
		;;
	esac
}

mutants()
{
	local model=$1 defines=$2 bug
	shift 2
	for bug; do
		echo "bad $model $defines -DBUG_$bug"
	done
}

searches()
{
	case $1 in
	short) # Two clients, one of which may die; then one alone with handlers.
		echo good slot -DNO_HANDLER
		echo good slot -DSHARED -DNO_HANDLER
		echo good slot -DNO_OTHER -DNO_NESTED
		echo good slot -DSHARED -DNO_OTHER -DSWITCHES=0
		echo good slab -DNO_HANDLER
		echo good slab -DNO_OTHER
		echo good barn
		echo good chunk -DNO_HANDLER -DCALLS=2
		echo good chunk -DNO_OTHER -DCALLS=2
		echo good bias
		echo good hint -DNO_HANDLER -DCALLS=2
		echo good hint -DNO_NESTED
		echo good hint -DNO_OTHER
		mutants slot -DNO_HANDLER PREEMPT INDEX LOCK BARRIER SURE
		mutants slot '-DNO_OTHER -DNO_NESTED' SIGNAL
		mutants slot '-DNO_HANDLER -DSHRINKERS=2 -DSWITCHES=0' GENERATION
		mutants slot '-DNO_HANDLER -DSHARED' LARGER NAME
		mutants slab -DNO_HANDLER FORGET TWICE EARLY SURE ORDER
		mutants barn '' OWNER LINKED LATE
		mutants chunk '-DNO_HANDLER -DCALLS=2' CLAIM STRAY OPEN LOOK SURE BITS TRANSIT
		mutants bias '' MOVED PREEMPT REMOTE RESTORE
		mutants hint '-DNO_HANDLER -DCALLS=2' LOOK FIRST LEVELS STOP REPAIR
		;;
	long)
		echo good chunk
		echo good slab -DNO_OTHER -DCALLS=2
		echo good slab
		echo good barn -DCALLS=4
		echo good bias -DFIRST=FREE
		echo good hint -DNO_OTHER -DCALLS=2
		echo good slot -DSHARED -DNO_OTHER
		echo good slot -DSHARED -DNO_HANDLER -DOBJECTS=2
		echo good slot -DNO_OTHER
		;;
	esac
}

case ${1-} in
search)
	shift
	search "$@"
	exit
	;;
'')	length=short ;;
long)	length=long ;;
*)	echo "usage: $0 [long]" >&2
	exit 2
	;;
esac
report=$(mktemp) || exit 1
trap 'rm -f "$report"' EXIT
if [ $length = short ]; then
	searches short | xargs -P "$(nproc)" -L 1 ./test_model.sh search >"$report"
else
	while read -r line; do
		if [ "$SECONDS" -gt "${TORTURE_SECONDS:-$((SECONDS + 1))}" ]; then
			echo "left out: $line"
			continue
		fi
		# shellcheck disable=SC2086
		HASH=26 ./test_model.sh search $line </dev/null
	done < <(searches long) >"$report"
fi
cat "$report"
good=$(grep -c '^good' "$report") bad=$(grep -c '^bad' "$report")
skipped=$(grep -c '^left out' "$report")
failed=$(($(searches $length | wc -l) - good - bad - skipped))
awk '/^good/ { n++; for (i = 2; i <= NF; i++) if ($i == "states,") s += $(i - 1) }
	END { printf "# %d searches: %d states, 0 errors\n", n, s }' "$report"
[ $length = long ] || echo "# $bad mutations, each of them found"
echo "$((good + bad)) passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
