//! Step: all nodes are killed at once under load. Every acknowledged write survives, and the routes too.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::REGIONS,
    world::{World, until},
};
use stead_testing::load::Load;

const PUTS_PER_SECOND: u32 = 100;
const WARM_UP: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(15);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let mut loads = Vec::new();
    for (home, _) in REGIONS {
        let tenant = world.tenant(&format!("check-{home}"), home, home).await?;
        loads.push(Load::start(tenant, format!("restart/{}", world.run), PUTS_PER_SECOND));
    }
    sleep(WARM_UP).await;
    let started = {
        let mut cluster = world.cluster.lock().await;
        cluster.kill_all().await;
        let started = Instant::now();
        cluster.start_all()?;
        started
    };
    let mut wrong_routes = 0;
    for (home, _) in REGIONS {
        let key = format!("restarted/{}", world.run);
        until(&format!("a write in {home}"), async || {
            let tenant = world.client(home).await?.tenant(&format!("check-{home}"))?;
            tenant.put(key.clone(), "v").await?;
            Ok(true)
        })
        .await?;
    }
    let serving = started.elapsed();
    for (from, _) in REGIONS {
        for (home, _) in REGIONS {
            let route = world
                .client(from)
                .await?
                .directory()
                .lookup(&format!("check-{home}"))
                .await?;
            wrong_routes += usize::from(route.home_region.as_str() != home);
        }
    }
    let (mut lost, mut twice, mut acknowledged) = (0, 0, 0);
    for load in loads {
        let report = load.finish().await?;
        lost += report.lost;
        twice += report.twice;
        acknowledged += report.acknowledged.len();
    }
    let verdict = Verdict::default()
        .time("serving after", serving, BUDGET)
        .none("lost", lost)
        .none("twice", twice);
    Ok(verdict
        .none("wrong routes", wrong_routes)
        .note(format!("{acknowledged} writes")))
}
