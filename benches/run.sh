#!/bin/sh
# Measures Stead beside the systems that are installed, and prints tables in Markdown: benches/README.md.
#
#   benches/run.sh            all: three windows of five seconds a row, three starts of every system; 90 minutes
#   benches/run.sh --quick    three windows of a second a row, one start; below 10 minutes
#
# Other arguments go to the load generator: `--systems stead,etcd --rows put`. STEAD_BIN names another binary.
set -eu
cd "$(dirname "$0")/.."

starts=3
if [ "${1:-}" = --quick ]; then
    shift
    starts=1
    set -- --window-ms 800 --warm-up-ms 400 "$@"
fi
if [ -z "${STEAD_BIN:-}" ]; then
    cargo build --release --package stead-cli
    STEAD_BIN=target/release/stead
fi
STEAD_BIN=$(realpath "$STEAD_BIN")
export STEAD_BIN
cargo bench --package stead-benches --bench matrix --no-run

# cargo runs benches in the folder of their package.
results="$PWD/target/matrix"
figures=""
start=0
while [ "$start" -lt "$starts" ]; do
    start=$((start + 1))
    cargo bench --quiet --package stead-benches --bench matrix -- --figures "$results-$start.tsv" "$@" > /dev/null
    figures="$figures $results-$start.tsv"
done
# shellcheck disable=SC2086 # One argument for each file.
exec cargo bench --quiet --package stead-benches --bench matrix -- --report $figures --svg "$results.svg"
