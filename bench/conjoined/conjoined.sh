# shellcheck shell=bash disable=SC2154
# Events of 100 tenants in one conjoined store, against the same events of a single store: one client, prepared
# statements.

# Transactions of a run, over streams of 25 events in the mean, as in `append`. Both sides are nearly the same: runs are
# short and many, for what the machine does meanwhile to be the same for both of a pair.
length=3000
runs=$((RF_BENCH_PAIRS * 6))

# append_time <database> <file>: the time of a transaction. Each side goes on in its database from run to run.
append_time() {
  microseconds "$(transactions "$@" -c 1 -t "$length" -D streams=$((length * runs / 25)) \
    --random-seed=$((pair + 1)))"
}

bench_conjoined() {
  table_head
  make_template single_template -v tenancy=single
  make_template conjoined_template -v tenancy=conjoined
  fresh conjoined_template ours
  fresh single_template rivals
  report 'rf_append' us '<= 1.03' "$(in_pairs "$runs" \
    'append_time ours append_of_tenant.sql' 'append_time rivals append.sql')"
  fresh conjoined_template ours
  fresh single_template rivals
  report 'INSERT of one row' us - "$(in_pairs "$runs" \
    'append_time ours insert_of_tenant.sql' 'append_time rivals insert.sql')"
  note "The rival is a single store with the same events."
}
