//! A voter of a tenant's home was down while the log moved past its tail: it gets a snapshot.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{Consistency, ReadOptions};
use tokio::time::{Instant, sleep};

use super::{Behind, GIVEN_UP, POLLED_EVERY, Writes, fill, footprint::Sampler};
use crate::verbs::dev::{
    check::{
        big_values::{installed, log_indexes},
        seeds::{VALUE_LEN, key, value},
        verdict::Verdict,
    },
    world::{World, until},
};

/// Bytes that are written while the voter is down: more than a log keeps for voters that are behind, and more than it keeps
/// until rows are durable.
const MISSED: usize = 192 << 20;
const RECEIVED: &str = "stead_raft_snapshot_received_bytes";
/// Share of the tenant that the voter has received when the leader is killed, and when the voter itself is.
const SOURCE_KILLED_PERCENT: u64 = 30;
const TARGET_KILLED_PERCENT: u64 = 60;
/// Least rate of a snapshot in bytes a second, sent and installed, and what the kills take beyond: each has it begin anew.
const RATE_MIN: u64 = if cfg!(debug_assertions) { 2 << 20 } else { 16 << 20 };
const BEYOND: Duration = Duration::from_secs(60);
/// One of so many values is compared afterwards.
const COMPARED_EVERY: usize = 16;

pub(super) async fn run(world: &mut World, behind: &Behind, verdict: Verdict) -> anyhow::Result<Verdict> {
    let values = usize::try_from(behind.len)? / VALUE_LEN;
    let leader = world.leader(&behind.tenant).await?;
    let away = world.others(&leader).pop();
    let away = away.context("a region of one node has no voter to lose")?;
    let before = installed(world, &away).await?;
    let here = world.node_client(&away).await?.tenant(&behind.name)?;
    world.cluster.lock().await.kill_node(&away).await?;
    miss(world, behind, &leader, values).await?;
    let mut writes = Writes::begin(&behind.tenant).await;
    let sampler = Sampler::start(world);
    let started = Instant::now();
    world.cluster.lock().await.start_node(&away)?;
    let mut killed = 0;
    behind.tenant.put("mark", "fourth").await?;
    let local = ReadOptions::at(Consistency::Local);
    loop {
        let read = here.get_with("mark", &local).await.ok();
        let has_mark = read
            .and_then(|read| read.item)
            .is_some_and(|item| item.value == "fourth");
        if has_mark
            && installed(world, &away).await? > before
            && world.answering_node(&here).await.is_ok_and(|node| node == away)
        {
            break;
        }
        ensure!(started.elapsed() < GIVEN_UP, "{away} has not caught up in time");
        let received = received(world, &away).await;
        let percent = received * 100 / behind.len;
        let next = [SOURCE_KILLED_PERCENT, TARGET_KILLED_PERCENT].get(killed).copied();
        if next.is_some_and(|next| percent >= next) {
            let node = match killed {
                0 => world.leader(&behind.tenant).await?,
                _ => away.clone(),
            };
            killed += 1;
            writes.kill(world, &node).await?;
        }
        sleep(POLLED_EVERY).await;
    }
    let took = started.elapsed();
    let footprint = sampler.finish().await?;
    ensure!(
        killed == 2,
        "the snapshot was installed before leader and voter were killed"
    );
    let mut wrong = 0;
    for at in (0..values).step_by(COMPARED_EVERY) {
        let read = here.get_with(key(at), &local).await?;
        wrong += usize::from(read.item.is_none_or(|item| item.value != value(at)));
    }
    let bound = Duration::from_secs(3 * behind.len / RATE_MIN) + BEYOND;
    let verdict = verdict
        .time("voter caught up in", took, bound)
        .none("values missing or wrong", wrong);
    writes.finish("voter", &footprint, verdict).await
}

/// Writes until the log has moved past what the voter has that is down.
async fn miss(world: &mut World, behind: &Behind, leader: &str, values: usize) -> anyhow::Result<()> {
    const PURGED: &str = "stead_raft_purged_index";
    let known = log_indexes(world, leader, "stead_raft_applied_index").await?;
    fill(world, behind, 0..values.min(MISSED / VALUE_LEN)).await?;
    if values < MISSED / VALUE_LEN {
        fill(world, behind, 0..MISSED / VALUE_LEN - values).await?;
    }
    let leader = world.leader(&behind.tenant).await?;
    until("the log has moved past what the voter has", async || {
        let purged = log_indexes(world, &leader, PURGED).await?;
        Ok(purged
            .iter()
            .any(|(group, index)| known.get(group).is_some_and(|known| index > known)))
    })
    .await
}

/// Returns the bytes of the largest snapshot that a node receives; none while it does not answer.
async fn received(world: &World, node: &str) -> u64 {
    let received = log_indexes(world, node, RECEIVED).await.unwrap_or_default();
    received.into_values().max().unwrap_or_default()
}
