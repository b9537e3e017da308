#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# openraft 0.10.0-alpha.37: a read by lease is stale when a follower was restarted within the lease.
#
# Source: the documentation of ReadPolicy::LeaseRead ("can serve reads locally without contacting followers as long as
#   it believes its leadership lease is still valid ... assumes clock drift between nodes is negligible") and
#   docs/protocol/read.md ("slightly weaker consistency guarantees (assumes minimal clock drift between nodes)").
# One would guess: with exact clocks, which the one clock of this process is, a lease read is linearizable.
# What is so: a follower keeps its promise not to vote during the lease in memory only. A follower that is back before
#   the lease ends votes at once for anybody. So a new leader is elected, and commits, while the old one still
#   believes in its lease and answers from the past. Neither clocks nor disks are at fault: the restart is an orderly
#   one.
# Output, of three nodes with a lease of two seconds, on a paused clock; node 1 leads and has x = old:
#   | node 1 is cut off, node 3 is restarted, node 2 asks for votes
#   | node 2 leads and wrote x = new, less than 100 ms after the cut
#   | node 1, LeaseRead: allowed, x = old
#   | node 1, ReadIndex: not allowed
# Without the restart of node 3:
#   | node 2 is not elected within the lease
# Why it matters: a supervisor that restarts a process in 100 ms, or a rolling upgrade beside a partition, breaks
#   reads that were thought safe but for drift. Use ReadIndex, or let a node that has started wait for one lease
#   before it votes.

set -eu
expected=$(sed -n 's/^#   | //p' "$0")
for tool in cargo cc; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
cluster=$(cd "$(dirname "$0")" && pwd)/openraft/cluster.rs
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
cd "$folder"
mkdir src
cp "$cluster" src/cluster.rs

cat >Cargo.toml <<'TOML'
[package]
name = "openraft-lease-read-after-restart"
edition = "2024"

[dependencies]
openraft = { version = "=0.10.0-alpha.37", default-features = false, features = ["tokio-rt", "serde"] }
openraft-memstore = "=0.10.0-alpha.37"
tokio = { version = "=1.54.1", features = ["rt", "macros", "time", "test-util"] }
TOML

cat >src/main.rs <<'RUST'
mod cluster;

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::{Cluster, Node, put};
use openraft::{Config, ReadPolicy};
use tokio::time::{Instant, timeout};

async fn write(node: &Node, serial: u64, value: &str) {
    while node.client_write(put("x", serial, value)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts three nodes, of which the first leads and has written.
async fn three() -> (Cluster, Vec<Node>) {
    let config = Config {
        heartbeat_interval: 100,
        election_timeout_min: 1000,
        election_timeout_max: 2000, // is the length of the lease, too
        ..Config::default()
    };
    let cluster = Cluster::new(config, Duration::from_millis(1));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(cluster.start(id).await);
    }
    nodes[0].initialize(BTreeSet::from([1, 2, 3])).await.expect("a new group");
    let wait = nodes[0].wait(Some(Duration::from_secs(60)));
    wait.current_leader(1, "node 1 leads").await.expect("an election");
    write(&nodes[0], 1, "old").await;
    (cluster, nodes)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let (cluster, nodes) = three().await;
    let cut_off = Instant::now();
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    cluster.stop(3).await;
    cluster.start(3).await;
    nodes[1].trigger().elect(false).await.expect("a running node");
    println!("node 1 is cut off, node 3 is restarted, node 2 asks for votes");
    timeout(Duration::from_millis(100), write(&nodes[1], 2, "new")).await.expect("a write within the lease");
    assert!(cut_off.elapsed() < Duration::from_millis(100));
    println!("node 2 leads and wrote x = new, less than 100 ms after the cut");
    let allowed = match nodes[0].ensure_linearizable(ReadPolicy::LeaseRead).await {
        Ok(_) => "allowed",
        Err(_) => "refused",
    };
    println!("node 1, LeaseRead: {allowed}, x = {}", cluster.value(1, "x").await.expect("a value"));
    match timeout(Duration::from_secs(5), nodes[0].ensure_linearizable(ReadPolicy::ReadIndex)).await {
        Ok(Ok(_)) => println!("node 1, ReadIndex: allowed"),
        Ok(Err(_)) | Err(_) => println!("node 1, ReadIndex: not allowed"),
    }

    let (cluster, nodes) = three().await;
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    nodes[1].trigger().elect(false).await.expect("a running node");
    match timeout(Duration::from_millis(900), write(&nodes[1], 2, "new")).await {
        Ok(()) => println!("node 2 is elected within the lease"),
        Err(_) => println!("node 2 is not elected within the lease"),
    }
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
