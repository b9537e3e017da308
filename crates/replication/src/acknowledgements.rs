//! Acknowledgements of follower groups: retention floors and lag are computed from them.
//!
//! # Invariants
//!
//! 1. An offset covers a tenant only if it is in that follower's `attached`: it was listed as attached when the stream
//!    was opened, or was acknowledged as attached in its present attempt since, and its session has not ended.
//! 2. All progress is of one term, and only the last stream that a follower opened in it changes that follower's
//!    progress. A stream that was opened before it ends: an earlier leader of the follower, cut off from it, may have
//!    opened the last one, and the present leader must notice that its own acknowledgements do not count.
//! 3. One acknowledgement (offset, attached, detached) is seen as one step.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber};
use tokio::sync::{oneshot, watch};

use crate::{attach_attempt::AttachAttempt, wire::TenantPosition};

/// Progress of one follower group, according to its acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerProgress {
    /// Offset up to which it has applied the stream.
    pub offset: FeedOffset,
    /// Tenants that the offset covers.
    attached: BTreeMap<TenantNumber, AttachedTenant>,
    /// Positions of other tenants. The position of a tenant that is in neither map is unknown.
    pub detached: BTreeMap<TenantNumber, (Epoch, Revision)>,
    /// Whether its stream is open.
    pub connected: bool,
    stream: StreamId,
}

/// Tenant that an offset covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttachedTenant {
    /// Attempt by which it is attached.
    attempt: AttachAttempt,
    /// Revision up to which the follower had it when it was attached, or listed as attached.
    revision: Revision,
}

impl AttachedTenant {
    /// Returns the tenant that a follower has attached at a position.
    pub(crate) fn at(position: &TenantPosition) -> Self {
        Self {
            attempt: AttachAttempt::of(position),
            revision: position.revision,
        }
    }
}

/// Change of a tenant: its revision, and the entry of the home's log that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangePosition {
    pub(crate) revision: Revision,
    pub(crate) offset: FeedOffset,
}

/// Identifies one stream of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

impl FollowerProgress {
    /// Applies one acknowledgement.
    pub(crate) fn acknowledge(&mut self, offset: FeedOffset, attached: &[TenantPosition], detached: &[TenantPosition]) {
        self.offset = self.offset.max(offset);
        for position in attached {
            self.detached.remove(&position.tenant);
            self.attached.insert(position.tenant, AttachedTenant::at(position));
        }
        for TenantPosition {
            tenant,
            epoch,
            revision,
            ..
        } in detached
        {
            self.detach(*tenant, Some((*epoch, *revision)));
        }
    }

    /// Removes a tenant from those that the offset covers, and notes its position, if that is known.
    pub(crate) fn detach(&mut self, tenant: TenantNumber, position: Option<(Epoch, Revision)>) {
        self.attached.remove(&tenant);
        if let Some(position) = position {
            self.detached.insert(tenant, position);
        }
    }

    /// Tells whether the offset covers a tenant: nothing of it is missing up to the offset.
    pub fn covers(&self, tenant: TenantNumber) -> bool {
        self.attached.contains_key(&tenant)
    }

    /// Tells whether the follower has applied a change of a tenant that the home made in this incarnation. Of a tenant
    /// that was attached with that change no batch may ever bring the offset to it.
    pub(crate) fn has_applied(&self, tenant: TenantNumber, change: &ChangePosition) -> bool {
        let attached = self.attached.get(&tenant);
        attached.is_some_and(|attached| self.offset >= change.offset || attached.revision >= change.revision)
    }

    /// Returns the tenants that the offset covers.
    pub fn attached(&self) -> impl ExactSizeIterator<Item = TenantNumber> {
        self.attached.keys().copied()
    }

    /// Tells whether a tenant's position is known.
    pub(crate) fn is_known(&self, tenant: TenantNumber) -> bool {
        self.covers(tenant) || self.detached.contains_key(&tenant)
    }
}

/// A stream that a follower has opened.
#[derive(Debug)]
pub(crate) struct StreamOpening {
    pub(crate) follower: GroupId,
    /// The home's term in which it was opened.
    pub(crate) term: u64,
    /// The offset that it begins at.
    pub(crate) offset: FeedOffset,
    /// Tenants that the offset covers.
    pub(crate) attached: BTreeMap<TenantNumber, AttachedTenant>,
    /// Positions of other tenants.
    pub(crate) detached: BTreeMap<TenantNumber, (Epoch, Revision)>,
}

/// Progress of the followers of one home group, since this node began to lead it.
#[derive(Debug)]
pub struct Acknowledgements {
    state: Mutex<AcknowledgementState>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct AcknowledgementState {
    term: u64,
    streams: u64,
    followers: BTreeMap<GroupId, FollowerProgress>,
    /// Senders whose drop ends the last stream of each follower.
    replaced: BTreeMap<GroupId, oneshot::Sender<()>>,
}

impl AcknowledgementState {
    /// Drops the progress of an earlier term: a new leader counts nothing before a stream is open, also if it is the
    /// same node again.
    fn advance_term(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.followers.clear();
            self.replaced.clear();
        }
    }
}

impl Default for Acknowledgements {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Acknowledgements {
    /// Returns the progress of a follower group.
    pub fn of(&self, follower: GroupId) -> Option<FollowerProgress> {
        self.state.lock().followers.get(&follower).cloned()
    }

    /// Returns the progress of each follower group.
    pub fn all(&self) -> Vec<(GroupId, FollowerProgress)> {
        let state = self.state.lock();
        let each = state
            .followers
            .iter()
            .map(|(group, follower)| (*group, follower.clone()));
        each.collect()
    }

    /// Returns a watch that changes whenever a follower opens a stream or its progress changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Begins a term that this node leads: progress of an earlier one is dropped.
    pub(crate) fn start_term(&self, term: u64) {
        self.state.lock().advance_term(term);
    }

    /// Replaces a follower's progress by that of a stream that it has opened. The receiver resolves when that stream
    /// does not count any more.
    pub(crate) fn open_stream(&self, opening: StreamOpening) -> (StreamId, oneshot::Receiver<()>) {
        let (last, replaced) = oneshot::channel();
        let mut state = self.state.lock();
        state.advance_term(opening.term);
        state.streams += 1;
        let stream = StreamId(state.streams);
        if state.term == opening.term {
            let progress = FollowerProgress {
                offset: opening.offset,
                attached: opening.attached,
                detached: opening.detached,
                connected: true,
                stream,
            };
            state.followers.insert(opening.follower, progress);
            state.replaced.insert(opening.follower, last);
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        (stream, replaced)
    }

    /// Changes a follower's progress, if this is its present stream.
    pub(crate) fn update(&self, follower: GroupId, stream: StreamId, change: impl FnOnce(&mut FollowerProgress)) {
        {
            let mut state = self.state.lock();
            let known = state.followers.get_mut(&follower);
            let Some(known) = known.filter(|known| known.stream == stream) else {
                return;
            };
            change(known);
        }
        self.changed.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use stead_state::shard::record::AttachNumber;
    use stead_types::{Incarnation, Sequence};
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const F: GroupId = GroupId::new(2);
    const T: TenantNumber = TenantNumber::new(7);
    const U: TenantNumber = TenantNumber::new(8);

    fn open(acknowledgements: &Acknowledgements, term: u64) -> StreamId {
        open_watched(acknowledgements, term).0
    }

    fn open_watched(acknowledgements: &Acknowledgements, term: u64) -> (StreamId, oneshot::Receiver<()>) {
        acknowledgements.open_stream(StreamOpening {
            follower: F,
            term,
            offset: FeedOffset::ZERO,
            attached: BTreeMap::new(),
            detached: BTreeMap::new(),
        })
    }

    fn position(tenant: TenantNumber) -> TenantPosition {
        TenantPosition {
            tenant,
            epoch: Epoch::FIRST,
            revision: Revision::ZERO,
            attach: AttachNumber(1),
            seed: None,
        }
    }

    fn attach(follower: &mut FollowerProgress) {
        follower.acknowledge(FeedOffset::ZERO, &[position(T)], &[]);
    }

    #[test]
    fn only_the_last_stream_of_the_term_counts() {
        let acknowledgements = Acknowledgements::default();
        acknowledgements.start_term(3);
        let old = open(&acknowledgements, 3);
        let new = open(&acknowledgements, 3);
        acknowledgements.update(F, old, |follower| follower.connected = false);
        acknowledgements.update(F, old, attach);
        let known = acknowledgements.of(F).unwrap();
        assert!(known.connected && !known.is_known(T));
        acknowledgements.update(F, new, attach);
        assert!(acknowledgements.of(F).unwrap().covers(T));
    }

    /// Invariant 2.
    #[test]
    fn replaced_stream_ends() {
        let acknowledgements = Acknowledgements::default();
        let has_ended = |stream: &mut oneshot::Receiver<()>| stream.try_recv() == Err(TryRecvError::Closed);
        let (_, mut first) = open_watched(&acknowledgements, 3);
        assert!(!has_ended(&mut first));
        let (_, mut late) = open_watched(&acknowledgements, 3);
        assert!(has_ended(&mut first) && !has_ended(&mut late));
        acknowledgements.start_term(4);
        assert!(has_ended(&mut late));
        assert!(
            has_ended(&mut open_watched(&acknowledgements, 3).1),
            "of an earlier term"
        );
    }

    #[test]
    fn new_term_drops_progress_of_earlier_streams() {
        let acknowledgements = Acknowledgements::default();
        let old = open(&acknowledgements, 3);
        let new = open(&acknowledgements, 4);
        acknowledgements.start_term(4);
        acknowledgements.update(F, old, |follower| follower.connected = false);
        assert!(acknowledgements.of(F).unwrap().connected);
        acknowledgements.start_term(5);
        assert_eq!(acknowledgements.of(F), None);
        acknowledgements.update(F, new, attach);
        assert_eq!(
            acknowledgements.of(F),
            None,
            "an acknowledgement does not make it known"
        );
        open(&acknowledgements, 4);
        assert_eq!(acknowledgements.of(F), None, "of an earlier term");
    }

    #[test]
    fn detach_removes_attached_and_known_position() {
        let acknowledgements = Acknowledgements::default();
        let stream = open(&acknowledgements, 1);
        let at = (Epoch::FIRST, Revision::ZERO);
        acknowledgements.update(F, stream, |follower| follower.detach(T, Some(at)));
        acknowledgements.update(F, stream, attach);
        acknowledgements.update(F, stream, |follower| follower.detach(T, None));
        let known = acknowledgements.of(F).unwrap();
        assert!(!known.is_known(T), "its position is unknown");
    }

    #[test]
    fn change_is_applied_by_offset_or_by_position_of_attach() {
        let at = |index| FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        };
        let revision = |sequence| Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap());
        let change = |sequence, index| ChangePosition {
            revision: revision(sequence),
            offset: at(index),
        };
        let acknowledgements = Acknowledgements::default();
        let stream = open(&acknowledgements, 1);
        let attached = TenantPosition {
            revision: revision(7),
            ..position(T)
        };
        acknowledgements.update(F, stream, |follower| follower.acknowledge(at(50), &[attached], &[]));
        let known = acknowledgements.of(F).unwrap();
        assert!(
            known.has_applied(T, &change(7, 60)),
            "it was attached with it, and no batch followed"
        );
        assert!(!known.has_applied(T, &change(8, 60)));
        assert!(known.has_applied(T, &change(8, 50)));
        assert!(!known.has_applied(U, &change(1, 1)), "the offset does not speak for it");
    }

    /// Invariant 3.
    #[test]
    fn acknowledgement_is_seen_as_one_change() {
        let acknowledgements = Acknowledgements::default();
        let stream = open(&acknowledgements, 1);
        acknowledgements.update(F, stream, attach);
        let changes = acknowledgements.watch();
        let before = *changes.borrow();
        let offset = FeedOffset {
            incarnation: Incarnation::FIRST,
            index: 9,
        };
        acknowledgements.update(F, stream, |follower| {
            follower.acknowledge(offset, &[position(U)], &[position(T)]);
        });
        assert_eq!(*changes.borrow(), before + 1);
        let known = acknowledgements.of(F).unwrap();
        assert_eq!((known.offset, known.attached().collect::<Vec<_>>()), (offset, vec![U]));
        assert!(known.detached.contains_key(&T));
    }
}
