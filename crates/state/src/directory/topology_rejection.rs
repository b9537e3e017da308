//! Reasons why a change of the cluster's nodes and regions is refused, and their encoding.

use stead_types::{ErrorKind, GroupId, NodeId, RegionName, TenantName};

use super::{
    text,
    topology_change::{ANNOUNCED_MAX, GROUPS_MAX, NODE_NAME_LEN_MAX},
};
use crate::codec::{Malformed, Reader, Writer};

/// Reason why a change of nodes or regions was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyRejection {
    /// The node was not announced.
    #[error("node {0} was not announced: `stead node add {0} --region REGION` first, or `stead node replace`")]
    NotAnnounced(String),
    /// Another node has joined under the name.
    #[error(
        "node {0} has joined already, from another data directory: if that one is lost, `stead node replace {0}` first; if it \
         lives, announce this node under another name"
    )]
    JoinedAlready(String),
    /// The name cannot be used.
    #[error("name: {0:?} cannot name a node: 1 to {max} bytes of a-z, 0-9, '-', '_' and '.'", max = NODE_NAME_LEN_MAX)]
    Name(String),
    /// The region is being removed.
    #[error("region {0} is being removed: name another region")]
    RegionLeaving(RegionName),
    /// An operation changes the node already.
    #[error("operations/{operation} changes node {node} already: wait for it, or cancel it")]
    Busy {
        /// The node.
        node: NodeId,
        /// Number of the operation.
        operation: u64,
    },
    /// A group that is being added has not formed.
    #[error("group {} has not formed: wait for operations/{operation}, which adds it, or cancel it", .group.get())]
    GroupForming {
        /// The group.
        group: GroupId,
        /// Number of the operation.
        operation: u64,
    },
    /// The node is the last one of its region.
    #[error("node {node} is the last one of region {region} that holds data: remove the region, or add a node first")]
    LastNode {
        /// The node.
        node: NodeId,
        /// The region.
        region: RegionName,
    },
    /// A group could lose fewer nodes than before.
    #[error(
        "without node {node} group {group} has {left} voters and may lose {tolerance} of them, fewer than now: add a node \
         first, or accept it with --accept-less"
    )]
    LessRedundancy {
        /// The node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// Number of the voters that are left.
        left: u64,
        /// Number of them that may be lost.
        tolerance: u64,
    },
    /// It is the last region.
    #[error("region {0} is the only one: a cluster needs a region")]
    LastRegion(RegionName),
    /// Tenants are at home in the region.
    #[error(
        "{count} tenants are at home in region {region}: `stead region drain {region}` first, or, if its nodes are lost, \
         `stead region promote {region}`"
    )]
    HasHomes {
        /// The region.
        region: RegionName,
        /// Number of the tenants.
        count: u64,
    },
    /// A tenant names the region among its followers.
    #[error(
        "tenant {tenant} names region {region} as a follower: take it out with `stead tenant update`, then remove it"
    )]
    Follows {
        /// The region.
        region: RegionName,
        /// The tenant.
        tenant: TenantName,
    },
    /// A tenant with durability `REMOTE` has its only follower in the region.
    #[error(
        "tenant {tenant} has durability REMOTE and no follower but in region {region}: let another region follow it"
    )]
    RemoteNeeds {
        /// The region.
        region: RegionName,
        /// The tenant.
        tenant: TenantName,
    },
    /// A new region has no nodes, or too many.
    #[error("nodes: {0} are named: name 1 to {max} nodes of the region", max = ANNOUNCED_MAX)]
    NodeCount(u64),
    /// A group has changed already, and the operation cannot be cancelled.
    #[error("operation {0} has changed voters already and cannot be cancelled: let it finish, then reverse it")]
    Begun(u64),
    /// A region has as many groups as it may have.
    #[error("region {0} has {max} groups, the most there may be: spread its tenants over them", max = GROUPS_MAX)]
    GroupsFull(RegionName),
    /// There is nothing to do.
    #[error("the directory has the voters that the nodes allow: nothing is to be restored")]
    NothingToRestore,
}

impl TopologyRejection {
    pub(super) fn kind(&self) -> ErrorKind {
        let invalid = |field: &str| ErrorKind::Invalid { field: field.into() };
        match self {
            Self::NotAnnounced(_) => ErrorKind::NotFound,
            Self::JoinedAlready(_) => ErrorKind::AlreadyExists,
            Self::Name(_) => invalid("name"),
            Self::NodeCount(_) => invalid("nodes"),
            Self::Begun(_) => ErrorKind::NotCancellable,
            Self::RegionLeaving(_)
            | Self::Busy { .. }
            | Self::GroupForming { .. }
            | Self::LastNode { .. }
            | Self::LessRedundancy { .. }
            | Self::LastRegion(_)
            | Self::HasHomes { .. }
            | Self::Follows { .. }
            | Self::RemoteNeeds { .. }
            | Self::GroupsFull(_)
            | Self::NothingToRestore => ErrorKind::Conflict,
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::NotAnnounced(name) => text::write(w.u8(130), name),
            Self::JoinedAlready(name) => text::write(w.u8(131), name),
            Self::Name(name) => text::write(w.u8(132), name),
            Self::RegionLeaving(region) => text::write(w.u8(133), region.as_str()),
            Self::Busy { node, operation } => drop(w.u8(134).varint(node.get()).varint(*operation)),
            Self::GroupForming { group, operation } => {
                w.u8(145).varint(u64::from(group.get())).varint(*operation);
            }
            Self::LastNode { node, region } => text::write(w.u8(135).varint(node.get()), region.as_str()),
            Self::LessRedundancy {
                node,
                group,
                left,
                tolerance,
            } => {
                w.u8(136).varint(node.get()).varint(u64::from(group.get()));
                w.varint(*left).varint(*tolerance);
            }
            Self::LastRegion(region) => text::write(w.u8(137), region.as_str()),
            Self::HasHomes { region, count } => text::write(w.u8(138).varint(*count), region.as_str()),
            Self::Follows { region, tenant } => {
                text::write(w.u8(139), region.as_str());
                text::write(w, tenant.as_str());
            }
            Self::RemoteNeeds { region, tenant } => {
                text::write(w.u8(140), region.as_str());
                text::write(w, tenant.as_str());
            }
            Self::NodeCount(count) => drop(w.u8(141).varint(*count)),
            Self::Begun(operation) => drop(w.u8(142).varint(*operation)),
            Self::NothingToRestore => drop(w.u8(143)),
            Self::GroupsFull(region) => text::write(w.u8(144), region.as_str()),
        }
    }

    /// Reads the body of what [`TopologyRejection::encode`] wrote; `None` for another tag.
    pub(super) fn decode(tag: u8, r: &mut Reader) -> Result<Option<Self>, Malformed> {
        Ok(Some(match tag {
            130 => Self::NotAnnounced(text::read(r)?),
            131 => Self::JoinedAlready(text::read(r)?),
            132 => Self::Name(text::read(r)?),
            133 => Self::RegionLeaving(text::parse(r)?),
            134 => Self::Busy {
                node: text::node(r)?,
                operation: r.varint()?,
            },
            145 => Self::GroupForming {
                group: text::group(r)?,
                operation: r.varint()?,
            },
            135 => Self::LastNode {
                node: text::node(r)?,
                region: text::parse(r)?,
            },
            136 => Self::LessRedundancy {
                node: text::node(r)?,
                group: text::group(r)?,
                left: r.varint()?,
                tolerance: r.varint()?,
            },
            137 => Self::LastRegion(text::parse(r)?),
            138 => {
                let count = r.varint()?;
                let region = text::parse(r)?;
                Self::HasHomes { region, count }
            }
            139 => Self::Follows {
                region: text::parse(r)?,
                tenant: text::parse(r)?,
            },
            140 => Self::RemoteNeeds {
                region: text::parse(r)?,
                tenant: text::parse(r)?,
            },
            141 => Self::NodeCount(r.varint()?),
            142 => Self::Begun(r.varint()?),
            143 => Self::NothingToRestore,
            144 => Self::GroupsFull(text::parse(r)?),
            _ => return Ok(None),
        }))
    }
}
