# shellcheck shell=bash disable=SC2154
# Turning a month of 1,000,000 events cold, as metadata; and 24 months, while four clients append.

# flip <file>: the time of it, in a fresh copy. It is not the first of its session: a run does month after month.
flip() {
  fresh two_months flipping
  milliseconds flipping "$1"
}

# The bytes that a flip of 1,000,000 events writes to the log.
logged() {
  local before
  fresh two_months flipping
  before=$(psql_in flipping -c 'SELECT pg_current_wal_insert_lsn()')
  psql_in flipping -c "SELECT rf_flip_partition('2025-01-01', 'cold')" >/dev/null
  psql_in flipping -c "SELECT (pg_current_wal_insert_lsn() - '$before')::bigint"
}

# while_appending: runs 24 flips while four clients append, and prints the 99th percentile of the appends in that
# time, and of those in the seconds before. Leaves the longest append and the longest flip in files, all in ms.
while_appending() {
  local appenders from first last longest
  fresh many_months flipping
  rm -f "$run_dir"/appends.*
  "$bin/pgbench" -n -M prepared -f "$bench_dir/append.sql" -c 4 -j 2 -T 3600 -l --log-prefix="$run_dir/appends" flipping \
    >"$run_dir/pgbench.out" 2>&1 &
  appenders=$!
  sleep 2
  from=$EPOCHREALTIME
  sleep 6
  psql_in flipping -c "CALL rf_archive_run('2026-01-01 00:00+00')" 2>/dev/null
  # What it has not written to its log by then are appends that came later.
  sleep 1
  kill -TERM "$appenders"
  wait "$appenders" || true
  ! grep -E 'aborted|ERROR' "$run_dir/pgbench.out" >&2 || die 'an append failed'
  IFS='|' read -r _ first last longest < <(psql_in flipping -f "$bench_dir/flipped.sql")
  echo "$longest" >>"$run_dir/longest_flip"
  latencies "$first" "$last" | tail -n 1 >>"$run_dir/longest_append"
  printf '%s %s %s\n' "$(latencies "$first" "$last" | percentile_99)" "$(latencies "$from" "$first" | percentile_99)" \
    "$last $first" | awk '{ print $1, $2, $1 / $2; print $3 - $4 >"/dev/stderr" }' 2>>"$run_dir/flipping_time"
}

# latencies <from> <to>: of the appends that ended in that time, in ms, sorted.
latencies() {
  cat "$run_dir"/appends.* | awk -v from="$1" -v to="$2" '{ at = $5 + $6 / 1e6 } at >= from && at <= to { print $3 / 1000 }' |
    sort -g
}

percentile_99() {
  awk '{ v[NR] = $1 } END { if (NR < 200) exit 1; print v[int(NR * 0.99)] }'
}

# longest_in <file>
longest_in() { figure "$(sort -g "$run_dir/$1" | tail -n 1)" ms; }

bench_flip() {
  local i
  table_head
  make_template two_months
  report '1,000,000 events, against 10,000' ms '<= 2.00' \
    "$(in_pairs "$RF_BENCH_PAIRS" 'flip large.sql' 'flip small.sql')"
  report 'back to hot: 1,000,000 events, against 10,000' ms '<= 2.00' \
    "$(in_pairs "$RF_BENCH_PAIRS" 'flip large_back.sql' 'flip small_back.sql')"
  report '1,000,000 events, against rows' ms '<= 0.001' "$(in_pairs 3 'flip large.sql' 'on_plain flip rows.sql')"
  note "A flip of 1,000,000 events writes $(logged) bytes to the log."
  note 'Rows: WITH ... DELETE ... RETURNING feeding an INSERT, one statement, plain leaves.'
  make_template_by months.sql many_months
  report 'appends of 4 clients, while 24 months flip, 99 %' ms '<= 1.50' \
    "$(for ((i = 0; i < RF_BENCH_PAIRS; i++)); do while_appending; done)"
  note "The longest append took $(longest_in longest_append), the longest locks were held for $(longest_in longest_flip);" \
    "24 flips took $(median <"$run_dir/flipping_time") s."
}
