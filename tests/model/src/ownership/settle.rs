//! STUCK: from every reachable state a fault-free schedule ends with one recorded owner that serves, all replicas
//! equal, and every write live or in a fork.
//!
//! A search of its own, because a checker's "eventually" is unsound where the states have cycles and joins. From a
//! state, the schedule delivers everything, lets reconcilers and the directory work, and injects nothing: no operator,
//! no fault, no client. It takes the first of its actions that leads to a state that the schedule has not been in.
//! States from which it has ended well are remembered, so that the states of one schedule are not visited again.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Arc, Mutex},
};

use super::{Ownership, action::Action, entry::Kind, properties::settled_badly, state::State};

/// Most steps of a schedule.
const STEPS_MAX: usize = 400;

/// States from which a schedule has ended well.
#[derive(Clone, Debug, Default)]
pub struct Settled(Arc<Mutex<HashSet<u64>>>);

impl Ownership {
    /// Tells whether the fault-free schedule from a state ends well.
    pub fn settles(&self, state: &State) -> bool {
        self.schedule(state).is_ok()
    }

    /// Runs the fault-free schedule from a state; returns its actions and why it ended badly.
    pub fn schedule(&self, state: &State) -> Result<(), BadEnd> {
        let mut settled = self.settled.0.lock().expect("no schedule panics");
        let mut path: Vec<u64> = Vec::new();
        let mut actions = Vec::new();
        let mut state = state.clone();
        let reason = loop {
            let print = fingerprint(&state);
            if settled.contains(&print) {
                break None;
            }
            path.push(print);
            let Some((action, next)) = self.next_of_schedule(&state, &path) else {
                break settled_badly(self, &state);
            };
            if path.len() > STEPS_MAX {
                break Some("the schedule does not end");
            }
            actions.push(action);
            state = next;
        };
        match reason {
            None => {
                settled.extend(path);
                Ok(())
            }
            Some(reason) => Err(BadEnd {
                reason,
                actions,
                state: Box::new(state),
            }),
        }
    }

    /// Describes a state, and where the fault-free schedule from it ends badly.
    pub fn describe(&self, state: &State) -> String {
        let mut text = state.to_string();
        if self.bounds.settles
            && let Err(end) = self.schedule(state)
        {
            text += &format!("the fault-free schedule ends badly: {}\n", end.reason);
            end.actions
                .iter()
                .for_each(|action| text += &format!("    {action:?}\n"));
            text += &end.state.to_string();
        }
        text
    }

    fn next_of_schedule(&self, state: &State, path: &[u64]) -> Option<(Action, State)> {
        let mut enabled = Vec::new();
        self.enabled(state, &mut enabled);
        let mut ranked: Vec<(u8, Action)> = enabled
            .into_iter()
            .filter_map(|action| Some((rank(state, &action)?, action)))
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().find_map(|(_, action)| {
            let next = self.step(state, &action)?;
            (!path.contains(&fingerprint(&next))).then_some((action, next))
        })
    }
}

/// Schedule that ended badly.
#[derive(Clone, Debug)]
pub struct BadEnd {
    /// Fault of its last state.
    pub reason: &'static str,
    /// Its actions.
    pub actions: Vec<Action>,
    /// Its last state.
    pub state: Box<State>,
}

/// Returns the place of an action in the schedule, the sooner the smaller; `None` for what a schedule without faults,
/// operators and clients does not have.
fn rank(state: &State, action: &Action) -> Option<u8> {
    Some(match action {
        Action::Advance(_) | Action::Apply(..) => 1,
        Action::Receive(_) => 2,
        Action::Send(_) => 3,
        Action::Propose(_, proposal) => match proposal.kind {
            Kind::Follow | Kind::Freeze | Kind::Activate | Kind::CancelHeir | Kind::Refuse => 4,
            Kind::Uncount | Kind::Count | Kind::Rejoin | Kind::Erase => 6,
            Kind::Heir => 8,
            Kind::Relinquish => 10,
        },
        Action::RecordRefused | Action::RecordAccepted(_) | Action::RecordActivated => 5,
        Action::RecordUncounted(_) | Action::RecordErased(_) | Action::RecordRejoined(_) => 6,
        Action::LogPolicy(_) | Action::RecordPolicy => 6,
        Action::Attach(_) => 7,
        Action::Ready(_) => 9,
        Action::EndWait | Action::Pull(..) => 11,
        Action::Choose(_, false) => 12,
        Action::Tick if state.directory.wait > 0 => 13,
        Action::Tick
        | Action::Crash(..)
        | Action::Write(..)
        | Action::Acknowledge(_)
        | Action::Read(_)
        | Action::LogRemote(..)
        | Action::SendBaton(_)
        | Action::Break(_)
        | Action::Ping(_)
        | Action::Pong
        | Action::Proof
        | Action::Plan(_)
        | Action::Abort
        | Action::Promote
        | Action::Choose(_, true)
        | Action::Leave(_)
        | Action::TakeBack(_)
        | Action::TakeIn(_)
        | Action::Disable
        | Action::Delete
        | Action::ChangePolicy => return None,
    })
}

/// Returns a hash that stands for a state, as the checker's own do.
fn fingerprint(state: &State) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(state)
}
