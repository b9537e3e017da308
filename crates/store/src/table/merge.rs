//! Merge iterator over the layers of a table: for each key the topmost layer that has it.

use std::iter::Peekable;

use bytes::Bytes;
use stead_state::rows::{Order, Row};

/// Rows of one memtable in order; `None` is a tombstone.
pub(super) type Layer<'a> = Box<dyn Iterator<Item = (&'a Bytes, Option<&'a Bytes>)> + 'a>;

/// Merge iterator over memtables, topmost first, with the engine's rows below them.
pub(super) struct Merge<'a> {
    layers: Vec<Peekable<Layer<'a>>>,
    engine: Peekable<Box<dyn Iterator<Item = Row> + 'a>>,
    order: Order,
}

impl<'a> Merge<'a> {
    pub(super) fn new(layers: Vec<Layer<'a>>, engine: Box<dyn Iterator<Item = Row> + 'a>, order: Order) -> Self {
        Self {
            layers: layers.into_iter().map(Iterator::peekable).collect(),
            engine: engine.peekable(),
            order,
        }
    }

    /// Returns the first key of the memtables.
    fn first_in_memory(&mut self) -> Option<&'a Bytes> {
        let order = self.order;
        let heads = self
            .layers
            .iter_mut()
            .filter_map(|layer| layer.peek().map(|(key, _)| *key));
        heads.reduce(|first, key| if precedes(order, key, first) { key } else { first })
    }

    /// Takes a key off all memtables and returns the value of the topmost.
    fn take(&mut self, key: &Bytes) -> Option<&'a Bytes> {
        let mut topmost = None;
        for layer in &mut self.layers {
            if let Some((_, value)) = layer.next_if(|(head, _)| *head == key) {
                topmost.get_or_insert(value);
            }
        }
        topmost.flatten()
    }
}

impl Iterator for Merge<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            let Some(key) = self.first_in_memory() else {
                return self.engine.next();
            };
            match self.engine.peek() {
                Some(Err(_)) => return self.engine.next(),
                Some(Ok((below, _))) if precedes(self.order, below, key) => return self.engine.next(),
                Some(Ok((below, _))) if below == key => drop(self.engine.next()),
                Some(Ok(_)) | None => {}
            }
            if let Some(value) = self.take(key) {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

fn precedes(order: Order, one: &Bytes, other: &Bytes) -> bool {
    match order {
        Order::Ascending => one < other,
        Order::Descending => one > other,
    }
}
