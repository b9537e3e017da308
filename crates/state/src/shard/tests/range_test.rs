//! Range deletions and expiries that are larger than one command.

use stead_types::{ClientId, IdempotencyKey, TenantTime};

use super::group::{Group, TENANT};
use crate::shard::{
    ApplyResult,
    apply::ROWS_MAX,
    apply_result::DeleteRangeResult,
    command::{DeleteRange, EXPIRED_MAX, Effect, Expire, Operation, RANGE_KEYS_MAX, Write},
    range_deletion::RangeDeletion,
};

const KEYS: usize = 2 * RANGE_KEYS_MAX + 2;

fn key(number: usize) -> Vec<u8> {
    format!("k{number:05}").into_bytes()
}

fn put(group: &mut Group, key: Vec<u8>, time: u64, ttl: Option<u64>) {
    let effect = Effect::Put { value: "v".into(), ttl };
    let write = Write::new(TENANT, None, Operation::new(key, effect));
    assert!(matches!(group.apply(time, write.encode()), ApplyResult::Write(_)));
}

fn delete(group: &mut Group, range: &DeleteRange) -> DeleteRangeResult {
    let answer = group.apply(1_000, range.encode());
    let ApplyResult::DeleteRange(deleted) = answer else {
        panic!("{answer:?}")
    };
    deleted
}

/// Returns a group with a live key after so many deleted ones that the range's first command does not reach it.
fn one_behind_deleted() -> Group {
    let mut group = Group::owner();
    for number in 0..=ROWS_MAX {
        put(&mut group, key(number), 1, None);
    }
    for number in 0..ROWS_MAX {
        let delete = Write::new(TENANT, None, Operation::new(key(number), Effect::Delete));
        group.apply(2, delete.encode());
    }
    group
}

/// Continues a range deletion to its end, and counts the steps.
fn go_on(group: &mut Group, begun: DeleteRangeResult) -> (RangeDeletion, usize) {
    let mut deletion = RangeDeletion::start(range(), begun);
    let mut steps = 0;
    while let Some(step) = deletion.next() {
        deletion.add(delete(group, &step));
        steps += 1;
    }
    (deletion, steps)
}

fn range() -> DeleteRange {
    let idempotency = IdempotencyKey {
        client: ClientId(1),
        sequence: 1,
        first_sent: TenantTime(0),
    };
    DeleteRange::new(TENANT, Some(idempotency), "k".into(), Some("l".into()))
}

#[test]
fn large_range_deletion_spares_changes_after_first_step() {
    let mut group = Group::owner();
    (0..KEYS).for_each(|number| put(&mut group, key(number), 1, None));
    put(&mut group, "j".into(), 1, None);
    put(&mut group, "l".into(), 1, None);

    let first = delete(&mut group, &range());
    assert_eq!((first.keys as usize, first.repeated), (RANGE_KEYS_MAX, false));
    assert_eq!(first.next.as_deref(), Some(key(RANGE_KEYS_MAX).as_slice()));
    put(&mut group, key(3), 2, None);
    put(&mut group, key(RANGE_KEYS_MAX), 2, None);

    // The answer was lost: the first step says again what it made, and the whole range is gone through.
    let again = delete(&mut group, &range());
    assert_eq!(
        (again.at.revision, again.keys, again.repeated),
        (first.at.revision, 0, true)
    );
    let (deletion, steps) = go_on(&mut group, again);
    assert_eq!((deletion.keys() as usize, steps), (KEYS - RANGE_KEYS_MAX - 1, 2));
    assert!(deletion.is_repeated());
    assert_eq!(deletion.revision(), first.at.revision);
    assert_eq!(deletion.last().revision, group.record().live.revision);
    let left: Vec<_> = [&b"j"[..], &key(3), &key(RANGE_KEYS_MAX), b"l"]
        .map(<[u8]>::to_vec)
        .into();
    let has = |key: &Vec<u8>| group.reading().get(key, None).unwrap().is_some();
    assert!(left.iter().all(has));
    assert_eq!(group.record().live.keys as usize, left.len());
}

/// Invariants 1 and 2 of range deletions.
#[test]
fn repeated_range_deletion_spares_later_writes() {
    let mut group = one_behind_deleted();
    let first = delete(&mut group, &range());
    assert_eq!((first.keys, first.next.as_deref()), (0, Some(key(ROWS_MAX).as_slice())));
    let (removed, steps) = go_on(&mut group, first);
    assert_eq!((removed.keys(), removed.changes(), steps), (1, 1, 1));
    assert_eq!(removed.revision(), group.record().live.revision);

    // The answer was lost, and others write before the repeat.
    put(&mut group, key(7), 3, None);
    put(&mut group, key(ROWS_MAX), 3, None);
    let again = delete(&mut group, &range());
    assert!(again.repeated);
    let (again, _) = go_on(&mut group, again);
    assert_eq!((again.keys(), again.is_complete()), (0, true));
    assert_eq!(again.revision(), removed.revision());
    assert_eq!(group.record().live.keys, 2);
}

#[test]
fn concurrent_range_deletions_under_one_key_delete_once() {
    let mut group = one_behind_deleted();
    let (one, other) = (delete(&mut group, &range()), delete(&mut group, &range()));
    let (one, _) = go_on(&mut group, one);
    put(&mut group, key(ROWS_MAX), 3, None);
    let (other, _) = go_on(&mut group, other);
    assert_eq!((one.keys(), other.keys()), (1, 0));
    assert_eq!(other.revision(), one.revision());
    assert!(other.is_complete() && other.is_repeated());
}

#[test]
fn empty_range_has_no_effect() {
    let mut group = Group::owner();
    put(&mut group, "a".into(), 1, None);
    let before = group.record().clone();
    let deleted = delete(&mut group, &range());
    assert_eq!((deleted.keys, deleted.next, deleted.repeated), (0, None, false));
    assert_eq!(group.record(), &before);
    let backwards = DeleteRange::new(TENANT, None, "z".into(), Some("a".into()));
    assert_eq!(delete(&mut group, &backwards).keys, 0);
}

#[test]
fn many_keys_expire_in_steps_when_due() {
    let mut group = Group::owner();
    (0..=EXPIRED_MAX).for_each(|number| put(&mut group, key(number), 1, Some(99)));
    put(&mut group, "later".into(), 1, Some(100));
    put(&mut group, "never".into(), 1, None);
    let expire = |group: &mut Group, time| group.apply(time, Expire { tenant: TENANT }.encode());
    assert_eq!(group.shard.first_due(), Some((TenantTime(100), TENANT)));
    assert!(matches!(expire(&mut group, 99), ApplyResult::Unchanged(_)));
    assert!(matches!(expire(&mut group, 100), ApplyResult::Write(_)));
    assert_eq!(group.record().live.keys, 3);
    assert!(matches!(expire(&mut group, 100), ApplyResult::Write(_)));
    assert_eq!(group.record().live.keys, 2);
    assert_eq!(group.shard.first_due(), Some((TenantTime(101), TENANT)));
    group.reopen();
    assert_eq!(group.shard.first_due(), Some((TenantTime(101), TENANT)));
    assert!(matches!(expire(&mut group, 101), ApplyResult::Write(_)));
    assert_eq!(group.shard.first_due(), None);
    assert!(group.reading().get(b"never", None).unwrap().is_some());
}

#[test]
fn put_and_delete_remove_old_expiry() {
    let mut group = Group::owner();
    put(&mut group, "a".into(), 1, Some(9));
    put(&mut group, "a".into(), 2, None);
    put(&mut group, "b".into(), 2, Some(8));
    let delete = Write::new(TENANT, None, Operation::new("b", Effect::Delete));
    group.apply(3, delete.encode());
    group.reopen();
    assert_eq!(group.shard.first_due(), None);
    assert!(matches!(
        group.apply(50, Expire { tenant: TENANT }.encode()),
        ApplyResult::Unchanged(_)
    ));
}
