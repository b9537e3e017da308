//! Rows of what operators call.

use stead_api::{
    message_codec::MessageCodec,
    proto::{
        admin::v1 as admin,
        google::longrunning::{
            CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
            WaitOperationRequest,
        },
    },
};

use super::{
    call::{answered, call},
    messages::*,
    table::{Row, row},
};

#[expect(clippy::too_many_lines, reason = "one row a message")]
pub(super) fn tenants() -> Vec<Row> {
    vec![
        row!(
            "stead.admin.v1.TenantService/CreateTenant",
            "C",
            admin::CreateTenantRequest {
                name: "new".to_owned(),
                home_region: "us-east".to_owned(),
                validate_only: true,
                ..Default::default()
            }
        ),
        row!(
            "stead.admin.v1.TenantService/DeleteTenant",
            "C",
            admin::DeleteTenantRequest {
                name: acme(),
                validate_only: true,
                ..Default::default()
            }
        ),
        row!(
            "stead.admin.v1.TenantService/GetTenant",
            "AZOPCU",
            admin::GetTenantRequest { name: acme() }
        ),
        row!(
            "stead.admin.v1.TenantService/GetTenant",
            "BOPCU",
            admin::GetTenantRequest {
                name: "other".to_owned()
            }
        ),
        row!(
            "stead.admin.v1.TenantService/ListTenants",
            "ABZOPCU",
            admin::ListTenantsRequest::default()
        ),
        row!(
            "stead.admin.v1.TenantService/ListTenantLoads",
            "ABZOPCU",
            admin::ListTenantLoadsRequest::default()
        ),
        row!(
            "stead.admin.v1.TenantService/UpdateTenant",
            "AZC",
            update("acme", false)
        ),
        row!(
            "stead.admin.v1.TenantService/UpdateTenant",
            "BC",
            update("other", false)
        ),
        row!("stead.admin.v1.TenantService/UpdateTenant", "C", update("acme", true)),
        row!(
            "stead.admin.v1.TenantService/VerifyTenant",
            "AZOPCU",
            admin::VerifyTenantRequest {
                name: acme(),
                ..Default::default()
            }
        ),
        // From us-east to us-east: who operates that; to eu-west: nobody who operates one of both.
        row!("stead.admin.v1.TenantService/MoveTenant", "OC", move_tenant("us-east")),
        row!("stead.admin.v1.TenantService/MoveTenant", "C", move_tenant("eu-west")),
        row!("stead.admin.v1.TenantService/MoveTenant", "C", move_tenant("nowhere")),
        row!(
            "stead.admin.v1.PromotionService/SetRegionLossPolicy",
            "AZC",
            region_loss("acme")
        ),
        row!(
            "stead.admin.v1.PromotionService/SetRegionLossPolicy",
            "BC",
            region_loss("other")
        ),
        row!(
            "stead.admin.v1.AuditService/ListResidencyRecords",
            "AZOPCU",
            residency("acme")
        ),
        row!(
            "stead.admin.v1.AuditService/ListResidencyRecords",
            "BOPCU",
            residency("other")
        ),
        row!(
            "stead.admin.v1.AuditService/ListResidencyRecords",
            "OPCU",
            residency("")
        ),
        row!("stead.admin.v1.ForkService/ListForks", "AZOPCU", forks("acme")),
        row!("stead.admin.v1.ForkService/ListForks", "OPCU", forks("")),
        row!("stead.admin.v1.ForkService/ListForkEntries", "RZ", fork_entries("acme")),
        row!("stead.admin.v1.ForkService/ListForkEntries", "", fork_entries("other")),
        row!("stead.admin.v1.ForkService/DiscardFork", "AZC", discard("acme")),
        row!("stead.admin.v1.ForkService/DiscardFork", "BC", discard("other")),
        row!("stead.admin.v1.ForkService/ReplayFork", "Z", replay("acme")),
        row!("stead.admin.v1.ForkService/ReplayFork", "", replay("other")),
    ]
}

pub(super) fn regions() -> Vec<Row> {
    use admin::promote_request::{Names, Selection};
    vec![
        row!("stead.admin.v1.BulkMoveService/DrainRegion", "OC", drain("us-east")),
        row!("stead.admin.v1.BulkMoveService/DrainRegion", "PC", drain("eu-west")),
        row!("stead.admin.v1.BulkMoveService/UndrainRegion", "OC", undrain("us-east")),
        row!("stead.admin.v1.BulkMoveService/UndrainRegion", "PC", undrain("eu-west")),
        row!(
            "stead.admin.v1.BulkMoveService/FailbackRegion",
            "OC",
            failback("us-east")
        ),
        row!(
            "stead.admin.v1.BulkMoveService/FailbackRegion",
            "PC",
            failback("eu-west")
        ),
        row!(
            "stead.admin.v1.BulkMoveService/RehearseRegion",
            "OC",
            rehearse("us-east")
        ),
        row!(
            "stead.admin.v1.BulkMoveService/RehearseRegion",
            "PC",
            rehearse("eu-west")
        ),
        row!("stead.admin.v1.GroupService/MoveLeader", "OC", move_leader(US_EAST)),
        row!("stead.admin.v1.GroupService/MoveLeader", "PC", move_leader(EU_WEST)),
        // The directory's group is of no region.
        row!("stead.admin.v1.GroupService/MoveLeader", "C", move_leader(0)),
        row!(
            "stead.admin.v1.PromotionService/Promote",
            "OC",
            promote(Selection::Region("us-east".to_owned()))
        ),
        row!(
            "stead.admin.v1.PromotionService/Promote",
            "PC",
            promote(Selection::Region("eu-west".to_owned()))
        ),
        row!(
            "stead.admin.v1.PromotionService/Promote",
            "OC",
            promote(Selection::Group(US_EAST))
        ),
        row!(
            "stead.admin.v1.PromotionService/Promote",
            "OC",
            promote(Selection::Tenants(Names { tenants: vec![acme()] }))
        ),
        row!(
            "stead.admin.v1.PromotionService/Promote",
            "C",
            promote(Selection::Tenants(Names { tenants: vec![] }))
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "one row a message")]
pub(super) fn cluster() -> Vec<Row> {
    vec![
        row!(
            "stead.admin.v1.AuditService/ListAuditRecords",
            "CU",
            admin::ListAuditRecordsRequest::default()
        ),
        row!(
            "stead.admin.v1.BulkMoveService/ListBulkMoveTenants",
            "OPCU",
            admin::ListBulkMoveTenantsRequest::default()
        ),
        row!(
            "stead.admin.v1.BulkMoveService/MoveTenants",
            "C",
            admin::MoveTenantsRequest::default()
        ),
        row!(
            "stead.admin.v1.ClusterService/FinishUpgrade",
            "C",
            admin::FinishUpgradeRequest::default()
        ),
        row!(
            "stead.admin.v1.ClusterService/GetCluster",
            "OPCU",
            admin::GetClusterRequest::default()
        ),
        row!(
            "stead.admin.v1.ClusterService/UpdateCluster",
            "C",
            admin::UpdateClusterRequest::default()
        ),
        row!(
            "stead.admin.v1.GroupService/GetGroup",
            "OPCU",
            admin::GetGroupRequest { number: US_EAST }
        ),
        row!(
            "stead.admin.v1.GroupService/ListGroups",
            "OPCU",
            admin::ListGroupsRequest::default()
        ),
        row!(
            "stead.admin.v1.NodeService/GetNode",
            "OPCU",
            admin::GetNodeRequest { number: 1 }
        ),
        row!(
            "stead.admin.v1.NodeService/ListNodes",
            "OPCU",
            admin::ListNodesRequest::default()
        ),
        row!(
            "stead.admin.v1.PromotionService/GetPromotionReport",
            "OPCU",
            admin::GetPromotionReportRequest::default()
        ),
        row!(
            "stead.admin.v1.RegionService/CreateRegion",
            "C",
            admin::CreateRegionRequest::default()
        ),
        row!(
            "stead.admin.v1.RegionService/GetReadiness",
            "OPCU",
            admin::GetReadinessRequest {
                region: "us-east".to_owned()
            }
        ),
        row!(
            "stead.admin.v1.RegionService/GetRegion",
            "OPCU",
            admin::GetRegionRequest {
                name: "us-east".to_owned()
            }
        ),
        row!(
            "stead.admin.v1.RegionService/ListRegions",
            "OPCU",
            admin::ListRegionsRequest::default()
        ),
        row!(
            "stead.admin.v1.RoleService/GrantRole",
            "C",
            admin::GrantRoleRequest::default()
        ),
        row!(
            "stead.admin.v1.RoleService/ListRoleBindings",
            "CU",
            admin::ListRoleBindingsRequest::default()
        ),
        row!(
            "stead.admin.v1.RoleService/RevokeRole",
            "C",
            admin::RevokeRoleRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/AddGroup",
            "C",
            admin::AddGroupRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/AddNode",
            "C",
            admin::AddNodeRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/AddRegion",
            "C",
            admin::AddRegionRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/RemoveNode",
            "C",
            admin::RemoveNodeRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/RemoveRegion",
            "C",
            admin::RemoveRegionRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/RestoreDirectory",
            "C",
            admin::RestoreDirectoryRequest::default()
        ),
        row!(
            "stead.admin.v1.TopologyService/ReplaceNode",
            "C",
            admin::ReplaceNodeRequest::default()
        ),
    ]
}

pub(super) fn operations() -> Vec<Row> {
    vec![
        row!(
            "google.longrunning.Operations/CancelOperation",
            "OPC",
            CancelOperationRequest {
                name: NO_OPERATION.to_owned()
            }
        ),
        row!(
            "google.longrunning.Operations/DeleteOperation",
            "C",
            DeleteOperationRequest {
                name: NO_OPERATION.to_owned()
            }
        ),
        row!(
            "google.longrunning.Operations/GetOperation",
            "OPCU",
            GetOperationRequest {
                name: NO_OPERATION.to_owned()
            }
        ),
        row!(
            "google.longrunning.Operations/ListOperations",
            "OPCU",
            ListOperationsRequest::default()
        ),
        row!(
            "google.longrunning.Operations/WaitOperation",
            "OPCU",
            WaitOperationRequest {
                name: NO_OPERATION.to_owned(),
                ..Default::default()
            }
        ),
        row!(
            "stead.admin.v1.OperationService/WatchOperation",
            "OPCU",
            admin::WatchOperationRequest {
                name: NO_OPERATION.to_owned()
            }
        ),
        row!(
            "stead.admin.v1.BulkMoveService/PauseBulkMove",
            "OPC",
            admin::PauseBulkMoveRequest {
                name: NO_OPERATION.to_owned(),
                ..Default::default()
            }
        ),
        row!(
            "stead.admin.v1.BulkMoveService/ResumeBulkMove",
            "OPC",
            admin::ResumeBulkMoveRequest {
                name: NO_OPERATION.to_owned(),
                ..Default::default()
            }
        ),
    ]
}
