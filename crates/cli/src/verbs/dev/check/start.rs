//! Step: from the start of the processes to the first write accepted in each region.

use std::time::Duration;

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::REGIONS,
    world::{World, until},
};

const BUDGET: Duration = Duration::from_secs(10);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    for (region, _) in REGIONS {
        let key = format!("start/{}", world.run);
        until(&format!("a write in {region}"), async || {
            let tenant = world.tenant(&format!("check-{region}"), region, region).await?;
            tenant.put(key.clone(), "v").await?;
            Ok(true)
        })
        .await?;
    }
    Ok(Verdict::default().time(
        "first write in all three regions after",
        world.started.elapsed(),
        BUDGET,
    ))
}
