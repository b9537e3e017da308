//! What a stream has brought and the group's log does not have yet, in the stream's order.
//!
//! # Invariants
//!
//! 1. A proposal ends with the offset of its last batch: the log never has an offset without what came before it.

use std::collections::VecDeque;

use bytes::Bytes;
use stead_raft::{COMMAND_BYTES, PROPOSAL_LEN_MAX};
use stead_state::{
    freshness::Proof,
    lineage::Lineage,
    shard::{
        command::{Attach, Detach, Offset, Swap},
        digest::Digests,
    },
};
use stead_types::{Epoch, FeedOffset, GroupId, Incarnation, Revision, TenantNumber};

use crate::source::{BATCH_LEN_MAX, BATCH_TENANTS_MAX};

/// A proposal is closed once it has this many bytes.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Most commands of a proposal, and what its last item has more.
pub(crate) const PROPOSAL_COMMANDS_MAX: usize = 4096;

// The last item of a proposal is a batch of so many tenants at most, and of those of the entry that was its last.
const _: () = assert!(
    PROPOSAL_BYTES_MAX + BATCH_LEN_MAX + (PROPOSAL_COMMANDS_MAX + 2 * BATCH_TENANTS_MAX) * COMMAND_BYTES
        <= PROPOSAL_LEN_MAX,
    "a batch would never find room in the follower's log"
);

/// One thing that a stream brought.
#[derive(Debug)]
pub(crate) enum Item {
    /// Changes of some tenants.
    Batch {
        /// The batch's number on this stream.
        number: u64,
        /// Where the stream is with it.
        offset: FeedOffset,
        /// `Data` commands.
        parts: Vec<(TenantNumber, Bytes)>,
    },
    /// The stream speaks for a tenant from here on.
    Attached(Attached),
    /// The stream does not speak for a tenant.
    Detached(TenantNumber),
    /// A ping's answer. It counts for who is attached behind all that came before it.
    Pong(Proof),
    /// The stream begins here and speaks for none of these, that were attached.
    Begins {
        /// Where it begins.
        offset: FeedOffset,
        /// Whom it spoke for.
        attached: Vec<TenantNumber>,
    },
}

/// A tenant that the home has attached.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) position: Revision,
    pub(crate) lineage: Lineage,
    pub(crate) digests: Digests,
}

/// What a command of a proposal is, to read its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Data(TenantNumber),
    Swap(TenantNumber),
    Attach(TenantNumber),
    Detach(TenantNumber),
    Offset,
}

/// Commands of one entry.
#[derive(Debug, Default)]
pub(crate) struct Proposal {
    pub(crate) commands: Vec<Bytes>,
    pub(crate) meanings: Vec<Meaning>,
    /// The last batch in it.
    pub(crate) number: Option<u64>,
    /// What the pongs in it prove, once it is applied.
    pub(crate) proofs: Vec<Proof>,
    bytes: usize,
}

impl Proposal {
    fn add(&mut self, meaning: Meaning, command: Bytes) {
        self.bytes += command.len();
        self.commands.push(command);
        self.meanings.push(meaning);
    }

    fn is_full(&self) -> bool {
        self.bytes >= PROPOSAL_BYTES_MAX || self.commands.len() >= PROPOSAL_COMMANDS_MAX
    }
}

/// The queue of one stream. Its length is bounded by what the home may have in flight.
#[derive(Debug)]
pub(crate) struct Queue {
    home: GroupId,
    incarnation: Incarnation,
    items: VecDeque<Item>,
}

impl Queue {
    /// Returns an empty queue of a stream of this home.
    pub(crate) fn new(home: GroupId, incarnation: Incarnation) -> Self {
        let items = VecDeque::new();
        Self {
            home,
            incarnation,
            items,
        }
    }

    /// Adds what came.
    pub(crate) fn push(&mut self, item: Item) {
        self.items.push_back(item);
    }

    /// Returns the next proposal, if there is anything. `committed` is the offset that the log has; `is_seeded` tells
    /// whether a tenant's copy is built anew and has to be swapped in.
    pub(crate) fn proposal(
        &mut self,
        committed: FeedOffset,
        is_seeded: impl Fn(TenantNumber) -> bool,
    ) -> Option<Proposal> {
        let mut proposal = Proposal::default();
        let mut reached = committed;
        while !proposal.is_full()
            && let Some(item) = self.items.pop_front()
        {
            match item {
                Item::Batch { number, offset, parts } => {
                    for (tenant, data) in parts {
                        proposal.add(Meaning::Data(tenant), data);
                    }
                    proposal.number = Some(number);
                    reached = reached.max(offset);
                }
                Item::Attached(attached) => self.attach(&mut proposal, attached, &is_seeded),
                Item::Detached(tenant) => self.detach(&mut proposal, tenant),
                Item::Pong(proof) => proposal.proofs.push(proof),
                Item::Begins { offset, attached } => {
                    for tenant in attached {
                        self.detach(&mut proposal, tenant);
                    }
                    reached = reached.max(offset);
                }
            }
        }
        if reached > committed {
            let (home, offset) = (self.home, reached);
            proposal.add(Meaning::Offset, Offset { home, offset }.encode());
        }
        let is_any = !proposal.commands.is_empty() || proposal.number.is_some() || !proposal.proofs.is_empty();
        is_any.then_some(proposal)
    }

    fn attach(&self, proposal: &mut Proposal, attached: Attached, is_seeded: &impl Fn(TenantNumber) -> bool) {
        let Attached {
            tenant,
            epoch,
            position,
            lineage,
            digests,
        } = attached;
        let home = self.home;
        if is_seeded(tenant) {
            let swap = Swap {
                tenant,
                home,
                epoch,
                revision: position,
                digests,
            };
            proposal.add(Meaning::Swap(tenant), swap.encode());
        }
        let incarnation = self.incarnation;
        let attach = Attach {
            tenant,
            home,
            incarnation,
            epoch,
            position,
            lineage,
        };
        proposal.add(Meaning::Attach(tenant), attach.encode());
    }

    fn detach(&self, proposal: &mut Proposal, tenant: TenantNumber) {
        let home = self.home;
        proposal.add(Meaning::Detach(tenant), Detach { tenant, home }.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);

    fn offset(index: u64) -> FeedOffset {
        FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn batch(number: u64, index: u64, len: usize) -> Item {
        let parts = vec![(T, Bytes::from(vec![0; len]))];
        Item::Batch {
            number,
            offset: offset(index),
            parts,
        }
    }

    #[test]
    fn what_has_come_is_one_entry_with_the_last_offset_at_its_end() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        assert!(queue.proposal(FeedOffset::ZERO, |_| false).is_none());
        queue.push(batch(1, 10, 5));
        queue.push(Item::Detached(T));
        queue.push(batch(2, 12, 5));
        let proposal = queue.proposal(offset(9), |_| false).unwrap();
        let meanings = [Meaning::Data(T), Meaning::Detach(T), Meaning::Data(T), Meaning::Offset];
        assert_eq!(proposal.meanings, meanings);
        assert_eq!(
            proposal.commands[3],
            Offset {
                home: HOME,
                offset: offset(12)
            }
            .encode()
        );
        assert_eq!(proposal.number, Some(2));
        assert!(queue.proposal(offset(12), |_| false).is_none());
    }

    #[test]
    fn a_proposal_is_bounded_and_catching_up_moves_no_offset() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        queue.push(batch(1, 10, PROPOSAL_BYTES_MAX));
        queue.push(batch(2, 10, 5));
        assert_eq!(
            queue.proposal(offset(10), |_| false).unwrap().meanings,
            [Meaning::Data(T)]
        );
        assert_eq!(queue.proposal(offset(10), |_| false).unwrap().number, Some(2));
    }

    #[test]
    fn a_copy_that_was_built_anew_is_swapped_in_before_it_is_attached() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        let attached = Attached {
            tenant: T,
            epoch: Epoch::FIRST,
            position: Revision::ZERO,
            lineage: Lineage::default(),
            digests: Digests::default(),
        };
        queue.push(Item::Attached(attached));
        let proposal = queue.proposal(offset(10), |tenant| tenant == T).unwrap();
        assert_eq!(proposal.meanings, [Meaning::Swap(T), Meaning::Attach(T)]);
    }
    #[test]
    fn a_pong_counts_with_what_came_before_it() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        let proof = Proof {
            as_of: std::time::Duration::ZERO,
            offset: offset(9),
            view: stead_types::DirectoryVersion::ZERO,
        };
        queue.push(Item::Detached(T));
        queue.push(Item::Pong(proof));
        let proposal = queue.proposal(offset(9), |_| false).unwrap();
        assert_eq!(
            (&proposal.meanings[..], &proposal.proofs[..]),
            (&[Meaning::Detach(T)][..], &[proof][..])
        );
        queue.push(Item::Pong(proof));
        let alone = queue.proposal(offset(9), |_| false).unwrap();
        assert_eq!((alone.commands.len(), alone.proofs.len()), (0, 1));
    }
}
