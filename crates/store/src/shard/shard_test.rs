//! Tests of a shard machine through restarts, power losses, snapshots and maintenance.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{self, AtomicUsize},
    },
};

use bytes::Bytes;
use proptest::prelude::*;
use stead_state::{
    codec::encode_entry,
    lineage::Lineage,
    rows::{GROUP_PREFIX_LEN, Order, Row, Unreadable, kind},
    shard::{
        ApplyResult,
        command::{
            Attach, BeginAttach, Condition, Create, Data, DataHeader, Effect, Erase, FeedRecords, Follow, Offset,
            Operation, RetentionFloor, Seed, Swap, Write,
        },
        read::Scan,
        record::{AttachNumber, LeaseLossPolicy, Role, TenantRecord},
    },
};
use stead_types::{
    ClientId, DirectoryVersion, Epoch, FeedOffset, GroupId, IdempotencyKey, Incarnation, Revision, Sequence,
    TenantNumber, TenantTime,
};

use super::{
    commands_fixture::{RandomCommand, random_command},
    *,
};
use crate::{
    background::Background,
    engine::{
        Engine, Kind, RowChange,
        memory::{Disk, DiskOperation},
    },
    machine::{CommittedEntry, Machine, Payload, Snapshot},
};

const HOME: GroupId = GroupId::new(1);
const FOLLOWER: GroupId = GroupId::new(2);

/// Machine with its disk and its log.
struct Node {
    group: GroupId,
    disk: Disk,
    machine: ShardMachine,
    log: Vec<CommittedEntry>,
    /// Index of the entry before the first of the log.
    log_start: u64,
}

fn open(disk: &Disk, group: GroupId) -> ShardMachine {
    ShardMachine::open(disk.open(), Arc::new(Background::inline()), group).unwrap()
}

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn begin_attach(number: u64, attempt: u64) -> Bytes {
    let begin = BeginAttach {
        tenant: tenant(number),
        home: HOME,
        incarnation: Incarnation::FIRST,
        epoch: Epoch::FIRST,
        version: version(1),
        number: AttachNumber(attempt),
    };
    begin.encode()
}

pub(super) fn tenant(number: u64) -> TenantNumber {
    TenantNumber::new(number)
}

pub(super) fn create(number: u64) -> Bytes {
    let create = Create {
        tenant: tenant(number),
        version: version(1),
        policy: LeaseLossPolicy::Stop,
    };
    create.encode()
}

fn put(number: u64, key: u8, value: u64) -> Bytes {
    let value_bytes = Bytes::copy_from_slice(&value.to_be_bytes());
    let operation = Operation::new(vec![b'k', key], Effect::put(value_bytes));
    let idempotency = (!value.is_multiple_of(3)).then_some(IdempotencyKey {
        client: ClientId(u128::from(value % 5)),
        sequence: value,
        first_sent: TenantTime(0),
    });
    Write::new(tenant(number), idempotency, operation).encode()
}

fn delete(number: u64, key: u8) -> Bytes {
    let operation = Operation {
        condition: Some(Condition::Exists),
        ..Operation::new(vec![b'k', key], Effect::Delete)
    };
    Write::new(tenant(number), None, operation).encode()
}

impl Node {
    fn new(group: GroupId) -> Self {
        let disk = Disk::default();
        Self {
            group,
            machine: open(&disk, group),
            disk,
            log: Vec::new(),
            log_start: 0,
        }
    }

    /// Applies one entry and returns its results.
    fn propose(&mut self, commands: &[Bytes]) -> Vec<ApplyResult> {
        let index = self.machine.applied().index + 1;
        let entry = CommittedEntry {
            index,
            log_id: Bytes::copy_from_slice(&index.to_be_bytes()),
            payload: Payload::Commands(encode_entry(1_000 + index, commands)),
        };
        self.log.push(entry.clone());
        let answers = self.machine.apply(vec![entry]).unwrap();
        answers.into_iter().flatten().collect()
    }

    /// Kills the node; the batches since the last checkpoint survive in part. Then the log is applied again.
    fn power_loss(&mut self, survivors: usize) {
        self.disk.power_loss(survivors);
        self.machine = open(&self.disk, self.group);
        let applied = self.machine.applied();
        assert_eq!(applied, self.machine.durable());
        let again = (applied.index - self.log_start) as usize;
        self.machine.apply(self.log[again..].to_vec()).unwrap();
    }

    fn state(&self) -> State {
        State::of(&self.machine)
    }
}

/// All state that a result can depend on.
#[derive(Debug, PartialEq)]
pub(super) struct State {
    records: Vec<(TenantNumber, TenantRecord)>,
    data: Vec<Vec<(Bytes, Revision, Bytes)>>,
    changes: Vec<Vec<Bytes>>,
    clients: Vec<String>,
    streams: String,
    feed: String,
    /// Current versions, tombstones too.
    current: Vec<(Bytes, Bytes)>,
}

impl State {
    pub(super) fn of(machine: &ShardMachine) -> Self {
        machine
            .read(|view| {
                let records: Vec<_> = view
                    .shard()
                    .records()
                    .map(|(number, record)| {
                        let mut record = record.clone();
                        // A node's own progress.
                        record.live.trimmed = Sequence::ZERO;
                        (number, record)
                    })
                    .collect();
                let tenants = records.iter().map(|(number, _)| *number);
                Self {
                    data: tenants.clone().map(|number| data(&view, number, None)).collect(),
                    changes: tenants.clone().map(|number| changes(&view, number)).collect(),
                    clients: tenants
                        .map(|number| format!("{:?}", view.shard().clients(number).unwrap().windows()))
                        .collect(),
                    streams: format!("{:?}", view.shard().streams()),
                    feed: format!("{:?}", view.feed(0, 1_000_000).unwrap()),
                    current: records
                        .iter()
                        .flat_map(|(number, record)| current(&view, *number, record))
                        .collect(),
                    records,
                }
            })
            .unwrap()
    }
}

fn current(view: &ReadView<'_>, number: TenantNumber, record: &TenantRecord) -> Vec<(Bytes, Bytes)> {
    let range = view
        .shard()
        .prefix()
        .copy(number, record.live.number)
        .range(kind::CURRENT);
    let rows = view
        .rows
        .range(&range.start..&range.end, Order::Ascending)
        .map(Result::unwrap);
    rows.map(|(key, value)| (key.slice(GROUP_PREFIX_LEN..), value))
        .collect()
}

fn data(view: &ReadView<'_>, number: TenantNumber, at: Option<Revision>) -> Vec<(Bytes, Revision, Bytes)> {
    let scan = Scan {
        start: Bytes::new(),
        end: None,
        order: Order::Ascending,
        keys_only: false,
        at,
        after: None,
        keys_max: 1_000,
        len_max: 1 << 20,
    };
    let page = view.reading(number).unwrap().scan(&scan).unwrap();
    let entries = page.entries.into_iter();
    entries
        .map(|(key, version)| (key, version.revision, version.value.bytes))
        .collect()
}

/// Changes from the floor on.
fn changes(view: &ReadView<'_>, number: TenantNumber) -> Vec<Bytes> {
    let reading = view.reading(number).unwrap();
    let found = reading
        .changes(reading.state().retention_floor, Sequence::MAX, usize::MAX)
        .unwrap();
    found.changes.iter().map(stead_state::rows::change::encode).collect()
}

/// Installs a machine's snapshot on a new node.
fn installed(snapshot: Snapshot, group: GroupId) -> Node {
    let mut node = Node::new(group);
    let index = snapshot.applied.index;
    node.machine.install(snapshot).unwrap();
    node.log_start = index;
    node
}

#[test]
fn put_is_read_after_restart_with_and_without_checkpoint() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    let answers = node.propose(&[put(1, 7, 70), put(1, 7, 71)]);
    assert!(matches!(&answers[1], ApplyResult::Write(written) if written.revision == "1.2".parse().unwrap()));
    node.power_loss(0);
    assert_eq!(node.state().data[0].len(), 1);
    node.machine.checkpoint().unwrap();
    let before = node.state();
    node.power_loss(0);
    assert_eq!(node.machine.applied().index, 2);
    assert_eq!(node.state(), before);
}

#[test]
fn maintenance_removes_nothing_while_snapshot_is_read() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..2_000 {
        node.propose(&[put(1, (value % 10) as u8, value)]);
    }
    let mut snapshot = node.machine.snapshot().unwrap();
    let before = node.state();
    let index = node.machine.applied().index;
    let first = snapshot.chunks.next().unwrap();
    let floor = RetentionFloor { index, tenants: vec![] };
    node.propose(&[floor.encode()]);
    let erase = Erase {
        tenant: tenant(1),
        version: version(9),
        deleted: true,
        forks: vec![],
    };
    node.propose(&[erase.encode()]);
    node.machine.checkpoint().unwrap();
    snapshot.chunks = Box::new(std::iter::once(first).chain(snapshot.chunks));
    let other = installed(snapshot, HOME);
    assert_eq!(other.state(), before);
    while node.machine.maintain().unwrap() {}
    node.machine.checkpoint().unwrap();
    let engine = node.disk.open();
    let rows = engine.range(&[0x11]..&[0x14], Order::Ascending).count();
    assert_eq!(rows, 0, "after the snapshot everything goes");
}

#[test]
fn maintenance_removes_nothing_during_install() {
    let mut from = Node::new(HOME);
    from.propose(&[create(1)]);
    // More than is sorted in memory at a time.
    for key in 0..40 {
        let operation = Operation::new(vec![b'k', key], Effect::put(noise(key, 512 << 10)));
        from.propose(&[Write::new(tenant(1), None, operation).encode()]);
    }
    let Snapshot { applied, chunks } = from.machine.snapshot().unwrap();
    let chunks: Vec<_> = chunks.collect();
    let last = chunks.len() - 1;
    assert!(last > 0, "the last chunk comes when others are written");
    let machine = Arc::new(open(&Disk::default(), HOME));
    let meanwhile = machine.clone();
    let sweep = move |(number, chunk)| {
        while number == last && meanwhile.maintain().unwrap() {}
        chunk
    };
    let chunks = Box::new(chunks.into_iter().enumerate().map(sweep));
    machine.install(Snapshot { applied, chunks }).unwrap();
    let state = |machine: &ShardMachine| machine.read(|view| data(&view, tenant(1), None));
    assert_eq!(state(&machine), state(&from.machine));
}

/// Bytes that cannot be compressed.
fn noise(seed: u8, len: usize) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn install_replaces_everything_and_leaves_no_old_rows() {
    let mut old = Node::new(HOME);
    old.propose(&[create(1), put(1, 1, 1), create(2), put(2, 1, 2)]);
    old.machine.checkpoint().unwrap();
    let mut new = Node::new(HOME);
    new.propose(&[create(3)]);
    for value in 0..10 {
        new.propose(&[put(3, value, u64::from(value))]);
    }
    for _ in 0..2 {
        old.machine.install(new.machine.snapshot().unwrap()).unwrap();
        assert_eq!(old.state(), new.state());
        assert_eq!(old.machine.durable(), new.machine.applied());
    }
    old.disk.power_loss(0);
    old.machine = open(&old.disk, HOME);
    assert_eq!(old.state(), new.state());
    while old.machine.maintain().unwrap() {}
    old.machine.checkpoint().unwrap();
    let engine = old.disk.open();
    let rows = engine
        .range(&[0x10]..&[0x20], Order::Ascending)
        .map(|row| row.unwrap().0);
    let installs: std::collections::BTreeSet<u8> = rows.map(|key| key[8]).collect();
    assert_eq!(installs.len(), 1, "only the last install is left");
}

/// Returns the commands of an entry that reads rows by key and by range, trims, erases and records outcomes.
fn entry_that_reads() -> Vec<Bytes> {
    let floor = RetentionFloor {
        index: 3,
        tenants: vec![],
    };
    vec![put(1, 1, 30), delete(1, 2), floor.encode(), put(1, 3, 31)]
}

fn node_with_data() -> Node {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..20 {
        node.propose(&[put(1, (value % 4) as u8, value)]);
    }
    node.machine.checkpoint().unwrap();
    node
}

#[test]
fn failed_read_in_apply_leaves_no_trace() {
    let mut whole = node_with_data();
    whole.propose(&entry_that_reads());
    let mut failures = 0;
    for after in 0.. {
        let mut node = node_with_data();
        let (before, durable) = (node.state(), node.machine.durable());
        let entry = CommittedEntry {
            index: durable.index + 1,
            log_id: Bytes::from_static(b"id"),
            payload: Payload::Commands(encode_entry(1_000 + durable.index + 1, &entry_that_reads())),
        };
        node.log.push(entry.clone());
        node.disk.fail_once(DiskOperation::Read, after);
        if node.machine.apply(vec![entry]).is_ok() {
            assert!(node.disk.will_fail(DiskOperation::Read));
            break;
        }
        failures += 1;
        let again = node.log.last().unwrap().clone();
        assert!(
            node.machine.apply(vec![again]).is_err(),
            "not even the same entry again"
        );
        assert!(node.machine.read(|_| ()).is_err());
        assert!(node.machine.checkpoint().is_err());
        assert!(node.machine.maintain().is_err());
        assert!(node.machine.snapshot().is_err());
        assert!(node.machine.install(whole.machine.snapshot().unwrap()).is_err());
        assert_eq!(node.machine.applied(), durable);
        // Stopped in order: whatever reached the disk is found again.
        let survivors = node.disk.pending();
        node.disk.power_loss(survivors);
        node.machine = open(&node.disk, HOME);
        assert_eq!((node.state(), node.machine.applied()), (before, durable));
        let again = node.log.last().unwrap().clone();
        node.machine.apply(vec![again]).unwrap();
        assert_eq!(node.state(), whole.state());
    }
    assert!(2 < failures, "{failures}");
}

#[test]
fn entry_out_of_order_is_not_applied() {
    for skip in [0, 2, 7] {
        let mut node = Node::new(HOME);
        node.propose(&[create(1)]);
        let mut entry = node.log[0].clone();
        entry.index = 1 + skip;
        entry.payload = Payload::Commands(encode_entry(2_000, &[put(1, 1, 1)]));
        let failed = node.machine.apply(vec![entry]).unwrap_err();
        let reason = failed.source.to_string();
        let expected = format!("entry {} is out of order: the last applied entry is 1", 1 + skip);
        assert_eq!(reason, expected);
        assert!(node.machine.read(|_| ()).is_err());
    }
}

#[test]
fn interrupted_install_number_is_never_reused() {
    // Invariant 4.
    let mut new = Node::new(HOME);
    new.propose(&[create(3)]);
    for value in 0..10 {
        new.propose(&[put(3, value, u64::from(value))]);
    }
    let mut interrupted = 0;
    for (operation, after) in [DiskOperation::Write, DiskOperation::Sync]
        .into_iter()
        .flat_map(|operation| (0..6).map(move |after| (operation, after)))
    {
        let mut old = Node::new(HOME);
        old.propose(&[create(1), put(1, 1, 1)]);
        old.machine.checkpoint().unwrap();
        old.disk.fail_once(operation, after);
        interrupted += u32::from(old.machine.install(new.machine.snapshot().unwrap()).is_err());
        let survivors = old.disk.pending();
        old.disk.power_loss(survivors);
        old.machine = open(&old.disk, HOME);
        // The rows that the install left are removed, but not durably, when the next one comes.
        while old.machine.maintain().unwrap() {}
        old.machine.install(new.machine.snapshot().unwrap()).unwrap();
        assert_eq!(old.state(), new.state(), "{operation:?} {after}");
        old.machine.checkpoint().unwrap();
        old.disk.power_loss(0);
        old.machine = open(&old.disk, HOME);
        assert_eq!(old.state(), new.state(), "{operation:?} {after}");
    }
    assert!(4 < interrupted, "{interrupted}");
}

#[test]
fn snapshot_has_no_windows_of_discarded_copies() {
    // Invariant 6.
    let mut node = Node::new(HOME);
    node.propose(&[create(1), create(2)]);
    for value in 0..10 {
        node.propose(&[put(1, 1, value), put(2, 1, value)]);
    }
    node.machine.checkpoint().unwrap();
    let erase = Erase {
        tenant: tenant(1),
        version: version(9),
        deleted: true,
        forks: vec![],
    };
    // Held back, maintenance has not come to the copy that is discarded when the second snapshot is cut.
    let pin = node.machine.snapshot().unwrap();
    node.propose(&[erase.encode()]);
    let cut = node.machine.snapshot().unwrap();
    drop(pin);
    let other = installed(cut, HOME);
    while other.machine.maintain().unwrap() {}
    other.machine.checkpoint().unwrap();
    let engine = other.disk.open();
    let kind = stead_state::rows::kind::CLIENT;
    let rows = engine.range(&[kind]..&[kind + 1], Order::Ascending);
    let tenants: std::collections::BTreeSet<u64> = rows
        .map(|row| u64::from_be_bytes(row.unwrap().0[9..17].try_into().unwrap()))
        .collect();
    assert_eq!(tenants, [2].into());
}

#[test]
fn swept_tombstone_is_not_current_after_install() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1), put(1, 1, 1), put(1, 2, 2)]);
    node.propose(&[delete(1, 1)]);
    // Held back, maintenance has not removed the delete itself when the second snapshot is cut.
    let pin = node.machine.snapshot().unwrap();
    let floor = RetentionFloor {
        index: node.machine.applied().index,
        tenants: vec![],
    };
    node.propose(&[floor.encode()]);
    let swept = node.state();
    assert_eq!(swept.current.len(), 1, "of the deleted key nothing is current");
    let other = installed(node.machine.snapshot().unwrap(), HOME);
    drop(pin);
    assert_eq!(other.state(), swept);
}

#[test]
fn truncated_snapshot_changes_nothing() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1), put(1, 1, 1)]);
    let before = node.state();
    let mut cut = node.machine.snapshot().unwrap();
    cut.chunks = Box::new(std::iter::empty());
    assert!(node.machine.install(cut).is_err());
    assert_eq!(node.state(), before);
}

/// Creates many tenants, each with a client's window.
fn many_tenants(node: &mut Node) {
    for number in 1..=TENANTS {
        node.propose(&[create(number), put(number, 1, 1), put(number, 2, 2)]);
    }
}

const TENANTS: u64 = 3_000;

/// Invariant 6.
#[test]
fn slowly_read_snapshot_is_consistent_with_its_cut() {
    let mut node = Node::new(HOME);
    many_tenants(&mut node);
    node.machine.checkpoint().unwrap();
    let mut snapshot = node.machine.snapshot().unwrap();
    let (before, index) = (node.state(), node.machine.applied().index);
    let mut chunks = Vec::new();
    for round in 0..3 {
        for number in (1..=TENANTS).step_by(7) {
            let value = 10 * (round + 1) + number % 5;
            node.propose(&[put(number, 1, value), delete(number, 2), put(number, 3, value + 1)]);
        }
        node.propose(&[create(TENANTS + 1 + round), put(TENANTS + 1 + round, 1, 7)]);
        let floor = RetentionFloor {
            index: index + 100 * (round + 1),
            tenants: vec![],
        };
        node.propose(&[floor.encode()]);
        node.machine.checkpoint().unwrap();
        // Another one, of which nothing is read.
        drop(node.machine.snapshot().unwrap());
        chunks.extend(snapshot.chunks.next());
    }
    snapshot.chunks = Box::new(chunks.into_iter().chain(snapshot.chunks));
    let other = installed(snapshot, HOME);
    assert!(other.state() == before);
}

/// Invariant 6, also where a copy leaves memory.
#[test]
fn fork_leaves_earlier_snapshot_unchanged() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..400 {
        node.propose(&[put(1, 1, value)]);
    }
    let snapshot = node.machine.snapshot().unwrap();
    let start = snapshot.applied.index as usize;
    for value in 400..800 {
        node.propose(&[put(1, 1, value)]);
    }
    let mut lineage = Lineage::starting(Epoch::FIRST);
    lineage.record_promotion(Epoch::FIRST.next().unwrap(), Sequence::new(10).unwrap());
    let follow = Follow {
        tenant: tenant(1),
        version: version(9),
        home: FOLLOWER,
        epoch: Epoch::FIRST.next().unwrap(),
        lineage,
    };
    node.propose(&[follow.encode()]);
    let mut other = installed(snapshot, HOME);
    for entry in node.log[start..].iter().cloned() {
        other.machine.apply(vec![entry]).unwrap();
    }
    assert_eq!(other.state(), node.state());
    let windows = |node: &mut Node| {
        node.machine.checkpoint().unwrap();
        let engine = node.disk.open();
        let rows = engine.range(&[kind::CLIENT]..&[kind::CLIENT + 1], Order::Ascending);
        let rows = rows.map(|row| row.map(|(key, value)| (key.slice(GROUP_PREFIX_LEN..), value)).unwrap());
        rows.collect::<Vec<_>>()
    };
    let expected = windows(&mut node);
    assert!(!expected.is_empty());
    assert_eq!(windows(&mut other), expected);
}

/// Engine that counts the rows that are read.
struct CountingEngine {
    engine: Arc<dyn Engine>,
    rows: Arc<AtomicUsize>,
}

impl Engine for CountingEngine {
    fn kind(&self) -> Kind {
        self.engine.kind()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.rows.fetch_add(1, atomic::Ordering::Relaxed);
        self.engine.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let rows = self.engine.range(range, order);
        Box::new(rows.inspect(|_| {
            self.rows.fetch_add(1, atomic::Ordering::Relaxed);
        }))
    }

    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> std::io::Result<()> {
        self.engine.write(batch)
    }

    fn checkpoint(&self) -> std::io::Result<()> {
        self.engine.checkpoint()
    }

    fn disk_len(&self) -> u64 {
        self.engine.disk_len()
    }
}

/// Invariant 6: applying never waits for a read of rows, whatever the group holds.
#[test]
fn snapshot_cut_reads_no_rows() {
    let mut node = Node::new(HOME);
    many_tenants(&mut node);
    node.machine.checkpoint().unwrap();
    let rows = Arc::new(AtomicUsize::new(0));
    let engine = CountingEngine {
        engine: node.disk.open(),
        rows: rows.clone(),
    };
    let machine = ShardMachine::open(Arc::new(engine), Arc::new(Background::inline()), HOME).unwrap();
    rows.store(0, atomic::Ordering::Relaxed);
    let snapshot = machine.snapshot().unwrap();
    assert_eq!(
        rows.load(atomic::Ordering::Relaxed),
        0,
        "rows looked at while applying waits"
    );
    assert!(snapshot.chunks.map(Result::unwrap).count() > 1);
    assert!(rows.load(atomic::Ordering::Relaxed) > 3 * TENANTS as usize);
}

/// Step of the random test.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, u8, u64),
    Delete(u64, u8),
    Propose(u64, RandomCommand),
    Floor,
    Checkpoint,
    PowerLoss(usize),
    Snapshot,
    Seed(u64),
    Chunks(u64),
    Swap(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let number = 1u64..3;
    prop_oneof![
        8 => (number.clone(), 0u8..6, 0u64..40).prop_map(|(number, key, value)| Step::Put(number, key, value)),
        3 => (number.clone(), 0u8..6).prop_map(|(number, key)| Step::Delete(number, key)),
        8 => (number.clone(), random_command()).prop_map(|(number, command)| Step::Propose(number, command)),
        1 => Just(Step::Floor),
        1 => Just(Step::Checkpoint),
        1 => (0usize..3).prop_map(Step::PowerLoss),
        1 => Just(Step::Snapshot),
        1 => number.clone().prop_map(Step::Seed),
        3 => number.clone().prop_map(Step::Chunks),
        2 => number.prop_map(Step::Swap),
    ]
}

/// Home, and a follower fed from it entry by entry; both crash and are replaced by snapshots.
struct World {
    home: Node,
    follower: Node,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            home: Node::new(HOME),
            follower: Node::new(FOLLOWER),
        };
        for number in [1, 2] {
            world.home.propose(&[create(number)]);
            let lineage = world.lineage(number);
            let follow = Follow {
                tenant: tenant(number),
                version: version(1),
                home: HOME,
                epoch: Epoch::FIRST,
                lineage: lineage.clone(),
            };
            let attach = Attach {
                tenant: tenant(number),
                home: HOME,
                epoch: Epoch::FIRST,
                version: version(1),
                number: AttachNumber(1),
                position: Revision::ZERO,
                lineage,
            };
            let begin = begin_attach(number, 1);
            let answers = world.follower.propose(&[follow.encode(), begin, attach.encode()]);
            assert_eq!(answers, [ApplyResult::Done, ApplyResult::Done, ApplyResult::Done]);
        }
        world
    }

    fn at_follower(&self, number: u64) -> TenantRecord {
        let machine = &self.follower.machine;
        machine
            .read(|view| view.record(tenant(number)).unwrap().clone())
            .unwrap()
    }

    fn lineage(&self, number: u64) -> stead_state::lineage::Lineage {
        self.home
            .machine
            .read(|view| view.record(tenant(number)).unwrap().lineage.clone())
            .unwrap()
    }

    /// Sends the follower the entries that it lacks.
    fn feed(&mut self) {
        let index = self
            .follower
            .machine
            .read(|view| view.shard().stream(HOME).index)
            .unwrap();
        let commands = self
            .home
            .machine
            .read(|view| {
                let mut commands = Vec::new();
                for (at, feed) in view.feed(index, 10).unwrap() {
                    for touched in feed.touched {
                        let reading = view.reading(touched.tenant).unwrap();
                        let after = Revision::new(Epoch::FIRST, Sequence::new(touched.first.get() - 1).unwrap());
                        let found = reading.changes(after, touched.last, usize::MAX).unwrap();
                        let head = DataHeader {
                            tenant: touched.tenant,
                            home: HOME,
                            epoch: Epoch::FIRST,
                            version: version(1),
                            attach: self.at_follower(touched.tenant.get()).attach,
                        };
                        let records = FeedRecords {
                            changes: found.changes,
                            digests: Some(reading.state().digests),
                            retention_floor: reading.state().retention_floor,
                        };
                        let data = Data { head, records };
                        commands.push(data.encode());
                    }
                    let offset = FeedOffset {
                        incarnation: Incarnation::FIRST,
                        index: at,
                    };
                    commands.push(Offset { home: HOME, offset }.encode());
                }
                commands
            })
            .unwrap();
        if commands.is_empty() {
            return;
        }
        for answer in self.follower.propose(&commands) {
            if let ApplyResult::Data(fed) = answer {
                assert_eq!(fed.detached, None);
            } else {
                assert_eq!(answer, ApplyResult::Done);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(number, key, value) => {
                self.home.propose(&[put(number, key, value)]);
            }
            Step::Delete(number, key) => {
                self.home.propose(&[delete(number, key)]);
            }
            Step::Propose(number, command) => {
                self.home.propose(&[command.encode(tenant(number))]);
            }
            Step::Floor => {
                let index = self.home.machine.applied().index;
                self.home.propose(&[RetentionFloor { index, tenants: vec![] }.encode()]);
            }
            Step::Checkpoint => {
                self.home.machine.checkpoint().unwrap();
                self.follower.machine.checkpoint().unwrap();
            }
            Step::PowerLoss(survivors) => {
                let before = (self.home.state(), self.follower.state());
                self.home.power_loss(survivors);
                self.follower.power_loss(survivors);
                assert_eq!((self.home.state(), self.follower.state()), before);
            }
            Step::Snapshot => {
                for node in [&mut self.home, &mut self.follower] {
                    let other = installed(node.machine.snapshot().unwrap(), node.group);
                    assert_eq!(other.state(), node.state());
                    *node = other;
                }
            }
            Step::Seed(number) => self.seed(number),
            Step::Chunks(number) => self.chunks(number),
            Step::Swap(number) => self.swap(number),
        }
        self.feed();
    }

    fn seed(&mut self, number: u64) {
        let first = self
            .home
            .machine
            .read(|view| view.record(tenant(number)).unwrap().live.revision)
            .unwrap();
        let seed = Seed {
            tenant: tenant(number),
            home: HOME,
            epoch: Epoch::FIRST,
            version: version(1),
            number: self.at_follower(number).seeds.next(),
            first,
            lineage: self.lineage(number),
        };
        let begin = begin_attach(number, self.at_follower(number).attach.next().0);
        let answers = self.follower.propose(&[seed.encode(), begin]);
        assert_eq!(answers, [ApplyResult::Done, ApplyResult::Done]);
    }

    fn chunks(&mut self, number: u64) {
        let (shadow, loaded) = self
            .follower
            .machine
            .read(|view| {
                let shadow = view.record(tenant(number)).unwrap().shadow.clone();
                (shadow, view.shard().clients_loaded(tenant(number)))
            })
            .unwrap();
        let (Some(shadow), Some(loaded)) = (shadow, loaded) else {
            return;
        };
        let chunks = self
            .home
            .machine
            .read(|view| {
                let reading = view.reading(tenant(number)).unwrap();
                let changes = reading.chunk_of_changes(shadow.loaded, shadow.seed, 100).unwrap();
                let clients = reading.chunk_of_clients(loaded, 40);
                let done = loaded.is_complete();
                let parts = [
                    (shadow.loaded < shadow.seed.sequence()).then_some(changes),
                    (!done).then_some(clients),
                ];
                let chunk = |part| stead_state::shard::command::Chunk {
                    tenant: tenant(number),
                    home: HOME,
                    epoch: Epoch::FIRST,
                    number: shadow.number,
                    read_at: reading.state().revision,
                    part,
                };
                parts
                    .into_iter()
                    .flatten()
                    .map(|part| chunk(part).encode())
                    .collect::<Vec<_>>()
            })
            .unwrap();
        for answer in self.follower.propose(&chunks) {
            assert_eq!(answer, ApplyResult::Done);
        }
    }

    fn swap(&mut self, number: u64) {
        let whole = self
            .follower
            .machine
            .read(|view| {
                let record = view.record(tenant(number)).unwrap();
                record.shadow.as_ref().is_some_and(|shadow| shadow.is_complete())
            })
            .unwrap();
        let state = self
            .home
            .machine
            .read(|view| view.record(tenant(number)).unwrap().live.clone())
            .unwrap();
        let swap = Swap {
            tenant: tenant(number),
            home: HOME,
            epoch: Epoch::FIRST,
            version: version(1),
            number: self.at_follower(number).seeds,
            revision: state.revision,
            digests: state.digests,
        };
        let answers = self.follower.propose(&[swap.encode()]);
        assert_eq!(answers == [ApplyResult::Done], whole, "{answers:?}");
    }

    /// Checks that the follower equals the home.
    fn check(&self) {
        let (home, follower) = (self.home.state(), self.follower.state());
        assert_eq!(home.data, follower.data);
        assert_eq!(home.clients, follower.clients);
        for ((_, at_home), (_, here)) in home.records.iter().zip(&follower.records) {
            assert_eq!(here.role, Role::Follower { home: HOME });
            assert!(!here.suspect);
            let figures = |record: &TenantRecord| {
                let live = &record.live;
                (live.revision, live.digests, live.keys, live.len, live.time, live.edge)
            };
            assert_eq!(figures(at_home), figures(here));
        }
        self.check_history();
    }

    /// Checks that reads of older revisions agree where both have the history.
    fn check_history(&self) {
        for number in [1, 2].map(tenant) {
            let state = |node: &Node| {
                node.machine
                    .read(|view| view.record(number).unwrap().live.clone())
                    .unwrap()
            };
            let (home, follower) = (state(&self.home), state(&self.follower));
            let from = home
                .retention_floor
                .max(follower.retention_floor)
                .sequence()
                .get()
                .max(1);
            for sequence in from..=home.revision.sequence().get() {
                let at = Some(Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap()));
                let read = |node: &Node| node.machine.read(|view| data(&view, number, at)).unwrap();
                assert_eq!(read(&self.home), read(&self.follower), "at {sequence}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn follower_equals_home_through_crashes_snapshots_and_seeds(steps in prop::collection::vec(steps(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.check();
    }
}

#[test]
fn entry_with_unknown_command_is_rejected_whole() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    let entry = CommittedEntry {
        index: 2,
        log_id: Bytes::from_static(b"2"),
        payload: Payload::Commands(encode_entry(1_002, &[put(1, 1, 1), Bytes::from_static(b"\xc8?")])),
    };
    let before = node.state();
    let failed = node.machine.apply(vec![entry]).unwrap_err();
    assert!(
        chain(&failed).contains("log entry 2 holds a command of kind 200 that stead"),
        "{}",
        chain(&failed)
    );
    node.power_loss(0);
    assert_eq!(node.state(), before);
    assert_eq!(node.machine.applied().index, 1);
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "nested read of a machine"))]
fn nested_read_of_a_machine_panics_in_debug_builds() {
    // Invariant 5.
    let machine = open(&Disk::default(), HOME);
    let other = open(&Disk::default(), FOLLOWER);
    machine.read(|_| other.read(|_| ()).unwrap()).unwrap();
    machine.read(|_| ()).unwrap();
    machine
        .read(|state| {
            machine
                .read(|again| assert_eq!(state.applied(), again.applied()))
                .unwrap()
        })
        .unwrap();
}
