//! Outcome of an applied proposal, and the acknowledgement that the home gets for it.

use std::collections::BTreeMap;

use stead_api::proto::internal::v1::{FeedAck, FeedPosition};
use stead_state::shard::{
    apply_result::{ApplyResult, DetachReason, GuardFailure},
    digest::DigestMismatch,
    record::{AttachNumber, TenantRecord},
};
use stead_store::shard::ReadView;
use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber};

use super::queue::{CommandKind, FollowerProposal};
use crate::wire::{self, TenantPosition};

/// Outcome of an applied proposal.
#[derive(Debug)]
pub(crate) struct ProposalOutcome {
    offset: FeedOffset,
    /// Attach attempts that the proposal completed or ended.
    ends: BTreeMap<(TenantNumber, AttachNumber), AttemptEnd>,
    /// Tenants whose attach attempts have begun: the home is to be asked.
    pub(crate) begun: Vec<TenantNumber>,
    /// Tenants to attach again later.
    pub(crate) refused: Vec<TenantNumber>,
    /// Tenants whose digests differ from the home's.
    pub(crate) digest_mismatches: Vec<(TenantNumber, DigestMismatch)>,
    /// Tenants that this group has taken over.
    pub(crate) accepted: Vec<TenantNumber>,
    /// Attempts whose baton was void: they end, and the home sends it again in the next one.
    pub(crate) void_batons: Vec<(TenantNumber, AttachNumber)>,
    /// Tenants whose seeded copies differ from the home.
    pub(crate) seed_mismatches: Vec<(TenantNumber, DigestMismatch)>,
}

#[derive(Debug)]
enum AttemptEnd {
    Attached(FeedPosition),
    Detached(FeedPosition),
}

impl ProposalOutcome {
    /// Evaluates the results of the commands; `held` is the state after them.
    pub(crate) fn read(
        home: GroupId,
        proposal: &FollowerProposal,
        answers: Vec<ApplyResult>,
        held: &ReadView<'_>,
    ) -> Self {
        let mut outcome = Self {
            offset: held.shard().stream(home),
            ends: BTreeMap::new(),
            begun: Vec::new(),
            refused: Vec::new(),
            digest_mismatches: Vec::new(),
            accepted: Vec::new(),
            void_batons: Vec::new(),
            seed_mismatches: Vec::new(),
        };
        for (kind, answer) in proposal.kinds.iter().zip(answers) {
            outcome.add(*kind, &answer, held);
        }
        outcome
    }

    fn add(&mut self, kind: CommandKind, answer: &ApplyResult, held: &ReadView<'_>) {
        match (kind, answer) {
            (CommandKind::Data(tenant, number), ApplyResult::Data(fed)) => match fed.detached {
                None => {}
                Some(DetachReason::Gap) => self.fail_attempt(tenant, number, held),
                Some(DetachReason::DigestMismatch(differs)) => {
                    self.digest_mismatches.push((tenant, differs));
                    self.fail_attempt(tenant, number, held);
                }
            },
            // It was not applied: the offset must not cover it. Its present attempt, if it has another one, goes on.
            (
                CommandKind::Data(tenant, number) | CommandKind::Attach(tenant, number),
                ApplyResult::GuardFailed(GuardFailure::Session),
            ) => {
                let is_last = |record: &&TenantRecord| record.attach == number && record.session.is_none();
                if held.record(tenant).filter(is_last).is_some() {
                    self.refused.push(tenant);
                }
                self.end_attempt(tenant, number, held);
            }
            (CommandKind::Swap(tenant, number), ApplyResult::GuardFailed(GuardFailure::DigestMismatch(differs))) => {
                self.seed_mismatches.push((tenant, *differs));
                self.fail_attempt(tenant, number, held);
            }
            (CommandKind::Begin(tenant), ApplyResult::Done) => self.begun.push(tenant),
            (CommandKind::Begin(tenant), ApplyResult::GuardFailed(void)) => {
                tracing::debug!(%tenant, guard = ?void, "attach attempt did not begin");
                self.refused.push(tenant);
            }
            // Another entry has ended it since, and nothing else would ask for the tenant again.
            (CommandKind::Attach(tenant, number), ApplyResult::Done) if !is_attached(tenant, number, held) => {
                self.fail_attempt(tenant, number, held);
            }
            (CommandKind::Attach(tenant, number), ApplyResult::Done) => {
                let position = position(tenant, number, held);
                self.ends.insert((tenant, number), AttemptEnd::Attached(position));
            }
            (CommandKind::Detach(tenant, number), _) => self.end_attempt(tenant, number, held),
            (CommandKind::Accept(tenant, number), ApplyResult::Done) => {
                self.accepted.push(tenant);
                self.end_attempt(tenant, number, held);
            }
            (CommandKind::Accept(tenant, number), ApplyResult::GuardFailed(GuardFailure::DigestMismatch(differs))) => {
                self.digest_mismatches.push((tenant, *differs));
                self.fail_attempt(tenant, number, held);
            }
            // One of two equal batons, or of a group that owns the tenant already.
            (CommandKind::Accept(tenant, number), ApplyResult::GuardFailed(_))
                if !is_attached(tenant, number, held) => {}
            (CommandKind::Accept(tenant, number), ApplyResult::GuardFailed(void)) => {
                tracing::warn!(%tenant, guard = ?void, "baton is void: the tenant is attached anew");
                self.void_batons.push((tenant, number));
            }
            (
                CommandKind::Data(tenant, number) | CommandKind::Attach(tenant, number),
                ApplyResult::GuardFailed(void),
            ) => {
                tracing::debug!(%tenant, ?kind, guard = ?void, "feed command is void");
                self.fail_attempt(tenant, number, held);
            }
            (CommandKind::Offset | CommandKind::Swap(..), _) => {}
            (CommandKind::Data(..) | CommandKind::Begin(_) | CommandKind::Attach(..) | CommandKind::Accept(..), _) => {}
        }
    }

    /// Records a failed attempt: it is reported to the home, and repeated later.
    fn fail_attempt(&mut self, tenant: TenantNumber, number: AttachNumber, held: &ReadView<'_>) {
        self.refused.push(tenant);
        self.end_attempt(tenant, number, held);
    }

    fn end_attempt(&mut self, tenant: TenantNumber, number: AttachNumber, held: &ReadView<'_>) {
        let position = position(tenant, number, held);
        self.ends.insert((tenant, number), AttemptEnd::Detached(position));
    }

    /// Returns the acknowledgement for the home: `None` if no batch was applied, the offset did not move,
    /// and no tenant was attached or detached.
    pub(crate) fn acknowledgement(&self, proposal: &FollowerProposal) -> Option<FeedAck> {
        let number = proposal.number;
        let moved = number.is_some() || proposal.kinds.contains(&CommandKind::Offset);
        if !moved && self.ends.is_empty() {
            return None;
        }
        let (mut attached, mut detached) = (Vec::new(), Vec::new());
        for end in self.ends.values() {
            match end {
                AttemptEnd::Attached(position) => attached.push(*position),
                AttemptEnd::Detached(position) => detached.push(*position),
            }
        }
        Some(FeedAck {
            offset: Some(wire::offset_to(self.offset)),
            batches: number.unwrap_or(0),
            attached,
            detached,
        })
    }
}

/// Tells whether an attempt to attach a tenant has succeeded, and is not over.
fn is_attached(tenant: TenantNumber, number: AttachNumber, held: &ReadView<'_>) -> bool {
    let session = held.record(tenant).and_then(|record| record.session);
    session.is_some_and(|session| session.number == number && session.attached)
}

/// Returns the position of a tenant's live copy at the end of an attempt.
fn position(tenant: TenantNumber, attach: AttachNumber, held: &ReadView<'_>) -> FeedPosition {
    let record = held.record(tenant);
    let (epoch, revision) = record.map_or((Epoch::NONE, Revision::ZERO), |record| {
        (record.epoch, record.live.revision)
    });
    let shadow = record.and_then(|record| record.shadow.as_ref());
    TenantPosition {
        tenant,
        epoch,
        revision,
        attach,
        seed: shadow.map(|shadow| shadow.state.revision),
    }
    .to_message()
}
