# shellcheck shell=bash disable=SC2154
# 191,163 real events: load, replay, move and replay again. No rivals and no limits: what to expect.

figures_width='%-50s %5s %8s %9s %9s %9s   %10s\n'

# figure_of <what> <events> <milliseconds>...: the median, its spread and the rate.
figure_of() {
  local what=$1 events=$2 sorted
  shift 2
  sorted=$(printf '%s\n' "$@" | sort -g)
  # shellcheck disable=SC2059
  printf "$figures_width" "$what" $# "$events" "$(figure "$(median <<<"$sorted")" ms)" \
    "$(figure "$(head -n 1 <<<"$sorted")" ms)" "$(figure "$(tail -n 1 <<<"$sorted")" ms)" \
    "$(figure "$(quotient "$events" "$(median <<<"$sorted")")" /ms)"
}

replay() {
  psql_in replaying -c 'VACUUM ANALYZE'
  milliseconds replaying replay.sql
}

one_round() {
  fresh real replaying
  loads+=("$(milliseconds replaying load.sql)")
  replays+=("$(replay)")
  psql_in replaying -c CHECKPOINT
  moves+=("$(milliseconds replaying move.sql)")
  psql_in replaying -f "$bench_dir/check.sql" >/dev/null
  hot_replays+=("$(replay)")
}

bench_real_events() {
  local loads=() replays=() moves=() hot_replays=() i
  if ! has_real_events; then
    note 'skipped: there is no file-events.tsv.xz, or no xz to read it'
    return
  fi
  # shellcheck disable=SC2059
  printf "$figures_width" "$benchmark" runs events median min max events
  make_template real < <(real_events)
  for ((i = 0; i < (RF_BENCH_PAIRS + 1) / 2; i++)); do one_round; done
  figure_of 'raw INSERT, one statement, months made before' 191163 "${loads[@]}"
  figure_of 'rf_archive_run, batches of 5,000' 172203 "${moves[@]}"
  figure_of 'hot replay by 500, before the move' 191163 "${replays[@]}"
  figure_of 'hot replay by 500, after it' 18960 "${hot_replays[@]}"
}
