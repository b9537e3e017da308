//! The rows that a machine reads and writes: one ordered keyspace of bytes, the first byte of a key being its kind.
//!
//! A machine is given its rows as an argument. What is read here was written by entries applied before, so every
//! replica reads the same; only broken storage makes a read fail, and that stops the node.

pub mod chain;
pub mod change;
pub mod client;
pub mod current;
pub mod directory;
pub mod expiry;
pub mod feed;
pub mod feed_floor;
pub mod garbage;
pub mod kind;
#[cfg(test)]
pub(crate) mod memory;
mod place;
pub mod stream;
pub mod tenant;
pub mod view;

use std::ops::Range;

use bytes::Bytes;
pub use place::{COPY_LEN, Copy, PLACE_LEN, Place, after};

/// Storage could not be read; the node must stop, because another replica may read what this one could not.
#[derive(Debug, thiserror::Error)]
#[error("storage could not be read")]
pub struct Unreadable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Which end of a range comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the lowest key up.
    Ascending,
    /// From the highest key down.
    Descending,
}

/// A key and its value, or why they could not be read.
pub type Row = Result<(Bytes, Bytes), Unreadable>;

/// Rows to read.
pub trait Rows {
    /// Returns the value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable>;

    /// Returns the rows of a range of keys, end exclusive, lazily.
    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a>;
}

/// Rows to read and write. A write is seen by the next read; it becomes durable with the rest of its batch later.
pub trait RowsMut: Rows {
    /// Writes a row.
    fn put(&mut self, key: Bytes, value: Bytes);

    /// Writes a row whose key was never written before, or not since it was deleted. Such a row leaves nothing behind
    /// when it is deleted before it reached the disk; if the key is there after all, it may come back then.
    fn put_new(&mut self, key: Bytes, value: Bytes) {
        self.put(key, value);
    }

    /// Removes a row, if it is there.
    fn delete(&mut self, key: Bytes);
}
