//! Steps of the lease model.

use stead_state::directory::{
    SourceAfterMove,
    ownership::{self, Activation, GroupFrozen, MoveAccepted, MovePlan, PromotionActivated, PromotionPlan},
};
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, TenantTime};

use super::{
    Leases,
    mutant::Mutant,
    state::{Action, Answer, Attempt, Pair, State, Voter, VoterId},
};

fn id(place: u8) -> GroupId {
    GroupId::new(u32::from(place) + 1)
}

impl Leases {
    /// Adds the actions that may happen in a state.
    pub(super) fn enabled(&self, state: &State, out: &mut Vec<Action>) {
        out.push(Action::Tick(None));
        for voter in state.voters() {
            if self.bounds.drifts || self.is(Mutant::ClockStops) {
                out.push(Action::Tick(Some(voter)));
            }
            if state.voter(voter).view < state.newest_place() {
                out.push(Action::Advance(voter));
            }
            out.push(Action::Ask(voter));
            for (attempt, number) in state.voter(voter).attempts.iter().zip(0..) {
                if attempt.answer.is_none() {
                    let oldest = if self.is(Mutant::AnswersOlderVersion) {
                        0
                    } else {
                        state.newest_place()
                    };
                    out.extend((oldest..=state.newest_place()).map(|version| Action::Grant(voter, number, version)));
                } else {
                    out.push(Action::Receive(voter, number));
                }
            }
            if state.groups[usize::from(voter.group)].leader != voter.voter {
                out.push(Action::Elect(voter));
            }
        }
        for place in 0..self.bounds.groups {
            out.extend([Action::Plan(place), Action::Choose(place), Action::Activate(place)]);
        }
        out.extend([Action::HandOver, Action::Record, Action::Promote, Action::LowerTtl]);
        if self.bounds.changes_leader && state.wait > 0 {
            out.push(Action::ChangeLeader);
        }
        if self.bounds.recovers && !state.recovered {
            out.push(Action::Recover);
        }
    }

    /// Returns the state after an action; `None` if the action does nothing.
    pub(super) fn step(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Tick(slow) => self.tick(&mut state, slow),
            Action::Advance(voter) => state.voter_mut(voter).view += 1,
            Action::Ask(voter) => self.ask(&mut state, voter)?,
            Action::Grant(voter, number, version) => self.grant(&mut state, voter, number, version)?,
            Action::Receive(voter, number) => self.receive(&mut state, voter, number)?,
            Action::Elect(voter) => state.groups[usize::from(voter.group)].leader = voter.voter,
            Action::Plan(to) => self.plan(&mut state, to)?,
            Action::HandOver => hand_over(&mut state)?,
            Action::Record => record(&mut state)?,
            Action::Promote => self.promote(&mut state)?,
            Action::Choose(place) => choose(&mut state, place)?,
            Action::Activate(place) => activate(&mut state, place)?,
            Action::LowerTtl => self.lower_ttl(&mut state)?,
            Action::ChangeLeader => self.change_leader(&mut state),
            Action::Recover => self.recover(&mut state)?,
        }
        for voter in state.voters() {
            self.settle(&mut state, voter);
        }
        if state.wait == 0 && state.newest().tenant.promoting.is_some() {
            state.over = state.over.max(state.newest().tenant.fence_epoch);
        }
        (state != *before).then_some(state)
    }

    /// Returns the ticks that a waiter waits for a ttl.
    fn wait_for(&self, ttl: u8) -> u8 {
        let leaves_room = self.bounds.drifts && !self.is(Mutant::WaitsWithoutDrift);
        ttl + u8::from(leaves_room)
    }

    fn tick(&self, state: &mut State, slow: Option<VoterId>) {
        state.wait = state.wait.saturating_sub(1);
        state.replaced_ttl = state.replaced_ttl.saturating_sub(1);
        let longest = self.bounds.ttl;
        for id in state.voters() {
            let loses = slow == Some(id);
            let may_lose = |slipped: &mut bool| {
                let lost = loses && (!*slipped || self.is(Mutant::ClockStops));
                *slipped |= lost && !self.is(Mutant::ClockStops);
                lost
            };
            let voter = state.voter_mut(id);
            voter.granted = voter.granted.saturating_sub(1);
            for pair in [&mut voter.lease, &mut voter.pending] {
                *pair = pair.and_then(|mut pair| {
                    let lost = may_lose(&mut pair.slipped);
                    pair.left -= u8::from(!lost);
                    (pair.left > 0).then_some(pair)
                });
            }
            for attempt in &mut voter.attempts {
                let lost = may_lose(&mut attempt.slipped);
                attempt.age += u8::from(!lost);
            }
            // What is too old to give a lease is as good as lost.
            let is_kept = self.is(Mutant::CountsFromAnswer) || self.is(Mutant::CountsFromLastAttempt);
            voter
                .attempts
                .iter_mut()
                .for_each(|attempt| attempt.age = attempt.age.min(longest));
            voter.attempts.retain(|attempt| attempt.age < longest || is_kept);
        }
    }

    fn ask(&self, state: &mut State, id: VoterId) -> Option<()> {
        let most = usize::from(self.bounds.attempts);
        let voter = state.voter_mut(id);
        let begins = voter.attempts.len() < most;
        if self.is(Mutant::CountsFromLastAttempt) {
            voter.attempts.iter_mut().for_each(|attempt| attempt.age = 0);
        }
        if begins {
            voter.attempts.push(Attempt {
                age: 0,
                answer: None,
                slipped: false,
            });
        }
        (begins || self.is(Mutant::CountsFromLastAttempt)).then_some(())
    }

    fn grant(&self, state: &mut State, id: VoterId, number: u8, version: u8) -> Option<()> {
        let ttl = state.at(version).ttl;
        let fence = self.carried(state, id, version);
        let granted = self.wait_for(ttl);
        let voter = state.voter_mut(id);
        let attempt = voter.attempts.get_mut(usize::from(number))?;
        attempt.answer = Some(Answer { version, ttl, fence });
        if self.bounds.shortens && !self.is(Mutant::NotesGrantAtAnswer) {
            voter.granted = voter.granted.max(granted);
        }
        Some(())
    }

    /// Returns the fence that an answer carries: that of a tenant in whose replica set, or as whose move's target, the
    /// group stood at any version from the holder's on.
    fn carried(&self, state: &State, id: VoterId, version: u8) -> Epoch {
        let group = self::id(id.group);
        let newest = &state.at(version).tenant;
        let stood = |place: u8| {
            let tenant = &state.at(place).tenant;
            tenant.member(group).is_some() || tenant.needed_groups().any(|needed| needed == group)
        };
        let carries = if self.is(Mutant::CarriesHomedOnly) {
            newest.home == group
        } else if self.is(Mutant::CarriesNoReplaced) {
            newest.home == group || newest.moving.as_ref().is_some_and(|moving| moving.to == group)
        } else {
            (state.voter(id).view.min(version)..=version).any(stood)
        };
        if carries { newest.fence() } else { Epoch::NONE }
    }

    fn receive(&self, state: &mut State, id: VoterId, number: u8) -> Option<()> {
        let voter = state.voter_mut(id);
        if usize::from(number) >= voter.attempts.len() {
            return None;
        }
        let attempt = voter.attempts.remove(usize::from(number));
        let answer = attempt.answer?;
        let age = if self.is(Mutant::CountsFromAnswer) {
            0
        } else {
            attempt.age
        };
        let left = answer.ttl.saturating_sub(age);
        if self.bounds.shortens && self.is(Mutant::NotesGrantAtAnswer) {
            voter.granted = voter.granted.max(self.wait_for(answer.ttl));
        }
        if left == 0 {
            return Some(());
        }
        let pair = Pair {
            left,
            version: answer.version,
            fence: answer.fence,
            slipped: attempt.slipped,
        };
        if let Some(lease) = voter.lease.as_mut().filter(|_| self.is(Mutant::MergesPairs)) {
            lease.left = lease.left.max(left);
            return Some(());
        }
        let is_newest = voter.pending.is_none_or(|pending| pending.version <= pair.version);
        if is_newest {
            voter.pending = Some(pair);
        }
        Some(())
    }

    /// Makes a pending lease count once the view has reached it: the best one that counts is kept.
    fn settle(&self, state: &mut State, id: VoterId) {
        let Some(pending) = state.voter(id).pending else {
            return;
        };
        let counts = state.voter(id).view >= pending.version || self.bounds.counts_early;
        let same = state.at(state.voter(id).view).number.incarnation == state.at(pending.version).number.incarnation;
        if counts && (same || self.bounds.counts_early) {
            let voter: &mut Voter = state.voter_mut(id);
            voter.pending = None;
            let is_better = voter.lease.is_none_or(|lease| lease.left <= pending.left);
            if is_better {
                voter.lease = Some(pending);
            }
        }
    }

    fn plan(&self, state: &mut State, to: u8) -> Option<()> {
        if state.moves == self.bounds.moves {
            return None;
        }
        let mut next = state.newest().clone();
        let plan = MovePlan {
            to: id(to),
            source: SourceAfterMove::Follow,
            time: 0,
        };
        ownership::plan_move(&mut next.tenant, &plan).ok()?;
        state.moves += 1;
        state.commit(next);
        Some(())
    }

    fn promote(&self, state: &mut State) -> Option<()> {
        if state.promotions == self.bounds.promotions {
            return None;
        }
        let before = state.newest().tenant.clone();
        let mut next = state.newest().clone();
        let replaced = next.tenant.promoting.as_ref().map(|promotion| promotion.operation);
        let plan = PromotionPlan {
            replace: replaced,
            of: 0,
            fence: DirectoryVersion::ZERO,
            time: 0,
        };
        ownership::promote(&mut next.tenant, &plan).ok()?;
        state.promotions += 1;
        let in_force = if state.replaced_ttl > 0 && !self.is(Mutant::WaitsNewTtl) {
            self.bounds.ttl
        } else {
            next.ttl
        };
        state.wait = self.wait_for(in_force);
        if self.bounds.shortens {
            let owners: Vec<GroupId> = self.possible_owners(&before, &next.tenant);
            let counts = |voter: &VoterId| {
                let leads = state.groups[usize::from(voter.group)].leader == voter.voter;
                owners.contains(&id(voter.group)) && (leads || !self.is(Mutant::ShortensByLeaders))
            };
            let last = state
                .voters()
                .filter(counts)
                .map(|voter| state.voter(voter).granted)
                .max();
            state.wait = state.wait.min(last.unwrap_or(0));
        }
        state.commit(next);
        Some(())
    }

    /// Returns the groups that could own an epoch below the promotion's.
    fn possible_owners(
        &self,
        before: &stead_state::directory::Tenant,
        after: &stead_state::directory::Tenant,
    ) -> Vec<GroupId> {
        if self.is(Mutant::ShortensByHome) {
            return vec![after.home];
        }
        if self.is(Mutant::ForgetsReplacedTargets) {
            let target = before.moving.as_ref().map(|moving| moving.to);
            return target.into_iter().chain([after.home]).collect();
        }
        after.needed_groups().collect()
    }

    fn lower_ttl(&self, state: &mut State) -> Option<()> {
        if !self.bounds.lowers_ttl || state.newest().ttl == 1 {
            return None;
        }
        let mut next = state.newest().clone();
        // One such ttl, by the clock of whoever waits.
        state.replaced_ttl = self.wait_for(next.ttl);
        next.ttl = 1;
        state.commit(next);
        Some(())
    }

    fn change_leader(&self, state: &mut State) {
        let full = self.wait_for(self.bounds.ttl);
        let unknown = if self.is(Mutant::NewLeaderKnowsNoGrant) {
            0
        } else {
            full
        };
        for voter in state.voters().filter(|_| self.bounds.shortens) {
            state.voter_mut(voter).granted = unknown;
        }
        if self.is(Mutant::NewLeaderKnowsNoGrant) {
            state.wait = 0;
        } else {
            state.wait = full;
        }
    }

    /// Begins a new incarnation of the directory, which has lost its last two versions.
    fn recover(&self, state: &mut State) -> Option<()> {
        let kept = state.versions.len().checked_sub(3)?;
        let mut next = state.versions[kept].as_ref().clone();
        // Every epoch counter is raised above what any group reports.
        next.tenant.last_epoch = state.newest().tenant.last_epoch;
        next.tenant.op = state.newest().tenant.op;
        next.number.incarnation = Incarnation(next.number.incarnation.0 + 1);
        state.recovered = true;
        state.wait = self.wait_for(self.bounds.ttl);
        state.commit(next);
        Some(())
    }
}

/// Hands the tenant over: the source's leader has a view of the move, the target accepts.
fn hand_over(state: &mut State) -> Option<()> {
    let (source, moving) = state.groups.iter().zip(0_u8..).find_map(|(group, place)| {
        let view = &state.at(group.voters[usize::from(group.leader)].view).tenant;
        let moving = view.moving.as_deref().filter(|_| view.home == id(place))?;
        (group.owns == Some(view.epoch)).then_some((place, *moving))
    })?;
    let target = moving.to.get() as usize - 1;
    if state.groups[target].owns.is_some_and(|owned| owned >= moving.epoch) {
        return None;
    }
    state.groups[usize::from(source)].owns = None;
    state.groups[target].owns = Some(moving.epoch);
    Some(())
}

fn record(state: &mut State) -> Option<()> {
    let mut next = state.newest().clone();
    let moving = *next.tenant.moving.as_deref()?;
    let owns = state.groups[moving.to.get() as usize - 1].owns;
    let accepted = MoveAccepted {
        from: moving.to,
        operation: moving.operation,
        epoch: owns?,
    };
    ownership::record_accepted(&mut next.tenant, &accepted).ok()?;
    state.commit(next);
    Some(())
}

fn choose(state: &mut State, place: u8) -> Option<()> {
    let mut next = state.newest().clone();
    let promotion = next.tenant.promoting.as_ref()?;
    let (operation, epoch) = (promotion.operation, promotion.epoch);
    if state.wait > 0 {
        return None;
    }
    let from = id(place);
    let frozen = GroupFrozen { from, operation, epoch };
    let activation = Activation {
        operation,
        home: from,
        lineage: next.tenant.lineage.clone(),
        kept: Revision::ZERO,
        time: TenantTime::default(),
    };
    // Who freezes when makes no difference to leases: the chosen group reports at once, and the outcome is known at once.
    ownership::record_frozen(&mut next.tenant, &frozen).ok()?;
    ownership::begin_freezing(&mut next.tenant, operation).ok()?;
    ownership::activate(&mut next.tenant, &activation).ok()?;
    let activated = PromotionActivated { from, operation, epoch };
    ownership::record_activated(&mut next.tenant, &activated).ok()?;
    state.commit(next);
    Some(())
}

/// Makes the chosen group the owner, as one of its voters' views shows.
fn activate(state: &mut State, place: u8) -> Option<()> {
    let group = &state.groups[usize::from(place)];
    let view = &state.at(group.voters[usize::from(group.leader)].view).tenant;
    let is_new = view.home == id(place) && group.owns.is_none_or(|owned| owned < view.epoch);
    let epoch = view.epoch;
    is_new.then(|| state.groups[usize::from(place)].owns = Some(epoch))
}
