//! Results of directory commands.

use stead_types::{Error, ErrorKind, GroupId, Jurisdiction, NodeId, RegionName, TenantName, TenantNumber};

use super::{PromotionRejection, RegionLossRejection, TopologyRejection};

/// Result of one command, equal in every replica.
pub type DirectoryResult = Result<DirectoryOutcome, Rejection>;

/// Outcome of a command that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryOutcome {
    /// The command is done, or was done before.
    Done,
    /// The tenant is as requested, as of the version of the response.
    Tenant(TenantNumber),
    /// Number of the node.
    Node(NodeId),
    /// Number of the operation that was begun.
    Operation(u64),
}

/// Reason why a command was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The directory has not been bootstrapped with the first nodes yet.
    #[error("the cluster is not bootstrapped: the directory waits for its first nodes")]
    NotBootstrapped,
    /// The cluster was bootstrapped with another list of nodes.
    #[error("the cluster was bootstrapped with another cluster.initial: give every first node the same list")]
    OtherCluster,
    /// The tenant's name is in use.
    #[error("tenant {0} exists already")]
    TenantExists(TenantName),
    /// The tenant does not exist.
    #[error("there is no tenant {0}")]
    TenantUnknown(TenantName),
    /// The cluster has the maximum number of tenants.
    #[error("the cluster has {max} tenants, more are not supported", max = super::TENANTS_MAX)]
    TenantsFull,
    /// The region does not exist.
    #[error("there is no region {0}")]
    RegionUnknown(RegionName),
    /// The region's name is in use.
    #[error("region {0} exists already, with another jurisdiction")]
    RegionExists(RegionName),
    /// The region has no group that could hold a tenant.
    #[error("region {0} has no nodes yet: let one join first")]
    RegionEmpty(RegionName),
    /// The name belongs to another node.
    #[error("node {0} exists already: give this one another name")]
    NodeExists(String),
    /// The node does not exist.
    #[error("there is no node {0}")]
    NodeUnknown(NodeId),
    /// The tenant's residency does not admit a region that it needs.
    #[error("residency does not admit region {region} ({jurisdiction})")]
    Residency {
        /// Jurisdictions that the residency admits.
        allowed: Vec<Jurisdiction>,
        /// The region.
        region: RegionName,
        /// Jurisdiction of the region.
        jurisdiction: Jurisdiction,
    },
    /// The home region is named as a follower.
    #[error("region {0} is the tenant's home and cannot follow it: leave it out of followers")]
    HomeFollows(RegionName),
    /// Durability REMOTE has no follower in another region.
    #[error("durability REMOTE needs a follower in another region: name one or admit one")]
    RemoteAlone,
    /// The record has changed since the caller read it.
    #[error("tenant {0} has changed since it was read: read it again")]
    Changed(TenantName),
    /// The tenant is not disabled, which it must be before it is erased.
    #[error("tenant {0} is not disabled: disable it first, then erase it")]
    NotDisabled(TenantName),
    /// The report is of an earlier incarnation of its group.
    #[error("the report is of an earlier incarnation of the group")]
    StaleIncarnation,
    /// The tenant is disabled or being erased.
    #[error("tenant {0} is not active: enable it first")]
    NotActive(TenantName),
    /// The target of a move is the home.
    #[error("tenant {0} has its home there already: to move it within its region, name another group of the region")]
    AlreadyHome(TenantName),
    /// A move of the tenant is in flight.
    #[error("tenant {0} is being moved already: wait for that move, or abort it")]
    AlreadyMoving(TenantName),
    /// A promotion of the tenant is in flight.
    #[error("tenant {0} is being promoted: wait until the promotion is activated")]
    Promoting(TenantName),
    /// The group does not exist or holds no tenants.
    #[error("there is no group {0} that holds tenants: name a group of a region")]
    GroupUnknown(GroupId),
    /// The target of a move has been a member before and has not erased its copy yet.
    #[error("group {group} is still leaving tenant {tenant}: wait until it is no longer listed, or name another group")]
    TargetLeaving {
        /// The tenant.
        tenant: TenantName,
        /// The group.
        group: GroupId,
    },
    /// The target of a move does not answer.
    #[error("a majority of group {0} does not answer: move the tenant to another group, or when its nodes are back")]
    TargetUnreachable(GroupId),
    /// The source of a move does not answer.
    #[error("a majority of the home, group {0}, does not answer: a move needs it, a promotion does not")]
    HomeUnreachable(GroupId),
    /// A source that is to leave would follow by policy.
    #[error(
        "tenant {0} is followed in every admitted region, its source too: name its followers first, or let the source follow"
    )]
    SourceFollows(TenantName),
    /// A source that is to follow is in the region of the target.
    #[error("the source of tenant {0} is in the target's region, where no group follows: let it leave")]
    SourceInRegion(TenantName),
    /// The group is not a member of the tenant in the state that the change needs.
    #[error("group {group} is not such a member of tenant {tenant}: read the tenant again")]
    NotMember {
        /// The tenant.
        tenant: TenantName,
        /// The group.
        group: GroupId,
    },
    /// The tenant cannot do without a member.
    #[error("tenant {tenant} needs group {group}, its home or the target of an operation: move the tenant first")]
    MemberNeeded {
        /// The tenant.
        tenant: TenantName,
        /// The group.
        group: GroupId,
    },
    /// All epochs of the tenant are used up.
    #[error("all epochs of tenant {0} are used up: export it into a new tenant")]
    EpochsExhausted(TenantName),
    /// The operation does not exist, or no longer.
    #[error("there is no operation {0}: operations are kept for seven days after their end")]
    OperationUnknown(u64),
    /// The operation has succeeded and cannot be cancelled any more.
    #[error("operation {0} has succeeded and cannot be cancelled: reverse it by another move")]
    OperationSucceeded(u64),
    /// The operation is over, or another one has replaced it.
    #[error("the operation is over or was replaced: read the tenant again")]
    OperationOver,
    /// Too many operations are in flight.
    #[error("{max} operations are in flight, more are not supported: wait until some are over", max = super::OPERATIONS_MAX)]
    OperationsFull,
    /// The report is late: what it reports is not awaited any more.
    #[error("the report is late: the directory does not wait for it any more")]
    StaleReport,
    /// The cluster's feature level is too low.
    #[error("this needs feature level {needed}, the cluster is at {level}: raise it once every node runs this version")]
    FeatureLevel {
        /// Level that is needed.
        needed: u32,
        /// Level of the cluster.
        level: u32,
    },
    /// The requested feature level is below the cluster's, or above what this version supports.
    #[error("feature level {requested} is not possible: it is between the cluster's, {level}, and {max}")]
    FeatureLevelRange {
        /// Requested level.
        requested: u32,
        /// Level of the cluster.
        level: u32,
        /// Highest level that this version supports.
        max: u32,
    },
    /// Some nodes have not reported that they support the feature level.
    #[error("{count} nodes have not told the directory's leader that they support level {requested}: upgrade {node}")]
    NodesBehind {
        /// Requested level.
        requested: u32,
        /// Number of the nodes.
        count: u64,
        /// Names of the first ones.
        node: String,
    },
    /// The lease ttl is out of range.
    #[error("a lease ttl of {0} ms is out of range: {min} to {max} ms", min = super::LEASE_TTL_MS_MIN, max = super::LEASE_TTL_MS_MAX)]
    LeaseTtl(u64),
    /// The region takes no tenants, because it is drained.
    #[error("region {0} is drained: name another region, or undrain it first")]
    RegionDraining(RegionName),
    /// The region is not drained.
    #[error("region {0} is not drained: there is nothing to undo")]
    NotDraining(RegionName),
    /// A drain of the region is in flight.
    #[error("operations/{operation} drains region {region}: wait for it, or cancel it first")]
    DrainInFlight {
        /// The region.
        region: RegionName,
        /// Number of the drain.
        operation: u64,
    },
    /// The region was drained too often.
    #[error("region {0} was drained {max} times since it was last undrained: undrain it first", max = super::DRAINS_MAX)]
    DrainedTooOften(RegionName),
    /// The region is to be drained into itself.
    #[error("region {0} cannot be drained into itself: name another region, or none")]
    DrainIntoItself(RegionName),
    /// No other region may hold the tenant.
    #[error("no other region that takes tenants may hold tenant {0}: admit one in its residency, or undrain one")]
    NoOpenRegion(TenantName),
    /// The region has one group only.
    #[error("region {0} has one group: a tenant cannot move within it")]
    OnlyGroup(RegionName),
    /// A bulk move selects no tenant.
    #[error("no tenant is to be moved: those that are selected are where they go, or there are none")]
    NothingToMove,
    /// A request names a tenant twice.
    #[error("tenant {0} is named twice: name each once")]
    NamedTwice(TenantName),
    /// A request names too many tenants.
    #[error("{0} tenants are named: name at most {max} at a time", max = super::NAMED_MOVES_MAX)]
    NamedTooMany(u64),
    /// The operation moves one tenant only.
    #[error("operation {0} moves one tenant and cannot be paused or resumed: wait for it, or cancel it")]
    NotBulkMove(u64),
    /// Too many bulk moves are in flight.
    #[error("{max} bulk moves are in flight, more are not supported: wait until one is over", max = super::BULK_MOVES_MAX)]
    BulkMovesFull,
    /// A promotion is refused.
    #[error(transparent)]
    Promotion(#[from] PromotionRejection),
    /// The policy for the loss of a tenant's home region is refused.
    #[error(transparent)]
    RegionLoss(#[from] RegionLossRejection),
    /// A change of nodes or regions is refused.
    #[error(transparent)]
    Topology(#[from] TopologyRejection),
    /// There would be too many records of tenants of bulk moves: of those to be moved, beside others that are needed.
    #[error("{0} tenants beside {1} of other bulk moves exceed {max}: undrain regions, or move fewer", max = super::ITEMS_MAX)]
    BulkTenantsFull(u64, u64),
    /// The home of a tenant is not in the region whose loss is rehearsed.
    #[error("tenant {tenant} is not at home in region {region}: name tenants of that region")]
    NotHome {
        /// The tenant.
        tenant: TenantName,
        /// The region.
        region: RegionName,
    },
    /// A rehearsal is begun by a command that has no forecasts.
    #[error("a rehearsal of the loss of region {0} needs its own command: this is a bug, please report it")]
    RehearsalWithoutForecast(RegionName),
    /// There are too many role bindings.
    #[error(
        "at most {subjects} identities have roles, each at most {roles}: revoke what is not needed, or let tokens carry roles",
        subjects = super::role_bindings::SUBJECTS_MAX,
        roles = super::role_bindings::SUBJECT_ROLES_MAX
    )]
    RoleBindingsFull,
    /// The subject does not have the role.
    #[error("{0} has no such role: `stead role list` shows what it has")]
    RoleNotBound(String),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let invalid = |field: &str| ErrorKind::Invalid { field: field.into() };
        let message = rejection.to_string();
        let kind = match rejection {
            Rejection::Promotion(promotion) => promotion.kind(),
            Rejection::RegionLoss(region_loss) => region_loss.kind(),
            Rejection::Topology(topology) => topology.kind(),
            Rejection::NotBootstrapped => ErrorKind::Unavailable,
            Rejection::OtherCluster | Rejection::Changed(_) => ErrorKind::Conflict,
            Rejection::NotDisabled(_) | Rejection::StaleIncarnation | Rejection::StaleReport => ErrorKind::Conflict,
            Rejection::NotActive(_) | Rejection::AlreadyHome(_) | Rejection::AlreadyMoving(_) => ErrorKind::Conflict,
            Rejection::Promoting(_) | Rejection::TargetLeaving { .. } | Rejection::NotMember { .. } => {
                ErrorKind::Conflict
            }
            Rejection::MemberNeeded { .. } | Rejection::OperationOver => ErrorKind::Conflict,
            Rejection::OperationSucceeded(_) => ErrorKind::NotCancellable,
            Rejection::FeatureLevel { .. } | Rejection::NodesBehind { .. } => ErrorKind::Conflict,
            Rejection::TargetUnreachable(_) | Rejection::HomeUnreachable(_) => ErrorKind::Unavailable,
            Rejection::SourceFollows(_) | Rejection::SourceInRegion(_) => invalid("source"),
            Rejection::FeatureLevelRange { .. } => invalid("feature_level"),
            Rejection::LeaseTtl(_) => invalid("lease_ttl"),
            Rejection::RegionDraining(_) | Rejection::NotDraining(_) | Rejection::DrainInFlight { .. } => {
                ErrorKind::Conflict
            }
            Rejection::DrainedTooOften(_) | Rejection::NoOpenRegion(_) | Rejection::OnlyGroup(_) => ErrorKind::Conflict,
            Rejection::NothingToMove | Rejection::NotBulkMove(_) => ErrorKind::Conflict,
            Rejection::NotHome { .. } => invalid("tenants"),
            Rejection::RehearsalWithoutForecast(_) => ErrorKind::Internal,
            Rejection::DrainIntoItself(_) => invalid("to"),
            Rejection::NamedTwice(_) | Rejection::NamedTooMany(_) => invalid("tenants"),
            Rejection::BulkMovesFull => ErrorKind::QuotaExceeded {
                limit: "bulk_moves".into(),
            },
            Rejection::RoleBindingsFull => ErrorKind::QuotaExceeded {
                limit: "role_bindings".into(),
            },
            Rejection::RoleNotBound(_) => ErrorKind::NotFound,
            Rejection::BulkTenantsFull(..) => ErrorKind::QuotaExceeded {
                limit: "bulk_move_tenants".into(),
            },
            Rejection::TenantExists(_) | Rejection::RegionExists(_) | Rejection::NodeExists(_) => {
                ErrorKind::AlreadyExists
            }
            Rejection::TenantUnknown(_) => ErrorKind::TenantNotFound,
            Rejection::RegionUnknown(_) | Rejection::NodeUnknown(_) => ErrorKind::NotFound,
            Rejection::GroupUnknown(_) | Rejection::OperationUnknown(_) => ErrorKind::NotFound,
            Rejection::TenantsFull => ErrorKind::QuotaExceeded {
                limit: "tenants".into(),
            },
            Rejection::OperationsFull => ErrorKind::QuotaExceeded {
                limit: "operations".into(),
            },
            Rejection::EpochsExhausted(_) => ErrorKind::QuotaExceeded { limit: "epochs".into() },
            Rejection::RegionEmpty(_) => invalid("home_region"),
            Rejection::HomeFollows(_) => invalid("followers.regions"),
            Rejection::RemoteAlone => invalid("durability"),
            Rejection::Residency {
                allowed, jurisdiction, ..
            } => ErrorKind::Residency {
                allowed: allowed.iter().map(ToString::to_string).collect(),
                region: jurisdiction.to_string(),
            },
        };
        Self::new(kind, message)
    }
}
