//! Step: a tenant goes away and comes back under load, as if its region were lost, and what was measured is kept.

use std::time::Duration;

use anyhow::Context;
use stead_client::{BulkMoveOptions, LossWindow, OperationOutcome};
use stead_testing::moves::ended_within;
use tokio::time::sleep;

use super::{GIVEN_UP, HOME, Loads, OTHER, WARM_UP};
use crate::verbs::dev::{
    check::verdict::Verdict,
    world::{World, until},
};

/// Longest pause of writes that the directory may see: some of its commits, a trip between regions, and commits in two groups.
const PAUSE: Duration = Duration::from_millis(1_000);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-rehearse-{}", world.run);
    let (loads, _) = Loads::start(world, &name).await?;
    sleep(WARM_UP).await;
    let admin = world.client(OTHER).await?.admin();
    let mut begun = None;
    until("the rehearsal begins", async || {
        let options = BulkMoveOptions {
            reason: "checked".into(),
            ..BulkMoveOptions::default()
        };
        begun = Some(admin.rehearse_region(HOME, vec![name.clone()], None, options).await?);
        Ok(true)
    })
    .await?;
    let begun = begun.context("it has begun")?;
    let ended = ended_within(&admin, &begun.name, GIVEN_UP).await?;
    let is_done = matches!(ended.outcome, Some(OperationOutcome::TenantsMoved(1)));
    anyhow::ensure!(is_done, "{:?}", ended.outcome);
    let tenants = admin.bulk_move_tenants(&begun.name).await?;
    let found = tenants.into_iter().find(|tenant| tenant.tenant == name);
    let found = found.and_then(|tenant| tenant.rehearsal);
    let found = found.context("the operation lacks the tenant")?;
    sleep(WARM_UP).await;
    let writes = loads.finish().await?;
    let home = admin.tenant(&name).await?.home_region;
    let readiness = admin.readiness(Some(HOME)).await?;
    let shown = readiness
        .first()
        .map(|of| of.last_rehearsal.clone())
        .unwrap_or_default();
    let to = found.to.as_ref().map(|to| to.region.clone());
    let is_forecast = to.is_some_and(|to| to != HOME) && found.lag.is_some() && found.loss != LossWindow::None;
    Ok(Verdict::default()
        .time(
            "pause there",
            found.pause_there.context("no pause was measured")?,
            PAUSE,
        )
        .time("pause back", found.pause_back.context("no pause was measured")?, PAUSE)
        .none("lost", writes.missing().len())
        .none("twice", writes.home.twice + writes.other.twice)
        .none("tenants that are not home", usize::from(home != HOME || found.is_away))
        .none("forecasts that are missing", usize::from(!is_forecast))
        .none("rehearsals that readiness lacks", usize::from(shown != begun.name))
        .note(format!(
            "a promotion would have lost {}",
            found
                .loss
                .length()
                .map_or_else(|| "what is not known".into(), |length| format!("{length:.1?}"))
        )))
}
