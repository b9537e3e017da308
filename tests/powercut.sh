#!/bin/sh
# Cuts power under real nodes, and verifies every write that was acknowledged before. Needs /dev/fuse and root; prints a
# table of rounds and violations at the end.
#
#   tests/powercut.sh --minutes 60            an hour
#   tests/powercut.sh --rounds 500 --seed 7   500 rounds; the seed chooses nodes, order and sectors
set -eu
cd "$(dirname "$0")/.."

usage() {
    echo "tests/powercut.sh [--rounds N] [--minutes N] [--seed N]: --rounds or --minutes is required" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --rounds) export STEAD_POWERCUT_ROUNDS="$2" ;;
    --minutes) export STEAD_POWERCUT_MINUTES="$2" ;;
    --seed) export STEAD_POWERCUT_SEED="$2" ;;
    *) usage ;;
    esac
    shift 2
done
[ -n "${STEAD_POWERCUT_ROUNDS:-}${STEAD_POWERCUT_MINUTES:-}" ] || usage
exec cargo test -p stead-tests --test powercut long_campaign -- --ignored --nocapture --exact
