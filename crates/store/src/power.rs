//! Simulated power supply and free space of a disk in memory, shared by its log and its rows.
//!
//! Real storage loses power between any two writes, of any file. A simulation moves in steps, and a node writes much
//! within one: so the power goes off after a number of operations, and the simulation crashes the node after the step.
//!
//! # Invariants
//!
//! 1. Once the power is off nothing is written and nothing becomes durable.
//! 2. On a full disk nothing is written; earlier writes can become durable.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

/// Power supply and free space, checked before each write and sync of a disk in memory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Power(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Operations until the power is off.
    left: Option<u64>,
    is_full: bool,
}

impl State {
    fn take(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Power {
    /// Counts a write; an error if the power is off or the disk is full.
    pub(crate) fn write(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.take()?;
        if state.is_full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// Counts a sync; an error if the power is off.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.lock().take()
    }

    /// Switches the power off after this many operations.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.0.lock().left = Some(operations);
    }

    /// Tells whether the power is off.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().left == Some(0)
    }

    /// Switches the power on.
    pub(crate) fn on(&self) {
        self.0.lock().left = None;
    }

    /// Fills the disk, or frees space again.
    pub(crate) fn fill(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }
}
