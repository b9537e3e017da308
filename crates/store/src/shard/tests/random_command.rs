//! Random commands of callers, for tests.

use bytes::Bytes;
use proptest::prelude::*;
use stead_state::shard::command::{
    Branches, Comparison, Condition, DeleteRange, Effect, Expire, Increment, Operation, Step, Txn, Write,
};
use stead_types::{ClientId, IdempotencyKey, TenantNumber, TenantTime};

/// Command on one of six keys; about half of them have an idempotency key, some of which were used before.
#[derive(Clone, Debug)]
pub(super) struct RandomCommand {
    kind: RandomCommandKind,
    idempotency: Option<IdempotencyKey>,
}

#[derive(Clone, Debug)]
enum RandomCommandKind {
    Write(u8, Effect, Option<Condition>),
    Txn(Branches),
    DeleteRange(u8, u8),
    Expire,
}

impl RandomCommand {
    /// Encodes the command for a tenant.
    pub(super) fn encode(&self, tenant: TenantNumber) -> Bytes {
        match &self.kind {
            RandomCommandKind::Write(key, effect, condition) => {
                let operation = Operation {
                    condition: condition.clone(),
                    previous: true,
                    ..Operation::new(name(*key), effect.clone())
                };
                Write::new(tenant, self.idempotency, operation).encode()
            }
            RandomCommandKind::Txn(branches) => Txn::new(tenant, self.idempotency, branches.clone()).encode(),
            RandomCommandKind::DeleteRange(from, to) => {
                DeleteRange::new(tenant, self.idempotency, name(*from), Some(name(*to))).encode()
            }
            RandomCommandKind::Expire => Expire { tenant }.encode(),
        }
    }
}

fn name(key: u8) -> Bytes {
    vec![b'k', key].into()
}

/// Generates random commands.
pub(super) fn random_command() -> impl Strategy<Value = RandomCommand> {
    let key = || 0u8..6;
    let write = (key(), effects(), prop::option::weighted(0.3, conditions()));
    let branch = || {
        let step = (key(), prop::option::weighted(0.8, effects()));
        prop::collection::vec(step, 0..4).prop_map(steps)
    };
    let compares = prop::collection::vec((key(), conditions()), 0..3);
    let txn = (compares, branch(), branch()).prop_map(|(compares, then, otherwise)| {
        let compare = |(key, condition)| Comparison {
            key: name(key),
            condition,
        };
        RandomCommandKind::Txn(Branches {
            compares: compares.into_iter().map(compare).collect(),
            then,
            otherwise,
        })
    });
    let kind = prop_oneof![
        8 => write.prop_map(|(key, effect, condition)| RandomCommandKind::Write(key, effect, condition)),
        4 => txn,
        1 => (key(), key()).prop_map(|(from, to)| RandomCommandKind::DeleteRange(from, to)),
        2 => Just(RandomCommandKind::Expire),
    ];
    let idempotency = prop::option::of((0u128..3, 0u64..40).prop_map(|(client, sequence)| IdempotencyKey {
        client: ClientId(client),
        sequence,
        first_sent: TenantTime(0),
    }));
    (kind, idempotency).prop_map(|(kind, idempotency)| RandomCommand { kind, idempotency })
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
        (0u8..10).prop_map(|digit| Condition::value_equals(vec![b'0' + digit])),
    ]
}

/// Builds the steps of a branch, which has each key once.
fn steps(mut chosen: Vec<(u8, Option<Effect>)>) -> Vec<Step> {
    chosen.sort_by_key(|(key, _)| *key);
    chosen.dedup_by_key(|(key, _)| *key);
    let step = |(key, effect): (u8, Option<Effect>)| match effect {
        None => Step::Get(name(key)),
        Some(effect) => Step::Write(Operation::new(name(key), effect)),
    };
    chosen.into_iter().map(step).collect()
}
