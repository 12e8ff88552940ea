#!/bin/sh
# run-fuzzers.sh SECONDS PROGRAM...: runs each fuzzer for that long, keeps its corpus beside it, and ends with the totals.
seconds=$1
shift
passed=0
failed=0
for program in "$@"; do
  mkdir -p "$program.corpus"
  log="$program.log"
  if "./$program" -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$program." "$program.corpus" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok: $program, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s"
  else
    failed=$((failed + 1))
    tail -n 40 "$log"
    echo "not ok: $program"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
