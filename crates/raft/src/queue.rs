//! Proposal queue with deficit round robin over classes, by bytes, so that a busy class does not delay the others.
//!
//! # Invariants
//!
//! 1. Within a class the order is kept, also of requeued items.
//! 2. While others wait, a class gets no more than [`QUANTUM_BYTES`] (plus the excess of its last item) a round.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// Quantum of deficit round robin: bytes that a class may propose before the next one's turn.
const QUANTUM_BYTES: i64 = 16 << 10;

/// Most bytes of queued and in-flight commands.
pub(crate) const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Overhead of a command in bytes, so that many tiny ones are not free.
pub const COMMAND_BYTES: usize = 64;

/// Bounds of one entry; a single item larger than them makes an entry of its own. Bytes are counted as
/// [`Item::bytes`], so that they bound what an entry makes the machine do, too.
pub(crate) const ENTRY_COMMANDS_MAX: usize = 512;
pub(crate) const ENTRY_BYTES_MAX: usize = 256 << 10;

/// Commands that are proposed together, with the waiter for their results.
pub(crate) struct Item<W> {
    pub(crate) class: u64,
    pub(crate) commands: Vec<Bytes>,
    /// Weight in every bound.
    pub(crate) bytes: usize,
    pub(crate) waiter: W,
    /// Order of arrival, set by the queue.
    number: u64,
}

impl<W> Item<W> {
    pub(crate) fn new(class: u64, batch: CommandBatch, waiter: W) -> Self {
        Self {
            class,
            commands: batch.commands,
            bytes: batch.bytes,
            waiter,
            number: 0,
        }
    }
}

/// Commands that are proposed together, and their weight.
pub(crate) struct CommandBatch {
    pub(crate) commands: Vec<Bytes>,
    /// Weight in every bound.
    pub(crate) bytes: usize,
}

/// Returns the weight of commands without extra work.
pub(crate) fn weight(commands: &[Bytes]) -> usize {
    commands.iter().map(|command| command.len() + COMMAND_BYTES).sum()
}

/// Queue of items by class, with deficit round robin.
pub(crate) struct ProposalQueue<W> {
    classes: BTreeMap<u64, Class<W>>,
    /// Classes that have items, in round robin order; the first has its turn.
    round: VecDeque<u64>,
    /// Number of items ever pushed.
    count: u64,
}

struct Class<W> {
    items: VecDeque<Item<W>>,
    deficit: i64,
}

impl<W> Default for ProposalQueue<W> {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            round: VecDeque::new(),
            count: 0,
        }
    }
}

impl<W> ProposalQueue<W> {
    /// Adds an item to its class, and returns its number.
    pub(crate) fn push(&mut self, mut item: Item<W>) -> u64 {
        self.count += 1;
        item.number = self.count;
        self.class(item.class).items.push_back(item);
        self.count
    }

    /// Removes an item, if it is still queued. A class that is left without items keeps its turn, and loses it when it
    /// comes.
    pub(crate) fn withdraw(&mut self, class: u64, number: u64) -> Option<Item<W>> {
        let waiting = &mut self.classes.get_mut(&class)?.items;
        let place = waiting.binary_search_by_key(&number, |item| item.number).ok()?;
        waiting.remove(place)
    }

    /// Puts taken items back in their order.
    pub(crate) fn requeue(&mut self, items: Vec<Item<W>>) {
        for item in items {
            let waiting = &mut self.class(item.class).items;
            let place = waiting.partition_point(|other| other.number < item.number);
            waiting.insert(place, item);
        }
    }

    /// Takes all items.
    pub(crate) fn drain(&mut self) -> Vec<Item<W>> {
        self.round.clear();
        let classes = std::mem::take(&mut self.classes);
        classes.into_values().flat_map(|class| class.items).collect()
    }

    /// Takes the items of the next entry; none if the queue is empty.
    pub(crate) fn next_entry(&mut self) -> Vec<Item<W>> {
        let mut taken = Vec::new();
        let (mut commands, mut bytes) = (0, 0);
        while let Some(turn) = self.round.front().copied() {
            let class = self.classes.get_mut(&turn).expect("a turn belongs to a class");
            while class.deficit > 0
                && let Some(item) = class.items.front()
            {
                let fits =
                    commands + item.commands.len() <= ENTRY_COMMANDS_MAX && bytes + item.bytes <= ENTRY_BYTES_MAX;
                if !fits && !taken.is_empty() {
                    return taken;
                }
                commands += item.commands.len();
                bytes += item.bytes;
                class.deficit -= i64::try_from(item.bytes).unwrap_or(i64::MAX / 2);
                taken.extend(class.items.pop_front());
            }
            self.round.pop_front();
            if class.items.is_empty() {
                self.classes.remove(&turn);
            } else {
                class.deficit += QUANTUM_BYTES;
                self.round.push_back(turn);
            }
        }
        taken
    }

    fn class(&mut self, number: u64) -> &mut Class<W> {
        self.classes.entry(number).or_insert_with(|| {
            self.round.push_back(number);
            Class {
                items: VecDeque::new(),
                deficit: QUANTUM_BYTES,
            }
        })
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod queue_test;
