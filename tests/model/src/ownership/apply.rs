//! Apply of entries about ownership: the transitions of `stead_state::shard::ownership`, and what becomes of the
//! history, which the model keeps instead of rows.

use stead_state::{
    directory::TenantState,
    shard::{
        apply_result::GuardFailure,
        command::{PullHeader, Relinquish},
        ownership::{self, Cut, EntryStamp},
        record::{AttachSession, PreviousRole, Role},
    },
};
use stead_types::{Epoch, GroupId, Incarnation, Revision, Sequence};

use super::{
    Ownership,
    directory::version,
    entry::{Command, Kind, Proposal},
    mutant::Mutant,
    properties::kept_on,
    state::{Group, Place, State, TENANT},
    writes::Writes,
};

/// Stamp of every entry: time and log indexes are not part of this model.
pub(super) const STAMP: EntryStamp = EntryStamp { index: 0, time: 0 };

impl Ownership {
    /// Applies an entry; `None` if it is void, or stands for nothing.
    #[expect(clippy::too_many_lines, reason = "one arm for each entry of the table")]
    pub(super) fn apply(&self, state: &mut State, place: Place, proposal: Proposal) -> Option<()> {
        let command = proposal.command(state)?;
        let before = state.group(place).record.promised;
        if self.is_unguarded(proposal.kind) {
            let home = state.directory.at(proposal.version).tenant.home;
            loosen(state.group_mut(place), home, &command);
        }
        let me = place.id();
        let rewinds = self.bounds.rewinds;
        let group = state.group_mut(place);
        let history = group.history.clone();
        let revision_at = |sequence: Sequence| {
            let index = usize::try_from(sequence.get()).ok()?.checked_sub(1)?;
            history.after(index).filter(|_| rewinds).map(|change| change.revision)
        };
        let record = &mut group.record;
        match command {
            Command::Follow(entry) => {
                let lineage = record.lineage.clone();
                let cut = ownership::follow(record, me, &entry, &revision_at).ok()?;
                if self.is(Mutant::FollowDoesNotRewind) {
                    let live = record.forks.pop_if(|_| cut.fork.is_some()).map(|fork| fork.copy);
                    record.live = live.unwrap_or_else(|| record.live.clone());
                    record.lineage = lineage;
                } else {
                    self.cut(group, &cut);
                }
                group.forget_volatile();
            }
            Command::Freeze(mut entry) => {
                if self.is(Mutant::FreezeDoesNotRewind) {
                    entry.lineage = record.lineage.clone();
                }
                let cut = ownership::freeze(record, &entry, STAMP, &revision_at).ok()?;
                self.cut(group, &cut);
                if self.is(Mutant::FreezeCutsUnrecorded) {
                    self.cut_unrecorded(group, &entry.lineage);
                }
                group.forget_volatile();
            }
            Command::Activate(entry) => {
                let done = ownership::activate(record, me, &entry, STAMP, &revision_at).ok()?;
                self.cut(group, &done.cut);
                group.remote = self.first_remote(group);
            }
            Command::Relinquish(entry) => self.relinquish(state, place, &entry)?,
            Command::Refuse(entry) => {
                ownership::refuse(record, &entry).ok()?;
                group.ready = None;
            }
            Command::Heir(entry) => ownership::heir(record, me, &entry).ok()?,
            Command::CancelHeir(mut entry) => {
                if self.is(Mutant::HeirCancelledByOlderView) {
                    entry.last_operation = entry.operation;
                }
                ownership::cancel_heir(record, &entry).ok()?;
            }
            Command::Uncount(entry) => {
                ownership::uncount(record, &entry).ok()?;
                group.uncounted_at = record.live.revision.sequence();
            }
            Command::Count(entry) => ownership::count(record, &entry).ok()?,
            Command::Rejoin(entry) => ownership::rejoin(record, &entry).ok()?,
            Command::Erase(mut entry) => {
                if self.is(Mutant::ErasesByOlderView) {
                    entry.version = entry.version.max(record.view_version);
                }
                if self.is(Mutant::ErasesBeforeFollowing) {
                    entry.recorded = None;
                }
                // The operator has exported or discarded the forks by name.
                entry.forks = record.forks.iter().map(|fork| fork.copy.number).collect();
                ownership::erase(record, &entry).ok()?;
                let (held, stored) = (group.history.writes(), group.stored);
                group.history.cut(Sequence::ZERO);
                group.ever = Writes::NONE;
                group.stored = Writes::NONE;
                group.forked = Writes::NONE;
                self.judge_erase(state, held, stored);
            }
        }
        let group = state.group_mut(place);
        group.settle_copy();
        let is_frozen = matches!(group.record.role, Role::Frozen { .. });
        group.reported = if is_frozen {
            group.record.live.revision
        } else {
            Revision::ZERO
        };
        group.record.promised = group.record.promised.max(before);
        Some(())
    }

    /// Notes what an erase discards: forks are named, but what is live and was cut is in no fork, unless another group
    /// has it.
    fn judge_erase(&self, state: &mut State, held: Writes, stored: Writes) {
        let is_deleted = state.directory.newest().tenant.state == TenantState::Deleting;
        let kept = state
            .groups()
            .fold(stored, |all, (_, group)| all | group.history.writes() | group.stored);
        let lost = (held & state.off()).without(kept | state.seen.discarded);
        state.seen.violated.p2 |= !is_deleted && !lost.is_empty();
        state.seen.discarded |= stored;
    }

    fn relinquish(&self, state: &mut State, place: Place, entry: &Relinquish) -> Option<()> {
        let group = state.group_mut(place);
        ownership::relinquish(&mut group.record, place.id(), entry, STAMP).ok()?;
        group.ready = None;
        let last = group.record.live.revision.sequence();
        state.seen.begins.insert(entry.epoch, last);
        Some(())
    }

    /// Copies what another frozen group holds beyond this one.
    pub(super) fn pull(&self, state: &mut State, place: Place, source: Place) -> Option<()> {
        let (operation, epoch) = state.directory.newest().promoting()?;
        let from = state.group(source).clone();
        let group = state.group_mut(place);
        let lineage = group.record.lineage.clone();
        let entry = PullHeader {
            tenant: TENANT,
            version: version(group.view),
            operation,
            epoch,
            from: source.id(),
            after: group.record.live.revision,
            last: from.record.live.revision,
            lineage: from.record.lineage.clone(),
        };
        match ownership::pull(&mut group.record, &entry) {
            Ok(()) => {}
            Err(GuardFailure::Diverged) => {
                state.seen.violated.diverge = true;
                return Some(());
            }
            Err(_) => return None,
        }
        if !group.history.is_prefix_of(&from.history) {
            state.seen.violated.diverge = true;
            return Some(());
        }
        if self.is(Mutant::PullKeepsLineage) {
            group.record.lineage = lineage;
        }
        group.history = from.history;
        group.ever |= group.history.writes();
        group.settle_copy();
        group.reported = group.record.live.revision;
        Some(())
    }

    /// Takes from the history what a transition took from service.
    fn cut(&self, group: &mut Group, cut: &Cut) {
        if cut.fork.is_none() {
            return;
        }
        let held = group.history.writes();
        let point = group.record.forks.last().map_or(Sequence::ZERO, |fork| fork.point);
        let tail = group.history.cut(point);
        if !self.is(Mutant::ForkDropped) {
            group.forked |= tail;
            group.stored |= held;
        }
        if cut.rewound_to.is_none() {
            group.history.cut(Sequence::ZERO);
        }
    }

    /// Cuts what a lineage does not know, unrecorded moves included.
    fn cut_unrecorded(&self, group: &mut Group, lineage: &stead_state::lineage::Lineage) {
        let recorded = lineage.epoch();
        let unrecorded = group
            .history
            .changes()
            .iter()
            .position(|change| change.revision.epoch() > recorded);
        let on = kept_on(lineage, group).get();
        let kept = unrecorded.map_or(on, |first| on.min(first as u64));
        let held = group.history.writes();
        group.forked |= group.history.cut(Sequence::new(kept).expect("a few writes"));
        group.stored |= held;
    }

    fn is_unguarded(&self, kind: Kind) -> bool {
        self.mutant.is_some_and(|mutant| match kind {
            Kind::Follow => matches!(mutant, Mutant::FollowUnguarded | Mutant::FollowsLowerEpoch),
            Kind::Freeze => mutant == Mutant::FreezeUnguarded,
            Kind::Relinquish => matches!(mutant, Mutant::RelinquishUnguarded | Mutant::RefusalForgotten),
            Kind::Activate => matches!(mutant, Mutant::ActivateUnguarded | Mutant::ActivatesOther),
            Kind::Heir => mutant == Mutant::HeirUnguarded,
            Kind::CancelHeir => mutant == Mutant::HeirCancelledByOlderView,
            Kind::Refuse | Kind::Uncount | Kind::Count | Kind::Rejoin | Kind::Erase => false,
        })
    }
}

/// Changes a record so that the guard of a command holds: what a product without the guard would do.
fn loosen(group: &mut Group, home: GroupId, command: &Command) {
    let record = &mut group.record;
    record.view_version = version(0);
    match command {
        Command::Follow(entry) => {
            record.epoch = record.epoch.min(before(entry.epoch));
            record.promised = record.promised.min(entry.epoch);
        }
        Command::Freeze(entry) => record.promised = before(entry.epoch),
        Command::Relinquish(entry) => {
            record.refused_up_to = Default::default();
            if matches!(
                record.role,
                Role::Frozen {
                    previous: PreviousRole::Owner,
                    ..
                }
            ) {
                record.role = Role::Owner;
            }
            record.promised = record.promised.min(before(entry.epoch));
        }
        Command::Activate(entry) => {
            if let Role::Frozen { operation, .. } = record.role {
                record.role = Role::Frozen {
                    operation,
                    epoch: entry.epoch,
                    previous: PreviousRole::None,
                };
                record.promised = entry.epoch;
            }
        }
        Command::Heir(entry) => {
            if matches!(
                record.role,
                Role::Frozen {
                    previous: PreviousRole::Follower,
                    ..
                }
            ) {
                record.role = Role::Follower { home };
                record.session = Some(AttachSession {
                    home,
                    incarnation: Incarnation::FIRST,
                    epoch: entry.recorded_epoch,
                    number: record.attach,
                    attached: true,
                });
            }
            record.epoch = entry.recorded_epoch;
            record.promised = entry.recorded_epoch;
        }
        Command::CancelHeir(_)
        | Command::Refuse(_)
        | Command::Uncount(_)
        | Command::Count(_)
        | Command::Rejoin(_)
        | Command::Erase(_) => {}
    }
}

fn before(epoch: Epoch) -> Epoch {
    Epoch::new(epoch.get().saturating_sub(1)).unwrap_or(Epoch::NONE)
}
