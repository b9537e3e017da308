//! State of the ownership model: the directory, three groups with their views, logs and volatile state, and what an
//! observer outside has seen.

use std::{collections::BTreeMap, fmt, sync::Arc};

use stead_state::shard::{
    digest::Digests,
    record::{AttachNumber, AttachSession, LeaseLossPolicy, OperationId, Role, TenantRecord},
};
use stead_types::{Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber};

use super::{
    bounds::{Bounds, Policy},
    directory::Register,
    entry::Proposal,
    writes::{History, Write, Writes},
};

/// Number of groups.
pub const GROUPS: usize = 3;
/// The tenant.
pub const TENANT: TenantNumber = TenantNumber::new(1);

/// A group, by its place from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u8);

impl Place {
    /// Returns all groups.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..GROUPS as u8).map(Self)
    }

    /// Returns all groups but this one.
    pub fn others(self) -> impl Iterator<Item = Self> {
        Self::all().filter(move |place| *place != self)
    }

    /// Returns the id of the group.
    pub fn id(self) -> GroupId {
        GroupId::new(u32::from(self.0) + 1)
    }

    /// Returns the place of a group.
    pub fn of(group: GroupId) -> Self {
        Self(group.get() as u8 - 1)
    }
}

/// State of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The directory's versions.
    pub directory: Arc<Register>,
    /// The groups.
    pub groups: [Arc<Group>; GROUPS],
    /// History so far, as an observer outside sees it.
    pub seen: Observed,
    /// How often bounded things have happened.
    pub used: Used,
    /// The freshness ping under way.
    pub ping: Option<Ping>,
}

/// State of a group. Its Raft log is one durable object: a step is one applied entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Record of the tenant.
    pub record: TenantRecord,
    /// Changes of the live copy.
    pub history: History,
    /// Writes that were cut from the live copy into forks.
    pub forked: Writes,
    /// Writes that forks hold: a fork is a whole copy, so it holds what was before the cut, too.
    pub stored: Writes,
    /// Position that it has reported since it was frozen.
    pub reported: Revision,
    /// Last sequence when a leaving member was uncounted.
    pub uncounted_at: Sequence,
    /// Writes that it has ever held.
    pub ever: Writes,
    /// Remote watermark: writes up to this sequence are in a counted follower.
    pub remote: Sequence,
    /// Directory version that the view has reached.
    pub view: u8,
    /// Directory version from which on a lease counts: the one at the last tick, or at the last crash.
    pub lease: u8,
    /// Write that is committed and not yet acknowledged.
    pub pending: Option<Pending>,
    /// Move whose heir has reported that it is ready.
    pub ready: Option<OperationId>,
    /// Message of the feed in flight to this group.
    pub feed: Option<Message>,
    /// Entries that are proposed and not yet applied, in a fixed order.
    pub entries: Vec<Proposal>,
    /// Writes that were acknowledged when the ping was sent that proved this copy's freshness last.
    pub proven: Writes,
}

/// Write that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// The write.
    pub write: Write,
    /// Its revision.
    pub revision: Revision,
    /// Whether it is acknowledged at REMOTE.
    pub remote: bool,
    /// Whether a counted follower holds it.
    pub covered: bool,
}

/// Message of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The sender.
    pub home: Place,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Number of the attempt that it is sent for.
    pub attach: AttachNumber,
    /// Content of the message.
    pub content: Content,
}

/// Content of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// One change.
    Change(super::writes::Change),
    /// The baton.
    Baton(stead_state::shard::command::Baton),
}

/// Freshness ping under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ping {
    /// The follower that sent it.
    pub from: Place,
    /// Writes that were acknowledged when it was sent.
    pub acknowledged: Writes,
    /// The answer.
    pub answer: Option<Answer>,
}

/// Answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The home that answers.
    pub home: Place,
    /// Changes that its feed had sent.
    pub changes: u8,
    /// Whether a baton was among what it had sent.
    pub baton: bool,
    /// Version of its view.
    pub view: u8,
}

/// Observations of a client outside, and where the protocol says what must hold for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Writes that were acknowledged.
    pub acknowledged: Writes,
    /// Writes that were acknowledged at REMOTE.
    pub remote: Writes,
    /// Writes that reads have shown.
    pub shown: Writes,
    /// Writes that a promotion has cut.
    pub cut: Writes,
    /// Writes that were committed by a superseded home after they had been cut.
    pub late: Writes,
    /// Writes that a promotion with `--allow-loss` was allowed to cut.
    pub allowed: Writes,
    /// Writes of forks that operators have discarded by name.
    pub discarded: Writes,
    /// Revision of each write, in their order.
    pub revisions: Vec<Revision>,
    /// Last sequence before each epoch that has begun.
    pub begins: BTreeMap<Epoch, Sequence>,
    /// Fences, with the ticks until no group may serve below them.
    pub fences: BTreeMap<Epoch, u8>,
    /// Whether a promotion was asserted while the owner's policy was `continue`.
    pub asserted: bool,
    /// Positions of followers when a promotion began, for a mutant.
    pub earlier: [u8; GROUPS],
    /// Properties that a step has violated.
    pub violated: Violations,
}

/// Properties that steps violate, not states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Violations {
    /// P1: a write at REMOTE was lost.
    pub p1: bool,
    /// P2: what a promotion had cut was erased from a live copy, before it was in a fork.
    pub p2: bool,
    /// P3: an acknowledged write was cut that lies outside the reported window.
    pub p3: bool,
    /// F1: a record differs from what its receiver holds at its revision.
    pub f1: bool,
    /// LATE: a write was acknowledged that was committed after it had been cut.
    pub late: bool,
    /// DIVERGE: two groups hold different histories of one epoch.
    pub diverge: bool,
    /// RESURRECT: a write that was reported as cut is back.
    pub resurrect: bool,
    /// BOUNDED: a proof counted for a copy that lacks a write acknowledged before the ping.
    pub bounded: bool,
}

/// How often bounded things have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    /// Writes.
    pub writes: u8,
    /// Planned moves.
    pub moves: u8,
    /// Aborts.
    pub aborts: u8,
    /// Promotions.
    pub promotions: u8,
    /// Members that have left, and that were taken back.
    pub left: u8,
}

impl State {
    /// Returns the first state: the first group is the home, the others follow it, in epoch 1.
    pub fn first(bounds: &Bounds) -> Self {
        let register = Register::first(bounds);
        let group = |place: Place| {
            let mut record = TenantRecord::unknown();
            if place.0 >= bounds.members {
                return Arc::new(Group::new(record));
            }
            record.epoch = Epoch::FIRST;
            record.promised = Epoch::FIRST;
            record.view_version = super::directory::version(0);
            record.lineage = stead_state::lineage::Lineage::starting(Epoch::FIRST);
            record.role = match place {
                Place(0) => Role::Owner,
                _ => Role::Follower { home: Place(0).id() },
            };
            record.policy = match bounds.policy {
                Policy::Stop => LeaseLossPolicy::Stop,
                Policy::Continue | Policy::ContinueThenStop => LeaseLossPolicy::Continue,
            };
            record.live.number = 1;
            record.copies = 1;
            if place != Place(0) {
                record.attach = AttachNumber(1);
                record.session = Some(AttachSession {
                    home: Place(0).id(),
                    incarnation: Incarnation::FIRST,
                    epoch: Epoch::FIRST,
                    number: AttachNumber(1),
                    attached: true,
                });
            }
            Arc::new(Group::new(record))
        };
        Self {
            directory: Arc::new(register),
            groups: [group(Place(0)), group(Place(1)), group(Place(2))],
            seen: Observed {
                begins: [(Epoch::FIRST, Sequence::ZERO)].into(),
                ..Observed::default()
            },
            used: Used::default(),
            ping: None,
        }
    }

    /// Returns a group.
    pub fn group(&self, place: Place) -> &Group {
        &self.groups[usize::from(place.0)]
    }

    /// Returns a group for a change.
    pub fn group_mut(&mut self, place: Place) -> &mut Group {
        Arc::make_mut(&mut self.groups[usize::from(place.0)])
    }

    /// Returns the directory for a change.
    pub fn directory_mut(&mut self) -> &mut Register {
        Arc::make_mut(&mut self.directory)
    }

    /// Returns all groups with their places.
    pub fn groups(&self) -> impl Iterator<Item = (Place, &Group)> {
        Place::all().zip(self.groups.iter().map(AsRef::as_ref))
    }

    /// Returns the tenant as a group's view shows it.
    pub fn view(&self, place: Place) -> &super::directory::Version {
        self.directory.at(self.group(place).view)
    }

    /// Returns the writes that are off the recorded line.
    pub fn off(&self) -> Writes {
        self.seen.cut | self.seen.late
    }
}

impl Group {
    /// Returns a group with this record and no history.
    fn new(record: TenantRecord) -> Self {
        Self {
            record,
            history: History::default(),
            forked: Writes::NONE,
            stored: Writes::NONE,
            reported: Revision::ZERO,
            uncounted_at: Sequence::ZERO,
            ever: Writes::NONE,
            remote: Sequence::ZERO,
            view: 0,
            lease: 0,
            pending: None,
            ready: None,
            feed: None,
            entries: Vec::new(),
            proven: Writes::NONE,
        }
    }

    /// Brings the figures of the live copy in line with its history.
    pub fn settle_copy(&mut self) {
        self.record.live.revision = self.history.end();
        self.record.live.digests = Digests {
            keys: self.history.digest(),
            outcomes: 0,
        };
    }

    /// Loses what only the leader knew.
    pub fn forget_volatile(&mut self) {
        self.pending = None;
        self.ready = None;
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let newest = self.directory.newest();
        let tenant = &newest.tenant;
        writeln!(
            f,
            "directory {}: home {} epoch {} fence {} {:?} wait {} kept {}",
            self.directory.newest_version(),
            tenant.home,
            tenant.epoch,
            tenant.fence(),
            tenant.state,
            self.directory.wait,
            newest.kept
        )?;
        writeln!(
            f,
            "    {:?} {:?} {:?}",
            newest.moving(),
            newest.promotion(),
            tenant.members
        )?;
        for (place, group) in self.groups() {
            let record = &group.record;
            writeln!(
                f,
                "{}: {:?} epoch {} promised {} view {} (record {}) lease from {}",
                place.id(),
                record.role,
                record.epoch,
                record.promised,
                group.view,
                record.view_version,
                group.lease
            )?;
            writeln!(f, "    holds {:?}", group.history.changes())?;
            writeln!(f, "    lineage {:?}", record.lineage.runs())?;
            writeln!(
                f,
                "    forked {:?} session {:?} uncounted {:?} pending {:?} feed {:?} entries {:?}",
                group.forked,
                record.session.map(|session| session.number),
                record.uncounted,
                group.pending,
                group.feed,
                group.entries
            )?;
        }
        let seen = &self.seen;
        writeln!(
            f,
            "acknowledged {:?} remote {:?} shown {:?} cut {:?} late {:?} {:?}",
            seen.acknowledged, seen.remote, seen.shown, seen.cut, seen.late, seen.violated
        )
    }
}
