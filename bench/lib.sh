# shellcheck shell=bash disable=SC2154
# What the benchmarks share: databases made afresh, times, pairs of runs and the table of results. To be
# sourced by bench/run, which sets bin, run_dir and root.
#
# Each benchmark makes a template, a database that holds all that its runs start from, and measures in copies of
# it. The two sides of a pair run one right after the other, and what counts is the median of the pairs' ratios:
# what else the machine does meanwhile troubles both.

# ---- databases

# psql_in <database> [psql argument]...: bare output; any error ends the run.
psql_in() {
  "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$@"
}

# make_template <name> [psql argument]...: a database of that name, filled by the benchmark's template.sql.
make_template() {
  make_template_by template.sql "$@"
}

# make_template_by <file> <name> [psql argument]...: the same by another file.
make_template_by() {
  local file=$1 name=$2
  shift 2
  psql_in postgres -c "CREATE DATABASE $name"
  (cd "$bench_dir" && psql_in "$name" "$@" -f "$file") >/dev/null
}

forget_databases() {
  psql_in postgres <<'SQL'
SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate
\gexec
SQL
}

# fresh <template> <database>: a new copy of it to measure in.
fresh() {
  psql_in postgres -c "DROP DATABASE IF EXISTS $2" -c "CREATE DATABASE $2 TEMPLATE $1" -c 'CHECKPOINT'
}

# on_plain <command>...: with the search path on the schema of the rival, where the plain tables have the
# names of the store's, so that both sides get the same statements.
on_plain() {
  PGOPTIONS="$PGOPTIONS -c search_path=plain,public" "$@"
}

# ---- times

# milliseconds <database> <file> [psql argument]...: what the statements took that the file times, in all.
milliseconds() {
  local database=$1 file=$2
  shift 2
  psql_in "$database" "$@" -f "$bench_dir/$file" >"$run_dir/psql.out" || return 1
  awk '/^Time: / { sum += $2; n++ } END { if (n == 0) exit 1; printf "%.3f\n", sum }' "$run_dir/psql.out"
}

# transactions <database> <file> [pgbench argument]...: per second.
transactions() {
  local database=$1 file=$2
  shift 2
  "$bin/pgbench" -n -M prepared -f "$bench_dir/$file" "$@" "$database" 2>"$run_dir/pgbench.log" |
    awk '/^tps = / { print $3; n++ } END { if (n == 0) exit 1 }' || {
    tail -n 5 "$run_dir/pgbench.log" >&2
    die "pgbench failed"
  }
}

# keep_apart: clients on one processor, and the backends that serve them on another, until let_loose. Where the kernel
# puts the two of a client changes the time of a short transaction by half from run to run, and is nothing of ours.
keep_apart() {
  processors=
  [ "$(nproc)" -ge 2 ] && have taskset || return 0
  processors=$(taskset -cp $$ | sed 's/.*: //')
  put_on 0 1 2>/dev/null || {
    note "clients and backends are not kept apart"
    let_loose
  }
}

let_loose() {
  [ -z "$processors" ] || put_on "$processors" "$processors"
}

# put_on <processors of clients> <processors of backends>
put_on() {
  taskset -cp "$1" $$ >/dev/null && taskset -cp "$2" "$(head -n 1 "$run_dir/data/postmaster.pid")" >/dev/null
}

# microseconds <transactions a second>
microseconds() {
  awk -v tps="$1" 'BEGIN { printf "%.3f\n", 1e6 / tps }'
}

# quotient <a> <b>
quotient() {
  awk -v a="$1" -v b="$2" 'BEGIN { printf "%.5f\n", a / b }'
}

# ---- results

missed=0
table_width='%-50s %5s %11s %11s   %6s %6s %6s   %7s %s\n'

# begin_benchmark <name>: sets where its files are.
begin_benchmark() {
  benchmark=$1
  bench_dir=$root/bench/$1
}

# table_head: of a benchmark that has rivals.
table_head() {
  # shellcheck disable=SC2059
  printf "$table_width" "$benchmark" pairs rillflow rival ratio min max limit ''
}

# median, from standard input, a number a line
median() {
  sort -g | awk '{ v[NR] = $1 }
    END { printf "%.5f\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# in_pairs <count> <ours> <rival>: runs the two commands by turns, each once in a pair and first in every other
# pair; `pair` numbers the pairs from 0. Each prints a figure; what comes out has the ratio as third column.
in_pairs() {
  local count=$1 pair ours rival
  for ((pair = 0; pair < count; pair++)); do
    if [ $((pair % 2)) -eq 0 ]; then
      rival=$($3) && ours=$($2)
    else
      ours=$($2) && rival=$($3)
    fi || die "failed: $2, $3"
    if [ -z "$ours" ] || [ -z "$rival" ]; then die "no figures from: $2, $3"; fi
    printf '%s %s %s\n' "$ours" "$rival" "$(quotient "$ours" "$rival")"
  done
}

# column <number>: of the pairs on standard input.
column() { cut -d ' ' -f "$1"; }

# report <what> <unit> <limit> <pairs>: a line of the table. The limit is "<= n", "< n", ">= n" or "-".
report() {
  local what=$1 unit=$2 limit=$3 pairs=$4 ratio verdict
  [ -n "$pairs" ] || die "no pairs: $what"
  ratio=$(column 3 <<<"$pairs" | median)
  verdict=$(judge "$ratio" "$limit")
  [ "$verdict" != MISSED ] || missed=$((missed + 1))
  # shellcheck disable=SC2059
  printf "$table_width" "$what" "$(wc -l <<<"$pairs")" "$(figure "$(column 1 <<<"$pairs" | median)" "$unit")" \
    "$(figure "$(column 2 <<<"$pairs" | median)" "$unit")" "$(short "$ratio")" \
    "$(short "$(column 3 <<<"$pairs" | sort -g | head -n 1)")" \
    "$(short "$(column 3 <<<"$pairs" | sort -g | tail -n 1)")" "$limit" "$verdict"
}

# judge <ratio> <limit>
judge() {
  [ "$2" != - ] || return 0
  awk -v ratio="$1" -v how="${2% *}" -v limit="${2#* }" 'BEGIN {
    print (how == "<=" ? ratio <= limit : ratio >= limit) ? "MET" : "MISSED" }'
}

# figure <number> <unit>: without decimals where these say nothing.
figure() {
  awk -v n="$1" -v unit="$2" 'BEGIN { printf n < 10 ? "%.2f %s" : n < 100 ? "%.1f %s" : "%.0f %s", n, unit }'
}

short() { printf '%.2f' "$1"; }

# note <text>...: a line below the table.
note() { printf '  %s\n' "$*"; }

verdict() {
  printf '\n'
  if [ "$missed" -eq 0 ]; then
    echo "every limit is met"
  else
    echo "$missed limits are missed"
    exit 1
  fi
}

# ---- the real events

# real_events: prints them, tab-separated: seconds, repository, path, kind, commit; in order of time.
real_events() {
  xz -dc "$RF_TEST_DATA/file-events.tsv.xz"
}

has_real_events() {
  have xz && [ -r "$RF_TEST_DATA/file-events.tsv.xz" ]
}
