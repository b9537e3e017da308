//! Work that is measured: which requests, from how many callers, and whether they wait for one another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

/// Keys that exist before anything is measured.
pub(crate) const KEYS: u64 = 100_000;
/// Counters of [`Work::Counters`].
pub(crate) const COUNTERS: u64 = 10_000;
/// Puts of a batch.
pub(crate) const BATCH: usize = 128;
/// Keys that a scan returns.
pub(crate) const SCANNED: usize = 100;
/// Length of a value. Values are random, so that no system gains by compression.
pub(crate) const VALUE_LEN: usize = 256;
/// Length of the time in a stamped value.
const STAMP_LEN: usize = 8;
/// Reads among a hundred requests of [`Work::MostlyReads`].
const READS_PERCENT: u32 = 95;
/// Exponent of the zipf distribution, as in YCSB.
const ZIPF_EXPONENT: f64 = 0.99;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Put,
    PutBatch,
    Get,
    GetStale,
    HotCounter,
    Counters,
    Txn,
    Scan,
    MostlyReads,
    OpenPut,
    Watch,
    Echo,
    Sync,
}

/// One request, in terms that every system has.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Overwrites a key.
    Put(u64),
    /// Overwrites a key with the time of the request as the first bytes of the value.
    PutStamped(u64),
    /// Overwrites keys at once, each only once.
    PutBatch(Vec<u64>),
    /// Reads a key, linearizable where the system can.
    Get(u64),
    /// Reads a key from any replica.
    GetStale(u64),
    /// Adds one to a counter and returns it.
    Increment(u64),
    /// Overwrites three keys at once if the first exists.
    Txn([u64; 3]),
    /// Reads a hundred keys with their values from this one on.
    Scan(u64),
    /// Sends a value and receives it.
    Echo,
    /// Writes a block to a file and waits until it is on the disk.
    Sync,
}

/// Work with its number of callers: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) work: Work,
    pub(crate) callers: usize,
    /// Requests a second of an open loop; 0 of a closed loop.
    pub(crate) rate: u32,
}

/// Rows of the table, in its order.
pub(crate) fn rows() -> Vec<Row> {
    let closed = |work, callers| Row { work, callers, rate: 0 };
    let open = |work, rate| Row {
        work,
        callers: 256,
        rate,
    };
    vec![
        closed(Work::Put, 1),
        closed(Work::Put, 16),
        closed(Work::Put, 64),
        closed(Work::Put, 256),
        closed(Work::PutBatch, 16),
        closed(Work::Get, 64),
        closed(Work::GetStale, 64),
        closed(Work::HotCounter, 64),
        closed(Work::Counters, 64),
        closed(Work::Txn, 64),
        closed(Work::Scan, 16),
        closed(Work::MostlyReads, 64),
        open(Work::OpenPut, 2_000),
        open(Work::Watch, 500),
        closed(Work::Echo, 64),
        closed(Work::Sync, 1),
    ]
}

impl Row {
    /// Returns the name in tables and options.
    pub(crate) fn name(self) -> String {
        let Self { work, callers, rate } = self;
        match work {
            Work::Put => format!("put, {callers}"),
            Work::PutBatch => format!("put in batches of {BATCH}, {callers}"),
            Work::Get => format!("get, {callers}"),
            Work::GetStale => format!("stale get, {callers}"),
            Work::HotCounter => format!("hot counter, {callers}"),
            Work::Counters => format!("10,000 counters, {callers}"),
            Work::Txn => format!("txn of 3, {callers}"),
            Work::Scan => format!("scan of {SCANNED}, {callers}"),
            Work::MostlyReads => format!("{READS_PERCENT} % reads, zipf, {callers}"),
            Work::OpenPut => format!("put at {rate} a second"),
            Work::Watch => format!("watch at {rate} puts a second"),
            Work::Echo => format!("echo, {callers}"),
            Work::Sync => format!("fdatasync, {callers}"),
        }
    }
}

/// Stream of one caller's requests.
pub(crate) struct Requests {
    work: Work,
    random: SmallRng,
    zipf: Zipf,
}

impl Requests {
    pub(crate) fn new(work: Work, caller: u64, zipf: Zipf) -> Self {
        Self {
            work,
            random: SmallRng::seed_from_u64(caller),
            zipf,
        }
    }

    /// Returns the next request.
    pub(crate) fn next(&mut self) -> Request {
        match self.work {
            Work::Put | Work::OpenPut => Request::Put(self.key()),
            Work::Watch => Request::PutStamped(self.key()),
            Work::PutBatch => Request::PutBatch(self.distinct(BATCH)),
            Work::Get => Request::Get(self.key()),
            Work::GetStale => Request::GetStale(self.key()),
            Work::HotCounter => Request::Increment(0),
            Work::Counters => Request::Increment(self.random.random_range(0..COUNTERS)),
            Work::Txn => {
                let mut keys = [0; 3];
                keys.copy_from_slice(&self.distinct(3));
                Request::Txn(keys)
            }
            Work::Scan => Request::Scan(self.random.random_range(0..KEYS - SCANNED as u64)),
            Work::MostlyReads => {
                let key = self.zipf.key(&mut self.random);
                if self.random.random_ratio(READS_PERCENT, 100) {
                    Request::Get(key)
                } else {
                    Request::Put(key)
                }
            }
            Work::Echo => Request::Echo,
            Work::Sync => Request::Sync,
        }
    }

    fn key(&mut self) -> u64 {
        self.random.random_range(0..KEYS)
    }

    /// Returns distinct keys in their order: systems that lock rows would wait in circles otherwise.
    fn distinct(&mut self, count: usize) -> Vec<u64> {
        let mut keys = std::collections::BTreeSet::new();
        while keys.len() < count {
            keys.insert(self.key());
        }
        keys.into_iter().collect()
    }
}

/// Zipf distribution of keys, popular ones scattered over the keyspace: the method of Gray et al., as in YCSB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipf {
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    pub(crate) fn new() -> Self {
        let zeta = |keys: u64| (1..=keys).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum::<f64>();
        let all = zeta(KEYS);
        Self {
            zeta: all,
            alpha: 1.0 / (1.0 - ZIPF_EXPONENT),
            eta: (1.0 - (2.0 / KEYS as f64).powf(1.0 - ZIPF_EXPONENT)) / (1.0 - zeta(2) / all),
        }
    }

    fn key(self, random: &mut SmallRng) -> u64 {
        let share: f64 = random.random();
        let scaled = share * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(ZIPF_EXPONENT) {
            1
        } else {
            (KEYS as f64 * (self.eta * share - self.eta + 1.0).powf(self.alpha)) as u64
        };
        // A prime that does not divide the number of keys: every rank has a key of its own.
        rank.min(KEYS - 1).wrapping_mul(2_654_435_761) % KEYS
    }
}

/// Random values, made once.
#[derive(Clone, Debug)]
pub(crate) struct Values(Arc<[Bytes]>);

impl Values {
    /// Number of different values.
    const COUNT: usize = 1_024;

    pub(crate) fn new() -> Self {
        let mut random = SmallRng::seed_from_u64(7);
        let value = |_| {
            let mut value = vec![0; VALUE_LEN];
            random.fill_bytes(&mut value);
            value.into()
        };
        Self((0..Self::COUNT).map(value).collect())
    }

    /// Returns a value; another one at each call with another number.
    pub(crate) fn get(&self, number: u64) -> Bytes {
        self.0[number as usize % Self::COUNT].clone()
    }

    /// Returns a value that begins with the time since `began`.
    pub(crate) fn stamped(&self, began: Instant) -> Bytes {
        let since = began.elapsed();
        let mut value = self.get(since.as_nanos() as u64).to_vec();
        value[..STAMP_LEN].copy_from_slice(&(since.as_nanos() as u64).to_be_bytes());
        value.into()
    }
}

/// Returns the time with which a value begins; `None`: it is no stamped one.
pub(crate) fn stamp(value: &[u8], began: Instant) -> Option<Instant> {
    let stamp = value.first_chunk::<STAMP_LEN>()?;
    began.checked_add(Duration::from_nanos(u64::from_be_bytes(*stamp)))
}

/// Returns a key's name.
pub(crate) fn key_name(key: u64) -> String {
    format!("key/{key:08}")
}

/// Returns a counter's name.
pub(crate) fn counter_name(counter: u64) -> String {
    format!("counter/{counter:08}")
}
