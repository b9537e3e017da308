//! What the directory answers.

use bytes::Bytes;
use stead_types::{Error, ErrorKind, Jurisdiction, NodeId, RegionName, TenantName, TenantNumber};

use super::text;
use crate::codec::{Malformed, Reader, Writer};

/// The answer to one command. The same in every replica.
pub type Answer = Result<Outcome, Rejection>;

/// What a command has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has done it, or it had been done before.
    Done,
    /// This tenant is as asked for, as of the version of the answer.
    Tenant(TenantNumber),
    /// This is the node's number.
    Node(NodeId),
}

/// Why a command has done nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The directory has not been told the cluster's first nodes yet.
    #[error("the cluster has not begun: the directory waits for the first of its nodes")]
    NotBootstrapped,
    /// The cluster began with another list of nodes.
    #[error("the cluster began with another cluster.initial: give every first node the same list")]
    OtherCluster,
    /// The name is taken.
    #[error("tenant {0} exists already")]
    TenantExists(TenantName),
    /// There is no such tenant.
    #[error("there is no tenant {0}")]
    TenantUnknown(TenantName),
    /// There are as many tenants as there can be.
    #[error("the cluster has {max} tenants, more are not supported", max = super::TENANTS_MAX)]
    TenantsFull,
    /// There is no such region.
    #[error("there is no region {0}")]
    RegionUnknown(RegionName),
    /// The name is taken.
    #[error("region {0} exists already, with another jurisdiction")]
    RegionExists(RegionName),
    /// The region has no group that could hold a tenant.
    #[error("region {0} has no nodes yet: let one join first")]
    RegionEmpty(RegionName),
    /// The name is taken by another node.
    #[error("a node is called {0} already: give this one another name")]
    NodeExists(String),
    /// There is no such node.
    #[error("there is no node {0}")]
    NodeUnknown(NodeId),
    /// The policy does not admit a region that it needs.
    #[error("residency does not admit region {region} ({jurisdiction})")]
    Residency {
        /// What the policy admits.
        wanted: Vec<Jurisdiction>,
        /// The region.
        region: RegionName,
        /// Its jurisdiction.
        jurisdiction: Jurisdiction,
    },
    /// The home cannot follow itself.
    #[error("region {0} is the tenant's home and cannot follow it: leave it out of followers")]
    HomeFollows(RegionName),
    /// Writes that wait for another region need one.
    #[error("durability REMOTE needs a follower in another region: name one or admit one")]
    RemoteAlone,
    /// The record has changed since the caller read it.
    #[error("tenant {0} has changed since it was read: read it again")]
    Changed(TenantName),
    /// Erasing is the second step.
    #[error("tenant {0} is not disabled: disable it first, then erase it")]
    NotDisabled(TenantName),
    /// A report of an earlier incarnation of its group.
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
                wanted, jurisdiction, ..
            } => ErrorKind::Residency {
                wanted: wanted.iter().map(ToString::to_string).collect(),
                region: jurisdiction.to_string(),
            },
        };
        Self::new(kind, message)
    }
}

/// Writes an answer, for the node that handed the command on.
pub fn encode(answer: &Answer) -> Bytes {
    let mut writer = Writer::with_capacity(32);
    let w = &mut writer;
    match answer {
        Ok(Outcome::Done) => drop(w.u8(0)),
        Ok(Outcome::Tenant(number)) => drop(w.u8(1).varint(number.get())),
        Ok(Outcome::Node(number)) => drop(w.u8(2).varint(number.get())),
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
            wanted,
            region,
            jurisdiction,
        } => {
            text::write_all(w.u8(26), wanted.iter().map(Jurisdiction::as_str));
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
pub fn decode(bytes: Bytes) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(bytes, "directory answer");
    let r = &mut reader;
    let answer = match r.u8()? {
        0 => Ok(Outcome::Done),
        1 => Ok(Outcome::Tenant(TenantNumber::new(r.varint()?))),
        2 => Ok(Outcome::Node(text::node(r)?)),
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
            wanted: r.list(text::parse)?,
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
    Ok(answer)
}
