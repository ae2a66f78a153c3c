# shellcheck shell=bash disable=SC2154
# Events of 100 tenants in one conjoined store, against the same events of a single store: one client, prepared
# statements. And against events that name a user: rows as wide, and statements with as many parameters. Each client
# computes such a name, whether it sends it or not.

# Transactions of a run, over streams of 25 events in the mean, as in `append`. Both sides are nearly the same: runs are
# short and many, for what the machine does meanwhile to be the same for both of a pair; and every few of them the
# databases are made afresh, for where their pages lie differs, too.
length=3000
runs=6

# time_of <database> <file>: the time of a transaction. Each side goes on in its database from run to run.
time_of() {
  microseconds "$(transactions "$@" -c 1 -t "$length" -D streams=$((length * runs / 25)) \
    --random-seed=$((pair + 1)))"
}

# pairs_of <our file> <rival's file> [times as many]
pairs_of() {
  local i
  for ((i = 0; i < RF_BENCH_PAIRS * ${3:-1}; i++)); do
    fresh conjoined_template ours
    fresh single_template rivals
    in_pairs "$runs" "time_of ours $1" "time_of rivals $2"
  done
}

bench_conjoined() {
  keep_apart
  table_head
  make_template single_template -v tenancy=single
  make_template conjoined_template -v tenancy=conjoined
  # the median of 42 pairs moves by half of what is to be told apart
  report 'rf_append' us '<= 1.03' "$(pairs_of append_of_tenant.sql append.sql 2)"
  report 'rf_append, against one that names a user' us - "$(pairs_of append_of_tenant.sql append_of_user.sql)"
  report 'INSERT of one row' us - "$(pairs_of insert_of_tenant.sql insert.sql)"
  note "The rival is a single store with the same events."
  let_loose
}
