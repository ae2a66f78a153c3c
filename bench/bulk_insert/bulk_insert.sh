# shellcheck shell=bash disable=SC2154
# One INSERT ... SELECT of 150,000 rows over 5,000 hot streams.

# insert <redirect> <file>: the time of it, in a fresh copy.
insert() {
  fresh hot_streams inserting
  psql_in inserting -c "SELECT rf_archive_set_redirect($1)" -c 'CHECKPOINT' >/dev/null
  milliseconds inserting "$2"
}

# compare <what> <redirect> <limit> <our file> <rival's file>
compare() {
  report "$1" ms "$3" "$(in_pairs "$RF_BENCH_PAIRS" "insert $2 $4" "on_plain insert $2 $5")"
}

bench_bulk_insert() {
  table_head
  make_template hot_streams
  compare 'redirect on' true '<= 1.20' numbered.sql numbered.sql
  compare 'redirect off' false '<= 1.15' numbered.sql numbered.sql
  compare 'redirect on, stream_seq left out by us' true - unnumbered.sql numbered.sql
  compare 'redirect on, ON CONFLICT DO NOTHING' true - on_conflict.sql on_conflict.sql
  note 'The rival is the same leaf without triggers, and no parent.'
}
