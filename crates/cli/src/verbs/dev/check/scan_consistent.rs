//! Step: a scan of many keys while they are rewritten shows one revision of all of them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use stead_client::{KeyRange, Op, ScanOptions, Tenant};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::{WAIT_TIMEOUT, World};
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const KEYS: usize = 200_000;
/// Keys that are written together, by one transaction, with the same value.
const BLOCK: usize = 500;
const BLOCKS: usize = KEYS / BLOCK;
/// Transactions per second during the scan: one key in twenty each second.
const REWRITES_PER_SECOND: u32 = 20;
/// Most time of one page.
const PAGE: Duration = Duration::from_secs(2);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-scan", HOME, HOME).await?;
    let far = world.tenant("check-scan", HOME, "us-east").await?;
    home.delete_range_within(&KeyRange::all(), Some(WAIT_TIMEOUT)).await?;
    let asked = Instant::now();
    for block in 0..BLOCKS {
        write(&home, block, 0).await?;
    }
    let written_in = asked.elapsed();
    let (stop, stopped) = watch::channel(false);
    let rewriting = tokio::spawn(rewrite(home.clone(), stopped));
    let scanned = async { (scan(&home).await, scan(&far).await) }.await;
    let _ = stop.send(true);
    let rewritten = rewriting.await??;
    let (at_home, afar) = (scanned.0?, scanned.1?);
    home.delete_range_within(&KeyRange::all(), Some(WAIT_TIMEOUT)).await?;
    let mut pages = at_home.pages;
    Ok(Verdict::default()
        .none("keys missing", at_home.missing + afar.missing)
        .none("blocks of two revisions", at_home.torn + afar.torn)
        .time("longest wait for a key", percentile(&mut pages, 1.0), PAGE)
        .note(format!(
            "{KEYS} keys scanned in {:.1} s at home, {:.1} s in us-east; {rewritten} transactions meanwhile; written in {:.1} s",
            at_home.took.as_secs_f64(),
            afar.took.as_secs_f64(),
            written_in.as_secs_f64()
        )))
}

fn key(block: usize, at: usize) -> String {
    format!("scan/{block:04}/{at:04}")
}

/// Writes the same value to all keys of a block.
async fn write(tenant: &Tenant, block: usize, generation: usize) -> anyhow::Result<()> {
    let mut txn = tenant.txn();
    for at in 0..BLOCK {
        txn = txn.then(Op::put(key(block, at), generation.to_string()));
    }
    txn.timeout(WAIT_TIMEOUT).send().await?;
    Ok(())
}

async fn rewrite(tenant: Tenant, stopped: watch::Receiver<bool>) -> anyhow::Result<usize> {
    let mut count = 0;
    let mut ticks = interval(Duration::from_secs(1) / REWRITES_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        ticks.tick().await;
        write(&tenant, count % BLOCKS, count + 1).await?;
        count += 1;
    }
    Ok(count)
}

struct ScanStats {
    missing: usize,
    /// Blocks of which not all keys have the same value.
    torn: usize,
    took: Duration,
    pages: Vec<Duration>,
}

async fn scan(tenant: &Tenant) -> anyhow::Result<ScanStats> {
    let asked = Instant::now();
    let mut stream = tenant.scan_stream(&ScanOptions {
        prefix: "scan/".into(),
        ..ScanOptions::default()
    });
    let mut blocks: BTreeMap<Vec<u8>, (bytes::Bytes, usize, bool)> = BTreeMap::new();
    let mut pages = Vec::new();
    loop {
        let waited = Instant::now();
        let Some(item) = stream.next().await? else { break };
        pages.push(waited.elapsed());
        ensure!(Some(item.modified) <= stream.revision(), "a key is newer than the scan");
        let block = item.key.get(..9).unwrap_or_default().to_vec();
        let (value, count, torn) = blocks.entry(block).or_insert((item.value.clone(), 0, false));
        *count += 1;
        *torn |= *value != item.value;
    }
    let seen: usize = blocks.values().map(|(_, count, _)| count).sum();
    Ok(ScanStats {
        missing: KEYS.saturating_sub(seen),
        torn: blocks.values().filter(|(_, _, torn)| *torn).count(),
        took: asked.elapsed(),
        pages,
    })
}
