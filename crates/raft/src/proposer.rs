//! Proposer of a group, which batches the commands of many callers into few entries.
//!
//! ```text
//!   propose ──> queue by class ──> entry ──> Raft ──> machine ──> InFlightEntry::complete ──> every caller's answers
//!                    ^                                                 │
//!                    └── requeue: rejected, certainly not proposed ────┘
//! ```
//!
//! An entry is made as soon as fewer than [`IN_FLIGHT_MAX`] are in flight, of the commands queued then: a lone command
//! goes at once, under load they share entries. No command waits for a batch to fill.
//!
//! # Invariants
//!
//! 1. Commands are proposed at most once; they are requeued only when openraft rejected them.
//! 2. Queued and in-flight bytes are bounded by [`QUEUE_BYTES_MAX`]; beyond it a proposal is rejected at once. A class
//!    holds no more than it leaves free, so that a new class finds room, however many others flood.
//! 3. Logged time does not go back in the entries of one node.
//! 4. A command whose deadline has passed is in no entry that is made afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use stead_state::codec::encode_entry;
use stead_types::GroupId;
use stead_types::planted::{self, Bug};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use crate::clock::GroupClock;
use crate::command_results::CommandResults;
use crate::error::{ProposeError, WriteRejection};
use crate::machine::{Raft, external_index};
use crate::proposal::Proposal;
use crate::queue::{CommandBatch, Item, ProposalQueue, QUEUE_BYTES_MAX, weight};
use crate::types::{Commands, Completion, TypeConfig};

/// Most entries in flight.
const IN_FLIGHT_MAX: usize = 4;

/// Most bytes of one proposal: what a class may hold while no other does. A larger one is always rejected.
pub const PROPOSAL_LEN_MAX: usize = QUEUE_BYTES_MAX / 2;

/// Class of an entry that only writes the logged time; no tenant has this number.
const TIME_CLASS: u64 = u64::MAX;

/// Interval of checks whether the logged time is to be written.
const TIME_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Proposer of one group, whose machine returns results of type `R`.
pub(crate) struct Proposer<R> {
    clock: Arc<GroupClock>,
    results: Arc<CommandResults<R>>,
    /// Delay before rejected commands are proposed again, and the time after which they fail.
    retry_delay: Duration,
    retry_timeout: Duration,
    state: Mutex<State<R>>,
    queued_bytes: Arc<Mutex<QueuedBytes>>,
    wake: Notify,
}

/// Bytes of queued and in-flight commands. Its lock may be taken under the state's, never the other way round.
#[derive(Debug, Default)]
struct QueuedBytes {
    bytes: usize,
    classes: BTreeMap<u64, usize>,
}

impl QueuedBytes {
    fn add(&mut self, class: u64, bytes: usize) -> bool {
        let own = self.classes.get(&class).copied().unwrap_or(0);
        let free = QUEUE_BYTES_MAX - self.bytes;
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

struct State<R> {
    queue: ProposalQueue<Waiter<R>>,
    in_flight: usize,
    paused_until: Option<Instant>,
    is_stopped: bool,
    logged_time: u64,
}

impl<R> Default for State<R> {
    fn default() -> Self {
        Self {
            queue: ProposalQueue::default(),
            in_flight: 0,
            paused_until: None,
            is_stopped: false,
            logged_time: 0,
        }
    }
}

/// Result of each command; `None` for an expired one.
type ProposalResult<R> = Result<Vec<Option<R>>, ProposeError>;

struct Waiter<R> {
    answer: oneshot::Sender<ProposalResult<R>>,
    /// One for each proposed command, if they have any.
    deadlines: Option<Vec<CommandDeadline>>,
    /// When openraft first rejected it for a retry.
    refused: Option<Instant>,
    _reservation: BytesReservation,
}

/// Deadline of one command.
#[derive(Clone, Copy)]
struct CommandDeadline {
    deadline: Instant,
    /// It has passed, and the command is removed from the item.
    is_late: bool,
}

/// Reservation of bytes against the bound, until their waiter has its result.
struct BytesReservation {
    queued_bytes: Arc<Mutex<QueuedBytes>>,
    class: u64,
    bytes: usize,
}

impl Drop for BytesReservation {
    fn drop(&mut self) {
        self.queued_bytes.lock().remove(self.class, self.bytes);
    }
}

impl<R: Send + 'static> Proposer<R> {
    pub(crate) fn new(
        clock: Arc<GroupClock>,
        results: Arc<CommandResults<R>>,
        retry_delay: Duration,
        retry_timeout: Duration,
    ) -> Self {
        Self {
            clock,
            results,
            retry_delay,
            retry_timeout,
            state: Mutex::default(),
            queued_bytes: Arc::default(),
            wake: Notify::new(),
        }
    }

    /// Proposes commands and returns the result of each.
    pub(crate) async fn propose(&self, class: u64, commands: Vec<Bytes>) -> Result<Vec<R>, ProposeError> {
        let bytes = weight(&commands);
        let (_, response) = self.enqueue(class, CommandBatch { commands, bytes }, None)?;
        let answers = response.await.unwrap_or(Err(ProposeError::Unknown))?;
        // Without deadlines nothing expires.
        Ok(answers.into_iter().flatten().collect())
    }

    /// Proposes commands until their deadlines, and returns the result of each that was proposed in time.
    pub(crate) async fn propose_by(&self, class: u64, proposals: Vec<Proposal>) -> ProposalResult<R> {
        let count = proposals.len();
        let Some(last) = proposals.iter().map(|proposal| proposal.deadline).max() else {
            return Ok(Vec::new());
        };
        let bytes = proposals.iter().map(Proposal::weight).sum();
        let due = |proposal: Proposal| {
            let due = CommandDeadline {
                deadline: proposal.deadline,
                is_late: false,
            };
            (proposal.command, due)
        };
        let (commands, dues) = proposals.into_iter().map(due).unzip();
        let (number, response) = self.enqueue(class, CommandBatch { commands, bytes }, Some(dues))?;
        match timeout_at(last, response).await {
            Ok(answer) => answer.unwrap_or(Err(ProposeError::Unknown)),
            Err(_) => match self.state.lock().queue.withdraw(class, number) {
                Some(_) => Ok(std::iter::repeat_with(|| None).take(count).collect()),
                None if planted::is(Bug::LateCalledUndone) => Ok(std::iter::repeat_with(|| None).take(count).collect()),
                None => Err(ProposeError::TimedOut),
            },
        }
    }

    fn enqueue(
        &self,
        class: u64,
        batch: CommandBatch,
        deadlines: Option<Vec<CommandDeadline>>,
    ) -> Result<(u64, oneshot::Receiver<ProposalResult<R>>), ProposeError> {
        let bytes = batch.bytes;
        if !self.queued_bytes.lock().add(class, bytes) {
            return Err(ProposeError::Overloaded);
        }
        let reservation = BytesReservation {
            queued_bytes: self.queued_bytes.clone(),
            class,
            bytes,
        };
        let (answer, response) = oneshot::channel();
        let waiter = Waiter {
            answer,
            deadlines,
            refused: None,
            _reservation: reservation,
        };
        let number = {
            let mut state = self.state.lock();
            if state.is_stopped {
                return Err(ProposeError::Stopped);
            }
            state.queue.push(Item::new(class, batch, waiter))
        };
        self.wake.notify_one();
        Ok((number, response))
    }

    /// Rejects the queued and all further proposals.
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
            while let Some((entry, in_flight_entry)) = self.next_entry() {
                let responder = Completion::new(move |outcome| in_flight_entry.complete(outcome));
                // If this fails Raft has stopped, and the waiters of the dropped entry get `Unknown`.
                if raft.client_write_ff(Commands(entry), Some(responder)).await.is_err() {
                    self.stop();
                    return;
                }
            }
        }
    }

    /// Writes the logged time periodically, in entries of its own while nothing else is written, so that it survives a
    /// restart of all nodes.
    pub(crate) async fn write_time(self: Arc<Self>, group: GroupId) {
        let mut ticks = interval(TIME_LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.clock.is_entry_due()
                && let Err(error) = self.propose(TIME_CLASS, Vec::new()).await
            {
                tracing::debug!(%group, %error, "cannot write the logged time");
            }
        }
    }

    fn next_entry(self: &Arc<Self>) -> Option<(Bytes, InFlightEntry<R>)> {
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
            // Nothing is proposed for callers that are gone, or whose deadline has passed.
            items.retain(|item| !item.waiter.answer.is_closed());
            let now = Instant::now();
            let late = items.extract_if(.., |item| !is_in_time(item, now));
            answer(late.collect(), Vec::new());
        }
        state.in_flight += 1;
        state.logged_time = state.logged_time.max(self.clock.time_for_entry());
        let time = state.logged_time;
        drop(state);
        let commands: Vec<Bytes> = items.iter().flat_map(|item| item.commands.iter().cloned()).collect();
        let in_flight_entry = InFlightEntry {
            proposer: self.clone(),
            items,
        };
        Some((encode_entry(time, &commands), in_flight_entry))
    }
}

/// Items of one entry in flight. Dropped without results when Raft stops.
struct InFlightEntry<R> {
    proposer: Arc<Proposer<R>>,
    items: Vec<Item<Waiter<R>>>,
}

impl<R> InFlightEntry<R> {
    fn complete(self, outcome: ClientWriteResult<TypeConfig>) {
        let outcome = outcome.map_err(WriteRejection::from);
        let results = outcome.map(|done| self.proposer.results.take(external_index(done.log_id.index)));
        self.finish(results);
    }

    fn finish(mut self, outcome: Result<Vec<R>, WriteRejection>) {
        let items = std::mem::take(&mut self.items);
        match outcome {
            Ok(answers) => answer(items, answers),
            Err(WriteRejection::Final(_)) if planted::is(Bug::ProposedTwice) => self.requeue(items),
            Err(WriteRejection::Final(error)) => {
                for item in items {
                    drop(item.waiter.answer.send(Err(error)));
                }
            }
            Err(WriteRejection::Retry) => self.requeue(items),
        }
    }

    fn requeue(&self, mut items: Vec<Item<Waiter<R>>>) {
        let now = Instant::now();
        for item in &mut items {
            item.waiter.refused.get_or_insert(now);
        }
        let retry_timeout = self.proposer.retry_timeout;
        let is_over = |item: &Item<Waiter<R>>| item.waiter.refused.is_some_and(|since| now - since >= retry_timeout);
        let (over, again): (Vec<_>, Vec<_>) = items.into_iter().partition(is_over);
        let mut state = self.proposer.state.lock();
        let stopped = if state.is_stopped {
            again
        } else {
            state.queue.requeue(again);
            state.paused_until = Some(now + self.proposer.retry_delay);
            Vec::new()
        };
        drop(state);
        for item in over.into_iter().chain(stopped) {
            drop(item.waiter.answer.send(Err(ProposeError::NotLeader { leader: None })));
        }
    }
}

impl<R> Drop for InFlightEntry<R> {
    fn drop(&mut self) {
        self.proposer.state.lock().in_flight -= 1;
        self.proposer.wake.notify_one();
    }
}

/// Drops the expired commands of an item, and tells whether any is left.
fn is_in_time<R>(item: &mut Item<Waiter<R>>, now: Instant) -> bool {
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

fn answer<R>(items: Vec<Item<Waiter<R>>>, answers: Vec<R>) {
    let mut answers = answers.into_iter();
    for item in items {
        let own: Vec<R> = answers.by_ref().take(item.commands.len()).collect();
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
