//! Proposals of a stream: the queued messages go into the group's log, and their results to the home.

use std::time::Duration;

use futures::FutureExt;
use stead_raft::ProposeError;
use stead_state::shard::{ApplyResult, digest::DigestMismatch};
use tokio::time::Instant;

use super::{
    outcome::ProposalOutcome,
    queue::{FollowerProposal, Item, ProposalBase, RecordSummary},
    stream::{FollowerStream, StreamEnd},
};
use crate::{proposal_class, wire::MessageToHome};

/// Pause before a proposal that met a full proposal queue is repeated.
const OVERLOADED_PAUSE: Duration = Duration::from_millis(20);

impl FollowerStream {
    /// Proposes the next queued messages, if there are any; their results wake the stream.
    pub(super) fn propose(&mut self) -> Result<(), StreamEnd> {
        let home = self.home;
        let (context, queue) = (&self.context, &mut self.queue);
        let version = context.directory_view.version();
        let proposal = context.machine.read(|held| {
            let committed = held.shard().stream(home);
            let at = ProposalBase { committed, version };
            queue.proposal(at, |tenant| held.record(tenant).map(RecordSummary::of))
        })?;
        let Some(proposal) = proposal else { return Ok(()) };
        let (group, context, freshness) = (
            self.context.group.clone(),
            self.context.clone(),
            self.context.freshness.clone(),
        );
        let class = proposal_class::FEED + u64::from(home.get());
        let pending = async move {
            if proposal.commands.is_empty() {
                return (proposal, Ok(Vec::new()));
            }
            // The stream waits meanwhile: the home sends no more than it may have in flight.
            context.wait_for_room().await;
            let begun = Instant::now();
            loop {
                match group.propose(class, proposal.commands.clone()).await {
                    Err(ProposeError::Overloaded) => tokio::time::sleep(OVERLOADED_PAUSE).await,
                    answers => {
                        freshness.batches.record(begun.elapsed());
                        return (proposal, answers);
                    }
                }
            }
        };
        self.pending = Some(pending.boxed());
        Ok(())
    }

    /// Evaluates the results of a proposal: failed attempts are repeated later, and the home gets an acknowledgement.
    pub(super) fn handle_proposed(
        &mut self,
        mut proposal: FollowerProposal,
        answers: Vec<ApplyResult>,
    ) -> Result<(), StreamEnd> {
        let (home, context) = (self.home, self.context.clone());
        let outcome = context
            .machine
            .read(|held| ProposalOutcome::read(home, &proposal, answers, &held))?;
        for tenant in &outcome.refused {
            self.scheduler.retry_later(*tenant, Instant::now());
        }
        for (tenant, differs) in outcome.digest_mismatches.iter().chain(&outcome.seed_mismatches) {
            let of = match differs {
                DigestMismatch::Keys => "live keys",
                DigestMismatch::Outcomes => "idempotency records",
            };
            tracing::error!(group = %context.id(), %home, %tenant, of, "a copy's digest does not match its home's");
        }
        for tenant in &outcome.accepted {
            tracing::info!(group = %context.id(), %home, %tenant, "tenant taken over: this group is its home");
        }
        if !outcome.accepted.is_empty() {
            context.taken_over.send_replace(());
        }
        for (tenant, number) in &outcome.void_batons {
            self.queue.push(Item::Detached(*tenant, *number));
            self.scheduler.retry_later(*tenant, Instant::now());
        }
        for (tenant, _) in &outcome.seed_mismatches {
            self.needs_fresh_seed.insert(*tenant);
            self.scheduler.schedule_fresh_seed(*tenant, Instant::now());
        }
        for proof in proposal.proofs.drain(..) {
            context.freshness.add_proof(home, proof);
        }
        context.freshness.advance(home);
        if let Some(ack) = outcome.acknowledgement(&proposal) {
            self.send(MessageToHome::Ack(ack))?;
        }
        outcome.begun.into_iter().try_for_each(|tenant| self.ask(tenant))
    }
}
