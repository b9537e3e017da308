//! Step: keys with a time to live expire soon after it, never before it, also when the leader has died that would have
//! deleted them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use stead_client::{EventKind, KeyRange, Tenant, WatchMessage, WatchOptions, Watcher, WriteOptions};
use tokio::time::{Instant, timeout};

use super::verdict::Verdict;
use crate::verbs::dev::world::{WAIT_TIMEOUT, World};
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const KEYS: usize = 1_000;
const TTL: Duration = Duration::from_secs(2);
/// A check every 50 ms, and a commit.
const LATE: Duration = Duration::from_millis(150);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let ap = world.tenant("check-eu-west", HOME, "ap-south").await?;
    let half = world.cluster.lock().await.link(HOME, "ap-south")?.round_trip() / 2;
    let (early, mut late) = expiries(&home, &home, &format!("ttl/{}/home", world.run)).await?;
    let (early_far, mut late_far) = expiries(&home, &ap, &format!("ttl/{}/far", world.run)).await?;
    let survived = expire_over_leader_kill(world, &home).await?;
    Ok(Verdict::default()
        .time("p99 late at home", percentile(&mut late, 0.99), LATE)
        .time("p99 late in ap-south", percentile(&mut late_far, 0.99), LATE + half)
        .none("too early", early + early_far)
        .none("left after the leader's death", survived))
}

/// Puts expiring keys, and returns the number that expired too early, and the delays of the others as seen from a
/// region.
async fn expiries(home: &Tenant, seen_from: &Tenant, prefix: &str) -> anyhow::Result<(usize, Vec<Duration>)> {
    let watch = WatchOptions {
        ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
        exclude: vec![EventKind::Put],
        ..WatchOptions::default()
    };
    let watcher = seen_from.watch(watch).await?;
    let seen = tokio::spawn(collect_expired(watcher));
    let mut due = BTreeMap::new();
    for at in 0..KEYS {
        let key = format!("{prefix}/{at}");
        let put = home
            .put_expiring(key.clone(), "v", TTL, &WriteOptions::default())
            .await?;
        // The response came after the time of the log entry was taken.
        due.insert(
            key,
            (put.header.tenant_time.0 + TTL.as_millis() as u64, Instant::now() + TTL),
        );
    }
    let (mut early, mut late) = (0, Vec::with_capacity(KEYS));
    for (key, tenant_time, seen) in seen.await?? {
        let (expires, at) = due.get(&key).context("a key went that was not put")?;
        early += usize::from(tenant_time < *expires);
        late.push(seen.saturating_duration_since(*at));
    }
    Ok((early, late))
}

/// Collects all expired keys, with the tenant's time and this clock's when their expiry was reported.
async fn collect_expired(mut watcher: Watcher) -> anyhow::Result<Vec<(String, u64, Instant)>> {
    let mut seen = Vec::with_capacity(KEYS);
    while seen.len() < KEYS {
        let gone = next_expired(&mut watcher).await?;
        let now = Instant::now();
        seen.extend(gone.into_iter().map(|(key, time)| (key, time, now)));
    }
    Ok(seen)
}

/// Waits for expired keys; returns each with the tenant's time at which its expiry was reported.
async fn next_expired(watcher: &mut Watcher) -> anyhow::Result<Vec<(String, u64)>> {
    let message = timeout(WAIT_TIMEOUT, watcher.next()).await??;
    let WatchMessage::Changes(events) = message else {
        return Ok(Vec::new());
    };
    let time = watcher.header().map_or(0, |header| header.tenant_time.0);
    let expired = events.iter().filter(|event| event.kind == EventKind::Expire);
    expired
        .map(|event| Ok((String::from_utf8(event.item.key.to_vec())?, time)))
        .collect()
}

/// Returns the number of keys that are left after they expired while there was no leader.
async fn expire_over_leader_kill(world: &World, home: &Tenant) -> anyhow::Result<usize> {
    let prefix = format!("ttl/{}/death", world.run);
    let watch = WatchOptions {
        ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
        exclude: vec![EventKind::Put],
        ..WatchOptions::default()
    };
    let mut watcher = home.watch(watch).await?;
    let short = Duration::from_millis(300);
    let count = 20;
    for at in 0..count {
        home.put_expiring(format!("{prefix}/{at}"), "v", short, &WriteOptions::default())
            .await?;
    }
    let leader = world.leader(home).await?;
    world.cluster.lock().await.kill_node(&leader).await?;
    let mut seen = 0;
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while seen < count && Instant::now() < deadline {
        seen += next_expired(&mut watcher).await?.len();
    }
    world.cluster.lock().await.start_node(&leader)?;
    world.ready().await?;
    Ok(count - seen)
}
