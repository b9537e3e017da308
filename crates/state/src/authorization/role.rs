//! Roles of callers, and their text form.
//!
//! | text | role |
//! | --- | --- |
//! | `tenant-reader:TENANT[:PREFIX]` | reads keys of a tenant |
//! | `tenant-writer:TENANT[:PREFIX]` | writes keys of a tenant; what a response would show of them needs the reader too |
//! | `tenant-admin:TENANT` | sees and changes the tenant itself, but no keys |
//! | `region-operator:REGION` | operates a region |
//! | `cluster-operator` | operates the cluster, but sees no keys |
//! | `auditor` | sees the audit log and all that operators see |
//!
//! `*` for TENANT stands for every tenant. Bytes of a prefix that are no printable ASCII, and `%`, are written as `%` and
//! two hexadecimal digits.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use stead_types::{RegionName, TenantName, limits::KEY_LEN_MAX};

/// Longest role as text: a prefix of the longest key, each byte of which may be escaped.
pub const ROLE_LEN_MAX: usize = 3 * KEY_LEN_MAX + 128;

/// Role of a caller, with its scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessRole {
    /// Reads keys.
    TenantReader(KeyScope),
    /// Writes keys.
    TenantWriter(KeyScope),
    /// Sees and changes a tenant itself.
    TenantAdmin(TenantScope),
    /// Operates a region.
    RegionOperator(RegionName),
    /// Operates the cluster.
    ClusterOperator,
    /// Sees the audit log, and all that operators see.
    Auditor,
}

/// Tenants to which a role applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenantScope {
    /// Every tenant, also later ones.
    All,
    /// The tenant that has this name.
    Named(TenantName),
}

/// Keys to which a role applies: those of the tenants that begin with the prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyScope {
    /// The tenants.
    pub tenant: TenantScope,
    /// Prefix of the keys; empty: all.
    pub prefix: Bytes,
}

/// Error of a text that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRole {
    /// The first word is no role.
    #[error(
        "{0:?} is no role: use tenant-reader:TENANT[:PREFIX], tenant-writer:TENANT[:PREFIX], tenant-admin:TENANT, \
         region-operator:REGION, cluster-operator or auditor"
    )]
    Name(String),
    /// The scope of the role is not one.
    #[error("the scope of {role}: {problem}")]
    Scope {
        /// Name of the role.
        role: &'static str,
        /// The problem.
        problem: String,
    },
}

impl TenantScope {
    /// Tells whether it includes a tenant.
    pub fn includes(&self, tenant: &TenantName) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name == tenant,
        }
    }
}

impl FromStr for AccessRole {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, scope) = match text.split_once(':') {
            Some((name, scope)) => (name, Some(scope)),
            None => (text, None),
        };
        match (name, scope) {
            ("tenant-reader", Some(scope)) => keys("tenant-reader", scope).map(Self::TenantReader),
            ("tenant-writer", Some(scope)) => keys("tenant-writer", scope).map(Self::TenantWriter),
            ("tenant-admin", Some(scope)) => tenant("tenant-admin", scope).map(Self::TenantAdmin),
            ("region-operator", Some(scope)) => {
                let problem = |error: stead_types::InvalidRegionName| error.to_string();
                let region = scope.parse().map_err(problem);
                region.map(Self::RegionOperator).map_err(|problem| InvalidRole::Scope {
                    role: "region-operator",
                    problem,
                })
            }
            ("cluster-operator", None) => Ok(Self::ClusterOperator),
            ("auditor", None) => Ok(Self::Auditor),
            _ => Err(InvalidRole::Name(text.chars().take(80).collect())),
        }
    }
}

fn tenant(role: &'static str, scope: &str) -> Result<TenantScope, InvalidRole> {
    match scope {
        "*" => Ok(TenantScope::All),
        name => name
            .parse()
            .map(TenantScope::Named)
            .map_err(|error| InvalidRole::Scope {
                role,
                problem: format!("{error}; * stands for every tenant"),
            }),
    }
}

fn keys(role: &'static str, scope: &str) -> Result<KeyScope, InvalidRole> {
    let (name, prefix) = scope.split_once(':').unwrap_or((scope, ""));
    let invalid = |problem: String| InvalidRole::Scope { role, problem };
    let prefix = unescape(prefix).ok_or_else(|| {
        invalid("a prefix is printable ASCII; write any other byte and % as % and two hexadecimal digits".to_owned())
    })?;
    if prefix.len() > KEY_LEN_MAX {
        let len = prefix.len();
        return Err(invalid(format!("a prefix has at most {KEY_LEN_MAX} bytes, not {len}")));
    }
    Ok(KeyScope {
        tenant: tenant(role, name)?,
        prefix: prefix.into(),
    })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
            byte if byte.is_ascii_graphic() => {
                bytes.push(*byte);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

impl fmt::Display for TenantScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Named(name) => f.write_str(name.as_str()),
        }
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, prefix } = self;
        write!(f, "{tenant}")?;
        if !prefix.is_empty() {
            f.write_str(":")?;
        }
        prefix.iter().try_for_each(|byte| match byte {
            b'%' => f.write_str("%25"),
            byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(*byte)),
            byte => write!(f, "%{byte:02x}"),
        })
    }
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TenantReader(scope) => write!(f, "tenant-reader:{scope}"),
            Self::TenantWriter(scope) => write!(f, "tenant-writer:{scope}"),
            Self::TenantAdmin(scope) => write!(f, "tenant-admin:{scope}"),
            Self::RegionOperator(region) => write!(f, "region-operator:{region}"),
            Self::ClusterOperator => f.write_str("cluster-operator"),
            Self::Auditor => f.write_str("auditor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_role_is_explained() {
        let refused = |text: &str| text.parse::<AccessRole>().unwrap_err().to_string();
        for unknown in ["", "root", "auditor:x", "tenant-reader", "cluster-operator:"] {
            assert!(refused(unknown).contains("is no role"), "{unknown}");
        }
        assert!(refused("tenant-admin:A").contains("a-z, 0-9 and -"));
        assert!(refused("tenant-reader:").contains("* stands for every tenant"));
        assert!(refused("region-operator:").starts_with("the scope of region-operator"));
        for prefix in ["%", "%4", "%zz", "%+1", "a b", "é"] {
            assert!(refused(&format!("tenant-writer:acme:{prefix}")).contains("two hexadecimal digits"));
        }
    }

    fn role() -> impl Strategy<Value = AccessRole> {
        let tenant = prop_oneof![
            Just(TenantScope::All),
            "[a-z]{1,8}".prop_map(|name| TenantScope::Named(name.parse().unwrap()))
        ];
        let scope = (tenant.clone(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(tenant, prefix)| KeyScope {
            tenant,
            prefix: prefix.into(),
        });
        prop_oneof![
            scope.clone().prop_map(AccessRole::TenantReader),
            scope.prop_map(AccessRole::TenantWriter),
            tenant.prop_map(AccessRole::TenantAdmin),
            Just(AccessRole::RegionOperator("eu-west".parse().unwrap())),
            Just(AccessRole::ClusterOperator),
            Just(AccessRole::Auditor),
        ]
    }

    proptest! {
        #[test]
        fn role_is_read_back_from_its_text(role in role()) {
            let text = role.to_string();
            prop_assert!(text.len() <= ROLE_LEN_MAX);
            prop_assert_eq!(text.parse(), Ok(role));
        }
    }
}
