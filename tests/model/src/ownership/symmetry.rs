//! Symmetry of the groups: states that differ only in the names of groups are one.
//!
//! Groups are put in an order that does not depend on their names. Where two are equal in it their order stays as it
//! is, so that a state may have more than one form: that costs states, not soundness.

use std::sync::Arc;

use stead_state::{
    directory::{Tenant, TenantMove},
    shard::record::{PreviousRole, Role, TenantRecord},
};
use stead_types::GroupId;

use super::{
    directory::Register,
    entry::Kind,
    state::{Content, GROUPS, Group, Place, State},
};

/// New places of the groups.
struct Renaming([Place; GROUPS]);

/// Puts the groups of a state in order.
pub(super) fn canonical(state: State) -> State {
    let mut order: Vec<Place> = Place::all().collect();
    order.sort_by(|one, other| key(&state, *one).cmp(&key(&state, *other)));
    if order.is_sorted() {
        return state;
    }
    let mut places = [Place(0); GROUPS];
    for (new, old) in order.iter().enumerate() {
        places[usize::from(old.0)] = Place(new as u8);
    }
    Renaming(places).state(&state, &order)
}

/// Returns what orders a group, whatever its name.
fn key(state: &State, place: Place) -> impl Ord + use<'_> {
    let group = state.group(place);
    let record = &group.record;
    let role = match record.role {
        Role::Owner => 0,
        Role::Relinquished { .. } => 1,
        Role::Frozen { .. } => 2,
        Role::Heir { .. } => 3,
        Role::Follower { .. } => 4,
        Role::Erased => 5,
    };
    let newest = state.directory.newest();
    let is_home = newest.home() == place;
    let is_target = newest.moving().is_some_and(|moving| moving.to == place.id());
    let member = newest.member(place).map(|state| state as u8);
    let data = (
        &group.history,
        group.forked.bits(),
        group.stored.bits(),
        group.ever.bits(),
    );
    let volatile = (
        group.pending.is_some(),
        group.ready,
        group.feed.is_some(),
        group.entries.len(),
    );
    let rest = (
        record.refused_up_to,
        record.attach,
        record.session.is_some(),
        group.remote,
        group.proven.bits(),
    );
    (
        (role, record.epoch, record.promised, group.view, group.lease),
        !is_home,
        !is_target,
        member,
        data,
        volatile,
        rest,
    )
}

impl Renaming {
    fn place(&self, place: Place) -> Place {
        self.0[usize::from(place.0)]
    }

    fn id(&self, group: GroupId) -> GroupId {
        self.place(Place::of(group)).id()
    }

    fn state(&self, state: &State, order: &[Place]) -> State {
        let group = |new: usize| Arc::new(self.group(state.group(order[new])));
        let mut seen = state.seen.clone();
        for place in Place::all() {
            seen.earlier[usize::from(self.place(place).0)] = state.seen.earlier[usize::from(place.0)];
        }
        let mut ping = state.ping;
        if let Some(ping) = &mut ping {
            ping.from = self.place(ping.from);
            if let Some(answer) = &mut ping.answer {
                answer.home = self.place(answer.home);
            }
        }
        State {
            directory: Arc::new(self.register(&state.directory)),
            groups: [group(0), group(1), group(2)],
            seen,
            used: state.used,
            ping,
        }
    }

    fn register(&self, register: &Register) -> Register {
        register.map(|version| {
            let mut version = version.clone();
            self.tenant(&mut version.tenant);
            version
        })
    }

    fn tenant(&self, tenant: &mut Tenant) {
        tenant.home = self.id(tenant.home);
        for member in &mut tenant.members {
            member.group = self.id(member.group);
        }
        tenant.members.sort_unstable_by_key(|member| member.group);
        if let Some(moving) = &mut tenant.moving {
            self.plan(moving);
        }
        if let Some(promotion) = &mut tenant.promoting {
            promotion.replaced.iter_mut().for_each(|moving| self.plan(moving));
            self.ids(&mut promotion.reported);
        }
    }

    fn plan(&self, moving: &mut TenantMove) {
        moving.to = self.id(moving.to);
    }

    fn group(&self, group: &Group) -> Group {
        let mut group = group.clone();
        self.record(&mut group.record);
        if let Some(message) = &mut group.feed {
            message.home = self.place(message.home);
            if let Content::Baton(baton) = &mut message.content {
                baton.to = self.id(baton.to);
                self.ids(&mut baton.uncounted);
            }
        }
        for entry in &mut group.entries {
            if matches!(entry.kind, Kind::Uncount | Kind::Count) {
                entry.argument = self.place(Place(entry.argument)).0;
            }
        }
        group.entries.sort_unstable();
        group
    }

    fn record(&self, record: &mut TenantRecord) {
        record.role = match record.role {
            Role::Follower { home } => Role::Follower { home: self.id(home) },
            Role::Heir { home, operation, epoch } => Role::Heir {
                home: self.id(home),
                operation,
                epoch,
            },
            Role::Relinquished {
                operation,
                to,
                epoch,
                last,
            } => Role::Relinquished {
                operation,
                to: self.id(to),
                epoch,
                last,
            },
            Role::Frozen {
                operation,
                epoch,
                previous,
            } => Role::Frozen {
                operation,
                epoch,
                previous: match previous {
                    PreviousRole::Relinquished(to) => PreviousRole::Relinquished(self.id(to)),
                    PreviousRole::Owner | PreviousRole::Follower | PreviousRole::None => previous,
                },
            },
            Role::Owner | Role::Erased => record.role,
        };
        if let Some(session) = &mut record.session {
            session.home = self.id(session.home);
        }
        self.ids(&mut record.uncounted);
    }

    fn ids(&self, groups: &mut [GroupId]) {
        groups.iter_mut().for_each(|group| *group = self.id(*group));
        groups.sort_unstable();
    }
}
