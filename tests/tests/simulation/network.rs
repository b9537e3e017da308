//! What a node takes from the world, made of a simulated one.

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
use stead_server::environment::{Environment, Incoming, Upkeep};
use stead_store::health::Health;
use turmoil::{
    Builder, Sim,
    net::{TcpListener, TcpStream},
};

use crate::seal;

/// One step of the simulation: what happens within it has no order in time between hosts.
const TICK: Duration = Duration::from_millis(1);
/// Segments that a connection holds for a reader, and connections that wait to be accepted.
const TCP_CAPACITY: usize = 4096;

/// Returns a simulated network; messages between hosts take about a millisecond.
pub(crate) fn simulation(seed: u64, length: Duration) -> Sim<'static> {
    Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH + Duration::from_secs(seal::EPOCH_SECONDS))
        .simulation_duration(length)
        .tick_duration(TICK)
        .tcp_capacity(TCP_CAPACITY)
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(2))
        .enable_random_order()
        .build()
}

/// Moves the simulation one step on, and the clocks of the process with it. Tells whether every client is done.
pub(crate) fn step(sim: &mut Sim<'_>) -> bool {
    seal::set_elapsed(sim.elapsed());
    sim.step().unwrap_or_else(|error| panic!("a host failed: {error}"))
}

/// Returns the world of a simulated host with a clock of its own.
pub(crate) fn environment(clock: Arc<Clock>, upkeep: Upkeep) -> Environment {
    Environment {
        connect: connect(),
        bind: Arc::new(|address| Box::pin(bind(address))),
        clocks: Clocks {
            wall: Arc::new(move || clock.now()),
            boot: Arc::new(|| turmoil::sim_elapsed().expect("a simulated host asks")),
        },
        health: Health::default(),
        threads: false,
        upkeep,
    }
}

/// A host's wall clock, which may leap and drift.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Milliseconds that it is ahead.
    ahead_ms: AtomicI64,
    /// Thousandths that it runs too fast since `since_ms`.
    fast: AtomicI64,
    since_ms: AtomicI64,
}

impl Clock {
    fn now(&self) -> u64 {
        let now = wall();
        now.saturating_add_signed(self.off(now))
    }

    fn off(&self, now: u64) -> i64 {
        let passed = i64::try_from(now).expect("simulations are short") - self.since_ms.load(Relaxed);
        self.ahead_ms.load(Relaxed) + passed * self.fast.load(Relaxed) / 1000
    }

    /// Lets it leap.
    pub(crate) fn leap(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Relaxed);
    }

    /// Lets it run too fast from now on, by so many thousandths.
    pub(crate) fn drift(&self, now: u64, thousandths: i64) {
        self.ahead_ms.store(self.off(now), Relaxed);
        self.since_ms
            .store(i64::try_from(now).expect("simulations are short"), Relaxed);
        self.fast.store(thousandths, Relaxed);
    }
}

/// Returns how a simulated host dials.
pub(crate) fn connect() -> Connect {
    Arc::new(|address: String| {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
        })
    })
}

/// Returns how to dial one address, whichever is asked for.
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
