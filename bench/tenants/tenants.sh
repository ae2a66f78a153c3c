# shellcheck shell=bash disable=SC2154
# Many tenants in one database, at the server's own size of the lock table: the status of all, looking for what is
# due, a run of all with nothing to do, and making one more. There is no rival; each session starts cold, but the one
# that makes its second tenant, and so has the pages of the catalogs in its page table.

# within <what> <limit in ms> <file> [limit]: in as many new sessions as there are pairs.
within() {
  local i took
  report "$1" ms "${4:-<= 1.00}" "$(
    for ((i = 0; i < RF_BENCH_PAIRS; i++)); do
      took=$(milliseconds tenants "$3") || exit 1
      printf '%s %s %s\n' "$took" "$2" "$(quotient "$took" "$2")"
    done
  )"
}

# made_at_once <from> <until>: in a session of its own.
made_at_once() { (cd "$bench_dir" && psql_in tenants -v from="$1" -v until="$2" -f make.sql) >/dev/null; }

bench_tenants() {
  local tenants=${RF_BENCH_TENANTS:-500}
  table_head
  # 64 is what a server has that nobody has tuned.
  psql_in postgres -c 'ALTER SYSTEM SET max_locks_per_transaction = 64'
  "$bin/pg_ctl" restart -D "$run_dir/data" -l "$run_dir/log" -w -s
  psql_in postgres -c 'CREATE DATABASE tenants'
  psql_in tenants -c 'CREATE EXTENSION rillflow'
  made_at_once 1 $((tenants / 2)) &
  made_at_once $((tenants / 2 + 1)) "$tenants"
  wait "$!"
  # As autovacuum would have done, which is off here, and as after all that other benchmarks prepare.
  psql_in tenants -c 'VACUUM ANALYZE'
  within "the status of all of $tenants" 2000 status.sql
  within "looking for policies that are due" 5000 due.sql
  within "a run of all with nothing to do" 5000 run.sql
  within "one more tenant" 300 one.sql
  within "one more in a session that has made one before" 300 again.sql -
  note 'The rival is the limit. Each session is new.' \
    "An append to a tenant takes $(milliseconds tenants append.sql) ms."
  psql_in postgres -c 'ALTER SYSTEM RESET max_locks_per_transaction'
  psql_in postgres -c 'DROP DATABASE tenants'
  "$bin/pg_ctl" restart -D "$run_dir/data" -l "$run_dir/log" -w -s
}
