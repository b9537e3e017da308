//! Step: disks of a home below their reserve. Writes are refused by name, reads and deletes go on, followers keep what they
//! have, and all comes back by itself. No disk is filled: the reserve of the nodes is set above what is free.

use std::time::Duration;

use anyhow::Context;
use stead_client::{ErrorKind, Tenant};
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};

const HOME: &str = "us-east";
const OPTION: &str = "storage.disk_reserve_bytes";
/// More than any disk has: an EiB.
const RESERVE: &str = "1152921504606846976";
/// Longest time from a ready node to what it has to do.
const BUDGET: Duration = Duration::from_secs(15);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-disk-full", HOME, HOME).await?;
    let key = |name: &str| format!("{name}/{}", world.run);
    let (kept, removed, later) = (key("kept"), key("removed"), key("later"));
    tenant.put(kept.clone(), "1").await?;
    tenant.put(removed.clone(), "1").await?;
    restart(world, Some(RESERVE)).await?;
    let started = Instant::now();
    until("a write to be refused for the disk reserve", async || {
        Ok(is_refused(&tenant, &later).await)
    })
    .await?;
    let refused_in = started.elapsed();
    let read = tenant.get(kept).await?.item;
    tenant.delete(removed.clone()).await?;
    let is_there = tenant.get(removed).await?.item.is_some();
    restart(world, None).await?;
    let started = Instant::now();
    until("a write with room", async || {
        tenant.put(later.clone(), "1").await?;
        Ok(true)
    })
    .await?;
    Ok(Verdict::default()
        .time("refused after", refused_in, BUDGET)
        .time("accepted again after", started.elapsed(), BUDGET)
        .none("lost", usize::from(read.is_none()))
        .none("not deleted", usize::from(is_there)))
}

async fn is_refused(tenant: &Tenant, key: &str) -> bool {
    let put = tenant.put(key.to_owned(), "1").await;
    matches!(put.map_err(|error| error.kind), Err(ErrorKind::QuotaExceeded { limit }) if limit == "disk reserve")
}

/// Restarts the nodes of the home one by one, with another reserve.
async fn restart(world: &mut World, reserve: Option<&str>) -> anyhow::Result<()> {
    let nodes = world
        .cluster
        .lock()
        .await
        .named(HOME)
        .context("there is no such region")?;
    for node in nodes {
        {
            let mut cluster = world.cluster.lock().await;
            cluster.set_option(OPTION, reserve);
            cluster.terminate_node(&node).await?;
            cluster.start_node(&node)?;
            cluster.set_option(OPTION, None);
        }
        world.ready().await?;
    }
    Ok(())
}
