//! Linearizability checker for one register by search over orders (Wing and Gong, with Lowe's cache of visited states).
//!
//! Exponential in the number of operations that overlap: used for short histories, for keys with deletes, and as the
//! oracle in tests of the faster checkers.

use std::collections::HashSet;

use bytes::Bytes;

use super::Violation;
use crate::history::{Action, Event};

/// Steps after which the search ends without a result.
const STEPS_MAX: usize = 5_000_000;

/// Checks whether one register explains these events.
pub fn check_key(key: &Bytes, events: &[Event]) -> Option<Violation> {
    let mut search = Search {
        events,
        done: vec![0; events.len().div_ceil(64)],
        tried: HashSet::new(),
        steps: 0,
    };
    match search.run() {
        Some(true) => None,
        Some(false) => Some(Violation::NotLinearizable { key: key.clone() }),
        None => Some(Violation::SearchLimitReached { key: key.clone() }),
    }
}

struct Search<'a> {
    events: &'a [Event],
    done: Vec<u64>,
    tried: HashSet<(Vec<u64>, Option<usize>)>,
    steps: usize,
}

/// Frame of the search's stack: the register's value at a point of the order, and which event is tried next.
struct Frame {
    value: Option<usize>,
    next: usize,
    /// No event sent after this instant can come next: another has returned by then.
    deadline: u64,
    /// The event that led here.
    by: Option<usize>,
}

impl Search<'_> {
    /// Returns whether there is an order, `None` at the step limit. The stack is explicit: histories are long.
    fn run(&mut self) -> Option<bool> {
        let Some(first) = self.frame(None, None) else {
            return Some(true);
        };
        let mut path = vec![first];
        while let Some(frame) = path.last_mut() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            let candidate = frame.next;
            if self
                .events
                .get(candidate)
                .is_none_or(|event| event.invoked > frame.deadline)
            {
                let by = path.pop().and_then(|frame| frame.by);
                if let Some(by) = by {
                    self.done[by / 64] ^= 1 << (by % 64);
                }
                continue;
            }
            frame.next += 1;
            let Some(value) = self.after(candidate, frame.value) else {
                continue;
            };
            self.done[candidate / 64] ^= 1 << (candidate % 64);
            if !self.tried.insert((self.done.clone(), value)) {
                self.done[candidate / 64] ^= 1 << (candidate % 64);
                continue;
            }
            match self.frame(value, Some(candidate)) {
                Some(frame) => path.push(frame),
                None => return Some(true),
            }
        }
        Some(false)
    }

    /// Returns the frame after the events that are done, or `None` if every event that returned is done.
    fn frame(&self, value: Option<usize>, by: Option<usize>) -> Option<Frame> {
        let mut left = self
            .events
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.is_done(*index))
            .peekable();
        let next = left.peek().map_or(self.events.len(), |(index, _)| *index);
        let deadline = left
            .filter(|(_, event)| !event.is_open())
            .map(|(_, event)| event.returned)
            .min()?;
        Some(Frame {
            value,
            next,
            deadline,
            by,
        })
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] & (1 << (index % 64)) != 0
    }

    /// Returns the register's value after the event, or `None` if it cannot come here.
    fn after(&self, candidate: usize, value: Option<usize>) -> Option<Option<usize>> {
        if self.is_done(candidate) {
            return None;
        }
        match self.events[candidate].action {
            Action::Write(written) => Some(Some(written)),
            // Removing an absent key makes no change: the response would have said so.
            Action::Clear => (value.is_some() || self.events[candidate].is_open()).then_some(None),
            Action::Read(seen) => (seen == value).then_some(value),
        }
    }
}
