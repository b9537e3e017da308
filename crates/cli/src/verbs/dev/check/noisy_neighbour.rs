//! Step: noisy neighbour. One tenant floods its home; the latency of a quiet tenant of the same group is measured.

use std::time::Duration;

use stead_client::{Tenant, TenantLimit, WriteOptions};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const QUIET_PER_SECOND: u32 = 200;
const MEASURED: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);
/// Callers that call again as soon as they get a response.
const FLOODING: usize = 128;
/// Limit of the flooding tenant; it tries many times that.
const FLOOD_PER_SECOND: u64 = 500;
/// Most factor by which the quiet tenant's p99 may grow.
const TIMES_MAX: f64 = 2.0;

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let quiet = world.tenant("check-eu-west", HOME, HOME).await?;
    let loud = world
        .limited_tenant(
            "check-flood",
            HOME,
            &[(TenantLimit::OperationsPerSecond, FLOOD_PER_SECOND)],
        )
        .await?;
    let prefix = format!("quiet/{}", world.run);
    puts(&quiet, &format!("{prefix}/warm"), WARM_UP).await?;
    let mut alone = puts(&quiet, &format!("{prefix}/alone"), MEASURED).await?;
    let (stop, stopped) = watch::channel(false);
    let mut flood = JoinSet::new();
    for caller in 0..FLOODING {
        flood.spawn(fill(
            loud.clone(),
            format!("flood/{}/{caller}", world.run),
            stopped.clone(),
        ));
    }
    puts(&quiet, &format!("{prefix}/warm"), WARM_UP).await?;
    let beside = puts(&quiet, &format!("{prefix}/beside"), MEASURED).await;
    let _ = stop.send(true);
    let (mut admitted, mut refused) = (0, 0);
    while let Some(filled) = flood.join_next().await {
        let (done, not) = filled?;
        admitted += done;
        refused += not;
    }
    let mut beside = beside?;
    let (before, after) = (percentile(&mut alone, 0.99), percentile(&mut beside, 0.99));
    let times = after.as_secs_f64() / before.as_secs_f64().max(1e-6);
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Verdict::default()
        .number("quiet p99 beside the flood", times, TIMES_MAX, "times that alone")
        .note(format!(
            "{:.1} ms alone, {:.1} ms beside it",
            millis(before),
            millis(after)
        ))
        .note(format!("flood: {admitted} done, {refused} given up by their callers")))
}

/// Writes at a steady rate for a time, and returns the latencies.
async fn puts(tenant: &Tenant, prefix: &str, length: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = interval(Duration::from_secs(1) / QUIET_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (end, mut writes) = (Instant::now() + length, JoinSet::new());
    while Instant::now() < end {
        ticks.tick().await;
        let (tenant, key) = (tenant.clone(), format!("{prefix}/{}", writes.len() % 1_000));
        writes.spawn(async move {
            let asked = Instant::now();
            tenant.put(key, "v").await?;
            anyhow::Ok(asked.elapsed())
        });
    }
    let mut taken = Vec::with_capacity(writes.len());
    while let Some(took) = writes.join_next().await {
        taken.push(took??);
    }
    Ok(taken)
}

/// Writes as fast as possible; returns the numbers of writes that succeeded, and that failed within a second.
async fn fill(tenant: Tenant, key: String, stopped: watch::Receiver<bool>) -> (usize, usize) {
    let write = WriteOptions {
        timeout: Some(Duration::from_secs(1)),
        ..WriteOptions::default()
    };
    let (mut done, mut refused) = (0, 0);
    while !*stopped.borrow() {
        match tenant.put_with(key.clone(), vec![0; 1_000], &write).await {
            Ok(_) => done += 1,
            Err(_) => refused += 1,
        }
    }
    (done, refused)
}
