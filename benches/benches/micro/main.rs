//! Micro benchmarks of the steps of a write and of a read: `cargo bench -p stead-benches --bench micro`.
//!
//! The machine is that of a group on fjall, with 100,000 keys of which a checkpoint was written: applying and reading cost
//! the same on a node, without network, Raft and log.

use std::{cell::Cell, fmt, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stead_state::{
    codec::{Entry, Reader, Writer, encode_entry},
    rows::{
        Order,
        chain::VersionChain,
        change::{Cause, Change, Value},
    },
    shard::{
        command::{Command, Create, Effect, Operation, Write},
        digest,
        read::{Scan, TenantReader},
        record::LeaseLossPolicy,
    },
};
use stead_store::{
    background::Background,
    engine::{self, Kind},
    machine::{CommittedEntry, Machine, Payload},
    shard::ShardMachine,
};
use stead_types::{DirectoryVersion, GroupId, Incarnation, Revision, TenantNumber, TenantTime};
use tempfile::TempDir;

const KEYS: u64 = 100_000;
/// Commands of an entry, as under load.
const ENTRY_COMMANDS: u64 = 64;
const SCANNED: usize = 100;
const VALUE: [u8; 256] = [7; 256];
const TENANT: TenantNumber = TenantNumber::new(1);
/// Step from key to key: a prime, so that all are visited.
const STRIDE: u64 = 7_919;

criterion_group!(benches, codec, machine);
criterion_main!(benches);

/// Machine with its folder.
struct Loaded {
    machine: ShardMachine,
    next: Cell<u64>,
    _folder: TempDir,
}

impl Loaded {
    fn new(is_cached: bool) -> Self {
        let folder = ok(tempfile::tempdir());
        let rows = ok(engine::open(Kind::Fjall, folder.path()));
        let rows = if is_cached { engine::cached(rows) } else { rows };
        let background = Arc::new(Background::inline());
        let loaded = Self {
            machine: ok(ShardMachine::open(rows, background, GroupId::new(1))),
            next: Cell::new(0),
            _folder: folder,
        };
        let create = Create {
            tenant: TENANT,
            version: DirectoryVersion {
                incarnation: Incarnation::FIRST,
                index: 1,
            },
            policy: LeaseLossPolicy::Stop,
        };
        loaded.apply(&[create.encode()]);
        for first in (0..KEYS).step_by(ENTRY_COMMANDS as usize) {
            let puts: Vec<Bytes> = (first..first + ENTRY_COMMANDS).map(put).collect();
            loaded.apply(&puts);
        }
        ok(loaded.machine.checkpoint());
        loaded
    }

    fn apply(&self, commands: &[Bytes]) {
        let index = self.machine.applied().index + 1;
        let entry = CommittedEntry {
            index,
            log_id: Bytes::copy_from_slice(&index.to_be_bytes()),
            payload: Payload::Commands(encode_entry(1_000 + index, commands)),
        };
        ok(self.machine.apply(vec![entry]));
    }

    /// Returns the next key: all in turn, neighbours far apart.
    fn key(&self) -> u64 {
        self.next.set((self.next.get() + STRIDE) % KEYS);
        self.next.get()
    }

    fn read<T>(&self, read: impl FnOnce(TenantReader<'_>) -> T) -> T {
        ok(self
            .machine
            .read(|view| read(view.reading(TENANT).expect("the tenant was created"))))
    }
}

fn ok<T, E: fmt::Debug>(outcome: Result<T, E>) -> T {
    outcome.expect("a bench on a working disk")
}

fn key(number: u64) -> Bytes {
    format!("key/{number:08}").into()
}

fn put(number: u64) -> Bytes {
    Write::new(TENANT, None, Operation::new(key(number), Effect::put(VALUE.as_slice()))).encode()
}

fn change() -> Change {
    let revision: Revision = "1.7".parse().expect("a revision");
    Change {
        revision,
        effect: 0,
        more: false,
        cause: Cause::Write,
        time: TenantTime(1_000),
        previous: None,
        chain: VersionChain::default(),
        outcome: None,
        operation: None,
        origin: None,
        key: key(7),
        value: Some(Value {
            create: revision,
            version: 1,
            expires: None,
            bytes: Bytes::from_static(&VALUE),
        }),
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(ENTRY_COMMANDS));
    let puts: Vec<Bytes> = (0..ENTRY_COMMANDS).map(put).collect();
    group.bench_function("encode 64 puts", |bencher| {
        bencher.iter(|| {
            let puts: Vec<Bytes> = (0..ENTRY_COMMANDS).map(put).collect();
            encode_entry(1_000, &puts)
        });
    });
    let entry = encode_entry(1_000, &puts);
    group.bench_function("decode 64 puts", |bencher| {
        bencher.iter(|| ok(ok(Entry::parse(entry.clone())).decode(1, Command::decode)));
    });
    group.finish();
    let change = change();
    let mut group = criterion.benchmark_group("change");
    group.bench_function("encode for feed", |bencher| {
        bencher.iter(|| {
            let mut writer = Writer::with_capacity(512);
            change.encode_for_feed(&mut writer);
            writer.finish()
        });
    });
    let mut writer = Writer::with_capacity(512);
    change.encode_for_feed(&mut writer);
    let sent = writer.finish();
    group.bench_function("decode from feed", |bencher| {
        bencher.iter(|| ok(Change::decode_from_feed(&mut Reader::new(sent.clone(), "change"))));
    });
    let value = change.value.as_ref().expect("it is a put");
    group.bench_function("digest", |bencher| {
        bencher.iter(|| digest::of_key(&change.key, value, change.revision));
    });
    group.finish();
}

fn machine(criterion: &mut Criterion) {
    for (name, is_cached) in [("machine with row cache", true), ("machine without", false)] {
        let loaded = Loaded::new(is_cached);
        let mut group = criterion.benchmark_group(name);
        group.bench_function("get", |bencher| {
            bencher.iter(|| {
                let found = loaded.read(|reading| ok(reading.get(&key(loaded.key()), None)));
                assert!(found.is_some(), "every key exists");
            });
        });
        group.throughput(Throughput::Elements(SCANNED as u64));
        group.bench_function("scan of 100", |bencher| {
            bencher.iter(|| {
                let scan = Scan {
                    start: key(loaded.key() % (KEYS - SCANNED as u64)),
                    end: None,
                    order: Order::Ascending,
                    keys_only: false,
                    at: None,
                    after: None,
                    keys_max: SCANNED,
                    len_max: usize::MAX,
                };
                let page = loaded.read(|reading| ok(loaded.machine.scan(&reading, &scan)));
                assert_eq!(page.entries.len(), SCANNED);
            });
        });
        group.throughput(Throughput::Elements(ENTRY_COMMANDS));
        group.bench_function("apply 64 puts", |bencher| {
            bencher.iter(|| {
                let puts: Vec<Bytes> = (0..ENTRY_COMMANDS).map(|_| put(loaded.key())).collect();
                loaded.apply(&puts);
            });
        });
        group.finish();
    }
}
