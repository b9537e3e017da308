#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# openraft 0.10.0-alpha.37: add_learner(blocking = true) succeeds for a host that does not exist.
#
# Source: the documentation of Raft::add_learner: "if `blocking` is `true`, this function blocks until the leader
#   believes the logs on the new node are up to date, i.e., ready to join the cluster, as a voter". The cause is in
#   src/raft/api/management.rs: up to date is who lags by at most Config::replication_lag_threshold entries, 5,000 by
#   default, counted from what the new node is known to have, which is nothing.
# One would guess: Ok means that the new node has answered and has the log; so the usual two calls, add_learner and
#   then change_membership, cannot make a voter of a node that was never reached.
# What is so: while the log has fewer entries than the threshold, both calls return Ok at once, with the learner's
#   address wrong or its process not started. Then the majority counts a voter that is not there: the group of three
#   bears the loss of none of its nodes any more. The metrics of the leader do tell: the learner's matched log id is
#   None.
# Output:
#   | add_learner(9, blocking = true): Ok in under 1 s
#   | matched log id of node 9 in the leader's metrics: None
#   | change_membership: Ok, voters 1 2 3 9
#   | node 3 stops; a write to the leader: no answer in 60 s
#   | the same with replication_lag_threshold = 0: add_learner has no answer in 60 s
# Why it matters: automation that replaces nodes by these two calls lowers the availability of a young group and is
#   told that all went well. It works as documented in any test with a long log. Wait until the matched log id of the
#   learner is that of its own membership entry or later, or set the threshold to 0 and bound the call.

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
name = "openraft-learner-of-no-host"
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
use openraft::async_runtime::watch::WatchReceiver;
use openraft::Config;
use tokio::time::timeout;

/// Starts three nodes, of which the first leads and has written.
async fn three(config: Config) -> (Cluster, Vec<Node>) {
    let cluster = Cluster::new(config, Duration::from_millis(1));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(cluster.start(id).await);
    }
    nodes[0].initialize(BTreeSet::from([1, 2, 3])).await.expect("a new group");
    let wait = nodes[0].wait(Some(Duration::from_secs(60)));
    wait.current_leader(1, "node 1 leads").await.expect("an election");
    while nodes[0].client_write(put("x", 1, "old")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (cluster, nodes)
}

fn config() -> Config {
    Config { heartbeat_interval: 100, election_timeout_min: 1000, election_timeout_max: 2000, ..Config::default() }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let (cluster, nodes) = three(config()).await;
    let leader = &nodes[0];
    timeout(Duration::from_secs(1), leader.add_learner(9, (), true)).await.expect("an answer").expect("a learner");
    println!("add_learner(9, blocking = true): Ok in under 1 s");
    let metrics = leader.metrics().borrow_watched().clone();
    let matched = metrics.replication.expect("a leader").get(&9).cloned().flatten();
    println!("matched log id of node 9 in the leader's metrics: {matched:?}");
    leader.change_membership(BTreeSet::from([1, 2, 3, 9]), false).await.expect("a voter");
    let metrics = leader.metrics().borrow_watched().clone();
    let voters: Vec<_> = metrics.membership_config.membership().voter_ids().map(|id| id.to_string()).collect();
    println!("change_membership: Ok, voters {}", voters.join(" "));
    cluster.stop(3).await;
    match timeout(Duration::from_secs(60), leader.client_write(put("x", 2, "new"))).await {
        Ok(Ok(_)) => println!("node 3 stops; a write to the leader: Ok"),
        Ok(Err(error)) => println!("node 3 stops; a write to the leader: {error}"),
        Err(_) => println!("node 3 stops; a write to the leader: no answer in 60 s"),
    }

    let (_cluster, nodes) = three(Config { replication_lag_threshold: 0, ..config() }).await;
    match timeout(Duration::from_secs(60), nodes[0].add_learner(9, (), true)).await {
        Ok(_) => println!("the same with replication_lag_threshold = 0: add_learner has answered"),
        Err(_) => println!("the same with replication_lag_threshold = 0: add_learner has no answer in 60 s"),
    }
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
