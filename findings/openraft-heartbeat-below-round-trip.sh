#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# openraft 0.10.0-alpha.37: an idle group whose round trip exceeds the heartbeat interval refuses every write for
#   ever.
#
# Source: the documentation of Config::heartbeat_interval and of Config::validate, which compares it with the election
#   timeouts only, and docs/protocol/check_quorum.md ("the leader continues sending heartbeats and replicating
#   existing logs. A later quorum acknowledgement renews the lease, and the leader automatically resumes accepting
#   proposals").
# One would guess: election timeouts of 1 to 2 s leave room for a round trip of 120 ms, whatever the interval of the
#   heartbeats: they would overlap, or be late by 20 ms.
# What is so: a heartbeat is given up after one interval, so that no answer ever counts and nothing renews the lease.
#   The leader stays leader, no follower calls an election, because the heartbeats do arrive, and every write is
#   refused with ForwardToLeader to nobody. Writes themselves renew the lease, by replication without that bound: a
#   group that is written to once a second never shows it, and one that was idle for 10 s never takes a write again.
# Output, of three nodes, heartbeats every 100 ms, elections after 1 to 2 s, on a paused clock; 20 writes each:
#   | round trip  80 ms, a write every  1 s: 20 taken; node 1 leads in term 1
#   | round trip  80 ms, a write every 10 s: 20 taken; node 1 leads in term 1
#   | round trip 120 ms, a write every  1 s: 20 taken; node 1 leads in term 1
#   | round trip 120 ms, a write every 10 s: 0 taken, LeaseExpired; node 1 leads in term 1
# Why it matters: a setting that is valid, tested under load and fine in one data centre stops a quiet group between
#   regions, with all nodes up and all health checks that look for a leader green. Keep the interval above the longest
#   round trip, its tail included, and alert on refused writes rather than on the absence of a leader.

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
name = "openraft-heartbeat-below-round-trip"
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

use cluster::{Cluster, put};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::Config;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    for round_trip in [80, 120] {
        for idle in [1, 10] {
            let config = Config {
                heartbeat_interval: 100,
                election_timeout_min: 1000,
                election_timeout_max: 2000,
                ..Config::default()
            };
            let cluster = Cluster::new(config, Duration::from_millis(round_trip / 2));
            let mut nodes = Vec::new();
            for id in 1..=3 {
                nodes.push(cluster.start(id).await);
            }
            nodes[0].initialize(BTreeSet::from([1, 2, 3])).await.expect("a new group");
            let wait = nodes[0].wait(Some(Duration::from_secs(60)));
            wait.current_leader(1, "node 1 leads").await.expect("an election");
            let mut taken = 0;
            let mut reason = String::new();
            for serial in 1..=20 {
                tokio::time::sleep(Duration::from_secs(idle)).await;
                match nodes[0].client_write(put("x", serial, "value")).await {
                    Ok(_) => taken += 1,
                    Err(error) => {
                        let forward = error.forward_to_leader().expect("a refusal that names no failure");
                        assert_eq!(forward.leader_id, None);
                        reason = format!(", {:?}", forward.reason);
                    }
                }
            }
            let metrics = nodes[0].metrics().borrow_watched().clone();
            println!(
                "round trip {round_trip:3} ms, a write every {idle:2} s: {taken} taken{reason}; \
                 node {} leads in term {}",
                metrics.current_leader.expect("a leader"),
                metrics.current_term,
            );
            for node in nodes {
                node.shutdown().await.expect("an orderly end");
            }
        }
    }
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
