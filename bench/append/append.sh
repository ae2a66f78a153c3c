# shellcheck shell=bash disable=SC2154
# rf_append, against what an application sends that knows nothing of it, and on several clients.
#
# Each side has a database of its own, in which its runs go on; both have done as many transactions then, over as
# many streams.

# Of one client in a run, and of each of eight: so many that what a session does once does not count.
length=10000
length_of_eight=5000

# So many streams for each client that one of them ends with 25 events in the mean, 1 to 50: as many of the appends
# make a stream, whatever the number of clients.
# appends <length of a client> <database> <file> [pgbench argument]...: transactions a second. Numbers of the plain
# table go on from run to run, and no two pairs have the same random streams.
appends() {
  local each=$1
  shift
  transactions "$@" -t "$each" -D streams=$((each * RF_BENCH_PAIRS * 2 / 25)) -D n=$((pair * length)) \
    --random-seed=$((pair + 1))
}

# gain <clients> <database> <file>: by how much eight clients are faster than so many.
gain() {
  local few=$1 of_few of_eight
  shift
  of_few=$(appends $((length / few)) "$@" -c "$few" -j "$few" -D clients=100)
  of_eight=$(appends "$length_of_eight" "$@" -c 8 -j 2 -D clients=0)
  quotient "$of_eight" "$of_few"
}

start_over() {
  fresh append_template ours
  fresh append_template rivals
}

bench_append() {
  table_head
  make_template append_template
  start_over
  report 'one client, against the five statements' tps '>= 2.00' "$(in_pairs $((RF_BENCH_PAIRS * 2)) \
    "appends $length ours append.sql -c 1 -D clients=0" \
    "appends $length rivals five_statements.sql -c 1 -D clients=0")"
  start_over
  report 'eight clients to one, against plain INSERT' x '>= 0.90' "$(in_pairs $((RF_BENCH_PAIRS * 2)) \
    'gain 1 ours append.sql' 'on_plain gain 1 rivals plain_insert.sql')"
  start_over
  report 'eight clients to two, against plain INSERT' x - "$(in_pairs $((RF_BENCH_PAIRS * 2)) \
    'gain 2 ours append.sql' 'on_plain gain 2 rivals plain_insert.sql')"
  start_over
  report 'eight clients, against plain INSERT' tps - "$(in_pairs $((RF_BENCH_PAIRS * 2)) \
    "appends $length_of_eight ours append.sql -c 8 -j 2 -D clients=0" \
    "on_plain appends $length_of_eight rivals plain_insert.sql -c 8 -j 2 -D clients=0")"
  note "The five statements: BEGIN, SELECT the stream, INSERT it, SELECT max, INSERT the event, COMMIT."
}
