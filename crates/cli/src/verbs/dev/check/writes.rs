//! Steps: puts at home, and puts that another region's node forwards.

use std::time::Duration;

use stead_client::Tenant;
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::{plan::REGIONS, world::World};
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const PUTS: usize = 300;
const PUTS_CUT_OFF: usize = 50;
const PUTS_FORWARDED: usize = 40;
const AT_HOME: Duration = Duration::from_micros(1_500);
/// Most time of the forwarding beside the round trip.
const FORWARDING: Duration = Duration::from_millis(20);

pub(super) async fn at_home(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let prefix = format!("home/{}", world.run);
    puts(&tenant, &format!("{prefix}/warm"), PUTS / 10).await?;
    let mut taken = puts(&tenant, &prefix, PUTS).await?;
    // Only the home is on a write's way: it is as fast when the home cannot reach other regions.
    cut(world, true).await?;
    let alone = puts(&tenant, &format!("{prefix}/alone"), PUTS_CUT_OFF).await;
    cut(world, false).await?;
    let mut alone = alone?;
    let (p50, p99) = (percentile(&mut taken, 0.5), percentile(&mut taken, 0.99));
    let verdict = Verdict::default()
        .time("p50", p50, AT_HOME)
        .note(format!("p99 {:.1} ms", p99.as_secs_f64() * 1e3));
    Ok(verdict.time("p50 cut off from the others", percentile(&mut alone, 0.5), AT_HOME))
}

pub(super) async fn forwarded(world: &mut World) -> anyhow::Result<Verdict> {
    world.tenant("check-eu-west", HOME, HOME).await?;
    let round_trip = world.cluster.lock().await.link("us-east", HOME)?.round_trip();
    let tenant = world.nearest_only_client("us-east").await?.tenant("check-eu-west")?;
    let prefix = format!("forwarded/{}", world.run);
    puts(&tenant, &format!("{prefix}/warm"), 3).await?;
    let mut handed_on = 0;
    let mut taken = Vec::new();
    for at in 0..PUTS_FORWARDED {
        let asked = Instant::now();
        let written = tenant.put(format!("{prefix}/{at}"), "v").await?;
        taken.push(asked.elapsed());
        handed_on += usize::from(written.header.forwarded);
    }
    let p50 = percentile(&mut taken, 0.5);
    let verdict = Verdict::default().time("p50", p50, round_trip + FORWARDING);
    Ok(verdict.none("not handed on", PUTS_FORWARDED - handed_on))
}

async fn puts(tenant: &Tenant, prefix: &str, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut taken = Vec::with_capacity(count);
    for at in 0..count {
        let asked = Instant::now();
        tenant.put(format!("{prefix}/{at}"), "v").await?;
        taken.push(asked.elapsed());
    }
    Ok(taken)
}

/// Cuts the home off, or heals its links.
async fn cut(world: &World, cut: bool) -> anyhow::Result<()> {
    let cluster = world.cluster.lock().await;
    for (region, _) in REGIONS.iter().filter(|(region, _)| *region != HOME) {
        let link = cluster.link(HOME, region)?;
        if cut { link.cut() } else { link.heal() }
    }
    Ok(())
}
