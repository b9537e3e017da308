//! Step: each topology of docs/topologies.md is started in a cluster of its own, and loses what its line of the table says.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use stead_client::{
    Admin, Consistency, NewTenant, PromotionRequest, PromotionSelection, ReadOptions, Role, Tenant, TopologyRequest,
};
use stead_testing::promotions::promote;
use tokio::time::timeout;

use super::{
    own_cluster::{self, begin, done, gone},
    promote,
    verdict::Verdict,
};
use crate::verbs::dev::{
    topology::Topology,
    world::{World, until},
};

const HOME: &str = "eu-west";
/// Region that takes over.
const OTHER: &str = "us-east";
const THIRD: &str = "ap-south";
const WITNESS: &str = "witness";
const TENANT: &str = "check-topology";
/// Time after which a write, or a change of the directory, counts as one that is not served.
const NOT_SERVED: Duration = Duration::from_secs(5);
const GIVEN_UP: Duration = Duration::from_secs(90);

pub(super) async fn run(world: &World, data: &Path) -> anyhow::Result<Verdict> {
    let folder = data.join("topologies");
    own_cluster::alone(world, async |plan| {
        let mut verdict = Verdict::default();
        for topology in Topology::value_variants() {
            let value = topology.to_possible_value().context("it has a name")?;
            let name = value.get_name().to_owned();
            let ran = own_cluster::on(&plan, &folder, 1, topology.described().regions, async |own, _| {
                lose(own, *topology).await.context(name.clone())
            });
            let cells = ran.await?;
            verdict = verdict.note(format!("{name}: {cells}"));
        }
        Ok(verdict)
    })
    .await
}

/// Loses one node, one region, and a region with a node of another, as far as the topology has them. Returns what was seen.
async fn lose(own: &mut World, topology: Topology) -> anyhow::Result<String> {
    let tenant = own.tenant(TENANT, HOME, HOME).await?;
    serves(&tenant, "at first").await?;
    for region in data_regions(own, HOME).await {
        followed(own, &region).await?;
    }
    let node = lose_node(own, topology, &tenant).await?;
    let region = lose_region(own, topology, &tenant).await?;
    let both = match topology {
        Topology::OneNode | Topology::OneRegion => "no",
        Topology::ActivePassive => {
            // A voter; the region goes on with the other two while its leases last.
            own.cluster.lock().await.kill_node("us-east-1").await?;
            serves(
                &own.client(OTHER).await?.tenant(TENANT)?,
                "without a voter of the other region",
            )
            .await?;
            has_no_directory(own).await?;
            "no directory"
        }
        Topology::SmallFollower => {
            own.cluster.lock().await.kill_node("witness-1").await?;
            has_no_directory(own).await?;
            "no directory"
        }
        Topology::ThreeRegions => {
            own.cluster.lock().await.kill_node("ap-south-2").await?;
            serves(&own.client(OTHER).await?.tenant(TENANT)?, "without another node").await?;
            has_directory(own).await?;
            own.cluster.lock().await.start_node("ap-south-2")?;
            own.cluster.lock().await.kill_node("ap-south-1").await?;
            has_no_directory(own).await?;
            own.cluster.lock().await.start_node("ap-south-1")?;
            own.ready().await?;
            remove_lost(own).await?;
            "serves, no directory without its voter; then the lost region is removed"
        }
        Topology::FiveRegions => {
            kill_region(own, THIRD).await?;
            serves(&own.client(OTHER).await?.tenant(TENANT)?, "without two regions").await?;
            has_directory(own).await?;
            "two regions: promotion"
        }
    };
    Ok(format!("{node}, {region}, {both}"))
}

/// Loses the first node of the home, which also votes in the directory, and starts it again.
async fn lose_node(own: &mut World, topology: Topology, tenant: &Tenant) -> anyhow::Result<&'static str> {
    let node = format!("{HOME}-1");
    own.cluster.lock().await.kill_node(&node).await?;
    let cell = if topology == Topology::OneNode {
        serves_not(tenant).await?;
        "no"
    } else {
        serves(tenant, "without a node").await?;
        "serves"
    };
    own.cluster.lock().await.start_node(&node)?;
    own.ready().await?;
    serves(tenant, "with the node again").await?;
    let alone = match topology {
        Topology::SmallFollower => "us-east-1",
        Topology::ActivePassive => "witness-1",
        Topology::OneNode | Topology::OneRegion | Topology::ThreeRegions | Topology::FiveRegions => return Ok(cell),
    };
    own.cluster.lock().await.kill_node(alone).await?;
    serves(tenant, "without the only node of another region").await?;
    has_directory_at(own, HOME).await?;
    own.cluster.lock().await.start_node(alone)?;
    own.ready().await?;
    Ok(cell)
}

/// Loses the home region for good, and promotes its tenants where there is another one.
async fn lose_region(own: &mut World, topology: Topology, tenant: &Tenant) -> anyhow::Result<&'static str> {
    if matches!(topology, Topology::OneNode | Topology::OneRegion) {
        kill_region(own, HOME).await?;
        serves_not(tenant).await?;
        own.cluster.lock().await.start_all()?;
        own.ready().await?;
        serves(tenant, "with the region again").await?;
        return Ok("no");
    }
    promote::leases_are_short(own, TENANT).await?;
    followed(own, OTHER).await?;
    kill_region(own, HOME).await?;
    let admin = own.client(OTHER).await?.admin();
    let request = PromotionRequest {
        reason: "checked".into(),
        ..PromotionRequest::new(PromotionSelection::Region(HOME.into()))
    };
    let promotion = promote(&admin, request, GIVEN_UP).await?;
    let promoted = promotion.tenant(TENANT).and_then(|tenant| tenant.to.clone());
    ensure!(promoted.is_some(), "nothing was promoted: {:?}", promotion.report);
    serves(&own.client(OTHER).await?.tenant(TENANT)?, "after the promotion").await?;
    Ok("promotion")
}

/// Removes the region that was lost: its copies are given up, the directory's voters follow, and a node of it that comes back
/// ends by itself.
async fn remove_lost(own: &mut World) -> anyhow::Result<()> {
    let admin = own.client(OTHER).await?.admin();
    let request = TopologyRequest::RemoveRegion {
        name: HOME.to_owned(),
        lost: true,
    };
    let operation = begin(&admin, request).await?;
    done(&admin, &operation).await?;
    let left = admin.regions().await?;
    ensure!(
        left.iter().all(|region| region.name != HOME),
        "the region is still there"
    );
    let voters = admin.group(0).await?.voters;
    ensure!(voters.len() == 3, "voters of the directory: {voters:?}");
    serves(&own.client(OTHER).await?.tenant(TENANT)?, "without the removed region").await?;
    let node = format!("{HOME}-2");
    own.cluster.lock().await.start_node(&node)?;
    gone(own, &[node]).await
}

async fn kill_region(own: &World, region: &str) -> anyhow::Result<()> {
    let mut cluster = own.cluster.lock().await;
    for node in cluster.named(region)? {
        cluster.kill_node(&node).await?;
    }
    Ok(())
}

/// Returns the regions with data, but for one.
async fn data_regions(own: &World, but: &str) -> Vec<String> {
    let cluster = own.cluster.lock().await;
    let regions = cluster.regions().iter();
    let others = regions.filter(|region| !region.witness && region.name != but && region.name != WITNESS);
    others.map(|region| region.name.clone()).collect()
}

async fn serves(tenant: &Tenant, when: &str) -> anyhow::Result<()> {
    until(&format!("a write {when}"), async || {
        tenant.put("key", "value").await?;
        Ok(tenant.get("key").await?.item.is_some())
    })
    .await
}

async fn serves_not(tenant: &Tenant) -> anyhow::Result<()> {
    let put = timeout(NOT_SERVED, tenant.put("key", "value")).await;
    ensure!(!matches!(put, Ok(Ok(_))), "a write is served");
    Ok(())
}

/// Waits until a region reads its own copy.
async fn followed(own: &mut World, region: &str) -> anyhow::Result<()> {
    let tenant = own.client(region).await?.tenant(TENANT)?;
    until(&format!("{region} reads its own copy"), async || {
        let got = tenant.get_with("key", &ReadOptions::at(Consistency::Local)).await?;
        Ok(got.header.role == Role::Follower && got.item.is_some())
    })
    .await
}

async fn has_directory(own: &mut World) -> anyhow::Result<()> {
    has_directory_at(own, OTHER).await
}

/// Waits until the directory takes a change.
async fn has_directory_at(own: &mut World, region: &str) -> anyhow::Result<()> {
    let admin = own.client(region).await?.admin();
    until("the directory takes a change", async || {
        Ok(changes(&admin, region).await)
    })
    .await
}

async fn has_no_directory(own: &mut World) -> anyhow::Result<()> {
    let admin = own.client(OTHER).await?.admin();
    ensure!(!changes(&admin, OTHER).await, "the directory takes a change");
    Ok(())
}

async fn changes(admin: &Admin, home: &str) -> bool {
    let new = NewTenant {
        name: format!("check-{:08x}", rand::random::<u32>()),
        home_region: home.to_owned(),
        ..NewTenant::default()
    };
    matches!(timeout(NOT_SERVED, admin.create_tenant(new)).await, Ok(Ok(_)))
}
