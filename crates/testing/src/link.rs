//! What the way between two regions is like, and how many bytes took it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They arrive after the delay.
    Open,
    /// They wait, and arrive once the way is open again: what a cut looks like to TCP.
    Held,
    /// Connections are closed and new ones too: what a firewall with resets looks like.
    Refused,
}

/// What one way of a link is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How long a byte travels.
    pub delay: Duration,
    /// How many bytes a second pass, all connections together; `None`: as many as come.
    pub bytes_per_second: Option<u64>,
    /// Whether bytes pass at all.
    pub flow: Flow,
}

/// One way of a link: all connections that pass it share its shape, its bandwidth and its counter.
#[derive(Clone, Debug)]
pub struct Direction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shape: watch::Sender<Shape>,
    /// When the last byte that was given a place has passed the bottleneck.
    free_at: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Direction {
    /// Returns an open way with this delay.
    pub fn new(delay: Duration) -> Self {
        let shape = Shape {
            delay,
            bytes_per_second: None,
            flow: Flow::Open,
        };
        Self(Arc::new(Inner {
            shape: watch::Sender::new(shape),
            free_at: Mutex::new(Instant::now()),
            bytes: AtomicU64::new(0),
        }))
    }

    /// Returns what the way is like now.
    pub fn shape(&self) -> Shape {
        *self.0.shape.borrow()
    }

    /// Changes what the way is like; what travels already keeps its release time.
    pub fn set(&self, change: impl FnOnce(&mut Shape)) {
        self.0.shape.send_modify(change);
    }

    /// Returns how many bytes have arrived.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Shape> {
        self.0.shape.subscribe()
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns when bytes that set off now arrive.
    pub(crate) fn arrival(&self, bytes: usize) -> Instant {
        let (now, shape) = (Instant::now(), self.shape());
        let Some(bytes_per_second) = shape.bytes_per_second else {
            return now + shape.delay;
        };
        let mut free_at = self.0.free_at.lock();
        let passing = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        *free_at = (*free_at).max(now) + passing;
        *free_at + shape.delay
    }
}

/// The way between two places, both directions.
#[derive(Clone, Debug)]
pub struct Link {
    /// From the first place to the second.
    pub there: Direction,
    /// From the second place to the first.
    pub back: Direction,
}

impl Link {
    /// Returns an open link with this round trip.
    pub fn new(round_trip: Duration) -> Self {
        Self {
            there: Direction::new(round_trip / 2),
            back: Direction::new(round_trip / 2),
        }
    }

    /// Returns the same link seen from its other end.
    pub fn reversed(&self) -> Self {
        Self {
            there: self.back.clone(),
            back: self.there.clone(),
        }
    }

    /// Returns how long a message and its answer travel.
    pub fn round_trip(&self) -> Duration {
        self.there.shape().delay + self.back.shape().delay
    }

    /// Changes how long a message and its answer travel, half of it each way.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.set(|shape| shape.delay = round_trip / 2);
    }

    /// Holds all bytes, in both directions, until [`Link::heal`].
    pub fn cut(&self) {
        self.set(|shape| shape.flow = Flow::Held);
    }

    /// Closes all connections and each new one, until [`Link::heal`].
    pub fn refuse(&self) {
        self.set(|shape| shape.flow = Flow::Refused);
    }

    /// Opens both directions.
    pub fn heal(&self) {
        self.set(|shape| shape.flow = Flow::Open);
    }

    fn set(&self, change: impl Fn(&mut Shape)) {
        self.there.set(&change);
        self.back.set(&change);
    }
}
