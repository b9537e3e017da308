//! Operators' calls: tenants, regions, nodes, groups.

mod group;
mod node;
mod region;
mod tenant;

pub use group::{Group, GroupStatus};
pub use node::{NodeInfo, NodeStatus};
pub use region::{FollowerLag, RegionInfo, RegionStatus};
pub use tenant::{Followers, NewTenant, Replica, TenantChange, TenantDeletion, TenantInfo, TenantState};

use crate::Client;

/// Page size of lists, which are always read to their end.
const PAGE_SIZE: i32 = 500;

/// Calls for operators. A change that failed is not sent again by itself: read the current state first.
#[derive(Clone, Debug)]
pub struct Admin(Client);

impl Client {
    /// Returns the calls for operators.
    pub fn admin(&self) -> Admin {
        Admin(self.clone())
    }
}
