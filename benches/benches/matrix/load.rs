//! Closed and open loops of callers, with the latency of each request.
//!
//! In a closed loop each caller sends its next request when it has the answer to the one before. In an open loop
//! requests are due at fixed times, whatever the answers do, and a latency counts from the time at which its request was
//! due: a system that stalls is charged for all requests that it has kept waiting (coordinated omission).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use crate::{
    systems::{Caller, System},
    work::{Requests, Row, Work, Zipf},
};

/// Longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Watchers of [`Work::Watch`].
pub(crate) const WATCHERS: usize = 10;

/// Times of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) windows: usize,
}

/// Figures of one window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) length: Duration,
    /// In microseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) failed: u64,
    /// Of the first failed request.
    pub(crate) error: Option<String>,
}

/// Latencies of the current window.
#[derive(Debug)]
struct Tally {
    latencies: Histogram<u64>,
    failed: u64,
    error: Option<String>,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: Histogram::new_with_max(LATENCY_MAX.as_micros() as u64, 3)?,
            failed: 0,
            error: None,
        })
    }

    fn add(&mut self, since: Instant, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.latencies.saturating_record(since.elapsed().as_micros() as u64),
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// Tallies, one for each caller: they share no lock.
type Tallies = Vec<Arc<Mutex<Tally>>>;

/// Clock of an open loop: hands out the number of each request when it is due.
struct Schedule {
    start: Instant,
    rate: u32,
    due: Semaphore,
    next: AtomicU64,
    stopped: AtomicBool,
}

impl Schedule {
    fn start(rate: u32) -> Arc<Self> {
        let schedule = Arc::new(Self {
            start: Instant::now(),
            rate,
            due: Semaphore::new(0),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let clock = schedule.clone();
        // A thread, because timers of the runtime have a resolution of a millisecond.
        thread::spawn(move || {
            for number in 0.. {
                thread::sleep(clock.time(number).saturating_duration_since(Instant::now()));
                if clock.stopped.load(Ordering::Relaxed) {
                    break;
                }
                clock.due.add_permits(1);
            }
            clock.due.close();
        });
        schedule
    }

    fn time(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / f64::from(self.rate))
    }

    /// Returns the time at which the caller's next request is due; `None`: the loop has ended.
    async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        Some(self.time(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Measures a row, and calls `edge` at the start and at the end of each window.
pub(crate) async fn measure(
    system: &Arc<dyn System>,
    row: Row,
    times: Times,
    mut edge: impl FnMut() -> Result<()>,
) -> Result<Vec<Window>> {
    let zipf = Zipf::new();
    let stopped = Arc::new(AtomicBool::new(false));
    let schedule = (0 < row.rate).then(|| Schedule::start(row.rate));
    let mut tallies = Tallies::new();
    let mut running = JoinSet::new();
    let began = Instant::now();
    if row.work == Work::Watch {
        for _ in 0..WATCHERS {
            let tally = Arc::new(Mutex::new(Tally::new()?));
            tallies.push(tally.clone());
            let mut watcher = system.watcher(began).await?;
            let stopped = stopped.clone();
            running.spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    let event = watcher.next().await;
                    let since = *event.as_ref().unwrap_or(&began);
                    tally.lock().await.add(since, event.map(drop));
                }
            });
        }
    }
    for number in 0..row.callers {
        let tally = Arc::new(Mutex::new(Tally::new()?));
        if row.work != Work::Watch {
            tallies.push(tally.clone());
        }
        let requests = Requests::new(row.work, number as u64, zipf);
        let caller = system.caller(began).await.with_context(|| format!("caller {number}"))?;
        running.spawn(run(caller, requests, schedule.clone(), stopped.clone(), tally));
    }
    tokio::time::sleep(times.warm_up).await;
    let mut windows = Vec::new();
    take(&tallies).await?;
    for _ in 0..times.windows {
        let start = Instant::now();
        edge()?;
        tokio::time::sleep(times.window).await;
        let length = start.elapsed();
        edge()?;
        let window = take(&tallies).await?;
        windows.push(Window { length, ..window });
    }
    stopped.store(true, Ordering::Relaxed);
    if let Some(schedule) = schedule {
        schedule.stopped.store(true, Ordering::Relaxed);
    }
    if row.work == Work::Watch {
        // A watcher without events would wait for ever.
        running.abort_all();
    }
    while let Some(ended) = running.join_next().await {
        ensure!(
            ended.is_ok() || row.work == Work::Watch,
            "a caller of {} panicked",
            row.name()
        );
    }
    Ok(windows)
}

async fn run(
    mut caller: Box<dyn Caller>,
    mut requests: Requests,
    schedule: Option<Arc<Schedule>>,
    stopped: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
) {
    while !stopped.load(Ordering::Relaxed) {
        let since = match &schedule {
            Some(schedule) => match schedule.next().await {
                Some(due) => due,
                None => break,
            },
            None => Instant::now(),
        };
        let outcome = caller.call(requests.next()).await;
        tally.lock().await.add(since, outcome);
    }
}

/// Takes the latencies since the last call.
async fn take(tallies: &Tallies) -> Result<Window> {
    let mut all = Tally::new()?;
    for tally in tallies {
        let tally = std::mem::replace(&mut *tally.lock().await, Tally::new()?);
        all.latencies.add(tally.latencies)?;
        all.failed += tally.failed;
        all.error = all.error.or(tally.error);
    }
    Ok(Window {
        length: Duration::ZERO,
        latencies: all.latencies,
        failed: all.failed,
        error: all.error,
    })
}
