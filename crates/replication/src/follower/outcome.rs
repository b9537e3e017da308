//! What a proposal came to, and what the home is told of it.

use std::collections::BTreeMap;

use stead_api::proto::internal::v1::{FeedAck, FeedPosition};
use stead_state::shard::{
    answer::{Answer, Detached, Void},
    digest::Differs,
};
use stead_store::{machine, shard::View};
use stead_types::{FeedOffset, GroupId, TenantNumber};

use super::queue::{Meaning, Proposal};
use crate::wire::{self, Position};

/// What a proposal came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    offset: FeedOffset,
    /// Whom the proposal attached or detached, as it left them.
    ends: BTreeMap<TenantNumber, End>,
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
            (Meaning::Data(tenant), Answer::Fed(fed)) => match fed.detached {
                None => {}
                // The live copy stays where it is while another one is built beside it.
                Some(Detached::Gap) if is_seeded(tenant, held) => {}
                Some(Detached::Gap) => self.detach(tenant, held),
                Some(Detached::DigestDiffers(differs)) => {
                    self.unlike.push((tenant, differs));
                    self.detach(tenant, held);
                }
            },
            (Meaning::Data(tenant), Answer::Void(Void::Suspect)) if is_seeded(tenant, held) => {}
            (Meaning::Swap(tenant), Answer::Void(Void::DigestDiffers(differs))) => {
                self.unlike_seeds.push((tenant, *differs));
                self.detach(tenant, held);
            }
            (Meaning::Attach(tenant), Answer::Done) => {
                if let Some(position) = position(tenant, held) {
                    self.ends.insert(tenant, End::Attached(position));
                }
            }
            (Meaning::Detach(tenant), Answer::Done) => {
                if let Some(position) = position(tenant, held) {
                    self.ends.insert(tenant, End::Detached(position));
                }
            }
            (Meaning::Data(tenant) | Meaning::Swap(tenant) | Meaning::Attach(tenant), Answer::Void(void)) => {
                tracing::debug!(%tenant, ?meaning, ?void, "void");
                self.detach(tenant, held);
            }
            (Meaning::Offset | Meaning::Detach(_) | Meaning::Swap(_), _) => {}
            (Meaning::Data(_) | Meaning::Attach(_), _) => {}
        }
    }

    fn detach(&mut self, tenant: TenantNumber, held: &View<'_>) {
        self.refused.push(tenant);
        let unknown = Position {
            tenant,
            epoch: stead_types::Epoch::NONE,
            revision: stead_types::Revision::ZERO,
        };
        let position = position(tenant, held).unwrap_or_else(|| unknown.to_message());
        self.ends.insert(tenant, End::Detached(position));
    }

    /// Returns what the home is told: nothing, if no batch was done and nobody attached or detached.
    pub(crate) fn acknowledgement(self, proposal: &Proposal) -> Option<FeedAck> {
        let number = proposal.number;
        let moved = number.is_some() || proposal.meanings.contains(&Meaning::Offset);
        if !moved && self.ends.is_empty() {
            return None;
        }
        let (mut attached, mut detached) = (Vec::new(), Vec::new());
        for end in self.ends.into_values() {
            match end {
                End::Attached(position) => attached.push(position),
                End::Detached(position) => detached.push(position),
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

fn is_seeded(tenant: TenantNumber, held: &View<'_>) -> bool {
    held.record(tenant).is_some_and(|record| record.shadow.is_some())
}

/// Returns where a tenant's live copy is.
pub(super) fn position(tenant: TenantNumber, held: &View<'_>) -> Option<FeedPosition> {
    let record = held.record(tenant)?;
    let (epoch, revision) = (record.epoch, record.live.revision);
    Some(
        Position {
            tenant,
            epoch,
            revision,
        }
        .to_message(),
    )
}
