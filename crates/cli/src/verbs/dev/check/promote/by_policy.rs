//! Step: all nodes of a region are killed, and a tenant whose policy says so is promoted by itself; one that is to be observed
//! stays.

use std::time::Duration;

use anyhow::Context;
use stead_client::{Admin, AutomaticPromotion, BulkMoveOptions, OnRegionLoss, OperationFilter, PromotedTenant};
use stead_testing::{moves::ended_within, promotions::first_in};
use stead_types::Epoch;
use tokio::time::{Instant, sleep};

use super::{ELECTION, GIVEN_UP, HOME, Loads, OTHER, TAKE_OVER, WAIT, WARM_UP, follows, leases_are_short};
use crate::verbs::dev::{
    check::verdict::Verdict,
    lost_region::kill_region,
    world::{World, until},
};

/// Time without a lease renewal after which the tenant is promoted.
const AFTER: Duration = Duration::from_secs(10);
/// Window of loss that is accepted.
const MAX_LOSS: Duration = Duration::from_secs(40);
/// Longest time in which the directory's leader notices, asks the other regions and decides.
const DECISION: Duration = Duration::from_secs(10);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-policy-{}", world.run);
    let observed = format!("check-policy-seen-{}", world.run);
    let (loads, tenant) = Loads::start(world, &name).await?;
    world.tenant(&observed, HOME, OTHER).await?;
    leases_are_short(world, &name).await?;
    let admin = world.client(OTHER).await?.admin();
    let promotion = AutomaticPromotion {
        after: AFTER,
        max_loss: Some(MAX_LOSS),
    };
    until("the policies are set", async || {
        let promote = OnRegionLoss::Promote(promotion);
        admin.set_on_region_loss(&name, promote, "checked", false).await?;
        let observe = OnRegionLoss::Observe(promotion);
        admin.set_on_region_loss(&observed, observe, "checked", false).await?;
        Ok(true)
    })
    .await?;
    sleep(WARM_UP).await;
    let early = promotions_by_policy(&admin, &name).await?.len();
    kill_region(world, HOME).await?;
    let killed = Instant::now();
    let begun = taken_over(&admin, &loads, &name, killed).await;
    // The nodes return whatever has happened: later steps need them.
    world.cluster.lock().await.start_all()?;
    world.ready().await?;
    let taken = begun?;
    let unmoved = admin.tenant(&observed).await?.epoch;
    let writes = loads.finish().await?;
    follows(world, &tenant, HOME).await?;
    admin
        .set_on_region_loss(&name, OnRegionLoss::Alert, "checked", false)
        .await?;
    let too_long = taken
        .decided
        .loss
        .length()
        .is_none_or(|length| length > MAX_LOSS + WAIT);
    return_home(&admin, &name).await?;
    Ok(Verdict::default()
        .time("begun after", taken.begun_after, AFTER + ELECTION + DECISION)
        .time(
            "served elsewhere after",
            taken.served_after,
            AFTER + ELECTION + DECISION + WAIT + TAKE_OVER,
        )
        .none("begun before the region was lost", early)
        .none("begun twice", taken.promotions.saturating_sub(1))
        .none(
            "observed tenants that were promoted",
            usize::from(unmoved != Epoch::FIRST),
        )
        .none("losses beyond the policy", usize::from(too_long))
        .none(
            "promotions without their author",
            usize::from(!taken.who.contains("on_region_loss")),
        )
        .note(format!(
            "{} of {} acknowledged writes cut",
            writes.missing().len(),
            writes.acknowledged().len()
        )))
}

/// Promotion by policy, as observed.
struct TakenOver {
    promotions: usize,
    begun_after: Duration,
    served_after: Duration,
    decided: PromotedTenant,
    who: String,
}

/// Waits until the policy has promoted the tenant, and another region accepts its writes.
async fn taken_over(admin: &Admin, loads: &Loads, name: &str, killed: Instant) -> anyhow::Result<TakenOver> {
    let mut begun = Vec::new();
    until("the policy promotes", async || {
        begun = promotions_by_policy(admin, name).await?;
        Ok(!begun.is_empty())
    })
    .await?;
    let begun_after = killed.elapsed();
    let first = begun.first().context("it has begun")?.clone();
    let ended = ended_within(admin, &first, GIVEN_UP).await?;
    anyhow::ensure!(ended.outcome.is_some(), "it has not ended");
    let report = admin.promotion_report(&first).await?;
    let decided = report.tenants.into_iter().find(|tenant| tenant.tenant == name);
    let decided = decided.context("the report lacks the tenant")?;
    let epoch = Epoch::new(decided.epoch).context("there is no such epoch")?;
    until("another region accepts writes", async || {
        Ok(first_in(&loads.other.acknowledged_since(0).await, epoch).is_some())
    })
    .await?;
    Ok(TakenOver {
        promotions: promotions_by_policy(admin, name).await?.len(),
        begun_after,
        served_after: killed.elapsed(),
        decided,
        who: ended.who,
    })
}

/// Brings the tenant back by a failback, so that later steps find its home where it was.
async fn return_home(admin: &Admin, name: &str) -> anyhow::Result<()> {
    until("the tenant is home", async || {
        let back = admin.failback_region(HOME, BulkMoveOptions::default()).await;
        if let Ok(back) = back {
            ended_within(admin, &back.name, GIVEN_UP).await?;
        }
        Ok(admin.tenant(name).await?.home_region == HOME)
    })
    .await
}

/// Returns the names of the promotions of the tenant, which nobody but the policy has asked for.
async fn promotions_by_policy(admin: &Admin, name: &str) -> anyhow::Result<Vec<String>> {
    let operations = admin.operations(&OperationFilter::default()).await?;
    let mut found = Vec::new();
    for operation in operations.into_iter().filter(|operation| operation.promotion.is_some()) {
        let report = admin.promotion_report(&operation.name).await?;
        if report.tenants.iter().any(|tenant| tenant.tenant == name) {
            found.push(operation.name);
        }
    }
    Ok(found)
}
