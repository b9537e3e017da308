//! Changes of the directory, one object each. A change carries the whole new state of its object, so that applying it
//! twice does no harm, and a snapshot is one change for each object.

use bytes::Bytes;
use stead_types::{GroupId, NodeId, RegionName, TenantNumber};

use super::{ClusterSettings, Group, Node, Region, RoleBinding, Tenant, text};
use crate::codec::{Malformed, Reader, Writer};

/// Change of one object of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// A new region.
    Region(Region),
    /// A new node, or new addresses of a node.
    Node(Node),
    /// A new group, or new voters of a group.
    Group(Group),
    /// A new tenant, or a new record of a tenant.
    Tenant(Box<Tenant>),
    /// A tenant that has been erased everywhere.
    TenantGone(TenantNumber),
    /// New settings of the cluster. Nodes of versions before feature level 2 cannot read it, so there is none before.
    Settings(ClusterSettings),
    /// New roles of a subject, or none. Nodes of versions before feature level 5 cannot read it.
    Roles(RoleBinding),
    /// A node that was removed. From feature level 5 on, as the two that follow.
    NodeGone(NodeId),
    /// A group that was removed with its region.
    GroupGone(GroupId),
    /// A region that was removed.
    RegionGone(RegionName),
}

/// First byte of each kind of change, on the wire and in keys; never used for anything else again.
mod tag {
    pub(super) const REGION: u8 = 1;
    pub(super) const NODE: u8 = 2;
    pub(super) const GROUP: u8 = 3;
    pub(super) const TENANT: u8 = 4;
    pub(super) const TENANT_GONE: u8 = 5;
    pub(super) const SETTINGS: u8 = 6;
    pub(super) const ROLES: u8 = 7;
    pub(super) const NODE_GONE: u8 = 8;
    pub(super) const GROUP_GONE: u8 = 9;
    pub(super) const REGION_GONE: u8 = 10;
}

impl DirectoryChange {
    /// Writes the change.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(128);
        match self {
            Self::Region(region) => region.encode(w.u8(tag::REGION)),
            Self::Node(node) => node.encode(w.u8(tag::NODE)),
            Self::Group(group) => group.encode(w.u8(tag::GROUP)),
            Self::Tenant(tenant) => tenant.encode(w.u8(tag::TENANT)),
            Self::TenantGone(number) => drop(w.u8(tag::TENANT_GONE).u64(number.get())),
            Self::Settings(settings) => settings.encode(w.u8(tag::SETTINGS)),
            Self::Roles(binding) => binding.encode(w.u8(tag::ROLES)),
            Self::NodeGone(number) => drop(w.u8(tag::NODE_GONE).u64(number.get())),
            Self::GroupGone(number) => drop(w.u8(tag::GROUP_GONE).u32(number.get())),
            Self::RegionGone(name) => text::write(w.u8(tag::REGION_GONE), name.as_str()),
        }
        w.finish()
    }

    /// Reads what [`DirectoryChange::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "directory change");
        let change = match r.u8()? {
            tag::REGION => Self::Region(Region::decode(&mut r)?),
            tag::NODE => Self::Node(Node::decode(&mut r)?),
            tag::GROUP => Self::Group(Group::decode(&mut r)?),
            tag::TENANT => Self::Tenant(Box::new(Tenant::decode(&mut r)?)),
            tag::TENANT_GONE => Self::TenantGone(TenantNumber::new(r.u64()?)),
            tag::SETTINGS => Self::Settings(ClusterSettings::decode(&mut r)?),
            tag::ROLES => Self::Roles(RoleBinding::decode(&mut r)?),
            tag::NODE_GONE => Self::NodeGone(NodeId::new(r.u64()?)),
            tag::GROUP_GONE => Self::GroupGone(GroupId::new(r.u32()?)),
            tag::REGION_GONE => Self::RegionGone(text::parse(&mut r)?),
            _ => return Err(r.malformed()),
        };
        r.end()?;
        Ok(change)
    }

    /// Returns the identity of the object, as the end of its row's key.
    pub fn identity(&self) -> Bytes {
        let mut w = Writer::default();
        match self {
            Self::Region(Region { name, .. }) | Self::RegionGone(name) => {
                w.u8(tag::REGION).raw(name.as_str().as_bytes());
            }
            Self::Node(Node { number, .. }) | Self::NodeGone(number) => drop(w.u8(tag::NODE).u64(number.get())),
            Self::Group(Group { number, .. }) | Self::GroupGone(number) => drop(w.u8(tag::GROUP).u32(number.get())),
            Self::Tenant(tenant) => drop(w.u8(tag::TENANT).u64(tenant.number.get())),
            Self::TenantGone(number) => drop(w.u8(tag::TENANT).u64(number.get())),
            Self::Settings(_) => drop(w.u8(tag::SETTINGS)),
            Self::Roles(binding) => drop(w.u8(tag::ROLES).raw(binding.subject.as_str().as_bytes())),
        }
        w.finish()
    }

    /// Tells whether the object is gone after it, so that it has no row.
    pub(crate) fn is_removal(&self) -> bool {
        match self {
            Self::TenantGone(_) | Self::NodeGone(_) | Self::GroupGone(_) | Self::RegionGone(_) => true,
            Self::Roles(binding) => binding.roles.is_empty(),
            Self::Region(_) | Self::Node(_) | Self::Group(_) | Self::Tenant(_) | Self::Settings(_) => false,
        }
    }

    /// Returns the new record of a tenant, if it is one.
    pub(super) fn record(&self) -> Option<&Tenant> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::Region(_)
            | Self::Node(_)
            | Self::Group(_)
            | Self::TenantGone(_)
            | Self::Settings(_)
            | Self::Roles(_)
            | Self::NodeGone(_)
            | Self::GroupGone(_)
            | Self::RegionGone(_) => None,
        }
    }

    /// Returns the tenant that changed, if it is a change of one.
    pub fn tenant(&self) -> Option<TenantNumber> {
        match self {
            Self::Tenant(tenant) => Some(tenant.number),
            Self::TenantGone(number) => Some(*number),
            Self::Region(_)
            | Self::Node(_)
            | Self::Group(_)
            | Self::Settings(_)
            | Self::Roles(_)
            | Self::NodeGone(_)
            | Self::GroupGone(_)
            | Self::RegionGone(_) => None,
        }
    }
}
