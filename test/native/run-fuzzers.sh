#!/bin/sh
# run-fuzzers.sh OPTION... -- PROGRAM...: runs each fuzz target with these options, keeps the corpus and every finding
# beside it, prints a table of what came of it and ends with the totals.
options=''
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
  options="$options $1"
  shift
done
[ "$#" -gt 0 ] && shift
passed=0
failed=0
echo '| target | executions | seconds | inputs kept | code reached | findings |'
echo '| --- | --- | --- | --- | --- | --- |'
for program in "$@"; do
  corpus="$program.corpus"
  log="$program.log"
  rm -rf "$corpus"
  mkdir -p "$corpus"
  start=$(date +%s)
  # shellcheck disable=SC2086
  "./$program" $options -max_len=4096 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$program." "$corpus" \
    >"$log" 2>&1
  status=$?
  seconds=$(($(date +%s) - start))
  stat() { sed -n "s/^stat::$1: *//p" "$log"; }
  # libFuzzer tells its coverage while it runs, our engine at the end.
  reached=$(stat places_reached)
  [ -n "$reached" ] || reached=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  findings=0
  if [ "$status" -eq 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    findings=1
  fi
  echo "| $(basename "$program" _fuzz) | $(stat number_of_executed_units) | $seconds | $(stat new_units_added) | $reached | $findings |"
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log"
    echo "not ok: $program ended with status $status; seed ${TSFLANNEL_SEED:-1}"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
