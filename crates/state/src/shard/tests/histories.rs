//! Random histories of a tenant, as commands for its home.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use stead_types::{ClientId, IdempotencyKey, Revision, TenantTime};

use super::group::{Group, TENANT};
use crate::shard::command::{Branches, DeleteRange, Effect, Expire, Operation, RetentionFloor, Step, Txn, Write};

/// Event in the life of the tenant.
#[derive(Clone, Debug)]
pub(super) enum Happens {
    /// A put, with a time to live, by a client with idempotency keys or by one without.
    Put(u8, u8, Option<u64>, Option<u8>),
    Delete(u8),
    /// A transaction of puts and deletes.
    Txn(BTreeMap<u8, Option<u8>>, Option<u8>),
    DeleteRange(u8, u8),
    Expire,
    /// Idle time, in milliseconds.
    Passes(u64),
    /// The retention floor follows up to so many changes behind.
    Floor(u64),
    Maintain,
    Reopen,
}

pub(super) fn histories(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Happens>> {
    let key = || 0u8..4;
    let client = || prop::option::of(0u8..3);
    let ttl = prop::option::weighted(0.3, prop_oneof![Just(5u64), Just(40), Just(100_000)]);
    let value = prop::option::weighted(0.6, any::<u8>());
    let one = prop_oneof![
        8 => (key(), any::<u8>(), ttl, client()).prop_map(|(key, value, ttl, by)| Happens::Put(key, value, ttl, by)),
        4 => key().prop_map(Happens::Delete),
        4 => (prop::collection::btree_map(key(), value, 1..5), client()).prop_map(|(steps, by)| Happens::Txn(steps, by)),
        1 => (key(), key()).prop_map(|(from, to)| Happens::DeleteRange(from, to)),
        2 => Just(Happens::Expire),
        1 => prop_oneof![Just(70_000u64), Just(700_000)].prop_map(Happens::Passes),
        2 => (0u64..8).prop_map(Happens::Floor),
        1 => Just(Happens::Maintain),
        1 => Just(Happens::Reopen),
    ];
    prop::collection::vec(one, len)
}

/// Clock and counter of what happened.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub(super) time: u64,
    sent: u64,
    /// Whether idempotency keys are left out.
    pub(super) is_anonymous: bool,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            time: 1_000,
            sent: 0,
            is_anonymous: false,
        }
    }

    fn key(&self, client: Option<u8>, at: TenantTime) -> Option<IdempotencyKey> {
        let client = client.filter(|_| !self.is_anonymous)?;
        Some(IdempotencyKey {
            client: ClientId(u128::from(client)),
            sequence: self.sent,
            first_sent: at,
        })
    }

    /// Returns the command by which something happens, or does it; `home` is any replica of the home.
    pub(super) fn command(&mut self, home: &mut Group, happens: &Happens) -> Option<Bytes> {
        self.time += 10;
        self.sent += 1;
        let now = home.record().live.time;
        Some(match happens {
            Happens::Put(key, value, ttl, client) => {
                let value = vec![*value; 3].into();
                let operation = Operation::new(vec![*key], Effect::Put { value, ttl: *ttl });
                Write::new(TENANT, self.key(*client, now), operation).encode()
            }
            Happens::Delete(key) => Write::new(TENANT, None, Operation::new(vec![*key], Effect::Delete)).encode(),
            Happens::Txn(steps, client) => {
                let step = |(key, value): (&u8, &Option<u8>)| {
                    let effect = value.map_or(Effect::Delete, |value| Effect::put(vec![value; 2]));
                    Step::Write(Operation::new(vec![*key], effect))
                };
                let branches = Branches {
                    then: steps.iter().map(step).collect(),
                    ..Branches::default()
                };
                Txn::new(TENANT, self.key(*client, now), branches).encode()
            }
            Happens::DeleteRange(from, to) => {
                DeleteRange::new(TENANT, None, vec![*from].into(), Some(vec![*to].into())).encode()
            }
            Happens::Expire => Expire { tenant: TENANT }.encode(),
            Happens::Floor(behind) => {
                let last = home.record().live.revision;
                let sequence = last.sequence().get().saturating_sub(*behind);
                let floor = home
                    .reading()
                    .revision_of(stead_types::Sequence::new(sequence).unwrap())
                    .unwrap();
                let tenants = if floor == Revision::ZERO {
                    vec![]
                } else {
                    vec![(TENANT, floor)]
                };
                RetentionFloor { index: 0, tenants }.encode()
            }
            Happens::Passes(millis) => {
                self.time += millis;
                return None;
            }
            Happens::Maintain => {
                home.maintain();
                return None;
            }
            Happens::Reopen => {
                home.reopen();
                return None;
            }
        })
    }
}
