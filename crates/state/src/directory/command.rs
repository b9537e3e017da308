//! What can be asked of the directory.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_types::{
    DirectoryVersion, Durability, GroupId, Incarnation, Jurisdiction, NodeId, RegionName, TenantLimits, TenantName,
    TenantNumber,
};

use super::{
    Addresses, Followers, Initial, LimitsUpdate, Region, limits,
    tenant::{decode_labels, encode_labels},
    text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Who asks for a change and why, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// Identity of the caller.
    pub who: String,
    /// What the caller gave as the reason.
    pub reason: String,
}

/// A node that wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Unique in the cluster.
    pub name: String,
    /// Where it stands.
    pub region: RegionName,
    /// How it is reached.
    pub addresses: Addresses,
    /// Only votes in the directory.
    pub witness: bool,
    /// Drawn at random by the node, once.
    pub token: u128,
}

/// A tenant to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTenant {
    /// Its name.
    pub name: TenantName,
    /// Region of its home.
    pub home: RegionName,
    /// Where it is to be followed.
    pub followers: Followers,
    /// Where it may be stored; empty: anywhere.
    pub residency: Vec<Jurisdiction>,
    /// When its writes are acknowledged, at least.
    pub durability: Durability,
    /// What operators note.
    pub labels: BTreeMap<String, String>,
    /// What it may use at most, where the default is not to hold.
    pub limits: TenantLimits,
}

/// What is to be different about a tenant; `None` stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantUpdate {
    /// Which tenant.
    pub name: TenantName,
    /// The change applies to this version of the record only.
    pub etag: Option<DirectoryVersion>,
    /// Where it is to be followed.
    pub followers: Option<Followers>,
    /// Where it may be stored; empty: anywhere.
    pub residency: Option<Vec<Jurisdiction>>,
    /// When its writes are acknowledged, at least.
    pub durability: Option<Durability>,
    /// All its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// What it may use at most.
    pub limits: LimitsUpdate,
    /// Whether it is served.
    pub enabled: Option<bool>,
}

impl TenantUpdate {
    /// Returns an update of a tenant that changes nothing yet.
    pub fn new(name: TenantName, etag: Option<DirectoryVersion>) -> Self {
        Self {
            name,
            etag,
            followers: None,
            residency: None,
            durability: None,
            labels: None,
            limits: LimitsUpdate::default(),
            enabled: None,
        }
    }
}

/// What a group has done about a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing of the tenant is left in the group.
    Erased(TenantNumber),
}

/// Most reports of one command.
pub const REPORTS_MAX: usize = 1_000;
/// Most tenants that one [`Command::Settle`] looks at.
pub const SETTLE_MAX: usize = 1_000;

/// A command of the directory's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The cluster begins. Asked by every first node until it is answered; the same list again changes nothing.
    Bootstrap(Initial),
    /// Makes a region.
    CreateRegion(By, Region),
    /// A node joins; a region's first node becomes its group.
    Join(By, NewNode),
    /// A node is reached otherwise.
    UpdateAddresses(NodeId, Addresses),
    /// Makes a tenant.
    CreateTenant(By, NewTenant),
    /// Changes a tenant.
    UpdateTenant(By, TenantUpdate),
    /// Erases a disabled tenant everywhere.
    EraseTenant(By, TenantName, Option<DirectoryVersion>),
    /// What a group has done; from its leader, until it is answered.
    Report(GroupId, Incarnation, Vec<Report>),
    /// Fits the members of some tenants to regions that came or went; proposed by the directory's leader while
    /// [`super::Directory::unsettled`] says so.
    Settle,
}

/// The kind byte of each command; never used for anything else again.
mod kind {
    pub(super) const BOOTSTRAP: u8 = 1;
    pub(super) const CREATE_REGION: u8 = 2;
    pub(super) const JOIN: u8 = 3;
    pub(super) const UPDATE_ADDRESSES: u8 = 4;
    pub(super) const CREATE_TENANT: u8 = 5;
    pub(super) const UPDATE_TENANT: u8 = 6;
    pub(super) const ERASE_TENANT: u8 = 7;
    pub(super) const REPORT: u8 = 8;
    pub(super) const SETTLE: u8 = 9;
}

impl Command {
    /// Writes the command, its kind byte first, as a proposer takes it.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(128);
        let w = &mut writer;
        match self {
            Self::Bootstrap(initial) => initial.encode(w.u8(kind::BOOTSTRAP)),
            Self::CreateRegion(by, region) => {
                by.encode(w.u8(kind::CREATE_REGION));
                region.encode(w);
            }
            Self::Join(by, node) => {
                by.encode(w.u8(kind::JOIN));
                node.encode(w);
            }
            Self::UpdateAddresses(node, addresses) => {
                addresses.encode(w.u8(kind::UPDATE_ADDRESSES).varint(node.get()));
            }
            Self::CreateTenant(by, tenant) => {
                by.encode(w.u8(kind::CREATE_TENANT));
                tenant.encode(w);
            }
            Self::UpdateTenant(by, update) => {
                by.encode(w.u8(kind::UPDATE_TENANT));
                update.encode(w);
            }
            Self::EraseTenant(by, name, etag) => {
                by.encode(w.u8(kind::ERASE_TENANT));
                text::write(w, name.as_str());
                w.option(*etag, encode_version);
            }
            Self::Report(group, incarnation, reports) => {
                w.u8(kind::REPORT)
                    .varint(u64::from(group.get()))
                    .varint(u64::from(incarnation.0));
                w.list(reports.iter(), |w, Report::Erased(tenant)| {
                    w.u8(0).varint(tenant.get());
                });
            }
            Self::Settle => drop(w.u8(kind::SETTLE)),
        }
        writer.finish()
    }

    /// Reads the body of a command of this kind.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "directory command");
        let r = &mut reader;
        let command = match kind {
            kind::BOOTSTRAP => Self::Bootstrap(Initial::decode(r)?),
            kind::CREATE_REGION => Self::CreateRegion(By::decode(r)?, Region::decode(r)?),
            kind::JOIN => Self::Join(By::decode(r)?, NewNode::decode(r)?),
            kind::UPDATE_ADDRESSES => Self::UpdateAddresses(text::node(r)?, Addresses::decode(r)?),
            kind::CREATE_TENANT => Self::CreateTenant(By::decode(r)?, NewTenant::decode(r)?),
            kind::UPDATE_TENANT => Self::UpdateTenant(By::decode(r)?, TenantUpdate::decode(r)?),
            kind::ERASE_TENANT => Self::EraseTenant(By::decode(r)?, text::parse(r)?, r.option(decode_version)?),
            kind::REPORT => {
                let (group, incarnation) = (text::group(r)?, Incarnation(r.varint_u32()?));
                Self::Report(group, incarnation, r.list(Report::decode)?)
            }
            kind::SETTLE => Self::Settle,
            _ => return Err(r.malformed()),
        };
        reader.end()?;
        Ok(command)
    }
}

impl By {
    fn encode(&self, w: &mut Writer) {
        text::write(w, &self.who);
        text::write(w, &self.reason);
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            who: text::read(r)?,
            reason: text::read(r)?,
        })
    }
}

impl NewNode {
    fn encode(&self, w: &mut Writer) {
        text::write(w, &self.name);
        text::write(w, self.region.as_str());
        self.addresses.encode(w);
        w.bool(self.witness).u128(self.token);
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: text::read(r)?,
            region: text::parse(r)?,
            addresses: Addresses::decode(r)?,
            witness: r.bool()?,
            token: r.u128()?,
        })
    }
}

impl NewTenant {
    fn encode(&self, w: &mut Writer) {
        text::write(w, self.name.as_str());
        text::write(w, self.home.as_str());
        self.followers.encode(w);
        text::write_all(w, self.residency.iter().map(Jurisdiction::as_str));
        text::write_durability(w, self.durability);
        encode_labels(&self.labels, w);
        limits::encode_last(&self.limits, w);
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: text::parse(r)?,
            home: text::parse(r)?,
            followers: Followers::decode(r)?,
            residency: r.list(text::parse)?,
            durability: text::durability(r)?,
            labels: decode_labels(r)?,
            limits: limits::decode_last(r)?,
        })
    }
}

impl TenantUpdate {
    fn encode(&self, w: &mut Writer) {
        text::write(w, self.name.as_str());
        w.option(self.etag, encode_version);
        w.option(self.followers.as_ref(), |w, followers| followers.encode(w));
        w.option(self.residency.as_ref(), |w, residency| {
            text::write_all(w, residency.iter().map(Jurisdiction::as_str));
        });
        w.option(self.durability, text::write_durability);
        w.option(self.labels.as_ref(), |w, labels| encode_labels(labels, w));
        w.option(self.enabled, |w, enabled| {
            w.bool(enabled);
        });
        limits::encode_last_update(&self.limits, w);
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: text::parse(r)?,
            etag: r.option(decode_version)?,
            followers: r.option(Followers::decode)?,
            residency: r.option(|r| r.list(text::parse))?,
            durability: r.option(text::durability)?,
            labels: r.option(decode_labels)?,
            enabled: r.option(Reader::bool)?,
            limits: limits::decode_last_update(r)?,
        })
    }
}

impl Report {
    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(Self::Erased(TenantNumber::new(r.varint()?))),
            1.. => Err(r.malformed()),
        }
    }
}

pub(super) fn encode_version(w: &mut Writer, version: DirectoryVersion) {
    w.varint(u64::from(version.incarnation.0)).varint(version.index);
}

pub(super) fn decode_version(r: &mut Reader) -> Result<DirectoryVersion, Malformed> {
    Ok(DirectoryVersion {
        incarnation: Incarnation(r.varint_u32()?),
        index: r.varint()?,
    })
}
