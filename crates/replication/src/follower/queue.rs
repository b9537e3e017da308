//! What a stream has brought and the group's log does not have yet, in the stream's order.
//!
//! # Invariants
//!
//! 1. A proposal ends with the offset of its last batch: the log never has an offset without what came before it.
//! 2. What the log is told of a tenant names the attempt to attach that the home sent it for.

use std::collections::VecDeque;

use bytes::Bytes;
use stead_raft::{COMMAND_BYTES, PROPOSAL_LEN_MAX};
use stead_state::{
    freshness::Proof,
    lineage::Lineage,
    shard::{
        command::{Attach, BeginAttach, DataHead, Detach, Offset, Swap},
        digest::Digests,
        record::{AttachNumber, Record, SeedNumber},
    },
};
use stead_types::{DirectoryVersion, Epoch, FeedOffset, GroupId, Incarnation, Revision, TenantNumber};

use crate::source::{BATCH_LEN_MAX, BATCH_PARTS_MAX};

/// A proposal is closed once it has this many bytes.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Most commands of a proposal, and what its last item has more.
pub(crate) const PROPOSAL_COMMANDS_MAX: usize = 4096;

// The last item of a proposal is a batch of so many tenants at most, and of those of the entry that was its last.
const _: () = assert!(
    PROPOSAL_BYTES_MAX
        + BATCH_LEN_MAX
        + (PROPOSAL_COMMANDS_MAX + BATCH_PARTS_MAX) * (COMMAND_BYTES + DataHead::LEN_MAX)
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
        /// Records of tenants.
        parts: Vec<Part>,
    },
    /// A tenant is to be asked for: the attempt begins.
    Begin(TenantNumber),
    /// The stream speaks for a tenant from here on.
    Attached(Attached),
    /// The stream does not speak for a tenant: the attempt is over.
    Detached(TenantNumber, AttachNumber),
    /// A ping's answer. It counts for who is attached behind all that came before it.
    Pong(Proof),
    /// The stream begins here: it speaks for nobody who was attached before.
    Begins(FeedOffset),
}

/// Records of one tenant, as a batch brought them.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) attach: AttachNumber,
    pub(crate) records: Bytes,
}

/// A tenant that the home has attached.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) number: AttachNumber,
    pub(crate) position: Revision,
    pub(crate) lineage: Lineage,
    pub(crate) digests: Digests,
}

/// What a command of a proposal is, to read its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Data(TenantNumber, AttachNumber),
    Swap(TenantNumber, AttachNumber),
    Begin(TenantNumber),
    Attach(TenantNumber, AttachNumber),
    Detach(TenantNumber, AttachNumber),
    Offset,
}

/// What a proposal is made with: where the log is, and the proposer's view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The offset that the log has.
    pub(crate) committed: FeedOffset,
    /// The version of the view.
    pub(crate) version: DirectoryVersion,
}

/// What a proposal needs of a tenant's record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    epoch: Epoch,
    attach: AttachNumber,
    /// The seed that is under way, whose copy has to be swapped in.
    seed: Option<SeedNumber>,
}

impl Known {
    /// Returns what it needs of this record.
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            epoch: record.epoch,
            attach: record.attach,
            seed: record.shadow.as_ref().map(|shadow| shadow.number),
        }
    }
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

    /// Adds that the stream begins anew, at an offset, and speaks for none of these that were attached, in these attempts.
    pub(crate) fn begins(&mut self, offset: FeedOffset, attached: Vec<(TenantNumber, AttachNumber)>) {
        let attached = attached.into_iter();
        self.items
            .extend(attached.map(|(tenant, number)| Item::Detached(tenant, number)));
        self.items.push_back(Item::Begins(offset));
    }

    /// Returns the next proposal, if there is anything; `known` says what the records have of a tenant.
    pub(crate) fn proposal(
        &mut self,
        standing: Standing,
        known: impl Fn(TenantNumber) -> Option<Known>,
    ) -> Option<Proposal> {
        let (committed, version) = (standing.committed, standing.version);
        let mut proposal = Proposal::default();
        let mut reached = committed;
        while !proposal.is_full()
            && let Some(item) = self.items.pop_front()
        {
            match item {
                Item::Batch { number, offset, parts } => {
                    for part in parts {
                        self.data(&mut proposal, version, part);
                    }
                    proposal.number = Some(number);
                    reached = reached.max(offset);
                }
                Item::Begin(tenant) => self.begin(&mut proposal, version, tenant, known(tenant)),
                Item::Attached(attached) => {
                    let seed = known(attached.tenant).and_then(|known| known.seed);
                    self.attach(&mut proposal, version, attached, seed);
                }
                Item::Detached(tenant, number) => self.detach(&mut proposal, tenant, number),
                Item::Pong(proof) => proposal.proofs.push(proof),
                Item::Begins(offset) => reached = reached.max(offset),
            }
        }
        if reached > committed {
            let (home, offset) = (self.home, reached);
            proposal.add(Meaning::Offset, Offset { home, offset }.encode());
        }
        let is_any = !proposal.commands.is_empty() || proposal.number.is_some() || !proposal.proofs.is_empty();
        is_any.then_some(proposal)
    }

    fn data(&self, proposal: &mut Proposal, version: DirectoryVersion, part: Part) {
        let head = DataHead {
            tenant: part.tenant,
            home: self.home,
            epoch: part.epoch,
            version,
            attach: part.attach,
        };
        let meaning = Meaning::Data(part.tenant, part.attach);
        proposal.add(meaning, head.command(&part.records));
    }

    fn begin(&self, proposal: &mut Proposal, version: DirectoryVersion, tenant: TenantNumber, known: Option<Known>) {
        // Of whom there is no record there is nothing to ask for: the command is void, and so it is heard of.
        let (epoch, number) = known.map_or((Epoch::NONE, AttachNumber::default()), |known| {
            (known.epoch, known.attach.next())
        });
        let begin = BeginAttach {
            tenant,
            home: self.home,
            incarnation: self.incarnation,
            epoch,
            version,
            number,
        };
        proposal.add(Meaning::Begin(tenant), begin.encode());
    }

    fn attach(&self, proposal: &mut Proposal, version: DirectoryVersion, attached: Attached, seed: Option<SeedNumber>) {
        let Attached {
            tenant,
            epoch,
            number,
            position,
            lineage,
            digests,
        } = attached;
        let home = self.home;
        if let Some(seed) = seed {
            let swap = Swap {
                tenant,
                home,
                epoch,
                version,
                number: seed,
                revision: position,
                digests,
            };
            proposal.add(Meaning::Swap(tenant, number), swap.encode());
        }
        let attach = Attach {
            tenant,
            home,
            epoch,
            version,
            number,
            position,
            lineage,
        };
        proposal.add(Meaning::Attach(tenant, number), attach.encode());
    }

    fn detach(&self, proposal: &mut Proposal, tenant: TenantNumber, number: AttachNumber) {
        let home = self.home;
        let detach = Detach { tenant, home, number };
        proposal.add(Meaning::Detach(tenant, number), detach.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);
    const A: AttachNumber = AttachNumber(4);

    fn offset(index: u64) -> FeedOffset {
        FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn batch(number: u64, index: u64, len: usize) -> Item {
        let part = Part {
            tenant: T,
            epoch: Epoch::FIRST,
            attach: A,
            records: Bytes::from(vec![0; len]),
        };
        Item::Batch {
            number,
            offset: offset(index),
            parts: vec![part],
        }
    }

    fn next(queue: &mut Queue, committed: FeedOffset, seed: Option<SeedNumber>) -> Option<Proposal> {
        let version = DirectoryVersion::ZERO;
        let known = Known {
            epoch: Epoch::FIRST,
            attach: A,
            seed,
        };
        queue.proposal(Standing { committed, version }, |_| Some(known))
    }

    #[test]
    fn what_has_come_is_one_entry_with_the_last_offset_at_its_end() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        assert!(next(&mut queue, FeedOffset::ZERO, None).is_none());
        queue.push(batch(1, 10, 5));
        queue.push(Item::Detached(T, A));
        queue.push(batch(2, 12, 5));
        let proposal = next(&mut queue, offset(9), None).unwrap();
        let data = Meaning::Data(T, A);
        let meanings = [data, Meaning::Detach(T, A), data, Meaning::Offset];
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
        assert!(next(&mut queue, offset(12), None).is_none());
    }

    #[test]
    fn a_proposal_is_bounded_and_catching_up_moves_no_offset() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        queue.push(batch(1, 10, PROPOSAL_BYTES_MAX));
        queue.push(batch(2, 10, 5));
        let first = next(&mut queue, offset(10), None).unwrap();
        assert_eq!(first.meanings, [Meaning::Data(T, A)]);
        assert_eq!(next(&mut queue, offset(10), None).unwrap().number, Some(2));
    }

    /// Invariant 1.
    #[test]
    fn stream_that_begins_anew_detaches_any_number_before_its_offset() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        let attached = (0..20_000).map(|tenant| (TenantNumber::new(tenant), A)).collect();
        queue.begins(offset(10), attached);
        let mut detached = 0;
        loop {
            let proposal = next(&mut queue, FeedOffset::ZERO, None).unwrap();
            assert!(proposal.commands.len() <= PROPOSAL_COMMANDS_MAX + 1);
            detached += proposal.meanings.len();
            if proposal.meanings.last() == Some(&Meaning::Offset) {
                break;
            }
        }
        assert_eq!(detached, 20_001);
        assert!(next(&mut queue, offset(10), None).is_none());
    }

    #[test]
    fn a_copy_that_was_built_anew_is_swapped_in_before_it_is_attached() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        let attached = Attached {
            tenant: T,
            epoch: Epoch::FIRST,
            number: A,
            position: Revision::ZERO,
            lineage: Lineage::default(),
            digests: Digests::default(),
        };
        queue.push(Item::Attached(attached));
        let proposal = next(&mut queue, offset(10), Some(SeedNumber(2))).unwrap();
        assert_eq!(proposal.meanings, [Meaning::Swap(T, A), Meaning::Attach(T, A)]);
    }

    #[test]
    fn an_attempt_has_the_number_behind_the_last_one() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        queue.push(Item::Begin(T));
        let proposal = next(&mut queue, offset(10), None).unwrap();
        assert_eq!(proposal.meanings, [Meaning::Begin(T)]);
        let begin = BeginAttach {
            tenant: T,
            home: HOME,
            incarnation: Incarnation::FIRST,
            epoch: Epoch::FIRST,
            version: DirectoryVersion::ZERO,
            number: A.next(),
        };
        assert_eq!(proposal.commands, [begin.encode()]);
    }

    #[test]
    fn a_pong_counts_with_what_came_before_it() {
        let mut queue = Queue::new(HOME, Incarnation::FIRST);
        let proof = Proof {
            as_of: std::time::Duration::ZERO,
            offset: offset(9),
            view: stead_types::DirectoryVersion::ZERO,
        };
        queue.push(Item::Detached(T, A));
        queue.push(Item::Pong(proof));
        let proposal = next(&mut queue, offset(9), None).unwrap();
        assert_eq!(
            (&proposal.meanings[..], &proposal.proofs[..]),
            (&[Meaning::Detach(T, A)][..], &[proof][..])
        );
        queue.push(Item::Pong(proof));
        let alone = next(&mut queue, offset(9), None).unwrap();
        assert_eq!((alone.commands.len(), alone.proofs.len()), (0, 1));
    }
}
