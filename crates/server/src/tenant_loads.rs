//! Load of tenants at this node, in windows of ten seconds: what each asks for, how long that takes, and its hottest keys.
//!
//! ```text
//! answers ── record ──> current window ── complete ──> shown until the next one is ──> forgotten
//! ```
//!
//! # Invariants
//!
//! 1. Memory is bounded: tenants and keys beyond the bounds are not tracked in that window.
//! 2. What is shown is a complete window, so that rates are exact.
//! 3. The hottest keys are those of the space-saving algorithm (Metwally, Agrawal, El Abbadi: "Efficient computation of
//!    frequent and top-k elements in data streams", 2005): a key with more than one in [`KEYS_MAX`] of its tenant's
//!    operations is among them, and its count may be too high, never too low.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use parking_lot::Mutex;
use stead_api::{
    operation::{self, OperationKind, operation_kind},
    proto::v1::{Answer, Operation, answer::Response, operation::Request},
};
use tokio::time::Instant;

use crate::response;

/// Length of a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// Number of partitions of the tenants, each under its own lock.
const PARTITIONS: usize = 16;
/// Most tenants of a partition that are tracked in a window.
const TENANTS_MAX: usize = 256;
/// Number of counters of keys for each tenant.
const KEYS_MAX: usize = 16;
/// Most bytes of a key that are kept.
const KEY_LEN_MAX: usize = 256;

/// Load of one tenant in one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantLoad {
    /// Number of reads and scans that were answered.
    pub(crate) reads: u64,
    /// Number of writes that were answered.
    pub(crate) writes: u64,
    /// Bytes of their requests and of the data in their answers.
    pub(crate) bytes: u64,
    /// Keys that they have read or changed.
    pub(crate) rows: u64,
    /// Sum of the times from their arrival to their answer.
    pub(crate) time: Duration,
    /// Keys with the number of operations on each, in no order.
    pub(crate) keys: Vec<(Vec<u8>, u64)>,
}

/// Loads of all tenants at a node.
#[derive(Debug)]
pub(crate) struct TenantLoads {
    started: Instant,
    hasher: RandomState,
    partitions: [Mutex<Partition>; PARTITIONS],
}

/// The windows of some tenants.
#[derive(Debug, Default)]
struct Partition {
    current: Window,
    complete: Window,
}

#[derive(Debug, Default)]
struct Window {
    /// Its number since the start.
    number: u64,
    tenants: HashMap<String, TenantLoad>,
}

/// Load of one operation.
struct Sample<'a> {
    is_write: bool,
    bytes: u64,
    rows: u64,
    time: Duration,
    key: Option<&'a [u8]>,
}

impl TenantLoads {
    /// Returns loads of nothing.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            hasher: RandomState::new(),
            partitions: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Counts an operation that this node has answered, `time` after it arrived.
    pub(crate) fn record(&self, now: Instant, operation: &Operation, answer: &Answer, time: Duration) {
        let Some(request) = &operation.request else { return };
        let sample = Sample {
            is_write: operation_kind(request) == OperationKind::Write,
            bytes: operation::len(operation) as u64 + response::data_len(answer),
            rows: rows(answer),
            time,
            key: key(request),
        };
        self.add(now, operation::tenant(request), &sample);
    }

    fn add(&self, now: Instant, tenant: &str, sample: &Sample<'_>) {
        let at = usize::try_from(self.hasher.hash_one(tenant) % PARTITIONS as u64).unwrap_or_default();
        let mut partition = self.partitions[at].lock();
        partition.turn(self.window(now));
        let tenants = &mut partition.current.tenants;
        if let Some(load) = tenants.get_mut(tenant) {
            load.add(sample);
        } else if tenants.len() < TENANTS_MAX {
            let mut load = TenantLoad::default();
            load.add(sample);
            tenants.insert(tenant.to_owned(), load);
        }
    }

    /// Returns the tenants' loads in the last complete window.
    pub(crate) fn last_window(&self, now: Instant) -> Vec<(String, TenantLoad)> {
        let number = self.window(now);
        let mut loads = Vec::new();
        for partition in &self.partitions {
            let mut partition = partition.lock();
            partition.turn(number);
            let tenants = partition.complete.tenants.iter();
            loads.extend(tenants.map(|(tenant, load)| (tenant.clone(), load.clone())));
        }
        loads
    }

    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() / WINDOW.as_secs()
    }
}

impl Partition {
    /// Begins the window of this number, if it has not begun.
    fn turn(&mut self, number: u64) {
        if self.current.number >= number {
            return;
        }
        let fresh = |number| Window {
            number,
            tenants: HashMap::new(),
        };
        let ended = std::mem::replace(&mut self.current, fresh(number));
        // Windows between the two had no operation.
        self.complete = if ended.number + 1 == number {
            ended
        } else {
            fresh(number - 1)
        };
    }
}

impl TenantLoad {
    fn add(&mut self, sample: &Sample<'_>) {
        if sample.is_write {
            self.writes += 1;
        } else {
            self.reads += 1;
        }
        self.bytes += sample.bytes;
        self.rows += sample.rows;
        self.time += sample.time;
        if let Some(key) = sample.key {
            self.count_key(&key[..key.len().min(KEY_LEN_MAX)]);
        }
    }

    fn count_key(&mut self, key: &[u8]) {
        if let Some((_, count)) = self.keys.iter_mut().find(|(known, _)| known == key) {
            *count += 1;
        } else if self.keys.len() < KEYS_MAX {
            self.keys.push((key.to_vec(), 1));
        } else if let Some(rarest) = self.keys.iter_mut().min_by_key(|(_, count)| *count) {
            *rarest = (key.to_vec(), rarest.1 + 1);
        }
    }
}

/// Returns the key of an operation on a single one.
fn key(request: &Request) -> Option<&[u8]> {
    match request {
        Request::Get(request) => Some(&request.key),
        Request::Put(request) => Some(&request.key),
        Request::Delete(request) => Some(&request.key),
        Request::Increment(request) => Some(&request.key),
        Request::Append(request) => Some(&request.key),
        Request::BatchGet(_) | Request::Scan(_) | Request::Txn(_) | Request::DeleteRange(_) => None,
    }
}

/// Returns the number of keys that an operation has read or changed.
fn rows(answer: &Answer) -> u64 {
    match &answer.response {
        Some(
            Response::Get(_) | Response::Put(_) | Response::Delete(_) | Response::Increment(_) | Response::Append(_),
        ) => 1,
        Some(Response::BatchGet(got)) => got.results.len() as u64,
        Some(Response::Scan(page)) => page.items.len() as u64,
        Some(Response::Txn(txn)) => txn.results.len() as u64,
        Some(Response::DeleteRange(range)) => range.deleted,
        Some(Response::Error(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn write(key: &[u8]) -> Sample<'_> {
        Sample {
            is_write: true,
            bytes: 100,
            rows: 1,
            time: Duration::from_millis(2),
            key: Some(key),
        }
    }

    #[test]
    fn complete_window_is_shown_until_next_one_ends() {
        let start = Instant::now();
        let loads = TenantLoads::new(start);
        let writes = |second: u32| {
            let loads = loads.last_window(start + second * SECOND);
            loads.iter().map(|(_, load)| load.writes).sum::<u64>()
        };
        for second in [1, 2, 9] {
            loads.add(start + second * SECOND, "acme", &write(b"k"));
        }
        assert_eq!(writes(9), 0, "it is not complete");
        assert_eq!([writes(10), writes(19)], [3, 3]);
        assert_eq!(writes(20), 0, "nothing happened in the last one");
        loads.add(start + 25 * SECOND, "acme", &write(b"k"));
        assert_eq!([writes(30), writes(55)], [1, 0]);
    }

    #[test]
    fn load_is_summed_by_tenant() {
        let start = Instant::now();
        let loads = TenantLoads::new(start);
        let read = Sample {
            is_write: false,
            rows: 20,
            key: None,
            ..write(b"")
        };
        loads.add(start, "acme", &write(b"k"));
        loads.add(start, "acme", &read);
        loads.add(start, "globex", &read);
        let shown: HashMap<_, _> = loads.last_window(start + WINDOW).into_iter().collect();
        let acme = TenantLoad {
            reads: 1,
            writes: 1,
            bytes: 200,
            rows: 21,
            time: Duration::from_millis(4),
            keys: vec![(b"k".to_vec(), 1)],
        };
        assert_eq!(shown["acme"], acme);
        assert_eq!(shown["globex"].reads, 1);
    }

    #[test]
    fn hot_key_is_found_among_many_cold_ones() {
        let start = Instant::now();
        let loads = TenantLoads::new(start);
        for number in 0..1_000_u32 {
            loads.add(start, "acme", &write(&number.to_be_bytes()));
            if number % 4 == 0 {
                loads.add(start, "acme", &write(b"hot"));
            }
        }
        let shown = loads.last_window(start + WINDOW);
        let keys = &shown[0].1.keys;
        assert_eq!(keys.len(), KEYS_MAX);
        let hot = keys.iter().find(|(key, _)| key == b"hot").unwrap();
        assert!(hot.1 >= 250, "never too low: {}", hot.1);
    }

    #[test]
    fn tenants_and_key_lengths_are_bounded() {
        let start = Instant::now();
        let loads = TenantLoads::new(start);
        for number in 0..20_000 {
            loads.add(start, &format!("t{number}"), &write(&[7; 4_096]));
        }
        let shown = loads.last_window(start + WINDOW);
        assert_eq!(shown.len(), PARTITIONS * TENANTS_MAX);
        assert!(shown.iter().all(|(_, load)| load.keys[0].0.len() == KEY_LEN_MAX));
    }
}
