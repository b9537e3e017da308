//! The source's end of a pull: a frozen group sends another one what that lacks of a tenant, in a promotion.
//!
//! Any voter that has applied the freeze serves it: nothing of the tenant is written after that entry, so that all of
//! them hold the same, and neither a leader nor a lease is needed.

use std::sync::Arc;

use stead_api::proto::internal::v1::{
    PullEnd, PullPage, PullRefused, PullRequest, PullResponse, pull_refused::Reason, pull_response::Message,
};
use stead_state::{
    codec::Writer,
    directory::{DirectoryView, MemberState},
    sent_ledger::SentPart,
    shard::{
        Shard,
        command::FeedRecords,
        read::{ReadError, TenantReader},
        record::{OperationId, Role},
    },
};
use stead_types::{Epoch, GroupId, Revision, Sequence, TenantNumber};
use tonic::Status;

use super::limits::BATCH_BYTES_MAX;
use crate::{
    group_context::{GroupContext, policy_of},
    payload::PayloadCompressor,
    traffic::RegionPair,
    wire::{self, InvalidMessage},
};

/// A pull that this node serves.
pub(crate) struct PullSource {
    context: Arc<GroupContext>,
    to: GroupId,
    region_pair: Option<RegionPair>,
    tenant: TenantNumber,
    operation: OperationId,
    epoch: Epoch,
    /// Last change that was sent.
    after: Revision,
    compressor: PayloadCompressor,
    has_ended: bool,
}

/// Next message of a pull.
enum PullStep {
    Page(SourcePage),
    End(Revision),
    Refused(Reason),
}

/// Page of changes, not compressed yet.
struct SourcePage {
    lineage: bytes::Bytes,
    records: bytes::Bytes,
    last: Revision,
}

impl PullSource {
    /// Returns the pull that another group requests.
    pub(crate) fn new(context: Arc<GroupContext>, request: &PullRequest) -> Result<Self, InvalidMessage> {
        let to = GroupId::new(request.to_group);
        Ok(Self {
            region_pair: context.region_pair_to(to),
            to,
            tenant: TenantNumber::new(request.tenant),
            operation: OperationId(request.operation),
            epoch: wire::epoch(request.epoch)?,
            after: Revision::from_u64(request.after),
            compressor: PayloadCompressor::new(),
            has_ended: false,
            context,
        })
    }

    /// Returns the next message, or `None` after the last one.
    pub(crate) async fn next(&mut self) -> Option<Result<PullResponse, Status>> {
        if self.has_ended {
            return None;
        }
        let message = match self.step() {
            Ok(PullStep::Page(page)) => {
                self.after = page.last;
                let part = SentPart {
                    tenant: self.tenant,
                    policy: self.context.directory_view.read(|view| policy_of(view, self.tenant)),
                    bytes: page.records.len() as u64,
                };
                match self.context.record_sent(self.to, &[part]).await {
                    Ok(()) => return Some(Ok(response(Message::Page(self.compress(page))))),
                    Err(status) => Err(status),
                }
            }
            Ok(PullStep::End(last)) => Ok(response(Message::End(PullEnd { last: last.to_u64() }))),
            Ok(PullStep::Refused(reason)) => Ok(response(Message::Refused(PullRefused { reason: reason.into() }))),
            Err(status) => Err(status),
        };
        self.has_ended = true;
        Some(message)
    }

    fn compress(&mut self, page: SourcePage) -> PullPage {
        let len = page.records.len();
        let (payload, raw_len) = self.compressor.compress(page.records.to_vec());
        if let Some(region_pair) = &self.region_pair {
            self.context
                .counters
                .add(region_pair, &[(self.tenant, len)], payload.len());
        }
        PullPage {
            lineage: page.lineage,
            payload,
            raw_len,
            last: page.last.to_u64(),
        }
    }

    fn step(&self) -> Result<PullStep, Status> {
        let context = &self.context;
        let may_take_over = |view: &DirectoryView| may_take_over(view, self.tenant, self.to);
        if !context.directory_view.read(may_take_over) {
            return Ok(PullStep::Refused(Reason::NotAdmitted));
        }
        let read = context.machine.read(|held| {
            let reading = held.reading(self.tenant).filter(|reading| self.is_frozen(reading));
            reading.map_or(Ok(PullStep::Refused(Reason::NotFrozen)), |reading| {
                self.read_page(&reading)
            })
        });
        match read {
            Ok(Ok(step)) => Ok(step),
            Ok(Err(ReadError::Compacted { .. })) => Ok(PullStep::Refused(Reason::Compacted)),
            Ok(Err(ReadError::Forked(_) | ReadError::NotReached { .. })) => Ok(PullStep::Refused(Reason::Forked)),
            Ok(Err(ReadError::Unreadable(unreadable))) => {
                context.fail_unreadable(unreadable);
                Err(Status::internal("storage could not be read"))
            }
            Err(incomplete) => Err(Status::unavailable(incomplete.to_string())),
        }
    }

    /// Tells whether the group is frozen for this promotion, and its copy is whole.
    fn is_frozen(&self, reading: &TenantReader<'_>) -> bool {
        let record = reading.record();
        let of_promotion = matches!(
            record.role,
            Role::Frozen { operation, epoch, .. } if operation == self.operation && epoch == self.epoch
        );
        of_promotion && !record.suspect && Shard::is_readable(record)
    }

    fn read_page(&self, reading: &TenantReader<'_>) -> Result<PullStep, ReadError> {
        let state = reading.state();
        let page = reading.changes(self.after, Sequence::MAX, BATCH_BYTES_MAX)?;
        if page.changes.is_empty() {
            return Ok(PullStep::End(state.revision));
        }
        let mut lineage = Writer::default();
        reading.record().lineage.encode(&mut lineage);
        let records = FeedRecords {
            changes: page.changes,
            digests: (page.next == state.revision).then_some(state.digests),
            retention_floor: state.retention_floor,
        };
        Ok(PullStep::Page(SourcePage {
            lineage: lineage.finish(),
            records: records.encode(),
            last: page.next,
        }))
    }
}

/// Tells whether a group may take a tenant over, according to this directory view: it is a member, and the tenant's
/// residency admits its region.
fn may_take_over(view: &DirectoryView, tenant: TenantNumber, to: GroupId) -> bool {
    let (Some(tenant), Some(region)) = (view.tenant(tenant), view.region_of(to)) else {
        return false;
    };
    let is_member = tenant
        .member(to)
        .is_some_and(|member| member.state != MemberState::Erasing);
    is_member && tenant.admits(&region.jurisdiction)
}

fn response(message: Message) -> PullResponse {
    PullResponse { message: Some(message) }
}
