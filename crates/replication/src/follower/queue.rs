//! Queue of a stream's messages that the group's log does not have yet, in the stream's order.
//!
//! # Invariants
//!
//! 1. A proposal ends with the offset of its last batch: the log never has an offset without what came before it.
//! 2. Each command about a tenant names the attach attempt that the home sent it for.

use std::collections::VecDeque;

use bytes::Bytes;
use stead_raft::{COMMAND_BYTES, PROPOSAL_LEN_MAX};
use stead_state::{
    freshness::Proof,
    lineage::Lineage,
    shard::{
        command::{Attach, Baton, BeginAttach, DataHeader, Detach, Offset, Swap},
        digest::Digests,
        record::{AttachNumber, SeedNumber, TenantRecord},
    },
};
use stead_types::{DirectoryVersion, Epoch, FeedOffset, GroupId, Incarnation, Revision, TenantNumber};

use crate::source::{BATCH_LEN_MAX, BATCH_PARTS_MAX};

/// Bytes at which a proposal is closed.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Commands at which a proposal is closed; its last item may have more.
pub(crate) const PROPOSAL_COMMANDS_MAX: usize = 4096;

// The last item of a proposal is a batch of at most so many tenants, and of the tenants of its last entry.
const _: () = assert!(
    PROPOSAL_BYTES_MAX
        + BATCH_LEN_MAX
        + (PROPOSAL_COMMANDS_MAX + BATCH_PARTS_MAX) * (COMMAND_BYTES + DataHeader::LEN_MAX)
        <= PROPOSAL_LEN_MAX,
    "a batch would be longer than a proposal"
);

/// One item of the queue, from a message of the stream.
#[derive(Debug)]
pub(crate) enum Item {
    /// Changes of some tenants.
    Batch {
        /// The batch's number on this stream.
        number: u64,
        /// Offset of the stream with it.
        offset: FeedOffset,
        /// Records of tenants.
        parts: Vec<TenantRecords>,
    },
    /// Begin of an attempt to attach a tenant.
    Begin(TenantNumber),
    /// Attach of a tenant: the stream covers it from here on.
    Attached(AttachedTenant),
    /// Baton of a tenant, sent for an attempt: this group takes the tenant over.
    Baton(TenantNumber, AttachNumber, Baton),
    /// Detach of a tenant: the stream does not cover it, the attempt is over.
    Detached(TenantNumber, AttachNumber),
    /// Response to a ping. It counts for the tenants that are attached after all that came before it.
    Pong(Proof),
    /// Begin of a stream, at an offset: it covers none of the tenants that were attached before.
    Begins(FeedOffset),
}

/// Records of one tenant, as a batch brought them.
#[derive(Clone, Debug)]
pub(crate) struct TenantRecords {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) attach: AttachNumber,
    pub(crate) records: Bytes,
}

/// A tenant that the home has attached.
#[derive(Clone, Debug)]
pub(crate) struct AttachedTenant {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) number: AttachNumber,
    pub(crate) position: Revision,
    pub(crate) lineage: Lineage,
    pub(crate) digests: Digests,
}

/// Kind of a proposal's command, by which its result is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandKind {
    Data(TenantNumber, AttachNumber),
    Swap(TenantNumber, AttachNumber),
    Begin(TenantNumber),
    Attach(TenantNumber, AttachNumber),
    Detach(TenantNumber, AttachNumber),
    Accept(TenantNumber, AttachNumber),
    Offset,
}

/// State that a proposal is built on: the log's offset, and the version of the directory view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProposalBase {
    /// Offset in the log.
    pub(crate) committed: FeedOffset,
    /// Version of the directory view.
    pub(crate) version: DirectoryVersion,
}

/// The fields of a tenant's record that a proposal needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordSummary {
    epoch: Epoch,
    attach: AttachNumber,
    /// Number of the seed whose copy has to be swapped in.
    seed: Option<SeedNumber>,
}

impl RecordSummary {
    /// Returns the summary of a record.
    pub(crate) fn of(record: &TenantRecord) -> Self {
        Self {
            epoch: record.epoch,
            attach: record.attach,
            seed: record.shadow.as_ref().map(|shadow| shadow.number),
        }
    }
}

/// Commands of one log entry, with the kind of each.
#[derive(Debug, Default)]
pub(crate) struct FollowerProposal {
    pub(crate) commands: Vec<Bytes>,
    pub(crate) kinds: Vec<CommandKind>,
    /// Number of the last batch in it.
    pub(crate) number: Option<u64>,
    /// Proofs of the pongs in it, which hold once it is applied.
    pub(crate) proofs: Vec<Proof>,
    bytes: usize,
}

impl FollowerProposal {
    fn add(&mut self, kind: CommandKind, command: Bytes) {
        self.bytes += command.len();
        self.commands.push(command);
        self.kinds.push(kind);
    }

    fn is_full(&self) -> bool {
        self.bytes >= PROPOSAL_BYTES_MAX || self.commands.len() >= PROPOSAL_COMMANDS_MAX
    }
}

/// Queue of one stream. It is bounded by the bytes that the home may have in flight, the tenants that are asked for and
/// those that were attached when the stream began.
#[derive(Debug)]
pub(crate) struct FeedQueue {
    home: GroupId,
    incarnation: Incarnation,
    items: VecDeque<Item>,
}

impl FeedQueue {
    /// Returns an empty queue for a stream of this home.
    pub(crate) fn new(home: GroupId, incarnation: Incarnation) -> Self {
        let items = VecDeque::new();
        Self {
            home,
            incarnation,
            items,
        }
    }

    /// Adds an item.
    pub(crate) fn push(&mut self, item: Item) {
        self.items.push_back(item);
    }

    /// Adds the begin of a new stream at an offset. The stream covers none of the tenants that were attached: these are
    /// detached first, each in its attempt.
    pub(crate) fn begin_stream(&mut self, offset: FeedOffset, attached: Vec<(TenantNumber, AttachNumber)>) {
        let attached = attached.into_iter();
        self.items
            .extend(attached.map(|(tenant, number)| Item::Detached(tenant, number)));
        self.items.push_back(Item::Begins(offset));
    }

    /// Builds the next proposal, `None` if nothing is to be proposed; `known` returns the summary of a tenant's record.
    pub(crate) fn proposal(
        &mut self,
        base: ProposalBase,
        known: impl Fn(TenantNumber) -> Option<RecordSummary>,
    ) -> Option<FollowerProposal> {
        let (committed, version) = (base.committed, base.version);
        let mut proposal = FollowerProposal::default();
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
                Item::Baton(tenant, number, baton) => self.accept(&mut proposal, version, tenant, number, baton),
                Item::Pong(proof) => proposal.proofs.push(proof),
                Item::Begins(offset) => reached = reached.max(offset),
            }
        }
        if reached > committed {
            let (home, offset) = (self.home, reached);
            proposal.add(CommandKind::Offset, Offset { home, offset }.encode());
        }
        let is_any = !proposal.commands.is_empty() || proposal.number.is_some() || !proposal.proofs.is_empty();
        is_any.then_some(proposal)
    }

    fn data(&self, proposal: &mut FollowerProposal, version: DirectoryVersion, part: TenantRecords) {
        let head = DataHeader {
            tenant: part.tenant,
            home: self.home,
            epoch: part.epoch,
            version,
            attach: part.attach,
        };
        let kind = CommandKind::Data(part.tenant, part.attach);
        proposal.add(kind, head.command(&part.records));
    }

    fn begin(
        &self,
        proposal: &mut FollowerProposal,
        version: DirectoryVersion,
        tenant: TenantNumber,
        known: Option<RecordSummary>,
    ) {
        // Without a record there is nothing to attach: the command is void, and its result reports that.
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
        proposal.add(CommandKind::Begin(tenant), begin.encode());
    }

    fn attach(
        &self,
        proposal: &mut FollowerProposal,
        version: DirectoryVersion,
        attached: AttachedTenant,
        seed: Option<SeedNumber>,
    ) {
        let AttachedTenant {
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
            proposal.add(CommandKind::Swap(tenant, number), swap.encode());
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
        proposal.add(CommandKind::Attach(tenant, number), attach.encode());
    }

    fn accept(
        &self,
        proposal: &mut FollowerProposal,
        version: DirectoryVersion,
        tenant: TenantNumber,
        attach: AttachNumber,
        baton: Baton,
    ) {
        let head = DataHeader {
            tenant,
            home: self.home,
            epoch: baton.from_epoch,
            version,
            attach,
        };
        let accept = baton.accept(head, self.incarnation);
        proposal.add(CommandKind::Accept(tenant, attach), accept.encode());
    }

    fn detach(&self, proposal: &mut FollowerProposal, tenant: TenantNumber, number: AttachNumber) {
        let home = self.home;
        let detach = Detach { tenant, home, number };
        proposal.add(CommandKind::Detach(tenant, number), detach.encode());
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
        let part = TenantRecords {
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

    fn next(queue: &mut FeedQueue, committed: FeedOffset, seed: Option<SeedNumber>) -> Option<FollowerProposal> {
        let version = DirectoryVersion::ZERO;
        let known = RecordSummary {
            epoch: Epoch::FIRST,
            attach: A,
            seed,
        };
        queue.proposal(ProposalBase { committed, version }, |_| Some(known))
    }

    #[test]
    fn proposal_batches_items_and_ends_with_last_offset() {
        let mut queue = FeedQueue::new(HOME, Incarnation::FIRST);
        assert!(next(&mut queue, FeedOffset::ZERO, None).is_none());
        queue.push(batch(1, 10, 5));
        queue.push(Item::Detached(T, A));
        queue.push(batch(2, 12, 5));
        let proposal = next(&mut queue, offset(9), None).unwrap();
        let data = CommandKind::Data(T, A);
        let kinds = [data, CommandKind::Detach(T, A), data, CommandKind::Offset];
        assert_eq!(proposal.kinds, kinds);
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
    fn proposal_bytes_are_bounded_and_catch_up_keeps_offset() {
        let mut queue = FeedQueue::new(HOME, Incarnation::FIRST);
        queue.push(batch(1, 10, PROPOSAL_BYTES_MAX));
        queue.push(batch(2, 10, 5));
        let first = next(&mut queue, offset(10), None).unwrap();
        assert_eq!(first.kinds, [CommandKind::Data(T, A)]);
        assert_eq!(next(&mut queue, offset(10), None).unwrap().number, Some(2));
    }

    /// Invariant 1.
    #[test]
    fn new_stream_detaches_any_number_before_its_offset() {
        let mut queue = FeedQueue::new(HOME, Incarnation::FIRST);
        let attached = (0..20_000).map(|tenant| (TenantNumber::new(tenant), A)).collect();
        queue.begin_stream(offset(10), attached);
        let mut detached = 0;
        loop {
            let proposal = next(&mut queue, FeedOffset::ZERO, None).unwrap();
            assert!(proposal.commands.len() <= PROPOSAL_COMMANDS_MAX + 1);
            detached += proposal.kinds.len();
            if proposal.kinds.last() == Some(&CommandKind::Offset) {
                break;
            }
        }
        assert_eq!(detached, 20_001);
        assert!(next(&mut queue, offset(10), None).is_none());
    }

    #[test]
    fn seeded_copy_is_swapped_in_before_attach() {
        let mut queue = FeedQueue::new(HOME, Incarnation::FIRST);
        let attached = AttachedTenant {
            tenant: T,
            epoch: Epoch::FIRST,
            number: A,
            position: Revision::ZERO,
            lineage: Lineage::default(),
            digests: Digests::default(),
        };
        queue.push(Item::Attached(attached));
        let proposal = next(&mut queue, offset(10), Some(SeedNumber(2))).unwrap();
        assert_eq!(proposal.kinds, [CommandKind::Swap(T, A), CommandKind::Attach(T, A)]);
    }

    #[test]
    fn begin_takes_the_next_attach_number() {
        let mut queue = FeedQueue::new(HOME, Incarnation::FIRST);
        queue.push(Item::Begin(T));
        let proposal = next(&mut queue, offset(10), None).unwrap();
        assert_eq!(proposal.kinds, [CommandKind::Begin(T)]);
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
    fn pong_is_proposed_after_earlier_items() {
        let mut queue = FeedQueue::new(HOME, Incarnation::FIRST);
        let proof = Proof {
            as_of: std::time::Duration::ZERO,
            offset: offset(9),
            view: stead_types::DirectoryVersion::ZERO,
        };
        queue.push(Item::Detached(T, A));
        queue.push(Item::Pong(proof));
        let proposal = next(&mut queue, offset(9), None).unwrap();
        assert_eq!(
            (&proposal.kinds[..], &proposal.proofs[..]),
            (&[CommandKind::Detach(T, A)][..], &[proof][..])
        );
        queue.push(Item::Pong(proof));
        let alone = next(&mut queue, offset(9), None).unwrap();
        assert_eq!((alone.commands.len(), alone.proofs.len()), (0, 1));
    }
}
