//! Progress of a range deletion over several commands: the next command, and the combined result. Pure.
//!
//! # Invariants
//!
//! 1. As long as nothing is removed each command carries the range's idempotency key: whichever removes the first
//!    keys is recorded under it, and a repeat finds that one.
//! 2. What was changed after the first keys were removed stays, whoever continues: the caller's first call or a
//!    repeat.

use bytes::Bytes;
use stead_types::Revision;

use super::{
    apply_result::{DeleteRangeResult, EvaluationPoint},
    command::DeleteRange,
};

/// Progress of deleting a range.
#[derive(Clone, Debug)]
pub struct RangeDeletion {
    range: DeleteRange,
    /// Revision of the change that removed the first keys.
    first: Option<Revision>,
    last: EvaluationPoint,
    next: Option<Bytes>,
    keys: u64,
    changes: u32,
    repeated: bool,
}

impl RangeDeletion {
    /// Returns the progress after the first command of a range.
    pub fn start(range: DeleteRange, step: DeleteRangeResult) -> Self {
        let mut deletion = Self {
            range,
            first: None,
            last: step.at,
            next: None,
            keys: 0,
            changes: 0,
            repeated: false,
        };
        deletion.add(step);
        deletion
    }

    /// Adds the result of the next command.
    pub fn add(&mut self, step: DeleteRangeResult) {
        if step.repeated || step.keys > 0 {
            self.first.get_or_insert(step.at.revision);
        }
        self.last = step.at;
        self.keys += step.keys;
        self.changes += u32::from(step.keys > 0);
        self.repeated |= step.repeated;
        self.next = step.next;
    }

    /// Returns the next command; `None` if the whole range is done.
    pub fn next(&self) -> Option<DeleteRange> {
        let from = self.next.clone()?;
        Some(self.range.from(from, self.first))
    }

    /// Tells whether keys were removed, by these commands or by an earlier call with the same idempotency key.
    pub fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    /// Tells whether the whole range is done.
    pub fn is_complete(&self) -> bool {
        self.next.is_none()
    }

    /// Returns the revision of the change that removed the first keys, or the last revision seen where nothing was
    /// removed.
    pub fn revision(&self) -> Revision {
        self.first.unwrap_or(self.last.revision)
    }

    /// Returns the state of the last command: all removed keys are gone there.
    pub fn last(&self) -> EvaluationPoint {
        self.last
    }

    /// Returns the number of keys that these commands removed.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Returns the number of changes that these commands made.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Tells whether the first keys had been removed before, by a call with the same idempotency key.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }
}
