//! Step: a leader is frozen for longer than its lease. Once it wakes it serves nothing that is old, and acknowledges no
//! write that is lost.

use std::time::Duration;

use stead_client::{ReadOptions, Tenant, WriteOptions};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::{LEASE_TTL, World, until};

const HOME: &str = "eu-west";
const CALLS: usize = 50;
const FROZEN_BEYOND: Duration = Duration::from_secs(2);
const GAP_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-pause", HOME, HOME).await?;
    let prefix = format!("pause/{}", world.run);
    let key = format!("{prefix}/value");
    tenant.put(key.clone(), "old").await?;
    world.leases_are_short(HOME).await?;
    let leader = world.leader(&tenant).await?;
    let its_client = world.node_client(&leader).await?;
    let asked = its_client.tenant("check-pause")?;
    asked.get(key.clone()).await?;
    world.cluster.lock().await.freeze_node(&leader)?;
    // Calls that wait in the frozen process, or in its sockets.
    let mut waiting = writes(&asked, &prefix, "waiting");
    let frozen = Instant::now();
    until("another leader takes a write", async || {
        tenant.put(key.clone(), "new").await?;
        Ok(true)
    })
    .await?;
    let gap = frozen.elapsed();
    sleep((LEASE_TTL + FROZEN_BEYOND).saturating_sub(frozen.elapsed())).await;
    let mut reads = JoinSet::new();
    for _ in 0..CALLS {
        let (asked, key) = (asked.clone(), key.clone());
        let read = ReadOptions {
            timeout: Some(LEASE_TTL),
            ..ReadOptions::default()
        };
        // Sent while it is frozen, and after it wakes.
        reads.spawn(async move { asked.get_with(key, &read).await });
    }
    world.cluster.lock().await.thaw_node(&leader)?;
    let mut after = writes(&asked, &prefix, "after");
    let (mut old, mut answered) = (0, 0);
    while let Some(read) = reads.join_next().await {
        let Ok(got) = read? else { continue };
        answered += 1;
        old += usize::from(got.item.is_none_or(|item| item.value != "new"));
    }
    let mut acknowledged = Vec::new();
    for calls in [&mut waiting, &mut after] {
        while let Some(written) = calls.join_next().await {
            acknowledged.extend(written?);
        }
    }
    world.ready().await?;
    let mut lost = 0;
    for key in &acknowledged {
        lost += usize::from(tenant.get(key.clone()).await?.item.is_none());
    }
    Ok(Verdict::default()
        .time("writes go on after", gap, GAP_MAX)
        .none("old values read", old)
        .none("lost", lost)
        .note(format!(
            "{leader} frozen for {} s; then it answered {answered} of {CALLS} reads, and acknowledged {} of {} writes",
            (LEASE_TTL + FROZEN_BEYOND).as_secs(),
            acknowledged.len(),
            2 * CALLS
        )))
}

/// Sends writes at once, and returns the keys of those that are acknowledged.
fn writes(tenant: &Tenant, prefix: &str, name: &str) -> JoinSet<Option<String>> {
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let (tenant, key) = (tenant.clone(), format!("{prefix}/{name}/{number}"));
        let write = WriteOptions {
            timeout: Some(LEASE_TTL + FROZEN_BEYOND * 2),
            ..WriteOptions::default()
        };
        calls.spawn(async move { tenant.put_with(key.clone(), "v", &write).await.is_ok().then_some(key) });
    }
    calls
}
