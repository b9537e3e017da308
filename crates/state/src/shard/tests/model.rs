//! A tenant as a plain list of changes.

use std::collections::BTreeMap;

use stead_types::{Epoch, Revision, Sequence};

use crate::shard::digest;

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) create: Revision,
    pub(super) version: u64,
    /// The tenant's time.
    pub(super) time: u64,
}

/// What a key holds: revision, create revision, version, value.
pub(super) type Held = (Revision, Revision, u64, Vec<u8>);

/// All that ever happened to a tenant.
#[derive(Default)]
pub(super) struct Model {
    pub(super) changes: Vec<Made>,
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
        let mut keys = BTreeMap::new();
        let until = revision.sequence().get() as usize;
        for (number, made) in self.changes.iter().take(until).enumerate() {
            match &made.value {
                Some(value) => {
                    let held = (at(number + 1), made.create, made.version, value.clone());
                    keys.insert(made.key.clone(), held);
                }
                None => {
                    keys.remove(&made.key);
                }
            }
        }
        keys
    }

    pub(super) fn now(&self) -> BTreeMap<Vec<u8>, Held> {
        self.as_of(self.revision())
    }

    pub(super) fn change(&mut self, key: &[u8], value: Option<Vec<u8>>, time: u64) -> Revision {
        let held = self.now().get(key).cloned();
        let next = at(self.changes.len() + 1);
        self.changes.push(Made {
            key: key.to_vec(),
            create: held.as_ref().map_or(next, |held| held.1),
            version: held.map_or(0, |held| held.2) + 1,
            value,
            time,
        });
        next
    }

    /// Returns when a change was made.
    pub(super) fn time_of(&self, revision: Revision) -> u64 {
        self.changes[revision.sequence().get() as usize - 1].time
    }

    /// Returns the digest of the keys, built anew.
    pub(super) fn digest_of_keys(&self) -> u128 {
        let now = self.now();
        let hashes = now
            .iter()
            .map(|(key, (revision, create, version, value))| digest::of_key(key, value, *create, *revision, *version));
        hashes.fold(0, u128::wrapping_add)
    }
}
