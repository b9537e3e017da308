//! Freshness pings of the ownership model.

use stead_state::{
    serving::{self, Lease},
    shard::record::Role,
};

use super::{
    Ownership,
    mutant::Mutant,
    state::{Answer, Ping, Place, State},
    writes::Writes,
};

impl Ownership {
    pub(super) fn ping(state: &mut State, from: Place) {
        state.ping = Some(Ping {
            from,
            acknowledged: state.seen.acknowledged,
            answer: None,
        });
    }

    /// Tells whether the group that a follower pings may answer: it is pinged as a group, for all its tenants, so it may
    /// while it has a lease that counts by the full view.
    pub(super) fn may_answer_ping(&self, state: &State, from: Place) -> bool {
        let Some(home) = state.group(from).record.home().map(Place::of) else {
            return false;
        };
        let standing = self.standing(state, home);
        let mut any_tenant = state.group(home).record.clone();
        any_tenant.role = Role::Owner;
        any_tenant.epoch = standing.fence_epoch;
        standing.lease == Lease::Unbounded || serving::check(&any_tenant, &standing).is_ok()
    }

    pub(super) fn pong(state: &mut State) -> Option<()> {
        let mut ping = state.ping?;
        let home = Place::of(state.group(ping.from).record.home()?);
        let group = state.group(home);
        ping.answer = Some(Answer {
            home,
            changes: group.history.len() as u8,
            baton: group.record.role != Role::Owner,
            view: group.view,
        });
        state.ping = Some(ping);
        Some(())
    }

    /// Tells whether an answer counts for the tenant.
    pub(super) fn is_proof(&self, state: &State, from: Place, answer: &Answer) -> bool {
        let (group, view) = (state.group(from), state.view(from));
        let record = &group.record;
        let is_attached = matches!(record.role, Role::Follower { home } if home == answer.home.id())
            && record.session.is_some_and(|session| session.attached);
        let is_applied = group.history.len() >= usize::from(answer.changes);
        let tenant = &view.tenant;
        let agrees = tenant.home == answer.home.id() && tenant.epoch == record.epoch && tenant.fence() <= record.epoch;
        let by_view = group.view >= answer.view && agrees || self.is(Mutant::PingOfAnyHome);
        let by_baton = !answer.baton || self.is(Mutant::PingIgnoresBaton);
        is_attached && is_applied && by_view && by_baton
    }

    pub(super) fn prove(state: &mut State) -> Option<()> {
        let ping = state.ping.take()?;
        let must = ping.acknowledged.without(state.seen.cut);
        let held = state.group(ping.from).history.writes();
        state.seen.violated.bounded |= !must.without(held).is_empty();
        let proven: Writes = ping.acknowledged;
        state.group_mut(ping.from).proven = proven;
        Some(())
    }
}
