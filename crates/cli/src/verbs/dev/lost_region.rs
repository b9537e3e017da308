//! Loss of a region, for the demo and the steps: its links are cut, its nodes killed, and what it alone had is found again.

use std::time::Duration;

use anyhow::Context;
use stead_client::{
    Admin, ForkInfo, ForkName, PromotionRequest, PromotionSelection, ReplayOptions, ReplayPage, ReplayedChange,
};
use stead_testing::Link;

use super::world::{LEASE_TTL, World, until};

/// Longest wait for the leases of a lost home: with clocks that differ by a hundredth, 50 ms and the resolution of a clock.
pub(super) const LEASE_WAIT: Duration = LEASE_TTL.saturating_add(Duration::from_millis(201));
/// Changes that are replayed at a time: a replay has several pages.
const PAGE_SIZE: u32 = 20;

/// Returns the links between a region and the others.
pub(super) async fn links(world: &World, region: &str) -> anyhow::Result<Vec<Link>> {
    let cluster = world.cluster.lock().await;
    let others = cluster.regions().iter().filter(|other| other.name != region);
    Ok(others
        .map(|other| cluster.link(region, &other.name))
        .collect::<Result<_, _>>()?)
}

/// Kills all nodes of a region.
pub(super) async fn kill_region(world: &World, region: &str) -> anyhow::Result<()> {
    let mut cluster = world.cluster.lock().await;
    for node in cluster.named(region)? {
        cluster.kill_node(&node).await?;
    }
    Ok(())
}

/// Starts the nodes of a lost region again, and waits until all nodes are ready.
pub(super) async fn restart(world: &World) -> anyhow::Result<()> {
    world.cluster.lock().await.start_all()?;
    world.ready().await
}

/// Waits until a promotion of a tenant with a home in `region` waits for no longer lease than the environment's. Lowered
/// ttls count later.
pub(super) async fn leases_are_short(world: &World, admin: &Admin, region: &str, tenant: &str) -> anyhow::Result<()> {
    world.leases_are_short(region).await?;
    until("no promotion waits for a lease of the longer ttl", async || {
        let asked = PromotionRequest {
            dry_run: true,
            ..PromotionRequest::new(PromotionSelection::Tenants(vec![tenant.to_owned()]))
        };
        let planned = admin.promote(asked).await?;
        let wait = planned.promotion_plan.and_then(|plan| plan.wait_max);
        Ok(wait.is_some_and(|wait| wait <= LEASE_WAIT))
    })
    .await
}

/// Waits until a tenant has a fork that is complete, and returns the newest.
pub(super) async fn newest_fork(admin: &Admin, tenant: &str) -> anyhow::Result<ForkInfo> {
    let mut found = None;
    until("the lost region has a fork", async || {
        let list = admin.forks(tenant, None, "").await?;
        let complete = list.forks.into_iter().filter(|fork| !fork.is_filling);
        found = complete.max_by_key(|fork| fork.number);
        Ok(found.is_some())
    })
    .await?;
    found.context("it has one")
}

/// Replays all pages of a fork.
pub(super) async fn replay(admin: &Admin, name: &ForkName, reason: &str) -> anyhow::Result<Vec<ReplayedChange>> {
    let options = ReplayOptions {
        reason: reason.to_owned(),
        page_size: PAGE_SIZE,
        ..ReplayOptions::default()
    };
    let (mut changes, mut token) = (Vec::new(), String::new());
    loop {
        let mut page: Option<ReplayPage> = None;
        until("a page is replayed", async || {
            page = Some(admin.replay_fork(name, &options, &token).await?);
            Ok(true)
        })
        .await?;
        let page = page.context("it is")?;
        changes.extend(page.changes);
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(changes);
        }
    }
}
