//! Log index of a tenant's last change, which every response depends on.

use bytes::Bytes;
use stead_types::{ClientId, IdempotencyKey, Revision, Sequence, TenantTime, limits::RESPONSE_LEN_MAX};

use super::group::{Group, TENANT};
use crate::shard::{
    ApplyResult,
    apply_result::ValueError,
    command::{
        Branches, Condition, Create, DeleteRange, Effect, Expire, Increment, Operation, Rejoin, Step, Txn, Write,
    },
    record::LeaseLossPolicy,
};

fn put(key: &str, client: Option<u64>) -> Bytes {
    let key_of = |sequence| IdempotencyKey {
        client: ClientId(1),
        sequence,
        first_sent: TenantTime(0),
    };
    let operation = Operation::new(key.to_owned(), Effect::put("text"));
    Write::new(TENANT, client.map(key_of), operation).encode()
}

fn with(operation: Operation) -> Bytes {
    Write::new(TENANT, None, operation).encode()
}

/// Commands without effect on a tenant that holds `k` = text, written with the client's sequence 7.
fn without_effect() -> Vec<(&'static str, Bytes)> {
    let increment = Effect::Increment(Increment {
        delta: 1,
        ..Increment::default()
    });
    let bounded = Increment {
        delta: -1,
        floor: Some(0),
        ..Increment::default()
    };
    let conditional = Operation {
        condition: Some(Condition::Absent),
        ..Operation::new("k", Effect::put("other"))
    };
    let txn = |step| Branches {
        then: vec![step],
        ..Branches::default()
    };
    let get = Step::Get("k".into());
    let refused = Step::Write(Operation::new("k", increment.clone()));
    let late = IdempotencyKey {
        client: ClientId(1),
        sequence: 8,
        first_sent: TenantTime(u64::MAX),
    };
    vec![
        ("repeat", put("k", Some(7))),
        ("key reused", put("l", Some(7))),
        (
            "expired",
            Write::new(TENANT, Some(late), Operation::new("k", Effect::Delete)).encode(),
        ),
        ("condition failed", with(conditional)),
        ("unchanged", with(Operation::new("absent", Effect::Delete))),
        ("unfit", with(Operation::new("k", increment))),
        (
            "bound reached",
            with(Operation::new("number", Effect::Increment(bounded))),
        ),
        ("txn that reads", Txn::new(TENANT, None, txn(get)).encode()),
        ("txn refused", Txn::new(TENANT, None, txn(refused)).encode()),
        ("empty range", DeleteRange::new(TENANT, None, "x".into(), None).encode()),
        ("nothing expires", Expire { tenant: TENANT }.encode()),
    ]
}

#[test]
fn every_result_carries_log_index_of_last_change() {
    let mut home = Group::owner();
    assert_eq!(home.record().live.index, 0, "nothing was changed yet");
    let written = home.apply(1_000, put("k", Some(7)));
    assert_eq!(written.evaluation_point().map(|at| at.index), Some(home.index));
    let last = home.record().live.evaluation_point();
    assert_eq!((last.index, last.revision), (home.index, "1.1".parse().unwrap()));
    for (name, command) in without_effect() {
        let answer = home.apply(2_000, command);
        assert_eq!(answer.evaluation_point(), Some(last), "{name}: {answer:?}");
        assert_eq!(home.reading().evaluation_point(), last, "{name}");
    }
    home.reopen();
    assert_eq!(home.reading().evaluation_point(), last);
    let answer = home.apply(2_000, with(Operation::new("k", Effect::Delete)));
    let index = home.index;
    assert_eq!(answer.evaluation_point().map(|at| at.index), Some(index));
    assert_eq!(home.record().live.index, index);
}

#[test]
fn oversized_txn_result_carries_log_index() {
    let mut home = Group::owner();
    let values = RESPONSE_LEN_MAX as usize / (1 << 20) + 1;
    let key = |number| format!("k{number}");
    for number in 0..values {
        home.apply(1, with(Operation::new(key(number), Effect::put(vec![7; 1 << 20]))));
    }
    let then = (0..values).map(|number| Step::Get(key(number).into())).collect();
    let branches = Branches {
        then,
        ..Branches::default()
    };
    let last = home.record().live.evaluation_point();
    let answer = home.apply(1, Txn::new(TENANT, None, branches).encode());
    assert!(
        matches!(answer, ApplyResult::TxnTooLarge { at, .. } if at == last),
        "{answer:?}"
    );
}

#[test]
fn value_error_carries_reason_and_evaluation_point() {
    let mut home = Group::owner();
    home.apply(1, with(Operation::new("k", Effect::put("text"))));
    let increment = Effect::Increment(Increment {
        delta: 1,
        ..Increment::default()
    });
    let (error, at) = (ValueError::NotANumber, home.record().live.evaluation_point());
    assert_eq!(
        home.apply(1, with(Operation::new("k", increment))),
        ApplyResult::ValueError { error, at }
    );
}

#[test]
fn follower_records_index_of_own_log() {
    let home = {
        let mut home = Group::owner();
        for key in ["a", "b", "c"] {
            home.apply(1_000, put(key, None));
        }
        home
    };
    let mut follower = Group::follower(&home);
    follower.apply(0, home.data(Revision::ZERO, Sequence::MAX).encode());
    let index = follower.index;
    assert_eq!(follower.record().live.index, index);
    assert_ne!(index, home.record().live.index);
    follower.apply(0, home.data("1.1".parse().unwrap(), Sequence::MAX).encode());
    assert_eq!(
        follower.record().live.index,
        index,
        "a batch that brings nothing new changes nothing"
    );
}

#[test]
fn commands_of_other_tenants_keep_the_index() {
    let mut home = Group::owner();
    home.apply(1_000, put("k", None));
    let last = home.record().live.index;
    let other = Create {
        tenant: stead_types::TenantNumber::new(99),
        version: super::group::version(1),
        policy: LeaseLossPolicy::Stop,
    };
    assert_eq!(home.apply(1_000, other.encode()), ApplyResult::Done);
    let rejoin = Rejoin {
        tenant: TENANT,
        version: super::group::version(2),
    };
    assert_eq!(home.apply(1_000, rejoin.encode()).evaluation_point(), None);
    assert_eq!(home.record().live.index, last);
}
