//! What followers have acknowledged: what floors, lag and remote durability are computed from.
//!
//! # Invariants
//!
//! 1. An offset speaks for a tenant only if it is in that follower's `attached`: it was listed as attached when the stream
//!    was opened, or was acknowledged as attached in its present attempt since, and its session has not ended.
//! 2. What is held is of one term, and only the last stream that a follower opened in it changes what is held of that
//!    follower. One that was opened before ends: an earlier leader of the follower, cut off from it, may have opened the
//!    last one, and the present leader must notice that what it acknowledges does not count.
//! 3. What one acknowledgement says (offset, attached, detached) is seen as one step.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber};
use tokio::sync::{oneshot, watch};

use super::sessions::Attempt;
use crate::wire::Position;

/// One follower group, as its acknowledgements show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// What it has applied of the stream.
    pub offset: FeedOffset,
    /// Tenants that the offset speaks for, and in which attempt.
    attached: BTreeMap<TenantNumber, Attempt>,
    /// Where other tenants are. Of one that is in neither nothing is known.
    pub detached: BTreeMap<TenantNumber, (Epoch, Revision)>,
    /// Whether its stream is open.
    pub connected: bool,
    stream: Stream,
}

/// Names one stream of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream(u64);

impl Follower {
    /// Takes in what one acknowledgement says.
    pub(crate) fn acknowledge(&mut self, offset: FeedOffset, attached: &[Position], detached: &[Position]) {
        self.offset = self.offset.max(offset);
        for position in attached {
            self.detached.remove(&position.tenant);
            self.attached.insert(position.tenant, Attempt::of(position));
        }
        for Position {
            tenant,
            epoch,
            revision,
            ..
        } in detached
        {
            self.detach(*tenant, Some((*epoch, *revision)));
        }
    }

    /// Takes in that the offset does not speak for a tenant, and where the tenant is, if that is known.
    pub(crate) fn detach(&mut self, tenant: TenantNumber, position: Option<(Epoch, Revision)>) {
        self.attached.remove(&tenant);
        if let Some(position) = position {
            self.detached.insert(tenant, position);
        }
    }

    /// Tells whether the offset speaks for a tenant.
    pub fn speaks_for(&self, tenant: TenantNumber) -> bool {
        self.attached.contains_key(&tenant)
    }

    /// Returns the tenants that the offset speaks for.
    pub fn attached(&self) -> impl ExactSizeIterator<Item = TenantNumber> {
        self.attached.keys().copied()
    }

    /// Tells whether anything is known of a tenant.
    pub(crate) fn knows(&self, tenant: TenantNumber) -> bool {
        self.speaks_for(tenant) || self.detached.contains_key(&tenant)
    }
}

/// The followers of one home group, since this node began to lead it.
#[derive(Debug)]
pub struct Acknowledged {
    held: Mutex<Held>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    term: u64,
    streams: u64,
    followers: BTreeMap<GroupId, Follower>,
    /// Each follower's last stream waits for this to be dropped.
    replaced: BTreeMap<GroupId, oneshot::Sender<()>>,
}

impl Held {
    /// A new leader counts nothing before a stream is open, also if it is the old one again.
    fn reach(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.followers.clear();
            self.replaced.clear();
        }
    }
}

impl Default for Acknowledged {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Acknowledged {
    /// Returns what a follower group has acknowledged.
    pub fn of(&self, follower: GroupId) -> Option<Follower> {
        self.held.lock().followers.get(&follower).cloned()
    }

    /// Returns what each follower group has acknowledged.
    pub fn all(&self) -> Vec<(GroupId, Follower)> {
        let held = self.held.lock();
        let each = held
            .followers
            .iter()
            .map(|(group, follower)| (*group, follower.clone()));
        each.collect()
    }

    /// Returns a watch that changes with every acknowledgement.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes in that this node leads in a term: what is from an earlier one is forgotten.
    pub(crate) fn leads(&self, term: u64) {
        self.held.lock().reach(term);
    }

    /// Takes in that a follower has opened a stream at an offset in a term, that speaks for these. Returns what resolves
    /// when that stream does not count any more.
    pub(crate) fn opened(
        &self,
        (follower, term): (GroupId, u64),
        offset: FeedOffset,
        attached: BTreeMap<TenantNumber, Attempt>,
        detached: BTreeMap<TenantNumber, (Epoch, Revision)>,
    ) -> (Stream, oneshot::Receiver<()>) {
        let (last, replaced) = oneshot::channel();
        let mut held = self.held.lock();
        held.reach(term);
        held.streams += 1;
        let stream = Stream(held.streams);
        if held.term == term {
            let opened = Follower {
                offset,
                attached,
                detached,
                connected: true,
                stream,
            };
            held.followers.insert(follower, opened);
            held.replaced.insert(follower, last);
        }
        drop(held);
        self.changed.send_modify(|count| *count += 1);
        (stream, replaced)
    }

    /// Changes what is held of a follower, if this is its stream.
    pub(crate) fn change(&self, follower: GroupId, stream: Stream, change: impl FnOnce(&mut Follower)) {
        {
            let mut held = self.held.lock();
            let known = held.followers.get_mut(&follower);
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
    use stead_types::Incarnation;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const F: GroupId = GroupId::new(2);
    const T: TenantNumber = TenantNumber::new(7);
    const U: TenantNumber = TenantNumber::new(8);

    fn open(acknowledged: &Acknowledged, term: u64) -> Stream {
        open_watched(acknowledged, term).0
    }

    fn open_watched(acknowledged: &Acknowledged, term: u64) -> (Stream, oneshot::Receiver<()>) {
        acknowledged.opened((F, term), FeedOffset::ZERO, BTreeMap::new(), BTreeMap::new())
    }

    fn position(tenant: TenantNumber) -> Position {
        Position {
            tenant,
            epoch: Epoch::FIRST,
            revision: Revision::ZERO,
            attach: AttachNumber(1),
        }
    }

    fn attach(follower: &mut Follower) {
        follower.acknowledge(FeedOffset::ZERO, &[position(T)], &[]);
    }

    #[test]
    fn only_the_last_stream_of_the_term_counts() {
        let acknowledged = Acknowledged::default();
        acknowledged.leads(3);
        let old = open(&acknowledged, 3);
        let new = open(&acknowledged, 3);
        acknowledged.change(F, old, |follower| follower.connected = false);
        acknowledged.change(F, old, attach);
        let known = acknowledged.of(F).unwrap();
        assert!(known.connected && !known.knows(T));
        acknowledged.change(F, new, attach);
        assert!(acknowledged.of(F).unwrap().speaks_for(T));
    }

    /// Invariant 2.
    #[test]
    fn stream_that_does_not_count_ends() {
        let acknowledged = Acknowledged::default();
        let has_ended = |stream: &mut oneshot::Receiver<()>| stream.try_recv() == Err(TryRecvError::Closed);
        let (_, mut first) = open_watched(&acknowledged, 3);
        assert!(!has_ended(&mut first));
        let (_, mut late) = open_watched(&acknowledged, 3);
        assert!(has_ended(&mut first) && !has_ended(&mut late));
        acknowledged.leads(4);
        assert!(has_ended(&mut late));
        assert!(has_ended(&mut open_watched(&acknowledged, 3).1), "of an earlier term");
    }

    #[test]
    fn a_new_term_begins_with_nothing_and_keeps_what_was_opened_in_it() {
        let acknowledged = Acknowledged::default();
        let old = open(&acknowledged, 3);
        let new = open(&acknowledged, 4);
        acknowledged.leads(4);
        acknowledged.change(F, old, |follower| follower.connected = false);
        assert!(acknowledged.of(F).unwrap().connected);
        acknowledged.leads(5);
        assert_eq!(acknowledged.of(F), None);
        acknowledged.change(F, new, attach);
        assert_eq!(acknowledged.of(F), None, "an acknowledgement does not make it known");
        open(&acknowledged, 4);
        assert_eq!(acknowledged.of(F), None, "of an earlier term");
    }

    #[test]
    fn who_is_detached_is_not_attached() {
        let acknowledged = Acknowledged::default();
        let stream = open(&acknowledged, 1);
        let at = (Epoch::FIRST, Revision::ZERO);
        acknowledged.change(F, stream, |follower| follower.detach(T, Some(at)));
        acknowledged.change(F, stream, attach);
        acknowledged.change(F, stream, |follower| follower.detach(T, None));
        let known = acknowledged.of(F).unwrap();
        assert!(!known.knows(T), "it is somewhere behind where it was attached");
    }

    /// Invariant 3.
    #[test]
    fn one_acknowledgement_is_one_change() {
        let acknowledged = Acknowledged::default();
        let stream = open(&acknowledged, 1);
        acknowledged.change(F, stream, attach);
        let changes = acknowledged.watch();
        let before = *changes.borrow();
        let offset = FeedOffset {
            incarnation: Incarnation::FIRST,
            index: 9,
        };
        acknowledged.change(F, stream, |follower| {
            follower.acknowledge(offset, &[position(U)], &[position(T)]);
        });
        assert_eq!(*changes.borrow(), before + 1);
        let known = acknowledged.of(F).unwrap();
        assert_eq!((known.offset, known.attached().collect::<Vec<_>>()), (offset, vec![U]));
        assert!(known.detached.contains_key(&T));
    }
}
