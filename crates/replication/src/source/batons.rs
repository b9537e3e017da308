//! Batons: the home's end of handing tenants over.
//!
//! A tenant that this group has relinquished is sent up to its last change ahead of all others, then its baton. Every
//! other session of such a tenant ends: this group speaks for it no longer.
//!
//! # Invariants
//!
//! 1. A baton is sent behind everything up to the last change of the epoch that it ends, in the same session.
//! 2. No ping is answered behind the entry that relinquished a tenant before the session of that tenant has been refused
//!    or its baton is queued: freshness that is measured at this group says nothing about the tenant any more.

use stead_api::proto::internal::v1::{FeedBaton, feed_refused::Reason};
use stead_state::{rows::Unreadable, sent_ledger::SentPart, shard::ownership};
use stead_store::shard::ReadView;
use stead_types::{Sequence, TenantNumber};
use tokio::time::Instant;

use super::{
    batch::BatchBuilder,
    limits::PIECE_BYTES_MAX,
    produce::{PartError, TenantChanges},
    sessions::ChangeRange,
    stream::FeedSource,
};
use crate::{attach_attempt::AttachAttempt, group_context::policy_of, wire::MessageToFollower};

/// Output of handing tenants over in one step.
#[derive(Default)]
pub(super) struct HandoverOutput {
    pub(super) batch: BatchBuilder,
    pub(super) batons: Vec<FeedBaton>,
}

impl FeedSource {
    /// Sends what is due of relinquished tenants; returns whether that was anything. Without a reason to look, as nearly
    /// always, it reads nothing: a scan of entries looks, too.
    pub(super) fn send_relinquished(&mut self) -> Result<bool, Unreadable> {
        let is_repeat_due = self.batons.next_due().is_some_and(|due| due <= Instant::now());
        let is_told = self.handovers.has_changed().unwrap_or(false);
        if !self.hands_over && !is_repeat_due && !is_told {
            return Ok(false);
        }
        self.handovers.borrow_and_update();
        let context = self.context.clone();
        let output = context.machine.read(|held| self.hand_over(&held))??;
        Ok(self.send_handover(output))
    }

    /// Hands over the tenants that this group has relinquished, as far as there is room in one batch, and ends the other
    /// sessions of such tenants.
    pub(super) fn hand_over(&mut self, held: &ReadView<'_>) -> Result<HandoverOutput, Unreadable> {
        let mut output = HandoverOutput::default();
        self.hands_over = false;
        let relinquished: Vec<_> = held.shard().relinquished().collect();
        // A session that has ended has no baton to repeat: it would be due for ever.
        let sessions = &self.sessions;
        self.batons.retain(|tenant, attempt| {
            sessions.attempt(tenant) == Some(attempt) && relinquished.iter().any(|(of, _)| *of == tenant)
        });
        for (tenant, to) in relinquished {
            let Some(attempt) = self.sessions.attempt(tenant) else {
                continue;
            };
            if to != self.follower {
                self.refuse(tenant, Reason::NotOwner);
                continue;
            }
            if !self.batons.is_due(tenant, attempt, Instant::now()) || !self.sessions.is_live(tenant, attempt) {
                continue;
            }
            if self.send_up_to_last(held, tenant, attempt, &mut output.batch)? {
                let baton = held.record(tenant).and_then(ownership::baton);
                output.batons.extend(baton.map(|baton| FeedBaton {
                    tenant: tenant.get(),
                    epoch: attempt.epoch.get(),
                    attach: attempt.number.0,
                    baton: baton.encode(),
                }));
                self.batons.add(tenant, attempt, Instant::now());
            } else {
                self.hands_over = true;
            }
        }
        Ok(output)
    }

    /// Adds a live session's changes up to the tenant's last one to a batch; returns whether that was all of them. The
    /// rest goes first in the next batch.
    fn send_up_to_last(
        &mut self,
        held: &ReadView<'_>,
        tenant: TenantNumber,
        attempt: AttachAttempt,
        batch: &mut BatchBuilder,
    ) -> Result<bool, Unreadable> {
        let waiting = self.pending.as_mut().and_then(|pending| pending.take(tenant));
        let Some(sent) = waiting.map(|range| range.after).or_else(|| self.sessions.sent(tenant)) else {
            return Ok(false);
        };
        let Some(last) = held.record(tenant).map(|record| record.live.revision) else {
            return Ok(false);
        };
        if sent >= last {
            return Ok(true);
        }
        let range = ChangeRange {
            attempt,
            after: sent,
            through: Sequence::MAX,
        };
        let TenantChanges {
            records, next, policy, ..
        } = match self.read_changes(held, tenant, range, PIECE_BYTES_MAX.saturating_sub(batch.len())) {
            Ok(part) => part,
            Err(PartError::Refused(reason)) => {
                self.refuse(tenant, reason);
                return Ok(false);
            }
            Err(PartError::Unreadable(unreadable)) => return Err(unreadable),
        };
        batch.add(tenant, attempt, policy, &records.encode());
        self.sessions.record_sent(tenant, next, false);
        Ok(next >= last)
    }

    /// Queues the messages of a handover.
    pub(super) fn send_handover(&mut self, output: HandoverOutput) -> bool {
        let is_any = !output.batch.is_empty() || !output.batons.is_empty();
        if !output.batch.is_empty() {
            self.send(output.batch, self.skipped.unwrap_or(self.offset));
        }
        for baton in output.batons {
            let (group, follower, tenant) = (self.context.id(), self.follower, baton.tenant);
            tracing::info!(%group, %follower, tenant, epoch = baton.epoch, "baton sent: the tenant is handed over");
            let tenant = TenantNumber::new(tenant);
            self.unrecorded.push(SentPart {
                tenant,
                policy: self.context.directory_view.read(|view| policy_of(view, tenant)),
                bytes: baton.baton.len() as u64,
            });
            self.out.push_back(MessageToFollower::Baton(baton));
        }
        is_any
    }
}
