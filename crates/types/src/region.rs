//! Names of regions.

use std::{fmt, str::FromStr, sync::Arc};

/// Name of a region: 1 to 32 bytes of `a-z`, `0-9` and `-`, such as `eu-west`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionName(Arc<str>);

/// Error of a text that is no region name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegionName {
    /// Too short or too long.
    #[error("a region name has 1 to {max} characters, this one has {0}", max = RegionName::LEN_MAX)]
    Length(usize),
    /// A character that is not allowed in names.
    #[error("a region name has only a-z, 0-9 and -, this one has {0:?}")]
    Character(char),
}

impl RegionName {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 32;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegionName {
    type Err = InvalidRegionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.is_empty() || name.len() > Self::LEN_MAX {
            return Err(InvalidRegionName::Length(name.chars().count()));
        }
        match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            Some(c) => Err(InvalidRegionName::Character(c)),
            None => Ok(Self(name.into())),
        }
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
