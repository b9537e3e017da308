//! Writes rows that nobody reads yet straight to the engine, in bounded sorted batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::failed;
use crate::engine::{Change, Engine};
use crate::machine::Failed;

/// Most bytes that wait in memory to be sorted.
const FILL_LEN_MAX: usize = 16 << 20;

/// Writes rows in any order. They are seen at any time before [`Filler::finish`], durable after the next checkpoint.
pub struct Filler {
    engine: Arc<dyn Engine>,
    rows: BTreeMap<Bytes, Option<Bytes>>,
    len: usize,
}

impl Filler {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            rows: BTreeMap::new(),
            len: 0,
        }
    }

    /// Writes a row.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Failed> {
        self.len += key.len() + value.len();
        self.set(key, Some(value))
    }

    /// Removes a row that was written before, if it was.
    pub fn remove(&mut self, key: Bytes) -> Result<(), Failed> {
        self.len += key.len();
        self.set(key, None)
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), Failed> {
        self.rows.insert(key, value);
        match FILL_LEN_MAX <= self.len {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Ends writing.
    pub fn finish(mut self) -> Result<(), Failed> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.len = 0;
        let rows = std::mem::take(&mut self.rows).into_iter();
        let mut changes = rows.map(|(key, value)| Change { key, value });
        self.engine.write(&mut changes).map_err(failed("writing a snapshot"))
    }
}
