//! The power and the room of a disk in memory, which its log and its rows share.
//!
//! Real storage loses power between any two writes, of whichever file. A simulation moves in steps, and within one a node
//! writes much: so the power goes off after a number of operations, and the simulation crashes the node behind the step.
//!
//! # Invariants
//!
//! 1. Once the power is off nothing is written and nothing becomes durable.
//! 2. On a full disk nothing is written; what was written before can become durable.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

/// What the log and the rows of a disk in memory ask before each operation that changes something. Clones share it.
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
    /// Counts a write; an error if there is no power, or no room.
    pub(crate) fn write(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.take()?;
        if state.is_full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// Counts a sync; an error if there is no power.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.lock().take()
    }

    /// Switches the power off after so many operations.
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

    /// Fills the disk, or makes room again.
    pub(crate) fn fill(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }
}
