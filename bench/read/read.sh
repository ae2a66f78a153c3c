# shellcheck shell=bash disable=SC2154
# Reading by months against one flat table of the same events; and a replay before and after half of all streams
# were archived.

# batch <database> <file>: the time of a batch of 500, one after the other through the store.
batch() {
  microseconds "$(transactions "$1" "$2" -t 380 -D after=0 -D events=190000)"
}

# stream <first> <last> <file>: the time of reading a stream whose number lies between them.
stream() {
  microseconds "$(transactions months_180 "$3" -t 4000 -D first="$1" -D last="$2")"
}

# replay <database> <archived>: the time of a batch of 500 of a replay from the first to the last, again and again.
replay() {
  local batches
  batches=$(psql_in "$1" -c "SELECT count(*) FROM batches WHERE archived = $2")
  microseconds "$(transactions "$1" replay.sql -t 380 -D n=0 -D batches="$batches" -D archived="$2")"
}

# archive_half <database> <backend>: a copy of the store with 24 months, of which half is archived.
archive_half() {
  fresh months_24 "$1"
  psql_in "$1" -c "SELECT rf_archive_set_backend('$2')" >/dev/null
  psql_in "$1" -f "$bench_dir/archive_half.sql" >/dev/null
  psql_in "$1" -f "$bench_dir/batches.sql" >/dev/null
  psql_in "$1" -c "SELECT 1 / (cold_events BETWEEN 0.4 * (hot_events + cold_events) AND 0.6 * (hot_events + cold_events))::integer
    FROM rf_archive_status()" >/dev/null
}

bench_read() {
  local months backend apart two
  if ! has_real_events; then
    note 'skipped: there is no file-events.tsv.xz, or no xz to read it'
    return
  fi
  table_head
  for months in 24 180; do
    make_template "months_$months" -v months="$months" < <(real_events)
  done
  report 'rf_read_all by 500, 24 months' us '<= 1.25' \
    "$(in_pairs $((RF_BENCH_PAIRS * 2)) 'batch months_24 all.sql' 'batch months_24 all_flat.sql')"
  report 'rf_read_all by 500, 180 months' us '<= 1.50' \
    "$(in_pairs $((RF_BENCH_PAIRS * 2)) 'batch months_180 all.sql' 'batch months_180 all_flat.sql')"
  apart=$(psql_in months_180 -c 'SELECT apart FROM streams_of_two_months')
  two=$(psql_in months_180 -c 'SELECT two FROM streams_of_two_months')
  report 'rf_read_stream, 2 of 180 months, a year apart' us '<= 1.50' \
    "$(in_pairs $((RF_BENCH_PAIRS * 2)) "stream 1 $apart stream.sql" "stream 1 $apart stream_flat.sql")"
  report 'rf_read_stream, 2 of 180 months, nearer' us '<= 1.50' \
    "$(in_pairs $((RF_BENCH_PAIRS * 2)) "stream $((apart + 1)) $two stream.sql" "stream $((apart + 1)) $two stream_flat.sql")"
  fresh months_24 wholly_hot
  psql_in wholly_hot -f "$bench_dir/batches.sql" >/dev/null
  for backend in dual_table partitioned; do
    archive_half "half_$backend" "$backend"
    report "hot replay, half archived, $backend" us '<= 1.05' \
      "$(in_pairs $((RF_BENCH_PAIRS * 2)) "replay half_$backend false" 'replay wholly_hot false')"
    report "whole replay, half archived, $backend" us - \
      "$(in_pairs $((RF_BENCH_PAIRS * 2)) "replay half_$backend true" 'replay wholly_hot false')"
  done
  note 'Rivals: the same query, prepared, on one flat table; of the replays the one before anything was archived.'
}
