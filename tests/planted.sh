#!/bin/sh
# Mutation testing: switches on one planted bug after the other, and prints which are found, in how many seeds of the
# simulation and seconds of processor time, by which checker. Without names: all of them, which takes hours.
#
#   tests/planted.sh
#   tests/planted.sh log-not-synced session-gate-early
set -eu
cd "$(dirname "$0")/.."
STEAD_BUGS="$*" exec cargo test -p stead-tests --features planted --test simulation \
    planted::every_planted_bug_is_found -- --exact --include-ignored --nocapture
