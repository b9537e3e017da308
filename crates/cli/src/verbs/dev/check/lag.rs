//! Step: replication lag, the time from a write's acknowledgement at home until the other regions show it, under load.
//!
//! It is measured from outside: the token of one write in ten is used by a reader in each other region at once, and the
//! reader's wait ends when the write is applied there.

use std::time::Duration;

use anyhow::Context;
use stead_client::{Consistency, ReadOptions, Role, Tenant};
use tokio::{
    sync::broadcast,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::verdict::Verdict;
use crate::verbs::dev::{plan::REGIONS, world::World};
use stead_testing::load::{Load, Sample, percentile};

const PUTS_PER_SECOND: u32 = 500;
/// Time before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longer than the interval between two checkpoints, so that some fall into it.
const MEASURED: Duration = Duration::from_secs(35);
const BESIDE_THE_WAY: Duration = Duration::from_millis(20);

/// Pair of a home and one other region.
struct Pair {
    name: String,
    half: Duration,
    far: Tenant,
    writes: broadcast::Receiver<Sample>,
}

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let mut loads = Vec::new();
    for (home, _) in REGIONS {
        let at_home = world.tenant(&format!("check-{home}"), home, home).await?;
        let load = Load::start(at_home, format!("lag/{}", world.run), PUTS_PER_SECOND);
        loads.push((home, load));
    }
    sleep(WARM_UP).await;
    let mut measured = JoinSet::new();
    for (home, load) in &loads {
        for (far, _) in REGIONS.iter().filter(|(far, _)| far != home) {
            let half = world.cluster.lock().await.link(home, far)?.round_trip() / 2;
            let pair = Pair {
                name: format!("{home} to {far}"),
                half,
                far: world.tenant(&format!("check-{home}"), home, far).await?,
                writes: load.samples().await,
            };
            measured.spawn(lags(pair, Instant::now() + MEASURED));
        }
    }
    let mut forwarded = 0;
    let mut lines = Vec::new();
    while let Some(pair) = measured.join_next().await {
        let (name, half, mut lags, from_home) = pair??;
        forwarded += from_home;
        lines.push((name, half, percentile(&mut lags, 0.99)));
    }
    lines.sort();
    let mut verdict = Verdict::default();
    for (name, half, p99) in lines {
        verdict = verdict.time(&name, p99, half + BESIDE_THE_WAY);
    }
    let (mut lost, mut errors) = (0, 0);
    for (_, load) in loads {
        let report = load.finish().await?;
        lost += report.lost;
        errors += report.errors.len();
    }
    Ok(verdict
        .none("lost", lost)
        .none("errors", errors)
        .none("reads answered by the home", forwarded))
}

/// Returns the lag of each sample, and the number of reads that were not served by the follower.
async fn lags(mut pair: Pair, until: Instant) -> anyhow::Result<(String, Duration, Vec<Duration>, usize)> {
    let mut reads = JoinSet::new();
    while let Ok(write) = timeout_at(until, pair.writes.recv()).await {
        let write = write.context("the readers cannot follow the load")?;
        reads.spawn(lag(pair.far.clone(), write));
    }
    let mut lags = Vec::new();
    let mut from_home = 0;
    while let Some(read) = reads.join_next().await {
        let (lag, role) = read??;
        lags.push(lag);
        from_home += usize::from(role == Role::Home);
    }
    Ok((pair.name, pair.half, lags, from_home))
}

async fn lag(far: Tenant, write: Sample) -> anyhow::Result<(Duration, Role)> {
    let read = ReadOptions::at(Consistency::Token(write.token));
    let got = far.get_with(write.key, &read).await?;
    Ok((write.acknowledged.elapsed(), got.header.role))
}
