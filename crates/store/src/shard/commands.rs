//! Random callers' commands, for tests.

use bytes::Bytes;
use proptest::prelude::*;
use stead_state::shard::command::{
    Branches, Compare, Condition, DeleteRange, Effect, Expire, Increment, Operation, Step, Txn, Write,
};
use stead_types::{ClientId, IdempotencyKey, TenantNumber, TenantTime};

/// A command about one of six keys; about half of them have an idempotency key, some of which were used before.
#[derive(Clone, Debug)]
pub(super) struct Said {
    what: What,
    idempotency: Option<IdempotencyKey>,
}

#[derive(Clone, Debug)]
enum What {
    Write(u8, Effect, Option<Condition>),
    Txn(Branches),
    DeleteRange(u8, u8),
    Expire,
}

impl Said {
    /// Returns its bytes, about a tenant.
    pub(super) fn encode(&self, tenant: TenantNumber) -> Bytes {
        match &self.what {
            What::Write(key, effect, condition) => {
                let operation = Operation {
                    condition: condition.clone(),
                    previous: true,
                    ..Operation::new(name(*key), effect.clone())
                };
                Write::new(tenant, self.idempotency, operation).encode()
            }
            What::Txn(branches) => Txn::new(tenant, self.idempotency, branches.clone()).encode(),
            What::DeleteRange(from, to) => {
                DeleteRange::new(tenant, self.idempotency, (name(*from), Some(name(*to)))).encode()
            }
            What::Expire => Expire { tenant }.encode(),
        }
    }
}

fn name(key: u8) -> Bytes {
    vec![b'k', key].into()
}

/// Returns random commands.
pub(super) fn said() -> impl Strategy<Value = Said> {
    let key = || 0u8..6;
    let write = (key(), effects(), prop::option::weighted(0.3, conditions()));
    let branch = || {
        let step = (key(), prop::option::weighted(0.8, effects()));
        prop::collection::vec(step, 0..4).prop_map(steps)
    };
    let compares = prop::collection::vec((key(), conditions()), 0..3);
    let txn = (compares, branch(), branch()).prop_map(|(compares, then, otherwise)| {
        let compare = |(key, condition)| Compare {
            key: name(key),
            condition,
        };
        What::Txn(Branches {
            compares: compares.into_iter().map(compare).collect(),
            then,
            otherwise,
        })
    });
    let what = prop_oneof![
        8 => write.prop_map(|(key, effect, condition)| What::Write(key, effect, condition)),
        4 => txn,
        1 => (key(), key()).prop_map(|(from, to)| What::DeleteRange(from, to)),
        2 => Just(What::Expire),
    ];
    let idempotency = prop::option::of((0u128..3, 0u64..40).prop_map(|(client, sequence)| IdempotencyKey {
        client: ClientId(client),
        sequence,
        first_sent: TenantTime(0),
    }));
    (what, idempotency).prop_map(|(what, idempotency)| Said { what, idempotency })
}

fn effects() -> impl Strategy<Value = Effect> {
    let ttl = prop::option::of(1u64..20);
    prop_oneof![
        4 => (any::<u8>(), ttl).prop_map(|(value, ttl)| Effect::Put { value: vec![b'0' + value % 10].into(), ttl }),
        2 => Just(Effect::Delete),
        2 => (-3i64..4).prop_map(|delta| Effect::Increment(Increment { delta, floor: Some(0), ..Increment::default() })),
        1 => any::<u8>().prop_map(|byte| Effect::Append { bytes: vec![byte].into(), len_max: 4 }),
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Exists),
        (0u8..10).prop_map(|digit| Condition::holds(vec![b'0' + digit])),
    ]
}

/// A branch has each key once.
fn steps(mut said: Vec<(u8, Option<Effect>)>) -> Vec<Step> {
    said.sort_by_key(|(key, _)| *key);
    said.dedup_by_key(|(key, _)| *key);
    let step = |(key, effect): (u8, Option<Effect>)| match effect {
        None => Step::Get(name(key)),
        Some(effect) => Step::Write(Operation::new(name(key), effect)),
    };
    said.into_iter().map(step).collect()
}
