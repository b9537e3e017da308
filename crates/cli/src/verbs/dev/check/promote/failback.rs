//! Step: tenants that a promotion has taken return to their region under load, in one operation, and lose nothing.

use std::time::Duration;

use anyhow::Context;
use stead_client::{BulkMoveOptions, OperationOutcome, PromotionRequest, PromotionSelection};
use stead_testing::{moves::ended_within, promotions::promote};
use tokio::time::sleep;

use super::{GIVEN_UP, HOME, Loads, OTHER, TAKE_OVER, WARM_UP, follows};
use crate::verbs::dev::{
    check::verdict::Verdict,
    world::{World, until},
};

/// Longest time of the return of one tenant that has caught up.
const RETURN: Duration = Duration::from_secs(3);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-failback-{}", world.run);
    let (loads, tenant) = Loads::start(world, &name).await?;
    sleep(WARM_UP).await;
    let admin = world.client(OTHER).await?.admin();
    // The home confirms that it serves no more, so that no lease is waited for.
    let request = PromotionRequest {
        even_if_healthy: true,
        reason: "checked".into(),
        ..PromotionRequest::new(PromotionSelection::Tenants(vec![name.clone()]))
    };
    let promotion = promote(&admin, request, GIVEN_UP).await?;
    let longest = promotion.longest().context("nothing was promoted")?;
    follows(world, &tenant, HOME).await.context("before the failback")?;
    let mut planned = None;
    until("a dry run answers", async || {
        let options = BulkMoveOptions {
            dry_run: true,
            ..BulkMoveOptions::default()
        };
        planned = admin.failback_region(HOME, options).await?.bulk_plan;
        Ok(planned.as_ref().is_some_and(|plan| plan.tenants > 0))
    })
    .await?;
    let planned = planned.context("there is a plan")?;
    let is_planned = planned
        .moves
        .iter()
        .any(|one| one.tenant == name && one.to_region == HOME);
    let begun_at = tokio::time::Instant::now();
    let begun = admin.failback_region(HOME, BulkMoveOptions::default()).await?;
    let ended = ended_within(&admin, &begun.name, GIVEN_UP).await?;
    let took = begun_at.elapsed();
    let is_done = matches!(ended.outcome, Some(OperationOutcome::TenantsMoved(_)));
    anyhow::ensure!(is_done, "{:?}", ended.outcome);
    let home = admin.tenant(&name).await?.home_region;
    sleep(WARM_UP).await;
    let writes = loads.finish().await?;
    Ok(Verdict::default()
        .time("fence to new home", longest, TAKE_OVER)
        .time("failback", took, RETURN)
        .none("tenants that are not home", usize::from(home != HOME))
        .none("tenants that the plan lacks", usize::from(!is_planned))
        .none("bytes copied anew", usize::try_from(planned.copy_bytes.unwrap_or(1))?)
        .none("lost", writes.missing().len())
        .none("twice", writes.home.twice + writes.other.twice)
        .note(format!(
            "{} of {} writes",
            writes.acknowledged().len(),
            planned.selection
        )))
}
