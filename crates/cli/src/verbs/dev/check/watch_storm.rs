//! Step: watch storm. 500 watches that resume 60 MiB behind share their reading: they are at the head soon, while writes go
//! on at their latency.

use std::time::Duration;

use anyhow::Context;
use stead_client::{KeyRange, Revision, Tenant, WatchFrom, WatchOptions, Watcher};
use stead_testing::load::percentile;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const HOME: &str = "eu-west";
const WATCHES: usize = 500;
const BEHIND_KEYS: usize = 60_000;
const VALUE_LEN: usize = 1_000;
const WRITERS: usize = 64;
const PUTS_PER_SECOND: u32 = 500;
const ALONE: Duration = Duration::from_secs(5);
/// Time for all watches to be at the head.
const AT_HEAD: Duration = Duration::from_secs(10);
/// Time after which a watch that is not there is given up.
const GIVEN_UP: Duration = Duration::from_secs(60);
const TIMES_MAX: f64 = 3.0;

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-storm", HOME, HOME).await?;
    let prefix = format!("storm/{}", world.run);
    let begun = tenant.put(format!("{prefix}/begin"), "v").await?;
    let token = begun.header.token.context("a put has a session token")?;
    fill(&tenant, &prefix).await?;
    let mut alone = puts(&tenant, &prefix, ALONE).await?;
    let target = tenant.put(format!("{prefix}/end"), "v").await?.header.revision;

    let began = Instant::now();
    let mut watches = JoinSet::new();
    for watch in 0..WATCHES {
        let options = WatchOptions {
            ranges: vec![KeyRange::prefix(format!("{prefix}/{watch:03}/"))],
            from: WatchFrom::Token(token),
            ..WatchOptions::default()
        };
        let tenant = tenant.clone();
        watches.spawn(async move {
            let at_head = timeout(GIVEN_UP, async { reach(tenant.watch(options).await?, target).await });
            anyhow::Ok(
                at_head
                    .await
                    .is_ok_and(|reached| reached.is_ok())
                    .then(|| began.elapsed()),
            )
        });
    }
    let mut beside = puts(&tenant, &prefix, AT_HEAD).await?;
    let (mut last, mut missing) = (Duration::ZERO, 0);
    while let Some(reached) = watches.join_next().await {
        match reached?? {
            Some(took) => last = last.max(took),
            None => missing += 1,
        }
    }
    let (before, after) = (percentile(&mut alone, 0.99), percentile(&mut beside, 0.99));
    let times = after.as_secs_f64() / before.as_secs_f64().max(1e-6);
    Ok(Verdict::default()
        .none("watches that did not get there", missing)
        .time("all at the head", last, AT_HEAD)
        .number("p99 of puts beside them", times, TIMES_MAX, "times that alone")
        .note(format!(
            "{WATCHES} watches, {} MiB behind",
            (BEHIND_KEYS * VALUE_LEN) >> 20
        )))
}

/// Writes what the watches lack, equal parts of it in the range of each.
async fn fill(tenant: &Tenant, prefix: &str) -> anyhow::Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (tenant, prefix) = (tenant.clone(), prefix.to_owned());
        writers.spawn(async move {
            for at in (writer..BEHIND_KEYS).step_by(WRITERS) {
                let key = format!("{prefix}/{:03}/{}", at % WATCHES, at / WATCHES);
                tenant.put(key, vec![b'v'; VALUE_LEN]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(wrote) = writers.join_next().await {
        wrote??;
    }
    Ok(())
}

/// Reads a watch until it has reached a revision.
async fn reach(mut watch: Watcher, target: Revision) -> anyhow::Result<()> {
    while watch.header().is_none_or(|header| header.revision < target) {
        watch.next().await?;
    }
    Ok(())
}

/// Writes at a steady rate for a time, in the ranges of the watches in turn; returns the latencies.
async fn puts(tenant: &Tenant, prefix: &str, lasts: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = interval(Duration::from_secs(1) / PUTS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (end, mut writes) = (Instant::now() + lasts, JoinSet::new());
    while Instant::now() < end {
        ticks.tick().await;
        let key = format!("{prefix}/{:03}/live", writes.len() % WATCHES);
        let tenant = tenant.clone();
        writes.spawn(async move {
            let asked = Instant::now();
            tenant.put(key, "v").await?;
            anyhow::Ok(asked.elapsed())
        });
    }
    let mut took = Vec::with_capacity(writes.len());
    while let Some(wrote) = writes.join_next().await {
        took.push(wrote??);
    }
    Ok(took)
}
