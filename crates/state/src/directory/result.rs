//! Results of directory commands, and their encoding.

use bytes::Bytes;
use stead_types::{Error, ErrorKind, GroupId, Jurisdiction, NodeId, RegionName, TenantName, TenantNumber};

use super::{PromotionRejection, text};
use crate::codec::{Malformed, Reader, Writer};

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
    /// There would be too many records of tenants of bulk moves: of those to be moved, beside others that are needed.
    #[error("{0} tenants beside {1} of other bulk moves exceed {max}: undrain regions, or move fewer", max = super::ITEMS_MAX)]
    BulkTenantsFull(u64, u64),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let invalid = |field: &str| ErrorKind::Invalid { field: field.into() };
        let message = rejection.to_string();
        let kind = match rejection {
            Rejection::Promotion(promotion) => promotion.kind(),
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
            Rejection::DrainIntoItself(_) => invalid("to"),
            Rejection::NamedTwice(_) | Rejection::NamedTooMany(_) => invalid("tenants"),
            Rejection::BulkMovesFull => ErrorKind::QuotaExceeded {
                limit: "bulk_moves".into(),
            },
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

/// Writes a result, for the node that forwarded the command.
pub fn encode(result: &DirectoryResult) -> Bytes {
    let mut writer = Writer::with_capacity(32);
    let w = &mut writer;
    match result {
        Ok(DirectoryOutcome::Done) => drop(w.u8(0)),
        Ok(DirectoryOutcome::Tenant(number)) => drop(w.u8(1).varint(number.get())),
        Ok(DirectoryOutcome::Node(number)) => drop(w.u8(2).varint(number.get())),
        Ok(DirectoryOutcome::Operation(number)) => drop(w.u8(3).varint(*number)),
        Err(rejection) => encode_rejection(rejection, w),
    }
    writer.finish()
}

fn encode_rejection(rejection: &Rejection, w: &mut Writer) {
    let mut named = |tag, name: &str| text::write(w.u8(tag), name);
    match rejection {
        Rejection::NotBootstrapped => drop(w.u8(16)),
        Rejection::OtherCluster => drop(w.u8(17)),
        Rejection::TenantExists(name) => named(18, name.as_str()),
        Rejection::TenantUnknown(name) => named(19, name.as_str()),
        Rejection::TenantsFull => drop(w.u8(20)),
        Rejection::RegionUnknown(name) => named(21, name.as_str()),
        Rejection::RegionExists(name) => named(22, name.as_str()),
        Rejection::RegionEmpty(name) => named(23, name.as_str()),
        Rejection::NodeExists(name) => named(24, name),
        Rejection::NodeUnknown(number) => drop(w.u8(25).varint(number.get())),
        Rejection::Residency {
            allowed,
            region,
            jurisdiction,
        } => write_residency(w.u8(26), allowed, region, jurisdiction),
        Rejection::HomeFollows(name) => named(27, name.as_str()),
        Rejection::RemoteAlone => drop(w.u8(28)),
        Rejection::Changed(name) => named(29, name.as_str()),
        Rejection::NotDisabled(name) => named(30, name.as_str()),
        Rejection::StaleIncarnation => drop(w.u8(31)),
        Rejection::NotActive(name) => named(32, name.as_str()),
        Rejection::AlreadyHome(name) => named(33, name.as_str()),
        Rejection::AlreadyMoving(name) => named(34, name.as_str()),
        Rejection::Promoting(name) => named(35, name.as_str()),
        Rejection::GroupUnknown(group) => write_group(w.u8(36), *group),
        Rejection::TargetLeaving { tenant, group } => write_member(w.u8(37), tenant, *group),
        Rejection::TargetUnreachable(group) => write_group(w.u8(38), *group),
        Rejection::HomeUnreachable(group) => write_group(w.u8(39), *group),
        Rejection::SourceFollows(name) => named(40, name.as_str()),
        Rejection::SourceInRegion(name) => named(41, name.as_str()),
        Rejection::NotMember { tenant, group } => write_member(w.u8(42), tenant, *group),
        Rejection::MemberNeeded { tenant, group } => write_member(w.u8(43), tenant, *group),
        Rejection::EpochsExhausted(name) => named(44, name.as_str()),
        Rejection::OperationUnknown(number) => drop(w.u8(45).varint(*number)),
        Rejection::OperationSucceeded(number) => drop(w.u8(46).varint(*number)),
        Rejection::OperationOver => drop(w.u8(47)),
        Rejection::OperationsFull => drop(w.u8(48)),
        Rejection::StaleReport => drop(w.u8(49)),
        Rejection::FeatureLevel { needed, level } => {
            w.u8(50).varint(u64::from(*needed)).varint(u64::from(*level));
        }
        Rejection::FeatureLevelRange { requested, level, max } => {
            w.u8(51).varint(u64::from(*requested));
            w.varint(u64::from(*level)).varint(u64::from(*max));
        }
        Rejection::NodesBehind { requested, count, node } => {
            text::write(w.u8(52).varint(u64::from(*requested)).varint(*count), node)
        }
        Rejection::LeaseTtl(ms) => drop(w.u8(53).varint(*ms)),
        Rejection::RegionDraining(name) => named(70, name.as_str()),
        Rejection::NotDraining(name) => named(71, name.as_str()),
        Rejection::DrainInFlight { region, operation } => {
            text::write(w.u8(72).varint(*operation), region.as_str());
        }
        Rejection::DrainedTooOften(name) => named(73, name.as_str()),
        Rejection::DrainIntoItself(name) => named(74, name.as_str()),
        Rejection::NoOpenRegion(name) => named(75, name.as_str()),
        Rejection::OnlyGroup(name) => named(76, name.as_str()),
        Rejection::NothingToMove => drop(w.u8(77)),
        Rejection::NamedTwice(name) => named(78, name.as_str()),
        Rejection::NamedTooMany(count) => drop(w.u8(79).varint(*count)),
        Rejection::NotBulkMove(number) => drop(w.u8(80).varint(*number)),
        Rejection::BulkMovesFull => drop(w.u8(81)),
        Rejection::Promotion(promotion) => promotion.encode(w),
        Rejection::BulkTenantsFull(selected, kept) => drop(w.u8(69).varint(*selected).varint(*kept)),
    }
}

fn write_residency(w: &mut Writer, allowed: &[Jurisdiction], region: &RegionName, jurisdiction: &Jurisdiction) {
    text::write_all(w, allowed.iter().map(Jurisdiction::as_str));
    text::write(w, region.as_str());
    text::write(w, jurisdiction.as_str());
}

fn write_group(w: &mut Writer, group: GroupId) {
    w.varint(u64::from(group.get()));
}

fn write_member(w: &mut Writer, tenant: &TenantName, group: GroupId) {
    text::write(w, tenant.as_str());
    write_group(w, group);
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: Bytes) -> Result<DirectoryResult, Malformed> {
    let mut reader = Reader::new(bytes, "directory result");
    let r = &mut reader;
    let result = match r.u8()? {
        0 => Ok(DirectoryOutcome::Done),
        1 => Ok(DirectoryOutcome::Tenant(TenantNumber::new(r.varint()?))),
        2 => Ok(DirectoryOutcome::Node(text::node(r)?)),
        3 => Ok(DirectoryOutcome::Operation(r.varint()?)),
        tag => Err(decode_rejection(tag, r)?),
    };
    reader.end()?;
    Ok(result)
}

fn decode_rejection(tag: u8, r: &mut Reader) -> Result<Rejection, Malformed> {
    Ok(match tag {
        16 => Rejection::NotBootstrapped,
        17 => Rejection::OtherCluster,
        18 => Rejection::TenantExists(text::parse(r)?),
        19 => Rejection::TenantUnknown(text::parse(r)?),
        20 => Rejection::TenantsFull,
        21 => Rejection::RegionUnknown(text::parse(r)?),
        22 => Rejection::RegionExists(text::parse(r)?),
        23 => Rejection::RegionEmpty(text::parse(r)?),
        24 => Rejection::NodeExists(text::read(r)?),
        25 => Rejection::NodeUnknown(text::node(r)?),
        26 => Rejection::Residency {
            allowed: r.list(text::parse)?,
            region: text::parse(r)?,
            jurisdiction: text::parse(r)?,
        },
        27 => Rejection::HomeFollows(text::parse(r)?),
        28 => Rejection::RemoteAlone,
        29 => Rejection::Changed(text::parse(r)?),
        30 => Rejection::NotDisabled(text::parse(r)?),
        31 => Rejection::StaleIncarnation,
        _ => decode_operation_rejection(tag, r)?,
    })
}

/// Reads a rejection of an operation, a report or a cluster setting.
fn decode_operation_rejection(tag: u8, r: &mut Reader) -> Result<Rejection, Malformed> {
    Ok(match tag {
        32 => Rejection::NotActive(text::parse(r)?),
        33 => Rejection::AlreadyHome(text::parse(r)?),
        34 => Rejection::AlreadyMoving(text::parse(r)?),
        35 => Rejection::Promoting(text::parse(r)?),
        36 => Rejection::GroupUnknown(text::group(r)?),
        37 => Rejection::TargetLeaving {
            tenant: text::parse(r)?,
            group: text::group(r)?,
        },
        38 => Rejection::TargetUnreachable(text::group(r)?),
        39 => Rejection::HomeUnreachable(text::group(r)?),
        40 => Rejection::SourceFollows(text::parse(r)?),
        41 => Rejection::SourceInRegion(text::parse(r)?),
        42 => Rejection::NotMember {
            tenant: text::parse(r)?,
            group: text::group(r)?,
        },
        43 => Rejection::MemberNeeded {
            tenant: text::parse(r)?,
            group: text::group(r)?,
        },
        44 => Rejection::EpochsExhausted(text::parse(r)?),
        45 => Rejection::OperationUnknown(r.varint()?),
        46 => Rejection::OperationSucceeded(r.varint()?),
        47 => Rejection::OperationOver,
        48 => Rejection::OperationsFull,
        49 => Rejection::StaleReport,
        50 => Rejection::FeatureLevel {
            needed: r.varint_u32()?,
            level: r.varint_u32()?,
        },
        51 => Rejection::FeatureLevelRange {
            requested: r.varint_u32()?,
            level: r.varint_u32()?,
            max: r.varint_u32()?,
        },
        52 => Rejection::NodesBehind {
            requested: r.varint_u32()?,
            count: r.varint()?,
            node: text::read(r)?,
        },
        53 => Rejection::LeaseTtl(r.varint()?),
        _ => decode_bulk_move_rejection(tag, r)?,
    })
}

/// Reads a rejection of a bulk move.
fn decode_bulk_move_rejection(tag: u8, r: &mut Reader) -> Result<Rejection, Malformed> {
    Ok(match tag {
        69 => Rejection::BulkTenantsFull(r.varint()?, r.varint()?),
        70 => Rejection::RegionDraining(text::parse(r)?),
        71 => Rejection::NotDraining(text::parse(r)?),
        72 => Rejection::DrainInFlight {
            operation: r.varint()?,
            region: text::parse(r)?,
        },
        73 => Rejection::DrainedTooOften(text::parse(r)?),
        74 => Rejection::DrainIntoItself(text::parse(r)?),
        75 => Rejection::NoOpenRegion(text::parse(r)?),
        76 => Rejection::OnlyGroup(text::parse(r)?),
        77 => Rejection::NothingToMove,
        78 => Rejection::NamedTwice(text::parse(r)?),
        79 => Rejection::NamedTooMany(r.varint()?),
        80 => Rejection::NotBulkMove(r.varint()?),
        81 => Rejection::BulkMovesFull,
        _ => PromotionRejection::decode(tag, r)?.into(),
    })
}
