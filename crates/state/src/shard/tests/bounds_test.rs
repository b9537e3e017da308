//! Size limits of commands, changes and chunks.

use bytes::Bytes;
use stead_types::{
    Sequence,
    limits::{CHANGE_LEN_MAX, VALUE_LEN_MAX},
};

use super::group::{Group, TENANT, version};
use crate::shard::{
    ApplyResult,
    apply_result::{ValueError, WriteFailure},
    command::{Branches, ChunkContent, Effect, Erase, Increment, Operation, RetentionFloor, Step, Txn, Write},
};

fn write(group: &mut Group, operation: Operation) {
    let write = Write::new(TENANT, None, operation);
    assert!(matches!(group.apply(1, write.encode()), ApplyResult::Write(_)));
}

fn txn(group: &mut Group, operations: Vec<Operation>) -> ApplyResult {
    let branches = Branches {
        then: operations.into_iter().map(Step::Write).collect(),
        ..Branches::default()
    };
    group.apply(2, Txn::new(TENANT, None, branches).encode())
}

#[test]
fn transaction_of_appends_is_bounded_by_resulting_values() {
    let mut group = Group::owner();
    let keys = CHANGE_LEN_MAX / VALUE_LEN_MAX;
    let key = |number: usize| format!("k{number}");
    for number in 0..keys {
        let value = Bytes::from(vec![7; VALUE_LEN_MAX - 1]);
        write(&mut group, Operation::new(key(number), Effect::put(value)));
    }
    let append = |number| {
        let effect = Effect::Append {
            bytes: "x".into(),
            len_max: VALUE_LEN_MAX as u32,
        };
        Operation::new(key(number), effect)
    };
    let before = group.record().clone();
    let ApplyResult::TxnFailed { step, failure, .. } = txn(&mut group, (0..keys).map(append).collect()) else {
        panic!("it is too much");
    };
    let len = (keys * (VALUE_LEN_MAX + key(0).len())) as u64;
    assert_eq!(
        (step, failure),
        (keys - 1, WriteFailure::Value(ValueError::ChangeTooLong { len }))
    );
    assert_eq!(group.record(), &before);
    assert!(matches!(
        txn(&mut group, (1..keys).map(append).collect()),
        ApplyResult::Txn(_)
    ));
}

#[test]
fn changes_without_first_effect_are_seeded_in_chunks() {
    let mut group = Group::owner();
    for number in 0..100 {
        let count = Operation::new(
            "counter",
            Effect::Increment(Increment {
                delta: 1,
                ..Increment::default()
            }),
        );
        let put = Operation::new(format!("k{number:03}"), Effect::put("a value of some bytes"));
        assert!(matches!(txn(&mut group, vec![count, put]), ApplyResult::Txn(_)));
    }
    let floor = RetentionFloor {
        index: group.index,
        tenants: vec![],
    };
    group.apply(3, floor.encode());
    group.maintain();
    let seed = group.record().live.revision;
    let (mut after, mut keys, mut chunks) = (Sequence::ZERO, 0, 0);
    while after < seed.sequence() {
        let ChunkContent::Changes { up_to, changes, .. } =
            group.reading().chunk_of_changes(after, seed, 1_000).unwrap()
        else {
            panic!("changes were asked for");
        };
        assert!(changes.len() < 20, "{}", changes.len());
        (after, keys, chunks) = (up_to, keys + changes.len(), chunks + 1);
    }
    assert_eq!(keys, 101);
    assert!(chunks > 5, "{chunks}");
}

#[test]
fn erased_tenant_has_no_due_expiry() {
    let mut group = Group::owner();
    let effect = Effect::Put {
        value: "v".into(),
        ttl: Some(5),
    };
    write(&mut group, Operation::new("k", effect));
    assert!(group.shard.first_due().is_some());
    let erase = Erase {
        tenant: TENANT,
        version: version(9),
        deleted: true,
        forks: vec![],
        recorded: None,
    };
    assert_eq!(group.apply(2, erase.encode()), ApplyResult::Done);
    assert_eq!(group.shard.first_due(), None);
}
