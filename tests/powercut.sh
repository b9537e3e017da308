#!/bin/sh
# Cuts power under real nodes for as long as one likes, and looks for every write that was acknowledged before. Needs
# /dev/fuse and the rights of root; a table at the end says what was tried and found.
#
#   tests/powercut.sh --minutes 60            an hour
#   tests/powercut.sh --rounds 500 --seed 7   so many rounds; a seed chooses nodes, order and sectors
set -eu
cd "$(dirname "$0")/.."

usage() {
    echo "tests/powercut.sh [--rounds N] [--minutes N] [--seed N]: one of the first two ends it" >&2
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
