//! Step: in a cluster of two regions and a witness one region is lost, returns, and the other one is lost.

use anyhow::Context;
use stead_client::{PromotionRequest, PromotionSelection};
use stead_testing::promotions::promote;
use tokio::time::sleep;

use super::{ELECTION, GIVEN_UP, HOME, Loads, OTHER, TAKE_OVER, WAIT, WARM_UP, follows, leases_are_short};
use crate::verbs::dev::{check::verdict::Verdict, lost_region::kill_region, world::World};

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-two-{}", world.run);
    world.tenant(&name, HOME, HOME).await?;
    leases_are_short(world, &name).await?;
    let verdict = lose(world, &name, HOME, OTHER, Verdict::default()).await?;
    lose(world, &name, OTHER, HOME, verdict).await
}

/// Loses the region that is home to a tenant under writes; the one that is left takes it over, and the lost one follows.
async fn lose(world: &mut World, name: &str, lost: &str, left: &str, verdict: Verdict) -> anyhow::Result<Verdict> {
    let prefix = format!("promote/{}/without-{lost}", world.run);
    let (loads, _) = Loads::start_below(world, name, &prefix).await?;
    sleep(WARM_UP).await;
    kill_region(world, lost).await?;
    let admin = world.client(left).await?.admin();
    let request = PromotionRequest {
        reason: "checked".into(),
        ..PromotionRequest::new(PromotionSelection::Region(lost.into()))
    };
    let promoted = promote(&admin, request, GIVEN_UP).await;
    sleep(WARM_UP).await;
    // The nodes return whatever has happened.
    world.cluster.lock().await.start_all()?;
    world.ready().await?;
    let promotion = promoted.with_context(|| format!("{lost} is lost"))?;
    let to = promotion.tenant(name).and_then(|tenant| tenant.to.clone());
    let is_left = to.is_some_and(|to| to.region == left);
    let longest = promotion.longest().context("nothing was promoted")?;
    let writes = loads.finish().await?;
    let tenant = world.client(left).await?.tenant(name)?;
    follows(world, &tenant, lost).await?;
    let verdict = verdict
        .time(
            &format!("without {lost}: confirmed after"),
            promotion.confirmed_after,
            ELECTION,
        )
        .time(&format!("without {lost}: fence to new home"), longest, WAIT + TAKE_OVER)
        .none("other new homes", usize::from(!is_left));
    writes.judge(verdict, &promotion, name)
}
