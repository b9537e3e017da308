//! Steps: a region gets another group under load and its tenants are spread over both; a noisy tenant goes to another group of
//! its region. Each in a cluster of one region.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use stead_client::{
    Admin, BulkMoveOptions, MoveSource, MoveTarget, OperationOutcome, TenantMove, TenantSelection, TopologyRequest,
};
use stead_testing::moves::ended_within;
use tokio::time::{Instant, sleep};

use super::{
    own_cluster::{self, TenantLoads, begin, done, region},
    verdict::Verdict,
};
use crate::verbs::dev::world::{WAIT_TIMEOUT, World, until};

const HOME: &str = "eu-west";
const NODES: usize = 3;
const TENANTS: usize = 8;
const PUTS_PER_SECOND: u32 = if cfg!(debug_assertions) { 80 } else { 400 };
/// Nodes of the region start again one after the other, each within eight seconds of the one before.
const ADDED: Duration = Duration::from_secs(40);
const GAP_MAX: Duration = Duration::from_secs(3);
/// Writes of the noisy tenant, and of the one beside it.
const NOISY_PER_SECOND: u32 = if cfg!(debug_assertions) { 150 } else { 1_500 };
const QUIET_PER_SECOND: u32 = 50;
/// Time in which nothing changes.
const MEASURED: Duration = Duration::from_secs(5);
/// Longest pause of the writes of a tenant that moves within its region.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A group is added while a node is killed and clients write; then tenants are spread, and a new one finds its place.
pub(super) async fn add(world: &World, data: &Path) -> anyhow::Result<Verdict> {
    let regions = vec![region(HOME, NODES, NODES)];
    own_cluster::run(world, &data.join("groups"), 1, regions, async |own, _| {
        let tenants: Vec<String> = (0..TENANTS).map(|number| format!("check-groups-{number}")).collect();
        let loads = TenantLoads::start(own, &tenants, HOME, PUTS_PER_SECOND).await?;
        let admin = own.client(HOME).await?.admin();
        loads.take_gap().await;
        let began = Instant::now();
        let operation = begin(&admin, TopologyRequest::AddGroup { region: HOME.into() }).await?;
        // The operation outlives any node.
        own.cluster.lock().await.kill_node(&format!("{HOME}-2")).await?;
        own.cluster.lock().await.start_node(&format!("{HOME}-2"))?;
        done(&admin, &operation).await?;
        let added = began.elapsed();
        own.ready().await?;
        let added_gap = loads.take_gap().await;
        let homes = homes(&admin, &tenants).await?;
        ensure!(
            homes.len() == 1,
            "tenants have moved before they were spread: {homes:?}"
        );
        let groups = admin.groups(HOME).await?;
        ensure!(groups.len() == 2, "{} groups", groups.len());
        let moved = spread(&admin).await?;
        let spread_gap = loads.take_gap().await;
        let homes = self::homes(&admin, &tenants).await?;
        let uneven = homes.values().max().zip(homes.values().min());
        let uneven = uneven.map_or(0, |(most, least)| most - least);
        let verdict = Verdict::default()
            .time("group added in", added, ADDED)
            .time("longest gap", added_gap, GAP_MAX)
            .time("longest gap of the spread", spread_gap, GAP_MAX)
            .none("groups without a tenant", 2 - homes.len())
            .none("tenants more in one group", uneven.saturating_sub(1))
            .note(format!("{moved} of {TENANTS} tenants moved"));
        loads.finish(verdict).await
    })
    .await
}

/// A noisy tenant is moved to another group of its region, while it and another one of its group are written to.
pub(super) async fn isolate(world: &World, data: &Path) -> anyhow::Result<Verdict> {
    let regions = vec![region(HOME, NODES, NODES)];
    own_cluster::run(world, &data.join("isolate"), 2, regions, async |own, _| {
        let admin = own.client(HOME).await?.admin();
        let (noisy, quiet) = neighbours(own, &admin).await?;
        let mut beside = TenantLoads::start(own, std::slice::from_ref(&quiet), HOME, QUIET_PER_SECOND).await?;
        let loads = TenantLoads::start(own, std::slice::from_ref(&noisy), HOME, NOISY_PER_SECOND).await?;
        sleep(MEASURED).await;
        let before = beside.take_p99().await;
        loads.take_gap().await;
        let request = TenantMove {
            name: noisy.clone(),
            etag: String::new(),
            to: MoveTarget::OtherGroup,
            source: MoveSource::Policy,
            reason: "checked".into(),
            dry_run: false,
        };
        let operation = admin.move_tenant(request).await?.name;
        match ended_within(&admin, &operation, WAIT_TIMEOUT).await?.outcome {
            Some(OperationOutcome::Moved { .. }) => {}
            other => bail!("{operation}: {other:?}"),
        }
        let pause = loads.take_gap().await;
        beside.take_p99().await;
        sleep(MEASURED).await;
        let after = beside.take_p99().await;
        let homes = homes(&admin, &[noisy, quiet]).await?;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let verdict = Verdict::default()
            .time("pause", pause, PAUSE_MAX)
            .none("still together", usize::from(homes.len() == 1))
            .note(format!(
                "p99 beside it {:.1} ms before, {:.1} ms after",
                millis(before),
                millis(after)
            ));
        let verdict = loads.finish(verdict).await?;
        beside.finish(verdict).await
    })
    .await
}

/// Makes tenants until two are at home in one group, and returns them.
async fn neighbours(own: &mut World, admin: &Admin) -> anyhow::Result<(String, String)> {
    let mut first: BTreeMap<u32, String> = BTreeMap::new();
    for number in 0..=2 {
        let name = format!("check-isolate-{number}");
        own.tenant(&name, HOME, HOME).await?;
        let group = admin.tenant(&name).await?.home_group;
        if let Some(other) = first.insert(group, name.clone()) {
            return Ok((name, other));
        }
    }
    bail!("three tenants have three homes in two groups: {first:?}")
}

/// Returns how many of the tenants each group is home to.
async fn homes(admin: &Admin, tenants: &[String]) -> anyhow::Result<BTreeMap<u32, usize>> {
    let mut homes = BTreeMap::new();
    for name in tenants {
        *homes.entry(admin.tenant(name).await?.home_group).or_default() += 1;
    }
    Ok(homes)
}

/// Spreads the tenants of the region over its groups; returns how many have moved.
async fn spread(admin: &Admin) -> anyhow::Result<u64> {
    let options = || BulkMoveOptions {
        reason: "checked".into(),
        ..BulkMoveOptions::default()
    };
    let mut begun = None;
    // A group that has just formed may not have reported yet.
    until("the spread begins", async || {
        let selection = TenantSelection::Spread(HOME.into());
        begun = Some(admin.move_tenants(selection, options()).await?.name);
        Ok(true)
    })
    .await?;
    let operation = begun.context("it has begun")?;
    match ended_within(admin, &operation, WAIT_TIMEOUT).await?.outcome {
        Some(OperationOutcome::TenantsMoved(moved)) => Ok(moved),
        other => bail!("{operation}: {other:?}"),
    }
}
