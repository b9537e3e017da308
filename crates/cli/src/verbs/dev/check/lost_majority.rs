//! Step: lost majority. Two of three nodes of a home are killed: the third says that it leads nothing, refuses writes soon
//! and with certainty, ends watches with their tokens, and the home goes on when the others are back.

use std::time::Duration;

use anyhow::Context;
use stead_client::{ErrorKind, WatchFrom, WatchMessage, WatchOptions, WriteOptions};
use tokio::time::{Instant, timeout};

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};

const HOME: &str = "eu-west";
/// Longest time until the node that is left says that it leads nothing.
const TOLD: Duration = Duration::from_secs(10);
/// Longest time until a write is refused.
const REFUSAL: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest time until a watch goes on once the others are back.
const AGAIN: Duration = Duration::from_secs(60);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let key = format!("majority/{}", world.run);
    let before = tenant.put(key.clone(), "before").await?;
    let watch = WatchOptions {
        from: WatchFrom::After(before.header.revision),
        ..WatchOptions::default()
    };
    let mut watch = tenant.watch(watch).await?;
    let leader = world.leader(&tenant).await?;
    let others = world.others(&leader);
    let at_leader = world.node_client(&leader).await?.tenant("check-eu-west")?;
    at_leader.put(key.clone(), "route").await?;

    for node in &others {
        world.cluster.lock().await.kill_node(node).await?;
    }
    let killed = Instant::now();
    until("the node that is left leads nothing", async || {
        leads_nothing(world, &leader).await
    })
    .await?;
    let told = killed.elapsed();
    let asked = Instant::now();
    let write = WriteOptions {
        timeout: Some(WRITE_TIMEOUT),
        ..WriteOptions::default()
    };
    let refused = at_leader.put_with(key.clone(), "lost", &write).await;
    let refusal = asked.elapsed();
    let uncertain = match &refused {
        Ok(_) => 1,
        Err(error) => usize::from(matches!(error.kind, ErrorKind::OutcomeUnknown { .. })),
    };
    for node in &others {
        world.cluster.lock().await.start_node(node)?;
    }
    world.ready().await?;
    tenant.put(key.clone(), "after").await?;
    let shown = timeout(AGAIN, async {
        loop {
            if let WatchMessage::Changes(events) = watch.next().await?
                && events.iter().any(|event| event.item.value == "after")
            {
                return anyhow::Ok(());
            }
        }
    });
    shown.await.context("the watch did not go on")??;
    Ok(Verdict::default()
        .time("no leader in the node's own words", told, TOLD)
        .time("a write refused", refusal, REFUSAL)
        .none("writes of unknown outcome", uncertain)
        .note(format!(
            "{leader} was left; the answer: {}",
            refused.map_or_else(|error| error.to_string(), |_| "done".into())
        )))
}

/// Tells whether a node says that it leads no group of tenants.
async fn leads_nothing(world: &World, node: &str) -> anyhow::Result<bool> {
    let cluster = world.cluster.lock().await;
    let found = cluster.nodes().iter().find(|found| found.name == node);
    let metrics = found.context("the node is gone")?.metrics().await?;
    let is_leader =
        |line: &str| line.starts_with("stead_raft_is_leader{") && !line.contains("group=\"0\"") && line.ends_with(" 1");
    Ok(!metrics.lines().any(is_leader))
}
