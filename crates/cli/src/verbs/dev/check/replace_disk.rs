//! Step: the disk of a node is lost and replaced under load.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use stead_client::{Admin, OperationOutcome, TopologyRequest};
use stead_testing::load::Load;
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};

const HOME: &str = "eu-west";
/// Node whose disk is lost.
const LOST: &str = "eu-west-3";
const ROUNDS: usize = 3;
const PUTS_PER_SECOND: u32 = 200;
/// Acknowledgements after a kill that show that writes go on.
const RECOVERY_WRITES: usize = 50;
/// Longest time from the start of the new node until it votes in the place of the old one.
const REPLACED: Duration = Duration::from_secs(30);
/// Longest time without an acknowledgement while a node is replaced.
const GAP_MAX: Duration = Duration::from_secs(3);

/// The disk of a node is lost again and again under load: the same machine takes its place under another number, and then
/// another node may be lost.
pub(super) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let admin = world.client(HOME).await?.admin();
    let group = admin.tenant("check-eu-west").await?.home_group;
    let load = Load::start(tenant.clone(), format!("disk/{}", world.run), PUTS_PER_SECOND);
    let mut numbers = vec![number(&admin).await?];
    let (mut longest, mut gap) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        world.cluster.lock().await.kill_node(LOST).await?;
        fs::remove_dir_all(data.join(LOST)).context("the disk is not lost")?;
        load.take_gap().await;
        let began = Instant::now();
        replace(world, &admin).await?;
        longest = longest.max(began.elapsed());
        gap = gap.max(load.take_gap().await);
        let new = number(&admin).await?;
        ensure!(!numbers.contains(&new), "number {new} is used twice: {numbers:?}");
        let voters = admin.group(group).await?.voters;
        ensure!(
            voters.len() == 3 && voters.contains(&new),
            "voters of group {group}: {voters:?}"
        );
        numbers.push(new);
    }
    world.ready().await?;
    let other = format!("{HOME}-2");
    world.cluster.lock().await.kill_node(&other).await?;
    let before = load.acknowledged().await;
    until("writes go on without another node", async || {
        Ok(load.acknowledged().await > before + RECOVERY_WRITES)
    })
    .await?;
    world.cluster.lock().await.start_node(&other)?;
    let report = load.finish().await?;
    Ok(Verdict::default()
        .time("replaced within", longest, REPLACED)
        .time("longest gap", gap, GAP_MAX)
        .none("lost", report.lost)
        .none("twice", report.twice)
        .note(format!(
            "{ROUNDS} disks, {} writes, {} errors, numbers {numbers:?}",
            report.acknowledged.len(),
            report.errors.len()
        )))
}

async fn replace(world: &World, admin: &Admin) -> anyhow::Result<()> {
    let request = TopologyRequest::ReplaceNode {
        node: LOST.to_owned(),
        name: String::new(),
    };
    let operation = admin.change_topology(request, "its disk is lost").await?.name;
    {
        let mut cluster = world.cluster.lock().await;
        let others = cluster
            .nodes()
            .iter()
            .filter(|node| node.region == HOME && node.name != LOST);
        let peers: Vec<String> = others.map(|node| node.peer.clone()).collect();
        cluster.set_option("cluster.join", Some(&peers.join(",")));
        let started = cluster.start_node(LOST);
        cluster.set_option("cluster.join", None);
        started?;
    }
    until("the node is replaced", async || {
        match admin.operation(&operation).await?.outcome {
            Some(OperationOutcome::TopologyChanged(_)) => Ok(true),
            Some(other) => bail!("{operation}: {other:?}"),
            None => Ok(false),
        }
    })
    .await
}

/// Returns the number of the node that has the name.
async fn number(admin: &Admin) -> anyhow::Result<u64> {
    let nodes = admin.nodes(HOME).await?;
    let found = nodes.into_iter().find(|node| node.name == LOST);
    Ok(found.context("the node is gone")?.number)
}
