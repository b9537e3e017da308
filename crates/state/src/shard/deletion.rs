//! A range on its way out: which command follows on what the last one did, and what all of them came to. Pure.
//!
//! # Invariants
//!
//! 1. As long as nothing is removed each command carries the range's idempotency key: whichever removes the first keys
//!    is remembered under it, and a repeat finds that one.
//! 2. What was changed after the first keys were removed stays, whoever goes on: the caller's first call or a repeat.

use bytes::Bytes;
use stead_types::Revision;

use super::{
    answer::{Evaluated, RangeDeleted},
    command::DeleteRange,
};

/// A range of which some keys may be gone.
#[derive(Clone, Debug)]
pub struct Deletion {
    range: DeleteRange,
    /// The change that removed the first keys.
    first: Option<Revision>,
    last: Evaluated,
    next: Option<Bytes>,
    keys: u64,
    changes: u32,
    repeated: bool,
}

impl Deletion {
    /// Returns what the first command of a range came to.
    pub fn begun(range: DeleteRange, step: RangeDeleted) -> Self {
        let mut begun = Self {
            range,
            first: None,
            last: step.at,
            next: None,
            keys: 0,
            changes: 0,
            repeated: false,
        };
        begun.add(step);
        begun
    }

    /// Adds what the next command came to.
    pub fn add(&mut self, step: RangeDeleted) {
        if step.repeated || step.keys > 0 {
            self.first.get_or_insert(step.at.revision);
        }
        self.last = step.at;
        self.keys += step.keys;
        self.changes += u32::from(step.keys > 0);
        self.repeated |= step.repeated;
        self.next = step.next;
    }

    /// Returns the command that goes on; `None` if the whole range was gone through.
    pub fn next(&self) -> Option<DeleteRange> {
        let from = self.next.clone()?;
        Some(self.range.from(from, self.first))
    }

    /// Tells whether the whole range was gone through.
    pub fn is_whole(&self) -> bool {
        self.next.is_none()
    }

    /// Returns the change that removed the first keys, or where nothing was removed what was seen last.
    pub fn revision(&self) -> Revision {
        self.first.unwrap_or(self.last.revision)
    }

    /// Returns where the last command was evaluated: all that was removed is gone there.
    pub fn last(&self) -> Evaluated {
        self.last
    }

    /// Returns how many keys these commands removed.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Returns how many changes these commands made.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Tells whether the first keys had been removed before, by a call with the same idempotency key.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }
}
