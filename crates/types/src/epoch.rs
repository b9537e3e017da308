//! Epochs of a tenant's home.

use std::fmt;

/// Epoch of a tenant's home. It grows strictly with each change of the home; only the directory assigns epochs, never
/// reuses one, and may leave gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u32);

impl Epoch {
    /// No epoch: the promise of a group that has never followed or owned the tenant.
    pub const NONE: Self = Self(0);
    /// Epoch of a tenant's first home.
    pub const FIRST: Self = Self(1);
    /// Highest epoch: 24 bits, because a revision carries it in its upper 24 bits.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// Returns the epoch with this number, or `None` above [`Epoch::MAX`].
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the next epoch, or `None` at [`Epoch::MAX`].
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
