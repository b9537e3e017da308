//! Model of a tenant: a plain list of changes.

use std::collections::BTreeMap;

use stead_types::{Epoch, Revision, Sequence, TenantTime};

use crate::{
    rows::change::Value,
    shard::{apply_result::Version, digest},
};

/// Content of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) revision: Revision,
    pub(super) create: Revision,
    pub(super) version: u64,
    pub(super) expires: Option<u64>,
    pub(super) value: Vec<u8>,
}

/// Effect of a change on a key: bytes and expiry, or a delete.
pub(super) type KeyEffect = (Vec<u8>, Option<(Vec<u8>, Option<u64>)>);

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) effects: Vec<KeyEffect>,
    /// Tenant time.
    pub(super) time: u64,
    /// Log index of its entry.
    pub(super) index: u64,
}

/// History of a tenant.
#[derive(Default)]
pub(super) struct Model {
    pub(super) changes: Vec<Change>,
    /// Log index of the entry being applied.
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

    /// Returns the content of all keys at a revision.
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

    pub(super) fn change(&mut self, effects: Vec<KeyEffect>, time: u64) -> Revision {
        let index = self.applying;
        self.changes.push(Change { effects, time, index });
        self.revision()
    }

    /// Returns the time of a change.
    pub(super) fn time_of(&self, revision: Revision) -> u64 {
        self.changes[revision.sequence().get() as usize - 1].time
    }

    /// Returns the tenant time.
    pub(super) fn time(&self) -> TenantTime {
        TenantTime(self.changes.last().map_or(0, |change| change.time))
    }

    /// Returns the log index of the last change.
    pub(super) fn index(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.index)
    }

    /// Returns the digest of the keys, computed from scratch.
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
