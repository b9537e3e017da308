//! Load of writes at a steady rate, with a check that each of them is stored exactly once and in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stead_client::{Error, ScanOptions, SessionToken, Tenant};
use stead_types::Revision;
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
pub struct Sample {
    /// Key that was written.
    pub key: String,
    /// Token of the write.
    pub token: SessionToken,
    /// Time of its acknowledgement.
    pub acknowledged: Instant,
}

/// Acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Number of the write, from 1.
    pub number: u64,
    /// Time at which it was sent.
    pub sent: Instant,
    /// Time at which its acknowledgement arrived.
    pub acknowledged: Instant,
    /// Revision of the write.
    pub revision: Revision,
}

/// Running load.
#[derive(Debug)]
pub struct Load {
    tenant: Tenant,
    prefix: String,
    tally: Arc<Mutex<LoadTally>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct LoadTally {
    /// In the order of their arrival.
    acknowledged: Vec<Acknowledgement>,
    errors: Vec<String>,
    last: Instant,
    gap: Duration,
    samples: broadcast::Sender<Sample>,
}

/// Result of a load.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Acknowledged writes, in the order of their arrival.
    pub acknowledged: Vec<Acknowledgement>,
    /// Number of acknowledged writes that are not stored.
    pub lost: usize,
    /// Those writes.
    pub missing: Vec<Acknowledgement>,
    /// Number of writes that happened more than once.
    pub twice: usize,
    /// Errors of calls.
    pub errors: Vec<String>,
}

impl Load {
    /// Starts to put keys below a prefix, each once.
    pub fn start(tenant: Tenant, prefix: impl Into<String>, per_second: u32) -> Self {
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
    pub async fn take_gap(&self) -> Duration {
        let mut tally = self.tally.lock().await;
        let going_on = tally.last.elapsed();
        std::mem::take(&mut tally.gap).max(going_on)
    }

    /// Subscribes to one of ten writes from now on, each as soon as it is acknowledged.
    pub async fn samples(&self) -> broadcast::Receiver<Sample> {
        self.tally.lock().await.samples.subscribe()
    }

    /// Returns the number of acknowledged writes.
    pub async fn acknowledged(&self) -> usize {
        self.tally.lock().await.acknowledged.len()
    }

    /// Returns the newest acknowledged write.
    pub async fn newest(&self) -> Option<Acknowledgement> {
        self.tally.lock().await.acknowledged.last().copied()
    }

    /// Returns the acknowledged writes after the first `from`.
    pub async fn acknowledged_since(&self, from: usize) -> Vec<Acknowledgement> {
        let tally = self.tally.lock().await;
        tally.acknowledged.get(from..).unwrap_or_default().to_vec()
    }

    /// Stops, waits for all responses, reads everything back and counts.
    ///
    /// # Errors
    ///
    /// The writes cannot be read back.
    pub async fn finish(self) -> Result<LoadReport, Error> {
        let _ = self.stop.send(());
        if let Err(failed) = self.task.await {
            std::panic::resume_unwind(failed.into_panic());
        }
        let stored = read(&self.tenant, &self.prefix).await?;
        let tally = self.tally.lock().await;
        let mut report = LoadReport {
            acknowledged: tally.acknowledged.clone(),
            errors: tally.errors.clone(),
            ..LoadReport::default()
        };
        for write in &tally.acknowledged {
            match stored.get(key(&self.prefix, write.number).as_bytes()) {
                Some((value, 1)) if value.as_slice() == write.number.to_string().as_bytes() => {}
                Some((_, version)) if *version > 1 => report.twice += 1,
                Some(_) | None => report.missing.push(*write),
            }
        }
        report.lost = report.missing.len();
        Ok(report)
    }
}

impl LoadReport {
    /// Returns the first errors, for a line.
    pub fn errors_shown(&self) -> String {
        self.errors
            .iter()
            .take(ERRORS_SHOWN_MAX)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Returns the number of writes that were sent after another one's acknowledgement and have no higher revision.
pub fn out_of_order(writes: impl IntoIterator<Item = Acknowledgement>) -> usize {
    let mut by_sending: Vec<_> = writes.into_iter().collect();
    let mut by_arrival = by_sending.clone();
    by_sending.sort_unstable_by_key(|write| write.sent);
    by_arrival.sort_unstable_by_key(|write| write.acknowledged);
    let mut arrived = by_arrival.iter().peekable();
    let mut highest = Revision::ZERO;
    let is_out_of_order = |write: &&Acknowledgement| {
        while let Some(before) = arrived.next_if(|before| before.acknowledged < write.sent) {
            highest = highest.max(before.revision);
        }
        write.revision <= highest
    };
    by_sending.iter().filter(is_out_of_order).count()
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
    let sent = Instant::now();
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
            tally.acknowledged.push(Acknowledgement {
                number,
                sent,
                acknowledged,
                revision: written.header.revision,
            });
        }
        Err(error) => tally.errors.push(error.to_string()),
    }
}

/// Returns keys with values and versions.
async fn read(tenant: &Tenant, prefix: &str) -> Result<BTreeMap<Vec<u8>, (Vec<u8>, u64)>, Error> {
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
pub fn percentile(taken: &mut [Duration], share: f64) -> Duration {
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

    #[test]
    fn write_sent_after_acknowledgement_of_higher_revision_is_out_of_order() {
        let start = Instant::now();
        let write = |sent, acknowledged, revision| Acknowledgement {
            number: revision,
            sent: start + Duration::from_millis(sent),
            acknowledged: start + Duration::from_millis(acknowledged),
            revision: Revision::from_u64(revision),
        };
        // Those in flight together have no order.
        assert_eq!(out_of_order([write(0, 10, 2), write(5, 15, 1), write(16, 20, 3)]), 0);
        assert_eq!(out_of_order([write(0, 10, 2), write(11, 15, 1), write(16, 20, 3)]), 1);
        assert_eq!(out_of_order([write(0, 10, 2), write(11, 15, 2)]), 1);
    }
}
