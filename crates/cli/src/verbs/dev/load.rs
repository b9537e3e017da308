//! Load of writes at a steady rate, with a check that each of them is stored exactly once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use stead_client::{ScanOptions, SessionToken, Tenant};
use tokio::{
    sync::{Mutex, broadcast, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};

/// Interval between two batches of writes; each batch makes up for the rate.
const TICK: Duration = Duration::from_millis(5);
/// Most writes in flight: ten seconds of the highest rate.
const IN_FLIGHT_MAX: usize = 5_000;
const PAGE: u32 = 5_000;
/// Most errors that are printed.
const ERRORS_SHOWN_MAX: usize = 3;
/// One of this many writes becomes a sample.
const SAMPLE_EVERY: u64 = 10;
/// Samples that wait for the slowest subscriber.
const SAMPLES_MAX: usize = 1_000;

/// Write right after its acknowledgement.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) key: String,
    pub(super) token: SessionToken,
    pub(super) acknowledged: Instant,
}

/// Running load.
#[derive(Debug)]
pub(super) struct Load {
    tenant: Tenant,
    prefix: String,
    tally: Arc<Mutex<LoadTally>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct LoadTally {
    /// Number of the write, and its latency.
    acknowledged: Vec<(u64, Duration)>,
    errors: Vec<String>,
    last: Instant,
    gap: Duration,
    samples: broadcast::Sender<Sample>,
}

/// Result of a load.
#[derive(Debug, Default)]
pub(super) struct LoadReport {
    pub(super) acknowledged: usize,
    pub(super) lost: usize,
    pub(super) twice: usize,
    pub(super) errors: Vec<String>,
}

impl Load {
    pub(super) fn start(tenant: Tenant, prefix: impl Into<String>, per_second: u32) -> Self {
        let prefix = prefix.into();
        let tally = LoadTally {
            acknowledged: Vec::new(),
            errors: Vec::new(),
            last: Instant::now(),
            gap: Duration::ZERO,
            samples: broadcast::channel(SAMPLES_MAX).0,
        };
        let tally = Arc::new(Mutex::new(tally));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(tenant.clone(), prefix.clone(), per_second, tally.clone(), stopped));
        Self {
            tenant,
            prefix,
            tally,
            stop,
            task,
        }
    }

    /// Returns the longest time without an acknowledgement since the last call, the current one included.
    pub(super) async fn take_gap(&self) -> Duration {
        let mut tally = self.tally.lock().await;
        let going_on = tally.last.elapsed();
        std::mem::take(&mut tally.gap).max(going_on)
    }

    /// Subscribes to one of ten writes from now on, each as soon as it is acknowledged.
    pub(super) async fn samples(&self) -> broadcast::Receiver<Sample> {
        self.tally.lock().await.samples.subscribe()
    }

    pub(super) async fn acknowledged(&self) -> usize {
        self.tally.lock().await.acknowledged.len()
    }

    /// Stops, waits for all responses, reads everything back and counts.
    pub(super) async fn finish(self) -> anyhow::Result<LoadReport> {
        let _ = self.stop.send(());
        self.task.await?;
        let stored = read(&self.tenant, &self.prefix)
            .await
            .context("reading the writes back")?;
        let tally = self.tally.lock().await;
        let mut report = LoadReport {
            acknowledged: tally.acknowledged.len(),
            ..LoadReport::default()
        };
        for (number, _) in &tally.acknowledged {
            match stored.get(key(&self.prefix, *number).as_bytes()) {
                Some((value, 1)) if value.as_slice() == number.to_string().as_bytes() => {}
                Some((_, version)) if *version > 1 => report.twice += 1,
                Some(_) | None => report.lost += 1,
            }
        }
        report.errors.clone_from(&tally.errors);
        Ok(report)
    }
}

impl LoadReport {
    pub(super) fn errors_shown(&self) -> String {
        self.errors
            .iter()
            .take(ERRORS_SHOWN_MAX)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ")
    }
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}/{number:08}")
}

async fn run(
    tenant: Tenant,
    prefix: String,
    per_second: u32,
    tally: Arc<Mutex<LoadTally>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut writes = JoinSet::new();
    let started = Instant::now();
    let mut sent = 0;
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {}
            Some(_) = writes.join_next() => continue,
        }
        let due = (started.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while sent < due && writes.len() < IN_FLIGHT_MAX {
            sent += 1;
            writes.spawn(write(tenant.clone(), prefix.clone(), sent, tally.clone()));
        }
    }
    while writes.join_next().await.is_some() {}
}

async fn write(tenant: Tenant, prefix: String, number: u64, tally: Arc<Mutex<LoadTally>>) {
    let started = Instant::now();
    let key = key(&prefix, number);
    let outcome = tenant.put(key.clone(), number.to_string()).await;
    let acknowledged = Instant::now();
    let mut tally = tally.lock().await;
    match outcome {
        Ok(written) => {
            if let Some(token) = written.header.token
                && number.is_multiple_of(SAMPLE_EVERY)
            {
                let sample = Sample {
                    key,
                    token,
                    acknowledged,
                };
                // There may be no subscriber.
                let _ = tally.samples.send(sample);
            }
            let gap = tally.last.elapsed();
            tally.gap = tally.gap.max(gap);
            tally.last = acknowledged;
            tally.acknowledged.push((number, acknowledged - started));
        }
        Err(error) => tally.errors.push(error.to_string()),
    }
}

/// Returns keys with values and versions.
async fn read(tenant: &Tenant, prefix: &str) -> anyhow::Result<BTreeMap<Vec<u8>, (Vec<u8>, u64)>> {
    let mut stored = BTreeMap::new();
    let mut scan = ScanOptions {
        prefix: format!("{prefix}/").into(),
        page_size: PAGE,
        ..ScanOptions::default()
    };
    loop {
        let page = tenant.scan(&scan).await?;
        stored.extend(
            page.items
                .into_iter()
                .map(|item| (item.key.to_vec(), (item.value.to_vec(), item.version))),
        );
        match page.next {
            Some(next) => scan.page_token = next,
            None => return Ok(stored),
        }
    }
}

/// Returns a percentile; zero of an empty set.
pub(super) fn percentile(taken: &mut [Duration], share: f64) -> Duration {
    taken.sort_unstable();
    let at = (taken.len() as f64 * share).ceil() as usize;
    taken.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_one_of_values() {
        let mut taken: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut taken, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&mut taken, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&mut [], 0.5), Duration::ZERO);
    }
}
