//! Check, in debug builds, against a read of a machine nested in another read of it.

use std::cell::RefCell;

thread_local! {
    /// The machines that this thread is reading, by address.
    static READ: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Guard of one read of a machine by this thread.
pub(super) struct ReentrancyCheck(usize);

impl ReentrancyCheck {
    /// Registers a read.
    ///
    /// # Panics
    ///
    /// If this thread is already reading the same machine.
    pub(super) fn new(machine: usize) -> Self {
        READ.with_borrow_mut(|read| {
            assert!(!read.contains(&machine), "nested read of a machine");
            read.push(machine);
        });
        Self(machine)
    }
}

impl Drop for ReentrancyCheck {
    fn drop(&mut self) {
        READ.with_borrow_mut(|read| read.retain(|machine| *machine != self.0));
    }
}
