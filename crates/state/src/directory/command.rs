//! Commands of the directory's log.

mod encoding;
mod kind;

use std::collections::BTreeMap;

use stead_types::{
    DirectoryVersion, Durability, GroupId, Incarnation, Jurisdiction, NodeId, RegionName, TenantLimits, TenantName,
};

use super::{
    Addresses, BulkMoveRequest, CallRecord, Followers, ForkDiscard, ForkReplay, GroupReport, InitialCluster,
    LeaderMove, LimitsUpdate, MoveRequest, Pace, PromotionAdvance, PromotionRequest, Region, RegionLossUpdate,
    RehearsalRequest, RoleGrant, SentReport, TopologyCommand, limits,
    tenant::{decode_labels, encode_labels},
    text,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    shard::record::LeaseLossPolicy,
};

/// Author and reason of a change, for the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditContext {
    /// Identity of the caller.
    pub who: String,
    /// Reason that the caller gave.
    pub reason: String,
}

/// A node that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Name, unique in the cluster.
    pub name: String,
    /// Its region.
    pub region: RegionName,
    /// Its addresses.
    pub addresses: Addresses,
    /// Whether it is a witness, which only votes in the directory.
    pub witness: bool,
    /// Random number drawn by the node once.
    pub token: u128,
}

/// A tenant to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTenant {
    /// Its name.
    pub name: TenantName,
    /// Region of its home.
    pub home: RegionName,
    /// Regions of its followers.
    pub followers: Followers,
    /// Jurisdictions where it may be stored; empty: anywhere.
    pub residency: Vec<Jurisdiction>,
    /// Minimum durability of its writes.
    pub durability: Durability,
    /// Labels of operators.
    pub labels: BTreeMap<String, String>,
    /// Limits that differ from the defaults.
    pub limits: TenantLimits,
    /// Behaviour of its home without a lease.
    pub on_lease_loss: LeaseLossPolicy,
}

/// Update of a tenant; fields that are `None` stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantUpdate {
    /// Name of the tenant.
    pub name: TenantName,
    /// Version of the record that the update applies to only.
    pub etag: Option<DirectoryVersion>,
    /// Regions of its followers.
    pub followers: Option<Followers>,
    /// Jurisdictions where it may be stored; empty: anywhere.
    pub residency: Option<Vec<Jurisdiction>>,
    /// Minimum durability of its writes.
    pub durability: Option<Durability>,
    /// All its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Changes of its limits.
    pub limits: LimitsUpdate,
    /// Whether it is served.
    pub enabled: Option<bool>,
    /// Behaviour of its home without a lease.
    pub on_lease_loss: Option<LeaseLossPolicy>,
}

impl TenantUpdate {
    /// Returns an update of a tenant that changes nothing.
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
            on_lease_loss: None,
        }
    }
}

/// Most reports of one command.
pub const REPORTS_MAX: usize = 1_000;
/// Most tenants that one [`Command::RefreshMembers`] examines.
pub const REFRESH_MEMBERS_MAX: usize = 1_000;

/// A command of the directory's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bootstraps the cluster. Proposed by every first node until it gets a response; the same list again changes
    /// nothing.
    Bootstrap(InitialCluster),
    /// Creates a region.
    CreateRegion(AuditContext, Region),
    /// Adds a node; a region's first node becomes its group.
    Join(AuditContext, NewNode),
    /// Changes a node's addresses.
    UpdateAddresses(NodeId, Addresses),
    /// Creates a tenant.
    CreateTenant(AuditContext, NewTenant),
    /// Updates a tenant.
    UpdateTenant(AuditContext, TenantUpdate),
    /// Erases a disabled tenant everywhere.
    EraseTenant(AuditContext, TenantName, Option<DirectoryVersion>),
    /// Reports of a group's leader, repeated until they are acknowledged.
    Report(GroupId, Incarnation, Vec<GroupReport>),
    /// Adjusts the members of some tenants after regions were added; proposed by the directory's leader while
    /// [`super::Directory::needs_member_refresh`] says so.
    RefreshMembers,
    /// Moves a tenant to another home.
    MoveTenant(AuditContext, MoveRequest),
    /// Gives up the move that is this operation.
    AbortMove(AuditContext, u64),
    /// Sets the lease ttl of the cluster, in milliseconds.
    SetClusterSettings(AuditContext, u64),
    /// Raises the feature level of the cluster.
    RaiseFeatureLevel(AuditContext, u32, Vec<NodeId>),
    /// Moves many tenants, in waves.
    BeginBulkMove(AuditContext, BulkMoveRequest),
    /// Does what a bulk move needs next; proposed by the directory's leader while
    /// [`super::Directory::due_bulk_move`] says so. Names the nodes that it has not heard of lately.
    AdvanceBulkMove(u64, Vec<NodeId>),
    /// Lets a bulk move begin no further moves until it is resumed.
    PauseBulkMove(AuditContext, u64),
    /// Lets a bulk move go on, with another pace if there is one.
    ResumeBulkMove(AuditContext, u64, Option<Pace>),
    /// Promotes tenants whose region or group is lost.
    BeginPromotion(AuditContext, PromotionRequest),
    /// Tells a promotion what it waits for; proposed by the directory's leader while
    /// [`super::Directory::promotions_in_flight`] says so. One that comes late does nothing.
    AdvancePromotion {
        /// Number of the operation.
        operation: u64,
        /// Fact that the leader knows.
        action: PromotionAdvance,
    },
    /// Records that a fork is to be discarded; the log of its group discards it.
    RecordForkDiscard(AuditContext, ForkDiscard),
    /// Moves tenants of a region away and back, as if it were lost. From feature level 4 on.
    BeginRehearsal(AuditContext, RehearsalRequest),
    /// Sets what becomes of a tenant when its home region is lost. From feature level 4 on.
    SetRegionLoss(AuditContext, RegionLossUpdate),
    /// Records that changes of a fork are to be written again; the log of the tenant's home writes them.
    RecordForkReplay(AuditContext, ForkReplay),
    /// Gives a subject a role. From feature level 5 on.
    GrantRole(AuditContext, RoleGrant),
    /// Takes a role from a subject.
    RevokeRole(AuditContext, RoleGrant),
    /// Records calls of operators, such as those that a node has refused.
    RecordCalls(Vec<CallRecord>),
    /// Adds, replaces or removes nodes or regions. From feature level 5 on.
    Topology(TopologyCommand),
    /// Records what a node has sent of tenants. From feature level 5 on.
    RecordSent(SentReport),
    /// Records that the leadership of a group is to be moved. From feature level 5 on.
    RecordLeaderMove(AuditContext, LeaderMove),
}

impl AuditContext {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, &self.who);
        text::write(w, &self.reason);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
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
        // Left out where it is the default: earlier versions end here.
        if self.on_lease_loss == LeaseLossPolicy::Stop {
            return limits::encode_last(&self.limits, w);
        }
        limits::encode(&self.limits, w);
        text::write_lease_loss_policy(w, self.on_lease_loss);
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
            on_lease_loss: last(r, text::lease_loss_policy)?.unwrap_or_default(),
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
        match self.on_lease_loss {
            None => limits::encode_last_update(&self.limits, w),
            Some(policy) => {
                limits::encode_update(&self.limits, w);
                text::write_lease_loss_policy(w, policy);
            }
        }
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
            on_lease_loss: last(r, text::lease_loss_policy)?,
        })
    }
}

/// Reads a field that ends a command and that earlier versions did not write.
fn last<T>(r: &mut Reader, read: impl FnOnce(&mut Reader) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
    if r.is_empty() { Ok(None) } else { read(r).map(Some) }
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
