//! Expired keys are invisible although nothing has removed them yet.

use bytes::Bytes;
use stead_types::{Condition, Revision, Sequence, TenantTime};

use super::group::{Group, TENANT};
use crate::{
    rows::change::Cause,
    shard::{
        ApplyResult,
        apply_result::WriteOutput,
        command::{Branches, Comparison, DeleteRange, EXPIRED_MAX, Effect, Increment, Operation, Step, Txn, Write},
    },
};

/// Time of the put; its 400 ms end at `END`.
const PUT: u64 = 1_000;
const TTL: u64 = 400;
const END: u64 = PUT + TTL;

fn write(group: &mut Group, time: u64, operation: Operation) -> ApplyResult {
    group.apply(time, Write::new(TENANT, None, operation).encode())
}

fn put(group: &mut Group, key: impl Into<Bytes>, ttl: Option<u64>) {
    let value = "7".into();
    let put = write(group, PUT, Operation::new(key, Effect::Put { value, ttl }));
    assert!(matches!(put, ApplyResult::Write(_)));
}

fn holding(keys: &[&'static str]) -> Group {
    let mut group = Group::owner();
    keys.iter().for_each(|key| put(&mut group, *key, Some(TTL)));
    group
}

fn increment() -> Operation {
    let increment = Increment {
        delta: 1,
        ..Increment::default()
    };
    Operation::new("k", Effect::Increment(increment))
}

fn number(answer: &ApplyResult) -> Option<i64> {
    let ApplyResult::Write(written) = answer else {
        return None;
    };
    match written.output? {
        WriteOutput::Number(number) => Some(number),
        WriteOutput::Length(_) => None,
    }
}

fn causes(group: &Group, after: u64) -> Vec<(u64, Cause, usize)> {
    let after = Revision::new(group.record().epoch, Sequence::new(after).unwrap());
    let changes = group
        .reading()
        .changes(after, Sequence::MAX, usize::MAX)
        .unwrap()
        .changes;
    let mut causes: Vec<(u64, Cause, usize)> = Vec::new();
    for change in changes {
        let sequence = change.revision.sequence().get();
        match causes.last_mut().filter(|(last, ..)| *last == sequence) {
            Some((_, _, effects)) => *effects += 1,
            None => causes.push((sequence, change.cause, 1)),
        }
    }
    causes
}

#[test]
fn increment_of_expired_key_starts_at_zero() {
    let mut group = holding(&["k"]);
    assert_eq!(number(&write(&mut group, END - 1, increment())), Some(8));
    assert_eq!(number(&write(&mut group, END, increment())), Some(1));
    assert_eq!(causes(&group, 2), [(3, Cause::Expiry, 1), (4, Cause::Write, 1)]);
    let version = group.reading().get(b"k", None).unwrap().unwrap();
    assert_eq!(
        (version.value.version, version.value.expires),
        (1, None),
        "a key of its own, without an end"
    );
    assert_eq!(version.value.create.sequence().get(), 4);
    assert_eq!(group.shard.first_due(), None);
}

#[test]
fn conditions_on_expired_key_find_no_key() {
    let conditional = |condition| Operation {
        condition: Some(condition),
        ..Operation::new("k", Effect::put("new"))
    };
    let mut group = holding(&["k"]);
    let held = group.record().live.revision;
    let absent = write(&mut group, END - 1, conditional(Condition::Absent));
    assert!(matches!(absent, ApplyResult::ConditionFailed { current, .. } if current == held));
    for condition in [
        Condition::Exists,
        Condition::modified_at(held),
        Condition::value_equals("7"),
    ] {
        let mut group = holding(&["k"]);
        let answer = write(&mut group, END, conditional(condition));
        // The removal is what it was evaluated at.
        let at = group.record().live.evaluation_point();
        assert_eq!((at.revision.sequence().get(), at.time), (2, TenantTime(END)));
        let current = Revision::ZERO;
        assert_eq!(answer, ApplyResult::ConditionFailed { current, at });
    }
    let put = write(&mut group, END, conditional(Condition::Absent));
    assert!(matches!(put, ApplyResult::Write(_)), "{put:?}");
    let mut group = holding(&["k"]);
    let delete = write(&mut group, END, Operation::new("k", Effect::Delete));
    assert!(matches!(delete, ApplyResult::Unchanged(at) if at.revision.sequence().get() == 2));
}

#[test]
fn transaction_removes_expired_keys_in_bounded_changes() {
    let mut group = Group::owner();
    let key = |number: usize| Bytes::from(format!("k{number:05}"));
    let keys = 2 * EXPIRED_MAX + 5;
    (0..keys).for_each(|number| put(&mut group, key(number), Some(TTL)));
    put(&mut group, "other", Some(TTL));
    let compare = |number| Comparison {
        key: key(number),
        condition: Condition::Absent,
    };
    let branches = Branches {
        compares: (0..EXPIRED_MAX).map(compare).collect(),
        then: (EXPIRED_MAX..2 * EXPIRED_MAX)
            .map(|number| Step::Get(key(number)))
            .collect(),
        otherwise: (2 * EXPIRED_MAX..keys).map(|number| Step::Get(key(number))).collect(),
    };
    let before = group.record().live.revision.sequence().get();
    let ApplyResult::Txn(done) = group.apply(END, Txn::new(TENANT, None, branches).encode()) else {
        panic!("it was executed");
    };
    assert!(done.succeeded && !done.changed);
    assert_eq!(done.at.revision, group.record().live.revision);
    let removed = [512, 512, 5].into_iter().zip(before + 1..);
    let removed: Vec<_> = removed.map(|(effects, at)| (at, Cause::Expiry, effects)).collect();
    assert_eq!(causes(&group, before), removed);
    assert_eq!(group.record().live.keys, 1, "what it does not name waits for its turn");
}

#[test]
fn range_deletion_does_not_count_expired_keys() {
    let mut group = holding(&["a", "b", "c"]);
    put(&mut group, "bb", None);
    let range = DeleteRange::new(TENANT, None, "a".into(), Some("c".into()));
    let ApplyResult::DeleteRange(deleted) = group.apply(END, range.encode()) else {
        panic!("it was executed");
    };
    assert_eq!((deleted.keys, deleted.next), (1, None));
    assert_eq!(causes(&group, 4), [(5, Cause::Expiry, 2), (6, Cause::Write, 1)]);
    assert_eq!(group.record().live.keys, 1);
}

#[test]
fn followers_and_older_revisions_ignore_expiry() {
    let mut group = holding(&["k"]);
    let mut follower = Group::follower(&group);
    let held = group.record().live.revision;
    write(&mut group, END, increment());
    let data = group.data(Revision::ZERO, Sequence::MAX);
    assert!(matches!(follower.apply(0, data.encode()), ApplyResult::Data(fed) if fed.detached.is_none()));
    for group in [&group, &follower] {
        let version = group.reading().get(b"k", Some(held)).unwrap().unwrap();
        assert_eq!(version.value.bytes, "7");
    }
    let now = TenantTime(u64::MAX);
    assert_eq!(
        follower.reading().expired_keys(&["k".into()], now).unwrap(),
        Vec::<Bytes>::new()
    );
}

#[test]
fn expired_keys_of_a_read_are_found() {
    let mut group = holding(&["a", "k", "x"]);
    put(&mut group, "l", None);
    let keys = ["a", "l", "none", "x"].map(Bytes::from);
    let past = |at| group.reading().expired_keys(&keys, TenantTime(at)).unwrap();
    assert_eq!(past(END - 1), Vec::<Bytes>::new());
    assert_eq!(past(END), ["a", "x"].map(Bytes::from));
    let in_range = |start: &str, end: Option<&str>, at| {
        let (start, end) = (start.as_bytes(), end.map(str::as_bytes));
        group.reading().may_have_expired(start, end, TenantTime(at)).unwrap()
    };
    assert!(!in_range("", None, END - 1));
    assert!(in_range("", None, END) && in_range("k", Some("l"), END));
    assert!(!in_range("l", Some("x"), END) && !in_range("y", None, END));
}
