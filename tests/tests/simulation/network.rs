//! Simulated environment of a node: network and clocks of turmoil in place of the system's.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::stream;
use stead_api::net::{Connect, Io};
use stead_raft::Clocks;
use stead_server::{
    environment::{Environment, Inbound, Incoming, RetentionConfig},
    resources::Resources,
};
use stead_store::health::Health;
use turmoil::{
    Builder, Sim,
    net::{TcpListener, TcpStream},
};

use crate::hermetic;

/// One step of the simulation: events within a step have no order in time between hosts.
const TICK: Duration = Duration::from_millis(1);
/// Segments that a connection buffers for a reader, and connections that wait to be accepted.
const TCP_CAPACITY: usize = 4096;

/// Returns a simulated network; messages between hosts take about a millisecond.
pub(crate) fn simulation(seed: u64, length: Duration) -> Sim<'static> {
    Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH + Duration::from_secs(hermetic::EPOCH_SECONDS))
        .simulation_duration(length)
        .tick_duration(TICK)
        .tcp_capacity(TCP_CAPACITY)
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(2))
        .enable_random_order()
        .build()
}

/// Advances the simulation by one step, and the clocks of the process with it. Returns whether every client is done.
pub(crate) fn step(sim: &mut Sim<'_>) -> bool {
    hermetic::set_elapsed(sim.elapsed());
    sim.step().unwrap_or_else(|error| panic!("a host failed: {error}"))
}

/// Returns the environment of a simulated host with clocks of its own.
pub(crate) fn environment(clock: Arc<SimulatedClock>, retention: RetentionConfig) -> Environment {
    Environment {
        connect: connect(),
        bind: Arc::new(|address| Box::pin(bind(address))),
        clocks: Clocks {
            wall: {
                let clock = clock.clone();
                Arc::new(move || clock.wall())
            },
            boot: Arc::new(move || clock.boot()),
        },
        health: Health::default(),
        threads: false,
        retention,
        // The machine's own answers change while a simulation runs.
        resources: Resources {
            disk_free: |_| Some(1 << 40),
            memory: || 1 << 26,
            descriptors_max: 1 << 20,
        },
    }
}

/// Clocks of a host: the wall clock may jump and drift, both stand still while the machine sleeps.
#[derive(Debug)]
pub(crate) struct SimulatedClock {
    /// Milliseconds by which the wall clock is ahead.
    offset_ms: AtomicI64,
    /// Thousandths by which it runs too fast since `since_ms`.
    drift_per_mille: AtomicI64,
    since_ms: AtomicI64,
    /// Time of the simulation at which both clocks stand still, in nanoseconds; [`RUNNING`] while they run.
    stopped_ns: AtomicU64,
    /// Nanoseconds by which the boot clock is behind, because it did not run while the machine was paused.
    boot_behind_ns: AtomicU64,
    /// Last reading of the boot clock, which never goes back.
    boot_ns: AtomicU64,
}

/// Value of `stopped_ns` while the clocks run.
const RUNNING: u64 = u64::MAX;

impl Default for SimulatedClock {
    fn default() -> Self {
        Self {
            offset_ms: AtomicI64::new(0),
            drift_per_mille: AtomicI64::new(0),
            since_ms: AtomicI64::new(0),
            stopped_ns: AtomicU64::new(RUNNING),
            boot_behind_ns: AtomicU64::new(0),
            boot_ns: AtomicU64::new(0),
        }
    }
}

impl SimulatedClock {
    fn wall(&self) -> u64 {
        let standing = nanos(elapsed()).saturating_sub(self.stopped_ns.load(Relaxed));
        let now = wall() - standing / 1_000_000;
        now.saturating_add_signed(self.offset_ms(now))
    }

    fn boot(&self) -> Duration {
        let now = nanos(elapsed()).min(self.stopped_ns.load(Relaxed));
        let reading = now.saturating_sub(self.boot_behind_ns.load(Relaxed));
        let before = self.boot_ns.fetch_max(reading, Relaxed);
        Duration::from_nanos(reading.max(before))
    }

    /// Makes both clocks stand still from a time of the simulation on.
    pub(crate) fn stop(&self, at: Duration) {
        self.stopped_ns.fetch_min(nanos(at), Relaxed);
    }

    /// Makes both clocks run again: the wall clock jumps to the time that it would show, the boot clock only if it runs
    /// through suspend, and not if a virtual machine was paused.
    pub(crate) fn resume(&self, at: Duration, boot_clock_jumps: bool) {
        let stopped = self.stopped_ns.swap(RUNNING, Relaxed);
        if stopped != RUNNING && !boot_clock_jumps {
            let stood = nanos(at).saturating_sub(stopped);
            self.boot_behind_ns.fetch_add(stood, Relaxed);
        }
    }

    fn offset_ms(&self, now: u64) -> i64 {
        let passed = i64::try_from(now).expect("simulations are short") - self.since_ms.load(Relaxed);
        self.offset_ms.load(Relaxed) + passed * self.drift_per_mille.load(Relaxed) / 1000
    }

    /// Makes the wall clock jump.
    pub(crate) fn jump(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Relaxed);
    }

    /// Makes the wall clock run too fast from now on, by so many thousandths.
    pub(crate) fn drift(&self, now: u64, per_mille: i64) {
        self.offset_ms.store(self.offset_ms(now), Relaxed);
        self.since_ms
            .store(i64::try_from(now).expect("simulations are short"), Relaxed);
        self.drift_per_mille.store(per_mille, Relaxed);
    }
}

/// Returns the connector of a simulated host.
pub(crate) fn connect() -> Connect {
    Arc::new(|address: String| {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
        })
    })
}

/// Returns a connector that dials one address, whichever is asked for.
pub(crate) fn connect_to(address: String) -> Connect {
    let connect = connect();
    Arc::new(move |_| connect(address.clone()))
}

async fn bind(address: String) -> io::Result<Incoming> {
    let listener = TcpListener::bind(address).await?;
    let incoming = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, from)| Inbound {
            io: Box::pin(stream),
            from: Some(from.ip()),
        });
        Some((accepted, listener))
    });
    Ok(Box::pin(incoming))
}

fn wall() -> u64 {
    let since = turmoil::since_epoch().expect("a simulated host asks");
    u64::try_from(since.as_millis()).expect("simulations are short")
}

fn elapsed() -> Duration {
    turmoil::sim_elapsed().expect("a simulated host asks")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("simulations are short")
}
