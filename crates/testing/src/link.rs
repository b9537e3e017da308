//! Links between regions: delay, bandwidth, cuts, and a count of bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// State of one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Bytes arrive after the delay.
    Open,
    /// Bytes are held, and arrive once the direction is open again: as TCP sees a network partition.
    Held,
    /// Connections are closed, and new ones too: as with a firewall that resets connections.
    Refused,
}

/// Traffic shape of one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// One-way delay.
    pub delay: Duration,
    /// Bandwidth limit of all connections together; `None`: unlimited.
    pub bytes_per_second: Option<u64>,
    /// Whether bytes pass.
    pub flow: Flow,
}

/// One direction of a link: all its connections share its shape, its bandwidth and its counter.
#[derive(Clone, Debug)]
pub struct Direction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shape: watch::Sender<Shape>,
    /// Time at which the last scheduled byte has passed the bandwidth limit.
    free_at: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Direction {
    /// Returns an open direction with this delay.
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

    /// Returns the present shape.
    pub fn shape(&self) -> Shape {
        *self.0.shape.borrow()
    }

    /// Changes the shape; bytes in flight keep their arrival time.
    pub fn set(&self, change: impl FnOnce(&mut Shape)) {
        self.0.shape.send_modify(change);
    }

    /// Returns the number of bytes that have arrived.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Shape> {
        self.0.shape.subscribe()
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the arrival time of bytes that are sent now.
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

/// A link between two regions, with both directions.
#[derive(Clone, Debug)]
pub struct Link {
    /// Direction from the first region to the second.
    pub there: Direction,
    /// Direction from the second region to the first.
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

    /// Returns the round trip.
    pub fn round_trip(&self) -> Duration {
        self.there.shape().delay + self.back.shape().delay
    }

    /// Sets the round trip, half of it in each direction.
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
