//! Actions that may happen in a state of the ownership model.

use stead_state::{
    directory::{LeaseLoss, MemberState, PromotionPhase, TenantState},
    shard::record::{LeaseLossPolicy, Role},
};

use super::{
    Ownership,
    action::Action,
    bounds::{Durability, Policy},
    entry::Kind,
    mutant::Mutant,
    state::{Place, State},
};

impl Ownership {
    /// Adds the actions that may happen in a state.
    pub(super) fn enabled(&self, state: &State, out: &mut Vec<Action>) {
        let timers = state.directory.wait > 0 || state.seen.fences.values().any(|left| *left > 0);
        out.extend(timers.then_some(Action::Tick));
        for place in Place::all() {
            self.enabled_at_leader(state, place, out);
            self.enabled_for_clients(state, place, out);
            self.enabled_on_feed(state, place, out);
        }
        self.enabled_for_operators(state, out);
        self.enabled_at_directory(state, out);
        if self.bounds.pings {
            self.enabled_pings(state, out);
        }
    }

    fn enabled_at_leader(&self, state: &State, place: Place, out: &mut Vec<Action>) {
        let group = state.group(place);
        if group.view < state.directory.newest_version() {
            out.push(Action::Advance(place));
        }
        if self.bounds.crashes {
            let has_lease = group.record.role == Role::Owner && group.lease < state.directory.newest_version();
            if has_lease || group.pending.is_some() || group.ready.is_some() {
                out.push(Action::Crash(place, group.view));
            }
            let older = if self.bounds.older_views { 0..group.view } else { 0..0 };
            out.extend(older.map(|view| Action::Crash(place, view)));
        }
        let mut proposals = Vec::new();
        self.proposals(state, place, &mut proposals);
        let may_propose = group.entries.len() < usize::from(self.bounds.pending_entries.max(1));
        // The log's order is not that of proposing: another leader may have proposed.
        // What is under way is proposed again; here only where a second one could do harm.
        proposals.retain(|proposal| may_propose && (proposal.kind == Kind::Erase || !group.entries.contains(proposal)));
        out.extend(proposals.into_iter().map(|proposal| Action::Propose(place, proposal)));
        out.extend((0..group.entries.len() as u8).map(|index| Action::Apply(place, index)));
    }

    fn enabled_for_clients(&self, state: &State, place: Place, out: &mut Vec<Action>) {
        let group = state.group(place);
        let is_owner = group.record.role == Role::Owner;
        if is_owner && group.pending.is_none() && state.used.writes < self.bounds.writes {
            if self.bounds.durability != Durability::Remote {
                out.push(Action::Write(place, false));
            }
            if self.bounds.durability != Durability::Region {
                out.push(Action::Write(place, true));
            }
        }
        if self.may_acknowledge(state, place) {
            out.push(Action::Acknowledge(place));
        }
        if self.bounds.reads && self.may_read(state, place) {
            out.push(Action::Read(place));
        }
        if is_owner && self.bounds.durability == Durability::Remote {
            let followers = place
                .others()
                .filter(|follower| self.may_log_remote(state, place, *follower));
            out.extend(followers.map(|follower| Action::LogRemote(place, follower)));
        }
    }

    fn enabled_on_feed(&self, state: &State, place: Place, out: &mut Vec<Action>) {
        let group = state.group(place);
        if self.may_attach(state, place).is_some() {
            out.push(Action::Attach(place));
        }
        if self.next_message(state, place).is_some() {
            out.push(Action::Send(place));
        }
        if self.overtaking_baton(state, place).is_some() {
            out.push(Action::SendBaton(place));
        }
        if group.feed.is_some() {
            out.push(Action::Receive(place));
            if self.bounds.breaks {
                out.push(Action::Break(place));
            }
        }
        if let Role::Heir { home, operation, .. } = group.record.role {
            let source = state.group(Place::of(home));
            let hears = source.record.role == Role::Owner && source.record.epoch == group.record.epoch;
            if hears && source.ready != Some(operation) {
                out.push(Action::Ready(place));
            }
        }
    }

    fn enabled_for_operators(&self, state: &State, out: &mut Vec<Action>) {
        let newest = state.directory.newest();
        let is_idle = newest.operation().is_none();
        if is_idle && state.used.moves < self.bounds.moves {
            let targets = newest.home().others();
            out.extend(targets.map(Action::Plan));
        }
        if newest.moving().is_some() && !newest.is_aborting() && state.used.aborts < self.bounds.aborts {
            out.push(Action::Abort);
        }
        let may_replace = self.bounds.replaces || newest.promotion().is_none();
        if state.used.promotions < self.bounds.promotions && may_replace {
            out.push(Action::Promote);
        }
        if is_idle && state.used.left < self.bounds.leaves {
            let staying = newest.home().others().filter(|place| newest.tenant.has(place.id()));
            out.extend(staying.map(Action::Leave));
        }
        if self.bounds.returns {
            let leaving = Place::all().filter(|place| newest.member(*place) == Some(MemberState::Leaving));
            out.extend(leaving.map(Action::TakeBack));
            let gone = Place::all().filter(|place| newest.member(*place).is_none());
            out.extend(gone.map(Action::TakeIn));
        }
        if self.bounds.deletes {
            match newest.tenant.state {
                TenantState::Active => out.push(Action::Disable),
                TenantState::Disabled => out.push(Action::Delete),
                TenantState::Deleting => {}
            }
        }
        let may_stop = newest.tenant.on_lease_loss == LeaseLoss::Continue;
        if may_stop && self.bounds.policy == Policy::ContinueThenStop {
            out.push(Action::ChangePolicy);
        }
    }

    fn enabled_at_directory(&self, state: &State, out: &mut Vec<Action>) {
        let newest = state.directory.newest();
        if newest.is_aborting() {
            out.push(Action::RecordRefused);
        }
        if newest.is_only_fenced() && self.is_quiesced(state) {
            out.push(Action::EndWait);
        }
        if let Some((_, PromotionPhase::Activating { .. })) = newest.promotion() {
            out.push(Action::RecordActivated);
        }
        for place in Place::all() {
            let record = &state.group(place).record;
            let is_new = record.role == Role::Owner && record.epoch != newest.tenant.epoch;
            if is_new && (newest.moving().is_some() || self.is(Mutant::RecordsAnyMove)) {
                out.push(Action::RecordAccepted(place));
            }
            match newest.member(place) {
                Some(MemberState::Leaving) => out.push(Action::RecordUncounted(place)),
                Some(MemberState::Erasing) => out.push(Action::RecordErased(place)),
                Some(MemberState::Returning) => out.push(Action::RecordRejoined(place)),
                Some(MemberState::Staying) | None => {}
            }
            if newest.promoting().is_some() && !newest.is_only_fenced() {
                out.extend(
                    place
                        .others()
                        .filter(|source| self.may_pull(state, place, *source))
                        .map(|source| Action::Pull(place, source)),
                );
                let without_loss = self.may_choose(state, place, false);
                if without_loss || self.may_choose(state, place, true) {
                    out.push(Action::Choose(place, !without_loss));
                }
            }
            let tenant = &state.view(place).tenant;
            let is_stopping = tenant.on_lease_loss == LeaseLoss::Stopping;
            // Again if the tenant has changed since: the directory takes no report of an older view.
            let is_old = record.policy == LeaseLossPolicy::Continue || record.view_version < tenant.version;
            if record.role == Role::Owner && is_stopping && is_old {
                out.push(Action::LogPolicy(place));
            }
        }
        let home = &state.group(newest.home()).record;
        if newest.tenant.on_lease_loss == LeaseLoss::Stopping && home.policy == LeaseLossPolicy::Stop {
            out.push(Action::RecordPolicy);
        }
    }

    fn enabled_pings(&self, state: &State, out: &mut Vec<Action>) {
        let Some(ping) = state.ping else {
            let may_ping = |place: &Place| {
                let record = &state.group(*place).record;
                matches!(record.role, Role::Follower { .. }) && record.session.is_some_and(|session| session.attached)
            };
            out.extend(Place::all().filter(may_ping).map(Action::Ping));
            return;
        };
        match ping.answer {
            None if self.may_answer_ping(state, ping.from) => out.push(Action::Pong),
            Some(answer) if self.is_proof(state, ping.from, &answer) => out.push(Action::Proof),
            None | Some(_) => {}
        }
    }
}
