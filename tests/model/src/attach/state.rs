//! State and actions of the attach model.

use std::collections::VecDeque;

use stead_state::{
    lineage::Lineage,
    shard::record::{AttachNumber, Role, TenantRecord},
};
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, TenantNumber};

/// The home group.
pub(super) const HOME: GroupId = GroupId::new(1);
/// The tenant.
pub(super) const TENANT: TenantNumber = TenantNumber::new(1);
/// Version of every view.
pub(super) const VERSION: DirectoryVersion = DirectoryVersion {
    incarnation: Incarnation::FIRST,
    index: 1,
};

/// State of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The home.
    pub home: Home,
    /// The follower.
    pub follower: Follower,
    /// Batches on the feed, in order.
    pub batches: VecDeque<Batch>,
    /// Answers to attempts, which may overtake one another and the batches.
    pub answers: Vec<Answer>,
    /// Attempts on their way to the home.
    pub requests: Vec<Request>,
    /// Acknowledgements, in order.
    pub acknowledgements: VecDeque<Acknowledgement>,
    /// Changes of other tenants so far.
    pub others: u8,
    /// Crashes so far.
    pub crashes: u8,
}

/// The home group: its log, and what its leader knows of the follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// Log index of each write of the tenant, in order.
    pub writes: Vec<u8>,
    /// Last log index.
    pub index: u8,
    /// Attempt for which the tenant is on the feed.
    pub session: Option<AttachNumber>,
    /// Whether the follower has acknowledged that it is attached for this attempt.
    pub is_attached: bool,
    /// Whether the feed is open: its opening list was received.
    pub is_open: bool,
    /// Offset that the follower has acknowledged.
    pub offset: u8,
    /// Writes that are counted as remote.
    pub covered: u8,
}

/// The follower group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    /// Its record; the sequence of the live copy is the number of writes held.
    pub record: TenantRecord,
    /// Offset applied.
    pub offset: u8,
    /// Whether records were applied after a gap.
    pub has_gap: bool,
    /// Attempt for which the home was last told that the tenant is attached.
    pub told: Option<AttachNumber>,
}

/// Batch of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Its offset.
    pub offset: u8,
    /// The tenant's writes in it, for an attempt.
    pub records: Option<Records>,
}

/// Writes of the tenant in a batch: those after `after`, up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Records {
    /// The attempt.
    pub attempt: AttachNumber,
    /// Number of the write before the first one.
    pub after: u8,
    /// Number of the last one.
    pub last: u8,
}

/// Request to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// The attempt.
    pub attempt: AttachNumber,
    /// Writes that the follower holds.
    pub position: u8,
}

/// Answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Answer {
    /// The attempt.
    pub attempt: AttachNumber,
    /// Writes that were sent before the attach; `None`: refused.
    pub attached: Option<u8>,
}

/// Acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Acknowledgement {
    /// Offset that is applied.
    pub offset: u8,
    /// Change since the last one: the attempt for which the tenant is attached now, or is no longer.
    pub change: Option<Change>,
    /// Part of an acknowledgement that takes effect, where a mutant splits it.
    pub part: Part,
}

/// Change that an acknowledgement reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Attached for this attempt.
    Attached(AttachNumber),
    /// No longer attached for this attempt.
    Detached(AttachNumber),
}

/// Part of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its offset.
    Offset,
    /// The tenant is attached.
    Attached,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The tenant is written.
    Write,
    /// Another tenant is written.
    WriteOther,
    /// The follower begins an attempt.
    Begin,
    /// The home takes an attempt, or refuses it.
    Answer(Request, bool),
    /// The follower applies the next batch.
    Apply,
    /// The follower detaches the tenant, for a reason of its own.
    Detach,
    /// The follower takes an answer.
    Take(Answer),
    /// The follower acknowledges.
    Acknowledge,
    /// The home takes the next acknowledgement.
    Hear,
    /// The home's leader crashes: what is in flight and what it knew is lost.
    Crash,
    /// The feed is opened: the follower lists what is attached.
    Open,
}

impl State {
    /// Returns the first state: the follower holds nothing and is not attached, the feed is open.
    pub fn first() -> Self {
        let mut record = TenantRecord::unknown();
        record.role = Role::Follower { home: HOME };
        record.epoch = Epoch::FIRST;
        record.promised = Epoch::FIRST;
        record.lineage = Lineage::starting(Epoch::FIRST);
        record.copies = 1;
        record.live.number = 1;
        Self {
            home: Home {
                writes: Vec::new(),
                index: 0,
                session: None,
                is_attached: false,
                is_open: true,
                offset: 0,
                covered: 0,
            },
            follower: Follower {
                record,
                offset: 0,
                has_gap: false,
                told: None,
            },
            batches: VecDeque::new(),
            answers: Vec::new(),
            requests: Vec::new(),
            acknowledgements: VecDeque::new(),
            others: 0,
            crashes: 0,
        }
    }
}

impl Follower {
    /// Returns the number of writes held, from the first one on.
    pub fn held(&self) -> u8 {
        self.record.live.revision.sequence().get() as u8
    }
}
