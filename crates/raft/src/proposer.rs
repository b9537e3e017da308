//! Packs the commands of many callers into few entries.
//!
//! ```text
//!   propose ──> queue by class ──> entry ──> Raft ──> machine ──> Flight::complete ──> every caller's answers
//!                    ^                                                 │
//!                    └── put back: certainly not proposed, not yet ────┘
//! ```
//!
//! An entry is made as soon as fewer than [`IN_FLIGHT_MAX`] are under way, of whatever waits then: alone a command
//! goes at once, under load they travel together. Nothing lingers.
//!
//! # Invariants
//!
//! 1. Commands are proposed at most once; they are put back only when openraft says that they were not.
//! 2. What waits and what is under way is bounded by [`BYTES_MAX`]; beyond it a caller is turned away at once. A class
//!    holds no more than what it leaves free, so that whoever comes finds room, however many others flood.
//! 3. Logged time does not go back in the entries of one node.
//! 4. A command whose deadline has passed is no part of an entry that is made afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use stead_state::codec::frame;
use stead_store::machine::Answer;
use stead_types::planted::{self, Bug};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock::GroupClock;
use crate::error::{ProposeError, Refusal};
use crate::proposal::Proposal;
use crate::queue::{Item, Queue, weight};
use crate::types::{Commands, Completion, Raft, TypeConfig};

/// Most entries under way at once.
const IN_FLIGHT_MAX: usize = 4;

/// Most bytes of commands that wait or are under way.
const BYTES_MAX: usize = 32 << 20;

/// Most bytes that can be proposed together: what a class may hold while nobody else does. More never finds room.
pub const PROPOSAL_LEN_MAX: usize = BYTES_MAX / 2;

/// Whose turn an entry takes that only writes the time down; no tenant has this number.
const TIME_CLASS: u64 = u64::MAX;

/// Proposes for one group.
pub(crate) struct Proposer {
    clock: Arc<GroupClock>,
    /// How long to wait before commands that were not proposed are proposed again, and for how long at most.
    pause: Duration,
    patience: Duration,
    state: Mutex<State>,
    held: Mutex<Held>,
    wake: Notify,
}

/// Bytes that wait or are under way. Its lock may be taken under the state's, never the other way round.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    classes: BTreeMap<u64, usize>,
}

impl Held {
    fn add(&mut self, class: u64, bytes: usize) -> bool {
        let own = self.classes.get(&class).copied().unwrap_or(0);
        let free = BYTES_MAX - self.bytes;
        if own.checked_add(bytes).is_none_or(|own| own > free) {
            return false;
        }
        self.bytes += bytes;
        self.classes.insert(class, own + bytes);
        true
    }

    fn remove(&mut self, class: u64, bytes: usize) {
        self.bytes -= bytes;
        if let Some(own) = self.classes.get_mut(&class) {
            *own -= bytes;
            if *own == 0 {
                self.classes.remove(&class);
            }
        }
    }
}

#[derive(Default)]
struct State {
    queue: Queue<Waiter>,
    in_flight: usize,
    paused_until: Option<Instant>,
    is_stopped: bool,
    logged_time: u64,
}

/// The answer to each command; none to one that was late.
type Answers = Result<Vec<Option<Answer>>, ProposeError>;

struct Waiter {
    answer: oneshot::Sender<Answers>,
    /// One for each command that was asked for, if they have any.
    deadlines: Option<Vec<Due>>,
    /// When openraft first refused it as not yet possible.
    refused: Option<Instant>,
    _charge: Charge,
}

#[derive(Clone, Copy)]
struct Due {
    deadline: Instant,
    /// It has passed, and the command is not among those of the item any more.
    is_late: bool,
}

/// Bytes that count against the bound until their waiter has been answered.
struct Charge {
    proposer: Arc<Proposer>,
    class: u64,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.proposer.held.lock().remove(self.class, self.bytes);
    }
}

impl Proposer {
    pub(crate) fn new(clock: Arc<GroupClock>, pause: Duration, patience: Duration) -> Self {
        Self {
            clock,
            pause,
            patience,
            state: Mutex::default(),
            held: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Proposes commands and returns the answer to each.
    pub(crate) async fn propose(
        self: &Arc<Self>,
        class: u64,
        commands: Vec<Bytes>,
    ) -> Result<Vec<Answer>, ProposeError> {
        let bytes = weight(&commands);
        let (_, answered) = self.enqueue(class, (commands, bytes), None)?;
        let answers = answered.await.unwrap_or(Err(ProposeError::Unknown))?;
        // Without deadlines nothing is late.
        Ok(answers.into_iter().flatten().collect())
    }

    /// Writes the time down in an entry of its own.
    pub(crate) async fn propose_time(self: &Arc<Self>) -> Result<(), ProposeError> {
        self.propose(TIME_CLASS, Vec::new()).await.map(drop)
    }

    /// Proposes commands as long as they are wanted, and returns the answer to each that was proposed in time.
    pub(crate) async fn propose_by(self: &Arc<Self>, class: u64, proposals: Vec<Proposal>) -> Answers {
        let count = proposals.len();
        let Some(last) = proposals.iter().map(|proposal| proposal.deadline).max() else {
            return Ok(Vec::new());
        };
        let bytes = proposals.iter().map(Proposal::weight).sum();
        let due = |proposal: Proposal| {
            let due = Due {
                deadline: proposal.deadline,
                is_late: false,
            };
            (proposal.command, due)
        };
        let (commands, dues) = proposals.into_iter().map(due).unzip();
        let (number, answered) = self.enqueue(class, (commands, bytes), Some(dues))?;
        match timeout_at(last, answered).await {
            Ok(answer) => answer.unwrap_or(Err(ProposeError::Unknown)),
            Err(_) => match self.state.lock().queue.withdraw(class, number) {
                Some(_) => Ok(std::iter::repeat_with(|| None).take(count).collect()),
                None if planted::is(Bug::LateCalledUndone) => Ok(std::iter::repeat_with(|| None).take(count).collect()),
                None => Err(ProposeError::TimedOut),
            },
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        class: u64,
        (commands, bytes): (Vec<Bytes>, usize),
        deadlines: Option<Vec<Due>>,
    ) -> Result<(u64, oneshot::Receiver<Answers>), ProposeError> {
        if !self.held.lock().add(class, bytes) {
            return Err(ProposeError::Overloaded);
        }
        let charge = Charge {
            proposer: self.clone(),
            class,
            bytes,
        };
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter {
            answer,
            deadlines,
            refused: None,
            _charge: charge,
        };
        let number = {
            let mut state = self.state.lock();
            if state.is_stopped {
                return Err(ProposeError::Stopped);
            }
            state.queue.push(Item::new(class, (commands, bytes), waiter))
        };
        self.wake.notify_one();
        Ok((number, answered))
    }

    /// Turns away what waits, and all that comes.
    pub(crate) fn stop(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.is_stopped = true;
            state.queue.drain()
        };
        for item in waiting {
            drop(item.waiter.answer.send(Err(ProposeError::Stopped)));
        }
    }

    /// Makes entries for as long as the group runs.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft) {
        loop {
            self.wake.notified().await;
            let paused = self.state.lock().paused_until.take();
            if let Some(until) = paused {
                sleep_until(until).await;
            }
            while let Some((entry, flight)) = self.next_entry() {
                let responder = Completion::new(move |outcome| flight.complete(outcome));
                // Where this fails Raft has stopped, and the dropped flight answers.
                if raft.client_write_ff(Commands(entry), Some(responder)).await.is_err() {
                    self.stop();
                    return;
                }
            }
        }
    }

    fn next_entry(self: &Arc<Self>) -> Option<(Bytes, Flight)> {
        let mut state = self.state.lock();
        if state.in_flight >= IN_FLIGHT_MAX || state.paused_until.is_some() {
            return None;
        }
        let mut items = Vec::new();
        while items.is_empty() {
            items = state.queue.next_entry();
            if items.is_empty() {
                return None;
            }
            // Nothing is proposed for those who have gone away, or whose time is over.
            items.retain(|item| !item.waiter.answer.is_closed());
            let now = Instant::now();
            let late = items.extract_if(.., |item| !is_in_time(item, now));
            answer(late.collect(), Vec::new());
        }
        state.in_flight += 1;
        state.logged_time = state.logged_time.max(self.clock.for_entry());
        let time = state.logged_time;
        drop(state);
        let commands: Vec<Bytes> = items.iter().flat_map(|item| item.commands.iter().cloned()).collect();
        let flight = Flight {
            proposer: self.clone(),
            items,
        };
        Some((frame(time, &commands), flight))
    }
}

/// The items of one entry that is under way. Dropped unanswered when Raft stops.
struct Flight {
    proposer: Arc<Proposer>,
    items: Vec<Item<Waiter>>,
}

impl Flight {
    fn complete(self, outcome: ClientWriteResult<TypeConfig>) {
        let outcome = outcome.map_err(Refusal::from);
        self.finish(outcome.map(|done| done.data.into_inner()));
    }

    fn finish(mut self, outcome: Result<Vec<Answer>, Refusal>) {
        let items = std::mem::take(&mut self.items);
        match outcome {
            Ok(answers) => answer(items, answers),
            Err(Refusal::Final(_)) if planted::is(Bug::ProposedTwice) => self.put_back(items),
            Err(Refusal::Final(error)) => {
                for item in items {
                    drop(item.waiter.answer.send(Err(error)));
                }
            }
            Err(Refusal::NotYet) => self.put_back(items),
        }
    }

    fn put_back(&self, mut items: Vec<Item<Waiter>>) {
        let now = Instant::now();
        for item in &mut items {
            item.waiter.refused.get_or_insert(now);
        }
        let patience = self.proposer.patience;
        let is_over = |item: &Item<Waiter>| item.waiter.refused.is_some_and(|since| now - since >= patience);
        let (over, again): (Vec<_>, Vec<_>) = items.into_iter().partition(is_over);
        let mut state = self.proposer.state.lock();
        let stopped = if state.is_stopped {
            again
        } else {
            state.queue.put_back(again);
            state.paused_until = Some(now + self.proposer.pause);
            Vec::new()
        };
        drop(state);
        for item in over.into_iter().chain(stopped) {
            drop(item.waiter.answer.send(Err(ProposeError::NotLeader { leader: None })));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.proposer.state.lock().in_flight -= 1;
        self.proposer.wake.notify_one();
    }
}

/// Drops the commands of an item whose deadline has passed, and tells whether any is left.
fn is_in_time(item: &mut Item<Waiter>, now: Instant) -> bool {
    let Some(dues) = &mut item.waiter.deadlines else {
        return true;
    };
    let has_late = dues.iter().any(|due| !due.is_late && due.deadline <= now);
    if has_late {
        let mut commands = std::mem::take(&mut item.commands).into_iter();
        for due in dues.iter_mut().filter(|due| !due.is_late) {
            due.is_late = due.deadline <= now;
            item.commands.extend(commands.next().filter(|_| !due.is_late));
        }
    }
    !item.commands.is_empty()
}

fn answer(items: Vec<Item<Waiter>>, answers: Vec<Answer>) {
    let mut answers = answers.into_iter();
    for item in items {
        let own: Vec<Answer> = answers.by_ref().take(item.commands.len()).collect();
        let is_whole = own.len() == item.commands.len();
        debug_assert!(is_whole, "the machine answers every command");
        let mut own = own.into_iter();
        let answers = match &item.waiter.deadlines {
            None => own.map(Some).collect(),
            Some(dues) => dues
                .iter()
                .map(|due| if due.is_late { None } else { own.next() })
                .collect(),
        };
        let outcome = if is_whole {
            Ok(answers)
        } else {
            Err(ProposeError::Unknown)
        };
        drop(item.waiter.answer.send(outcome));
    }
}

#[cfg(test)]
#[path = "proposer_test.rs"]
mod proposer_test;
