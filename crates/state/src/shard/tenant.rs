//! In-memory state of a tenant: its record and the idempotency windows of its copies.

use stead_types::TenantTime;

use super::{client_windows::ClientWindows, record::TenantRecord};

/// In-memory state of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct LoadedTenant {
    pub(crate) record: TenantRecord,
    /// Idempotency windows of the live copy.
    pub(crate) clients: ClientWindows,
    /// Idempotency windows of the shadow copy, empty where there is none.
    pub(crate) shadow_clients: ClientWindows,
    /// Idempotency windows of forks that are not in rows yet, by the copy's number.
    pub(crate) fork_clients: Vec<(u32, ClientWindows)>,
    /// No key of an owned tenant expires before this; followers do not expire keys by themselves.
    pub(crate) next_expiry: Option<TenantTime>,
    /// Whether the record's row is out of date.
    pub(crate) dirty: bool,
}

impl LoadedTenant {
    /// Returns the state of an unknown tenant.
    pub(crate) fn unknown() -> Self {
        Self {
            record: TenantRecord::unknown(),
            clients: ClientWindows::default(),
            shadow_clients: ClientWindows::default(),
            fork_clients: Vec::new(),
            next_expiry: None,
            dirty: true,
        }
    }
}
