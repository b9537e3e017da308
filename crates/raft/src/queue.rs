//! What waits to be proposed, by class: classes take turns, weighed by bytes, so that one that has much to write does
//! not hold up the others.
//!
//! # Invariants
//!
//! 1. Within a class nothing overtakes, also when it was put back.
//! 2. While others wait, a class gets no more than [`TURN_BYTES`] (and what its last item is longer) a round.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// What a class may propose before the next one's turn.
const TURN_BYTES: i64 = 16 << 10;

/// What a command costs beyond its bytes: so many tiny ones are not free.
pub const COMMAND_BYTES: usize = 64;

/// Bounds of one entry; a single item larger than them makes an entry of its own. Bytes are counted as
/// [`Item::bytes`], so that they bound what an entry makes the machine do, too.
pub(crate) const ENTRY_COMMANDS_MAX: usize = 512;
pub(crate) const ENTRY_BYTES_MAX: usize = 256 << 10;

/// Commands that are proposed together, and who waits for their answers.
pub(crate) struct Item<W> {
    pub(crate) class: u64,
    pub(crate) commands: Vec<Bytes>,
    /// What it counts for in every bound.
    pub(crate) bytes: usize,
    pub(crate) waiter: W,
    /// The order in which items came; given by the queue.
    number: u64,
}

impl<W> Item<W> {
    pub(crate) fn new(class: u64, (commands, bytes): (Vec<Bytes>, usize), waiter: W) -> Self {
        Self {
            class,
            commands,
            bytes,
            waiter,
            number: 0,
        }
    }
}

/// What commands count for that do no more than their bytes tell.
pub(crate) fn weight(commands: &[Bytes]) -> usize {
    commands.iter().map(|command| command.len() + COMMAND_BYTES).sum()
}

/// Items by class.
pub(crate) struct Queue<W> {
    classes: BTreeMap<u64, Class<W>>,
    /// Classes that have items; the first has its turn.
    turns: VecDeque<u64>,
    /// How many items ever came.
    count: u64,
}

struct Class<W> {
    items: VecDeque<Item<W>>,
    credit: i64,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            turns: VecDeque::new(),
            count: 0,
        }
    }
}

impl<W> Queue<W> {
    /// Adds an item behind its class, and returns its number.
    pub(crate) fn push(&mut self, mut item: Item<W>) -> u64 {
        self.count += 1;
        item.number = self.count;
        self.class(item.class).items.push_back(item);
        self.count
    }

    /// Takes an item out, if it still waits. A class that is left without items keeps its turn, and loses it when it
    /// comes.
    pub(crate) fn withdraw(&mut self, class: u64, number: u64) -> Option<Item<W>> {
        let waiting = &mut self.classes.get_mut(&class)?.items;
        let place = waiting.binary_search_by_key(&number, |item| item.number).ok()?;
        waiting.remove(place)
    }

    /// Puts items back that were taken, where they were.
    pub(crate) fn put_back(&mut self, items: Vec<Item<W>>) {
        for item in items {
            let waiting = &mut self.class(item.class).items;
            let place = waiting.partition_point(|other| other.number < item.number);
            waiting.insert(place, item);
        }
    }

    /// Takes everything.
    pub(crate) fn drain(&mut self) -> Vec<Item<W>> {
        self.turns.clear();
        let classes = std::mem::take(&mut self.classes);
        classes.into_values().flat_map(|class| class.items).collect()
    }

    /// Takes the items of the next entry; none if nothing waits.
    pub(crate) fn next_entry(&mut self) -> Vec<Item<W>> {
        let mut taken = Vec::new();
        let (mut commands, mut bytes) = (0, 0);
        while let Some(turn) = self.turns.front().copied() {
            let class = self.classes.get_mut(&turn).expect("a turn belongs to a class");
            while class.credit > 0
                && let Some(item) = class.items.front()
            {
                let fits =
                    commands + item.commands.len() <= ENTRY_COMMANDS_MAX && bytes + item.bytes <= ENTRY_BYTES_MAX;
                if !fits && !taken.is_empty() {
                    return taken;
                }
                commands += item.commands.len();
                bytes += item.bytes;
                class.credit -= i64::try_from(item.bytes).unwrap_or(i64::MAX / 2);
                taken.extend(class.items.pop_front());
            }
            self.turns.pop_front();
            if class.items.is_empty() {
                self.classes.remove(&turn);
            } else {
                class.credit += TURN_BYTES;
                self.turns.push_back(turn);
            }
        }
        taken
    }

    fn class(&mut self, number: u64) -> &mut Class<W> {
        self.classes.entry(number).or_insert_with(|| {
            self.turns.push_back(number);
            Class {
                items: VecDeque::new(),
                credit: TURN_BYTES,
            }
        })
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod queue_test;
