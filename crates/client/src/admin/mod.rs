//! What operators ask for: tenants, regions, nodes, groups.

mod group;
mod node;
mod region;
mod tenant;

pub use group::{Group, GroupStatus};
pub use node::{NodeInfo, NodeStatus};
pub use region::{Lag, RegionInfo, RegionStatus};
pub use tenant::{Followers, NewTenant, Replica, TenantChange, TenantDeletion, TenantInfo, TenantState};

use crate::Client;

/// Entries of a page: lists are always read to their end.
const PAGE_SIZE: i32 = 500;

/// What operators ask for. A change that broke off is not sent again by itself: read what has become of it.
#[derive(Clone, Debug)]
pub struct Admin(Client);

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }
}
