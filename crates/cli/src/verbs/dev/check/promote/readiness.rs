//! Step: what a promotion would do if a region were lost is shown at any time, is what the dry run says once it is, and is a
//! metric.

use std::time::Duration;

use anyhow::Context;
use stead_client::{Admin, LossWindow, PlannedPromotion};
use tokio::time::Instant;

use super::{HOME, OTHER};
use crate::verbs::dev::{
    check::verdict::Verdict,
    plan::REGIONS,
    world::{World, until},
};

/// Longest time of the answer: each group is asked once.
const ANSWER: Duration = Duration::from_secs(1);
/// Interval of the checks by the directory's leader, and the time that one takes.
const CHECKED_WITHIN: Duration = Duration::from_secs(75);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-ready-{}", world.run);
    let tenant = world.tenant(&name, HOME, OTHER).await?;
    until("the tenant takes writes", async || {
        tenant.put("first", "v").await?;
        Ok(true)
    })
    .await?;
    let admin = world.client(OTHER).await?.admin();
    until("a follower's copy can be chosen", async || {
        Ok(item(&admin, &name).await?.to.is_some())
    })
    .await?;
    let asked = Instant::now();
    let found = item(&admin, &name).await?;
    let took = asked.elapsed();
    let to = found.to.as_ref().map(|to| to.region.clone()).unwrap_or_default();
    let of_home = found.copies.iter().filter(|copy| {
        let region = copy.place.as_ref().map(|place| place.region.as_str());
        region == Some(HOME) && !copy.silent
    });
    let window = match &found.loss {
        LossWindow::None => 0,
        window => window
            .length()
            .map_or(1, |length| usize::from(length < Duration::from_secs(1))),
    };
    let from = Instant::now();
    metric_is_there(world).await?;
    Ok(Verdict::default()
        .time("answer", took, ANSWER)
        .time("metric", from.elapsed(), CHECKED_WITHIN)
        .none("tenants blocked", usize::from(!found.blocker.is_empty()))
        .none("new homes in the region itself", usize::from(to == HOME))
        .none("copies counted of the region itself", of_home.count())
        .none("windows that are unknown or end before a lease", window)
        .note(format!("to {to}")))
}

/// Returns the readiness of the tenant.
async fn item(admin: &Admin, name: &str) -> anyhow::Result<PlannedPromotion> {
    let found = admin.readiness(Some(HOME)).await?;
    let of_region = found.into_iter().next().context("there is no answer")?;
    let mut items = of_region.items.into_iter();
    items
        .find(|item| item.tenant == name)
        .context("the answer lacks the tenant")
}

/// Waits until the directory's leader shows the region's readiness as a metric.
async fn metric_is_there(world: &World) -> anyhow::Result<()> {
    let nodes = world.cluster.lock().await.nodes().to_vec();
    let line = format!("stead_readiness_check_time_seconds{{region=\"{HOME}\"}}");
    anyhow::ensure!(REGIONS.iter().any(|(region, _)| *region == HOME), "no such region");
    until("a node shows the metric", async || {
        for node in &nodes {
            if node.metrics().await?.contains(&line) {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}
