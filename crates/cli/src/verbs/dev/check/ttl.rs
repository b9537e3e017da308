//! Keys with an end go soon after it, never before it, also when the leader that would have removed them has died.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use stead_client::{EventKind, KeyRange, Tenant, Told, Watch, Watcher, Write};
use tokio::time::{Instant, timeout};

use super::verdict::Verdict;
use crate::verbs::dev::{
    load::percentile,
    world::{PATIENCE, World},
};

const HOME: &str = "eu-west";
const KEYS: usize = 1_000;
const TTL: Duration = Duration::from_secs(2);
/// A look every 50 ms, and a commit.
const LATE: Duration = Duration::from_millis(150);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let ap = world.tenant("check-eu-west", HOME, "ap-south").await?;
    let half = world.cluster.lock().await.link(HOME, "ap-south")?.round_trip() / 2;
    let (early, mut late) = expiries(&home, &home, &format!("ttl/{}/home", world.run)).await?;
    let (early_far, mut late_far) = expiries(&home, &ap, &format!("ttl/{}/far", world.run)).await?;
    let survived = over_a_death(world, &home).await?;
    Ok(Verdict::default()
        .time("p99 late at home", percentile(&mut late, 0.99), LATE)
        .time("p99 late in ap-south", percentile(&mut late_far, 0.99), LATE + half)
        .none("too early", early + early_far)
        .none("left after the leader's death", survived))
}

/// Puts keys with an end, and returns how many went too early, and how late each was seen to go from a region.
async fn expiries(home: &Tenant, seen_from: &Tenant, prefix: &str) -> anyhow::Result<(usize, Vec<Duration>)> {
    let watch = Watch {
        ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
        exclude: vec![EventKind::Put],
        ..Watch::default()
    };
    let watcher = seen_from.watch(watch).await?;
    let seen = tokio::spawn(see(watcher));
    let mut due = BTreeMap::new();
    for at in 0..KEYS {
        let key = format!("{prefix}/{at}");
        let put = home.put_expiring(key.clone(), "v", TTL, &Write::default()).await?;
        // The answer came after the entry's time was taken.
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

/// Returns all keys that go, with the tenant's time and this clock's when they are seen to have gone.
async fn see(mut watcher: Watcher) -> anyhow::Result<Vec<(String, u64, Instant)>> {
    let mut seen = Vec::with_capacity(KEYS);
    while seen.len() < KEYS {
        let gone = gone(&mut watcher).await?;
        let now = Instant::now();
        seen.extend(gone.into_iter().map(|(key, time)| (key, time, now)));
    }
    Ok(seen)
}

/// Waits for keys that expire; with each the tenant's time at which that was told.
async fn gone(watcher: &mut Watcher) -> anyhow::Result<Vec<(String, u64)>> {
    let told = timeout(PATIENCE, watcher.next()).await??;
    let Told::Changes(events) = told else {
        return Ok(Vec::new());
    };
    let time = watcher.header().map_or(0, |header| header.tenant_time.0);
    let expired = events.iter().filter(|event| event.kind == EventKind::Expire);
    expired
        .map(|event| Ok((String::from_utf8(event.item.key.to_vec())?, time)))
        .collect()
}

/// Returns how many keys are left whose time was over while there was no leader.
async fn over_a_death(world: &World, home: &Tenant) -> anyhow::Result<usize> {
    let prefix = format!("ttl/{}/death", world.run);
    let watch = Watch {
        ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
        exclude: vec![EventKind::Put],
        ..Watch::default()
    };
    let mut watcher = home.watch(watch).await?;
    let short = Duration::from_millis(300);
    let count = 20;
    for at in 0..count {
        home.put_expiring(format!("{prefix}/{at}"), "v", short, &Write::default())
            .await?;
    }
    let leader = world.leader(home).await?;
    world.cluster.lock().await.kill_node(&leader).await?;
    let mut seen = 0;
    let deadline = Instant::now() + PATIENCE;
    while seen < count && Instant::now() < deadline {
        seen += gone(&mut watcher).await?.len();
    }
    world.cluster.lock().await.start_node(&leader)?;
    world.ready().await?;
    Ok(count - seen)
}
