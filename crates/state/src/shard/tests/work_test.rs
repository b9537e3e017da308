//! Bounds of the rows that are read: one response and one entry read few, whatever history a tenant has.

use bytes::Bytes;
use stead_types::{ClientId, IdempotencyKey, Revision, Sequence, TenantTime};

use super::group::{Group, TENANT};
use crate::shard::{
    ApplyResult,
    apply::{ROWS_MAX, SWEPT_ROWS_PER_ENTRY},
    apply_result::StepResult,
    command::{Branches, DeleteRange, Effect, Increment, Operation, RANGE_KEYS_MAX, RetentionFloor, Step, Txn, Write},
};

/// Number of versions of the counter.
const VERSIONS: u64 = 30_000;
/// Most rows that reading one version may take: `rows::chain`, invariant 1, of five levels, and the current version.
const LOOKED_AT_MAX: usize = 5 * crate::rows::chain::STEPS_PER_LEVEL as usize + 1;

fn increment() -> Operation {
    let by_one = Increment {
        delta: 1,
        ..Increment::default()
    };
    Operation::new("counter", Effect::Increment(by_one))
}

fn count(group: &mut Group, times: u64) {
    for _ in 0..times {
        let counted = group.apply(1, Write::new(TENANT, None, increment()).encode());
        assert!(matches!(counted, ApplyResult::Write(_)));
    }
}

fn at(sequence: u64) -> Revision {
    Revision::new(stead_types::Epoch::FIRST, Sequence::new(sequence).unwrap())
}

fn assert_reads(group: &Group, sequence: u64) {
    group.rows.looked_at();
    let version = group.reading().get(b"counter", Some(at(sequence))).unwrap().unwrap();
    assert_eq!(version.revision, at(sequence));
    assert_eq!(version.value.bytes, Bytes::from(sequence.to_string()));
    let looked_at = group.rows.looked_at();
    assert!(
        looked_at <= LOOKED_AT_MAX,
        "{looked_at} rows for version {sequence} of {VERSIONS}"
    );
}

#[test]
fn reading_old_version_takes_few_rows() {
    let mut group = Group::owner();
    count(&mut group, VERSIONS);
    for sequence in (1..VERSIONS).step_by(331).chain([VERSIONS - 1, VERSIONS]) {
        assert_reads(&group, sequence);
    }
    assert_eq!(group.reading().get(b"counter", Some(at(0))).unwrap(), None);
    let half = VERSIONS / 2;
    let floor = RetentionFloor {
        index: 0,
        tenants: vec![(TENANT, at(half))],
    };
    group.apply(1, floor.encode());
    group.maintain();
    count(&mut group, 100);
    for sequence in (half..VERSIONS + 100).step_by(331) {
        assert_reads(&group, sequence);
    }
}

#[test]
fn repeat_of_old_transaction_takes_few_rows() {
    let mut group = Group::owner();
    count(&mut group, VERSIONS / 2);
    let idempotency = IdempotencyKey {
        client: ClientId(1),
        sequence: 1,
        first_sent: TenantTime(0),
    };
    let branches = Branches {
        then: vec![
            Step::Get("counter".into()),
            Step::Write(Operation::new("k", Effect::put("v"))),
        ],
        ..Branches::default()
    };
    let txn = Txn::new(TENANT, Some(idempotency), branches).encode();
    let results = |answer: ApplyResult| {
        let ApplyResult::Txn(done) = answer else {
            panic!("{answer:?}")
        };
        done.results.unwrap()
    };
    let first = results(group.apply(1, txn.clone()));
    count(&mut group, VERSIONS / 2);
    group.rows.looked_at();
    let again = results(group.apply(1, txn));
    let looked_at = group.rows.looked_at();
    assert!(looked_at <= LOOKED_AT_MAX + 10, "{looked_at} rows for a repeat");
    assert_eq!(again, first);
    assert!(matches!(&again[0], StepResult::Get(Some(got)) if got.revision == at(VERSIONS / 2)));
}

fn put(group: &mut Group, key: String) {
    let put = Write::new(TENANT, None, Operation::new(key, Effect::put("v")));
    assert!(matches!(group.apply(1, put.encode()), ApplyResult::Write(_)));
}

fn range() -> DeleteRange {
    DeleteRange::new(TENANT, None, "k".into(), Some("l".into()))
}

/// Deletes a range in steps. Returns how many keys were deleted, and the most rows that a step read.
fn delete_range(group: &mut Group) -> (u64, usize) {
    let (mut step, mut keys, mut most) = (range(), 0, 0);
    loop {
        group.rows.looked_at();
        let ApplyResult::DeleteRange(deleted) = group.apply(1, step.encode()) else {
            panic!("the range is deleted");
        };
        most = most.max(group.rows.looked_at());
        keys += deleted.keys;
        match deleted.next {
            Some(next) => step = DeleteRange::new(TENANT, None, next, Some("l".into())),
            None => return (keys, most),
        }
    }
}

/// Raises the tenant's retention floor to its last change.
fn raise_floor(group: &mut Group) {
    let floor = RetentionFloor {
        index: 0,
        tenants: vec![(TENANT, group.record().live.revision)],
    };
    group.apply(1, floor.encode());
}

const TOMBSTONES: usize = 5 * ROWS_MAX;

/// A group with many deleted keys, and a live one after them.
fn full_of_tombstones(is_pinned: bool) -> Group {
    let mut group = Group::owner();
    group.is_pinned = is_pinned;
    (0..TOMBSTONES).for_each(|number| put(&mut group, format!("k{number:06}")));
    delete_range(&mut group);
    put(&mut group, "kz".into());
    group
}

#[test]
fn range_of_tombstones_is_deleted_in_bounded_steps() {
    for raised in [false, true] {
        let mut group = full_of_tombstones(false);
        if raised {
            raise_floor(&mut group);
        }
        let (keys, most) = delete_range(&mut group);
        assert_eq!(keys, 1);
        assert!(
            most <= ROWS_MAX + 3 * (SWEPT_ROWS_PER_ENTRY + RANGE_KEYS_MAX),
            "{most} rows in one step"
        );
    }
}

/// Maintenance, invariants 1 and 2.
#[test]
fn tombstones_are_swept_alike_in_all_replicas() {
    let mut replicas = [false, true].map(full_of_tombstones);
    replicas.iter_mut().for_each(raise_floor);
    let mut entries = 0;
    while !replicas[0].shard.to_sweep.is_empty() {
        for group in &mut replicas {
            group.rows.looked_at();
            put(group, "a".into());
            let looked_at = group.rows.looked_at();
            // Each change that is swept, and what is current at its key.
            assert!(
                looked_at <= 3 * (SWEPT_ROWS_PER_ENTRY + RANGE_KEYS_MAX),
                "{looked_at} rows in one entry"
            );
            if entries % 10 == 3 {
                group.reopen();
            }
        }
        entries += 1;
        assert!(
            replicas[0].current_rows() == replicas[1].current_rows(),
            "after {entries} entries"
        );
    }
    assert_eq!(replicas[0].current_rows().len(), 2, "tombstones are left");
    assert_eq!(replicas[0].record().live.swept, replicas[1].record().live.swept);
    let changes = |group: &Group| group.data_rows();
    assert!(changes(&replicas[0]) < 1_000, "{} rows", changes(&replicas[0]));
    assert!(
        changes(&replicas[1]) > 2 * TOMBSTONES,
        "nothing is removed while a snapshot is read"
    );
    replicas[1].is_pinned = false;
    replicas[1].maintain();
    assert!(changes(&replicas[1]) < 1_000);
}

/// A group in which a key was deleted, and the revision of the delete.
fn deleted_once() -> (Group, Revision) {
    let mut group = Group::owner();
    put(&mut group, "k".into());
    let delete = Write::new(TENANT, None, Operation::new("k", Effect::Delete));
    group.apply(1, delete.encode());
    let deleted = group.record().live.revision;
    (group, deleted)
}

fn is_there(group: &Group, at: Revision) -> bool {
    group.reading().get(b"k", Some(at)).unwrap().is_some()
}

#[test]
fn put_after_swept_delete_starts_new_chain() {
    let (mut group, deleted) = deleted_once();
    raise_floor(&mut group);
    assert!(
        group.current_rows().is_empty(),
        "swept with the entry that raised the floor"
    );
    put(&mut group, "k".into());
    assert!(!is_there(&group, deleted));
    assert!(is_there(&group, group.record().live.revision));
}

#[test]
fn key_is_absent_at_trimmed_delete() {
    let (mut group, deleted) = deleted_once();
    put(&mut group, "k".into());
    let floor = RetentionFloor {
        index: 0,
        tenants: vec![(TENANT, deleted)],
    };
    group.apply(1, floor.encode());
    group.maintain();
    assert_eq!(group.data_rows(), 2, "the last version alone is left");
    assert!(!is_there(&group, deleted));
    assert!(is_there(&group, group.record().live.revision));
}
