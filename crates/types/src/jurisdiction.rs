//! Jurisdictions in which data is stored.

use std::{fmt, str::FromStr, sync::Arc};

/// Name of a jurisdiction: 1 to 16 bytes of `A-Z`, `0-9` and `-`, such as `EU`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jurisdiction(Arc<str>);

/// Error of a text that is no jurisdiction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a jurisdiction has 1 to {max} of A-Z, 0-9 and -, such as EU", max = Jurisdiction::LEN_MAX)]
pub struct InvalidJurisdiction;

impl Jurisdiction {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 16;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Jurisdiction {
    type Err = InvalidJurisdiction;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '-');
        if (1..=Self::LEN_MAX).contains(&name.len()) && name.chars().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidJurisdiction)
        }
    }
}

impl fmt::Display for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
