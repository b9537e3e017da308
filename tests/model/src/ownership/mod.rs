//! Model of one tenant's ownership: three groups, the directory with views that lag, feeds, moves, promotions, members
//! that leave.
//!
//! ```text
//! operators -> directory (a register of versions) -> views, each as late as it likes
//!                 ^ reports                              |
//!                 |                                      v
//!              records <- transitions of stead_state <- reconcilers: proposals
//! ```
//!
//! # Abstractions
//!
//! 1. A group's Raft log is one durable, atomic object: a step is one applied entry. A crash loses what only the leader
//!    knew.
//! 2. Leases are derived lazily: a group holds whatever lease it may hold, one as of each directory version from the
//!    last tick on. That is more than any schedule of renewals gives; the lease model has them explicitly.
//! 3. A partition needs no state of its own: what is not delivered is delayed for ever. Time is relative, so unbounded.
//! 4. Attaching is one step, one message is in flight to each follower; the attach model has the exchange.
//! 5. The log's order is what counts at a guard, so reports are read from the log that they were made from.

pub mod action;
mod apply;
pub mod bounds;
pub mod catalogue;
mod choice;
mod client;
pub mod coverage;
pub mod directory;
mod enabled;
pub mod entry;
mod feed;
pub mod mutant;
pub mod mutations;
mod ping;
pub mod properties;
pub mod settle;
pub mod state;
mod step;
mod symmetry;
pub mod writes;

use stateright::{Model, Property};

use self::{action::Action, bounds::Bounds, mutant::Mutant, settle::Settled, state::State};

/// The model in one configuration.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// Events that may happen, and how often.
    pub bounds: Bounds,
    /// The rule that is broken.
    pub mutant: Option<Mutant>,
    /// Whether states that differ in the names of groups are one. A trace is read more easily without.
    pub is_symmetric: bool,
    /// The only property that is checked; empty: all.
    pub only: &'static str,
    settled: Settled,
}

impl Ownership {
    /// Returns the model with all properties and no mutant.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            mutant: None,
            is_symmetric: true,
            only: "",
            settled: Settled::default(),
        }
    }

    /// Tells whether a rule is broken.
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Model for Ownership {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.bounds)]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        self.enabled(state, out);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}
