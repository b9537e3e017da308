//! Step: values of 1 MiB. A replica that was away while the log moved past its tail gets a snapshot, and is equal.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use stead_client::Tenant;
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::{
    airports::contents,
    world::{World, until},
};

const HOME: &str = "eu-west";
const TENANT: &str = "check-big-values";
const VALUE_LEN_MAX: usize = 1 << 20;
const KEY_LEN_MAX: usize = 4 << 10;
/// Number of keys that are overwritten again and again.
const KEYS: usize = 8;
/// Values that are written while the replica is away: more than a log keeps for replicas that are behind, and more than
/// it keeps until rows are durable.
const WRITES: usize = 160;
const BUDGET: Duration = Duration::from_secs(30);
/// Log message of a node that has installed a snapshot.
const INSTALLED: &str = "installed a snapshot";

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant(TENANT, HOME, HOME).await?;
    let run = world.run.clone();
    tenant.put(format!("{run:k<KEY_LEN_MAX$}"), "v").await?;
    let leader = world.leader(&tenant).await?;
    let away = world.others(&leader).into_iter().next();
    let away = away.context("a region of one node has no replica to lose")?;
    let before = installed(world, &away).await?;
    world.cluster.lock().await.kill_node(&away).await?;
    let known = log_indexes(world, &leader, "stead_raft_applied_index").await?;
    for at in 0..WRITES {
        tenant.put(format!("{}", at % KEYS), value(at)).await?;
    }
    until("the log has moved past what the replica has", async || {
        let purged = log_indexes(world, &leader, "stead_raft_purged_index").await?;
        Ok(purged
            .iter()
            .any(|(group, index)| known.get(group).is_some_and(|known| index > known)))
    })
    .await?;
    world.cluster.lock().await.start_node(&away)?;
    let started = Instant::now();
    world.ready().await?;
    let here = world.node_client(&away).await?.tenant(TENANT)?;
    let there = world.node_client(&leader).await?.tenant(TENANT)?;
    until("the replica has what the others have", async || {
        Ok(world.answering_node(&here).await? == away && equal(&here, &there).await?)
    })
    .await?;
    let took = started.elapsed();
    let snapshots = installed(world, &away).await? - before;
    ensure!(snapshots > 0, "{away} was not past the log's tail: it got no snapshot");
    for key in 0..KEYS {
        tenant.delete(format!("{key}")).await?;
    }
    Ok(Verdict::default().time("equal after", took, BUDGET).note(format!(
        "{WRITES} values of 1 MiB while {away} was away, {snapshots} snapshots"
    )))
}

/// Returns a value that does not compress.
fn value(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..VALUE_LEN_MAX).map(|_| byte()).collect()
}

/// Compares keys, values and revisions as two nodes hold them.
async fn equal(one: &Tenant, other: &Tenant) -> anyhow::Result<bool> {
    Ok(contents(one).await? == contents(other).await?)
}

/// Returns a metric of a node's groups, by their labels.
pub(super) async fn log_indexes(world: &World, node: &str, metric: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let nodes = world.cluster.lock().await.nodes().to_vec();
    let node = nodes.into_iter().find(|known| known.name == node);
    let text = node.context("there is no such node")?.metrics().await?;
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(metric)?.rsplit_once(' '));
    Ok(lines
        .filter_map(|(group, index)| Some((group.to_owned(), index.parse().ok()?)))
        .collect())
}

/// Counts the snapshots that a node's log reports as installed.
pub(super) async fn installed(world: &World, node: &str) -> anyhow::Result<usize> {
    let log = world.cluster.lock().await.log_of(node);
    let log = std::fs::read_to_string(&log).with_context(|| format!("{} cannot be read", log.display()))?;
    Ok(log.matches(INSTALLED).count())
}
