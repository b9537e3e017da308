//! A tenant in memory: its record and the windows of its copies.

use stead_types::TenantTime;

use super::{clients::Clients, record::Record};

/// A tenant as the shard holds it.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) record: Record,
    /// Windows of the live copy.
    pub(crate) clients: Clients,
    /// Windows of the shadow, empty where there is none.
    pub(crate) shadow_clients: Clients,
    /// Windows of forks that are not in rows yet, by the copy's number.
    pub(crate) fork_clients: Vec<(u32, Clients)>,
    /// No key of an owned tenant expires before this; followers do not expire keys by themselves.
    pub(crate) next_expiry: Option<TenantTime>,
    /// Whether the record's row is behind.
    pub(crate) dirty: bool,
}

impl Tenant {
    /// Returns a tenant of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self {
            record: Record::unknown(),
            clients: Clients::default(),
            shadow_clients: Clients::default(),
            fork_clients: Vec::new(),
            next_expiry: None,
            dirty: true,
        }
    }
}
