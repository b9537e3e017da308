//! Encoding of commands: the kind byte, then what the command carries.

use bytes::Bytes;
use stead_types::Incarnation;

use super::{
    super::{
        Addresses, BulkMoveRequest, CallRecord, ForkDiscard, ForkReplay, GroupReport, InitialCluster, LeaderMove,
        MoveRequest, Pace, PromotionAdvance, PromotionRequest, Region, RegionLossUpdate, RehearsalRequest, RoleGrant,
        SentReport, TopologyCommand, text,
    },
    AuditContext, Command, NewNode, NewTenant, TenantUpdate, decode_version, encode_version, kind,
};
use crate::codec::{Malformed, Reader, Writer};

impl Command {
    /// Writes the command, its kind byte first, as a proposal carries it.
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
                w.list(reports.iter(), |w, report| report.encode(w));
            }
            Self::RefreshMembers => drop(w.u8(kind::REFRESH_MEMBERS)),
            Self::MoveTenant(by, request) => {
                by.encode(w.u8(kind::MOVE_TENANT));
                request.encode(w);
            }
            Self::AbortMove(by, operation) => {
                by.encode(w.u8(kind::ABORT_MOVE));
                w.varint(*operation);
            }
            Self::SetClusterSettings(by, lease_ttl_ms) => {
                by.encode(w.u8(kind::SET_CLUSTER_SETTINGS));
                w.varint(*lease_ttl_ms);
            }
            Self::Topology(command) => command.encode(w.u8(kind::TOPOLOGY)),
            Self::BeginBulkMove(..)
            | Self::AdvanceBulkMove(..)
            | Self::PauseBulkMove(..)
            | Self::ResumeBulkMove(..)
            | Self::BeginPromotion(..)
            | Self::AdvancePromotion { .. }
            | Self::RecordForkDiscard(..)
            | Self::BeginRehearsal(..)
            | Self::SetRegionLoss(..)
            | Self::RecordForkReplay(..) => self.encode_of_operators(w),
            Self::RaiseFeatureLevel(..)
            | Self::GrantRole(..)
            | Self::RevokeRole(..)
            | Self::RecordCalls(_)
            | Self::RecordSent(_)
            | Self::RecordLeaderMove(..) => self.encode_of_audit(w),
        }
        writer.finish()
    }

    /// Writes a command about bulk moves, promotions or forks.
    fn encode_of_operators(&self, w: &mut Writer) {
        match self {
            Self::BeginBulkMove(by, request) => {
                by.encode(w.u8(kind::BEGIN_BULK_MOVE));
                request.encode(w);
            }
            Self::AdvanceBulkMove(operation, unreachable) => {
                w.u8(kind::ADVANCE_BULK_MOVE).varint(*operation);
                w.list(unreachable.iter(), |w, node| {
                    w.varint(node.get());
                });
            }
            Self::PauseBulkMove(by, operation) => {
                by.encode(w.u8(kind::PAUSE_BULK_MOVE));
                w.varint(*operation);
            }
            Self::ResumeBulkMove(by, operation, pace) => {
                by.encode(w.u8(kind::RESUME_BULK_MOVE));
                w.varint(*operation);
                w.option(*pace, |w, pace| pace.encode(w));
            }
            Self::BeginPromotion(by, request) => {
                by.encode(w.u8(kind::BEGIN_PROMOTION));
                request.encode(w);
            }
            Self::AdvancePromotion { operation, action } => {
                action.encode(w.u8(kind::ADVANCE_PROMOTION).varint(*operation));
            }
            Self::RecordForkDiscard(by, discard) => {
                by.encode(w.u8(kind::RECORD_FORK_DISCARD));
                discard.encode(w);
            }
            Self::BeginRehearsal(by, request) => {
                by.encode(w.u8(kind::BEGIN_REHEARSAL));
                request.encode(w);
            }
            Self::SetRegionLoss(by, update) => {
                by.encode(w.u8(kind::SET_REGION_LOSS));
                update.encode(w);
            }
            Self::RecordForkReplay(by, replay) => {
                by.encode(w.u8(kind::RECORD_FORK_REPLAY));
                replay.encode(w);
            }
            Self::Bootstrap(_)
            | Self::CreateRegion(..)
            | Self::Join(..)
            | Self::UpdateAddresses(..)
            | Self::CreateTenant(..)
            | Self::UpdateTenant(..)
            | Self::EraseTenant(..)
            | Self::Report(..)
            | Self::RefreshMembers
            | Self::MoveTenant(..)
            | Self::AbortMove(..)
            | Self::SetClusterSettings(..)
            | Self::RaiseFeatureLevel(..)
            | Self::Topology(_)
            | Self::GrantRole(..)
            | Self::RevokeRole(..)
            | Self::RecordCalls(_)
            | Self::RecordSent(_)
            | Self::RecordLeaderMove(..) => {}
        }
    }

    /// Writes a command about the feature level, roles, or records of what was done.
    fn encode_of_audit(&self, w: &mut Writer) {
        match self {
            Self::RaiseFeatureLevel(by, level, supporting) => {
                by.encode(w.u8(kind::RAISE_FEATURE_LEVEL));
                w.varint(u64::from(*level));
                w.list(supporting.iter(), |w, node| {
                    w.varint(node.get());
                });
            }
            Self::GrantRole(by, grant) => {
                by.encode(w.u8(kind::GRANT_ROLE));
                grant.encode(w);
            }
            Self::RevokeRole(by, grant) => {
                by.encode(w.u8(kind::REVOKE_ROLE));
                grant.encode(w);
            }
            Self::RecordCalls(records) => {
                w.u8(kind::RECORD_CALLS);
                w.list(records.iter(), |w, record| record.encode(w));
            }
            Self::RecordSent(report) => report.encode(w.u8(kind::RECORD_SENT)),
            Self::RecordLeaderMove(by, leader_move) => {
                by.encode(w.u8(kind::RECORD_LEADER_MOVE));
                leader_move.encode(w);
            }
            Self::Bootstrap(_)
            | Self::CreateRegion(..)
            | Self::Join(..)
            | Self::UpdateAddresses(..)
            | Self::CreateTenant(..)
            | Self::UpdateTenant(..)
            | Self::EraseTenant(..)
            | Self::Report(..)
            | Self::RefreshMembers
            | Self::MoveTenant(..)
            | Self::AbortMove(..)
            | Self::SetClusterSettings(..)
            | Self::BeginBulkMove(..)
            | Self::AdvanceBulkMove(..)
            | Self::PauseBulkMove(..)
            | Self::ResumeBulkMove(..)
            | Self::BeginPromotion(..)
            | Self::AdvancePromotion { .. }
            | Self::RecordForkDiscard(..)
            | Self::BeginRehearsal(..)
            | Self::SetRegionLoss(..)
            | Self::RecordForkReplay(..)
            | Self::Topology(_) => {}
        }
    }

    /// Reads the body of a command of this kind.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "directory command");
        let r = &mut reader;
        let command = match kind {
            kind::BOOTSTRAP => Self::Bootstrap(InitialCluster::decode(r)?),
            kind::CREATE_REGION => Self::CreateRegion(AuditContext::decode(r)?, Region::decode(r)?),
            kind::JOIN => Self::Join(AuditContext::decode(r)?, NewNode::decode(r)?),
            kind::UPDATE_ADDRESSES => Self::UpdateAddresses(text::node(r)?, Addresses::decode(r)?),
            kind::CREATE_TENANT => Self::CreateTenant(AuditContext::decode(r)?, NewTenant::decode(r)?),
            kind::UPDATE_TENANT => Self::UpdateTenant(AuditContext::decode(r)?, TenantUpdate::decode(r)?),
            kind::ERASE_TENANT => {
                Self::EraseTenant(AuditContext::decode(r)?, text::parse(r)?, r.option(decode_version)?)
            }
            kind::REPORT => {
                let (group, incarnation) = (text::group(r)?, Incarnation(r.varint_u32()?));
                Self::Report(group, incarnation, r.list(GroupReport::decode)?)
            }
            kind::REFRESH_MEMBERS => Self::RefreshMembers,
            kind::MOVE_TENANT => Self::MoveTenant(AuditContext::decode(r)?, MoveRequest::decode(r)?),
            kind::ABORT_MOVE => Self::AbortMove(AuditContext::decode(r)?, r.varint()?),
            kind::SET_CLUSTER_SETTINGS => Self::SetClusterSettings(AuditContext::decode(r)?, r.varint()?),
            kind::BEGIN_BULK_MOVE => Self::BeginBulkMove(AuditContext::decode(r)?, BulkMoveRequest::decode(r)?),
            kind::ADVANCE_BULK_MOVE => Self::AdvanceBulkMove(r.varint()?, r.list(text::node)?),
            kind::PAUSE_BULK_MOVE => Self::PauseBulkMove(AuditContext::decode(r)?, r.varint()?),
            kind::RESUME_BULK_MOVE => {
                Self::ResumeBulkMove(AuditContext::decode(r)?, r.varint()?, r.option(Pace::decode)?)
            }
            kind::RAISE_FEATURE_LEVEL => {
                Self::RaiseFeatureLevel(AuditContext::decode(r)?, r.varint_u32()?, r.list(text::node)?)
            }
            kind::BEGIN_PROMOTION => Self::BeginPromotion(AuditContext::decode(r)?, PromotionRequest::decode(r)?),
            kind::ADVANCE_PROMOTION => Self::AdvancePromotion {
                operation: r.varint()?,
                action: PromotionAdvance::decode(r)?,
            },
            kind::RECORD_FORK_DISCARD => Self::RecordForkDiscard(AuditContext::decode(r)?, ForkDiscard::decode(r)?),
            kind::SET_REGION_LOSS => Self::SetRegionLoss(AuditContext::decode(r)?, RegionLossUpdate::decode(r)?),
            kind::BEGIN_REHEARSAL => Self::BeginRehearsal(AuditContext::decode(r)?, RehearsalRequest::decode(r)?),
            kind::RECORD_FORK_REPLAY => Self::RecordForkReplay(AuditContext::decode(r)?, ForkReplay::decode(r)?),
            kind::GRANT_ROLE => Self::GrantRole(AuditContext::decode(r)?, RoleGrant::decode(r)?),
            kind::REVOKE_ROLE => Self::RevokeRole(AuditContext::decode(r)?, RoleGrant::decode(r)?),
            kind::RECORD_CALLS => Self::RecordCalls(r.list(CallRecord::decode)?),
            kind::TOPOLOGY => Self::Topology(TopologyCommand::decode(r)?),
            kind::RECORD_SENT => Self::RecordSent(SentReport::decode(r)?),
            kind::RECORD_LEADER_MOVE => Self::RecordLeaderMove(AuditContext::decode(r)?, LeaderMove::decode(r)?),
            _ => return Err(r.malformed()),
        };
        reader.end()?;
        Ok(command)
    }
}
