# shellcheck shell=bash disable=SC2154
# Turning a month of 1,000,000 events cold, as metadata.

# flip <file>: the time of it, in a fresh copy.
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

bench_flip() {
  table_head
  make_template two_months
  report '1,000,000 events, against 10,000' ms '<= 2.00' \
    "$(in_pairs "$RF_BENCH_PAIRS" 'flip large.sql' 'flip small.sql')"
  report '1,000,000 events, against rows' ms '<= 0.001' "$(in_pairs 3 'flip large.sql' 'on_plain flip rows.sql')"
  note "A flip of 1,000,000 events writes $(logged) bytes to the log."
  note 'Rows: WITH ... DELETE ... RETURNING feeding an INSERT, one statement, plain leaves.'
}
