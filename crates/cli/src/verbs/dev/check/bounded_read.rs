//! Step: bounded reads. Within a bound above the round trip by the follower, below it by the home.

use std::time::Duration;

use stead_client::{Consistency, ReadOptions, Role};
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::world::World;
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const READS: usize = 100;
const READS_FAR: usize = 20;
/// A follower pings every 50 ms while bounded reads come: round trip, interval and a little.
const WIDE: Duration = Duration::from_millis(500);
const NARROW: Duration = Duration::from_millis(10);
const LOCAL: Duration = Duration::from_micros(1_500);
const FORWARDING: Duration = Duration::from_millis(20);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let us = world.tenant("check-eu-west", HOME, "us-east").await?;
    let round_trip = world.cluster.lock().await.link(HOME, "us-east")?.round_trip();
    let key = format!("bounded/{}", world.run);
    home.put(key.clone(), "v").await?;
    let wide = ReadOptions::at(Consistency::Bounded(WIDE));
    let (mut near, mut far) = (Vec::new(), Vec::new());
    let (mut too_stale, mut by_follower, mut not_home) = (0, 0, 0);
    for at in 0..READS + READS / 10 {
        let asked = Instant::now();
        let got = us.get_with(key.clone(), &wide).await?;
        // The first reads make the follower measure more often.
        if at >= READS / 10 {
            near.push(asked.elapsed());
            too_stale += usize::from(got.header.staleness.is_none_or(|staleness| staleness > WIDE));
            by_follower += usize::from(got.header.role == Role::Follower);
        }
    }
    for _ in 0..READS_FAR {
        let asked = Instant::now();
        let got = us
            .get_with(key.clone(), &ReadOptions::at(Consistency::Bounded(NARROW)))
            .await?;
        far.push(asked.elapsed());
        not_home += usize::from(got.header.role != Role::Home);
    }
    let verdict = Verdict::default()
        .time("p50 within 500 ms", percentile(&mut near, 0.5), LOCAL)
        .time("p50 within 10 ms", percentile(&mut far, 0.5), round_trip + FORWARDING);
    let verdict = verdict
        .none("beyond the bound", too_stale)
        .none("narrow ones not from home", not_home);
    Ok(verdict.note(format!("{by_follower} of {READS} by the follower")))
}
