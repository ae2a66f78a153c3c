# shellcheck shell=bash disable=SC2154
# The worker: what it costs when it has nothing to do, how soon it moves what is due, and how long others wait for it.
# There is no rival; what is measured stands against its limit.

# restart_with <setting>...: as ALTER SYSTEM takes them.
restart_with() {
  local setting
  for setting in "$@"; do psql_in postgres -c "ALTER SYSTEM $setting"; done
  "$bin/pg_ctl" restart -D "$run_dir/data" -l "$run_dir/log" -w -s
}

# against_limit <limit> <figure>...: pairs.
against_limit() {
  local limit=$1 figure
  shift
  for figure in "$@"; do printf '%s %s %s\n' "$figure" "$limit" "$(quotient "$figure" "$limit")"; done
}

# until_true <database> <query>: polls.
until_true() {
  local i
  for ((i = 0; i < 1200; i++)); do
    if [ "$(psql_in "$1" -c "$2")" = t ]; then return; fi
    sleep 0.1
  done
  die "not within two minutes: $2"
}

# ---- nothing to do

# cpu_of_launcher <process>: what it has used, in microseconds.
cpu_of_launcher() { awk '{ printf "%.0f\n", $1 / 1000 }' "/proc/$1/schedstat"; }

# cpu_of_children <postmaster>: what its children used that have ended, in clock ticks.
cpu_of_children() { awk '{ print $16 + $17 }' "/proc/$1/stat"; }

# idle_cost: milliseconds a minute of the launcher and of all processes that came and went. No session is
# opened meanwhile, for that would be one of them.
idle_cost() {
  local launcher postmaster used ended
  launcher=$(psql_in postgres -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'rillflow launcher'")
  postmaster=$(head -n 1 "$run_dir/data/postmaster.pid")
  sleep 5
  used=$(cpu_of_launcher "$launcher")
  ended=$(cpu_of_children "$postmaster")
  sleep "$idle_seconds"
  used=$(($(cpu_of_launcher "$launcher") - used))
  ended=$(($(cpu_of_children "$postmaster") - ended))
  awk -v used="$used" -v ended="$ended" -v ticks="$(getconf CLK_TCK)" -v seconds="$idle_seconds" \
    'BEGIN { printf "%.4f\n", (used / 1000 + ended * 1000 / ticks) * 60 / seconds }'
}

# idle: with one policy that is not due, and then with eight databases more that lack the extension. The limit is one
# database's.
bench_idle() {
  psql_in postgres -f "$bench_dir/idle.sql" >/dev/null
  until_true postgres "SELECT count(*) > 0 FROM rf_archive_runs WHERE finished_at IS NOT NULL"
  report 'idle for a minute, one policy that is not due' ms '<= 1.00' "$(against_limit 1 "$(idle_cost)")"
  for i in {1..8}; do psql_in postgres -c "CREATE DATABASE bare_$i"; done
  report 'the same, and eight databases without extension' ms '<= 1.00' "$(against_limit 1 "$(idle_cost)")"
  for i in {1..8}; do psql_in postgres -c "DROP DATABASE bare_$i"; done
  psql_in postgres -c 'DROP EXTENSION rillflow CASCADE'
}

# ---- what is due

# moved_after: seconds from the moment a policy is set until all that is due is cold.
moved_after() {
  local begin
  fresh loaded moving
  begin=$EPOCHREALTIME
  psql_in moving -f "$bench_dir/due.sql"
  until_true moving "SELECT NOT EXISTS (SELECT FROM events_hot WHERE created_at < '2026-01-01 00:00+00')"
  awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", end - begin }'
  [ "$(psql_in moving -c 'SELECT count(*) FROM events_all')" -eq 191163 ] || die "events are missing"
}

bench_due() {
  local i
  has_real_events || return 0
  make_template_by ../real_events/template.sql loaded < <(real_events)
  psql_in loaded -f "$root/bench/real_events/load.sql" >/dev/null
  report '172,203 real events, from the policy on' s '<= 1.00' \
    "$(against_limit 30 $(for ((i = 0; i < 3; i++)); do moved_after; done))"
}

# ---- others

at_work() {
  until_true postgres "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'rillflow worker' AND datname = '$1'"
  sleep 1
}

busy() {
  fresh template_busy busy
  psql_in busy -f "$bench_dir/work.sql"
  at_work busy
}

# seconds <command>...
seconds() {
  local begin=$EPOCHREALTIME
  "$@" || die "failed: $*"
  awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", end - begin }'
}

# times_of_others: of a copy, a rename, a drop, and a fast stop, while a worker moves batches.
times_of_others() {
  local copy rename drop stop
  busy
  copy=$(seconds psql_in postgres -c 'CREATE DATABASE copy TEMPLATE busy')
  at_work busy
  rename=$(seconds psql_in postgres -c 'ALTER DATABASE busy RENAME TO renamed')
  at_work renamed
  drop=$(seconds psql_in postgres -c 'DROP DATABASE renamed')
  psql_in postgres -c 'DROP DATABASE copy'
  busy
  stop=$(seconds "$bin/pg_ctl" stop -D "$run_dir/data" -m fast -w -s)
  "$bin/pg_ctl" start -D "$run_dir/data" -l "$run_dir/log" -w -s
  printf '%s %s %s %s\n' "$copy" "$rename" "$drop" "$stop"
}

bench_others() {
  local rounds='' round column
  local what=('CREATE DATABASE TEMPLATE while it works' 'ALTER DATABASE RENAME' 'DROP DATABASE' 'fast stop')
  make_template_by busy.sql template_busy
  for ((round = 0; round < 3; round++)); do rounds+=$(times_of_others)$'\n' || die "a round failed"; done
  rounds=${rounds%$'\n'}
  for ((column = 0; column < 4; column++)); do
    # shellcheck disable=SC2046
    report "${what[column]}" s '<= 1.00' "$(against_limit 5 $(column $((column + 1)) <<<"$rounds"))"
  done
}

bench_worker() {
  local idle_seconds=${RF_BENCH_IDLE:-120} i
  table_head
  restart_with "SET shared_preload_libraries = 'rillflow'"
  bench_idle
  bench_due
  bench_others
  note 'The rival is the limit.'
  forget_databases
  restart_with 'RESET shared_preload_libraries'
}
