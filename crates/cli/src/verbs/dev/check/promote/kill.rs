//! Step: all nodes of a region are killed under load, and its tenants get other homes. The region returns and follows.

use std::time::Duration;

use anyhow::Context;
use stead_client::{PromotionRequest, PromotionSelection, Tenant};
use stead_testing::promotions::{first_in, promote};
use stead_types::Epoch;
use tokio::time::sleep;

use super::{ELECTION, GIVEN_UP, HOME, Loads, OTHER, TAKE_OVER, WAIT, WARM_UP, follows, leases_are_short, move_back};
use crate::verbs::dev::{
    check::verdict::Verdict,
    lost_region::kill_region,
    world::{World, until},
};

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-promote-{}", world.run);
    let (loads, tenant) = Loads::start(world, &name).await?;
    leases_are_short(world, &name).await?;
    sleep(WARM_UP).await;
    kill_region(world, HOME).await?;
    let admin = world.client(OTHER).await?.admin();
    let request = PromotionRequest {
        reason: "checked".into(),
        ..PromotionRequest::new(PromotionSelection::Region(HOME.into()))
    };
    let planned = plan(&admin, &request, &name).await;
    let promoted = promote(&admin, request, GIVEN_UP).await;
    // The nodes return whatever has happened: later steps need them.
    let first = async {
        let promotion = promoted?;
        let epoch = promotion.tenant(&name).context("the report lacks the tenant")?.epoch;
        let epoch = Epoch::new(epoch).context("there is no such epoch")?;
        let mut first = None;
        until("another region accepts writes", async || {
            first = first_in(&loads.other.acknowledged_since(0).await, epoch);
            Ok(first.is_some())
        })
        .await?;
        let first = first.context("it does")?;
        anyhow::Ok((first.saturating_duration_since(promotion.fenced_by), promotion))
    }
    .await;
    world.cluster.lock().await.start_all()?;
    world.ready().await?;
    let (first_write, promotion) = first?;
    let (planned_wait, planned_loss) = planned?;
    let refused = old_home_serves_in_new_epoch(world, &name, &promotion).await?;
    let writes = loads.finish().await?;
    follows(world, &tenant, HOME).await?;
    let longest = promotion.longest().context("nothing was promoted")?;
    let verdict = Verdict::default()
        .time("confirmed after", promotion.confirmed_after, ELECTION)
        .time("fence to new home", longest, WAIT + TAKE_OVER)
        .time("to first write elsewhere", first_write, WAIT + TAKE_OVER)
        .none("old homes that serve", refused)
        .none(
            "waits that were longer than planned",
            usize::from(longest > planned_wait + TAKE_OVER),
        )
        .none(
            "losses that were not planned",
            usize::from(!writes.missing().is_empty() && !planned_loss),
        )
        .note(super::counts(&promotion));
    let verdict = writes.judge(verdict, &promotion, &name)?;
    move_back(&admin, &promotion).await?;
    Ok(verdict)
}

/// Returns how long the dry run says that the wait is at most, and whether it says that the tenant may lose writes.
async fn plan(admin: &stead_client::Admin, request: &PromotionRequest, name: &str) -> anyhow::Result<(Duration, bool)> {
    let mut planned = None;
    until("a dry run answers", async || {
        let asked = PromotionRequest {
            dry_run: true,
            ..request.clone()
        };
        planned = admin.promote(asked).await?.promotion_plan;
        Ok(planned.is_some())
    })
    .await?;
    let planned = planned.context("there is a plan")?;
    let item = planned.items.iter().find(|item| item.tenant == name);
    let item = item.context("the plan lacks the tenant")?;
    anyhow::ensure!(item.blocker.is_empty(), "the plan is blocked: {}", item.blocker);
    anyhow::ensure!(item.to.is_some(), "the plan has no new home");
    let wait = planned.wait_max.context("the plan has no wait")?;
    Ok((wait, item.loss != stead_client::LossWindow::None))
}

/// Returns whether the region that was lost serves the tenant itself, asked at its own node.
async fn old_home_serves_in_new_epoch(
    world: &mut World,
    name: &str,
    promotion: &stead_testing::promotions::Promotion,
) -> anyhow::Result<usize> {
    let to = promotion.tenant(name).and_then(|tenant| tenant.to.clone());
    let to = to.context("it has no new home")?;
    let nodes = world.cluster.lock().await.named(HOME)?;
    let mut serves = 0;
    for node in nodes {
        let asked: Tenant = world.node_client(&node).await?.tenant(name)?;
        let mut answered_by = String::new();
        until("a node of the region that was lost answers", async || {
            let region = asked.put("old-home", "v").await?.header.region;
            answered_by = region.map(|region| region.to_string()).unwrap_or_default();
            Ok(true)
        })
        .await?;
        serves += usize::from(answered_by != to.region);
    }
    Ok(serves)
}
