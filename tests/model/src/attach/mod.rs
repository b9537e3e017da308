//! Model of attaching: one tenant on the feed between a home and a follower, where messages of several attempts cross.
//!
//! The feed's offset passes whether or not the tenant is attached, because other tenants are on it. The follower's
//! record is a real one, changed by `stead_state::shard::ownership`. Checked is what the home counts: a write that it
//! takes for remote must be in the follower's log.

mod state;
mod step;

pub use state::{Action, State};
use stateright::{Model, Property};

/// Events that may happen in a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Writes of the tenant.
    pub writes: u8,
    /// Changes of other tenants.
    pub others: u8,
    /// Attempts to attach.
    pub attempts: u8,
    /// Crashes of the home's leader.
    pub crashes: u8,
    /// Messages of each kind in flight.
    pub in_flight: usize,
}

/// One rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The offset counts for the tenant whether or not it is attached.
    OffsetCoversAll,
    /// Attached, detached and offset of one acknowledgement take effect one after another.
    AcknowledgesInTwoSteps,
    /// `Attached` of an earlier attempt is taken for one of the current.
    AttachedWithoutNumber,
    /// Records of an earlier attempt are applied, and what is missing before them is not noticed.
    DataWithoutNumber,
    /// A tenant that an opening does not list is taken for attached.
    UnlistedIsAttached,
    /// A new leader of the home counts by what the last one knew, before the opening.
    CountsBeforeOpening,
}

/// The model in one configuration.
#[derive(Clone, Debug)]
pub struct Attaching {
    /// Events that may happen.
    pub bounds: Bounds,
    /// The rule that is broken.
    pub mutant: Option<Mutant>,
    /// The only property that is checked; empty: all.
    pub only: &'static str,
}

impl Attaching {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Model for Attaching {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        self.enabled(state, out);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always("P1 what counts as remote is in the follower", |_, state: &State| {
                state.home.covered <= state.follower.held()
            }),
            Property::always("F1 the follower's history has no gap", |_, state: &State| {
                !state.follower.has_gap
            }),
            Property::sometimes("COVER a write is counted after a second attempt", |_, state: &State| {
                state.home.covered > 0 && state.follower.record.attach.0 > 1
            }),
        ];
        all.retain(|property| property.name.starts_with(self.only));
        all
    }
}
