//! Operators' calls: tenants, regions, nodes, groups, forks, operations, the cluster.

mod audit;
mod bulk_move;
mod bulk_move_calls;
mod cluster;
mod fork;
mod fork_replay;
mod group;
mod move_source;
mod node;
mod operation;
mod place;
mod promotion;
mod promotion_calls;
mod promotion_report;
mod readiness;
mod region;
mod region_loss;
mod rehearsal;
mod residency;
mod role;
mod seed;
mod tenant;
mod tenant_load;
mod tenant_move;
mod tenant_verify;
mod topology;
mod topology_progress;

pub use audit::AuditRecord;
pub use bulk_move::{
    BulkMoveOptions, BulkMovePlan, BulkMoveProgress, BulkMoveState, BulkMoveTarget, BulkMoveTenant,
    BulkMoveTenantState, Pace, TenantSelection,
};
pub use cluster::ClusterInfo;
pub use fork::{AtForkPoint, ForkClass, ForkEntries, ForkEntry, ForkInfo, ForkList, ForkName};
pub use fork_replay::{ReplayOptions, ReplayOutcome, ReplayPage, ReplayedChange};
pub use group::{Group, GroupStatus};
pub use move_source::MoveSource;
pub use node::{NodeInfo, NodeStatus};
pub use operation::{MovePlan, OperationFilter, OperationInfo, OperationOutcome, OperationWatch, Step, StepName};
pub use place::Place;
pub use promotion::{
    CopyRole, LossWindow, PlannedPromotion, Promoted, PromotionHome, PromotionPhase, PromotionPlan, PromotionProgress,
    PromotionRequest, PromotionSelection, TenantCopy,
};
pub use promotion_report::{FreezeReport, PromotedState, PromotedTenant, PromotedTimes, PromotionReport};
pub use readiness::RegionReadiness;
pub use region::{FollowerLag, RegionInfo, RegionStatus};
pub use region_loss::{AutomaticPromotion, OnRegionLoss};
pub use rehearsal::RehearsedTenant;
pub use residency::{ResidencyEvent, ResidencyRecord};
pub use role::{CallerInfo, RoleBinding};
pub use seed::{SeedPhase, SeedProgress};
pub use tenant::{
    Followers, MoveInFlight, NewTenant, OnLeaseLoss, Replica, TenantChange, TenantDeletion, TenantInfo, TenantState,
};
pub use tenant_load::{LoadOrder, TenantLoad, TenantLoads};
pub use tenant_move::{MoveTarget, TenantMove};
pub use tenant_verify::{CopyComparison, TenantVerification, VerifiedCopy};
pub use topology::TopologyRequest;
pub use topology_progress::TopologyProgress;

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

#[cfg(test)]
mod tests {
    use super::OperationFilter;
    use crate::{Client, Config};

    fn can_be_spawned<T: Send>(future: T) {
        drop(future);
    }

    #[tokio::test]
    async fn list_futures_are_send() {
        let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
        let (admin, directory) = (client.admin(), client.directory());
        can_be_spawned(admin.groups(""));
        can_be_spawned(admin.nodes(""));
        can_be_spawned(admin.forks("", None, ""));
        can_be_spawned(admin.regions());
        can_be_spawned(admin.tenants("", ""));
        can_be_spawned(admin.operations(&OperationFilter::default()));
        can_be_spawned(directory.regions());
    }
}
