//! Results of directory commands, and their encoding.

use bytes::Bytes;
use stead_types::{Error, ErrorKind, Jurisdiction, NodeId, RegionName, TenantName, TenantNumber};

use super::text;
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
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let invalid = |field: &str| ErrorKind::Invalid { field: field.into() };
        let message = rejection.to_string();
        let kind = match rejection {
            Rejection::NotBootstrapped => ErrorKind::Unavailable,
            Rejection::OtherCluster | Rejection::Changed(_) => ErrorKind::Conflict,
            Rejection::NotDisabled(_) | Rejection::StaleIncarnation => ErrorKind::Conflict,
            Rejection::TenantExists(_) | Rejection::RegionExists(_) | Rejection::NodeExists(_) => {
                ErrorKind::AlreadyExists
            }
            Rejection::TenantUnknown(_) => ErrorKind::TenantNotFound,
            Rejection::RegionUnknown(_) | Rejection::NodeUnknown(_) => ErrorKind::NotFound,
            Rejection::TenantsFull => ErrorKind::QuotaExceeded {
                limit: "tenants".into(),
            },
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
        } => {
            text::write_all(w.u8(26), allowed.iter().map(Jurisdiction::as_str));
            text::write(w, region.as_str());
            text::write(w, jurisdiction.as_str());
        }
        Rejection::HomeFollows(name) => named(27, name.as_str()),
        Rejection::RemoteAlone => drop(w.u8(28)),
        Rejection::Changed(name) => named(29, name.as_str()),
        Rejection::NotDisabled(name) => named(30, name.as_str()),
        Rejection::StaleIncarnation => drop(w.u8(31)),
    }
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: Bytes) -> Result<DirectoryResult, Malformed> {
    let mut reader = Reader::new(bytes, "directory result");
    let r = &mut reader;
    let result = match r.u8()? {
        0 => Ok(DirectoryOutcome::Done),
        1 => Ok(DirectoryOutcome::Tenant(TenantNumber::new(r.varint()?))),
        2 => Ok(DirectoryOutcome::Node(text::node(r)?)),
        16 => Err(Rejection::NotBootstrapped),
        17 => Err(Rejection::OtherCluster),
        18 => Err(Rejection::TenantExists(text::parse(r)?)),
        19 => Err(Rejection::TenantUnknown(text::parse(r)?)),
        20 => Err(Rejection::TenantsFull),
        21 => Err(Rejection::RegionUnknown(text::parse(r)?)),
        22 => Err(Rejection::RegionExists(text::parse(r)?)),
        23 => Err(Rejection::RegionEmpty(text::parse(r)?)),
        24 => Err(Rejection::NodeExists(text::read(r)?)),
        25 => Err(Rejection::NodeUnknown(text::node(r)?)),
        26 => Err(Rejection::Residency {
            allowed: r.list(text::parse)?,
            region: text::parse(r)?,
            jurisdiction: text::parse(r)?,
        }),
        27 => Err(Rejection::HomeFollows(text::parse(r)?)),
        28 => Err(Rejection::RemoteAlone),
        29 => Err(Rejection::Changed(text::parse(r)?)),
        30 => Err(Rejection::NotDisabled(text::parse(r)?)),
        31 => Err(Rejection::StaleIncarnation),
        _ => return Err(r.malformed()),
    };
    reader.end()?;
    Ok(result)
}
