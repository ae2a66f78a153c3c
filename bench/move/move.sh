# shellcheck shell=bash disable=SC2154
# Moving 100,000 events by rows, in batches of 5,000.

# A stream a file, an event a change to it; where there are no real ones, events of the same skew: 14,600
# streams, of which half have two events or fewer and the largest has some 600.
hundred_thousand_events() {
  if has_real_events; then
    real_events | awk 'NR <= 100000'
  else
    awk 'BEGIN {
      srand(1)
      while (n < 100000) {
        size = int(1.3 / exp(log(1 - rand()) * 0.95)); if (size > 600) size = 600
        file++
        for (i = 0; i < size && n < 100000; i++)
          printf "%d\trepository\tsrc/part%d/file%d.c\tM\t%012x\n", 1300000000 + rand() * 4e8, file % 90, file, n++
      } }'
  fi
}

# move <template> <file>: the time of it, in a fresh copy.
move() {
  fresh "$1" moving
  milliseconds moving "$2"
  psql_in moving -f "$bench_dir/check.sql" >/dev/null
}

bench_move() {
  table_head
  hundred_thousand_events >"$run_dir/events"
  make_template one_month -v spread=false <"$run_dir/events"
  report 'against stream by stream' ms '<= 0.50' \
    "$(in_pairs "$RF_BENCH_PAIRS" 'move one_month rillflow.sql' 'on_plain move one_month per_stream.sql')"
  report 'against ranges of global_seq' ms '<= 1.00' \
    "$(in_pairs "$RF_BENCH_PAIRS" 'move one_month rillflow.sql' 'on_plain move one_month per_range.sql')"
  report 'against ranges, streams closed by these too' ms - \
    "$(in_pairs "$RF_BENCH_PAIRS" 'move one_month rillflow.sql' 'on_plain move one_month per_range_closing.sql')"
  psql_in postgres -c 'CREATE DATABASE streams_go_on TEMPLATE one_month'
  psql_in streams_go_on -f "$bench_dir/go_on.sql"
  report 'against ranges, no stream to be closed' ms - \
    "$(in_pairs "$RF_BENCH_PAIRS" 'move streams_go_on rillflow.sql' 'on_plain move streams_go_on per_range.sql')"
  make_template all_months -v spread=true <"$run_dir/events"
  psql_in postgres -c 'CREATE DATABASE without_cold TEMPLATE all_months'
  psql_in without_cold -f "$bench_dir/drop_months.sql"
  report 'many months: cold ones to be made, or there' ms - \
    "$(in_pairs "$RF_BENCH_PAIRS" 'move without_cold rillflow.sql' 'move all_months rillflow.sql')"
  note 'The rivals have the same leaves without triggers, and no parents; the ranges close no streams.'
}
