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

use crate::{
    applied_waiters::{AppliedWaiters, WaiterKey},
    follower_progress::{AttachedTenant, ChangePosition, FollowerProgress, StreamId},
};

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
    waiters: AppliedWaiters,
}

/// A wait for a follower to apply a change. Dropped, it waits no more.
#[derive(Debug)]
pub(crate) struct AppliedWait<'a> {
    acknowledgements: &'a Acknowledgements,
    tenant: TenantNumber,
    key: WaiterKey,
    woken: oneshot::Receiver<()>,
}

impl AppliedWait<'_> {
    /// Waits until a follower has applied the change.
    pub(crate) async fn woken(&mut self) {
        // The sender is dropped to wake.
        (&mut self.woken).await.ok();
    }
}

impl Drop for AppliedWait<'_> {
    fn drop(&mut self) {
        let mut state = self.acknowledgements.state.lock();
        state.waiters.remove(self.tenant, self.key);
    }
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

    /// Tells whether the progress of any follower group fulfils a condition.
    pub(crate) fn any(&self, mut is: impl FnMut(GroupId, &FollowerProgress) -> bool) -> bool {
        let state = self.state.lock();
        state.followers.iter().any(|(group, follower)| is(*group, follower))
    }

    /// Begins a wait for any follower to apply a change of a tenant that the home made in an epoch; `None` if one has.
    pub(crate) fn wait_applied(
        &self,
        tenant: TenantNumber,
        epoch: Epoch,
        change: ChangePosition,
    ) -> Option<AppliedWait<'_>> {
        let mut state = self.state.lock();
        let has_applied = |follower: &FollowerProgress| follower.has_applied(tenant, epoch, &change);
        if state.followers.values().any(has_applied) {
            return None;
        }
        let (key, woken) = state.waiters.add(tenant, epoch, change);
        Some(AppliedWait {
            acknowledgements: self,
            tenant,
            key,
            woken,
        })
    }

    /// Returns the number of tenants of which a change is waited for.
    pub(crate) fn tenants_waiting(&self) -> usize {
        self.state.lock().waiters.tenant_count()
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
            state.waiters.wake(&progress);
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
            let state = &mut *self.state.lock();
            let known = state.followers.get_mut(&follower);
            let Some(known) = known.filter(|known| known.stream == stream) else {
                return;
            };
            change(known);
            state.waiters.wake(known);
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
    use crate::wire::TenantPosition;

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
            known.has_applied(T, Epoch::FIRST, &change(7, 60)),
            "it was attached with it, and no batch followed"
        );
        assert!(!known.has_applied(T, Epoch::FIRST, &change(8, 60)));
        assert!(known.has_applied(T, Epoch::FIRST, &change(8, 50)));
        let second = Epoch::new(2).unwrap();
        assert!(
            !known.has_applied(T, second, &change(8, 50)),
            "it follows another epoch"
        );
        assert!(
            !known.has_applied(U, Epoch::FIRST, &change(1, 1)),
            "the offset does not speak for it"
        );
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
    /// A waiter is woken by the acknowledgement that covers its change, by no other, and once.
    #[test]
    fn waiter_is_woken_by_covering_acknowledgement() {
        let at = |index| FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        };
        let change = |sequence, index| ChangePosition {
            revision: Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap()),
            offset: at(index),
        };
        let acknowledgements = Acknowledgements::default();
        let stream = open(&acknowledgements, 1);
        let begin = |tenant, change| acknowledgements.wait_applied(tenant, Epoch::FIRST, change);
        let is_woken = |wait: &mut AppliedWait<'_>| wait.woken.try_recv() == Err(TryRecvError::Closed);
        let mut first = begin(T, change(1, 10)).unwrap();
        let mut later = begin(T, change(2, 20)).unwrap();
        let mut other = begin(U, change(1, 10)).unwrap();
        let acknowledge = |index, attached: &[TenantPosition]| {
            acknowledgements.update(F, stream, |follower| follower.acknowledge(at(index), attached, &[]));
        };
        acknowledge(15, &[]);
        assert!(!is_woken(&mut first), "it is not attached");
        acknowledge(15, &[position(T)]);
        assert!(is_woken(&mut first) && !is_woken(&mut later) && !is_woken(&mut other));
        assert_eq!(acknowledgements.tenants_waiting(), 2);
        drop(later);
        assert_eq!(acknowledgements.tenants_waiting(), 1, "dropped, it waits no more");
        assert!(begin(T, change(1, 15)).is_none(), "it is applied already");
        acknowledgements.start_term(2);
        assert!(begin(T, change(1, 15)).is_some(), "a new term begins with nothing");
    }
}
