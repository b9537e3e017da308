//! Writer of large values at a steady rate, as long as its tenant takes them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stead_client::{Error, Tenant};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{VALUE_LEN, value};

/// Keys that are written again and again.
const KEYS: usize = 64;
/// Most writes in flight: a few seconds of them.
const IN_FLIGHT_MAX: usize = 64;

/// Running writer.
pub(super) struct Writer {
    written: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Error>>,
}

/// Number of writes up to a moment.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    at: Instant,
    written: u64,
}

impl Mark {
    pub(super) fn elapsed(self) -> Duration {
        self.at.elapsed()
    }
}

impl Writer {
    /// Starts to write so many bytes a second.
    pub(super) fn start(tenant: Tenant, bytes_per_second: u64) -> Self {
        let written = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let pause = Duration::from_secs_f64(VALUE_LEN as f64 / bytes_per_second as f64);
        let task = tokio::spawn(write(tenant, pause, written.clone(), stopped));
        Self { written, stop, task }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            written: self.written.load(Ordering::Relaxed),
        }
    }

    /// Returns the writes since a moment.
    pub(super) fn written_since(&self, mark: Mark) -> u64 {
        self.mark().written - mark.written
    }

    /// Returns the writes a second since a moment.
    pub(super) fn rate_since(&self, mark: Mark) -> f64 {
        let now = self.mark();
        (now.written - mark.written) as f64 / (now.at - mark.at).as_secs_f64()
    }

    /// Returns the writes a second over a time from now on.
    pub(super) async fn rate_over(&self, time: Duration) -> f64 {
        let mark = self.mark();
        sleep(time).await;
        self.rate_since(mark)
    }

    /// Stops, waits for what is in flight, and returns the errors.
    pub(super) async fn finish(self) -> anyhow::Result<Vec<Error>> {
        let _ = self.stop.send(());
        Ok(self.task.await?)
    }
}

async fn write(
    tenant: Tenant,
    pause: Duration,
    written: Arc<AtomicU64>,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<Error> {
    let mut ticks = interval(pause);
    // What was not written in time is not made up for: a slowed writer would otherwise never be back at its rate.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut writes, mut errors) = (JoinSet::new(), Vec::new());
    for number in 0_usize.. {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick(), if writes.len() < IN_FLIGHT_MAX => {}
            Some(result) = writes.join_next() => {
                errors.extend(result.ok().and_then(Result::err));
                continue;
            }
        }
        let (tenant, written) = (tenant.clone(), written.clone());
        writes.spawn(async move {
            tenant.put(format!("w/{}", number % KEYS), value(number)).await?;
            written.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(())
        });
    }
    while let Some(result) = writes.join_next().await {
        errors.extend(result.ok().and_then(Result::err));
    }
    errors
}
