# shellcheck shell=bash disable=SC2154
# INSERT of one row, as an application does that knows nothing of us: one client, a prepared statement.

# Transactions of a run.
length=8000

# insert_one <database> <file> [pgbench argument]...: the time of a transaction. Each side goes on in its database
# from run to run.
insert_one() {
  microseconds "$(transactions "$@" -c 1 -t "$length" -D n=$((pair * length)))"
}

# compare <what> <redirect> <limit> <our file> <rival's file> [pgbench argument]...
compare() {
  local what=$1 redirect=$2 limit=$3 ours=$4 rivals=$5
  shift 5
  fresh one_event_each ours
  fresh one_event_each rivals
  psql_in ours -c "SELECT rf_archive_set_redirect($redirect)" >/dev/null
  report "$what" us "$limit" "$(in_pairs $((RF_BENCH_PAIRS * 2)) \
    "insert_one ours $ours $*" "on_plain insert_one rivals $rivals $*")"
}

bench_single_insert() {
  table_head
  make_template one_event_each
  compare 'redirect on' true '<= 1.25' numbered.sql numbered.sql
  compare 'redirect off' false '<= 1.25' numbered.sql numbered.sql
  compare 'redirect on, stream_seq left out by us' true - unnumbered.sql numbered.sql
  compare 'redirect on, simple protocol' true - numbered.sql numbered.sql -M simple
  note 'The rival is the same leaf without triggers, and no parent.'
}
