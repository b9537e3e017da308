//! Decision about one need of one caller.

use std::fmt;

use stead_types::{RegionName, TenantName};

use super::{AccessRole, KeyScope, Requirement};

/// Kind of access to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAccess {
    /// They, or whether they exist, are shown.
    Read,
    /// They are changed.
    Write,
}

/// Range of keys, or one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyRange<'a> {
    /// One key.
    Key(&'a [u8]),
    /// All keys from the first bound on, up to the second; `None`: to the end of the tenant.
    Range(&'a [u8], Option<&'a [u8]>),
}

/// Need of a call: with it the call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// A valid credential.
    Credential,
    /// Keys of a tenant.
    Keys {
        /// The tenant.
        tenant: &'a TenantName,
        /// Kind of access to them.
        access: KeyAccess,
        /// The keys.
        range: KeyRange<'a>,
    },
    /// Where a tenant is: for whoever has a role in it, or sees the cluster.
    Member(&'a TenantName),
    /// Sight of a tenant: its record, its copies, its load.
    InspectTenant(&'a TenantName),
    /// Change of a tenant itself.
    AdministerTenant(&'a TenantName),
    /// Operation of a region.
    OperateRegion(&'a RegionName),
    /// Operation of the cluster.
    OperateCluster,
    /// Sight of the cluster: nodes, groups, operations.
    Inspect,
    /// Sight of the audit log.
    Audit,
}

/// Reason why a caller may not do what it asks for: the role that it lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed}")]
pub struct Denial {
    needed: String,
}

/// Decides whether one of the roles allows what is needed.
///
/// # Errors
///
/// The role that is missing. It names no key: a denial is logged.
pub fn decide<'a>(mut roles: impl Iterator<Item = &'a AccessRole>, need: &Need<'_>) -> Result<(), Denial> {
    if matches!(need, Need::Credential) || roles.any(|role| allows(role, need)) {
        return Ok(());
    }
    Err(Denial { needed: needed(need) })
}

/// Tells whether a tenant may be shown in a list.
pub fn is_visible<'a>(roles: impl Iterator<Item = &'a AccessRole>, tenant: &TenantName) -> bool {
    decide(roles, &Need::Member(tenant)).is_ok()
}

fn allows(role: &AccessRole, need: &Need<'_>) -> bool {
    match need {
        Need::Credential => true,
        Need::Keys {
            tenant,
            access: KeyAccess::Read,
            range,
        } => matches!(role, AccessRole::TenantReader(scope) if covers(scope, tenant, range)),
        Need::Keys {
            tenant,
            access: KeyAccess::Write,
            range,
        } => matches!(role, AccessRole::TenantWriter(scope) if covers(scope, tenant, range)),
        Need::Member(tenant) => match role {
            AccessRole::TenantReader(scope) | AccessRole::TenantWriter(scope) => scope.tenant.includes(tenant),
            AccessRole::TenantAdmin(scope) => scope.includes(tenant),
            AccessRole::RegionOperator(_) | AccessRole::ClusterOperator | AccessRole::Auditor => true,
        },
        Need::InspectTenant(tenant) => match role {
            AccessRole::TenantReader(_) | AccessRole::TenantWriter(_) => false,
            AccessRole::TenantAdmin(scope) => scope.includes(tenant),
            AccessRole::RegionOperator(_) | AccessRole::ClusterOperator | AccessRole::Auditor => true,
        },
        Need::AdministerTenant(tenant) => match role {
            AccessRole::TenantAdmin(scope) => scope.includes(tenant),
            AccessRole::ClusterOperator => true,
            AccessRole::TenantReader(_)
            | AccessRole::TenantWriter(_)
            | AccessRole::RegionOperator(_)
            | AccessRole::Auditor => false,
        },
        Need::OperateRegion(region) => match role {
            AccessRole::RegionOperator(own) => own == *region,
            AccessRole::ClusterOperator => true,
            AccessRole::TenantReader(_)
            | AccessRole::TenantWriter(_)
            | AccessRole::TenantAdmin(_)
            | AccessRole::Auditor => false,
        },
        Need::OperateCluster => matches!(role, AccessRole::ClusterOperator),
        Need::Inspect => matches!(
            role,
            AccessRole::ClusterOperator | AccessRole::RegionOperator(_) | AccessRole::Auditor
        ),
        Need::Audit => matches!(role, AccessRole::ClusterOperator | AccessRole::Auditor),
    }
}

fn covers(scope: &KeyScope, tenant: &TenantName, range: &KeyRange<'_>) -> bool {
    scope.tenant.includes(tenant) && is_inside(&scope.prefix, range)
}

/// Tells whether all keys of a range begin with the prefix. An empty range that does not is outside too: nothing depends
/// on what it would contain.
fn is_inside(prefix: &[u8], range: &KeyRange<'_>) -> bool {
    if prefix.is_empty() {
        return true;
    }
    match range {
        KeyRange::Key(key) => key.starts_with(prefix),
        KeyRange::Range(start, end) => start.starts_with(prefix) && ends_inside(prefix, *end),
    }
}

/// Tells whether all keys before `end` that are not before the prefix begin with it.
fn ends_inside(prefix: &[u8], end: Option<&[u8]>) -> bool {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else {
        // No key comes after those that begin with it.
        return true;
    };
    let Some(end) = end else { return false };
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    end <= &after[..]
}

/// Tells whether any role could allow a call of a method with this requirement, whatever its message names: what is not
/// allowed at all is refused before the message is read.
pub fn could_satisfy<'a>(mut roles: impl Iterator<Item = &'a AccessRole>, requirement: Requirement) -> bool {
    let allows = |role: &AccessRole| match requirement {
        Requirement::Nothing | Requirement::Credential => true,
        Requirement::ReadKeys => matches!(role, AccessRole::TenantReader(_)),
        Requirement::WriteKeys => matches!(role, AccessRole::TenantWriter(_)),
        Requirement::AccessKeys => matches!(role, AccessRole::TenantReader(_) | AccessRole::TenantWriter(_)),
        Requirement::Member => true,
        Requirement::InspectTenant => !matches!(role, AccessRole::TenantReader(_) | AccessRole::TenantWriter(_)),
        Requirement::AdministerTenant => {
            matches!(role, AccessRole::TenantAdmin(_) | AccessRole::ClusterOperator)
        }
        Requirement::OperateRegion => {
            matches!(role, AccessRole::RegionOperator(_) | AccessRole::ClusterOperator)
        }
        Requirement::OperateCluster => matches!(role, AccessRole::ClusterOperator),
        Requirement::Inspect => allows(role, &Need::Inspect),
        Requirement::Audit => allows(role, &Need::Audit),
    };
    matches!(requirement, Requirement::Nothing | Requirement::Credential) || roles.any(allows)
}

/// Returns what is missing, without any key.
fn needed(need: &Need<'_>) -> String {
    match need {
        Need::Credential => "needs a credential".to_owned(),
        Need::Keys {
            tenant,
            access: KeyAccess::Read,
            ..
        } => format!("needs the role tenant-reader:{tenant} with a prefix that covers the keys"),
        Need::Keys {
            tenant,
            access: KeyAccess::Write,
            ..
        } => format!("needs the role tenant-writer:{tenant} with a prefix that covers the keys"),
        Need::Member(tenant) => format!("needs a role in tenant {tenant}"),
        Need::InspectTenant(tenant) => {
            format!("needs the role tenant-admin:{tenant}, or one of an operator or auditor")
        }
        Need::AdministerTenant(tenant) => format!("needs the role tenant-admin:{tenant} or cluster-operator"),
        Need::OperateRegion(region) => format!("needs the role region-operator:{region} or cluster-operator"),
        Need::OperateCluster => "needs the role cluster-operator".to_owned(),
        Need::Inspect => "needs the role region-operator, cluster-operator or auditor".to_owned(),
        Need::Audit => "needs the role auditor or cluster-operator".to_owned(),
    }
}

/// Shows no key.
impl fmt::Debug for KeyRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key of {} bytes", key.len()),
            Self::Range(..) => f.write_str("range"),
        }
    }
}

#[cfg(test)]
#[path = "decision_test.rs"]
mod decision_test;
