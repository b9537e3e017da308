//! Step: a region is cut off and alive, with clients that go on writing to it. Its tenants get other homes, and at no time
//! do two regions acknowledge writes.

use anyhow::Context;
use stead_client::{PromotionRequest, PromotionSelection};
use stead_testing::{
    Link,
    promotions::{Promotion, first_in, overlapping, promote},
};
use stead_types::Epoch;
use tokio::time::sleep;

use super::{ELECTION, GIVEN_UP, HOME, Loads, OTHER, TAKE_OVER, WAIT, WARM_UP, follows, leases_are_short, move_back};
use crate::verbs::dev::{
    check::verdict::Verdict,
    lost_region::links,
    world::{World, until},
};

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-promote-cut-{}", world.run);
    let (loads, tenant) = Loads::start(world, &name).await?;
    leases_are_short(world, &name).await?;
    sleep(WARM_UP).await;
    let links = links(world, HOME).await?;
    links.iter().for_each(Link::cut);
    let promoted = take_over(world, &loads, &name).await;
    links.iter().for_each(Link::heal);
    let (promotion, epoch) = promoted?;
    world.ready().await?;
    until("the region writes again", async || {
        let newest = loads.home.newest().await;
        Ok(newest.is_some_and(|write| write.revision.epoch() >= epoch))
    })
    .await?;
    let writes = loads.finish().await?;
    follows(world, &tenant, HOME).await?;
    let acknowledged = writes.acknowledged();
    let before = acknowledged
        .iter()
        .filter(|write| write.revision.epoch() < epoch)
        .count();
    let first = first_in(&acknowledged, epoch).context("the new home has accepted nothing")?;
    let longest = promotion.longest().context("nothing was promoted")?;
    let verdict = Verdict::default()
        .time("confirmed after", promotion.confirmed_after, ELECTION)
        .time("fence to new home", longest, WAIT + TAKE_OVER)
        .time(
            "to first write elsewhere",
            first.saturating_duration_since(promotion.fenced_by),
            WAIT + TAKE_OVER,
        )
        .none(
            "acknowledged by the old home after the new one",
            overlapping(&acknowledged, epoch),
        )
        .note(format!("{before} writes before, {} after", acknowledged.len() - before));
    let verdict = writes.judge(verdict, &promotion, &name)?;
    let admin = world.client(OTHER).await?.admin();
    move_back(&admin, &promotion).await?;
    Ok(verdict)
}

/// Promotes, and waits until the other region has written.
async fn take_over(world: &mut World, loads: &Loads, name: &str) -> anyhow::Result<(Promotion, Epoch)> {
    let admin = world.client(OTHER).await?.admin();
    let request = PromotionRequest {
        reason: "checked".into(),
        ..PromotionRequest::new(PromotionSelection::Tenants(vec![name.to_owned()]))
    };
    let promotion = promote(&admin, request, GIVEN_UP).await?;
    let epoch = promotion.tenant(name).context("the report lacks the tenant")?.epoch;
    let epoch = Epoch::new(epoch).context("there is no such epoch")?;
    until("another region accepts writes", async || {
        Ok(first_in(&loads.other.acknowledged_since(0).await, epoch).is_some())
    })
    .await?;
    Ok((promotion, epoch))
}
