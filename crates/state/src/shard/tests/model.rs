//! A tenant as a plain list of changes.

use std::collections::BTreeMap;

use stead_types::{Epoch, Revision, Sequence, TenantTime};

use crate::{
    rows::change::Value,
    shard::{answer::Version, digest},
};

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) revision: Revision,
    pub(super) create: Revision,
    pub(super) version: u64,
    pub(super) expires: Option<u64>,
    pub(super) value: Vec<u8>,
}

/// What a change makes of a key: bytes and expiry, or nothing.
pub(super) type Effect = (Vec<u8>, Option<(Vec<u8>, Option<u64>)>);

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) effects: Vec<Effect>,
    /// The tenant's time.
    pub(super) time: u64,
    /// Where its entry stands in the log.
    pub(super) index: u64,
}

/// All that ever happened to a tenant.
#[derive(Default)]
pub(super) struct Model {
    pub(super) changes: Vec<Change>,
    /// Where the entry being applied stands in the log.
    pub(super) applying: u64,
}

pub(super) fn at(sequence: usize) -> Revision {
    Revision::new(Epoch::FIRST, Sequence::new(sequence as u64).unwrap())
}

impl Model {
    pub(super) fn revision(&self) -> Revision {
        match self.changes.len() {
            0 => Revision::ZERO,
            len => at(len),
        }
    }

    /// Returns what all keys held at a revision.
    pub(super) fn as_of(&self, revision: Revision) -> BTreeMap<Vec<u8>, Held> {
        let mut keys: BTreeMap<Vec<u8>, Held> = BTreeMap::new();
        let until = revision.sequence().get() as usize;
        for (number, change) in self.changes.iter().take(until).enumerate() {
            let revision = at(number + 1);
            for (key, value) in &change.effects {
                let before = keys.remove(key);
                if let Some((value, expires)) = value.clone() {
                    let held = Held {
                        revision,
                        create: before.as_ref().map_or(revision, |held| held.create),
                        version: before.map_or(0, |held| held.version) + 1,
                        expires,
                        value,
                    };
                    keys.insert(key.clone(), held);
                }
            }
        }
        keys
    }

    pub(super) fn now(&self) -> BTreeMap<Vec<u8>, Held> {
        self.as_of(self.revision())
    }

    pub(super) fn change(&mut self, effects: Vec<Effect>, time: u64) -> Revision {
        let index = self.applying;
        self.changes.push(Change { effects, time, index });
        self.revision()
    }

    /// Returns when a change was made.
    pub(super) fn time_of(&self, revision: Revision) -> u64 {
        self.changes[revision.sequence().get() as usize - 1].time
    }

    /// Returns the tenant's time.
    pub(super) fn time(&self) -> TenantTime {
        TenantTime(self.changes.last().map_or(0, |change| change.time))
    }

    /// Returns where the last change stands in the log.
    pub(super) fn index(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.index)
    }

    /// Returns the digest of the keys, built anew.
    pub(super) fn digest_of_keys(&self) -> u128 {
        let now = self.now();
        let hash = |(key, held): (&Vec<u8>, &Held)| {
            let version = version(held.clone());
            digest::of_key(key, &version.value, version.revision)
        };
        now.iter().map(hash).fold(0, u128::wrapping_add)
    }
}

pub(super) fn version(held: Held) -> Version {
    let value = Value {
        create: held.create,
        version: held.version,
        expires: held.expires.map(TenantTime),
        bytes: held.value.into(),
    };
    Version {
        revision: held.revision,
        value,
    }
}
