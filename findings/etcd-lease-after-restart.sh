#!/bin/sh
# Needs apt-get and dpkg-deb of Debian 12 on amd64, to unpack etcd 3.4.23 without installing it; exits 77 without them.
#
# etcd 3.4.23: a lease that nobody keeps alive has its whole time again after each restart, and so never ends.
#
# Source: the documentation of leases: "a lease expires if the etcd cluster does not receive a keepAlive within a
#   given TTL period", and that leases and keys are durable.
# One would guess: the time of expiry is part of the durable state, so that a restart of two seconds changes the rest
#   of a lease by two seconds at most, or by nothing.
# What is so: only the length is stored. Whoever becomes leader, be it the same node after a restart, starts every
#   lease anew with its whole length, plus an election timeout. A lease whose owner has died lives on for as long as
#   leaders change more often than its length; checkpoints of the rest are for leases of more than five minutes, and
#   are off.
# Output, of a lease of 10 s that is never kept alive, with a restart whenever 5 s or less are left:
#   | restart 1: at most 5 s were left, at least 10 s are
#   | restart 2: at most 5 s were left, at least 10 s are
#   | restart 3: at most 5 s were left, at least 10 s are
#   | restart 4: at most 5 s were left, at least 10 s are
#   | 20 s or more after the lease was granted its key is there
#   | without a further restart its key goes
# Why it matters: locks, elections and service registrations lean on a lease's end. During rolling upgrades, or while
#   a leader keeps being killed for memory, the lock of a dead client is held for many times its length; whoever waits
#   "one TTL, to be safe" before acting is too early. The length bounds how long a live owner may rely on it, not how
#   long others wait.

set -eu
expected=$(sed -n 's/^#   | //p' "$0")
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] && command -v apt-get >/dev/null || {
    echo "skipped: this is no Debian on amd64"
    exit 77
}
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
cd "$folder"
version=3.4.23-4+b4
apt-get download "etcd-server=$version" "etcd-client=$version" >apt.log 2>&1 || {
    echo "skipped: apt-get has no etcd-server $version"
    exit 77
}
for package in ./*.deb; do
    dpkg-deb -x "$package" .
done

# Waits for a command to succeed.
wait_for() {
    deadline=$(($(date +%s) + 60))
    until "$@" 2>/dev/null; do
        [ "$(date +%s)" -lt "$deadline" ] || { echo "did not come about within 60 s: $*" >&2; exit 2; }
        sleep 0.1
    done
}

client() {
    ETCDCTL_API=3 usr/bin/etcdctl --endpoints unix://client:1 --command-timeout 2s "$@"
}

# Sockets in this folder rather than ports.
start() {
    rm -f client:1 peer:1
    usr/bin/etcd --data-dir data --listen-client-urls unix://client:1 --advertise-client-urls unix://client:1 \
        --listen-peer-urls unix://peer:1 --initial-advertise-peer-urls unix://peer:1 \
        --initial-cluster default=unix://peer:1 >>etcd.log 2>&1 &
    server=$!
    wait_for client get ready >ready
}

# Seconds that are left of the lease, as in "lease 1234 granted with TTL(10s), remaining(5s)".
remaining() {
    client lease timetolive "$lease" | sed -n 's/.*remaining(\(-\{0,1\}[0-9]*\)s).*/\1/p'
}

few_are_left() {
    left=$(remaining)
    [ -n "$left" ] && [ "$left" -le 5 ]
}

key_is_gone() {
    [ -z "$(client get key)" ]
}

run() {
    start
    lease=$(client lease grant 10 | cut -d' ' -f2)
    granted=$(date +%s)
    client put --lease "$lease" key value >put
    for restart in 1 2 3 4; do
        wait_for few_are_left
        kill "$server"
        wait "$server" || true
        start
        left=$(remaining)
        [ "$left" -lt 10 ] || left="at least 10"
        echo "restart $restart: at most 5 s were left, $left s are"
    done
    if [ $(($(date +%s) - granted)) -ge 20 ] && ! key_is_gone; then
        echo "20 s or more after the lease was granted its key is there"
    fi
    wait_for key_is_gone
    echo "without a further restart its key goes"
    kill "$server"
    wait "$server" || true
    server=
}

# In this shell, so that the trap knows the server.
run >actual || { cat actual; exit 2; }
actual=$(cat actual)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
