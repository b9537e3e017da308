//! Properties of the ownership model, by their names in docs/protocol.md.

use stateright::Property;
use stead_state::{
    directory::{MemberState, TenantState},
    lineage::RevisionStatus,
    shard::record::Role,
};
use stead_types::{Epoch, Revision, Sequence};

use super::{
    Ownership,
    bounds::Policy,
    client::TokenAnswer,
    mutant::Mutant,
    state::{Group, Place, State},
    writes::Writes,
};

/// Property of every reachable state.
#[derive(Clone, Copy)]
pub struct Law {
    /// Its name, and what it says.
    pub name: &'static str,
    /// Whether a state has it.
    pub holds: fn(&Ownership, &State) -> bool,
}

/// All properties but STUCK, which is a search of its own.
pub const LAWS: &[Law] = &[
    law("L1 no group serves below a fence once the wait has passed", l1),
    law("M1 at most one group serves", m1),
    law("M2 planned moves lose no acknowledged write", m2),
    law("M3 epochs never decrease, sequences are gapless", m3),
    law("LIN who serves holds all that was acknowledged or shown", lin),
    law("P1 no REMOTE write is lost without --allow-loss", |_, state| {
        !state.seen.violated.p1
    }),
    law("TWO until a promotion a REMOTE write is in two groups", two),
    law("P2 all that a group held is live or in a fork", p2),
    law(
        "P3 what is cut was acknowledged inside the reported window",
        |_, state| !state.seen.violated.p3,
    ),
    law("F1 a revision determines value and prefix", f1),
    law("F2 who follows a cut holds nothing of what it cut", f2),
    law("LATE nothing is acknowledged that was committed after its cut", late),
    law("RESURRECT what was cut stays cut", |_, state| {
        !state.seen.violated.resurrect
    }),
    law("TOKEN FORKED is exact", token),
    law("DIVERGE histories of one epoch are prefixes", diverge),
    law("RUNS a lineage in runs is exact", runs),
    law("ERASED once every member has reported nobody holds the tenant", erased),
    law("BOUNDED a proof is of what it says", |_, state| {
        !state.seen.violated.bounded
    }),
];

/// STUCK, which needs a search from each state.
const STUCK: Law = law("STUCK a fault-free schedule ends well", Ownership::settles);

/// Returns the properties that a model checks.
pub fn properties(model: &Ownership) -> Vec<Property<Ownership>> {
    let stuck = model.bounds.settles.then_some(&STUCK);
    let laws = LAWS.iter().chain(stuck);
    laws.filter(|law| law.name.starts_with(model.only))
        .map(|law| Property::always(law.name, law.holds))
        .collect()
}

const fn law(name: &'static str, holds: fn(&Ownership, &State) -> bool) -> Law {
    Law { name, holds }
}

/// Tells whether leases say nothing: an owner without one may serve.
fn is_without_leases(model: &Ownership, state: &State) -> bool {
    model.bounds.policy == Policy::Continue || state.seen.asserted
}

fn l1(model: &Ownership, state: &State) -> bool {
    is_without_leases(model, state)
        || Place::all().filter(|place| model.serves(state, *place)).all(|place| {
            let epoch = state.group(place).record.epoch;
            let over = state.seen.fences.iter().filter(|(_, left)| **left == 0);
            over.map(|(fence, _)| *fence).all(|fence| fence <= epoch)
        })
}

fn m1(model: &Ownership, state: &State) -> bool {
    is_without_leases(model, state) || Place::all().filter(|place| model.serves(state, *place)).count() <= 1
}

fn m2(_: &Ownership, state: &State) -> bool {
    let is_deleted = state.directory.newest().tenant.state == TenantState::Deleting;
    if state.used.promotions > 0 || is_deleted {
        return true;
    }
    let owns = |group: &&Group| matches!(group.record.role, Role::Owner | Role::Relinquished { .. });
    let newest = state
        .groups()
        .map(|(_, group)| group)
        .filter(owns)
        .max_by_key(|group| (group.record.epoch, group.history.len()));
    let holds = newest.is_some_and(|group| state.seen.acknowledged.without(group.history.writes()).is_empty());
    state.off().is_empty() && holds
}

fn m3(_: &Ownership, state: &State) -> bool {
    state.groups().all(|(_, group)| {
        let mut before = Revision::ZERO;
        group.history.changes().iter().all(|change| {
            let revision = change.revision;
            let follows = before.sequence().next() == Some(revision.sequence()) && before.epoch() <= revision.epoch();
            let begins = before.epoch() == revision.epoch()
                || state.seen.begins.get(&revision.epoch()) == Some(&before.sequence());
            before = revision;
            follows && begins
        })
    })
}

fn lin(model: &Ownership, state: &State) -> bool {
    if is_without_leases(model, state) && state.used.promotions > 0 {
        return true;
    }
    let must = (state.seen.acknowledged | state.seen.shown).without(state.seen.cut);
    let serving = Place::all().filter(|place| model.serves(state, *place));
    serving
        .map(|place| state.group(place).history.writes())
        .all(|held| must.without(held).is_empty())
}

fn two(_: &Ownership, state: &State) -> bool {
    let is_deleted = state.directory.newest().tenant.state == TenantState::Deleting;
    let holders = |write: u8| {
        state
            .groups()
            .filter(|(_, group)| group.history.writes().has(write))
            .count()
    };
    let remote = (1..=state.used.writes).filter(|write| state.seen.remote.has(*write));
    is_deleted || state.used.promotions > 0 || remote.into_iter().all(|write| holders(write) >= 2)
}

fn p2(_: &Ownership, state: &State) -> bool {
    !state.seen.violated.p2
        && state
            .groups()
            .filter(|(_, group)| group.record.role != Role::Erased)
            .all(|(_, group)| {
                let kept = group.history.writes() | group.stored;
                group.ever.without(kept).is_empty() && group.forked.without(state.off()).is_empty()
            })
}

fn f1(_: &Ownership, state: &State) -> bool {
    let is_true = |group: &Group| {
        group
            .history
            .changes()
            .iter()
            .all(|change| state.seen.revisions.get(usize::from(change.write) - 1) == Some(&change.revision))
    };
    let agree = |one: &Group, other: &Group| {
        let (one, other) = (one.history.changes(), other.history.changes());
        let both = one.iter().zip(other).rposition(|(a, b)| a.revision == b.revision);
        both.is_none_or(|last| one[..=last] == other[..=last])
    };
    !state.seen.violated.f1
        && state.groups().all(|(_, group)| is_true(group))
        && state
            .groups()
            .all(|(place, group)| place.others().all(|other| agree(group, state.group(other))))
}

fn f2(model: &Ownership, state: &State) -> bool {
    state.groups().all(|(place, group)| {
        if (group.history.writes() & state.off()).is_empty() {
            return true;
        }
        let lineage = &state.view(place).tenant.lineage;
        let is_cut = |revision| lineage.status_of(revision) != RevisionStatus::OnLineage;
        let knows = group.history.changes().iter().any(|change| is_cut(change.revision));
        let is_current = group.view == state.directory.newest_version();
        let follows = matches!(
            group.record.role,
            Role::Follower { .. } | Role::Heir { .. } | Role::Owner
        ) && group.record.epoch >= state.directory.newest().tenant.epoch;
        (knows || !is_current) && (is_without_leases(model, state) || !follows)
    })
}

fn late(model: &Ownership, state: &State) -> bool {
    is_without_leases(model, state) || !state.seen.violated.late
}

fn token(model: &Ownership, state: &State) -> bool {
    let revisions = state.seen.revisions.iter().zip(1..);
    let exact = revisions.clone().all(|(revision, write)| {
        let is_off = state.off().has(write);
        state
            .groups()
            .all(|(place, group)| match model.token(state, place, *revision) {
                TokenAnswer::Serve => group.history.writes().has(write),
                TokenAnswer::Forked => is_off,
                TokenAnswer::Wait => {
                    let is_current = group.view == state.directory.newest_version();
                    !is_off || !is_current || group.record.role == Role::Erased
                }
            })
    });
    exact && (!model.is(Mutant::TokenOfServer) || tokens_of_servers_stand(model, state))
}

/// Tells whether no token that names its server's epoch is answered as cut while its write stands.
fn tokens_of_servers_stand(model: &Ownership, state: &State) -> bool {
    Place::all().filter(|place| model.serves(state, *place)).all(|place| {
        let group = state.group(place);
        let Some(last) = group.history.changes().last() else {
            return true;
        };
        let token = Revision::new(group.record.epoch, last.revision.sequence());
        let stands = !state.off().has(last.write);
        !stands || Place::all().all(|other| model.token(state, other, token) != TokenAnswer::Forked)
    })
}

fn diverge(_: &Ownership, state: &State) -> bool {
    let is_of = |group: &Group, epoch: Epoch| {
        let role = group.record.role;
        group.record.epoch == epoch && matches!(role, Role::Owner | Role::Follower { .. } | Role::Heir { .. })
    };
    !state.seen.violated.diverge
        && state.groups().all(|(place, group)| {
            let epoch = group.record.epoch;
            !is_of(group, epoch)
                || place
                    .others()
                    .map(|other| state.group(other))
                    .filter(|other| is_of(other, epoch))
                    .all(|other| {
                        group.history.is_prefix_of(&other.history) || other.history.is_prefix_of(&group.history)
                    })
        })
}

fn runs(_: &Ownership, state: &State) -> bool {
    let versions = state.directory.versions();
    let exact = versions.iter().all(|version| {
        state.seen.revisions.iter().all(|revision| {
            let is_cut = version.tenant.lineage.status_of(*revision) != RevisionStatus::OnLineage;
            is_cut == version.line.is_off(*revision)
        })
    });
    exact
        && state.groups().all(|(_, group)| {
            let owns = matches!(group.record.role, Role::Owner | Role::Relinquished { .. });
            let lineage = &group.record.lineage;
            !owns
                || group
                    .history
                    .changes()
                    .iter()
                    .all(|change| lineage.status_of(change.revision) == RevisionStatus::OnLineage)
        })
}

fn erased(_: &Ownership, state: &State) -> bool {
    let is_gone = state.directory.newest().tenant.members.is_empty();
    !is_gone || state.groups().all(|(_, group)| group.record.role == Role::Erased)
}

/// Returns the end of a fault-free schedule that is wrong: no single recorded owner serves, a replica differs, or a
/// write is nowhere.
pub fn settled_badly(model: &Ownership, state: &State) -> Option<&'static str> {
    let tenant = &state.directory.newest().tenant;
    match tenant.state {
        TenantState::Active => {}
        // Operators go on from here: they enable it, abort its move, or delete it.
        TenantState::Disabled => return None,
        TenantState::Deleting => return (!tenant.members.is_empty()).then_some("a member has not erased the tenant"),
    }
    if state.directory.newest().operation().is_some() {
        return Some("an operation has not ended");
    }
    let leaving = tenant.members.iter().any(|member| member.state != MemberState::Staying);
    if leaving {
        return Some("a member has not left or returned");
    }
    let serving: Vec<Place> = Place::all().filter(|place| model.serves(state, *place)).collect();
    let [owner] = serving[..] else {
        return Some("not exactly one group serves");
    };
    let home = state.group(owner);
    if tenant.home != owner.id() || tenant.epoch != home.record.epoch {
        return Some("the directory does not record the owner");
    }
    let differs = |place: Place| {
        let group = state.group(place);
        let is_equal = matches!(group.record.role, Role::Follower { .. }) && group.history == home.history;
        state.directory.newest().tenant.has(place.id()) && !is_equal
    };
    if owner.others().any(differs) {
        return Some("a replica differs from the owner");
    }
    let forked = state.groups().fold(Writes::NONE, |all, (_, group)| all | group.forked);
    let kept = home.history.writes() | forked | state.seen.discarded;
    let is_lost = !Writes::first(state.used.writes).without(kept).is_empty();
    is_lost.then_some("a write is neither live nor in a fork")
}

/// Returns the sequence after which nothing of a history is on a lineage.
pub fn kept_on(lineage: &stead_state::lineage::Lineage, group: &Group) -> Sequence {
    let changes = group.history.changes();
    let on = changes
        .iter()
        .take_while(|change| lineage.status_of(change.revision) == RevisionStatus::OnLineage);
    on.last().map_or(Sequence::ZERO, |change| change.revision.sequence())
}
