//! Step: a credit check is one round trip to the home, from its region and from another one.

use std::time::Duration;

use stead_client::{Increment, Tenant, WriteOptions};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const FAR: &str = "us-east";
const PER_SECOND: u32 = 500;
const SECONDS: u32 = 10;
const FAR_CHECKS: usize = 40;
const AT_HOME_P99: Duration = Duration::from_millis(20);
/// Credits: a few less than the requests, so that some are refused.
const GRANTED: i64 = (PER_SECOND * SECONDS) as i64 - 100;
const AFAR: Duration = Duration::from_millis(20);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let far = world.tenant("check-eu-west", HOME, FAR).await?;
    let round_trip = world.cluster.lock().await.link(HOME, FAR)?.round_trip();
    let key = format!("credits/{}", world.run);
    home.put(key.clone(), GRANTED.to_string()).await?;
    let (mut taken, admitted) = at_home(&home, &key).await?;
    let refilled = format!("{key}/far");
    far.put(refilled.clone(), FAR_CHECKS.to_string()).await?;
    let mut taken_far = Vec::new();
    for _ in 0..FAR_CHECKS {
        let asked = Instant::now();
        far.increment_with(refilled.clone(), one_less(), &WriteOptions::default())
            .await?;
        taken_far.push(asked.elapsed());
    }
    let wrong = (admitted - GRANTED).unsigned_abs() as usize;
    let p99 = percentile(&mut taken, 0.99);
    Ok(Verdict::default()
        .time("p99 at home, one key, 500 a second,", p99, AT_HOME_P99)
        .time("p50 from us-east", percentile(&mut taken_far, 0.5), round_trip + AFAR)
        .none("credits too many or too few", wrong)
        .note(format!("{admitted} of {} admitted", PER_SECOND * SECONDS)))
}

fn one_less() -> Increment {
    Increment {
        floor: Some(0),
        ..Increment::by(-1)
    }
}

/// Checks at a steady rate; returns the latencies, and the number of admitted checks.
async fn at_home(tenant: &Tenant, key: &str) -> anyhow::Result<(Vec<Duration>, i64)> {
    let mut ticks = interval(Duration::from_secs(1) / PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut checks = JoinSet::new();
    for _ in 0..PER_SECOND * SECONDS {
        ticks.tick().await;
        let (tenant, key) = (tenant.clone(), key.to_owned());
        checks.spawn(async move {
            let asked = Instant::now();
            let checked = tenant.increment_with(key, one_less(), &WriteOptions::default()).await?;
            anyhow::Ok((asked.elapsed(), checked.admitted))
        });
    }
    let (mut taken, mut admitted) = (Vec::new(), 0);
    while let Some(check) = checks.join_next().await {
        let (took, is_admitted) = check??;
        taken.push(took);
        admitted += i64::from(is_admitted);
    }
    Ok((taken, admitted))
}
