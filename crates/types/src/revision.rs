//! Revisions: the order of a tenant's changes, across all its homes.

use std::{fmt, str::FromStr};

use crate::Epoch;

/// Sequence number of a tenant's change; it continues across epochs. 40 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(u64);

impl Sequence {
    /// Before the first change.
    pub const ZERO: Self = Self(0);
    /// Highest sequence: a revision carries it in its lower 40 bits.
    pub const MAX: Self = Self((1 << 40) - 1);

    /// Returns the sequence with this number, or `None` above [`Sequence::MAX`].
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the next sequence, or `None` at [`Sequence::MAX`].
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// Returns the previous sequence; [`Sequence::ZERO`], which has none, stays itself.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Revision of one change of a tenant: epoch in the upper 24 bits, sequence in the lower 40. Ordered, and unique for
/// ever: a promotion that cuts revisions begins a new epoch, so a revision is never assigned twice.
///
/// Shown and parsed as `epoch.sequence`, such as `1.42`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

/// Error of a text that is no revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a revision is written epoch.sequence, such as 1.42")]
pub struct InvalidRevision;

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);
    /// Above every revision.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the revision with this epoch and sequence.
    pub const fn new(epoch: Epoch, sequence: Sequence) -> Self {
        Self(((epoch.get() as u64) << 40) | sequence.get())
    }

    /// Unpacks a revision from one number, as rows and messages carry it.
    pub const fn from_u64(packed: u64) -> Self {
        Self(packed)
    }

    /// Returns epoch and sequence packed into one number.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// Returns the epoch in which the change was made.
    pub const fn epoch(self) -> Epoch {
        match Epoch::new((self.0 >> 40) as u32) {
            Some(epoch) => epoch,
            None => Epoch::MAX,
        }
    }

    /// Returns the sequence of the change.
    pub const fn sequence(self) -> Sequence {
        match Sequence::new(self.0 & Sequence::MAX.get()) {
            Some(sequence) => sequence,
            None => Sequence::MAX,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.sequence())
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{self}")
    }
}

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, sequence) = text.split_once('.').ok_or(InvalidRevision)?;
        let epoch = epoch.parse().ok().and_then(Epoch::new).ok_or(InvalidRevision)?;
        let sequence = sequence.parse().ok().and_then(Sequence::new).ok_or(InvalidRevision)?;
        Ok(Self::new(epoch, sequence))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequence_before_next_is_itself_and_zero_has_none_before() {
        for number in [0, 1, Sequence::MAX.get() - 1] {
            let sequence = Sequence::new(number).unwrap();
            assert_eq!(sequence.next().map(Sequence::prev), Some(sequence));
        }
        assert_eq!(Sequence::ZERO.prev(), Sequence::ZERO);
    }

    proptest! {
        #[test]
        fn revision_round_trips_as_epoch_and_sequence(epoch in 0..=Epoch::MAX.get(), sequence in 0..=Sequence::MAX.get()) {
            let revision = Revision::new(Epoch::new(epoch).unwrap(), Sequence::new(sequence).unwrap());
            prop_assert_eq!(revision.epoch().get(), epoch);
            prop_assert_eq!(revision.sequence().get(), sequence);
            prop_assert_eq!(Revision::from_u64(revision.to_u64()), revision);
            prop_assert_eq!(revision.to_string().parse::<Revision>(), Ok(revision));
        }

        #[test]
        fn later_epoch_is_above_earlier_sequences(a in 0..Epoch::MAX.get(), s in 0..=Sequence::MAX.get()) {
            let earlier = Revision::new(Epoch::new(a).unwrap(), Sequence::new(s).unwrap());
            let later = Revision::new(Epoch::new(a + 1).unwrap(), Sequence::ZERO);
            prop_assert!(earlier < later);
        }
    }
}
