//! Step: queue head. The first key of a queue is found in the same time however many keys were removed before it, and a
//! page has a key if there is one.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{KeyRange, ScanOptions, Tenant};
use tokio::{task::JoinSet, time::Instant};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
/// Keys that are removed before the only one that is left.
const REMOVED: usize = 60_000;
const WRITERS: usize = 64;
/// Keys that workers take from the queue's head, one after another.
const TAKEN: usize = 1_000;
const SCANS: usize = 200;
/// Longest time in which a queue is emptied.
const EMPTY_MAX: Duration = Duration::from_secs(120);
/// Longest time of the first scan, which passes the removed keys once.
const FIRST: Duration = Duration::from_secs(2);
/// Most factor by which the median grows from the first tenth of the keys that are taken to the last.
const TIMES_MAX: f64 = 2.0;

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-queue", HOME, HOME).await?;
    let queue = format!("q/{}/", world.run);
    fill(&tenant, &queue, REMOVED).await?;
    tenant.put(format!("{queue}z"), "v").await?;
    empty(&tenant, &queue).await?;
    let asked = Instant::now();
    let mut empty_pages = usize::from(head(&tenant, &queue).await?.is_none());
    let first = asked.elapsed();
    let mut after = Vec::new();
    for _ in 0..SCANS {
        let asked = Instant::now();
        empty_pages += usize::from(head(&tenant, &queue).await?.is_none());
        after.push(asked.elapsed());
    }
    let mut taken = take_all(&tenant, &queue).await?;
    let tenth = taken.len() / 10;
    let mut last = taken.split_off(taken.len() - tenth);
    taken.truncate(tenth);
    let (began, ended) = (percentile(&mut taken, 0.5), percentile(&mut last, 0.5));
    let times = ended.as_secs_f64() / began.as_secs_f64().max(1e-6);
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Verdict::default()
        .none("pages without a key", empty_pages)
        .time("first scan past removed keys", first, FIRST)
        .number(
            "median at the end of the queue",
            times,
            TIMES_MAX,
            "times that at its head",
        )
        .note(format!(
            "{REMOVED} keys removed before the head, p50 {:.1} ms afterwards",
            millis(percentile(&mut after, 0.5))
        ))
        .note(format!(
            "p50 {:.1} ms, then {:.1} ms while keys are taken",
            millis(began),
            millis(ended)
        )))
}

/// Puts keys of a queue.
async fn fill(tenant: &Tenant, queue: &str, keys: usize) -> anyhow::Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (tenant, queue) = (tenant.clone(), queue.to_owned());
        writers.spawn(async move {
            for at in (writer..keys).step_by(WRITERS) {
                tenant.put(format!("{queue}a{at:06}"), "v").await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(wrote) = writers.join_next().await {
        wrote??;
    }
    Ok(())
}

/// Removes the keys that [`fill`] has put.
async fn empty(tenant: &Tenant, queue: &str) -> anyhow::Result<()> {
    let range = KeyRange::prefix(format!("{queue}a"));
    tenant.delete_range_within(&range, Some(EMPTY_MAX)).await?;
    Ok(())
}

/// Returns the first key of a queue, from a page of one key.
async fn head(tenant: &Tenant, queue: &str) -> anyhow::Result<Option<bytes::Bytes>> {
    let scan = ScanOptions {
        prefix: queue.to_owned().into(),
        page_size: 1,
        ..ScanOptions::default()
    };
    let page = tenant.scan(&scan).await?;
    Ok(page.items.into_iter().next().map(|item| item.key))
}

/// Takes keys from a new queue's head, and returns how long each search for the head took.
async fn take_all(tenant: &Tenant, queue: &str) -> anyhow::Result<Vec<Duration>> {
    let queue = format!("{queue}w/");
    fill(tenant, &queue, TAKEN).await?;
    let mut took = Vec::with_capacity(TAKEN);
    for _ in 0..TAKEN {
        let asked = Instant::now();
        let key = head(tenant, &queue).await?.context("the queue lost a key")?;
        took.push(asked.elapsed());
        tenant.delete(key).await?;
    }
    ensure!(head(tenant, &queue).await?.is_none(), "a key was taken twice");
    Ok(took)
}
