//! Generators of random histories of a correct store, and of mutations that may make them incorrect.
//!
//! A list of steps drives a few sessions. Each step moves one session on: it sends a call, the call takes effect at one
//! instant, its response returns. A response may be lost before or after its call takes effect, and the call may take
//! effect later.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::script::revision;
use crate::history::{Call, History, Item, Level, Operation, Response};

const SESSIONS: usize = 4;

/// Step of a random history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    session: usize,
    /// Decides the call, if the step sends one, and whether something is lost.
    kind: u8,
    key: u8,
}

/// Change of one operation's response or interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutation {
    /// Decides the operation that is changed.
    target: usize,
    /// Decides the operation from which the change is taken.
    source: usize,
    kind: u8,
}

/// Strategy for steps of histories that are short enough for [`super::search`].
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..SESSIONS, any::<u8>(), any::<u8>());
    prop::collection::vec(step.prop_map(|(session, kind, key)| Step { session, kind, key }), 0..60)
}

/// Strategy for a mutation of any history.
pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    let parts = (any::<usize>(), any::<usize>(), 0..6_u8);
    parts.prop_map(|(target, source, kind)| Mutation { target, source, kind })
}

/// Returns the history that a correct store produces in these steps.
pub(crate) fn history(steps: &[Step], with_deletes: bool) -> History {
    let mut store = ModelStore {
        with_deletes,
        states: vec![BTreeMap::new()],
        ..ModelStore::default()
    };
    for step in steps {
        store.step(*step);
    }
    History::new(store.operations)
}

/// Reference model of one tenant: all its states, one for each revision.
#[derive(Default)]
struct ModelStore {
    with_deletes: bool,
    clock: u64,
    operations: Vec<Operation>,
    /// Operation that each session waits for, with its response once it has taken effect.
    waiting: [Option<(usize, Option<Response>)>; SESSIONS],
    /// Highest revision among each session's responses.
    tokens: [u64; SESSIONS],
    /// Operations that lost their responses and have not taken effect.
    lost: Vec<usize>,
    /// Keys as of each revision.
    states: Vec<BTreeMap<Bytes, Item>>,
}

impl ModelStore {
    fn step(&mut self, Step { session, kind, key }: Step) {
        self.clock += 1;
        if kind % 16 == 15
            && let Some(lost) = self.lost.pop()
        {
            self.apply(lost, session, key);
            return;
        }
        match self.waiting[session].take() {
            None => {
                let call = self.call(kind, key);
                self.operations.push(Operation {
                    session: session as u32,
                    invoked: self.clock,
                    call,
                    response: None,
                });
                self.waiting[session] = Some((self.operations.len() - 1, None));
            }
            Some((operation, None)) if kind % 16 == 0 => self.lost.push(operation),
            Some((operation, None)) => {
                let response = self.apply(operation, session, key);
                self.waiting[session] = Some((operation, Some(response)));
            }
            Some((_, Some(_))) if kind % 16 == 0 => {}
            Some((operation, Some(response))) => {
                self.tokens[session] = self.tokens[session].max(response.revision.sequence().get());
                self.operations[operation].response = Some(Response {
                    returned: self.clock,
                    ..response
                });
            }
        }
    }

    fn call(&self, kind: u8, key: u8) -> Call {
        let key = Bytes::copy_from_slice(&[b'k', b'0' + key % 2]);
        let level = [Level::Linearizable, Level::Linearizable, Level::Session, Level::Local][usize::from(kind / 8) % 4];
        match kind % 8 {
            0..=2 => Call::Put {
                key,
                value: Bytes::from(self.clock.to_string()),
            },
            3 if self.with_deletes => Call::Delete { key },
            3..=6 => Call::Get { key, level },
            _ => Call::Scan {
                prefix: Bytes::from_static(b"k"),
                level,
            },
        }
    }

    /// Applies a call: a change adds a state, a read returns one that its level admits.
    fn apply(&mut self, operation: usize, session: usize, old: u8) -> Response {
        let now = self.states.len() as u64 - 1;
        let mut state = self.states[now as usize].clone();
        let next = revision(now + 1);
        let call = self.operations[operation].call.clone();
        let changed = match &call {
            Call::Put { key, value } => {
                let before = state.get(key);
                let created = before.map_or(next, |item| item.created);
                let version = before.map_or(0, |item| item.version) + 1;
                let item = Item {
                    key: key.clone(),
                    value: value.clone(),
                    created,
                    modified: next,
                    version,
                };
                state.insert(key.clone(), item);
                true
            }
            Call::Delete { key } => state.remove(key).is_some(),
            Call::Get { .. } | Call::Scan { .. } => false,
        };
        if changed {
            self.states.push(state);
            return Response {
                returned: 0,
                revision: next,
                changed,
                items: Vec::new(),
            };
        }
        let oldest = match call.level() {
            None | Some(Level::Linearizable) => now,
            Some(Level::Session) => self.tokens[session],
            Some(Level::Bounded | Level::Local) => 0,
        };
        let seen = now - u64::from(old) % (now - oldest + 1);
        let shown = self.states[seen as usize]
            .values()
            .filter(|item| call.level().is_some() && call.touches(&item.key));
        Response {
            returned: 0,
            revision: revision(seen),
            changed,
            items: shown.cloned().collect(),
        }
    }
}

/// Returns the history with one response, or one interval, changed.
pub(crate) fn mutate(history: &History, mutation: Mutation) -> History {
    let Mutation { target, source, kind } = mutation;
    let mut operations = history.operations().to_vec();
    let answered = |operation: &Operation| {
        operation
            .response
            .as_ref()
            .is_some_and(|a| kind > 2 || !a.items.is_empty())
    };
    let Some(one) = pick(&operations, target, answered) else {
        return history.clone();
    };
    let key = operations[one]
        .response
        .iter()
        .flat_map(|response| &response.items)
        .map(|item| item.key.clone())
        .next();
    let fits = |operation: &Operation| match &operation.call {
        Call::Put { key: own, .. } => kind > 2 || Some(own) == key.as_ref(),
        Call::Delete { .. } | Call::Get { .. } | Call::Scan { .. } => kind > 2 && operation.response.is_some(),
    };
    let Some(other) = pick(&operations, source, fits) else {
        return history.clone();
    };
    let another = operations[other].clone();
    let operation = &mut operations[one];
    let (invoked, returned) = (operation.invoked, operation.returned());
    match (kind, &mut operation.response, &another.response) {
        (0, Some(response), _) => {
            response.items.pop();
        }
        (1 | 2, Some(response), _) => change_value(response, &another),
        (3, Some(response), Some(theirs)) => response.revision = theirs.revision,
        (4, Some(response), Some(theirs)) if invoked < theirs.returned => response.returned = theirs.returned,
        (5, _, _) if another.invoked < returned => operation.invoked = another.invoked,
        _ => {}
    }
    History::new(operations)
}

/// Returns the first operation from a position on, wrapping around at the end, that fits.
fn pick(operations: &[Operation], from: usize, fits: impl Fn(&Operation) -> bool) -> Option<usize> {
    let from = from.checked_rem(operations.len())?;
    (from..operations.len())
        .chain(0..from)
        .find(|index| fits(&operations[*index]))
}

fn change_value(response: &mut Response, another: &Operation) {
    let Call::Put { key, value } = &another.call else {
        return;
    };
    let modified = another.response.as_ref().map(|response| response.revision);
    for item in response.items.iter_mut().filter(|item| item.key == *key) {
        item.value = value.clone();
        item.modified = modified.unwrap_or(item.modified);
    }
}
