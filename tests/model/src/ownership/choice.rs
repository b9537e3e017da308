//! Operators and the directory: moves, promotions, members that leave, the lease loss policy.
//!
//! The directory's decisions are those of `stead_state::directory::ownership`. Which group a promotion may choose, and
//! when, is decided here as docs/protocol.md says, because nothing in the product decides it yet.

use stead_state::{
    directory::{
        LeaseLoss, MemberState, MoveState, ReplicaSetMember, SourceAfterMove, TenantState,
        ownership::{
            self, Activation, MemberRejoined, MemberUncounted, MoveAccepted, MovePlan, MoveRefused, StopLogged,
        },
    },
    shard::{
        command::SetLeaseLossPolicy,
        ownership::{forked_up_to, set_lease_loss_policy},
        record::{LeaseLossPolicy, PreviousRole, Role},
    },
};
use stead_types::{Epoch, Revision};

use super::{
    Ownership,
    bounds::{Durability, Policy},
    directory::version,
    mutant::Mutant,
    state::{Place, State, TENANT},
    writes::{Line, Writes},
};

impl Ownership {
    pub(super) fn plan(&self, state: &mut State, to: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let plan = MovePlan {
            to: to.id(),
            source: if self.bounds.source_leaves {
                SourceAfterMove::Leave
            } else {
                SourceAfterMove::Follow
            },
            time: 0,
        };
        ownership::plan_move(&mut next.tenant, &plan).ok()?;
        state.used.moves += 1;
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn abort(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let operation = next
            .moving()
            .filter(|moving| moving.state == MoveState::Moving)?
            .operation;
        ownership::abort_move(&mut next.tenant, operation).ok()?;
        state.used.aborts += 1;
        state.directory_mut().commit(next);
        Some(())
    }

    /// Records the home's refusal of the move that is being given up.
    pub(super) fn record_refused(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let operation = next.moving()?.operation;
        let home = next.home();
        let record = &state.group(home).record;
        let is_refused = record.role == Role::Owner && operation <= record.refused_up_to;
        if !is_refused && !self.is(Mutant::AbortForgetsMove) {
            return None;
        }
        let refused = MoveRefused {
            from: home.id(),
            operation,
        };
        ownership::record_refused(&mut next.tenant, &refused).ok()?;
        state.directory_mut().commit(next);
        Some(())
    }

    /// Records that a group has accepted the baton.
    pub(super) fn record_accepted(&self, state: &mut State, from: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let epoch = state.group(from).record.owned()?;
        let accepted = next.moving().map(|moving| MoveAccepted {
            from: from.id(),
            operation: moving.operation,
            epoch,
        });
        let recorded = accepted.and_then(|accepted| ownership::record_accepted(&mut next.tenant, &accepted).ok());
        if recorded.is_none() {
            let is_other = epoch != Epoch::FIRST && epoch != next.tenant.epoch;
            if !is_other || next.moving().is_some() || !self.is(Mutant::RecordsAnyMove) {
                return None;
            }
            next.tenant.promoting = None;
            next.tenant.home = from.id();
            next.tenant.epoch = epoch;
            next.tenant.fence_epoch = next.tenant.fence_epoch.max(epoch);
            next.tenant.lineage.record_move(epoch);
        }
        next.line.begin(epoch, *state.seen.begins.get(&epoch)?);
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn promote(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let asserted = next.tenant.on_lease_loss != LeaseLoss::Stop;
        if self.is(Mutant::PromotionReusesEpoch) {
            next.tenant.last_epoch = next.tenant.epoch;
        }
        let replaced = next.promoting().map(|(operation, _)| operation);
        let promotion = ownership::promote(&mut next.tenant, replaced, 0).ok()?;
        state.used.promotions += 1;
        state.seen.asserted |= asserted;
        state.seen.fences.insert(promotion.epoch, 1);
        for place in Place::all().filter(|_| self.is(Mutant::ComparesEarlierPositions)) {
            state.seen.earlier[usize::from(place.0)] = state.group(place).history.len() as u8;
        }
        let directory = state.directory_mut();
        directory.commit(next);
        let does_not_wait = self.is(Mutant::SecondDoesNotWait) && state.used.promotions > 1;
        state.directory_mut().wait = u8::from(!does_not_wait);
        Some(())
    }

    /// Tells whether a group is frozen for the promotion in flight: its report is with the directory.
    fn is_frozen(&self, state: &State, place: Place) -> bool {
        let Some((_, promoted)) = state.directory.newest().promoting() else {
            return false;
        };
        let role = state.group(place).record.role;
        matches!(role, Role::Frozen { epoch, .. } if epoch == promoted)
    }

    /// Tells whether the fence is in the log of every group that could own an epoch below it: the recorded home and, if
    /// that has relinquished, the group that it handed over to.
    fn is_fenced_by_logs(&self, state: &State) -> bool {
        let home = state.directory.newest().home();
        if !self.is_frozen(state, home) {
            return false;
        }
        let Role::Frozen {
            previous: PreviousRole::Relinquished(to),
            ..
        } = state.group(home).record.role
        else {
            return true;
        };
        self.is(Mutant::FenceOfHomeIsEnough) || self.is_frozen(state, Place::of(to))
    }

    /// Tells whether no group serves below the fence any more.
    fn is_quiesced(&self, state: &State) -> bool {
        state.directory.wait == 0
            || self.bounds.policy == Policy::Continue
            || self.is(Mutant::PromotionDoesNotWait)
            || self.is_fenced_by_logs(state)
    }

    /// Tells whether the directory may choose a group.
    pub(super) fn may_choose(&self, state: &State, chosen: Place, with_loss: bool) -> bool {
        if !self.is_frozen(state, chosen) || !(self.is_quiesced(state) || self.is(Mutant::ChoosesBeforeWait)) {
            return false;
        }
        if with_loss {
            return self.bounds.allows_loss;
        }
        let home = state.directory.newest().home();
        let mut is_longest =
            self.reaches_what_was_held(state, chosen, chosen) && self.reaches_remote_floor(state, chosen);
        let mut are_all_frozen = true;
        for other in chosen
            .others()
            .filter(|other| state.directory.newest().is_consulted(*other))
        {
            let is_home = other == home;
            if self.is_frozen(state, other) {
                is_longest &= !self.is_longer(state, other, chosen) || is_home && self.is(Mutant::HomeNotDrained);
                is_longest &= self.reaches_what_was_held(state, other, chosen);
            } else if !is_home {
                if self.is(Mutant::ComparesEarlierPositions) {
                    let earlier = usize::from(state.seen.earlier[usize::from(other.0)]);
                    is_longest &= earlier <= state.group(chosen).history.len();
                } else if self.is(Mutant::ConsultsWithoutFreeze) {
                    is_longest &= !self.is_longer(state, other, chosen);
                } else {
                    are_all_frozen = false;
                }
            }
        }
        let is_drained = self.is_fenced_by_logs(state);
        is_longest && (are_all_frozen || is_drained || self.is(Mutant::ConsultsPart))
    }

    /// Tells whether a group's history is longer than that of another, by epoch and revision.
    fn is_longer(&self, state: &State, one: Place, other: Place) -> bool {
        let end = |place: Place| -> Revision {
            let group = state.group(place);
            if self.is_frozen(state, place) {
                group.reported
            } else {
                group.record.live.revision
            }
        };
        end(one) > end(other)
    }

    /// Tells whether the chosen group's history reaches what another once held of the recorded line and holds only in a
    /// fork: a copy that became one as a whole is empty until it is seeded, and its position says nothing.
    fn reaches_what_was_held(&self, state: &State, other: Place, chosen: Place) -> bool {
        let once = forked_up_to(&state.group(other).record);
        let reached = state.group(chosen).record.live.revision.sequence();
        self.is(Mutant::EmptyCopyIsHistory) || once <= reached
    }

    /// Tells whether a group's history reaches what was acknowledged on account of members that are gone.
    fn reaches_remote_floor(&self, state: &State, chosen: Place) -> bool {
        let floor = state.directory.newest().tenant.remote_floor.sequence();
        self.is(Mutant::ForgetsGoneMembers) || floor <= state.group(chosen).record.live.revision.sequence()
    }

    /// Tells whether a frozen group may copy from another one.
    pub(super) fn may_pull(&self, state: &State, place: Place, source: Place) -> bool {
        let both = self.is_frozen(state, place) && self.is_frozen(state, source);
        both && self.is_longer(state, source, place)
    }

    pub(super) fn choose(&self, state: &mut State, chosen: Place, with_loss: bool) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let (operation, epoch) = next.promoting()?;
        let group = state.group(chosen);
        let kept = group.record.live.revision;
        let own = group.record.lineage.clone();
        let activation = Activation {
            operation,
            home: chosen.id(),
            lineage: if self.is(Mutant::DirectoryKeepsLineage) {
                next.tenant.lineage.clone()
            } else {
                own
            },
            kept: kept.sequence(),
        };
        ownership::activate(&mut next.tenant, &activation).ok()?;
        next.kept = kept;
        next.line = Line::of(&group.history);
        next.line.begin(epoch, kept.sequence());
        let held = group.history.writes();
        let proven = group.proven;
        self.judge(state, held, proven, with_loss);
        state.seen.begins.insert(epoch, kept.sequence());
        state.directory_mut().commit(next);
        Some(())
    }

    /// Notes what a choice cuts, and whether it may.
    fn judge(&self, state: &mut State, held: Writes, proven: Writes, with_loss: bool) {
        let is_drained = self.is_fenced_by_logs(state);
        let seen = &mut state.seen;
        let missing = Writes::first(state.used.writes).without(held);
        let cut = missing.without(seen.cut | seen.late);
        let lost = |writes: Writes| !with_loss && !(cut & writes).is_empty();
        seen.violated.p1 |= lost(seen.remote);
        seen.violated.p1 |= self.bounds.durability == Durability::Remote && lost(seen.shown);
        seen.violated.p1 |= is_drained && lost(seen.acknowledged);
        seen.violated.p3 |= !(cut & seen.acknowledged & proven).is_empty();
        seen.violated.resurrect |= !(seen.cut & held).is_empty();
        seen.cut |= missing.without(seen.late);
        if with_loss {
            seen.allowed |= cut;
        }
    }

    pub(super) fn leave(&self, state: &mut State, member: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        ownership::leave(&mut next.tenant, member.id()).ok()?;
        state.used.left += 1;
        state.directory_mut().commit(next);
        Some(())
    }

    /// Records that the home has uncounted a leaving member and a staying follower holds all up to there.
    pub(super) fn record_uncounted(&self, state: &mut State, member: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        if next.member(member) != Some(MemberState::Leaving) {
            return None;
        }
        let home = next.home();
        let owner = state.group(home);
        let record = &owner.record;
        let mut staying = Place::all()
            .filter(|place| *place != home && next.tenant.has(place.id()))
            .peekable();
        let none_stays = staying.peek().is_none();
        let holds = |place: Place| {
            let other = state.group(place);
            let has_all = other.record.live.revision.sequence() >= owner.uncounted_at;
            self.counts(state, home, place) && has_all && other.history.is_prefix_of(&owner.history)
        };
        let is_uncounted = record.owned().is_some() && record.uncounted.contains(&member.id());
        if self.is(Mutant::LeavesInOnePhase) {
            for found in next
                .tenant
                .members
                .iter_mut()
                .filter(|found| found.group == member.id())
            {
                found.state = MemberState::Erasing;
            }
        } else {
            if !is_uncounted || !(none_stays || staying.any(holds)) {
                return None;
            }
            let uncounted = MemberUncounted {
                from: home.id(),
                epoch: record.epoch,
                group: member.id(),
                version: record.view_version,
                revision: record.live.revision,
            };
            ownership::record_uncounted(&mut next.tenant, &uncounted).ok()?;
        }
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn record_erased(&self, state: &mut State, member: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        if state.group(member).record.role != Role::Erased {
            return None;
        }
        ownership::record_erased(&mut next.tenant, member.id()).ok()?;
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn take_back(&self, state: &mut State, member: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        ownership::take_back(&mut next.tenant, member.id()).ok()?;
        state.used.left += 1;
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn take_in(&self, state: &mut State, group: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        if next.tenant.member(group.id()).is_some() {
            return None;
        }
        let mut members = next.tenant.members.to_vec();
        members.push(ReplicaSetMember::staying(group.id()));
        members.sort_unstable_by_key(|member| member.group);
        next.tenant.members = members.into();
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn record_rejoined(&self, state: &mut State, member: Place) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let rejoined = MemberRejoined {
            from: member.id(),
            version: state.group(member).record.view_version,
        };
        ownership::record_rejoined(&mut next.tenant, &rejoined).ok()?;
        state.directory_mut().commit(next);
        Some(())
    }

    /// Disables the tenant: no group may serve it at any epoch, once the wait has passed.
    pub(super) fn disable(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        next.tenant.state = TenantState::Disabled;
        state.seen.fences.insert(Epoch::MAX, 1);
        state.directory_mut().commit(next);
        Some(())
    }

    /// Deletes the tenant: operations end, and every member must erase it.
    pub(super) fn delete(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        next.tenant.state = TenantState::Deleting;
        next.tenant.moving = None;
        next.tenant.promoting = None;
        for member in &mut next.tenant.members {
            member.state = MemberState::Erasing;
        }
        state.directory_mut().commit(next);
        Some(())
    }

    pub(super) fn change_policy(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        if self.is(Mutant::PolicyAtOnce) {
            next.tenant.on_lease_loss = LeaseLoss::Stop;
        } else {
            ownership::set_lease_loss(&mut next.tenant, LeaseLossPolicy::Stop);
        }
        state.directory_mut().commit(next);
        Some(())
    }

    /// Logs `stop` at an owner whose view shows that it is asked for.
    pub(super) fn log_policy(&self, state: &mut State, place: Place) -> Option<()> {
        let group = state.group_mut(place);
        let entry = SetLeaseLossPolicy {
            tenant: TENANT,
            version: version(group.view),
            policy: LeaseLossPolicy::Stop,
        };
        set_lease_loss_policy(&mut group.record, &entry).ok()
    }

    /// Shows `stop` once the home has it in its log.
    pub(super) fn record_policy(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let from = next.home();
        let record = &state.group(from).record;
        if record.policy != LeaseLossPolicy::Stop {
            return None;
        }
        let logged = StopLogged {
            from: from.id(),
            epoch: record.owned()?,
            version: record.view_version,
        };
        ownership::record_stop_logged(&mut next.tenant, &logged).ok()?;
        state.directory_mut().commit(next);
        Some(())
    }
}
