//! Step: all nodes of a region are killed while writes are acknowledged only once another region has them. Its tenant gets
//! another home, and every acknowledged write is there.

use std::time::Duration;

use anyhow::Context;
use stead_client::{Durability, PromotionRequest, PromotionSelection, Tenant, TenantChange};
use stead_testing::{
    load::percentile,
    promotions::{first_in, promote},
};
use stead_types::Epoch;
use tokio::time::{Instant, sleep};

use super::{GIVEN_UP, HOME, Loads, OTHER, WARM_UP, follows, leases_are_short, move_back};
use crate::verbs::dev::{
    check::verdict::Verdict,
    lost_region::kill_region,
    plan::REGIONS,
    world::{World, until},
};

/// Longest time of a put beyond the round trip to the nearest follower.
const CONFIRMATION: Duration = Duration::from_millis(15);
/// Most time of a read at home that meets no unconfirmed write.
const READ_AT_HOME: Duration = Duration::from_micros(1_500);
const CALLS: usize = 50;

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-remote-{}", world.run);
    let tenant = world.tenant(&name, HOME, HOME).await?;
    set_remote(world, &name).await?;
    let (mut puts, mut gets) = measure(&tenant).await?;
    let (loads, tenant) = Loads::start(world, &name).await?;
    leases_are_short(world, &name).await?;
    sleep(WARM_UP).await;
    kill_region(world, HOME).await?;
    let admin = world.client(OTHER).await?.admin();
    let request = PromotionRequest {
        reason: "checked".into(),
        ..PromotionRequest::new(PromotionSelection::Tenants(vec![name.clone()]))
    };
    let promoted = promote(&admin, request, GIVEN_UP).await;
    // The nodes return whatever has happened: later steps need them.
    let written = async {
        let promotion = promoted?;
        let epoch = promotion.tenant(&name).context("the report lacks the tenant")?.epoch;
        let epoch = Epoch::new(epoch).context("there is no such epoch")?;
        until("another region accepts writes", async || {
            Ok(first_in(&loads.other.acknowledged_since(0).await, epoch).is_some())
        })
        .await?;
        anyhow::Ok((promotion, epoch))
    }
    .await;
    world.cluster.lock().await.start_all()?;
    world.ready().await?;
    let (promotion, epoch) = written?;
    let writes = loads.finish().await?;
    follows(world, &tenant, HOME).await?;
    move_back(&admin, &promotion).await?;
    let nearest = nearest(world).await?;
    let (p50, read) = (percentile(&mut puts, 0.5), percentile(&mut gets, 0.5));
    let acknowledged = writes.acknowledged();
    let before = acknowledged.iter().filter(|write| write.revision.epoch() < epoch);
    Ok(Verdict::default()
        .time("put p50", p50, nearest + CONFIRMATION)
        .time("read p50 at home", read, READ_AT_HOME)
        .none("acknowledged writes lost", writes.missing().len())
        .none("twice", writes.home.twice + writes.other.twice)
        .note(format!(
            "{} writes acknowledged before the loss, {} in all; round trip to the nearest follower {} ms",
            before.count(),
            acknowledged.len(),
            nearest.as_millis()
        )))
}

/// Gives a tenant the durability REMOTE. A new cluster raises its feature level once all nodes have reported theirs.
async fn set_remote(world: &mut World, name: &str) -> anyhow::Result<()> {
    let admin = world.client(HOME).await?.admin();
    let change = TenantChange {
        name: name.to_owned(),
        durability: Some(Durability::Remote),
        ..TenantChange::default()
    };
    until("the tenant has the durability REMOTE", async || {
        admin.update_tenant(change.clone()).await?;
        Ok(true)
    })
    .await
}

/// Measures puts that another region confirms, and reads after each.
async fn measure(tenant: &Tenant) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    until("another region confirms writes", async || {
        tenant.put("warm", "v").await?;
        Ok(true)
    })
    .await?;
    let (mut puts, mut gets) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
    for at in 0..CALLS {
        let asked = Instant::now();
        tenant.put(format!("measured/{at}"), "v").await?;
        puts.push(asked.elapsed());
        let asked = Instant::now();
        tenant.get(format!("measured/{at}")).await?;
        gets.push(asked.elapsed());
    }
    Ok((puts, gets))
}

/// Returns the round trip from the home to the nearest other region.
async fn nearest(world: &World) -> anyhow::Result<Duration> {
    let cluster = world.cluster.lock().await;
    let mut nearest: Option<Duration> = None;
    for (region, _) in REGIONS.iter().filter(|(region, _)| *region != HOME) {
        let round_trip = cluster.link(HOME, region)?.round_trip();
        nearest = Some(nearest.map_or(round_trip, |known| known.min(round_trip)));
    }
    nearest.context("there is no other region")
}
