//! Names and numbers of tenants.

use std::{fmt, str::FromStr, sync::Arc};

/// Name of a tenant: 1 to 64 bytes of `a-z`, `0-9` and `-`. Names exist in the directory and at the edge only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(Arc<str>);

/// Error of a text that is no tenant name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenantName {
    /// Too short or too long.
    #[error("a tenant name has 1 to {max} characters, this one has {0}", max = TenantName::LEN_MAX)]
    Length(usize),
    /// A character that is not allowed in names.
    #[error("a tenant name has only a-z, 0-9 and -, this one has {0:?}")]
    Character(char),
}

impl TenantName {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 64;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.is_empty() || name.len() > Self::LEN_MAX {
            return Err(InvalidTenantName::Length(name.chars().count()));
        }
        match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            Some(c) => Err(InvalidTenantName::Character(c)),
            None => Ok(Self(name.into())),
        }
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Internal number of a tenant. The directory never uses one twice, so that a name that is used again is another
/// tenant. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantNumber(u64);

impl TenantNumber {
    /// Returns the tenant with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TenantNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}
