# shellcheck shell=bash disable=SC2154
# What it costs to ask for the metrics of a store that has been there for long: 180 months in either tier, and a
# million rows in the ledger. There is no rival. An exporter keeps its session, and so does the first figure.

# scraped <what> <limit in ms> <limit of the ratio> <file>
scraped() {
  local i took
  report "$1" ms "$3" "$(
    for ((i = 0; i < RF_BENCH_PAIRS; i++)); do
      took=$(milliseconds metrics "$4") || exit 1
      printf '%s %s %s\n' "$took" "$2" "$(quotient "$took" "$2")"
    done
  )"
}

bench_metrics() {
  table_head
  make_template metrics
  scraped 'rf_metrics, 180 months, 1,000,000 ledger rows' 20 '<= 1.00' scrape.sql
  scraped 'rf_metrics_text, the same' 20 '<= 1.00' text.sql
  scraped 'the first one of a session' 20 - first.sql
  note 'The rival is the limit.'
}
