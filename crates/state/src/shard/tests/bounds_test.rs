//! What one command, one change and one chunk may hold at most.

use bytes::Bytes;
use stead_types::{
    Sequence,
    limits::{CHANGE_LEN_MAX, VALUE_LEN_MAX},
};

use super::group::{Group, TENANT, version};
use crate::shard::{
    Answer,
    answer::{Refusal, Unfit},
    command::{Branches, Effect, Erase, Floor, Increment, Operation, Part, Step, Txn, Write},
};

fn write(group: &mut Group, operation: Operation) {
    let write = Write::new(TENANT, None, operation);
    assert!(matches!(group.apply(1, write.encode()), Answer::Written(_)));
}

fn txn(group: &mut Group, operations: Vec<Operation>) -> Answer {
    let branches = Branches {
        then: operations.into_iter().map(Step::Write).collect(),
        ..Branches::default()
    };
    group.apply(2, Txn::new(TENANT, None, branches).encode())
}

#[test]
fn a_transaction_that_appends_to_long_values_is_bounded_by_what_they_become() {
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
    let Answer::TxnRefused { step, why, .. } = txn(&mut group, (0..keys).map(append).collect()) else {
        panic!("it is too much");
    };
    let len = (keys * (VALUE_LEN_MAX + key(0).len())) as u64;
    assert_eq!((step, why), (keys - 1, Refusal::Unfit(Unfit::ChangeTooLong { len })));
    assert_eq!(group.record(), &before);
    assert!(matches!(
        txn(&mut group, (1..keys).map(append).collect()),
        Answer::Txn(_)
    ));
}

#[test]
fn a_seed_of_changes_that_lost_their_first_effect_goes_in_chunks() {
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
        assert!(matches!(txn(&mut group, vec![count, put]), Answer::Txn(_)));
    }
    let floor = Floor {
        index: group.index,
        tenants: vec![],
    };
    group.apply(3, floor.encode());
    group.maintain();
    let seed = group.record().live.revision;
    let (mut after, mut keys, mut chunks) = (Sequence::ZERO, 0, 0);
    while after < seed.sequence() {
        let Part::Changes { up_to, changes, .. } = group.reading().chunk_of_changes(after, seed, 1_000).unwrap() else {
            panic!("changes were asked for");
        };
        assert!(changes.len() < 20, "{}", changes.len());
        (after, keys, chunks) = (up_to, keys + changes.len(), chunks + 1);
    }
    assert_eq!(keys, 101);
    assert!(chunks > 5, "{chunks}");
}

#[test]
fn nothing_of_an_erased_tenant_is_due() {
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
    };
    assert_eq!(group.apply(2, erase.encode()), Answer::Done);
    assert_eq!(group.shard.first_due(), None);
}
