//! Model of replicas: a home and a follower, each a real `stead_state::shard::Shard` over rows in memory, with feed,
//! seeds, idempotency windows, logged time and a move.
//!
//! A group's whole state is its rows: each step opens the shard from them, applies one entry, and flushes. So what is
//! explored is the product's machine, not an abstraction of it. A mutant changes what travels between the groups, or
//! what a client sends.

mod group;
mod state;
mod step;

pub use state::{Action, State};
use stateright::{Model, Property};

/// Operation that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Sets a key.
    Put(u8),
    /// Deletes a key.
    Delete(u8),
    /// Adds one to a counter.
    Increment(u8),
}

/// Write that a client sends, in the order of the script; it may be sent again at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The client.
    pub client: u8,
    /// Operation of the request.
    pub operation: Operation,
}

/// Events that may happen in a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests of clients, in order.
    pub script: &'static [Request],
    /// How often a write is sent again.
    pub repeats: u8,
    /// How often so much time passes that outcomes may be evicted.
    pub pauses: u8,
    /// Seeds.
    pub seeds: u8,
    /// Attempts to attach.
    pub attempts: u8,
    /// Whether the tenant moves to the follower.
    pub moves: bool,
}

/// One rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A seed does not carry idempotency windows.
    SeedWithoutWindows,
    /// A seed does not carry the lower edges of windows.
    SeedWithoutEdges,
    /// A chunk of windows is loaded after later changes.
    WindowsReadEarlier,
    /// A chunk lacks a key, and the digests are not compared.
    SwapWithoutDigests,
    /// The baton does not carry tenant time.
    BatonWithoutTime,
    /// A client stamps a write anew that it has sent before.
    StampsAnew,
    /// The feed does not carry outcomes.
    FeedWithoutOutcomes,
}

/// The model in one configuration.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// Events that may happen.
    pub bounds: Bounds,
    /// The rule that is broken.
    pub mutant: Option<Mutant>,
    /// The only property that is checked; empty: all.
    pub only: &'static str,
}

impl Replicas {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Model for Replicas {
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
            Property::always("ONCE no write is executed twice", |_, state: &State| !state.seen.twice),
            Property::always("RETRY a repeat is answered as the first attempt", |_, state: &State| {
                !state.seen.differs
            }),
            Property::always("TIME tenant time never goes back", |_, state: &State| !state.seen.back),
            Property::always("F1 copies at one revision are equal", |_, state: &State| {
                state.copies_agree()
            }),
            Property::always(
                "PROMISED promised and view version never decrease",
                |_, state: &State| !state.seen.lower,
            ),
            Property::sometimes("COVER a seed is swapped in", |_, state: &State| state.seen.swapped),
        ];
        if self.bounds.repeats > 0 {
            all.push(Property::sometimes("COVER a repeat is refused", |_, state: &State| {
                state.seen.refused
            }));
        }
        all.retain(|property| property.name.starts_with(self.only));
        all
    }
}
