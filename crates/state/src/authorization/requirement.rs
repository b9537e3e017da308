//! Requirement of each method of the client listener.

/// Requirement of a method; what its message names decides further, as a [`super::Need`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// Nothing, not even a credential.
    Nothing,
    /// A valid credential.
    Credential,
    /// A role that reads keys.
    ReadKeys,
    /// A role that writes keys.
    WriteKeys,
    /// A role that reads or writes keys, as its operations need.
    AccessKeys,
    /// Any role, in the tenant or for the cluster.
    Member,
    /// Sight of a tenant.
    InspectTenant,
    /// Change of a tenant.
    AdministerTenant,
    /// Operation of a region.
    OperateRegion,
    /// Operation of the cluster.
    OperateCluster,
    /// Sight of the cluster.
    Inspect,
    /// Sight of the audit log.
    Audit,
}

/// Requirement of each method, by its path without the first slash. A test compares the paths with the protos.
pub const REQUIREMENTS: &[(&str, Requirement)] = &[
    (
        "google.longrunning.Operations/CancelOperation",
        Requirement::OperateRegion,
    ),
    (
        "google.longrunning.Operations/DeleteOperation",
        Requirement::OperateCluster,
    ),
    ("google.longrunning.Operations/GetOperation", Requirement::Inspect),
    ("google.longrunning.Operations/ListOperations", Requirement::Inspect),
    ("google.longrunning.Operations/WaitOperation", Requirement::Inspect),
    ("grpc.health.v1.Health/Check", Requirement::Nothing),
    ("grpc.health.v1.Health/Watch", Requirement::Nothing),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Requirement::Credential,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Requirement::Credential,
    ),
    ("stead.admin.v1.AuditService/ListAuditRecords", Requirement::Audit),
    (
        "stead.admin.v1.AuditService/ListResidencyRecords",
        Requirement::InspectTenant,
    ),
    ("stead.admin.v1.BulkMoveService/DrainRegion", Requirement::OperateRegion),
    (
        "stead.admin.v1.BulkMoveService/FailbackRegion",
        Requirement::OperateRegion,
    ),
    (
        "stead.admin.v1.BulkMoveService/ListBulkMoveTenants",
        Requirement::Inspect,
    ),
    (
        "stead.admin.v1.BulkMoveService/MoveTenants",
        Requirement::OperateCluster,
    ),
    (
        "stead.admin.v1.BulkMoveService/PauseBulkMove",
        Requirement::OperateRegion,
    ),
    (
        "stead.admin.v1.BulkMoveService/RehearseRegion",
        Requirement::OperateRegion,
    ),
    (
        "stead.admin.v1.BulkMoveService/ResumeBulkMove",
        Requirement::OperateRegion,
    ),
    (
        "stead.admin.v1.BulkMoveService/UndrainRegion",
        Requirement::OperateRegion,
    ),
    (
        "stead.admin.v1.ClusterService/FinishUpgrade",
        Requirement::OperateCluster,
    ),
    ("stead.admin.v1.ClusterService/GetCluster", Requirement::Inspect),
    (
        "stead.admin.v1.ClusterService/UpdateCluster",
        Requirement::OperateCluster,
    ),
    ("stead.admin.v1.ForkService/DiscardFork", Requirement::AdministerTenant),
    ("stead.admin.v1.ForkService/ListForkEntries", Requirement::ReadKeys),
    ("stead.admin.v1.ForkService/ListForks", Requirement::InspectTenant),
    ("stead.admin.v1.ForkService/ReplayFork", Requirement::AdministerTenant),
    ("stead.admin.v1.GroupService/GetGroup", Requirement::Inspect),
    ("stead.admin.v1.GroupService/ListGroups", Requirement::Inspect),
    ("stead.admin.v1.GroupService/MoveLeader", Requirement::OperateRegion),
    ("stead.admin.v1.NodeService/GetNode", Requirement::Inspect),
    ("stead.admin.v1.NodeService/ListNodes", Requirement::Inspect),
    ("stead.admin.v1.OperationService/WatchOperation", Requirement::Inspect),
    (
        "stead.admin.v1.PromotionService/GetPromotionReport",
        Requirement::Inspect,
    ),
    ("stead.admin.v1.PromotionService/Promote", Requirement::OperateRegion),
    (
        "stead.admin.v1.PromotionService/SetRegionLossPolicy",
        Requirement::AdministerTenant,
    ),
    ("stead.admin.v1.RegionService/CreateRegion", Requirement::OperateCluster),
    ("stead.admin.v1.RegionService/GetReadiness", Requirement::Inspect),
    ("stead.admin.v1.RegionService/GetRegion", Requirement::Inspect),
    ("stead.admin.v1.RegionService/ListRegions", Requirement::Inspect),
    ("stead.admin.v1.RoleService/GetCaller", Requirement::Credential),
    ("stead.admin.v1.RoleService/GrantRole", Requirement::OperateCluster),
    ("stead.admin.v1.RoleService/ListRoleBindings", Requirement::Audit),
    ("stead.admin.v1.RoleService/RevokeRole", Requirement::OperateCluster),
    ("stead.admin.v1.TenantService/CreateTenant", Requirement::OperateCluster),
    ("stead.admin.v1.TenantService/DeleteTenant", Requirement::OperateCluster),
    ("stead.admin.v1.TenantService/GetTenant", Requirement::InspectTenant),
    (
        "stead.admin.v1.TenantService/ListTenantLoads",
        Requirement::InspectTenant,
    ),
    ("stead.admin.v1.TenantService/ListTenants", Requirement::InspectTenant),
    ("stead.admin.v1.TenantService/MoveTenant", Requirement::OperateRegion),
    (
        "stead.admin.v1.TenantService/UpdateTenant",
        Requirement::AdministerTenant,
    ),
    ("stead.admin.v1.TenantService/VerifyTenant", Requirement::InspectTenant),
    ("stead.admin.v1.TopologyService/AddGroup", Requirement::OperateCluster),
    ("stead.admin.v1.TopologyService/AddNode", Requirement::OperateCluster),
    ("stead.admin.v1.TopologyService/AddRegion", Requirement::OperateCluster),
    ("stead.admin.v1.TopologyService/RemoveNode", Requirement::OperateCluster),
    (
        "stead.admin.v1.TopologyService/RemoveRegion",
        Requirement::OperateCluster,
    ),
    (
        "stead.admin.v1.TopologyService/ReplaceNode",
        Requirement::OperateCluster,
    ),
    (
        "stead.admin.v1.TopologyService/RestoreDirectory",
        Requirement::OperateCluster,
    ),
    ("stead.v1.DirectoryService/BatchLookup", Requirement::Member),
    ("stead.v1.DirectoryService/ListRegions", Requirement::Credential),
    ("stead.v1.DirectoryService/Lookup", Requirement::Member),
    ("stead.v1.DirectoryService/Watch", Requirement::Member),
    ("stead.v1.KvService/Append", Requirement::WriteKeys),
    ("stead.v1.KvService/BatchGet", Requirement::ReadKeys),
    ("stead.v1.KvService/Delete", Requirement::WriteKeys),
    ("stead.v1.KvService/DeleteRange", Requirement::WriteKeys),
    ("stead.v1.KvService/Get", Requirement::ReadKeys),
    ("stead.v1.KvService/Increment", Requirement::WriteKeys),
    ("stead.v1.KvService/Pipeline", Requirement::AccessKeys),
    ("stead.v1.KvService/Put", Requirement::WriteKeys),
    ("stead.v1.KvService/Scan", Requirement::ReadKeys),
    ("stead.v1.KvService/ScanStream", Requirement::ReadKeys),
    ("stead.v1.KvService/Txn", Requirement::AccessKeys),
    ("stead.v1.KvService/Watch", Requirement::ReadKeys),
    ("stead.v1.ReceiptService/CheckReceipts", Requirement::Member),
];

/// Returns the row of a method, by its path; `None` for one that has none, which is refused.
pub fn requirement(path: &str) -> Option<&'static (&'static str, Requirement)> {
    let method = path.strip_prefix('/').unwrap_or(path);
    let row = REQUIREMENTS.binary_search_by(|(known, _)| (*known).cmp(method)).ok()?;
    REQUIREMENTS.get(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirement_is_found_for_every_row() {
        assert!(REQUIREMENTS.is_sorted_by(|one, other| one.0 < other.0));
        for (path, required) in REQUIREMENTS {
            assert_eq!(requirement(&format!("/{path}")), Some(&(*path, *required)));
        }
        assert_eq!(requirement("/stead.v1.KvService/Unknown"), None);
    }
}
