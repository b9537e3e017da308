//! Step: nodes are lost and replaced by other machines while clients write, in a cluster of one region; then a node is lost
//! while another one is being replaced.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, ensure};
use stead_client::{Admin, TopologyRequest};
use tokio::time::{Instant, timeout};

use super::{
    own_cluster::{self, TenantLoads, begin, done, gone, region},
    verdict::Verdict,
};
use crate::verbs::dev::world::{World, until};

const HOME: &str = "eu-west";
const TENANTS: usize = 2;
/// Voters of each group.
const VOTERS: usize = 3;
/// Machines that take turns.
const MACHINES: usize = 5;
const PUTS_PER_SECOND: u32 = if cfg!(debug_assertions) { 100 } else { 500 };
/// Longest time from the start of the new node until it votes in the place of the old one.
const REPLACED: Duration = Duration::from_secs(30);
/// Longest time without an acknowledgement while a node is replaced.
const GAP_MAX: Duration = Duration::from_secs(3);
/// Acknowledgements that show that writes go on.
const WRITES_GO_ON: usize = 100;
/// Time for a change to end in spite of a node that is lost meanwhile.
const IN_SPITE: Duration = Duration::from_secs(10);

pub(super) async fn run(world: &World, data: &Path, rounds: usize) -> anyhow::Result<Verdict> {
    let regions = vec![region(HOME, MACHINES, VOTERS)];
    own_cluster::run(world, &data.join("replace-node"), 1, regions, async |own, _| {
        let tenants: Vec<String> = (0..TENANTS).map(|number| format!("check-replace-{number}")).collect();
        let loads = TenantLoads::start(own, &tenants, HOME, PUTS_PER_SECOND).await?;
        let admin = own.client(HOME).await?.admin();
        let mut numbers = voters(&admin, 1).await?;
        let (mut longest, mut gap) = (Duration::ZERO, Duration::ZERO);
        for round in 0..rounds {
            let began = Instant::now();
            let (lost, by) = (machine(round), machine(round + VOTERS));
            loads.take_gap().await;
            own.cluster.lock().await.remove_node(&lost).await?;
            replace(own, &admin, &lost, &by).await?;
            numbers = redundant_again(&admin, numbers, 1)
                .await
                .with_context(|| format!("{lost} was replaced by {by}"))?;
            own.ready().await?;
            longest = longest.max(began.elapsed());
            gap = gap.max(loads.take_gap().await);
        }
        let how = lose_another(own, &admin, &loads, rounds).await?;
        let numbers = redundant_again(&admin, numbers, 1).await?;
        let verdict = Verdict::default()
            .time("replaced within", longest, REPLACED)
            .time("longest gap", gap, GAP_MAX)
            .note(format!("{rounds} nodes, {} numbers", numbers.len()))
            .note(format!("one lost meanwhile: {how}"));
        loads.finish(verdict).await
    })
    .await
}

/// Returns the name of a machine: they take turns.
fn machine(turn: usize) -> String {
    format!("{HOME}-{}", turn % MACHINES + 1)
}

async fn replace(own: &World, admin: &Admin, old: &str, by: &str) -> anyhow::Result<()> {
    let operation = begin(admin, replacement(old, by)).await?;
    join(own, by).await?;
    done(admin, &operation).await
}

fn replacement(old: &str, by: &str) -> TopologyRequest {
    TopologyRequest::ReplaceNode {
        node: old.to_owned(),
        name: by.to_owned(),
    }
}

/// Starts a machine with an empty disk, which asks the nodes that run.
async fn join(own: &World, node: &str) -> anyhow::Result<()> {
    let mut cluster = own.cluster.lock().await;
    let peers: Vec<(String, String)> = cluster
        .nodes()
        .iter()
        .map(|known| (known.name.clone(), known.peer.clone()))
        .collect();
    let running = peers.into_iter().filter(|(name, _)| cluster.process(name).is_some());
    let running: Vec<String> = running.map(|(_, peer)| peer).collect();
    cluster.set_option("cluster.join", Some(&running.join(",")));
    let started = cluster.start_node(node);
    cluster.set_option("cluster.join", None);
    Ok(started?)
}

async fn voters(admin: &Admin, group: u32) -> anyhow::Result<BTreeSet<u64>> {
    Ok(admin.group(group).await?.voters.into_iter().collect())
}

/// Waits until the groups have all voters, so many of them under new numbers, and each answers as a follower or leads; returns
/// all numbers that were ever used.
async fn redundant_again(admin: &Admin, known: BTreeSet<u64>, new: usize) -> anyhow::Result<BTreeSet<u64>> {
    let mut all = known.clone();
    for group in [1, 0] {
        let mut found = BTreeSet::new();
        until(&format!("group {group} has {VOTERS} voters that follow"), async || {
            let group = admin.group(group).await?;
            found = group.voters.iter().copied().collect();
            let status = group.status.context("it has a leader")?;
            let follow = status.matched.iter().filter(|(_, matched)| matched.is_some()).count();
            Ok(found.len() == VOTERS && follow + 1 >= VOTERS)
        })
        .await?;
        let fresh = found.difference(&known).count();
        ensure!(
            fresh == new,
            "group {group} has voters {found:?}, {fresh} of them under new numbers"
        );
        all.extend(found);
    }
    ensure!(
        all.len() == known.len() + new,
        "the directory and the group have other voters"
    );
    Ok(all)
}

/// Replaces a node that is alive, and kills another one meanwhile: writes go on, and the change is over, at the latest once
/// that node is back.
async fn lose_another(own: &World, admin: &Admin, loads: &TenantLoads, turn: usize) -> anyhow::Result<&'static str> {
    let (old, other, by) = (machine(turn), machine(turn + 1), machine(turn + VOTERS));
    let operation = begin(admin, replacement(&old, &by)).await?;
    own.cluster.lock().await.kill_node(&other).await?;
    join(own, &by).await?;
    let before = loads.acknowledged().await;
    until("writes go on without the node that is lost", async || {
        Ok(loads.acknowledged().await > before + WRITES_GO_ON)
    })
    .await?;
    let is_over = timeout(IN_SPITE, done(admin, &operation)).await;
    let how = match is_over {
        Ok(ended) => ended.map(|()| "the change ended without it")?,
        Err(_) => "the change waited for it",
    };
    own.cluster.lock().await.start_node(&other)?;
    done(admin, &operation).await?;
    gone(own, &[old]).await?;
    own.ready().await?;
    Ok(how)
}
