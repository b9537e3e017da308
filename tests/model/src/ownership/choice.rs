//! Operators and the directory: moves, promotions, members that leave, the lease loss policy.
//!
//! The directory's decisions are those of `stead_state::directory`: its transitions, when a wait is over, and which group a
//! promotion may choose.

use std::collections::BTreeMap;

use stead_state::{
    directory::{
        Choice, Consultation, FrozenReport, LeaseLoss, MemberState, MoveState, RemoteFloor, ReplicaSetMember,
        SourceAfterMove, Tenant, TenantState, choose, is_fenced_by_logs,
        ownership::{
            self, Activation, GroupFrozen, MemberRejoined, MemberUncounted, MoveAccepted, MovePlan, MoveRefused,
            PromotionActivated, PromotionPlan, StopLogged,
        },
    },
    shard::{
        command::SetLeaseLossPolicy,
        ownership::{FreezeReport, freeze_report, set_lease_loss_policy},
        record::{LeaseLossPolicy, PreviousRole, Role},
    },
};
use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, Sequence, TenantTime};

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
        let replaced = next.promotion().map(|(operation, _)| operation);
        let plan = PromotionPlan {
            replace: replaced,
            of: 0,
            fence: DirectoryVersion::ZERO,
            time: 0,
        };
        let promotion = ownership::promote(&mut next.tenant, &plan).ok()?;
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

    /// Tells whether the fence is in the log of every group that could own an epoch below it.
    fn is_fenced_by_logs(&self, state: &State) -> bool {
        let tenant = &state.directory.newest().tenant;
        is_fenced_by_logs(tenant, &self.reports(state, tenant))
    }

    /// Tells whether no group serves below the fence any more.
    pub(super) fn is_quiesced(&self, state: &State) -> bool {
        state.directory.wait == 0
            || self.bounds.policy == Policy::Continue
            || self.is(Mutant::PromotionDoesNotWait)
            || self.is(Mutant::ChoosesBeforeWait)
            || self.is_fenced_by_logs(state)
    }

    pub(super) fn end_wait(&self, state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let (operation, _) = next.promoting()?;
        ownership::begin_freezing(&mut next.tenant, operation).ok()?;
        state.directory_mut().commit(next);
        Some(())
    }

    /// Returns what frozen groups report.
    fn reports(&self, state: &State, tenant: &Tenant) -> BTreeMap<GroupId, FrozenReport> {
        let frozen = Place::all().filter(|place| self.is_frozen(state, *place));
        let mut reports: BTreeMap<GroupId, FrozenReport> = frozen
            .filter_map(|place| {
                let group = state.group(place);
                let mut report = freeze_report(&group.record)?;
                report.revision = group.reported;
                if self.is(Mutant::EmptyCopyIsHistory) {
                    report.forked_up_to = Sequence::ZERO;
                }
                Some((place.id(), fresh(report)))
            })
            .collect();
        if self.is(Mutant::FenceOfHomeIsEnough)
            && let Some(home) = reports.get_mut(&tenant.home)
        {
            home.report.previous = PreviousRole::Owner;
        }
        reports
    }

    /// Adds to the reports what mutants take for one.
    fn believe(&self, state: &State, chosen: Place, reports: &mut BTreeMap<GroupId, FrozenReport>) {
        let home = state.directory.newest().home();
        if self.is(Mutant::HomeNotDrained) && chosen != home {
            reports.remove(&home.id());
        }
        let Some(own) = reports.get(&chosen.id()).cloned() else {
            return;
        };
        for place in Place::all().filter(|place| *place != home && !self.is_frozen(state, *place)) {
            let revision = if self.is(Mutant::ComparesEarlierPositions) {
                let earlier = u64::from(state.seen.earlier[usize::from(place.0)]);
                let sequence = Sequence::new(earlier).expect("a small number");
                Revision::new(own.report.revision.epoch(), sequence)
            } else if self.is(Mutant::ConsultsWithoutFreeze) {
                state.group(place).record.live.revision
            } else {
                continue;
            };
            let mut believed = own.clone();
            believed.report.revision = revision;
            believed.report.forked_up_to = Sequence::ZERO;
            reports.insert(place.id(), believed);
        }
    }

    /// Returns what the directory decides where a group is the only one that may be the new home. Groups that have not
    /// reported do not answer.
    fn decide(&self, state: &State, chosen: Place, with_loss: bool) -> Choice {
        let newest = state.directory.newest();
        let mut tenant = newest.tenant.clone();
        if self.is(Mutant::ForgetsGoneMembers) {
            tenant.remote_floor = RemoteFloor::default();
        }
        let mut reports = self.reports(state, &tenant);
        self.believe(state, chosen, &mut reports);
        let ids = || Place::all().map(Place::id);
        let was_home = |place: Place| {
            let owns = state.group(place).record.role == Role::Owner;
            self.is(Mutant::ConsultsPart) || owns && self.is(Mutant::ExcusesFormerHome)
        };
        let excused = Place::all().filter(|place| *place == newest.home() || was_home(*place));
        choose(&Consultation {
            tenant: &tenant,
            silent: &ids().filter(|group| !reports.contains_key(group)).collect(),
            reports: &reports,
            home_region: &excused.map(Place::id).collect::<Vec<_>>(),
            targets: &[chosen.id()],
            allow_loss: with_loss,
        })
    }

    /// Tells whether the directory may choose a group.
    pub(super) fn may_choose(&self, state: &State, chosen: Place, with_loss: bool) -> bool {
        if !self.is_frozen(state, chosen) || with_loss && !self.bounds.allows_loss {
            return false;
        }
        matches!(self.decide(state, chosen, with_loss), Choice::Activate(_))
    }

    /// Tells whether a frozen group may take over what another one has more: the one with the longest history, of which the
    /// directory names the first.
    pub(super) fn may_pull(&self, state: &State, place: Place, source: Place) -> bool {
        if !self.is_frozen(state, place) || !self.is_frozen(state, source) {
            return false;
        }
        let ordered = |with_loss| match self.decide(state, place, with_loss) {
            Choice::Pull { from, .. } => Some(Place::of(from)),
            Choice::Wait(_) | Choice::Blocked(_) | Choice::Activate(_) => None,
        };
        let from = ordered(false).or_else(|| ordered(true).filter(|_| self.bounds.allows_loss));
        from.is_some_and(|from| state.group(from).reported == state.group(source).reported)
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
            kept,
            time: TenantTime::default(),
        };
        let from = chosen.id();
        ownership::record_frozen(&mut next.tenant, &GroupFrozen { from, operation, epoch }).ok()?;
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

    /// Records that the new home owns the tenant.
    pub(super) fn record_activated(state: &mut State) -> Option<()> {
        let mut next = state.directory.newest().clone();
        let (operation, _) = next.promotion()?;
        let home = next.home();
        let activated = PromotionActivated {
            from: home.id(),
            operation,
            epoch: state.group(home).record.owned()?,
        };
        ownership::record_activated(&mut next.tenant, &activated).ok()?;
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

/// Returns a report of a copy that was proved fresh: an empty one is the tenant's whole history then.
fn fresh(report: FreezeReport) -> FrozenReport {
    FrozenReport {
        report,
        fresh_as_of: Some(0),
        time: 0,
    }
}
