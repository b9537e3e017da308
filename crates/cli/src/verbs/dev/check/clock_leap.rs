//! Step: the wall clock of a leader leaps two hours ahead and an hour behind while it runs. No key expires early, none
//! stays, and the status names the wrong clock.

use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use stead_client::{ScanOptions, Tenant, WriteOptions, recipes::Lock};
use stead_testing::cluster::{Node, SkewDirection};
use tokio::time::{Instant, sleep};

use super::verdict::Verdict;
use crate::verbs::{
    dev::world::{World, until},
    region,
};

const HOME: &str = "eu-west";
const KEYS: usize = 1_000;
const IN_FLIGHT: usize = 32;
const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_secs(2);
const LOCK: Duration = Duration::from_secs(10);
/// Distance and direction of the leaps.
const LEAPS: [(Duration, SkewDirection); 2] = [
    (Duration::from_secs(7_200), SkewDirection::Ahead),
    (Duration::from_secs(3_600), SkewDirection::Behind),
];
/// Duration of a leap.
const WRONG: Duration = Duration::from_secs(5);
/// Allowed delay of an expiry: a tenth of the time to live that logged time may be slower, a check every 50 ms, and a
/// commit.
const LATE: Duration = Duration::from_millis(400);
/// Allowed earliness of an expiry by this program's clock: a tenth of the time to live that logged time may be faster.
const EARLY: Duration = Duration::from_millis(200);
const REPORTED_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let prefix = format!("clock/{}", world.run);
    put_all(&home, &prefix).await?;
    let lock = Lock::new(&home, format!("{prefix}/lock"), LOCK)?.acquire().await?;
    let mut verdict = Verdict::default();
    let mut early = 0;
    for (by, way) in LEAPS {
        let name = world.leader(&home).await?;
        let nodes = world.cluster.lock().await.nodes().to_vec();
        let node = nodes.into_iter().find(|node| node.name == name).context("a node")?;
        let set = Instant::now();
        world.cluster.lock().await.set_clock(&name, by, way)?;
        until("the wrong clock is reported", async || {
            is_reported(world, &node, by).await
        })
        .await?;
        let reported = set.elapsed();
        home.put(format!("{prefix}/put"), "v").await?;
        let lived = lifetime(&home, &format!("{prefix}/short")).await?;
        early += usize::from(lived.is_early());
        sleep(WRONG.saturating_sub(set.elapsed())).await;
        world
            .cluster
            .lock()
            .await
            .set_clock(&name, Duration::ZERO, SkewDirection::Ahead)?;
        let again = lifetime(&home, &format!("{prefix}/again")).await?;
        early += usize::from(again.is_early());
        until("the region is well again", async || is_well(world).await).await?;
        let word = if way == SkewDirection::Ahead { "ahead" } else { "behind" };
        verdict = verdict
            .time(&format!("reported when {word}"), reported, REPORTED_WITHIN)
            .time("late", lived.least.max(again.least).saturating_sub(SHORT), LATE);
    }
    let lost = KEYS.saturating_sub(count(&home, &prefix).await?);
    let locks = usize::from(lock.is_lost());
    lock.release().await?;
    let verdict = verdict.none("too early", early).none("keys for an hour lost", lost);
    Ok(verdict.none("locks lost", locks))
}

async fn put_all(home: &Tenant, prefix: &str) -> anyhow::Result<()> {
    let put = async |at: usize| {
        let key = format!("{prefix}/long/{at}");
        home.put_expiring(key, "v", LONG, &WriteOptions::default())
            .await
            .map(drop)
    };
    let puts = stream::iter(0..KEYS).map(put).buffer_unordered(IN_FLIGHT);
    Ok(puts.try_collect().await?)
}

async fn count(home: &Tenant, prefix: &str) -> anyhow::Result<usize> {
    let mut keys = home.scan_stream(&ScanOptions {
        prefix: format!("{prefix}/long/").into(),
        keys_only: true,
        ..ScanOptions::default()
    });
    let mut count = 0;
    while keys.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Time for which a key was there. The put took effect between its call and its answer.
struct Lifetime {
    /// From the answer.
    least: Duration,
    /// From the call.
    most: Duration,
}

impl Lifetime {
    fn is_early(&self) -> bool {
        self.most + EARLY < SHORT
    }
}

/// Puts a key for [`SHORT`] and returns the time until it has expired.
async fn lifetime(home: &Tenant, key: &str) -> anyhow::Result<Lifetime> {
    let called = Instant::now();
    home.put_expiring(key.to_owned(), "v", SHORT, &WriteOptions::default())
        .await?;
    let put = Instant::now();
    until("a key ends", async || {
        Ok(home.get(key.to_owned()).await?.item.is_none())
    })
    .await?;
    Ok(Lifetime {
        least: put.elapsed(),
        most: called.elapsed(),
    })
}

/// Tells whether the node's wrong clock is reported: by the region's status, and by the leader's metrics.
async fn is_reported(world: &mut World, node: &Node, by: Duration) -> anyhow::Result<bool> {
    let metrics = node.metrics().await?;
    let ahead = metrics
        .lines()
        .filter(|line| line.starts_with("stead_clock_ahead_seconds{"));
    let ahead = ahead.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    let is_counted = ahead.map(f64::abs).any(|ahead| ahead > by.as_secs_f64() * 0.9);
    Ok(is_counted && reports_clock(world).await?)
}

async fn is_well(world: &mut World) -> anyhow::Result<bool> {
    Ok(!reports_clock(world).await?)
}

async fn reports_clock(world: &mut World) -> anyhow::Result<bool> {
    let status = world.client(HOME).await?.admin().region(HOME).await?;
    Ok(region::health_problem(&status).is_some_and(|why| why.contains("wall clock of node")))
}
