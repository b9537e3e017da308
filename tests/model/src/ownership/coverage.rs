//! Corners that the ownership model must reach: a bound or an abstraction that hides one makes the model worthless.

use stateright::{Model, Property};
use stead_state::shard::record::Role;
use stead_types::Epoch;

use super::{
    Ownership,
    action::Action,
    client::TokenAnswer,
    state::{Content, Place, State},
};

/// The model in a configuration, with its corners instead of its properties.
#[derive(Clone, Debug)]
pub struct Corners(pub Ownership, pub &'static str);

/// Corner: a kind of state that must be reachable.
type Corner = fn(&Corners, &State) -> bool;

const MOVE: &[(&str, Corner)] = &[
    (
        "a write is acknowledged at the new epoch before it is recorded",
        |_, state| state.directory.newest().tenant.epoch == Epoch::FIRST && has_acknowledged_after(state, 1),
    ),
    ("a move is recorded while it is being aborted", |_, state| {
        state.used.aborts > 0 && state.directory.newest().tenant.epoch > Epoch::FIRST
    }),
    ("a move is refused", |_, state| {
        state.groups().any(|(_, group)| group.record.refused_up_to.0 > 0)
    }),
    (
        "a write is acknowledged by a source that has relinquished",
        |_, state| {
            state.groups().any(|(_, group)| {
                matches!(group.record.role, Role::Relinquished { .. })
                    && !(group.history.writes() & state.seen.acknowledged).is_empty()
                    && group.pending.is_none()
            })
        },
    ),
    ("an heir is cancelled", |_, state| {
        state.used.moves > 0
            && state.directory.newest().operation().is_none()
            && state.directory.newest().tenant.epoch == Epoch::FIRST
            && state
                .groups()
                .all(|(_, group)| !matches!(group.record.role, Role::Heir { .. }))
    }),
];

const BOTH: &[(&str, Corner)] = &[
    ("an owner that is not recorded is frozen and chosen", |_, state| {
        state.directory.newest().tenant.epoch > epoch(2) && holds_kept(state, 2)
    }),
    ("a write of an owner that is not recorded is cut", |_, state| {
        has_cut_of(state, 2)
    }),
    ("a late baton reaches a frozen group", |_, state| {
        state.groups().any(|(_, group)| {
            let is_baton = group
                .feed
                .as_ref()
                .is_some_and(|feed| matches!(feed.content, Content::Baton(_)));
            is_baton && matches!(group.record.role, Role::Frozen { .. })
        })
    }),
    ("a late baton reaches a group of a later epoch", |_, state| {
        state.groups().any(|(_, group)| {
            let baton = group.feed.as_ref().and_then(|feed| match &feed.content {
                Content::Baton(baton) => Some(baton.epoch),
                Content::Change(_) => None,
            });
            baton.is_some_and(|epoch| epoch < group.record.epoch)
        })
    }),
    ("an acknowledged write is cut", |_, state| {
        !(state.seen.acknowledged & state.seen.cut).is_empty()
    }),
    ("a write is committed after its cut", |_, state| {
        !state.seen.late.is_empty()
    }),
    ("a token is answered as cut", |model, state| {
        state
            .seen
            .revisions
            .iter()
            .any(|revision| Place::all().any(|place| model.0.token(state, place, *revision) == TokenAnswer::Forked))
    }),
    ("two groups hold forks of one write", |_, state| {
        state.groups().any(|(place, group)| {
            place
                .others()
                .any(|other| !(group.forked & state.group(other).forked).is_empty())
        })
    }),
];

const TWICE: &[(&str, Corner)] = &[
    ("a promotion is replaced while it is in flight", |_, state| {
        state.used.promotions == 2 && state.directory.newest().tenant.epoch == Epoch::FIRST
    }),
    ("a write at REMOTE is acknowledged", |_, state| {
        !state.seen.remote.is_empty()
    }),
    ("a home is promoted again", |_, state| {
        state.used.promotions == 2
            && state
                .group(Place(0))
                .record
                .owned()
                .is_some_and(|epoch| epoch > Epoch::FIRST)
    }),
];

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).expect("a small number")
}

fn of_epoch(state: &State, number: u32) -> super::writes::Writes {
    let revisions = state.seen.revisions.iter().zip(1..);
    let found = revisions.filter(|(revision, _)| revision.epoch() == epoch(number));
    found.fold(Default::default(), |all, (_, write)| {
        all | super::writes::Writes::of(write)
    })
}

fn has_acknowledged_after(state: &State, number: u32) -> bool {
    let first = of_epoch(state, number);
    !state.seen.acknowledged.without(first).is_empty()
}

fn has_cut_of(state: &State, number: u32) -> bool {
    !(of_epoch(state, number) & state.seen.cut).is_empty()
}

fn holds_kept(state: &State, number: u32) -> bool {
    let home = state.group(state.directory.newest().home());
    !(of_epoch(state, number) & home.history.writes()).is_empty()
}

impl Model for Corners {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.0.init_states()
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        self.0.actions(state, out);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.0.next_state(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let corners = match self.1 {
            "move" => MOVE,
            "move-promotion" => BOTH,
            _ => TWICE,
        };
        corners
            .iter()
            .map(|(name, corner)| Property::sometimes(name, *corner))
            .collect()
    }
}
