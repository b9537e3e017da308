//! Writes of the model: each has a value of its own, so that a value tells which write it came from.

use std::fmt;

use stead_types::{Epoch, Revision, Sequence};

/// Number of a write, from 1 on; also its value.
pub type Write = u8;

/// Set of writes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writes(u8);

impl Writes {
    /// No write.
    pub const NONE: Self = Self(0);

    /// Returns the set of one write.
    pub fn of(write: Write) -> Self {
        Self(1 << (write - 1))
    }

    /// Returns the set of the first writes.
    pub fn first(count: u8) -> Self {
        Self(((1_u16 << count) - 1) as u8)
    }

    /// Returns the set as bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Tells whether the set has no write.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Tells whether a write is in the set.
    pub fn has(self, write: Write) -> bool {
        !(self & Self::of(write)).is_empty()
    }

    /// Returns the writes that are not in another set.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Writes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Writes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl std::ops::BitAnd for Writes {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((1..=8).filter(|write| self.has(*write))).finish()
    }
}

/// One change of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// Its revision.
    pub revision: Revision,
    /// The write that made it.
    pub write: Write,
}

/// Changes that a copy holds, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct History(Vec<Change>);

impl History {
    /// Returns the changes, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.0
    }

    /// Returns the number of changes: the last sequence, while there are no gaps.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the last revision.
    pub fn end(&self) -> Revision {
        self.0.last().map_or(Revision::ZERO, |change| change.revision)
    }

    /// Returns the change after this many.
    pub fn after(&self, changes: usize) -> Option<Change> {
        self.0.get(changes).copied()
    }

    /// Appends a change.
    pub fn push(&mut self, change: Change) {
        self.0.push(change);
    }

    /// Removes the changes after this sequence and returns them.
    pub fn cut(&mut self, kept: Sequence) -> Writes {
        let kept = usize::try_from(kept.get()).unwrap_or(usize::MAX).min(self.0.len());
        let cut = writes(&self.0[kept..]);
        self.0.truncate(kept);
        cut
    }

    /// Returns the writes that it holds.
    pub fn writes(&self) -> Writes {
        writes(&self.0)
    }

    /// Tells whether it holds the change with this revision.
    pub fn holds(&self, revision: Revision) -> bool {
        self.0.iter().any(|change| change.revision == revision)
    }

    /// Tells whether this history is the beginning of another.
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Returns a digest, which is equal for equal histories only.
    pub fn digest(&self) -> u128 {
        let step = |digest: u128, change: &Change| {
            digest << 32 | u128::from(change.revision.to_u64() >> 40) << 16 | u128::from(change.write)
        };
        self.0.iter().fold(0, step)
    }
}

fn writes(changes: &[Change]) -> Writes {
    changes
        .iter()
        .fold(Writes::NONE, |all, change| all | Writes::of(change.write))
}

/// Exact line of history: where each epoch began. It is what a lineage in runs stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    epoch: Epoch,
    starts: Vec<(Epoch, Sequence)>,
}

impl Line {
    /// Returns the line of a tenant that has had one home.
    pub fn starting() -> Self {
        let mut line = Self {
            epoch: Epoch::NONE,
            starts: Vec::new(),
        };
        line.begin(Epoch::FIRST, Sequence::ZERO);
        line
    }

    /// Returns the line of a history.
    pub fn of(history: &History) -> Self {
        let mut line = Self {
            epoch: Epoch::NONE,
            starts: Vec::new(),
        };
        let mut before = Revision::ZERO;
        for change in history.changes() {
            if line.epoch != change.revision.epoch() {
                line.begin(change.revision.epoch(), before.sequence());
            }
            before = change.revision;
        }
        line
    }

    /// Begins an epoch after this sequence.
    pub fn begin(&mut self, epoch: Epoch, after: Sequence) {
        self.epoch = epoch;
        self.starts
            .push((epoch, after.next().expect("the model writes a few times")));
    }

    /// Tells whether a revision is off the line: its epoch is known, and its sequence belongs to another.
    pub fn is_off(&self, revision: Revision) -> bool {
        let owner = self
            .starts
            .iter()
            .rev()
            .find(|(_, first)| *first <= revision.sequence());
        revision.epoch() <= self.epoch && owner.is_none_or(|(epoch, _)| *epoch != revision.epoch())
    }
}
