//! Random histories of a correct store, and mutations of them that may make them wrong.
//!
//! A list of steps drives a few sessions. Each step moves one session on: it sends a call, the call happens at one
//! instant, its answer returns. Calls may lose their answers before or after they have happened, and happen later.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::script::revision;
use crate::history::{Answer, Call, History, Item, Level, Operation};

const SESSIONS: usize = 4;

/// One step: which session, what it does if it sends something, which key.
pub(crate) type Step = (usize, u8, u8);

/// One change of an answer: which operation, which other, what.
pub(crate) type Mutation = (usize, usize, u8);

/// Steps for short histories, which orders can be tried on.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..SESSIONS, any::<u8>(), any::<u8>()), 0..60)
}

/// A mutation of any history.
pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    (any::<usize>(), any::<usize>(), 0..6_u8)
}

/// Returns what a correct store answers in these steps.
pub(crate) fn history(steps: &[Step], with_deletes: bool) -> History {
    let mut store = Store {
        with_deletes,
        states: vec![BTreeMap::new()],
        ..Store::default()
    };
    for step in steps {
        store.step(*step);
    }
    History::new(store.operations)
}

#[derive(Default)]
struct Store {
    with_deletes: bool,
    clock: u64,
    operations: Vec<Operation>,
    /// What each session waits for: the operation, and its answer once it has happened.
    waiting: [Option<(usize, Option<Answer>)>; SESSIONS],
    /// The highest revision that each session was told.
    tokens: [u64; SESSIONS],
    /// Writes that lost their answers and have not happened.
    lost: Vec<usize>,
    /// The keys as of each revision.
    states: Vec<BTreeMap<Bytes, Item>>,
}

impl Store {
    fn step(&mut self, (session, kind, key): Step) {
        self.clock += 1;
        if kind % 16 == 15
            && let Some(lost) = self.lost.pop()
        {
            self.happen(lost, session, key);
            return;
        }
        match self.waiting[session].take() {
            None => {
                let call = self.call(kind, key);
                self.operations.push(Operation {
                    session: session as u32,
                    invoked: self.clock,
                    call,
                    answer: None,
                });
                self.waiting[session] = Some((self.operations.len() - 1, None));
            }
            Some((operation, None)) if kind % 16 == 0 => self.lost.push(operation),
            Some((operation, None)) => {
                let answer = self.happen(operation, session, key);
                self.waiting[session] = Some((operation, Some(answer)));
            }
            Some((_, Some(_))) if kind % 16 == 0 => {}
            Some((operation, Some(answer))) => {
                self.tokens[session] = self.tokens[session].max(answer.revision.sequence().get());
                self.operations[operation].answer = Some(Answer {
                    returned: self.clock,
                    ..answer
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

    /// Lets a call happen: a change makes a state, a read sees one.
    fn happen(&mut self, operation: usize, session: usize, old: u8) -> Answer {
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
            return Answer {
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
        Answer {
            returned: 0,
            revision: revision(seen),
            changed,
            items: shown.cloned().collect(),
        }
    }
}

/// Returns the history with one answer, or one interval, changed.
pub(crate) fn mutate(history: &History, (one, other, kind): Mutation) -> History {
    let mut operations = history.operations().to_vec();
    let answered = |operation: &Operation| {
        operation
            .answer
            .as_ref()
            .is_some_and(|a| kind > 2 || !a.items.is_empty())
    };
    let Some(one) = pick(&operations, one, answered) else {
        return history.clone();
    };
    let key = operations[one]
        .answer
        .iter()
        .flat_map(|answer| &answer.items)
        .map(|item| item.key.clone())
        .next();
    let fits = |operation: &Operation| match &operation.call {
        Call::Put { key: own, .. } => kind > 2 || Some(own) == key.as_ref(),
        Call::Delete { .. } | Call::Get { .. } | Call::Scan { .. } => kind > 2 && operation.answer.is_some(),
    };
    let Some(other) = pick(&operations, other, fits) else {
        return history.clone();
    };
    let another = operations[other].clone();
    let operation = &mut operations[one];
    let (invoked, returned) = (operation.invoked, operation.returned());
    match (kind, &mut operation.answer, &another.answer) {
        (0, Some(answer), _) => {
            answer.items.pop();
        }
        (1 | 2, Some(answer), _) => change_value(answer, &another),
        (3, Some(answer), Some(theirs)) => answer.revision = theirs.revision,
        (4, Some(answer), Some(theirs)) if invoked < theirs.returned => answer.returned = theirs.returned,
        (5, _, _) if another.invoked < returned => operation.invoked = another.invoked,
        _ => {}
    }
    History::new(operations)
}

/// Returns the first operation from a position on, around the end, that will do.
fn pick(operations: &[Operation], from: usize, will_do: impl Fn(&Operation) -> bool) -> Option<usize> {
    let from = from.checked_rem(operations.len())?;
    (from..operations.len())
        .chain(0..from)
        .find(|index| will_do(&operations[*index]))
}

fn change_value(answer: &mut Answer, another: &Operation) {
    let Call::Put { key, value } = &another.call else {
        return;
    };
    let modified = another.answer.as_ref().map(|answer| answer.revision);
    for item in answer.items.iter_mut().filter(|item| item.key == *key) {
        item.value = value.clone();
        item.modified = modified.unwrap_or(item.modified);
    }
}
