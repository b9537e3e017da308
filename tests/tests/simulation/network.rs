//! Simulated environment of a node: network and clocks of turmoil in place of the system's.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::stream;
use stead_api::net::{Connect, Io};
use stead_raft::Clocks;
use stead_server::environment::{Environment, Incoming, RetentionConfig};
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

/// Returns the environment of a simulated host with a wall clock of its own.
pub(crate) fn environment(clock: Arc<SimulatedClock>, retention: RetentionConfig) -> Environment {
    Environment {
        connect: connect(),
        bind: Arc::new(|address| Box::pin(bind(address))),
        clocks: Clocks {
            wall: Arc::new(move || clock.now()),
            boot: Arc::new(|| turmoil::sim_elapsed().expect("a simulated host asks")),
        },
        health: Health::default(),
        threads: false,
        retention,
    }
}

/// Wall clock of a host, which may jump and drift.
#[derive(Debug, Default)]
pub(crate) struct SimulatedClock {
    /// Milliseconds by which it is ahead.
    offset_ms: AtomicI64,
    /// Thousandths by which it runs too fast since `since_ms`.
    drift_per_mille: AtomicI64,
    since_ms: AtomicI64,
}

impl SimulatedClock {
    fn now(&self) -> u64 {
        let now = wall();
        now.saturating_add_signed(self.offset_ms(now))
    }

    fn offset_ms(&self, now: u64) -> i64 {
        let passed = i64::try_from(now).expect("simulations are short") - self.since_ms.load(Relaxed);
        self.offset_ms.load(Relaxed) + passed * self.drift_per_mille.load(Relaxed) / 1000
    }

    /// Makes it jump.
    pub(crate) fn jump(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Relaxed);
    }

    /// Makes it run too fast from now on, by so many thousandths.
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
        let accepted = listener
            .accept()
            .await
            .map(|(stream, _)| Box::pin(stream) as Pin<Box<dyn Io>>);
        Some((accepted, listener))
    });
    Ok(Box::pin(incoming))
}

fn wall() -> u64 {
    let since = turmoil::since_epoch().expect("a simulated host asks");
    u64::try_from(since.as_millis()).expect("simulations are short")
}
