//! Steps: a cluster of one region grows to two with a witness and to three, and back to one, while clients write to tenants of
//! the region that stays.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, ensure};
use stead_client::{Admin, Consistency, ReadOptions, TopologyRequest};
use stead_testing::cluster::Region;
use tokio::time::sleep;

use super::{
    own_cluster::{self, TenantLoads, begin, done, gone, region},
    verdict::Verdict,
};
use crate::verbs::dev::world::{World, until};

/// Region that stays.
const HOME: &str = "eu-west";
const SECOND: &str = "us-east";
const THIRD: &str = "ap-south";
const WITNESS: &str = "witness";
const NODES: usize = 3;
const TENANTS: usize = 4;
/// Writes to all tenants together.
const PUTS_PER_SECOND: u32 = if cfg!(debug_assertions) { 100 } else { 500 };
/// Time in which nothing changes, before a latency is taken for that of a topology.
const MEASURED: Duration = Duration::from_secs(10);
/// Longest time without an acknowledgement while voters change and nodes start again.
const GAP_MAX: Duration = Duration::from_secs(3);
/// Highest p99 of writes while the cluster changes, as a multiple of that in one region.
const P99_FACTOR: u32 = 3;

/// One region becomes two, with a witness, and three.
pub(super) async fn grow(world: &World, data: &Path) -> anyhow::Result<Verdict> {
    own_cluster::run(world, &data.join("grow"), 1, regions(), async |own, _| {
        let mut loads = load(own).await?;
        let mut phases = Vec::new();
        let before = steady(&mut loads).await;
        add(own, SECOND, false).await?;
        followed(own, SECOND).await?;
        directory_is_in(own, &[(HOME, 0), (SECOND, 0)]).await?;
        phases.push(("to two regions", loads.take_p99().await));
        add(own, WITNESS, true).await?;
        directory_is_in(own, &[(HOME, 1), (SECOND, 1), (WITNESS, 1)]).await?;
        phases.push(("witness", loads.take_p99().await));
        add(own, THIRD, false).await?;
        followed(own, THIRD).await?;
        directory_is_in(own, &[(HOME, 1), (SECOND, 1), (THIRD, 1)]).await?;
        phases.push(("to three regions", loads.take_p99().await));
        phases.push(("three regions", steady(&mut loads).await));
        finish(loads, before, &phases).await
    })
    .await
}

/// Three regions and a witness, which one region has become, become one again.
pub(super) async fn shrink(world: &World, data: &Path) -> anyhow::Result<Verdict> {
    own_cluster::run(world, &data.join("shrink"), 1, regions(), async |own, _| {
        let mut loads = load(own).await?;
        for (name, witness) in [(SECOND, false), (WITNESS, true), (THIRD, false)] {
            add(own, name, witness).await?;
        }
        followed(own, SECOND).await?;
        followed(own, THIRD).await?;
        directory_is_in(own, &[(HOME, 1), (SECOND, 1), (THIRD, 1)]).await?;
        let mut phases = vec![("three regions", steady(&mut loads).await)];
        remove(own, THIRD).await?;
        directory_is_in(own, &[(HOME, 1), (SECOND, 1), (WITNESS, 1)]).await?;
        phases.push(("to two regions", loads.take_p99().await));
        remove(own, SECOND).await?;
        remove(own, WITNESS).await?;
        directory_is_in(own, &[(HOME, NODES)]).await?;
        phases.push(("to one region", loads.take_p99().await));
        let after = steady(&mut loads).await;
        finish(loads, after, &phases).await
    })
    .await
}

fn regions() -> Vec<Region> {
    vec![
        region(HOME, NODES, NODES),
        region(SECOND, NODES, 0),
        region(THIRD, NODES, 0),
        region(WITNESS, 1, 0),
    ]
}

fn tenant_names() -> Vec<String> {
    (0..TENANTS).map(|number| format!("check-grow-{number}")).collect()
}

async fn load(own: &mut World) -> anyhow::Result<TenantLoads> {
    TenantLoads::start(own, &tenant_names(), HOME, PUTS_PER_SECOND).await
}

/// Returns the p99 while nothing changes.
async fn steady(loads: &mut TenantLoads) -> Duration {
    loads.take_p99().await;
    sleep(MEASURED).await;
    loads.take_p99().await
}

async fn finish(loads: TenantLoads, in_one: Duration, phases: &[(&str, Duration)]) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default().note(format!("{PUTS_PER_SECOND} writes/s"));
    verdict = verdict.note(format!("p99 in one region {:.1} ms", in_one.as_secs_f64() * 1e3));
    for (what, p99) in phases {
        verdict = verdict.time(&format!("p99 {what}"), *p99, in_one * P99_FACTOR);
    }
    let gap = loads.take_gap().await;
    loads.finish(verdict.time("longest gap", gap, GAP_MAX)).await
}

async fn nodes_of(own: &World, name: &str) -> Vec<String> {
    let cluster = own.cluster.lock().await;
    let nodes = cluster.nodes().iter().filter(|node| node.region == name);
    nodes.map(|node| node.name.clone()).collect()
}

/// Adds a region with its nodes, and waits until it is done.
async fn add(own: &mut World, name: &str, witness: bool) -> anyhow::Result<()> {
    let admin = own.client(HOME).await?.admin();
    let jurisdiction = {
        let cluster = own.cluster.lock().await;
        let known = cluster.regions().iter().find(|region| region.name == name);
        known.context("no such region")?.jurisdiction.clone()
    };
    let nodes = nodes_of(own, name).await;
    let request = TopologyRequest::AddRegion {
        name: name.to_owned(),
        jurisdiction,
        nodes: nodes.clone(),
        witness,
    };
    let operation = begin(&admin, request).await?;
    for node in &nodes {
        own.cluster.lock().await.start_node(node)?;
    }
    done(&admin, &operation).await.with_context(|| format!("add {name}"))?;
    own.ready().await
}

/// Removes a region, and waits until its nodes have ended by themselves.
async fn remove(own: &mut World, name: &str) -> anyhow::Result<()> {
    let admin = own.client(HOME).await?.admin();
    let operation = begin(
        &admin,
        TopologyRequest::RemoveRegion {
            name: name.to_owned(),
            lost: false,
        },
    )
    .await?;
    done(&admin, &operation)
        .await
        .with_context(|| format!("remove {name}"))?;
    let nodes = nodes_of(own, name).await;
    gone(own, &nodes).await
}

/// Waits until a region's own copies of all tenants are read there.
async fn followed(own: &mut World, name: &str) -> anyhow::Result<()> {
    let client = own.client(name).await?;
    for tenant in tenant_names() {
        let tenant = client.tenant(&tenant)?;
        until(&format!("{} is followed in {name}", tenant.name()), async || {
            let read = ReadOptions::at(Consistency::Local);
            let got = tenant.get_with("first", &read).await?;
            Ok(got.header.role == stead_client::Role::Follower && got.item.is_some())
        })
        .await?;
    }
    Ok(())
}

/// Waits until the directory has three voters, so many of them in each of these regions; 0: at least one.
async fn directory_is_in(own: &mut World, regions: &[(&str, usize)]) -> anyhow::Result<()> {
    let admin = own.client(HOME).await?.admin();
    let mut last = String::new();
    let waited = until("the directory's voters follow", async || {
        let found = directory_regions(&admin).await?;
        last = format!("{found:?}");
        let fits = |(region, count): &(&str, usize)| match count {
            0 => found.contains_key(*region),
            count => found.get(*region) == Some(count),
        };
        Ok(found.len() == regions.len() && found.values().sum::<usize>() == NODES && regions.iter().all(fits))
    })
    .await;
    ensure!(waited.is_ok(), "the directory's voters are in {last}");
    Ok(())
}

/// Returns how many voters of the directory each region has.
async fn directory_regions(admin: &Admin) -> anyhow::Result<BTreeMap<String, usize>> {
    let voters = admin.group(0).await?.voters;
    let mut found = BTreeMap::new();
    for node in admin.nodes("").await? {
        if voters.contains(&node.number) {
            *found.entry(node.region).or_default() += 1;
        }
    }
    Ok(found)
}
