//! The feed of the ownership model: sessions, records and the baton, one message in flight to each follower.
//!
//! A message survives a crash of its sender and a `Freeze` or `Follow` of its receiver, so that late records and late
//! batons arrive.

use stead_state::shard::{
    command::{Attach, BeginAttach, DataHeader},
    ownership,
    record::{AttachNumber, Role},
};
use stead_types::{Incarnation, Sequence};

use super::{
    Ownership,
    apply::STAMP,
    directory::version,
    mutant::Mutant,
    state::{Content, Message, Place, State, TENANT},
    writes::{Change, Writes},
};

impl Ownership {
    /// Returns the home that a follower may attach to: the one it follows, in the same epoch, while it feeds.
    pub(super) fn may_attach(&self, state: &State, place: Place) -> Option<Place> {
        let record = &state.group(place).record;
        let home = Place::of(record.home()?);
        let source = &state.group(home).record;
        let feeds = matches!(source.role, Role::Owner | Role::Relinquished { .. });
        let fits = source.epoch == record.epoch && record.epoch == record.promised;
        let is_attached = record
            .session
            .is_some_and(|session| session.attached && session.home == home.id() && session.epoch == record.epoch);
        (feeds && fits && !is_attached && !record.suspect).then_some(home)
    }

    /// Attaches a follower: the whole exchange in one step.
    pub(super) fn attach(&self, state: &mut State, place: Place) -> Option<()> {
        let home = self.may_attach(state, place)?;
        let lineage = state.group(home).record.lineage.clone();
        let group = state.group_mut(place);
        let (record, view) = (&mut group.record, version(group.view));
        let number = record.attach.next();
        let begin = BeginAttach {
            tenant: TENANT,
            home: home.id(),
            incarnation: Incarnation::FIRST,
            epoch: record.epoch,
            version: view,
            number,
        };
        ownership::begin_attach(record, &begin).ok()?;
        let attach = Attach {
            tenant: TENANT,
            home: home.id(),
            epoch: record.epoch,
            version: view,
            number,
            position: record.live.revision,
            lineage,
        };
        if ownership::attach(record, &attach).is_err() {
            state.seen.violated.diverge = true;
            return Some(());
        }
        // The idempotency windows are seeded anew with the session.
        record.live.rewound = false;
        let is_prefix = state.group(place).history.is_prefix_of(&state.group(home).history);
        state.seen.violated.diverge |= !is_prefix;
        self.cover(state, home, place);
        Some(())
    }

    /// Returns what the home of an attached follower sends next.
    pub(super) fn next_message(&self, state: &State, place: Place) -> Option<Message> {
        let group = state.group(place);
        let session = group.record.session.filter(|session| session.attached)?;
        let home = Place::of(session.home);
        let source = state.group(home);
        let feeds = matches!(source.record.role, Role::Owner | Role::Relinquished { .. });
        if group.feed.is_some() || !feeds || source.record.epoch != session.epoch {
            return None;
        }
        let skipped = usize::from(self.is(Mutant::GapIgnored));
        let next = source.history.after(group.history.len() + skipped);
        let next = next.or_else(|| source.history.after(group.history.len()));
        let content = match next {
            Some(change) => Content::Change(change),
            None => self.baton_for(state, home, place)?,
        };
        Some(self.message(state, place, home, content))
    }

    /// Returns the baton that overtakes the records before it, where a mutant lets it.
    pub(super) fn overtaking_baton(&self, state: &State, place: Place) -> Option<Message> {
        let group = state.group(place);
        let session = group.record.session.filter(|session| session.attached)?;
        let home = Place::of(session.home);
        let fits = group.feed.is_none() && state.group(home).record.epoch == session.epoch;
        let content = self
            .baton_for(state, home, place)
            .filter(|_| fits && self.is(Mutant::AcceptsBehind))?;
        Some(self.message(state, place, home, content))
    }

    fn baton_for(&self, state: &State, home: Place, place: Place) -> Option<Content> {
        let baton = ownership::baton(&state.group(home).record)?;
        (baton.to == place.id()).then_some(Content::Baton(baton))
    }

    fn message(&self, state: &State, place: Place, home: Place, content: Content) -> Message {
        Message {
            home,
            epoch: state.group(home).record.epoch,
            attach: state
                .group(place)
                .record
                .session
                .map_or(AttachNumber(0), |session| session.number),
            content,
        }
    }

    /// Takes in the message in flight.
    pub(super) fn receive(&self, state: &mut State, place: Place) -> Option<()> {
        let group = state.group_mut(place);
        let message = group.feed.take()?;
        let head = DataHeader {
            tenant: TENANT,
            home: message.home.id(),
            epoch: message.epoch,
            version: version(group.view),
            attach: message.attach,
        };
        match message.content {
            Content::Change(change) => self.receive_change(state, place, &head, change),
            Content::Baton(ref baton) => {
                self.accept(state, place, &head, baton);
            }
        }
        Some(())
    }

    fn receive_change(&self, state: &mut State, place: Place, head: &DataHeader, change: Change) {
        let group = state.group_mut(place);
        let admitted = ownership::admit_data(&mut group.record, head).is_ok();
        let below_promise = self.is(Mutant::FeedBelowPromise)
            && group.record.epoch == head.epoch
            && matches!(group.record.role, Role::Frozen { .. });
        if !admitted && !below_promise {
            return;
        }
        let held = group.history.len();
        let sequence = usize::try_from(change.revision.sequence().get()).unwrap_or(usize::MAX);
        if sequence <= held {
            let same = group.history.after(sequence - 1) == Some(change);
            state.seen.violated.f1 |= !same;
            return;
        }
        if sequence > held + 1 && !self.is(Mutant::GapIgnored) {
            group.record.session = None;
            return;
        }
        group.history.push(change);
        group.ever |= Writes::of(change.write);
        group.settle_copy();
        let home = Place::of(head.home);
        self.cover(state, home, place);
        if below_promise {
            self.cover_frozen(state, home, change);
        }
    }

    /// Counts the acknowledgement of a frozen group, for a mutant.
    fn cover_frozen(&self, state: &mut State, home: Place, change: Change) {
        let pending = state
            .group(home)
            .pending
            .filter(|pending| pending.write == change.write);
        if let Some(mut pending) = pending {
            pending.covered = true;
            state.group_mut(home).pending = Some(pending);
        }
    }

    fn accept(&self, state: &mut State, place: Place, head: &DataHeader, baton: &stead_state::shard::command::Baton) {
        let policy_of_view = state.view(place).tenant.on_lease_loss.possible();
        let group = state.group_mut(place);
        let mut record = group.record.clone();
        let mut accept = baton.clone().accept(*head, Incarnation::FIRST);
        if self.is(Mutant::AcceptsBehind) {
            accept.baton.last = record.live.revision;
            accept.baton.digests = record.live.digests;
        }
        if self.is(Mutant::BatonHasNoPosition) && baton.last <= record.live.revision {
            return;
        }
        if self.is(Mutant::HeirCancelledByOlderView) && !matches!(record.role, Role::Heir { .. }) {
            return;
        }
        if self.is(Mutant::AcceptsPromised) && record.epoch < baton.epoch {
            forget_promise(&mut record, head);
        }
        let promised = group.record.promised;
        let lineage = record.lineage.clone();
        if ownership::accept(&mut record, place.id(), &accept, STAMP).is_err() {
            group.record.session = record.session;
            group.record.suspect = record.suspect;
            return;
        }
        record.promised = record.promised.max(promised);
        if self.is(Mutant::AcceptKeepsRun) {
            record.lineage = lineage;
        }
        if self.is(Mutant::BatonWithoutPolicy) {
            record.policy = policy_of_view;
        }
        // What the record keeps of the takeover is compared by nothing else.
        record.accepted = None;
        group.record = record;
        group.remote = self.first_remote(group);
        group.uncounted_at = Sequence::ZERO;
    }
}

/// Makes a frozen group the follower that it was.
fn forget_promise(record: &mut stead_state::shard::record::TenantRecord, head: &DataHeader) {
    if matches!(record.role, Role::Frozen { .. }) {
        record.role = Role::Follower { home: head.home };
        record.session = Some(stead_state::shard::record::AttachSession {
            home: head.home,
            incarnation: Incarnation::FIRST,
            epoch: head.epoch,
            number: head.attach,
            attached: true,
        });
    }
    record.promised = record.epoch;
}
