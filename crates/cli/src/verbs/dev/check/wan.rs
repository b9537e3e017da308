//! Steps: a region is cut off and both sides go on; links between regions are at a hundredth of their speed.

use std::{collections::BTreeMap, time::Duration};

use stead_client::{Consistency, OnLeaseLoss, ReadOptions, Role, Tenant, TenantChange};
use stead_testing::{Link, process};
use tokio::time::{Instant, sleep};

use super::{own_cluster::TenantLoads, verdict::Verdict};
use crate::verbs::dev::{
    plan::REGIONS,
    world::{World, until},
};

/// Region that is cut off, or beside the slow links.
const HOME: &str = "eu-west";
const OTHER: &str = "us-east";
const PUTS_PER_SECOND: u32 = if cfg!(debug_assertions) { 50 } else { 300 };
/// Time in which nothing changes.
const MEASURED: Duration = Duration::from_secs(8);
/// Most memory that a node may take more than before: queues and histories have bounds.
const MEMORY_GROWTH_MAX: u64 = 128 << 20;
/// Longest time without an acknowledgement on either side, and after healing.
const GAP_MAX: Duration = Duration::from_secs(3);
/// Longest time until both sides have what the other one has written, and then the share of the outage that is added.
const CONVERGED: Duration = Duration::from_secs(10);
/// Bytes a second of a link of 100 Mbit/s at one hundredth of its speed.
const SLOW: u64 = 125_000;
/// Highest p99 of writes at home beside slow links, as a multiple of that before.
const P99_FACTOR: f64 = 1.2;

/// A region is cut off: its tenant, which goes on without a lease, and that of another region both take writes; afterwards
/// both regions have both.
pub(super) async fn region_cut(world: &mut World, cut_for: Duration) -> anyhow::Result<Verdict> {
    let inside = format!("check-cut-inside-{}", world.run);
    let outside = format!("check-cut-outside-{}", world.run);
    world.tenant(&inside, HOME, HOME).await?;
    let go_on = TenantChange {
        name: inside.clone(),
        on_lease_loss: Some(OnLeaseLoss::Continue),
        ..TenantChange::default()
    };
    world.client(HOME).await?.admin().update_tenant(go_on).await?;
    let inside_loads = TenantLoads::start(world, std::slice::from_ref(&inside), HOME, PUTS_PER_SECOND).await?;
    let outside_loads = TenantLoads::start(world, std::slice::from_ref(&outside), OTHER, PUTS_PER_SECOND).await?;
    converged(world, &inside, &outside).await?;
    sleep(MEASURED).await;
    let before = resident(world).await?;
    let links = links(world).await?;
    inside_loads.take_gap().await;
    outside_loads.take_gap().await;
    links.iter().for_each(Link::cut);
    let mut grown = 0;
    let began = Instant::now();
    while began.elapsed() < cut_for {
        sleep(Duration::from_secs(1).min(cut_for)).await;
        grown = grown.max(growth(world, &before).await?);
    }
    let gaps = [inside_loads.take_gap().await, outside_loads.take_gap().await];
    links.iter().for_each(Link::heal);
    let healed = Instant::now();
    converged(world, &inside, &outside).await?;
    let took = healed.elapsed();
    grown = grown.max(growth(world, &before).await?);
    let after = inside_loads.take_gap().await.max(outside_loads.take_gap().await);
    world.ready().await?;
    let verdict = Verdict::default()
        .note(format!("cut for {} s", cut_for.as_secs()))
        .time("longest gap inside", gaps[0], GAP_MAX)
        .time("longest gap outside", gaps[1], GAP_MAX)
        .time("longest gap afterwards", after, GAP_MAX)
        .time("converged after", took, CONVERGED + cut_for / 4)
        .number(
            "memory of a node grown by",
            grown as f64 / f64::from(1 << 20),
            MEMORY_GROWTH_MAX as f64 / f64::from(1 << 20),
            "MiB",
        );
    let verdict = inside_loads.finish(verdict).await?;
    outside_loads.finish(verdict).await
}

/// Links of a region at a hundredth of their speed: writes at its own tenants' home are as fast as before.
pub(super) async fn slow_link(world: &mut World) -> anyhow::Result<Verdict> {
    let names = [format!("check-slow-{}", world.run)];
    let mut loads = TenantLoads::start(world, &names, HOME, PUTS_PER_SECOND).await?;
    sleep(MEASURED).await;
    loads.take_p99().await;
    sleep(MEASURED).await;
    let before = loads.take_p99().await;
    let links = links(world).await?;
    let limit = |bytes_per_second| {
        for direction in links.iter().flat_map(|link| [&link.there, &link.back]) {
            direction.set(|shape| shape.bytes_per_second = bytes_per_second);
        }
    };
    limit(Some(SLOW));
    sleep(MEASURED * 2).await;
    let beside = loads.take_p99().await;
    limit(None);
    let far = world.tenant(&names[0], HOME, OTHER).await?;
    let home = world.tenant(&names[0], HOME, HOME).await?;
    home.put("mark", "last").await?;
    let healed = Instant::now();
    has(&far, OTHER, "mark").await?;
    let verdict = Verdict::default()
        .time("p99 beside slow links", beside, before.mul_f64(P99_FACTOR))
        .time("followed again after", healed.elapsed(), CONVERGED);
    loads.finish(verdict).await
}

/// Returns the links of the region to all others.
async fn links(world: &World) -> anyhow::Result<Vec<Link>> {
    let cluster = world.cluster.lock().await;
    let others = REGIONS.iter().filter(|(region, _)| *region != HOME);
    Ok(others
        .map(|(region, _)| cluster.link(HOME, region))
        .collect::<Result<_, _>>()?)
}

/// Waits until each side has what is written at the other one now.
async fn converged(world: &mut World, inside: &str, outside: &str) -> anyhow::Result<()> {
    for (name, home, far) in [(inside, HOME, OTHER), (outside, OTHER, HOME)] {
        let mark = format!("mark/{:08x}", rand::random::<u32>());
        let at_home = world.client(home).await?.tenant(name)?;
        until("a write at home", async || {
            at_home.put(mark.clone(), "v").await?;
            Ok(true)
        })
        .await?;
        let copy = world.client(far).await?.tenant(name)?;
        has(&copy, far, &mark).await?;
    }
    Ok(())
}

/// Waits until a region's own copy has a key.
async fn has(copy: &Tenant, region: &str, key: &str) -> anyhow::Result<()> {
    until(&format!("{region} has the write"), async || {
        let read = ReadOptions::at(Consistency::Local);
        let got = copy.get_with(key.to_owned(), &read).await?;
        Ok(got.header.role == Role::Follower && got.item.is_some())
    })
    .await
}

/// Returns the resident memory of each node.
async fn resident(world: &World) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut cluster = world.cluster.lock().await;
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let mut all = BTreeMap::new();
    for name in names {
        if let Some(process) = cluster.process(&name) {
            all.insert(name, process::usage(process)?.resident);
        }
    }
    Ok(all)
}

/// Returns the most bytes by which a node has grown.
async fn growth(world: &World, before: &BTreeMap<String, u64>) -> anyhow::Result<u64> {
    let now = resident(world).await?;
    let grown = now
        .iter()
        .filter_map(|(name, now)| Some(now.saturating_sub(*before.get(name)?)));
    Ok(grown.max().unwrap_or(0))
}
