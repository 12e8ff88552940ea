#!/bin/sh
# run-tests.sh PROGRAM... -- [FILTER]: runs each test program and ends with the sum of their totals. A program that ends
# without its line of totals (a sanitizer stopped it) counts as one failure. RUNNER is a program to run them with.
programs=''
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
  programs="$programs $1"
  shift
done
[ "$#" -gt 0 ] && shift
passed=0
failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
for program in $programs; do
  ${RUNNER:-} "./$program" "$@" >"$log" 2>&1
  status=$?
  echo "== $program"
  grep -v '^[0-9]* passed, [0-9]* failed$' "$log"
  totals=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1)
  if [ -z "$totals" ]; then
    echo "$program ended with status $status before its last test"
    failed=$((failed + 1))
    continue
  fi
  echo "   ${totals% *} of $((${totals% *} + ${totals#* })) tests passed"
  passed=$((passed + ${totals% *}))
  failed=$((failed + ${totals#* }))
  if [ "$status" -ne 0 ] && [ "${totals#* }" -eq 0 ] && [ "${totals% *}" -gt 0 ]; then
    echo "$program ended with status $status"
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
