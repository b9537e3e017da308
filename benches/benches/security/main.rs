//! Cost of TLS and of the decision about callers: throughput of the pipeline at nodes in plain text, with TLS, and with TLS
//! and roles, and the time of one decision.
//!
//! `cargo bench -p stead-benches --bench security` runs three nodes on disks in memory, in one process with their clients: no
//! disk hides what encryption costs. The runs take turns, and the table has medians and spreads of the rounds.

mod decision;
mod nodes;

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use stead_client::Tenant;
use stead_testing::SyncProbe;
use tokio::task::JoinSet;

use self::nodes::{Protection, RunningNode};

const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(2);
const LASTS: Duration = Duration::from_secs(5);
const CALLERS: usize = 64;
const VALUES: [usize; 2] = [256, 16 << 10];
const KEYS: usize = 1_000;

fn main() -> Result<()> {
    decision::measure()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench())
}

async fn bench() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let sync_probe = SyncProbe::start(folder.path())?;
    let mut running = Vec::new();
    for protection in Protection::ALL {
        running.push(RunningNode::start(protection, folder.path()).await?);
    }
    println!("\n| values of | node | operations a second, median | lowest | highest | against plain text |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for len in VALUES {
        let mut rates = vec![Vec::new(); running.len()];
        for round in 0..=ROUNDS {
            for (node, rates) in running.iter().zip(&mut rates) {
                let lasts = if round == 0 { WARM_UP } else { LASTS };
                let rate = throughput(&node.tenant, len, lasts).await?;
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let plain = median(&mut rates[0]);
        for (node, rates) in running.iter().zip(&mut rates) {
            let middle = median(rates);
            let (lowest, highest) = (rates[0], rates[rates.len() - 1]);
            let share = (middle / plain - 1.0) * 100.0;
            println!(
                "| {len} bytes | {} | {middle:.0} | {lowest:.0} | {highest:.0} | {share:+.1} % |",
                node.protection.label()
            );
        }
    }
    let fdatasync = sync_probe.p99().await;
    println!("\nfdatasync p99 beside: {:.1} ms", fdatasync.as_secs_f64() * 1e3);
    for node in running {
        node.stop().await?;
    }
    Ok(())
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Puts and gets, one after the other in each of many callers; returns how many a second.
async fn throughput(tenant: &Tenant, len: usize, lasts: Duration) -> Result<f64> {
    let value = Bytes::from((0..len).map(|_| rand::random()).collect::<Vec<u8>>());
    let (began, mut callers) = (Instant::now(), JoinSet::new());
    for caller in 0..CALLERS {
        let (tenant, value) = (tenant.clone(), value.clone());
        callers.spawn(async move {
            let mut done = 0_usize;
            while began.elapsed() < lasts {
                let key = format!("k/{caller}/{}", done % KEYS);
                if done.is_multiple_of(2) {
                    tenant.put(key, value.clone()).await?;
                } else {
                    tenant.get(key).await?;
                }
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(caller) = callers.join_next().await {
        done += caller??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
