//! Model of leases: renewals with their delays, views that lag, waits after a fence, clocks that drift.
//!
//! The groups hold no data: each may own an epoch. What the directory decides are the functions of
//! `stead_state::directory`, whether a group may answer is `stead_state::serving::check`. Time is counted in ticks, and
//! only differences are kept, so it is unbounded.

mod mutant;
mod properties;
mod state;
mod step;

pub use mutant::Mutant;
pub use state::{Action, State};
use stateright::{Model, Property};

/// Events that may happen in a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Groups.
    pub groups: u8,
    /// Voters of each group: each renews for itself, one leads.
    pub voters: u8,
    /// Planned moves.
    pub moves: u8,
    /// Promotions.
    pub promotions: u8,
    /// Ttl of leases, in ticks.
    pub ttl: u8,
    /// Whether the ttl is lowered to one tick at some time.
    pub lowers_ttl: bool,
    /// Whether a clock may lose one tick during a lease.
    pub drifts: bool,
    /// Whether the wait is shortened by what was granted last.
    pub shortens: bool,
    /// Whether a lease counts before the view has reached its version, by the fences that it carries.
    pub counts_early: bool,
    /// Attempts of one voter in flight.
    pub attempts: u8,
    /// Whether the directory's leader changes.
    pub changes_leader: bool,
    /// Whether the directory is recovered from a lost majority, which loses its last two versions.
    pub recovers: bool,
}

impl Bounds {
    /// One promotion, two groups of one voter.
    pub const PROMOTION: Self = Self {
        groups: 2,
        voters: 1,
        moves: 0,
        promotions: 1,
        ttl: 1,
        lowers_ttl: false,
        drifts: false,
        shortens: false,
        counts_early: false,
        attempts: 1,
        changes_leader: false,
        recovers: false,
    };
}

/// The model in one configuration.
#[derive(Clone, Debug)]
pub struct Leases {
    /// Events that may happen.
    pub bounds: Bounds,
    /// The rule that is broken.
    pub mutant: Option<Mutant>,
    /// The only property that is checked; empty: all.
    pub only: &'static str,
}

impl Leases {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.bounds)]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        self.enabled(state, out);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(
                "L1 no group serves below a fence once the wait has passed",
                Leases::fence_holds,
            ),
            Property::always("M1 at most one group serves", Leases::one_serves),
        ];
        all.retain(|property| property.name.starts_with(self.only));
        all
    }
}
