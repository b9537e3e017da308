//! Writer of rows that nobody reads yet, straight to the engine in bounded sorted batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::failed;
use crate::engine::{Engine, RowChange};
use crate::machine::MachineError;

/// Most bytes that are buffered for sorting.
const BUFFER_LEN_MAX: usize = 16 << 20;

/// Writer of rows in any order. They become visible at any time before [`BulkWriter::finish`] returns, and durable with
/// the next checkpoint.
pub struct BulkWriter {
    engine: Arc<dyn Engine>,
    rows: BTreeMap<Bytes, Option<Bytes>>,
    len: usize,
}

impl BulkWriter {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            rows: BTreeMap::new(),
            len: 0,
        }
    }

    /// Writes a row.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), MachineError> {
        self.len += key.len() + value.len();
        self.set(key, Some(value))
    }

    /// Removes a row that may have been written before.
    pub fn remove(&mut self, key: Bytes) -> Result<(), MachineError> {
        self.len += key.len();
        self.set(key, None)
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), MachineError> {
        self.rows.insert(key, value);
        match BUFFER_LEN_MAX <= self.len {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Writes the rest.
    pub fn finish(mut self) -> Result<(), MachineError> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), MachineError> {
        self.len = 0;
        let rows = std::mem::take(&mut self.rows).into_iter();
        let mut changes = rows.map(|(key, value)| RowChange { key, value });
        self.engine.write(&mut changes).map_err(failed("writing a snapshot"))
    }
}
