//! How long a write takes from its acknowledgement at home until the other regions show it, under load.
//!
//! It is seen from outside: the writer's token is handed to a reader in the other region at once, and its wait ends
//! when the write is applied there.

use std::time::Duration;

use anyhow::Context;
use stead_client::{Consistency, Read, Role, Tenant};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::verdict::Verdict;
use crate::verbs::dev::{
    load::{Load, percentile},
    plan::REGIONS,
    world::World,
};

const PUTS_PER_SECOND: u32 = 500;
/// Before anything is measured.
const RUN_UP: Duration = Duration::from_secs(2);
const SAMPLES: usize = 120;
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const BESIDE_THE_WAY: Duration = Duration::from_millis(20);

/// One home as one other region sees it.
struct Pair {
    name: String,
    half: Duration,
    home: Tenant,
    far: Tenant,
}

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let mut loads = Vec::new();
    let mut pairs = Vec::new();
    for (home, _) in REGIONS {
        let tenant = format!("check-{home}");
        let at_home = world.tenant(&tenant, home, home).await?;
        loads.push(Load::start(
            at_home.clone(),
            format!("lag/{}", world.run),
            PUTS_PER_SECOND,
        ));
        for (far, _) in REGIONS.iter().filter(|(far, _)| *far != home) {
            let half = world.cluster.lock().await.link(home, far)?.round_trip() / 2;
            let name = format!("{home} to {far}");
            pairs.push(Pair {
                name,
                half,
                home: at_home.clone(),
                far: world.tenant(&tenant, home, far).await?,
            });
        }
    }
    sleep(RUN_UP).await;
    let mut sampled = JoinSet::new();
    for (at, pair) in pairs.into_iter().enumerate() {
        sampled.spawn(sample(pair, format!("lag/{}/sample/{at}", world.run)));
    }
    let mut verdict = Verdict::default();
    let mut forwarded = 0;
    let mut lines = Vec::new();
    while let Some(pair) = sampled.join_next().await {
        let (name, half, p99, from_home) = pair??;
        forwarded += from_home;
        lines.push((name, half, p99));
    }
    lines.sort();
    for (name, half, p99) in lines {
        verdict = verdict.time(&name, p99, half + BESIDE_THE_WAY);
    }
    let (mut lost, mut errors) = (0, 0);
    for load in loads {
        let report = load.finish().await?;
        lost += report.lost;
        errors += report.errors.len();
    }
    Ok(verdict
        .none("lost", lost)
        .none("errors", errors)
        .none("reads answered by the home", forwarded))
}

/// Returns the 99th percentile, and how many reads were not answered by the follower.
async fn sample(pair: Pair, key: String) -> anyhow::Result<(String, Duration, Duration, usize)> {
    let mut taken = Vec::with_capacity(SAMPLES);
    let mut from_home = 0;
    for at in 0..SAMPLES {
        let written = pair.home.put(key.clone(), at.to_string()).await?;
        let acknowledged = Instant::now();
        let token = written.header.token.context("the answer to a put has no token")?;
        let got = pair
            .far
            .get_with(key.clone(), &Read::at(Consistency::Token(token)))
            .await?;
        taken.push(acknowledged.elapsed());
        from_home += usize::from(got.header.role == Role::Home);
        sleep(SAMPLE_EVERY).await;
    }
    Ok((pair.name, pair.half, percentile(&mut taken, 0.99), from_home))
}
