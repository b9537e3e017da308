//! What a proposal came to, and what the home is told of it.

use std::collections::BTreeMap;

use stead_api::proto::internal::v1::{FeedAck, FeedPosition};
use stead_state::shard::{
    answer::{Answer, Detached, Void},
    digest::Differs,
    record::{AttachNumber, Record},
};
use stead_store::{machine, shard::View};
use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber};

use super::queue::{Meaning, Proposal};
use crate::wire::{self, Position};

/// What a proposal came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    offset: FeedOffset,
    /// Whom the proposal attached or detached, as it left them.
    ends: BTreeMap<(TenantNumber, AttachNumber), End>,
    /// Their attempts to attach have begun: the home is to be asked.
    pub(crate) begun: Vec<TenantNumber>,
    /// To be asked for again, later.
    pub(crate) refused: Vec<TenantNumber>,
    /// Their digests differ from the home's.
    pub(crate) unlike: Vec<(TenantNumber, Differs)>,
    /// So do these copies that were being built.
    pub(crate) unlike_seeds: Vec<(TenantNumber, Differs)>,
}

#[derive(Debug)]
enum End {
    Attached(FeedPosition),
    Detached(FeedPosition),
}

impl Outcome {
    /// Reads the answers; `held` is the state behind them.
    pub(crate) fn read(home: GroupId, proposal: &Proposal, answers: Vec<machine::Answer>, held: &View<'_>) -> Self {
        let mut outcome = Self {
            offset: held.shard().stream(home),
            ends: BTreeMap::new(),
            begun: Vec::new(),
            refused: Vec::new(),
            unlike: Vec::new(),
            unlike_seeds: Vec::new(),
        };
        for (meaning, answer) in proposal.meanings.iter().zip(answers) {
            let answer = answer
                .downcast::<Answer>()
                .expect("a shard answers with its own answers");
            outcome.add(*meaning, &answer, held);
        }
        outcome
    }

    fn add(&mut self, meaning: Meaning, answer: &Answer, held: &View<'_>) {
        match (meaning, answer) {
            (Meaning::Data(tenant, number), Answer::Fed(fed)) => match fed.detached {
                None => {}
                Some(Detached::Gap) => self.failed(tenant, number, held),
                Some(Detached::DigestDiffers(differs)) => {
                    self.unlike.push((tenant, differs));
                    self.failed(tenant, number, held);
                }
            },
            // It was not taken in: the offset must not speak for it. Its present attempt, if it has another one, goes on.
            (Meaning::Data(tenant, number) | Meaning::Attach(tenant, number), Answer::Void(Void::Session)) => {
                let is_last = |record: &&Record| record.attach == number && record.session.is_none();
                if held.record(tenant).filter(is_last).is_some() {
                    self.refused.push(tenant);
                }
                self.detached(tenant, number, held);
            }
            (Meaning::Swap(tenant, number), Answer::Void(Void::DigestDiffers(differs))) => {
                self.unlike_seeds.push((tenant, *differs));
                self.failed(tenant, number, held);
            }
            (Meaning::Begin(tenant), Answer::Done) => self.begun.push(tenant),
            (Meaning::Begin(tenant), Answer::Void(void)) => {
                tracing::debug!(%tenant, ?void, "no attempt to attach");
                self.refused.push(tenant);
            }
            // Another entry has ended it since, and nobody else would ask for the tenant again.
            (Meaning::Attach(tenant, number), Answer::Done) if !is_attached(tenant, number, held) => {
                self.failed(tenant, number, held);
            }
            (Meaning::Attach(tenant, number), Answer::Done) => {
                let position = position(tenant, number, held);
                self.ends.insert((tenant, number), End::Attached(position));
            }
            (Meaning::Detach(tenant, number), _) => self.detached(tenant, number, held),
            (Meaning::Data(tenant, number) | Meaning::Attach(tenant, number), Answer::Void(void)) => {
                tracing::debug!(%tenant, ?meaning, ?void, "void");
                self.failed(tenant, number, held);
            }
            (Meaning::Offset | Meaning::Swap(..), _) => {}
            (Meaning::Data(..) | Meaning::Begin(_) | Meaning::Attach(..), _) => {}
        }
    }

    /// An attempt has failed: it is told, and made again later.
    fn failed(&mut self, tenant: TenantNumber, number: AttachNumber, held: &View<'_>) {
        self.refused.push(tenant);
        self.detached(tenant, number, held);
    }

    fn detached(&mut self, tenant: TenantNumber, number: AttachNumber, held: &View<'_>) {
        let position = position(tenant, number, held);
        self.ends.insert((tenant, number), End::Detached(position));
    }

    /// Returns what the home is told: nothing, if no batch was done and nobody attached or detached.
    pub(crate) fn acknowledgement(&self, proposal: &Proposal) -> Option<FeedAck> {
        let number = proposal.number;
        let moved = number.is_some() || proposal.meanings.contains(&Meaning::Offset);
        if !moved && self.ends.is_empty() {
            return None;
        }
        let (mut attached, mut detached) = (Vec::new(), Vec::new());
        for end in self.ends.values() {
            match end {
                End::Attached(position) => attached.push(*position),
                End::Detached(position) => detached.push(*position),
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
fn is_attached(tenant: TenantNumber, number: AttachNumber, held: &View<'_>) -> bool {
    let session = held.record(tenant).and_then(|record| record.session);
    session.is_some_and(|session| session.number == number && session.attached)
}

/// Returns where a tenant's live copy is, as what an attempt has come to.
fn position(tenant: TenantNumber, attach: AttachNumber, held: &View<'_>) -> FeedPosition {
    let record = held.record(tenant);
    let (epoch, revision) = record.map_or((Epoch::NONE, Revision::ZERO), |record| {
        (record.epoch, record.live.revision)
    });
    Position {
        tenant,
        epoch,
        revision,
        attach,
    }
    .to_message()
}
