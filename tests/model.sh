#!/bin/sh
# Explores the models of docs/protocol.md, and prints a table: configurations with the states explored, mutants with the
# property that caught each, and the corners that are reached. Without names: all of them, each for ten minutes at most.
#
#   tests/model.sh
#   tests/model.sh --seconds 3600 --threads 2
#   tests/model.sh move-promotion AcceptKeepsRun --seconds 3600
#   tests/model.sh trace AcceptKeepsRun
set -eu
cd "$(dirname "$0")/.."
case "${1-}" in
trace) exec cargo run --quiet --release -p stead-model -- "$@" ;;
esac
failed=0
for table in configurations mutants corners; do
    echo "== $table"
    cargo run --quiet --release -p stead-model -- "$table" --seconds 600 "$@" || failed=1
done
exit $failed
