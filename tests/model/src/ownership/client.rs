//! Clients of the ownership model: writes, acknowledgements, reads, tokens, and the remote watermark that they wait
//! for.

use stead_state::{
    lineage::RevisionStatus,
    serving::{self, BootTime, Lease, ServingState},
    shard::record::{LeaseLossPolicy, Role},
};
use stead_types::{Epoch, Revision, Sequence};

use super::{
    Ownership,
    bounds::{Durability, Policy},
    directory::version,
    mutant::Mutant,
    state::{Group, Pending, Place, State},
    writes::{Change, Writes},
};

/// Answer to a read with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAnswer {
    /// The replica serves it.
    Serve,
    /// The replica has not reached it.
    Wait,
    /// The revision is cut.
    Forked,
}

impl Ownership {
    /// Returns the inputs of the serving check. A lease is derived lazily: a group holds every lease that it may hold,
    /// one as of each directory version from the last tick on.
    pub fn standing(&self, state: &State, place: Place) -> ServingState {
        let group = state.group(place);
        let until = Lease::Until {
            expiry: BootTime(1),
            version: version(group.lease),
        };
        let lease = if self.needs_no_lease(state, place) {
            Lease::Unbounded
        } else {
            until
        };
        let fence = state.view(place).tenant.fence();
        ServingState {
            leader_confirmed: true,
            lease,
            view_version: version(group.view),
            now: BootTime(0),
            fence_epoch: if self.is(Mutant::ServesFenced) {
                Epoch::NONE
            } else {
                fence
            },
        }
    }

    /// Tells whether the policy of the owner lets it serve without a lease. It is the one in its log.
    fn needs_no_lease(&self, state: &State, place: Place) -> bool {
        match self.bounds.policy {
            Policy::Stop => false,
            Policy::Continue => true,
            Policy::ContinueThenStop => state.group(place).record.policy == LeaseLossPolicy::Continue,
        }
    }

    /// Tells whether a group may answer as the home.
    pub fn serves(&self, state: &State, place: Place) -> bool {
        let standing = self.standing(state, place);
        let record = &state.group(place).record;
        if self.is(Mutant::ServesRelinquished) && matches!(record.role, Role::Relinquished { .. }) {
            let mut owner = record.clone();
            owner.role = Role::Owner;
            return serving::check(&owner, &standing).is_ok();
        }
        serving::check(record, &standing).is_ok()
    }

    /// Commits a write at an owner, whether or not it holds a lease.
    pub(super) fn write(&self, state: &mut State, place: Place, remote: bool) -> Option<()> {
        let epoch = state.group(place).record.owned()?;
        state.used.writes += 1;
        let write = state.used.writes;
        let group = state.group_mut(place);
        let sequence = group.record.live.revision.sequence().next()?;
        let revision = Revision::new(epoch, sequence);
        group.history.push(Change { revision, write });
        group.ever |= Writes::of(write);
        group.settle_copy();
        group.pending = Some(Pending {
            write,
            revision,
            remote,
            covered: false,
        });
        state.seen.revisions.push(revision);
        if state.directory.newest().line.is_off(revision) {
            state.seen.late |= Writes::of(write);
        }
        Some(())
    }

    /// Tells whether the pending write may be acknowledged.
    pub(super) fn may_acknowledge(&self, state: &State, place: Place) -> bool {
        let group = state.group(place);
        let Some(pending) = group.pending else {
            return false;
        };
        let standing = self.standing(state, place);
        let is_checked = self.is(Mutant::AcknowledgesUnchecked)
            || serving::check_committed(&group.record, pending.revision, &standing).is_ok();
        is_checked && (!pending.remote || pending.covered)
    }

    pub(super) fn acknowledge(state: &mut State, place: Place) -> Option<()> {
        let pending = state.group_mut(place).pending.take()?;
        let write = Writes::of(pending.write);
        state.seen.acknowledged |= write;
        state.seen.violated.late |= state.seen.late.has(pending.write);
        if pending.remote {
            state.seen.remote |= write;
            // A promotion without --allow-loss had cut it before.
            let is_lost = state.seen.cut.without(state.seen.allowed).has(pending.write);
            state.seen.violated.p1 |= is_lost;
        }
        Some(())
    }

    /// Tells whether a linearizable read would show something new.
    pub(super) fn may_read(&self, state: &State, place: Place) -> bool {
        let group = state.group(place);
        let is_new = !group.history.writes().without(state.seen.shown).is_empty();
        let is_remote = self.bounds.durability != Durability::Remote
            || self.is(Mutant::ReadsBeforeRemote)
            || group.remote >= group.record.live.revision.sequence();
        is_new && is_remote && self.serves(state, place)
    }

    /// Tells whether the home may log that a follower holds more than its watermark says.
    pub(super) fn may_log_remote(&self, state: &State, home: Place, follower: Place) -> bool {
        let (owner, other) = (state.group(home), state.group(follower));
        let counts = self.counts(state, home, follower);
        let sequence = other.record.live.revision.sequence();
        counts && owner.remote < sequence && other.history.is_prefix_of(&owner.history)
    }

    pub(super) fn log_remote(state: &mut State, home: Place, follower: Place) {
        let sequence = state.group(follower).record.live.revision.sequence();
        state.group_mut(home).remote = sequence;
    }

    /// Tells whether acknowledgements of a follower count at this home: attached to it, in its epoch, and counted.
    pub(super) fn counts(&self, state: &State, home: Place, follower: Place) -> bool {
        let (owner, other) = (&state.group(home).record, &state.group(follower).record);
        let is_attached = other
            .session
            .is_some_and(|session| session.home == home.id() && session.epoch == owner.epoch && session.attached);
        let is_counted = !owner.uncounted.contains(&follower.id()) || self.is(Mutant::CountsUncounted);
        let feeds = matches!(owner.role, Role::Owner | Role::Relinquished { .. });
        feeds && is_attached && is_counted && !other.suspect && other.home() == Some(home.id())
    }

    /// Counts what a follower holds for the write that its home has pending.
    pub(super) fn cover(&self, state: &mut State, home: Place, follower: Place) {
        if !self.counts(state, home, follower) {
            return;
        }
        let reached = state.group(follower).record.live.revision.sequence();
        let holds = |pending: &Pending| state.group(follower).history.holds(pending.revision);
        let covers = state.group(home).pending.is_some_and(|pending| {
            pending.remote && !pending.covered && pending.revision.sequence() <= reached && holds(&pending)
        });
        if covers && let Some(pending) = &mut state.group_mut(home).pending {
            pending.covered = true;
        }
    }

    /// Returns the remote watermark of a new owner: nothing is remote.
    pub(super) fn first_remote(&self, group: &Group) -> Sequence {
        if self.is(Mutant::OwnerStartsRemote) {
            group.record.live.revision.sequence()
        } else {
            Sequence::ZERO
        }
    }

    /// Returns a replica's answer to a token.
    pub fn token(&self, state: &State, place: Place, revision: Revision) -> TokenAnswer {
        let group = state.group(place);
        if group.record.role == Role::Erased {
            return TokenAnswer::Wait;
        }
        let view = &state.view(place).tenant;
        let is_cut = match view.lineage.status_of(revision) {
            RevisionStatus::OnLineage if revision.epoch() > view.epoch => self.is(Mutant::UnknownEpochIsCut),
            RevisionStatus::OnLineage => false,
            RevisionStatus::Cut { .. } | RevisionStatus::TooOld => true,
        };
        if is_cut {
            return TokenAnswer::Forked;
        }
        let holds = if self.is(Mutant::TokenWithoutEpoch) {
            group.record.live.revision.sequence() >= revision.sequence()
        } else {
            group.history.holds(revision)
        };
        if holds { TokenAnswer::Serve } else { TokenAnswer::Wait }
    }
}
