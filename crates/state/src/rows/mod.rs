//! Rows that a machine reads and writes: one ordered keyspace of bytes, the first byte of a key being its kind.
//!
//! A machine gets its rows as an argument. What it reads was written by entries applied before, so every replica
//! reads the same; only broken storage makes a read fail, and that stops the node.

pub mod chain;
pub mod change;
pub mod client;
pub mod current;
pub mod directory;
pub mod directory_view;
pub mod expiry;
pub mod feed;
pub mod feed_floor;
pub mod garbage;
pub mod kind;
#[cfg(test)]
pub(crate) mod memory;
mod prefix;
pub mod stream;
pub mod tenant;

use std::ops::Range;

use bytes::Bytes;
pub use prefix::{COPY_PREFIX_LEN, CopyPrefix, GROUP_PREFIX_LEN, GroupPrefix, prefix_end};

/// Error of storage that could not be read. The node must stop, because another replica may be able to read it.
#[derive(Debug, thiserror::Error)]
#[error("storage could not be read")]
pub struct Unreadable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Order in which a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the lowest key up.
    Ascending,
    /// From the highest key down.
    Descending,
}

/// A key and its value, or the error of reading them.
pub type Row = Result<(Bytes, Bytes), Unreadable>;

/// Read access to rows.
pub trait Rows {
    /// Returns the value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable>;

    /// Returns the rows of a range of keys, end exclusive, lazily.
    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a>;
}

/// Read and write access to rows. A write is visible to the next read; it becomes durable later, with the rest of its
/// batch.
pub trait RowsMut: Rows {
    /// Writes a row.
    fn put(&mut self, key: Bytes, value: Bytes);

    /// Writes a row whose key was never written before, or not since it was deleted. Such a row leaves no tombstone
    /// when it is deleted before it reached the disk; if the key exists after all, the old row may reappear then.
    fn put_new(&mut self, key: Bytes, value: Bytes) {
        self.put(key, value);
    }

    /// Deletes a row, if it exists.
    fn delete(&mut self, key: Bytes);
}
