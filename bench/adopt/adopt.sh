# shellcheck shell=bash disable=SC2154
# Adopting a table of 1,000,000 events while 4 clients append to it.

# milliseconds that the longest event took
longest() { cut -d ' ' -f 3 "$run_dir/$1".* | sort -n | tail -n 1 | awk '{ print $1 / 1000 }'; }

# adopt_once: 4 clients append one event after the other, each to a stream of its own, and note how long each took,
# in microseconds, while the table is adopted. Prints what it took, how long the table was locked, how long the longest event took, and how many
# events were appended meanwhile.
adopt_once() {
  local clients appended locked took
  fresh plain_events adopting
  rm -f "$run_dir"/latency.*
  (
    cd "$run_dir"
    exec "$bin/pgbench" -n -M prepared -c 4 -j 2 -T 3600 -D n=0 -l --log-prefix=latency -f "$bench_dir/append.sql" \
      adopting >pgbench.log 2>&1
  ) &
  clients=$!
  sleep 2
  psql_in adopting -c "CALL rf_adopt('events')"
  sleep 1
  kill "$clients"
  wait "$clients" || true
  if grep -Eq 'aborted|ERROR' "$run_dir/pgbench.log"; then
    cat "$run_dir/pgbench.log" >&2
    die "a client failed"
  fi
  appended=$(psql_in adopting -c 'SELECT count(*) - 1000000 FROM events_all')
  [ "$appended" -ge "$(cat "$run_dir"/latency.* | wc -l)" ] || die "events are missing: $appended of $(cat "$run_dir"/latency.* | wc -l)"
  took=$(psql_in adopting -c "SELECT extract(epoch FROM duration) FROM rf_archive_log WHERE action = 'adopt'")
  locked=$(psql_in adopting -c \
    "SELECT 1000 * extract(epoch FROM duration) FROM rf_archive_log WHERE action = 'adopt begun'")
  printf '%s %s %s %s\n' "$took" "$locked" "$(longest latency)" "$appended"
}

# against <limit> <column> <runs>: pairs of what was measured and what is allowed.
against() {
  awk -v limit="$1" -v column="$2" '{ print $column, limit, $column / limit }' <<<"$3"
}

bench_adopt() {
  local runs='' run
  table_head
  make_template plain_events
  for ((run = 0; run < 3; run++)); do
    runs+=$(adopt_once)$'\n' || die "adoption failed"
  done
  runs=${runs%$'\n'}
  report 'longest append of 4 clients, against lock_timeout' ms '<= 1.00' "$(against 500 3 "$runs")"
  report 'lock of the switch, against 50 ms' ms '<= 1.00' "$(against 50 2 "$runs")"
  note "1,000,000 events were adopted in $(column 1 <<<"$runs" | median) s."
  note "The clients appended $(column 4 <<<"$runs" | median) events meanwhile; none failed."
}
